"""Prices of a server, and what a wave of requests costs at them.

Prefill: every uncached token, dearer the longer its prompt. Decode: a step gives one token to each
running request; it costs a fixed part (weights are read once), a part for each request, and one for
each token of context. Requests of a wave run beside each other, and beside those of the other
recall cells that the engine plays at once; so a wave takes its prefills one after the other and as
many steps as one of its places decodes tokens.
"""

import math
from dataclasses import dataclass, replace

from blockwise.config.backbones import Backbone
from blockwise.estimate.earlier import EarlierRun
from blockwise.estimate.hardware import Device, ModelSize, num_devices
from blockwise.estimate.walk import Cache, Wave

GPU_STEP_S = 0.002  # kernels and scheduling of a step beside the weights' reading
CPU_STEP_S = 0.006  # measured on two cores with 8M parameters, eager
GPU_STEP_REQUEST_S = 5e-5  # sampling and scheduling of one more request
CPU_STEP_REQUEST_S = 6e-4  # measured: 160 tokens/s for one request, 750 for eight
GPU_REQUEST_S, CPU_REQUEST_S = 0.01, 0.03  # client, API server and queue
GPU_STARTUP_S, CPU_STARTUP_S = 240.0, 45.0  # a checkpoint from local disk and graphs; measured
GPU_KV_BLOCK_TOKENS, CPU_KV_BLOCK_TOKENS = 16, 128  # vLLM's


@dataclass(frozen=True)
class Speed:
    """Prices of one server. Units: seconds."""

    step_s: float  # of a step, whatever it decodes
    step_request_s: float  # and for each running request
    step_context_token_s: float  # and for each token of context of each
    prefill_token_s: float
    prefill_context_token_s: float  # for each new token and each token of its prompt
    request_s: float  # client, network and queue, once for requests sent together
    startup_s: float
    source: str  # in words

    def prefill_s(self, wave: Wave) -> float:
        """Seconds in which the prompts of a wave are computed."""
        prompt_tokens = wave.prompt_tokens / max(1, wave.num_requests)
        per_token_s = self.prefill_token_s + prompt_tokens * self.prefill_context_token_s
        return wave.uncached_tokens * per_token_s

    def wave_s(self, wave: Wave, beside: int = 1, others: int = 0) -> float:
        """Seconds of a wave.

        Args:
            wave: its requests.
            beside: cells like its own that are played at once, this one included.
            others: further requests that run all the while.
        """
        if not wave.num_requests:
            return 0.0
        context_tokens = (wave.prompt_tokens + wave.decoded_tokens / 2) / wave.num_requests
        running = beside * wave.at_once + others
        step_s = self.step_s + running * (
            self.step_request_s + context_tokens * self.step_context_token_s
        )
        decode_s = wave.decoded_tokens / wave.at_once * step_s
        sent_s = math.ceil(wave.num_requests / wave.at_once) * self.request_s
        return beside * self.prefill_s(wave) + decode_s + sent_s


def speed_of(
    name: str, backbone: Backbone, size: ModelSize, device: Device, earlier: EarlierRun
) -> Speed:
    """What the earlier run measured of a backbone, else what its device should reach."""
    flops, bytes_per_s = (num_devices(backbone) * one for one in (device.flops, device.bytes_per_s))
    is_gpu = backbone.gpus > 0
    assumed = Speed(
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
    measured = earlier.prices(name)
    if not measured:
        return assumed
    known = "engine cards and timed requests" if "prefill_token_s" in measured else "engine cards"
    rest = "" if "prefill_token_s" in measured else f"; prefill {assumed.source}"
    return replace(assumed, **measured, source=f"{known} of {earlier.name}{rest}")


def cache_of(name: str, backbone: Backbone, earlier: EarlierRun) -> Cache:
    """The prefix cache that the server will have; parts are found where no card denies it."""
    card = earlier.card(name)
    assumed = GPU_KV_BLOCK_TOKENS if backbone.gpus else CPU_KV_BLOCK_TOKENS
    tokens, finds = card.get("kv_block_tokens", 0.0), card.get("cut_history_cached", 1.0)
    return Cache(int(tokens) or assumed, finds_cut_history=finds > 0)
