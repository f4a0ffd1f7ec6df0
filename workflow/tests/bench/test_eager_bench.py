"""The benchmark of workers sent ahead: every arm does the same work, ratios are of one round."""

import asyncio
from dataclasses import replace

import pytest

from blockwise.bench import eager
from blockwise.bench.client import InstantEngine
from blockwise.bench.eager import (
    ARMS,
    BLOCK_SIZE_TOKENS,
    NUM_DOCUMENTS,
    WORKER_TOKENS,
    documents,
    figures_of,
    play,
)


class SlowEngine(InstantEngine):
    """Takes a millisecond for a token it decodes."""

    async def complete(self, request, *, max_attempts=1):
        decode_s = request.max_tokens / 1000
        await asyncio.sleep(decode_s)
        answer = await super().complete(request, max_attempts=max_attempts)
        return replace(answer, ttft_s=0.001, wall_s=0.001 + decode_s)


@pytest.fixture
def played(tiny_renderer):
    async def all_arms():
        return {
            arm.name: await play(
                SlowEngine(tiny_renderer), tiny_renderer, arm, documents(1), WORKER_TOKENS / 1000
            )
            for arm in ARMS
        }

    return asyncio.run(all_arms())


def test_every_arm_compacts_and_eager_with_waits_hardly_stalls(played):
    assert all(one.stalls_s for one in played.values())
    assert all(len(one.ttfts_s) == NUM_DOCUMENTS for one in played.values())
    sequential, parallel, _, eager_compact, _, waiting = (played[arm.name] for arm in ARMS)
    assert sequential.num_workers == len(sequential.stalls_s)
    assert parallel.num_workers > len(parallel.stalls_s)
    assert eager_compact.num_workers == parallel.num_workers
    assert waiting.stalls_s[0] < 0.5 * sequential.stalls_s[0]


def test_what_is_left_at_the_end_is_waste(played):
    assert played[ARMS[1].name].wasted_tokens == 0
    assert played[ARMS[3].name].wasted_tokens % WORKER_TOKENS == 0


def test_ratios_are_of_one_round(played):
    figures = figures_of([played, played])
    stall = figures[0]
    assert stall.name.startswith("stall, parallel, open block summarised over sequential")
    expected = played[ARMS[1].name].stalls_s[0] / played[ARMS[0].name].stalls_s[0]
    assert len(set(stall.rounds)) == 1
    if len(played[ARMS[0].name].stalls_s) == 1:
        assert stall.median == pytest.approx(expected)
    assert {one.unit for one in figures[:-3]} == {"x"}
    unlike = [one for one in figures if one.name.startswith("first summaries unlike")]
    assert [one.median for one in unlike] == [0.0, 0.0]  # an engine double knows no batches


def test_the_worker_volume_is_that_of_each_and_sequential_has_the_sum():
    rules = [eager.rule_of(arm) for arm in ARMS]
    assert {rule.volume_tokens for rule in rules} == {WORKER_TOKENS}
    assert {rule.volume_block_size_tokens for rule in rules} == {BLOCK_SIZE_TOKENS}
