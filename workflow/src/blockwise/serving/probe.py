"""The probe: what the server really does, measured on it before the first cell.

Every claim of a batch rests on facts that a server may quietly not grant: that the prefix cache
hits, that turns render stably, that its template is ours, that a seed means something. The
probe checks each with a few short requests and writes the answer into the engine card. A
property that merely limits what may be concluded is recorded; one without which every request
would be wrong ends the job here.
"""

import asyncio
import time
import uuid
from typing import Any

from blockwise.config.backbones import Backbone, ExternalEngine, VllmEngine
from blockwise.errors import EngineError
from blockwise.models.prepared_model import PreparedModel
from blockwise.models.renderer import Message
from blockwise.serving.client import ChatRequest, Completion, EngineClient
from blockwise.serving.endpoint_metrics import EngineMetrics
from blockwise.serving.engine_card import EngineCard
from blockwise.serving.http_json import HttpError, get_json, post_json
from blockwise.serving.running_server import Server
from blockwise.serving.vllm_command import measured_flags

NUM_DECODE_TOKENS = 48  # long enough to outweigh a short prompt, short enough to cost little
NUM_CONCURRENT = 8
MAX_ATTEMPTS = 2
ASSUMED_KV_BLOCK_TOKENS = 128  # the largest in use (vLLM on the CPU), for servers that do not say
MAX_HISTORY_TOKENS = 2048  # its half is further from its end than the windows of gpt-oss reach
SAMPLE_CONVERSATION: tuple[Message, ...] = (
    {"role": "system", "content": "Answer from the documents."},
    {"role": "user", "content": "Document 1. Mira Talon lives in Tarvos.\n\nWhere does she live?"},
    {"role": "assistant", "content": "In Tarvos."},
    {"role": "user", "content": "Document 2.  She moved to Belmar in 1987 \n"},
    {"role": "assistant", "content": "Noted: Belmar, since 1987."},
)


async def probe(
    engine: EngineClient,
    server: Server,
    backbone_name: str,
    backbone: Backbone,
    model: PreparedModel,
) -> EngineCard:
    """Measure and check a server.

    Raises:
        EngineError: it does not answer as agreed, or renders messages differently from us.
    """
    await asyncio.to_thread(_check_rendering, engine, server, backbone)
    await _decode_speed(engine, num_requests=1)  # warm-up, not counted
    decode_1 = await _decode_speed(engine, num_requests=1)
    decode_8 = await _decode_speed(engine, num_requests=NUM_CONCURRENT)
    metrics = await engine.metrics()
    repeated = await _repeat_prompt(engine, metrics)
    caching = (repeated.cached_tokens or 0) > 0
    prefix_break = engine.renderer.prefix_break(SAMPLE_CONVERSATION)
    return EngineCard(
        id=server.start_id,
        backbone=backbone_name,
        engine=await asyncio.to_thread(_engine_version, server, backbone),
        model_digest=model.digest,
        model=model.words,
        dtype=_dtype(backbone),
        context_window_tokens=engine.window_tokens,
        kv_cache_tokens=metrics.kv_cache_tokens if metrics else None,
        kv_block_tokens=metrics.kv_block_tokens if metrics else None,
        prefix_caching=caching,
        cut_history_cached=caching and await _finds_cut_history(engine),
        prefix_stable=prefix_break is None,
        prefix_break=prefix_break,
        request_form=backbone.request.form.value,
        decode_1_tokens_per_s=decode_1,
        decode_8_tokens_per_s=decode_8,
        seeded_output_batch_invariant=await _is_batch_invariant(engine),
        ttft_source=repeated.ttft_source,
        startup_s=server.startup_s,
        arguments=_arguments(backbone),
    )


def _question(topic: str) -> list[Message]:
    return [{"role": "user", "content": f"Tell me about {topic}."}]


async def _decode_speed(engine: EngineClient, num_requests: int) -> float:
    """Tokens per second of so many forced requests at once, in total, short prefills included."""
    start_s = time.perf_counter()
    completions = await asyncio.gather(
        *(
            engine.complete(
                ChatRequest(
                    messages=_question(f"town number {index}"),
                    max_tokens=NUM_DECODE_TOKENS,
                    min_tokens=NUM_DECODE_TOKENS,
                ),
                max_attempts=MAX_ATTEMPTS,
            )
            for index in range(num_requests)
        )
    )
    wall_s = time.perf_counter() - start_s
    return sum(completion.completion_tokens for completion in completions) / wall_s


