"""Prices of a server: measured by an earlier run, or assumed from sizes and device."""

import math
from typing import Any

from blockwise.config.backbones import Backbone
from blockwise.estimate.clock import Speed
from blockwise.estimate.earlier import EarlierRun
from blockwise.estimate.hardware import Device, ModelSize
from blockwise.serving.engine_card import EngineCard

GPU_STEP_S = 0.002  # kernels and scheduling of a step beside the weights' reading
CPU_STEP_S = 0.006  # measured on two cores with 8M parameters, eager
GPU_STEP_REQUEST_S = 5e-5  # sampling and scheduling of one more request
CPU_STEP_REQUEST_S = 6e-4  # measured: 160 tokens/s for one request, 750 for eight
GPU_REQUEST_S, CPU_REQUEST_S = 0.01, 0.03  # client, API server and queue
GPU_STARTUP_S, CPU_STARTUP_S = 240.0, 45.0  # a checkpoint from local disk and graphs; measured
GPU_KV_BLOCK_TOKENS, CPU_KV_BLOCK_TOKENS = 16, 128  # vLLM's


def speed_of(
    name: str, backbone: Backbone, size: ModelSize, device: Device, earlier: EarlierRun
) -> Speed:
    """What the earlier run measured of a backbone, else what its device should reach."""
    measured = earlier.speed(name)
    if measured is not None:
        return measured
    num_devices = max(1, backbone.gpus)
    flops, bytes_per_s = num_devices * device.flops, num_devices * device.bytes_per_s
    is_gpu = backbone.gpus > 0
    return Speed(
        # Experts of a mixture are all read once several requests run.
        step_s=(GPU_STEP_S if is_gpu else CPU_STEP_S) + size.weights_bytes / bytes_per_s,
        step_request_s=GPU_STEP_REQUEST_S if is_gpu else CPU_STEP_REQUEST_S,
        step_context_token_s=size.kv_bytes_per_token / bytes_per_s,
        prefill_token_s=2 * size.active_parameters / flops,
        # 4 FLOPs a pair of tokens; on average half of the prompt stands before a token.
        prefill_context_token_s=2 * size.attention_size / flops,
        request_s=GPU_REQUEST_S if is_gpu else CPU_REQUEST_S,
        startup_s=GPU_STARTUP_S if is_gpu else CPU_STARTUP_S,
        source=f"assumed: {device.words}",
    )


def expected_card(
    name: str, backbone: Backbone, kv_cache_tokens: int | None, earlier: EarlierRun
) -> EngineCard:
    """The card that the server will get, as far as the dry run asks for it."""
    measured = earlier.card(name)
    capacity = kv_cache_tokens
    block_tokens = GPU_KV_BLOCK_TOKENS if backbone.gpus else CPU_KV_BLOCK_TOKENS
    finds_cut = True
    if measured is not None:
        capacity = _whole(measured.get("kv_cache_tokens"), capacity)
        block_tokens = _whole(measured.get("kv_block_tokens"), block_tokens) or block_tokens
        finds_cut = bool(measured.get("cut_history_cached", True))
    return EngineCard(
        id="estimate",
        backbone=name,
        engine="none",
        model_digest="",
        context_window_tokens=backbone.context_window_tokens,
        kv_cache_tokens=capacity,
        kv_block_tokens=block_tokens,
        prefix_caching=True,
        cut_history_cached=finds_cut,
        prefix_stable=True,
        prefix_break=None,
        request_form=backbone.request.form.value,
        decode_1_tokens_per_s=1.0,
        decode_8_tokens_per_s=1.0,
        seeded_output_batch_invariant=True,
        startup_s=0.0,
        arguments={},
    )


def _whole(value: Any, otherwise: int | None) -> int | None:
    """A number of a table, where it has one."""
    is_number = isinstance(value, float | int) and math.isfinite(value)
    return int(value) if is_number else otherwise
