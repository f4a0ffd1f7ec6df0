"""What a backbone takes and a device gives: bytes, FLOPs, bandwidth; assumed where unknown."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from blockwise.config.backbones import Backbone, HubModel, RandomModel
from blockwise.estimate.renderers import tokenizer_folder
from blockwise.run.job_resources import CPU_KV_VARIABLE, cpu_kv_gib
from blockwise.serving.vllm_command import measured_flags

GIB = 2**30
RESERVED_BYTES = 3 * GIB  # activations, CUDA graphs and context beside weights and KV cache
DEFAULT_UTILIZATION = 0.9  # vLLM's gpu-memory-utilization
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "half": 2}
CONFIG_FILE = "config.json"


@dataclass(frozen=True)
class Device:
    """One device. Units: bytes, FLOP/s, bytes/s, all as reached and not as advertised."""

    name: str
    memory_bytes: float
    flops: float
    bytes_per_s: float

    @property
    def words(self) -> str:
        """For the list of assumptions."""
        return (
            f"{self.name}: {self.memory_bytes / GIB:.0f} GiB, {self.flops / 1e12:.3g} TFLOP/s and "
            f"{self.bytes_per_s / 1e9:.0f} GB/s reached"
        )


MFU = 0.4  # of dense bf16 peak in prefill and training; 0.35 to 0.5 is usual on H100
BANDWIDTH_FRAC = 0.6  # of peak, in decoding
H100_GIB, H100_TFLOPS, H100_GB_PER_S = 79.0, 989.0, 3350.0
"""Source: NVIDIA H100 SXM data sheet, dense bf16; memory as the driver shows it."""
CORE_FLOPS, CORE_BYTES_PER_S = 1.2e11, 1.3e10
"""Of one core with AVX-512, in float32: Qwen2.5-Coder-0.5B read 145 tokens/s and decoded 6.3."""
RESERVED_CORES_VARIABLE = "VLLM_CPU_NUM_OF_RESERVED_CPU"
DEFAULT_RESERVED_CORES = 1  # vLLM's


def gpu(memory_gib: float, tflops: float, gb_per_s: float) -> Device:
    """A GPU by its data sheet."""
    name = f"a GPU ({tflops:.0f} TFLOP/s dense bf16, {gb_per_s:.0f} GB/s by its data sheet)"
    return Device(name, memory_gib * GIB, MFU * tflops * 1e12, BANDWIDTH_FRAC * gb_per_s * 1e9)


def cpu() -> Device:
    """One core of this machine, with all of its memory."""
    memory = psutil.virtual_memory().total
    return Device("a core of this machine's CPU", memory, CORE_FLOPS, CORE_BYTES_PER_S)


def num_devices(backbone: Backbone) -> int:
    """GPUs, or cores on which one server computes: all but those that vLLM keeps."""
    if backbone.gpus or backbone.engine.kind != "vllm":
        return max(1, backbone.gpus)
    kept = backbone.engine.environment.get(RESERVED_CORES_VARIABLE, "")
    cores = (psutil.cpu_count(logical=False) or 1) // backbone.engine.num_replicas
    return max(1, cores - (int(kept) if kept.isdigit() else DEFAULT_RESERVED_CORES))


@dataclass(frozen=True)
class ModelSize:
    """What serving and training pay for. Units: bytes; FLOPs follow from parameters."""

    weights_bytes: float
    active_parameters: float
    kv_bytes_per_token: float
    attention_size: int  # layers x heads x head size: FLOPs of attention are 4 x that x context
    source: str


KNOWN_SIZES = {
    "meta-llama/Llama-3.1-8B-Instruct": ModelSize(16.1e9, 8.0e9, 131_072, 131_072, "published"),
    "meta-llama/Llama-3.3-70B-Instruct": ModelSize(141e9, 70.6e9, 327_680, 655_360, "published"),
    "openai/gpt-oss-20b": ModelSize(13.8e9, 3.6e9, 49_152, 98_304, "published"),
    "openai/gpt-oss-120b": ModelSize(65.2e9, 5.1e9, 73_728, 147_456, "published"),
}
"""Source: config.json and model cards of the hub. Llama: bf16; 32 and 80 layers, 8 KV heads of 128.
gpt-oss: MXFP4 experts; 24 and 36 layers, 8 KV heads of 64. Half of gpt-oss's layers see 128 tokens
only; vLLM's hybrid cache may save their KV, which is not counted."""


