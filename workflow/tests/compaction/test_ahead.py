"""Workers that are sent ahead: the requests of parallel, the answers taken once, nothing lost."""

import asyncio

import pytest
from doubles import CachingEngine, CharRenderer, ForgetfulEngine, rule
from hypothesis import given, settings
from hypothesis import strategies as st
from summariser import serving

from blockwise.compaction.ahead import AnswersAhead
from blockwise.compaction.chat import ChatCompactor
from blockwise.compaction.compactor import Compactor
from blockwise.compaction.history import History, Turn
from blockwise.compaction.layouts import shows_nothing_later
from blockwise.compaction.messages import Policy, compact_messages, send_ahead
from blockwise.compaction.messages_record import Outcome
from blockwise.config.arms import known_layouts
from blockwise.config.choices import OpenBlock, VolumeMode
from blockwise.errors import CompactionError, EngineError

GOOD = "The user asked what has to be done and the assistant said it."
EAGER = [layout for layout in known_layouts() if shows_nothing_later(layout)]


def test_the_layouts_that_show_what_follows_say_so():
    assert EAGER == ["independent", "suffix_target", "target_block"]


@st.composite
def histories(draw):
    turns = []
    for number in range(draw(st.integers(1, 10))):
        turns.append(Turn("user", draw(st.text("abc <>\n", min_size=1, max_size=60))))
        for place in range(draw(st.integers(0, 2))):
            names = [f"c{number}{place}{index}" for index in range(draw(st.integers(1, 2)))]
            turns.append(Turn("assistant", "", {"tool_calls": [{"id": name} for name in names]}))
            turns += [
                Turn("tool", draw(st.text("xyz ", max_size=60)), {"tool_call_id": name})
                for name in names
            ]
        turns.append(Turn("assistant", draw(st.text("def ", min_size=1, max_size=40))))
    return History.with_system_prompt("be brief").extended(*turns)


@settings(deadline=None, max_examples=300)
@given(
    whole=histories(),
    layout=st.sampled_from(EAGER),
    boundary=st.sampled_from(["turn", "token"]),
    block_size=st.integers(5, 200),
    last_turns=st.integers(0, 4),
    carries=st.booleans(),
)
def test_what_is_asked_ahead_is_what_parallel_asks(
    whole, layout, boundary, block_size, last_turns, carries
):
    """Byte for byte, whenever it is asked."""
    engine = CachingEngine()
    compactor = Compactor(
        engine,
        CharRenderer(),
        rule(
            layout=layout,
            boundary=boundary,
            block_size_tokens=block_size,
            last_turns=last_turns,
            carries_summaries=carries,
        ),
    )
    asked = []
    for stop in range(2, len(whole.turns) + 1):
        history = History(whole.turns[:stop])
        first, last = history.compactable(last_turns)
        if first < last and last in {*history.group_starts(), stop}:
            closed = compactor.plan(history, "salt", 7).closed_requests
            assert closed[: len(asked)] == tuple(asked)
            asked = list(closed)
    first, last = whole.compactable(last_turns)
    if first < last:
        final = compactor.plan(whole, "salt", 7).requests
        assert list(final[: len(asked)]) == asked
        assert len(asked) == len(final) - 1


def chat(num_exchanges):
    return [
        {"role": "system", "content": "You are a careful engineer."},
        *(
            {"role": role, "content": f"{role} says in message {number} what has to be done. " * 3}
            for number in range(num_exchanges)
            for role in ("user", "assistant")
        ),
    ]


async def grow(engine, ahead, num_exchanges, **changes):
    """Send ahead after each exchange, then compact."""
    for number in range(1, num_exchanges + 1):
        await send_ahead(
            engine, CharRenderer(), chat(number), rule(**changes), policy=Policy(), ahead=ahead
        )
        await asyncio.sleep(0)
    before = len(engine.requests)
    done = await compact_messages(
        engine, CharRenderer(), chat(num_exchanges), rule(**changes), ahead=ahead
    )
    return done, before


@pytest.mark.parametrize("layout", EAGER)
@pytest.mark.parametrize("max_running", [None, 1])
def test_at_tau_only_the_open_block_is_left(layout, max_running):
    engine, ahead = ForgetfulEngine(lambda _: GOOD), AnswersAhead(max_running)
    done, before = asyncio.run(grow(engine, ahead, 12, layout=layout))
    assert done.status is Outcome.COMPACTED
    assert done.record.num_blocks > 4
    assert len(engine.requests) == done.record.num_blocks  # nothing is asked twice
    assert len(engine.requests) - before == 1
    parallel = ForgetfulEngine(lambda _: GOOD)
    asyncio.run(compact_messages(parallel, CharRenderer(), chat(12), rule(layout=layout)))
    assert {str(one) for one in engine.requests} == {str(one) for one in parallel.requests}
    assert ahead.wasted_tokens == 0


def test_an_open_block_that_is_kept_leaves_nothing_to_wait_for():
    engine, ahead = ForgetfulEngine(lambda _: GOOD), AnswersAhead()
    done, before = asyncio.run(grow(engine, ahead, 12, open_block=OpenBlock.KEEP))
    assert done.status is Outcome.COMPACTED
    assert len(engine.requests) == before == done.record.num_blocks
    kept = done.messages[2:]
    assert kept == chat(12)[-len(kept) :]
    assert kept[0]["role"] == "user"
    parallel = ForgetfulEngine(lambda _: GOOD)
    other = rule(open_block=OpenBlock.KEEP)
    alike = asyncio.run(compact_messages(parallel, CharRenderer(), chat(12), other))
    assert alike.messages == done.messages
    assert {str(one) for one in engine.requests} == {str(one) for one in parallel.requests}


