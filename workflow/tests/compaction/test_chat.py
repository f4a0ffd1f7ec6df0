"""F: one object, one awaitable, one result; and B4: what happens to the messages meanwhile."""

import asyncio
import copy
import json
import re
import time
from pathlib import Path

import openai
import pytest
from doubles import rule
from summariser import serving

from blockwise.bench.client import InstantEngine
from blockwise.compaction.chat import ChatCompactor
from blockwise.compaction.messages import CompactedMessages, compact_messages
from blockwise.compaction.messages_record import Outcome
from blockwise.config.choices import SummaryFault
from blockwise.errors import CompactionError, ConfigError, ServerError
from blockwise.models.renderer import CountedBy, Renderer
from blockwise.serving import client as engine_module

README = Path(__file__).parents[3] / "README.md"
CHAT = [
    {"role": "system", "content": "Be brief."},
    *(
        {"role": role, "content": f"{role} {n}: Mira lives in Tarvos. Ünïcode 日本 🙂 {{x}} %s"}
        for n in range(8)
        for role in ("user", "assistant")
    ),
]
TOOL = {"type": "function", "function": {"name": "ls", "parameters": {"type": "object"}}}


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    monkeypatch.setattr(engine_module, "RETRY_WAIT_S", 0.0)


def run(stub, tiny_model, messages=CHAT, *, calls=({},), **arguments):
    """The results of some calls of one object."""

    async def all_calls():
        values = {"block_size": 150, "tokenizer": tiny_model.tokenizer_path, **arguments}
        async with ChatCompactor(stub.base_url, "m", **values) as compactor:
            return [await compactor.compact(messages, **call) for call in calls]

    return asyncio.run(all_calls())


def test_f_the_readmes_lines_run_as_they_stand(tiny_renderer, tiny_model, monkeypatch):
    text = README.read_text(encoding="utf-8")
    lines = re.search(r"```python\n(import asyncio\n.*?)```", text, re.DOTALL)[1]
    assert len([line for line in lines.splitlines() if line.strip()]) <= 10
    with serving(tiny_renderer) as stub:
        stub.listed[0]["root"] = tiny_model.tokenizer_path
        stub.listed[0]["id"] = "my-model"
        program = lines.replace("http://127.0.0.1:8000/v1", stub.base_url)
        shared = {"messages": copy.deepcopy(CHAT), "tools": [TOOL]}
        program = program.replace("tau=24_000", "tau=300")
        exec(compile(program, "README.md", "exec"), shared)
    assert len(shared["messages"]) < len(CHAT)
    assert shared["messages"][-2:] == CHAT[-2:]
    assert stub.requests[0]["tools"] == [TOOL]


