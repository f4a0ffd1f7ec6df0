"""What a server is started with: flags that measurements rest on, an environment that is ours."""

import pytest

from blockwise.compaction.plan import engine_identity
from blockwise.config.backbones import VllmEngine
from blockwise.models.prepared_model import PreparedModel
from blockwise.serving import vllm_command as vllm_module
from blockwise.serving.vllm_command import measured_flags, vllm_command, vllm_environment
from serving_fixtures import WINDOW_TOKENS, tiny_backbone

MODEL = PreparedModel(
    backbone="tiny", source="path", path="m", revision=None, tokenizer_path="m",
    digest="d", num_parameters=None,
)  # fmt: skip


def engine(**arguments):
    return VllmEngine(kind="vllm", arguments=arguments)


def test_flags_become_words():
    backbone = tiny_backbone(engine=engine(**{"enforce-eager": True, "log-requests": False,
                                              "block-size": 64}))  # fmt: skip
    command = vllm_command("tiny", backbone, MODEL, "start", 8123)
    assert "--enforce-eager" in command
    assert "--no-log-requests" in command
    assert command[command.index("--block-size") + 1] == "64"
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--max-model-len") + 1] == str(WINDOW_TOKENS)
    assert "--enable-prefix-caching" in command


def test_underscores_count_as_dashes_and_the_port_is_no_measurement():
    flags = measured_flags(tiny_backbone(engine=engine(stream_interval=1, port=8123)))
    assert flags["stream-interval"] == 1
    assert "stream_interval" not in flags
    assert "port" not in flags


@pytest.mark.parametrize(
    ("gpus", "arguments", "dtype"),
    [
        (0, {}, "float32"),
        (0, {"dtype": "bfloat16"}, "bfloat16"),
        (1, {}, None),
        (1, {"dtype": "half"}, "half"),
    ],
)
def test_the_type_of_number_is_the_machine_s_unless_it_is_said(monkeypatch, gpus, arguments, dtype):
    monkeypatch.setattr(vllm_module, "cpu_dtype", lambda: "float32")
    backbone = tiny_backbone(gpus=gpus, engine=engine(**arguments))
    assert measured_flags(backbone).get("dtype") == dtype
    assert engine_identity(backbone).flags.get("dtype") == dtype
    command = vllm_command("tiny", backbone, MODEL, "start", 8123)
    assert command.count("--dtype") == (dtype is not None)


def test_a_server_never_inherits_the_thread_limits_of_a_job(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setenv("UNRELATED", "kept")
    environment = vllm_environment(tiny_backbone(), {})
    assert "OMP_NUM_THREADS" not in environment
    assert environment["UNRELATED"] == "kept"
    asked = VllmEngine(kind="vllm", environment={"OMP_NUM_THREADS": "4"})
    assert vllm_environment(tiny_backbone(engine=asked), {})["OMP_NUM_THREADS"] == "4"


@pytest.mark.parametrize(("gpus", "temperature", "whole"), [(0, 0.0, False), (0, 0.7, True),
                                                            (1, 0.7, False)])  # fmt: skip
def test_sampling_on_the_cpu_prefills_whole_prompts(gpus, temperature, whole):
    backbone = tiny_backbone(gpus=gpus, request={"temperature": temperature})
    flags = measured_flags(backbone)
    assert (flags.get("enable-chunked-prefill") is False) == whole
    assert flags.get("max-num-batched-tokens") == (WINDOW_TOKENS if whole else None)
