"""Eager sessions of the study: parallel's requests, sent before they are due, and paid for."""

import asyncio
import time
from collections import Counter
from dataclasses import replace

import pytest
from doubles import KV_BLOCK_TOKENS, CachingEngine
from hypothesis import given, settings
from hypothesis import strategies as st
from test_agent import make_session

from blockwise.compaction.play import Stage, play_cell
from blockwise.config.arms import Mode
from blockwise.errors import BlockwiseError, CompactionError
from cell_specs import cell
from record_factory import ENVIRONMENT, engine_card

CARD = engine_card(kv_block_tokens=KV_BLOCK_TOKENS)
EAGER = {"tau_tokens": 1400, "block_size_tokens": 300, "volume_tokens": 40, "is_eager": True,
         "volume_block_size_tokens": 300, "layout": "suffix_target",
         "tool_wait_s": 0.0005}  # fmt: skip
SEQUENTIAL = {"layout": "sequential", "block_size_tokens": None, "is_eager": False}
NUM_DOCUMENTS = 14


class YieldingEngine(CachingEngine):
    """Lets others run before it answers; `worker_s` is what a worker takes."""

    worker_s = 0.0

    async def complete(self, request, *, max_attempts=1):
        begin_s = time.perf_counter()
        await asyncio.sleep(self.worker_s if max_attempts > 1 else 0)
        answer = await super().complete(request, max_attempts=max_attempts)
        return replace(answer, started_at_s=begin_s, wall_s=time.perf_counter() - begin_s)


class SlowEngine(YieldingEngine):
    """A worker takes ten milliseconds."""

    worker_s = 0.01


def session_of(lengths, num_questions):
    """Documents of these lengths, each with so many questions."""
    whole = make_session(len(lengths), num_questions)
    documents = tuple(
        document.model_copy(update={"text": (document.text * 3)[:length]})
        for document, length in zip(whole.documents, lengths, strict=True)
    )
    return whole.model_copy(update={"documents": documents})


def played(engine=None, session=None, **changes):
    """The record of a session, and the requests that its engine got."""
    engine = engine or YieldingEngine(lambda _: "A summary.")
    stage = Stage(engine, engine.renderer, CARD, honours_cache_salt=True)
    spec, session = cell(**{**EAGER, **changes}), session or make_session(NUM_DOCUMENTS)
    record = asyncio.run(play_cell(stage, spec, session, ENVIRONMENT, ("block", 0)))
    return record, engine.requests


def worker_words(requests):
    """What workers were asked, without the salt of their cell."""
    asked = [request for request in requests if request.max_tokens == EAGER["volume_tokens"]]
    return sorted((str(one.messages), one.max_tokens, one.seed) for one in asked)


def taken(record):
    return [request for request in record.requests if request.role == "worker"]


@pytest.mark.parametrize("changes", [{}, {"open_block": "keep"}, {"layout": "target_block"}])
def test_an_eager_session_takes_what_parallel_would_ask(changes):
    eager, asked = played(**changes)
    parallel, expected = played(is_eager=False, **changes)
    assert [one.output_tokens for one in eager.compactions] == [
        one.output_tokens for one in parallel.compactions
    ]
    assert set(worker_words(expected)) <= set(worker_words(asked))
    num_unused = sum(one.role == "unused" for one in eager.requests)
    assert len(asked) == len(expected) + num_unused  # nothing is sent twice
    assert len(eager.compactions) >= 2
    for one in eager.compactions:
        assert one.num_ahead_workers == one.num_blocks - ("open_block" not in changes)
    assert all(one.num_ahead_workers == 0 for one in parallel.compactions)
    assert (eager.spec.mode, parallel.spec.mode) == (Mode.EAGER, Mode.PARALLEL)


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(40, 420), min_size=5, max_size=16),
    num_questions=st.integers(0, 2),
    last_turns=st.integers(0, 4),
    boundary=st.sampled_from(["turn", "token"]),
    keeps=st.booleans(),
    layout=st.sampled_from(["suffix_target", "target_block", "independent"]),
    most=st.sampled_from([None, 1]),
)
def test_of_any_session_eager_sends_parallels_requests(
    lengths, num_questions, last_turns, boundary, keeps, layout, most
):
    changes = {
        "last_turns": last_turns,
        "boundary": boundary,
        "layout": layout,
        "open_block": "keep" if keeps and boundary == "turn" else "compact",
        "tau_tokens": 1700,
    }
    session = session_of(lengths, num_questions)
    try:
        parallel, expected = played(None, session, is_eager=False, **changes)
    except CompactionError:  # these sizes do not shrink; eager finds the same
        with pytest.raises(CompactionError):
            played(None, session, **changes)
        return
    eager, asked = played(None, session, max_background_workers=most, **changes)
    assert Counter(worker_words(expected)) <= Counter(worker_words(asked))
    assert max(Counter(worker_words(asked)).values(), default=1) == 1
    assert [one.block_tokens for one in eager.compactions] == [
        one.block_tokens for one in parallel.compactions
    ]


