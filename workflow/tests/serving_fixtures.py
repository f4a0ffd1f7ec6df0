"""One very small random backbone and one real vLLM server for the whole test session.

A start costs half a minute, so every test that needs the real engine shares this one; it
starts when the first of them asks. `engine_server` is a `RunningBackbone`; tests make their own
`Engine` on it, because an async client belongs to one event loop.
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import pytest

from blockwise.config.backbones import Backbone, RandomModel, VllmEngine
from blockwise.models.prepare import PreparedModel, prepare_model
from blockwise.models.renderer import Renderer
from blockwise.serving.devices import LOCK_FOLDER_VARIABLE
from blockwise.serving.server import Server, managed_server
from processes import ENGINE, group_of

NAME = "tiny"
WINDOW_TOKENS = 8192


@dataclass(frozen=True)
class RunningBackbone:
    """A backbone with everything that a client of it needs."""

    name: str
    backbone: Backbone
    model: PreparedModel
    server: Server
    renderer: Renderer


def tiny_backbone(**changes) -> Backbone:
    """A backbone of two narrow layers; `changes` replace keys of its configuration."""
    values = {
        "model": RandomModel(
            source="random",
            hidden_size=128,
            intermediate_size=256,
            num_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            vocab_size=2048,
        ),
        "architecture": "dense",
        "reasoning": False,
        "num_parameters": 1e6,
        "context_window_tokens": WINDOW_TOKENS,
        "engine": VllmEngine(
            kind="vllm",
            arguments={"enforce-eager": True},
            environment={"VLLM_CPU_KVCACHE_SPACE": "1"},
            startup_timeout_s=300,
        ),
        **changes,
    }
    return Backbone.model_validate(values)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> PreparedModel:
    """The model files of the tiny backbone, made once."""
    return prepare_model(NAME, tiny_backbone(), tmp_path_factory.mktemp("models") / NAME)


@pytest.fixture(scope="session")
def tiny_renderer(tiny_model) -> Renderer:
    return Renderer(tiny_model.tokenizer_path)


@pytest.fixture(scope="session")
def server_log_path(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("server") / "server.log"


@pytest.fixture(scope="session")
def engine_server(request, tiny_model, tiny_renderer, server_log_path, tmp_path_factory):
    """The one real server of the session.

    Its device lock is its own: a test may run the workflow, which takes the user's lock,
    while this server lives.
    """
    users = [item.path for item in request.session.items if "engine_server" in item.fixturenames]
    assert {group_of(path) for path in users} == {ENGINE}, "two processes could start a server each"
    backbone = tiny_backbone()
    running = managed_server(NAME, backbone, tiny_model, server_log_path, print)
    with contextlib.ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(LOCK_FOLDER_VARIABLE, str(tmp_path_factory.mktemp("locks")))
            server = stack.enter_context(running)
        yield RunningBackbone(NAME, backbone, tiny_model, server, tiny_renderer)