def model_size(backbone: Backbone) -> ModelSize:
    """Sizes of a backbone: from its recipe, its files, what is published, or its parameters."""
    if isinstance(backbone.model, RandomModel):
        recipe = backbone.model
        heads = (recipe.num_attention_heads, recipe.num_key_value_heads)
        return _sized(
            backbone, recipe.num_layers, heads, recipe.hidden_size // heads[0], "its recipe"
        )
    folder = tokenizer_folder(backbone.model)
    if isinstance(backbone.model, HubModel) and backbone.model.id in KNOWN_SIZES:
        return KNOWN_SIZES[backbone.model.id]
    values = _config_of(folder) if folder is not None else {}
    if {"num_hidden_layers", "num_attention_heads", "hidden_size"} <= values.keys():
        num_heads = values["num_attention_heads"]
        return _sized(
            backbone,
            values["num_hidden_layers"],
            (num_heads, values.get("num_key_value_heads") or num_heads),
            values.get("head_dim") or values["hidden_size"] // num_heads,
            "its config.json",
        )
    # Llama's proportions: layers grow with the cube root of the parameters, 32 at 8B.
    num_layers = max(1, round(32 * (backbone.num_parameters / 8e9) ** (1 / 3)))
    return _sized(backbone, num_layers, (32, 8), 128, "assumed from num_parameters")


def _sized(
    backbone: Backbone, num_layers: int, heads: tuple[int, int], head_size: int, source: str
) -> ModelSize:
    width = value_bytes(backbone)
    return ModelSize(
        weights_bytes=width * backbone.num_parameters,
        active_parameters=backbone.num_parameters,
        kv_bytes_per_token=2 * num_layers * heads[1] * head_size * width,
        attention_size=num_layers * heads[0] * head_size,
        source=source,
    )


def value_bytes(backbone: Backbone) -> int:
    """Bytes of a weight and of a KV value; two unless the engine's dtype says otherwise."""
    flags = measured_flags(backbone) if backbone.engine.kind == "vllm" else {}
    return DTYPE_BYTES.get(str(flags.get("dtype")), 2)


def _config_of(folder: Path) -> dict[str, Any]:
    try:
        values = json.loads((folder / CONFIG_FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def kv_capacity_tokens(backbone: Backbone, size: ModelSize, device: Device) -> int | None:
    """Tokens that the KV cache will hold; None: somebody else runs the engine."""
    if backbone.engine.kind != "vllm":
        return None
    if not backbone.gpus:
        return int(cpu_kv_gib(backbone.engine) * GIB / size.kv_bytes_per_token)
    share = float(backbone.engine.flags().get("gpu-memory-utilization", DEFAULT_UTILIZATION))
    free = backbone.gpus * (share * device.memory_bytes - RESERVED_BYTES) - size.weights_bytes
    return max(0, int(free / size.kv_bytes_per_token))


def memory_problems(name: str, backbone: Backbone, size: ModelSize, device: Device) -> list[str]:
    """Whether weights and one window of KV cache fit, in words where they do not."""
    capacity = kv_capacity_tokens(backbone, size, device)
    if capacity is None:
        return []
    window = backbone.context_window_tokens
    window_gb = window * size.kv_bytes_per_token / 1e9
    needed = f"weights take {size.weights_bytes / 1e9:.3g} GB and a window of {window} tokens "
    needed += f"{window_gb:.3g} GB of KV cache ({size.source})"
    if not backbone.gpus:
        taken = size.weights_bytes + capacity * size.kv_bytes_per_token
        taken *= backbone.engine.num_replicas
        if capacity >= window and taken <= device.memory_bytes:
            return []
        given = f"{CPU_KV_VARIABLE} holds {capacity} tokens, the machine {device.memory_bytes:.3g}"
        return [f"memory: {name}: {needed}; {given} bytes; set {CPU_KV_VARIABLE} accordingly"]
    if capacity >= window:
        return []
    return [
        f"memory: {name}: {needed}; {backbone.gpus} GPU(s) of {device.memory_bytes / GIB:.0f} GiB "
        f"leave room for {capacity} tokens; raise gpus (and tensor-parallel-size) or lower "
        "context_window_tokens"
    ]
