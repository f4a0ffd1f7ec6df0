"""Strategies: each is found by its module's name, and all are held to the same budget."""

import asyncio

import pytest
from doubles import CachingEngine, CharRenderer, rule
from hypothesis import given, settings
from hypothesis import strategies as st
from test_layouts import histories

from blockwise.compaction.by_strategy import StrategyCompactor, compactor_of
from blockwise.compaction.compactor import (
    IDENTIFIERS_HEADING,
    WRAPPER_HEADING,
    Compactor,
    carried_summary,
    wrapper_text,
)
from blockwise.compaction.history import History, Turn
from blockwise.compaction.layouts.sequential import SCOPE
from blockwise.compaction.strategies.mask import MASKED, MAX_OPENING_CHARS, opening_of
from blockwise.compaction.strategy import Amounts, Arms, load_strategy
from blockwise.config.arms import known_strategies
from blockwise.errors import CompactionError, WorkersError
from blockwise.serving.client import ChatRequest

RENDERER = CharRenderer()
NAMES = known_strategies()
WRITERS = ["sequential", "parallel", "eager", "rolling", "hierarchical"]
BUDGET = 700
LONG = "It lies by the river, and its market opens at seven in the morning. " * 40
IDENTIFIER = "E0425"


def document(number, length=260):
    return f"Document {number}: {LONG}"[:length]


def conversation(num_documents=5, length=260, more=()):
    history = History.with_system_prompt("be brief")
    for number in range(num_documents):
        history = history.extended(
            Turn("user", document(number, length)), Turn("assistant", "Noted.")
        )
    return history.extended(*more)


class Exhausting(CachingEngine):
    """Takes the whole budget of every answer."""

    def __init__(self):
        super().__init__(lambda request: LONG[: request.max_tokens])


def rule_of(name, budget=BUDGET, **changes):
    takes = load_strategy(name).arms
    size = None if takes is Arms.ONE else 300
    layout = changes.pop("layout", "suffix_target") if takes is Arms.LAYOUTS else "sequential"
    return rule(
        strategy=name,
        budget_tokens=budget,
        **{"layout": layout, "block_size_tokens": size, "max_answers": 1, **changes},
        accept=frozenset(["length", "loop", "echo", "empty"]),
    )


def compact(name, history=None, engine=None, **changes):
    engine = engine or CachingEngine(lambda request: f"what was said {len(engine.requests)}")
    compactor = StrategyCompactor(engine, RENDERER, rule_of(name, **changes))
    made = compactor.compact(history or conversation(), cache_salt="salt", seed=3)
    return asyncio.run(made), engine


def tokens(history):
    return RENDERER.count(history.messages(), False)


def test_strategies_are_the_modules_of_their_folder():
    assert {*WRITERS, "mask", "truncate"} <= set(NAMES)
    with pytest.raises(CompactionError, match="'fold' is unknown; there are: "):
        load_strategy("fold")


