"""How a backbone's vLLM server is called: its flags and its environment, and nothing that runs it.

Flags that the measurements rest on (prefix caching, cached tokens in the usage, the engine's
own times, batched streaming, the window) are set here for every backbone; `engine.arguments`
adds to them and may override all but those that tie the server to us.
"""

import os
import sys
from collections.abc import Mapping
from typing import Any

from blockwise.config.backbones import ArgumentValue, Backbone, VllmEngine
from blockwise.models.machine_dtype import cpu_dtype
from blockwise.models.prepared_model import PreparedModel

HOST = "127.0.0.1"

STREAM_INTERVAL_TOKENS = 64
"""Tokens per streamed event. One event a token costs the engine's own cores time on a small
machine. TTFT does not depend on it: the first token is sent at once whatever the interval
(vLLM 0.32, v1/engine/output_processor.py, `make_request_output`), and we take the engine's own."""

ENVIRONMENT = {
    # Everything a server needs is on this machine by now: no look-up may hang or change it.
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_HOST_IP": HOST,  # it asks the network for its own address otherwise
}

THREAD_LIMITS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "GOTO_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
"""Variables that Snakemake sets to a job's threads. vLLM keeps one core for itself and binds
its worker to the others; with more OpenMP threads than bound cores they spin against each
other and decoding is about thirty times slower, so a server never inherits them."""


OWN_KEY = "VLLM_API_KEY"
"""vLLM would ask for it; ours answers this machine alone, and no client of it has a key."""


def measured_flags(backbone: Backbone) -> dict[str, ArgumentValue]:
    """Flags that can change a measurement, as they are in effect for this backbone."""
    arguments = _vllm(backbone).flags()
    arguments.pop("port", None)
    return {
        "enable-prefix-caching": True,
        "enable-prompt-tokens-details": True,
        "enable-per-request-metrics": True,
        "seed": 0,
        "stream-interval": STREAM_INTERVAL_TOKENS,
        **({} if backbone.gpus else {"dtype": cpu_dtype()}),
        **_sampling_flags(backbone),
        **arguments,
    }


def _sampling_flags(backbone: Backbone) -> dict[str, ArgumentValue]:
    """Flags without which seeded sampling kills vLLM 0.32 on the CPU.

    After a partial prefill it rewinds a request's random generator, which CPU generators
    cannot ("CPU Generator does not use offset"), and the engine dies. Whole prefills avoid it.
    """
    if backbone.gpus or not backbone.request.temperature:
        return {}
    return {
        "enable-chunked-prefill": False,
        "max-num-batched-tokens": backbone.context_window_tokens,
    }


def vllm_command(
    name: str, backbone: Backbone, model: PreparedModel, start_id: str, port: int
) -> list[str]:
    """Command line of the server.

    It answers to the backbone's name and to `start_id`, which nobody else's server knows.
    """
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", model.path]
    if model.revision is not None:
        command += ["--revision", model.revision]
    command += ["--served-model-name", name, start_id, "--host", HOST, "--port", str(port)]
    command += ["--max-model-len", str(backbone.context_window_tokens)]
    for flag, value in measured_flags(backbone).items():
        command += _flag(flag, value)
    return command


def vllm_environment(backbone: Backbone, devices: Mapping[str, str]) -> dict[str, str]:
    """Environment of the server; `engine.environment` has the last word."""
    left_out = {*THREAD_LIMITS, OWN_KEY}
    inherited = {key: value for key, value in os.environ.items() if key not in left_out}
    return {**inherited, **ENVIRONMENT, **devices, **_vllm(backbone).environment}


def pinned_port(backbone: Backbone) -> int | None:
    """The port that `engine.arguments` pins, or None."""
    port: Any = _vllm(backbone).arguments.get("port")
    return None if port is None else int(port)


def _flag(flag: str, value: ArgumentValue) -> list[str]:
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    return [f"--{flag}", str(value)]


def _vllm(backbone: Backbone) -> VllmEngine:
    assert isinstance(backbone.engine, VllmEngine)
    return backbone.engine
