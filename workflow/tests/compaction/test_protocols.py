"""The protocols: what a cell shows and asks, and what its record says of it."""

import asyncio
import dataclasses
import itertools

import pytest
from doubles import CachingEngine, CharRenderer
from hypothesis import given
from hypothesis import strategies as st
from test_agent import make_agent, make_session

from blockwise.compaction.agent import SYSTEM_PROMPT
from blockwise.compaction.compactor import WRAPPER_HEADING
from blockwise.compaction.history import History, Turn
from blockwise.compaction.protocols import load_protocol
from blockwise.compaction.protocols.deferred import part_starts, truncated
from blockwise.compaction.records import AnswerContext
from blockwise.errors import CompactionError
from cell_specs import cell


def play(session, engine=None, **changes):
    spec = cell(**{"answer_tokens": 20, "transcript": None, "block_size_tokens": 300, **changes})
    engine = engine or CachingEngine()
    agent = make_agent(engine, spec)
    asyncio.run(load_protocol(spec.protocol)(agent, session, spec))
    return engine, agent.playback


def shown(request):
    return "\n".join(message["content"] for message in request.messages[:-1])


def asked(engine, playback, context, questions=8):
    """Requests behind the answers of one context; they were sent context by context."""
    sent = [request for request in engine.requests if "what of" in request.messages[-1]["content"]]
    contexts = list(dict.fromkeys(answer.context for answer in playback.answers))
    start = contexts.index(context) * questions
    return sent[start : start + questions]


RECALL = {"protocol": "deferred", "volume_mode": "natural", "volume_tokens": 60, "tau_tokens": 1400}


class RetryingEngine(CachingEngine):
    """Every third request is answered at its second attempt, which was sent later."""

    async def complete(self, request, *, max_attempts=1):
        number = len(self.requests)
        completion = await super().complete(request, max_attempts=max_attempts)
        later_s = 0.0 if number % 3 else 100.0
        return dataclasses.replace(completion, started_at_s=completion.started_at_s + later_s)


def test_requests_are_recorded_in_the_order_of_the_protocol_and_not_of_the_clock():
    def order(engine):
        playback = play(make_session(), engine, **RECALL)[1]
        return [(one.role, one.turn_index, one.worker_index) for one in playback.requests]

    expected = order(CachingEngine())
    assert order(RetryingEngine()) == expected
    questions = [turn for role, turn, _ in expected if role == "question"]
    assert len(questions) == 8
    assert questions == sorted(questions)


def test_truncation_asks_the_same_questions_on_as_many_of_the_last_tokens():
    engine, playback = play(make_session(), **RECALL, asks_truncated=True)
    by_context = {
        context: [a.question_id for a in playback.answers if a.context == context]
        for context in (AnswerContext.COMPACTED, AnswerContext.TRUNCATION)
    }
    assert by_context[AnswerContext.COMPACTED] == by_context[AnswerContext.TRUNCATION]
    held = playback.compactions[-1].history_after_tokens
    request = asked(engine, playback, AnswerContext.TRUNCATION)[0]
    assert request.messages[0]["content"] == SYSTEM_PROMPT
    tokens = CharRenderer().count(request.messages[:-1], False)
    assert 0 < tokens <= held
    assert "Document 0" not in shown(request)
    assert request.messages[-2]["content"] == "Noted."
    assert WRAPPER_HEADING not in shown(request)


def test_a_closed_book_shows_nothing_and_a_full_history_everything():
    for layout, documents in (("closed_book", 0), ("full_history", 8)):
        engine, playback = play(
            make_session(), **{**RECALL, "tau_tokens": None}, layout=layout, block_size_tokens=None
        )
        assert playback.compactions == []
        assert {answer.context.value for answer in playback.answers} == {layout}
        assert {answer.num_evidence_compactions for answer in playback.answers} == {0}
        for request in engine.requests:
            assert shown(request).count("Document ") == documents


@pytest.mark.parametrize(("mode", "num_primers"), [("forced", 1), ("natural", 0)])
def test_a_single_compaction_has_a_history_of_its_length(mode, num_primers):
    _, playback = play(
        make_session(), protocol="single", tau_tokens=None, history_tokens=1000,
        volume_mode=mode, volume_tokens=90,
    )  # fmt: skip
    (record,) = playback.compactions
    assert 700 < record.history_before_tokens <= 1000
    assert record.closing
    assert [r.role for r in playback.requests].count("agent") == num_primers
    workers = [r for r in playback.requests if r.role == "worker"]
    assert len(workers) == record.num_blocks > 1
    assert playback.cache_broken_turns == []
    if mode == "forced":  # the agent's own request had cached what a worker shares with it
        assert all(worker.cached_tokens > 0 for worker in workers)


SHARED = {
    "protocol": "shared",
    "tau_tokens": None,
    "history_tokens": 1000,
    "volume_tokens": 90,
    "num_bystanders": 3,
    "bystanders": {"context_tokens": 400, "answer_tokens": 5, "num_alone_requests": 2},
}


def test_bystanders_ask_alone_first_and_then_until_the_compaction_ends():
    engine = CachingEngine(delays=[0.0] * 10 + [0.02] * 200)
    engine, playback = play(make_session(), engine, **SHARED)
    others = [r for r in playback.requests if r.role == "bystander"]
    alone = [r for r in others if r.compaction_index is None]
    during = [r for r in others if r.compaction_index == 0]
    assert len(alone) == 6
    assert {r.worker_index for r in alone} == {r.worker_index for r in during} == {0, 1, 2}
    workers = [r for r in playback.requests if r.role == "worker"]
    begin, end = min(r.start_s for r in workers), max(r.start_s + r.wall_s for r in workers)
    assert all(r.start_s + r.wall_s <= begin for r in alone)
    assert all(r.start_s <= end for r in during)
    assert all(r.completion_tokens == 5 for r in others)
    assert all(300 < r.prompt_tokens <= 400 for r in others)
    assert all(r.cached_tokens > 0 for r in others)  # warmed before anything was counted


