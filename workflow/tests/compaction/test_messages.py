"""Messages in, messages out: what stays is untouched, what goes is paired, what is odd is named."""

import asyncio
import copy
import re

import pytest
from doubles import CachingEngine, CharRenderer
from hypothesis import given, settings
from hypothesis import strategies as st

from blockwise.compaction.compactor import WRAPPER_HEADING, CompactionRule
from blockwise.compaction.conversation import OnMedia
from blockwise.compaction.messages import Policy, compact_messages
from blockwise.compaction.messages_record import Outcome
from blockwise.config.arms import SEQUENTIAL, known_layouts
from blockwise.errors import CompactionError

SYSTEM = {"role": "system", "content": "Be brief.", "cache_control": {"type": "ephemeral"}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


ONE = "one " * 100


def rule(**changes):
    values = {
        "layout": "target_block",
        "block_size_tokens": 60,
        "boundary": "turn",
        "prompt": "Summarise.",
        "volume_mode": "natural",
        "volume_tokens": 80,
        "last_turns": 0,
    }
    return CompactionRule(**{**values, **changes})


def compact(messages, engine=None, tau_tokens=None, on_media=OnMedia.PLACEHOLDER, **changes):
    call = compact_messages(
        engine or CachingEngine(),
        CharRenderer(),
        messages,
        rule(**changes),
        policy=Policy(tau_tokens=tau_tokens, on_media=on_media),
    )
    return asyncio.run(call)


def say(role, text, **fields):
    return {"role": role, "content": text, **fields}


def chat(num_exchanges=6):
    return [
        SYSTEM,
        *(
            say(role, f"{role} {n} " * 4)
            for n in range(num_exchanges)
            for role in ("user", "assistant")
        ),
    ]


def call(*ids):
    calls = [
        {"id": name, "type": "function", "function": {"name": "look", "arguments": "{}"}}
        for name in ids
    ]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def result(name, text="found", **fields):
    return {"role": "tool", "tool_call_id": name, "content": text, **fields}


def unpaired(messages):
    """Results without their call, and calls without their results."""
    open_calls, problems = set(), []
    for message in messages:
        if message["role"] == "tool":
            if message["tool_call_id"] not in open_calls:
                problems.append(message)
            open_calls.discard(message["tool_call_id"])
        else:
            problems += sorted(open_calls)
            open_calls = {one["id"] for one in message.get("tool_calls") or ()}
    return problems + sorted(open_calls)


text = st.text("ab \n{}<>é", max_size=40)
num_results = st.integers(1, 3)


@st.composite
def conversations(draw):
    """System prompts, then exchanges with any number of tool calls; ids repeat between groups."""
    system = [SYSTEM] * draw(st.integers(0, 2))
    messages = []
    for _ in range(draw(st.integers(1, 6))):
        filler = "words that take their room " * 30  # what is short cannot be made shorter
        messages.append(say("user", draw(text) + filler, turn_id=len(messages)))
        for size in draw(st.lists(num_results, max_size=2)):
            names = [f"call_{n}" for n in range(size)]
            messages.append(call(*names))
            messages += [result(name, draw(text)) for name in draw(st.permutations(names))]
        messages.append(say("assistant", draw(text), score=0.5))
    return system, messages


@settings(deadline=None)
@given(
    conversations(),
    st.integers(0, 8),
    st.integers(10, 150),
    st.sampled_from(["turn", "token"]),
    st.sampled_from([SEQUENTIAL, *known_layouts()]),
)
def test_the_verbatim_part_is_identical_and_calls_stay_paired(
    conversation, keep_last, block_size, boundary, layout
):
    system, rest = conversation
    messages = system + rest
    before = copy.deepcopy(messages)
    engine = CachingEngine(lambda request: "s")
    changes = {
        "layout": layout,
        "block_size_tokens": None if layout == SEQUENTIAL else block_size,
        "boundary": boundary,
        "last_turns": keep_last,
    }
    try:
        done = compact(messages, engine, **changes)
    except CompactionError as error:
        assert "no turn is left to compact" in str(error)
        assert keep_last > 0
        return
    assert messages == before
    assert done.record.outcome == "compacted"
    wrapper, tail = done.messages[len(system)], done.messages[len(system) + 1 :]
    assert done.messages[: len(system)] == system
    assert tail == rest[len(rest) - len(tail) :]
    assert len(tail) >= min(keep_last, len(rest) - 1)
    assert wrapper["role"] == "user"
    assert wrapper["content"].startswith(WRAPPER_HEADING)
    assert not unpaired(done.messages)
    for request in engine.requests:
        assert not unpaired(request.messages)


def test_the_record_adds_up():
    done = compact(chat(), tau_tokens=280)
    record = done.record
    assert record.outcome == "compacted"
    assert record.num_blocks == len(record.workers) == len(record.block_tokens) > 2
    renderer = CharRenderer()
    assert record.history_before_tokens == renderer.count(chat(), False)
    assert record.history_after_tokens == renderer.count(done.messages, False)
    assert record.input_tokens == sum(record.block_tokens)
    assert record.input_tokens == record.history_before_tokens - renderer.count([SYSTEM], False)
    assert record.output_tokens == sum(worker.completion_tokens for worker in record.workers)
    assert record.cached_tokens + record.uncached_tokens == record.prompt_tokens
    assert all(w.rendered_prompt_tokens == w.prompt_tokens for w in record.workers)
    assert min(worker.start_s for worker in record.workers) == 0
    assert 0 < record.wall_s <= record.stall_s
    assert not record.exceeds_tau
    assert compact(chat(), tau_tokens=record.history_after_tokens - 1).record.exceeds_tau
    assert (record.num_messages_before, record.num_messages_after) == (13, 2)


@pytest.mark.parametrize("excess", [0, 1])
def test_a_history_at_tau_stays_and_one_above_it_does_not(excess):
    messages = [*chat(), {"role": "user", "content": [{"type": "text", "text": "é"}, IMAGE]}]
    engine = CachingEngine()
    length = CharRenderer().count([*chat(), say("user", "é\n[image]")], False)
    done = compact(messages, engine, tau_tokens=length - excess, last_turns=1)
    assert (done.record.outcome == "unchanged") == (excess == 0)
    assert bool(engine.requests) == (excess == 1)
    assert done.record.num_unread_parts == 1
    if excess == 0:
        assert done.messages == messages
        assert f"{length} tokens does not exceed tau" in done.record.reason
        assert (done.record.num_blocks, done.record.prompt_tokens, done.record.wall_s) == (0, 0, 0)


def test_no_salt_and_no_field_a_server_may_refuse_is_sent():
    engine = CachingEngine()
    messages = [
        say("developer", "Be brief."),
        say("user", [{"type": "text", "text": ONE}, {"type": "text", "text": "two"}], id="x"),
        {**call("a"), "reasoning": "hm"},
        result("a", [{"type": "text", "text": "found"}], is_error=False),
        say("assistant", "done"),
    ]
    done = compact(messages, engine, layout=SEQUENTIAL, block_size_tokens=None)
    (request,) = engine.requests
    assert request.cache_salt is None
    assert request.messages[:-1] == [
        say("system", "Be brief."),
        say("user", f"{ONE}\ntwo"),
        {**call("a"), "content": ""},
        result("a"),
        say("assistant", "done"),
    ]
    assert done.messages[0] == messages[0]
    assert done.record.num_messages_after == 2


def test_an_image_stays_where_it_is_verbatim_and_leaves_a_placeholder_where_it_is_not():
    shown = say("user", [{"type": "text", "text": "Look:"}, IMAGE])
    messages = [*chat(2), shown, say("assistant", "A cat."), *chat(2)[1:]]
    done = compact(messages, last_turns=6)
    assert done.messages[-6] is shown
    assert (done.record.num_unread_parts, done.record.num_placeholders) == (1, 0)
    engine = CachingEngine()
    done = compact(messages, engine)
    assert (done.record.num_unread_parts, done.record.num_placeholders) == (0, 1)
    read = [message["content"] for request in engine.requests for message in request.messages]
    assert any("Look:\n[image]" in text for text in read)
    with pytest.raises(CompactionError, match=r"messages\[5\].*holds image_url.*keep it verbatim"):
        compact(messages, on_media=OnMedia.REFUSE)


@pytest.mark.parametrize("kept", [0, 2])
def test_a_pending_call_is_kept_verbatim_or_refused(kept):
    messages = [*chat(2), call("a", "b"), result("b")]
    if kept:
        assert compact(messages, last_turns=kept).messages[-2:] == messages[-2:]
        return
    with pytest.raises(CompactionError, match="results of tool calls a are missing"):
        compact(messages, last_turns=kept)


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ([], "there is no message"),
        ([SYSTEM], "no turn is left to compact"),
        (["hello"], r"messages\[0\] is str"),
        ([{"content": "x"}], r"messages\[0\]: the role is None"),
        ([say(["user"], "x")], r"messages\[0\]: the role is \['user'\]"),
        ([say("function", "x", name="f")], "role is 'function'"),
        ([SYSTEM, say("user", 3)], r"messages\[1\]: content is int"),
        ([say("user", ["x"])], "content is list"),
        ([{"role": "assistant", "tool_calls": [{"type": "function"}]}], "no list of calls"),
        ([say("user", "x"), result("a")], r"messages\[1\]: the tool's result for call 'a'"),
        ([call("a"), result("a"), result("a")], r"messages\[2\]: the tool's result"),
        ([call("a"), say("user", "x"), result("a")], r"messages\[2\]: the tool's result"),
        ([say("user", "x"), {"role": "tool", "content": "y"}], "for call None"),
        ([call("a"), say("user", "wait"), *chat()], "tool calls a are missing"),
    ],
)
def test_what_is_no_conversation_is_refused_by_name(messages, problem):
    engine = CachingEngine()
    with pytest.raises(CompactionError, match=problem):
        compact(messages, engine)
    assert not engine.requests


def test_a_worker_that_writes_nothing_loses_no_history():
    engine = CachingEngine(answer=lambda request: " \n")
    done = compact(chat(), engine)
    assert done.status is Outcome.FAILED
    assert re.search(r"worker \d+ wrote no summary.*raise the volume", done.reason)
    assert done.messages == chat()