REFUSED = {
    "layout='suffix-target'": ({"layout": "suffix-target"}, "layout = 'suffix-target': it is none"),
    "boundary='turns'": ({"boundary": "turns"}, "boundary = 'turns'"),
    "a negative cap": ({"max_tokens": -1}, "max_tokens = -1"),
    "two volumes": ({"max_tokens": 5, "volume": 5}, "give one"),
    "no volume": ({"layout": "sequential", "block_size": None}, "needs max_tokens or a volume"),
    "no block size": ({"block_size": None}, "layout suffix_target needs a block_size"),
    "a fault that is none": ({"accept": ["lengthy"]}, "accept"),
    "on_media='drop'": ({"on_media": "drop"}, "on_media = 'drop'"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_f_arguments_are_checked_when_the_object_is_made(kind):
    arguments, problem = REFUSED[kind]
    with pytest.raises(ConfigError, match=re.escape(problem)):
        ChatCompactor("http://127.0.0.1:9/v1", "m", **arguments)


def test_f_a_server_that_is_not_there_is_said():
    async def ask():
        await ChatCompactor("http://127.0.0.1:9/v1", "m").compact(CHAT)

    with pytest.raises(ServerError, match="no server to use"):
        asyncio.run(ask())


def test_f_status_tokens_reason_and_record(tiny_renderer, tiny_model):
    with serving(tiny_renderer) as stub:
        calls = [{"tau": 8000}, {"tau": 300}, {"tau": 10}]
        left, done, cannot = run(stub, tiny_model, calls=calls)
    assert (left.status, done.status, cannot.status) == (
        Outcome.UNCHANGED,
        Outcome.COMPACTED,
        Outcome.CANNOT_SHRINK,
    )
    assert left.messages == cannot.messages == CHAT
    assert "does not exceed tau, 8000" in left.reason
    assert "raise tau" in cannot.reason
    assert done.reason == ""
    assert done.tokens_after < done.tokens_before == left.tokens_before
    assert done.record.counted_by is CountedBy.TOKENIZER


def test_c4_a_failed_worker_is_a_result_and_the_next_attempt_pays_for_it_alone(
    tiny_renderer, tiny_model
):
    with serving(tiny_renderer, ["summary", "summary", "refused"]) as stub:
        stub._refused = _refused(stub)

        async def twice():
            values = {"block_size": 150, "tokenizer": tiny_model.tokenizer_path}
            async with ChatCompactor(
                stub.base_url, "m", max_concurrent_workers=1, **values
            ) as compactor:
                failed = await compactor.compact(CHAT)
                asked = len(stub.requests)
                stub._behaviours = ["summary"]
                return failed, asked, await compactor.compact(CHAT)

        failed, asked, done = asyncio.run(twice())
    assert failed.status is Outcome.FAILED
    assert failed.messages == CHAT
    assert "HTTP 400" in failed.reason
    assert done.status is Outcome.COMPACTED
    assert len(stub.requests) - asked == done.record.num_blocks - 2


def _refused(stub):
    async def refuse(writer, body):
        stub._status(writer, 400, {"error": {"message": "no"}})

    return refuse


def test_f_a_client_of_the_users_own_is_used_and_left_open(tiny_renderer, tiny_model):
    with serving(tiny_renderer) as stub:

        async def ask():
            own = openai.AsyncOpenAI(base_url=stub.base_url, api_key="its-key")
            async with own:
                async with ChatCompactor(
                    own, "m", block_size=150, tokenizer=tiny_model.tokenizer_path
                ) as compactor:
                    done = await compactor.compact(CHAT)
                assert not own.is_closed()
            return done

        assert asyncio.run(ask()).status is Outcome.COMPACTED
    assert stub.key == "its-key"


def test_c6_the_server_counts_where_there_is_no_tokenizer(tiny_renderer, tiny_model):
    with serving(tiny_renderer) as stub:

        async def tokenize(writer, body):
            count = tiny_renderer.count(body["messages"], body["add_generation_prompt"])
            stub._status(writer, 200, {"count": count})

        stub._tokenize = tokenize
        stub.behaviour = lambda _, body: "tokenize" if body["path"] == "/tokenize" else "summary"
        (done,) = run(stub, tiny_model, tokenizer=None)
    assert done.record.counted_by is CountedBy.SERVER
    assert done.tokens_before == tiny_renderer.count(CHAT, False)


def test_c6_a_server_that_does_not_count_leaves_an_estimate(tiny_renderer, tiny_model):
    with serving(tiny_renderer) as stub:
        stub._refused = _refused(stub)
        stub.behaviour = lambda _, body: "refused" if body["path"] == "/tokenize" else "summary"
        first, second = run(stub, tiny_model, tokenizer=None, calls=[{}, {}])
    assert first.record.counted_by is second.record.counted_by is CountedBy.LENGTH
    assert first.status is Outcome.COMPACTED
    assert [body["path"] for body in stub.requests].count("/tokenize") == 1


def test_broken_rounds_are_repaired_before_the_server_counts(tiny_renderer, tiny_model):
    orphan = {"role": "tool", "tool_call_id": "gone", "content": "a result without its call"}
    messages = [*CHAT[:3], orphan, *CHAT[3:]]
    with serving(tiny_renderer) as stub:
        stub._refused = _refused(stub)
        stub.behaviour = lambda _, body: "refused" if body["path"] == "/tokenize" else "summary"
        (done,) = run(stub, tiny_model, messages, tokenizer=None, on_broken_tools="repair")
    assert (done.status, len(done.record.repairs)) == (Outcome.COMPACTED, 1)
    (asked,) = [body for body in stub.requests if body["path"] == "/tokenize"]
    assert "tool" not in {message["role"] for message in asked["messages"]}


def test_b4_what_was_appended_meanwhile_stays(tiny_renderer, tiny_model):
    with serving(tiny_renderer) as stub:
        (done,) = run(stub, tiny_model, calls=[{"keep": 2}])
    new = {"role": "user", "content": "And now?"}
    assert done.apply([*CHAT, new]) == [*done.messages, new]
    assert done.apply(CHAT) == done.messages


CHANGES = {
    "shortened": lambda messages: messages[:-3],
    "a message changed": lambda messages: [*messages[:4], {**messages[4], "content": "x"}],
    "emptied": lambda messages: [],
}


@pytest.mark.parametrize("kind", CHANGES)
def test_b4_a_changed_prefix_discards_the_result_in_words(kind, tiny_renderer, tiny_model):
    with serving(tiny_renderer) as stub:
        (done,) = run(stub, tiny_model)
    current = CHANGES[kind](copy.deepcopy(CHAT))
    before = copy.deepcopy(current)
    with pytest.raises(CompactionError, match="its result does not fit; go on with the messages"):
        done.apply(current)
    assert current == before


def test_b4_a_message_that_its_owner_changes_in_place_is_noticed(tiny_renderer, tiny_model):
    messages = copy.deepcopy(CHAT)
    with serving(tiny_renderer) as stub:
        (done,) = run(stub, tiny_model, messages)
    messages[3]["content"] = "something else"
    with pytest.raises(CompactionError, match=r"messages\[3\] is another one"):
        done.apply(messages)


def test_b4_what_was_left_alone_applies_to_anything(tiny_renderer, tiny_model):
    with serving(tiny_renderer) as stub:
        (left,) = run(stub, tiny_model, calls=[{"tau": 8000}])
    assert isinstance(left, CompactedMessages)
    assert left.apply(CHAT[:2]) == CHAT[:2]


def long_chat(num_exchanges):
    return [
        CHAT[0],
        *(
            {"role": role, "content": f"{role} says in message {number} what has to be done."}
            for number in range(num_exchanges)
            for role in ("user", "assistant")
        ),
    ]


def test_e4_below_tau_a_step_costs_what_was_appended(tiny_renderer, tiny_model):
    """Under 5 ms at 5,000 messages; the first reading, which is whole, is the measure here."""
    messages = long_chat(2500)
    with serving(tiny_renderer) as stub:

        async def steps():
            times = []
            async with ChatCompactor(
                stub.base_url, "m", tokenizer=tiny_model.tokenizer_path
            ) as compactor:
                for _ in range(12):
                    begin_s = time.perf_counter()
                    done = await compactor.compact(messages, tau=10**7)
                    times.append(time.perf_counter() - begin_s)
                    assert done.status is Outcome.UNCHANGED
                    assert done.tokens_before == tiny_renderer.count(messages, False)
                    messages.extend(copy.deepcopy(long_chat(1)[1:]))
            return times

        times = asyncio.run(steps())
    assert not stub.requests
    assert sorted(times[2:])[5] < 0.25 * times[0]


def test_e4_results_that_join_a_round_and_changes_are_counted(tiny_renderer, tiny_model):
    calls = [{"id": "a", "type": "function", "function": {"name": "ls", "arguments": "{}"}}]
    called = {"role": "assistant", "content": "", "tool_calls": calls}
    result = {"role": "tool", "tool_call_id": "a", "content": "docs src"}
    states = [
        long_chat(3),
        [*long_chat(3), called],
        [*long_chat(3), called, result],
        [*long_chat(3), called, result, *long_chat(1)[1:]],
        long_chat(2),
        [*long_chat(2)[:-1], {"role": "assistant", "content": "It was another one."}],
    ]
    with serving(tiny_renderer) as stub:

        async def all_states():
            async with ChatCompactor(
                stub.base_url, "m", tokenizer=tiny_model.tokenizer_path
            ) as compactor:
                return [
                    (await compactor.compact(state, tau=10**6)).tokens_before for state in states
                ]

        counted = asyncio.run(all_states())
    shown = [[{**one, "content": one["content"] or ""} for one in state] for state in states]
    assert counted == [tiny_renderer.count(state, False) for state in shown]


def test_e3_the_event_loop_goes_on_while_a_long_history_is_read(tiny_model):
    """A task that wakes every 5 ms is late by a small part of the whole at most."""
    renderer = Renderer(tiny_model.tokenizer_path)  # it has read nothing yet
    engine = InstantEngine(renderer)  # none of the time is the engine's
    accepts = frozenset({SummaryFault.LENGTH})  # that is how its answers end
    own = rule(block_size_tokens=4000, accept=accepts)

    async def beside():
        late, done = [], asyncio.Event()

        async def wake():
            while not done.is_set():
                begin_s = time.perf_counter()
                await asyncio.sleep(0.005)
                late.append(time.perf_counter() - begin_s - 0.005)

        waking = asyncio.create_task(wake())
        begin_s = time.perf_counter()
        await compact_messages(engine, renderer, long_chat(2000), own)
        whole_s = time.perf_counter() - begin_s
        done.set()
        await waking
        return max(late), whole_s

    late_s, whole_s = asyncio.run(beside())
    assert late_s < 0.3 * whole_s, (late_s, whole_s)


def test_messages_are_json_again(tiny_renderer, tiny_model):
    with serving(tiny_renderer) as stub:
        (done,) = run(stub, tiny_model)
    assert json.loads(json.dumps(done.messages)) == done.messages