def test_an_open_block_that_is_kept_stays_word_for_word():
    done, requests = played(open_block="keep")
    whole, _ = played()
    assert done.compactions[0].num_blocks == whole.compactions[0].num_blocks - 1
    first = done.compactions[0]
    after = next(
        request
        for request, record in zip(requests, done.requests, strict=False)
        if record.role == "agent" and record.turn_index == first.turn_index
    )
    kept = [message["content"] for message in after.messages[2:-1]]
    assert kept and all("document" in text.lower() for text in kept[::2])


def test_what_nobody_took_is_recorded_and_counted():
    done, requests = played(None, make_session(10))
    unused = [one for one in done.requests if one.role == "unused"]
    assert unused and all(one.completion_tokens == 40 for one in unused)
    assert len(requests) == len(done.requests)
    (reason,) = done.timing_invalid_reasons
    assert "preemptions not observable" in reason  # and nothing else: the double has no metrics


def test_sequential_decodes_what_all_workers_do():
    eager, _ = played()
    sequential, _ = played(**SEQUENTIAL)
    first, one_call = eager.compactions[0], sequential.compactions[0]
    assert one_call.num_blocks == 1
    assert one_call.output_tokens == first.output_tokens == 40 * first.num_blocks
    assert sequential.spec.frame == eager.spec.frame


def test_workers_that_had_time_stall_nobody():
    eager, _ = played(SlowEngine(), tool_wait_s=0.02, open_block="keep")
    parallel, _ = played(SlowEngine(), tool_wait_s=0.02, open_block="keep", is_eager=False)
    assert min(one.stall_s for one in parallel.compactions) > 0.01
    assert max(one.stall_s for one in eager.compactions) < 0.01
    assert all(one.background_s > 0.009 for one in eager.compactions)
    assert eager.waited_s == pytest.approx(0.02 * (NUM_DOCUMENTS - 1), rel=0.5)
    assert eager.wall_s > eager.waited_s


def test_only_so_many_run_before_a_compaction_is_due():
    running, most = [], []

    class Watching(YieldingEngine):
        async def complete(self, request, *, max_attempts=1):
            if max_attempts == 1:
                return await super().complete(request)
            running.append(request)
            most.append(len(running))
            await asyncio.sleep(0.001)
            running.remove(request)
            return await super().complete(request, max_attempts=max_attempts)

    done, _ = played(Watching(), max_background_workers=1, open_block="keep", tool_wait_s=0.0001)
    assert any(one.num_ahead_workers for one in done.compactions)
    free, _ = played(open_block="keep")
    assert [one.output_tokens for one in done.compactions] == [
        one.output_tokens for one in free.compactions
    ]


def test_a_worker_that_failed_ahead_is_sent_again_and_its_times_do_not_count():
    first = next(
        number
        for number, request in enumerate(played()[1])
        if request.max_tokens == EAGER["volume_tokens"]
    )
    failing = YieldingEngine()
    failing.failures = [0] * first + [9]
    done, _ = played(failing)
    assert not done.timing_valid
    assert "failed ahead: 1 workers" in "; ".join(done.timing_invalid_reasons)
    assert done.compactions[0].num_ahead_workers == done.compactions[0].num_blocks - 2


def test_a_cell_that_fails_leaves_no_worker_behind():
    class Dying(SlowEngine):
        finished = 0

        async def complete(self, request, *, max_attempts=1):
            if len(self.requests) >= 5 and max_attempts == 1:
                raise BlockwiseError("the agent's request fails")
            answer = await super().complete(request, max_attempts=max_attempts)
            self.finished += max_attempts > 1
            return answer

    engine = Dying()
    with pytest.raises(BlockwiseError, match="the agent's request fails"):
        played(engine)
    sent = [one for one in engine.requests if one.max_tokens == EAGER["volume_tokens"]]
    assert len(sent) == engine.finished > 0