def test_a_cap_lets_only_so_many_workers_run_at_once():
    running, most = 0, 0

    class Counting(CachingEngine):
        async def complete(self, request, *, max_attempts=1):
            nonlocal running, most
            is_worker = request.messages[-1]["content"].endswith("Summarise.")
            running += is_worker
            most = max(most, running)
            await asyncio.sleep(0.002)
            running -= is_worker
            return await super().complete(request, max_attempts=max_attempts)

    for cap in (None, 2):
        most = 0
        load = {**SHARED, "history_tokens": 1800, "max_concurrent_workers": cap}
        _, playback = play(make_session(), Counting(), **load)
        (record,) = playback.compactions
        assert record.num_blocks > 2
        assert most == (cap or record.num_blocks)


def test_background_workers_come_first_and_leave_one_to_wait_for():
    class Slow(CachingEngine):
        async def complete(self, request, *, max_attempts=1):
            await asyncio.sleep(0.002)
            return await super().complete(request, max_attempts=max_attempts)

    background = {"is_eager": True, "max_background_workers": 1, "worker_priority": 5}
    load = {**SHARED, "history_tokens": 1800, "layout": "suffix_target", **background}
    engine, playback = play(make_session(), Slow(), **load)
    (record,) = playback.compactions
    assert record.num_ahead_workers == record.num_blocks - 1 > 1
    workers = [one for one in playback.requests if one.role == "worker"]
    ahead = workers[:-1]
    for one, following in itertools.pairwise(ahead):
        assert one.start_s + one.wall_s <= following.start_s + 0.002  # one at a time
    asked = [one for one in engine.requests if one.messages[-1]["content"].endswith("Summarise.")]
    assert {one.priority for one in asked} == {5}
    assert {one.priority for one in engine.requests if one not in asked} == {0}


def test_a_prompt_per_content_type_reaches_the_workers_of_its_history_blocks():
    engine, playback = play(
        make_session(),
        **RECALL,
        block_prompts={"evidence": "Keep the facts.", "dialogue": "Keep the speakers."},
    )
    first = [r for r in playback.requests if r.compaction_index == 0]
    record = playback.compactions[0]
    assert len(record.block_content) == record.num_blocks == len(first)
    assert set(record.block_content) == {"evidence"}
    workers = [r for r in engine.requests if "what of" not in r.messages[-1]["content"]]
    assert all(r.messages[-1]["content"].endswith("Keep the facts.") for r in workers[:2])


@given(
    lengths=st.lists(st.integers(0, 60), min_size=1, max_size=12),
    num_tokens=st.integers(1, 900),
)
def test_a_truncated_history_is_the_longest_tail_that_fits(lengths, num_tokens):
    renderer = CharRenderer()
    whole = History.with_system_prompt("sys").extended(
        *(
            Turn(role, f"{role[0]}{n}:" + "x" * length)
            for n, length in enumerate(lengths)
            for role in ("user", "assistant")
        )
    )
    tail = truncated(whole, num_tokens, renderer)
    assert tail.turns[0] == whole.turns[0]
    rest = tail.turns[1:]
    if not rest:
        return
    assert renderer.count(tail.messages(), False) <= num_tokens
    assert rest[0].role == "user"
    assert whole.turns[-len(rest) + 1 :] == rest[1:] or len(rest) == 1
    assert whole.turns[-len(rest)].text.endswith(rest[0].text)


PARTS = {**RECALL, "strategy": "rolling", "layout": "sequential", "budget_tokens": 700}


def test_a_session_in_parts_asks_the_first_one_again_and_all_the_rest_at_the_end():
    changes = {**PARTS, "ask_after": [1, 2, 4], "accept": ["loop"]}
    engine, playback = play(make_session(), CachingEngine(lambda _: "short"), **changes)
    assert len(playback.compactions) == 4
    assert [one.closing for one in playback.compactions] == [False, False, False, True]
    counts = {}
    for one in playback.answers:
        assert one.context is AnswerContext.STRATEGY
        counts.setdefault(one.question_id, []).append(one.num_evidence_compactions)
    assert counts["d0/q0"] == counts["d1/q0"] == [1, 2, 4]
    assert counts["d2/q0"] == [3]
    assert counts["d7/q0"] == [1]
    questions = [request for request in engine.requests if "what of" in str(request.messages)]
    assert not any("Document" in str(request.messages) for request in questions)


@given(st.lists(st.integers(1, 500), min_size=1, max_size=20), st.integers(1, 6))
def test_parts_are_whole_documents_and_none_is_empty(lengths, num_parts):
    documents = make_session(1).documents * len(lengths)
    documents = tuple(
        document.model_copy(update={"text": "x" * length})
        for document, length in zip(documents, lengths, strict=True)
    )
    session = make_session(1).model_copy(update={"documents": documents})
    if len(lengths) < num_parts:
        with pytest.raises(CompactionError, match="cannot be cut into"):
            part_starts(session, num_parts)
        return
    starts = part_starts(session, num_parts)
    assert starts[0] == 0
    assert starts[-1] == len(lengths)
    assert all(stop > start for start, stop in itertools.pairwise(starts))
    assert len(starts) == num_parts + 1
