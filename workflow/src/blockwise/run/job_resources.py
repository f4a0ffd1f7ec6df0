"""What a job asks of a cluster, worked out from the configuration so that nothing is typed twice.

GPUs and processes stand in the configuration; host memory follows from them and from the sizes
of models. On one machine nothing limits these resources and they do nothing.

Units: megabytes as Slurm counts them (2**20 bytes).
"""

import math
import re

from blockwise.config.backbones import Backbone, VllmEngine
from blockwise.config.corpora import BpeTokenizer, ByteTokenizer, Tokenizer
from blockwise.config.mxfp4 import MXFP4
from blockwise.config.pretrained import LayerErrorsExperiment, PretrainedExperiment
from blockwise.mxfp4.shared_passes import MAX_HELD_ARMS

MB = 2**20
GB_MB = 1024  # a gibibyte
SERVER_MB = 8 * GB_MB  # libraries, client, tokenizer: 2 GB beside the KV cache of a small one
GPU_PROCESS_MB = 16 * GB_MB  # a rank's CUDA context, pinned buffers and vLLM's 4 GiB of swap space
WEIGHT_BYTES = 2  # bf16, the widest that the papers' models are published in
CPU_WEIGHT_BYTES = 4  # float32
CPU_KV_VARIABLE = "VLLM_CPU_KVCACHE_SPACE"  # GiB, of a server on the CPU
CPU_KV_DEFAULT_GIB = 4.0  # vLLM's own
CHECKPOINT_BYTES = 12  # float32 weights and two moments of AdamW
CHECKPOINT_COPIES = 2  # gathered by the first process, and serialized
HUB_VOCABULARY, BYTE_VOCABULARY = 128_256, 256  # Llama 3's; bytes


def server_memory_mb(backbone: Backbone) -> int:
    """Host memory of a job that serves a backbone: its weights once, and each process's own."""
    if backbone.engine.kind != "vllm":
        return SERVER_MB
    if backbone.gpus:
        own = SERVER_MB + backbone.gpus * GPU_PROCESS_MB
        return own + math.ceil(WEIGHT_BYTES * backbone.num_parameters / MB)
    weights = math.ceil(CPU_WEIGHT_BYTES * backbone.num_parameters / MB)
    return SERVER_MB + math.ceil(cpu_kv_gib(backbone.engine) * GB_MB) + weights


def cpu_kv_gib(engine: VllmEngine) -> float:
    """GiB that a server on the CPU takes for its KV cache."""
    space = engine.environment.get(CPU_KV_VARIABLE, "")
    return float(space) if re.fullmatch(r"\d+(\.\d+)?", space) else CPU_KV_DEFAULT_GIB


def assumed_vocabulary(tokenizer: Tokenizer) -> int:
    """Words of a tokenizer as far as the configuration tells; of the hub's, a large one's."""
    match tokenizer:
        case ByteTokenizer():
            return BYTE_VOCABULARY
        case BpeTokenizer():
            return tokenizer.vocab_size
        case _:
            return HUB_VOCABULARY


def training_memory_mb(study: MXFP4) -> int:
    """Host memory of one node of a training job; the first holds a whole checkpoint, twice."""
    num_parameters = study.model.num_parameters(assumed_vocabulary(study.tokenizer))
    checkpoint = CHECKPOINT_COPIES * CHECKPOINT_BYTES * num_parameters / MB
    process_mb = GPU_PROCESS_MB if study.device == "cuda" else SERVER_MB // 4
    return math.ceil(checkpoint) + study.num_processes // study.num_nodes * process_mb


def pretrained_memory_mb(study: MXFP4, experiment: str) -> int:
    """Host memory of a measurement on a published model.

    It holds the model, and in float32 a sum of dW for every arm: of its share of the layers, or
    of all of them for a few arms at once and beside the first one's.
    """
    entry = study.experiments[experiment]
    assert isinstance(entry, PretrainedExperiment), experiment
    assert study.pretrained is not None, experiment
    num_arms = len(entry.all_arms())
    if isinstance(entry, LayerErrorsExperiment):
        copies = 1 + (1 + num_arms) / entry.num_parts
    else:
        copies = 3 + min(num_arms, MAX_HELD_ARMS)
    weights = CPU_WEIGHT_BYTES * study.pretrained.num_parameters / MB
    return math.ceil(copies * weights) + SERVER_MB // 4