async def _repeat_prompt(engine: EngineClient, metrics: EngineMetrics | None) -> Completion:
    """Ask the same prompt of about two KV blocks twice; the second answer."""
    kv_block_tokens = (metrics.kv_block_tokens if metrics else None) or ASSUMED_KV_BLOCK_TOKENS
    prompt = _new_text(engine, 2 * kv_block_tokens)
    await _read(engine, prompt)
    return await _read(engine, prompt)


async def _finds_cut_history(engine: EngineClient) -> bool:
    """Whether a prompt that is the first half of an earlier one finds itself in the cache.

    Where layers keep a sliding window the cache may hold the end of the earlier prompt only.
    """
    num_tokens = min(MAX_HISTORY_TOKENS, engine.window_tokens // 2)
    history = _new_text(engine, num_tokens)
    await _read(engine, history)
    end = engine.renderer.token_offsets(history)[num_tokens // 2][0]
    cut = await _read(engine, history[:end])
    return (cut.cached_tokens or 0) > 0


def _new_text(engine: EngineClient, num_tokens: int) -> str:
    """A text of about so many tokens that no request has held yet."""
    words = f"{uuid.uuid4().hex} " + "the town lies by the river " * num_tokens
    offsets = engine.renderer.token_offsets(words)
    return words[: offsets[min(num_tokens, len(offsets)) - 1][1]]


async def _read(engine: EngineClient, text: str) -> Completion:
    request = ChatRequest(messages=[{"role": "user", "content": text}], max_tokens=1)
    return await engine.complete(request, max_attempts=MAX_ATTEMPTS)


async def _is_batch_invariant(engine: EngineClient) -> bool:
    """Whether a seeded request gives the same text alone and among seven others."""

    async def ask(topic: str) -> Completion:
        return await engine.complete(
            ChatRequest(
                messages=_question(topic),
                max_tokens=NUM_DECODE_TOKENS,
                min_tokens=NUM_DECODE_TOKENS,
                seed=0,
            ),
            max_attempts=MAX_ATTEMPTS,
        )

    alone = await ask("the harbour")
    others = (f"street number {index}" for index in range(NUM_CONCURRENT - 1))
    together = await asyncio.gather(ask("the harbour"), *map(ask, others))
    return alone.text == together[0].text and alone.thinking_text == together[0].thinking_text


def _check_rendering(engine: EngineClient, server: Server, backbone: Backbone) -> None:
    """Compare our rendering of a conversation with the server's, token by token."""
    if isinstance(backbone.engine, ExternalEngine):
        return  # no agreed endpoint; the accounting check of every request stands in for it
    messages = list(SAMPLE_CONVERSATION[:-1])
    body: dict[str, Any] = {
        "model": server.served_model,
        "messages": messages,
        "add_generation_prompt": True,
        "chat_template_kwargs": dict(backbone.request.chat_template_arguments),
    }
    url = server.base_url.removesuffix("/v1") + "/tokenize"
    try:
        theirs = post_json(url, server.api_key, body)["tokens"]
    except (HttpError, KeyError, TypeError) as problem:
        raise EngineError(f"the server does not tokenize: {problem}; see its log") from problem
    ours = engine.renderer.render(messages, add_generation_prompt=True)
    if theirs != ours:
        same = next((i for i, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b), None)
        raise EngineError(
            f"the server renders a conversation to {len(theirs)} tokens, we to {len(ours)}, and "
            f"they differ from token {min(len(ours), len(theirs)) if same is None else same} on; "
            "make `model` and `request.chat_template_arguments` those of the server"
        )


def _engine_version(server: Server, backbone: Backbone) -> str:
    if isinstance(backbone.engine, ExternalEngine):
        return backbone.engine.version
    url = server.base_url.removesuffix("/v1") + "/version"
    try:
        return f"vllm {get_json(url, server.api_key)['version']}"
    except (HttpError, KeyError, TypeError) as problem:
        raise EngineError(f"the server does not tell its version: {problem}") from problem


def _dtype(backbone: Backbone) -> str | None:
    if not isinstance(backbone.engine, VllmEngine):
        return None
    dtype = measured_flags(backbone).get("dtype")
    return None if dtype is None else str(dtype)


def _arguments(backbone: Backbone) -> dict[str, Any]:
    engine = backbone.engine
    if isinstance(engine, VllmEngine):
        return {"flags": measured_flags(backbone), "environment": dict(engine.environment)}
    return {"served_model": engine.served_model}
