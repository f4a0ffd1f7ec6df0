"""The agent: when it compacts, what stays in the history, what a record says."""

import asyncio

import pytest
from doubles import KV_BLOCK_TOKENS, CachingEngine, CharRenderer

from blockwise.compaction.agent import ACKNOWLEDGEMENT, SYSTEM_PROMPT, Agent, AgentRule
from blockwise.compaction.compactor import WRAPPER_HEADING
from blockwise.compaction.protocols import load_protocol
from blockwise.compaction.records import AnswerContext
from blockwise.data.documents import Document, Question, Session
from blockwise.errors import CompactionError
from cell_specs import cell

TAU = 1400


def make_session(num_documents=8, questions=1, length=200):
    documents = tuple(
        Document(
            id=f"d{n}",
            cluster="c",
            text=f"Document {n}: " + "x" * length,
            questions=tuple(
                Question(
                    id=f"d{n}/q{k}",
                    text=f"what of {n}.{k}?",
                    answer=f"gold {n}.{k}",
                    category="bridge",
                    evidence=(f"d{n}",),
                )
                for k in range(questions)
            ),
        )
        for n in range(num_documents)
    )
    return Session(id="s", documents=documents, num_tokens=num_documents * length)


def play(
    session,
    engine,
    *,
    protocol="immediate",
    transcript="fixed",
    tau=TAU,
    finds_cut_history=True,
    **changes,
):
    spec = cell(
        **{
            "protocol": protocol,
            "transcript": transcript if protocol == "immediate" else None,
            "tau_tokens": tau,
            "answer_tokens": 20,
            "block_size_tokens": 300,
            "volume_mode": "natural",
            "volume_tokens": 60,
            **changes,
        }
    )
    agent = make_agent(engine, spec, finds_cut_history=finds_cut_history)
    asyncio.run(load_protocol(spec.protocol)(agent, session, spec))
    return agent.playback


def make_agent(engine, spec, *, finds_cut_history=True):
    rule = AgentRule(
        "hotpotqa",
        spec.tau_tokens,
        spec.answer_tokens,
        spec.transcript == "fixed",
        seed=0,
        is_eager=spec.is_eager,
        max_background_workers=spec.max_background_workers,
    )
    return Agent(
        engine,
        CharRenderer(),
        rule,
        spec.compaction_rule(),
        cache_salt="salt",
        kv_block_tokens=KV_BLOCK_TOKENS,
        finds_cut_history=finds_cut_history,
    )


def agent_requests(engine, playback):
    return [r for r, q in zip(engine.requests, playback.requests, strict=True) if q.role == "agent"]


@pytest.mark.parametrize("tau", [900, 1400, 1900, 100_000])
def test_it_compacts_iff_the_rendered_next_request_exceeds_tau(tau):
    engine = CachingEngine()
    session = make_session()
    playback = play(session, engine, tau=tau)
    renderer = CharRenderer()
    compacted_at = {record.turn_index for record in playback.compactions}
    assert (tau == 100_000) == (not compacted_at)
    history = [{"role": "system", "content": SYSTEM_PROMPT}]
    for index, request in enumerate(agent_requests(engine, playback)):
        sent = renderer.count(request.messages, True) + 20
        assert sent <= tau
        incoming = request.messages[-1]
        uncompacted = renderer.count([*history, incoming], True) + 20
        assert (uncompacted > tau) == (index in compacted_at)
        answer = {"role": "assistant", "content": session.documents[index].questions[0].answer}
        history = [*request.messages, answer]


def test_the_fixed_transcript_makes_every_arm_do_the_same_work():
    histories = []
    for answer in ("short", "a much longer answer " * 20):
        engine = CachingEngine(answer=lambda request, answer=answer: answer)
        playback = play(make_session(4), engine, tau=100_000)
        assert all(r.completion_tokens == 20 for r in playback.requests)
        histories.append(engine.requests[-1].messages)
    assert histories[0] == histories[1]
    assert histories[0][2] == {"role": "assistant", "content": "gold 0.0"}


def test_a_free_session_appends_what_the_model_said():
    engine = CachingEngine(answer=lambda request: "my words")
    play(make_session(2), engine, tau=100_000, transcript="free")
    assert engine.requests[-1].messages[2] == {"role": "assistant", "content": "my words"}


def test_deferred_sessions_never_compact_a_question_or_an_answer():
    engine = CachingEngine()
    session = make_session(8, questions=2)
    playback = play(session, engine, protocol="deferred", last_turns=2)
    workers = [
        r for r, q in zip(engine.requests, playback.requests, strict=True) if q.role == "worker"
    ]
    for request in workers:
        shown = " ".join(m["content"] for m in request.messages)
        assert "what of" not in shown
        assert "gold" not in shown
    assert playback.compactions[-1].closing
    questions = [r for r in engine.requests if "what of" in r.messages[-1]["content"]]
    assert len(questions) == len(playback.answers) == 16
    frozen = questions[0].messages[:-1]
    assert [m["role"] for m in frozen] == ["system", "user"]
    assert frozen[1]["content"].startswith(WRAPPER_HEADING)
    assert all(request.messages[:-1] == frozen for request in questions)
    counts = {a.document_id: a.num_evidence_compactions for a in playback.answers}
    assert counts["d0"] == len(playback.compactions) > counts["d7"] == 1
    assert any(m["content"] == ACKNOWLEDGEMENT for m in workers[-1].messages)