def test_a_kept_block_counts_among_what_stays():
    engine = ForgetfulEngine(lambda _: GOOD)

    def compact(messages, tau_tokens):
        other, policy = rule(open_block=OpenBlock.KEEP, block_size_tokens=900), Policy(tau_tokens)
        call = compact_messages(engine, CharRenderer(), messages, other, policy=policy)
        return asyncio.run(call)

    assert "no history block is closed yet" in compact(chat(2), 300).reason
    length = CharRenderer().count(chat(8), False)
    left = compact(chat(8), length - 1900)
    assert (left.status, "raise tau" in left.reason) == (Outcome.CANNOT_SHRINK, True)
    assert not engine.requests


def test_half_a_message_cannot_be_kept():
    with pytest.raises(CompactionError, match="needs the boundary turn"):
        rule(open_block=OpenBlock.KEEP, boundary="token")


def test_layouts_that_show_what_follows_are_refused():
    engine, ahead = CachingEngine(), AnswersAhead()
    with pytest.raises(CompactionError, match="layout suffix_full shows a worker what follows"):
        asyncio.run(grow(engine, ahead, 4, layout="suffix_full"))
    assert not engine.requests


def test_a_volume_that_is_split_cannot_be_asked_ahead():
    engine, ahead = CachingEngine(), AnswersAhead()
    with pytest.raises(CompactionError, match="how many there will be is not known yet"):
        asyncio.run(grow(engine, ahead, 4, volume_mode=VolumeMode.FORCED, volume_tokens=600))
    assert not engine.requests
    each = {"volume_mode": VolumeMode.FORCED, "volume_tokens": 60, "volume_block_size_tokens": 300}
    done, before = asyncio.run(grow(engine, ahead, 6, **each))
    assert {request.max_tokens for request in engine.requests} == {60}
    assert done.record.num_blocks == before + 1


class Failing(ForgetfulEngine):
    """Its second request fails, as often as it is told to."""

    def __init__(self, times):
        super().__init__(lambda _: GOOD)
        self.times = times
        self.failed = None

    async def complete(self, request, *, max_attempts=1):
        if self.failed is None and len(self.requests) == 1:
            self.failed = request
        if request == self.failed and self.times:
            self.times -= 1
            self.requests.append(request)
            raise EngineError("the server is gone")
        return await super().complete(request, max_attempts=max_attempts)


def test_a_worker_that_failed_ahead_is_asked_again_when_it_is_due():
    engine, ahead = Failing(times=1), AnswersAhead()
    done, _ = asyncio.run(
        grow(
            engine,
            ahead,
            12,
        )
    )
    assert done.status is Outcome.COMPACTED
    assert [str(one) for one in engine.requests].count(str(engine.failed)) == 2


def test_a_second_failure_fails_the_compaction_with_the_history_untouched():
    engine, ahead = Failing(times=100), AnswersAhead()
    done, _ = asyncio.run(grow(engine, ahead, 12))
    assert done.status is Outcome.FAILED
    assert done.messages == chat(12)


def test_what_nobody_takes_is_waste_and_is_counted():
    async def play():
        engine, ahead = ForgetfulEngine(lambda _: GOOD), AnswersAhead()
        await send_ahead(engine, CharRenderer(), chat(12), rule(), policy=Policy(), ahead=ahead)
        await ahead.drain()
        return engine, ahead

    engine, ahead = asyncio.run(play())
    assert ahead.wasted_tokens == len(engine.requests) * len(GOOD) > 0
    assert ahead.num_running == 0


def test_another_conversation_drops_what_was_asked_for_the_first():
    async def play():
        engine, ahead = ForgetfulEngine(lambda _: GOOD), AnswersAhead()
        await send_ahead(engine, CharRenderer(), chat(12), rule(), policy=Policy(), ahead=ahead)
        other = [{**one, "content": f"{one['content']}!"} for one in chat(12)]
        done = await compact_messages(engine, CharRenderer(), other, rule(), ahead=ahead)
        return done, ahead

    done, ahead = asyncio.run(play())
    assert done.status is Outcome.COMPACTED
    assert ahead.num_running == 0


def test_one_object_asks_ahead_and_leaves_one_worker_for_tau(tiny_renderer, tiny_model):
    with serving(tiny_renderer) as stub:

        async def agent():
            async with ChatCompactor(
                stub.base_url, "m", block_size=150, tokenizer=tiny_model.tokenizer_path
            ) as compactor:
                for number in range(1, 13):
                    await compactor.ahead(chat(number))
                    await asyncio.sleep(0.02)
                before = len(stub.requests)
                done = await compactor.compact(chat(12), tau=100)
                return done, len(stub.requests) - before

        done, asked_at_tau = asyncio.run(agent())
    assert done.status is Outcome.COMPACTED
    assert asked_at_tau == 1
    assert len(stub.requests) == done.record.num_blocks > 3


def test_a_tool_round_under_way_sends_nothing_yet():
    async def play():
        engine, ahead = ForgetfulEngine(lambda _: GOOD), AnswersAhead()
        call = {"id": "a", "type": "function", "function": {"name": "ls", "arguments": "{}"}}
        messages = [*chat(2), {"role": "assistant", "content": "", "tool_calls": [call]}]
        return await send_ahead(
            engine, CharRenderer(), messages, rule(), policy=Policy(), ahead=ahead
        )

    assert asyncio.run(play()) == 0
