"""Layouts on the real engine: it caches what a request shares with the conversation."""

import asyncio

import pytest

from blockwise.compaction.agent import ACKNOWLEDGEMENT, SYSTEM_PROMPT
from blockwise.compaction.compactor import CompactionRule, Compactor
from blockwise.compaction.history import History, Turn
from blockwise.config.arms import SEQUENTIAL, known_layouts
from blockwise.serving.client import ChatRequest, EngineClient

pytestmark = pytest.mark.engine

NUM_DOCUMENTS = 6
BLOCK_SIZE_TOKENS = 512


def history_of(layout):
    """A conversation that no other layout has cached: its texts name the layout."""
    documents = (
        f"Document {n} for {layout}. " + f"Town {n} lies by river {n} since 19{n}0. " * 24
        for n in range(NUM_DOCUMENTS)
    )
    turns = ((Turn("user", text), Turn("assistant", ACKNOWLEDGEMENT)) for text in documents)
    return History.with_system_prompt(f"{layout}. {SYSTEM_PROMPT}").extended(
        *(turn for pair in turns for turn in pair)
    )


def num_shared(left, right):
    pairs = enumerate(zip(left, right, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(left), len(right)))


@pytest.mark.parametrize("layout", [SEQUENTIAL, *known_layouts()])
def test_cached_tokens_are_what_the_layout_says(engine_server, layout):
    renderer = engine_server.renderer
    history = history_of(layout)
    own_request = history.messages()[:-1]  # the last recorded answer was the reply to this
    rule = CompactionRule(
        layout=layout,
        block_size_tokens=None if layout == SEQUENTIAL else BLOCK_SIZE_TOKENS,
        boundary="turn",
        prompt="Summarise.",
        volume_mode="forced",
        volume_tokens=16,
        last_turns=0,
    )

    async def play():
        async with EngineClient(
            engine_server.server, engine_server.backbone, engine_server.renderer
        ) as engine:
            metrics = await engine.metrics()
            await engine.complete(ChatRequest(own_request, 1, 1))
            compactor = Compactor(engine, renderer, rule)
            return metrics, await compactor.compact(history, cache_salt=None, seed=0)

    metrics, done = asyncio.run(play())
    kv_block_tokens = metrics.kv_block_tokens
    cached_by_agent = renderer.render(own_request, add_generation_prompt=True)
    assert (len(done.workers) == 1) == (layout == SEQUENTIAL)
    prompts = [renderer.render(request.messages, True) for request in done.requests]
    for prompt, worker, untouched in zip(prompts, done.workers, done.untouched_tokens, strict=True):
        shared = num_shared(prompt, cached_by_agent)
        assert shared >= min(untouched, len(cached_by_agent))
        # A worker may also find what one that was scheduled before it has read.
        others = (num_shared(prompt, other) for other in prompts if other is not prompt)
        most = max([shared, *others])
        found = worker.cached_tokens
        assert shared // kv_block_tokens <= found / kv_block_tokens <= most // kv_block_tokens