@settings(deadline=None)
@given(
    st.sampled_from(NAMES),
    histories(st.text("ab E0425/.\n", max_size=400)),
    st.integers(500, 900),
    st.sampled_from([0, 5]),
    st.booleans(),
)
def test_nothing_exceeds_the_budget_and_the_history_is_unchanged(
    name, history, budget, keep_identifiers, is_long
):
    before = history.messages()
    engine = Exhausting() if is_long else CachingEngine(lambda request: "short")
    done, engine = compact(name, history, engine, budget=budget, keep_identifiers=keep_identifiers)
    assert tokens(done.history) <= budget
    assert done.history.turns[0] == history.turns[0]
    assert history.messages() == before
    assert done.turn_range == history.compactable(0)
    assert len(done.workers) == len(done.requests) == len(engine.requests)
    assert len(done.untouched_tokens) == len(done.faults) == len(done.workers)
    assert sum(part.num_tokens for part in done.blocks) == tokens(history) - tokens(
        History(history.turns[:1])
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_bill_is_what_is_asked_where_every_answer_takes_its_budget(name):
    history = conversation()
    done, engine = compact(name, history, Exhausting())
    wrapper = tokens(History((history.turns[0], Turn("user", "")))) - tokens(
        History(history.turns[:1])
    )

    def wrapper_tokens(number):
        return wrapper + len(wrapper_text(["x"] * number)) - number

    head = tokens(History(history.turns[:1]))
    amounts = Amounts(
        block_tokens=[part.num_tokens for part in done.blocks],
        worker_tokens=200,
        room_tokens=lambda number: BUDGET - head - wrapper_tokens(number),
        wrapper_tokens=wrapper_tokens,
        written_tokens=lambda most: most,
    )
    rounds = load_strategy(name).rounds(amounts)
    caps = [most for one in rounds for most in one.max_tokens]
    assert caps == [request.max_tokens for request in engine.requests]
    shown = [one.shown_tokens for one in rounds if one.shown_tokens is not None]
    asked = [
        request for request in engine.requests if SCOPE[:20] in request.messages[-1]["content"]
    ]
    sent = [RENDERER.count(request.messages[:-1], False) - head for request in asked]
    assert shown == sent


@pytest.mark.parametrize("name", NAMES)
def test_requests_share_with_the_conversation_what_a_strategy_says(name):
    engine, history = CachingEngine(), conversation(8)
    asyncio.run(engine.complete(_ask(history)))
    done, engine = compact(name, history, engine)
    for worker, untouched in zip(done.workers, done.untouched_tokens, strict=True):
        assert worker.cached_tokens >= untouched // 16 * 16
        assert untouched <= tokens(history)


def _ask(history):
    return ChatRequest(history.messages(), 1, 1, cache_salt="salt")


def test_sequential_and_parallel_ask_what_the_compactor_asks():
    for name, layout in (("sequential", "sequential"), ("parallel", "suffix_target")):
        done, engine = compact(name)
        plain, other = CachingEngine(), rule_of(name)
        asyncio.run(
            Compactor(plain, RENDERER, other).compact(conversation(), cache_salt="salt", seed=3)
        )
        assert [one.messages for one in engine.requests] == [one.messages for one in plain.requests]
        assert layout == other.layout
        assert carried_summary(done.history, (1, 2)) is not None


def test_rolling_shows_the_summary_so_far_and_the_next_history_block():
    _, engine = compact("rolling")
    first, second, *_ = engine.requests
    assert [message["role"] for message in first.messages[:2]] == ["system", "user"]
    assert first.messages[1]["content"].startswith("Document 0")
    assert second.messages[1]["content"].startswith(WRAPPER_HEADING)
    assert "what was said 1" in second.messages[1]["content"]
    assert "Document 0" not in "".join(message["content"] for message in second.messages)
    assert len({request.seed for request in engine.requests}) == len(engine.requests)


def test_hierarchical_summarises_its_summaries_only_where_they_exceed_the_budget():
    short, few = compact("hierarchical")
    long, many = compact("hierarchical", None, Exhausting())
    assert len(many.requests) == len(few.requests) + 1
    assert WRAPPER_HEADING in many.requests[-1].messages[1]["content"]
    assert len(short.blocks) == len(few.requests) == len(long.blocks)


def test_mask_names_old_texts_and_keeps_the_newest_whole():
    done, engine = compact("mask", conversation(3))
    texts = [turn.text for turn in done.history.turns[1:]]
    assert engine.requests == []
    assert texts[0].startswith(MASKED)
    assert texts[-2] == document(2)
    assert not any(document(0) in text for text in texts)
    again, _ = compact("mask", done.history.extended(Turn("user", document(9, 600))))
    assert not any(text.count(MASKED) > 1 for text in (turn.text for turn in again.history.turns))
    assert again.history.turns[-1].text.startswith(MASKED)  # it exceeds the budget by itself


def test_mask_leaves_tool_rounds_whole_and_names_results():
    call = Turn("assistant", "", {"tool_calls": [{"id": "a"}]})
    result = Turn("tool", document(7, 900), {"tool_call_id": "a"})
    done, _ = compact("mask", conversation(1, more=(call, result)))
    assert [turn.role for turn in done.history.turns[-2:]] == ["assistant", "tool"]
    assert "Document 7" in done.history.turns[-1].text
    assert done.history.turns[-1].extra == result.extra


@pytest.mark.parametrize("text", ["", "a " * 200, "x" * 300, "one\n\ntwo\tthree"])
def test_an_opening_is_one_line_of_whole_words(text):
    opening = opening_of(text)
    assert len(opening) <= MAX_OPENING_CHARS
    assert "\n" not in opening
    assert opening == opening.strip()


def test_truncate_keeps_the_last_tokens_alone():
    done, engine = compact("truncate")
    shown = "".join(turn.text for turn in done.history.turns)
    assert engine.requests == []
    assert document(4) in shown
    assert document(0) not in shown
    assert (done.wall_s, done.workers) == (0.0, ())


@pytest.mark.parametrize("name", NAMES)
def test_lost_identifiers_are_added_without_a_request(name):
    more = (Turn("user", f"{document(9)} fails with {IDENTIFIER}."), *conversation(4).turns[1:])
    history = conversation(3, more=(*more,))
    without, few = compact(name, history)
    added, many = compact(name, history, keep_identifiers=5)
    assert len(few.requests) == len(many.requests)
    assert IDENTIFIERS_HEADING not in text_of(without.history)
    assert f"{IDENTIFIERS_HEADING} " in text_of(added.history)
    assert IDENTIFIER in text_of(added.history)
    assert tokens(added.history) <= BUDGET


def text_of(history):
    return "\n".join(turn.text for turn in history.turns)


def test_verbatim_turns_follow_and_are_no_part_of_the_budget():
    history = conversation(6)
    for name in NAMES:
        done, _ = compact(name, history, last_turns=2)
        assert done.history.turns[-2:] == history.turns[-2:]
        assert tokens(History(done.history.turns[:-2])) <= BUDGET


def test_a_budget_without_room_is_refused_before_anything_is_asked():
    for name in WRITERS:
        engine = CachingEngine()
        with pytest.raises(CompactionError, match="budget_tokens 150 leaves"):
            compact(name, None, engine, budget=150)
        assert engine.requests == []


def test_a_failed_request_ends_the_compaction():
    engine = CachingEngine()
    engine.failures = [0, 9]
    with pytest.raises(WorkersError, match="failed"):
        compact("rolling", None, engine)


def test_the_agent_gets_the_compactor_where_no_strategy_is_named():
    engine = CachingEngine()
    assert isinstance(compactor_of(engine, RENDERER, rule()), Compactor)
    assert isinstance(compactor_of(engine, RENDERER, rule_of("mask")), StrategyCompactor)


def test_eager_asks_what_parallel_asks_one_after_another():
    running, most = 0, 0

    class Counting(CachingEngine):
        async def complete(self, request, *, max_attempts=1):
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0)
            running -= 1
            return await super().complete(request, max_attempts=max_attempts)

    asked = {}
    for name in ("parallel", "eager"):
        most = 0
        engine = Counting(lambda _: "A summary.")
        compact(name, engine=engine)
        asked[name] = (engine.requests, most)
    assert asked["eager"][0] == asked["parallel"][0]
    assert asked["eager"][1] == 1 < asked["parallel"][1] == len(asked["parallel"][0])
