"""The compactor: all at once, merged in order, the history untouched by failure."""

import asyncio
import re

import pytest
from doubles import CachingEngine, CharRenderer
from hypothesis import given
from hypothesis import strategies as st

from blockwise.compaction.compactor import (
    CompactionRule,
    Compactor,
    split_exactly,
)
from blockwise.compaction.history import History, Turn
from blockwise.compaction.layouts import load_layout
from blockwise.compaction.partition import partition
from blockwise.errors import CompactionError

FENCED = re.compile(r"<TARGET_BLOCK \d+>\n(.*)\n</TARGET_BLOCK \d+>", re.DOTALL)
HISTORY = History.with_system_prompt("sys").extended(
    *(Turn(role, f"{role} {n} " * 5) for n in range(6) for role in ("user", "assistant"))
)


def rule(**changes):
    values = {
        "layout": "target_block",
        "block_size_tokens": 100,
        "boundary": "turn",
        "prompt": "Summarise {this} %s.",
        "volume_mode": "forced",
        "volume_tokens": 50,
        "last_turns": 0,
    }
    return CompactionRule(**{**values, **changes})


def compact(engine, history=HISTORY, **changes):
    compactor = Compactor(engine, CharRenderer(), rule(**changes))
    return asyncio.run(compactor.compact(history, cache_salt="salt", seed=1))


@given(st.integers(1, 5000), st.integers(1, 64))
def test_a_forced_volume_is_split_exactly(total, num_workers):
    if total < num_workers:
        with pytest.raises(CompactionError, match="raise the volume or the block size"):
            split_exactly(total, num_workers)
        return
    shares = split_exactly(total, num_workers)
    assert sum(shares) == total
    assert max(shares) - min(shares) <= 1


def test_summaries_are_merged_in_block_order_whatever_arrives_first():
    engine = CachingEngine(
        answer=lambda request: request.messages[-2]["content"][:12],
        delays=[0.05, 0.03, 0.01],
    )
    done = compact(engine, volume_mode="natural", volume_tokens=80)
    assert len(done.workers) == len(done.blocks) > 2
    wrapper = done.history.turns[1]
    assert done.history.turns[0] == HISTORY.turns[0]
    assert len(done.history.turns) == 2
    order = [wrapper.text.index(worker.text.strip()) for worker in done.workers]
    assert order == sorted(order)
    assert "Summarise" not in wrapper.text


def test_every_mode_leaves_the_same_shape():
    parallel = compact(CachingEngine(), last_turns=2)
    sequential = compact(CachingEngine(), layout="sequential", block_size_tokens=None, last_turns=2)
    for done in (parallel, sequential):
        roles = [turn.role for turn in done.history.turns]
        assert roles == ["system", "user", "user", "assistant"]
        assert done.history.turns[2:] == HISTORY.turns[-2:]
    assert len(sequential.blocks) == 1
    assert sum(b.num_tokens for b in parallel.blocks) == sequential.blocks[0].num_tokens


def test_forced_volume_is_equal_for_one_worker_and_many():
    for changes in ({}, {"layout": "sequential", "block_size_tokens": None}):
        done = compact(CachingEngine(), **changes)
        assert sum(worker.completion_tokens for worker in done.workers) == 50
        assert all(request.min_tokens == request.max_tokens for request in done.requests)


def test_a_failed_worker_is_retried_once_and_counted():
    engine = CachingEngine()
    engine.failures = [0, 1]
    done = compact(engine)
    assert [worker.num_retries for worker in done.workers][:2] == [0, 1]


def test_a_worker_that_fails_twice_fails_the_compaction_and_not_the_history():
    engine = CachingEngine()
    engine.failures = [0, 2]
    before = HISTORY.messages()
    with pytest.raises(CompactionError, match=r"request 1 failed 2 times.*history is unchanged"):
        compact(engine)
    assert HISTORY.messages() == before


def test_sequential_asks_inside_the_conversation_itself():
    engine = CachingEngine()
    compact(engine, layout="sequential", block_size_tokens=None)
    (request,) = engine.requests
    assert request.messages[:-1] == HISTORY.messages()
    assert request.messages[-1]["content"].endswith("Summarise {this} %s.")


@pytest.mark.parametrize("boundary", ["turn", "token"])
@pytest.mark.parametrize("block_size", [30, 77, 100, 10_000])
def test_target_block_marks_its_block_and_keeps_the_prefix(boundary, block_size):
    renderer = CharRenderer()
    own = renderer.render(HISTORY.messages(), False)
    blocks = partition(HISTORY, HISTORY.compactable(0), block_size, boundary, renderer)
    layout = load_layout("target_block").worker_messages
    covered = ""
    for index, block in enumerate(blocks):
        messages = layout(HISTORY, blocks, index, "P")
        text = "".join(message["content"] for message in messages[:-1])
        (inside,) = FENCED.findall(text)
        covered += inside
        request = renderer.render(messages, False)
        shared = next(n for n, (a, b) in enumerate(zip(request, own, strict=False)) if a != b)
        before = sum(b.num_tokens for b in blocks[:index])
        system_tokens = len(renderer.render(HISTORY.messages()[:1], False))
        header = 3 if block.start.char == 0 else 0  # the template's tokens of the marked turn
        assert shared == system_tokens + before + header
    assert covered == "".join(turn.text for turn in HISTORY.turns[1:])