def test_the_record_of_a_compaction_adds_up():
    engine = CachingEngine()
    playback = play(make_session(), engine, volume_mode="forced", volume_tokens=90)
    record = playback.compactions[0]
    workers = [r for r in playback.requests if r.compaction_index == 0]
    assert record.output_tokens == sum(r.completion_tokens for r in workers) == 90
    assert record.prompt_tokens == sum(r.prompt_tokens for r in workers)
    assert record.num_blocks == len(record.block_tokens) == len(workers) > 1
    system_tokens = 3 + len(SYSTEM_PROMPT)
    assert record.input_tokens == record.history_before_tokens - system_tokens
    assert record.history_after_tokens < record.history_before_tokens
    assert record.stall_s >= record.wall_s > 0
    assert record.ttft_after_s is not None
    first_after = next(
        r for r in playback.requests if r.role == "agent" and r.turn_index == record.turn_index
    )
    assert record.ttft_after_s == first_after.ttft_s


def test_a_compaction_that_does_not_shrink_fails_as_no_progress():
    engine = CachingEngine(answer=lambda request: "y" * 2000)
    with pytest.raises(CompactionError, match=r"no_progress.*tau is 1400; raise tau"):
        play(make_session(), engine)


def test_an_evicted_prefix_is_noticed():
    engine = CachingEngine()
    assert play(make_session(), engine).cache_broken_turns == []
    forgetful = CachingEngine()
    forgetful._cached_tokens = lambda salt, prompt: 0
    assert play(make_session(), forgetful).cache_broken_turns


def test_an_eviction_during_a_compaction_is_noticed():
    engine = CachingEngine()
    honest = engine._cached_tokens

    def forget_for_workers(salt, prompt):
        cached = honest(salt, prompt)
        shown = "".join(chr(token) for token in prompt[-20:] if 0 < token < 999)
        return 0 if "Summarise." in shown else cached

    engine._cached_tokens = forget_for_workers
    playback = play(make_session(), engine)
    compacted_at = {record.turn_index for record in playback.compactions}
    assert set(playback.cache_broken_turns) == compacted_at


@pytest.mark.parametrize(("layout", "is_cut"), [("suffix_target", True), ("suffix_full", False)])
def test_a_history_that_is_cut_is_no_eviction_where_the_engine_finds_only_whole_ones(
    layout, is_cut
):
    def sliding():
        engine = CachingEngine()
        honest, ends = engine._cached_tokens, []

        def whole_only(salt, prompt):
            known = honest(salt, prompt)
            going_on = [end for end in ends if prompt[: len(end)] == end]
            ends.append(prompt)
            return min(known, max(map(len, going_on), default=0))

        engine._cached_tokens = whole_only
        return engine

    assert (
        play(make_session(), sliding(), layout=layout, finds_cut_history=False).cache_broken_turns
        == []
    )
    broken = play(make_session(), sliding(), layout=layout).cache_broken_turns
    assert bool(broken) == is_cut


def test_evidence_asked_in_its_own_turn_was_never_compacted():
    playback = play(make_session(), CachingEngine())
    assert playback.compactions
    assert {answer.num_evidence_compactions for answer in playback.answers} == {0}


def test_documents_kept_verbatim_do_not_count_as_compacted():
    session = make_session(4)
    agent = make_agent(
        CachingEngine(),
        cell(layout="sequential", block_size_tokens=None, last_turns=4, volume_mode="natural"),
    )

    def counts(context=AnswerContext.COMPACTED):
        agent.playback.answers.clear()
        for index, document in enumerate(session.documents):
            agent.score(index, document, document.questions[0], "", context)
        return [answer.num_evidence_compactions for answer in agent.playback.answers]

    for document in session.documents:
        agent.append(document, agent.incoming(document, None), ACKNOWLEDGEMENT)
    asyncio.run(agent.compact(3, closing=False))
    assert counts() == [1, 1, 0, 0]
    asyncio.run(agent.compact(4, closing=True))
    assert counts() == [2, 2, 1, 1]


def test_a_document_without_questions_is_acknowledged():
    engine = CachingEngine()
    playback = play(make_session(3, questions=0), engine, tau=100_000)
    assert playback.num_turns == 3
    assert playback.answers == []
    assert engine.requests[-1].messages[2]["content"] == ACKNOWLEDGEMENT
