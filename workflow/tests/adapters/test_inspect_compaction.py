"""The strategy in a real agent of inspect_ai, with its own mock model."""

import asyncio
import functools
import logging

import pytest
from scripted_workers import NEEDED, scripted

pytest.importorskip("inspect_ai", reason=NEEDED)

from inspect_ai import Task, eval_async
from inspect_ai.agent import react
from inspect_ai.dataset import Sample
from inspect_ai.model import (
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
    ModelAPI,
    ModelOutput,
    compaction,
    get_model,
)
from inspect_ai.model._openai import openai_chat_tools
from inspect_ai.tool import ToolDef, ToolInfo, tool

from blockwise.adapters.inspect_compaction import BlockwiseCompaction
from blockwise.compaction.compactor import WRAPPER_HEADING
from blockwise.serving import client as engine_module

TASK = "Where does Mira live?"


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    monkeypatch.setattr(engine_module, "RETRY_WAIT_S", 0.0)


@pytest.fixture(autouse=True)
def _counts_by_length(monkeypatch):
    """inspect_ai's own count loads a vocabulary from the network."""

    async def count(_, text):
        return len(text) // 4

    monkeypatch.setattr(ModelAPI, "count_text_tokens", count)


@tool
def read():
    async def execute(path: str) -> str:
        """Read a file.

        Args:
            path: where it is.
        """
        return f"{path}: " + "Mira lives in Tarvos. " * 60  # some 330 tokens

    return execute


class ScriptedModel:
    """Answers by script, and keeps what it was shown."""

    def __init__(self, answers):
        self.shown = []
        self._answers = iter(answers)
        self.model = get_model("mockllm/model", custom_outputs=self._answer, memoize=False)

    def _answer(self, messages, tools, tool_choice, config):
        self.shown.append(list(messages))
        return next(self._answers)


def calls(number):
    arguments = {"path": f"{number}.txt"}
    return ModelOutput.for_tool_call("mockllm/model", "read", arguments, tool_call_id=f"c{number}")


DONE = ModelOutput.for_tool_call("mockllm/model", "submit", {"answer": "In Tarvos."})


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run the agent: its sample, what the model was shown at each step, what workers were asked."""
    monkeypatch.setenv("INSPECT_DISPLAY", "none")
    return functools.partial(evaluated, tmp_path)


def evaluated(log_folder, answers, behaviour="summary", **limits):

    async def agent_run():
        async with scripted(behaviour) as (compactor, workers):
            scripted_model = ScriptedModel(answers)
            strategy = BlockwiseCompaction(compactor, **limits)
            agent = react(tools=[read()], model=scripted_model.model, compaction=strategy)
            task = Task(dataset=[Sample(input=TASK)], solver=agent)
            (log,) = await eval_async(task, model=scripted_model.model, log_dir=str(log_folder))
            return log.samples[0], scripted_model.shown, workers.asked

    return asyncio.run(agent_run())


def assert_paired(messages):
    open_calls = set()
    for message in messages:
        if message.role == "tool":
            open_calls.remove(message.tool_call_id)
        else:
            assert not open_calls
            open_calls = {call.id for call in getattr(message, "tool_calls", None) or ()}
    assert not open_calls


def summaries(messages):
    return [message for message in messages if message.text.startswith(WRAPPER_HEADING)]


def test_the_agent_goes_on_behind_summaries_and_its_calls_stay_paired(run):
    sample, shown, asked = run([*map(calls, range(12)), DONE], tau=2200, keep=2)
    history = sample.messages
    assert sample.error is None
    assert asked
    assert len(shown) == 13
    for state in shown:
        assert_paired(state)
        assert [message.text for message in state].count(TASK) == 1
        assert len(summaries(state)) <= 1
    first, *_, latest = summaries(history)  # every one joined the history
    assert set(first.text.splitlines()[2:-1]) < set(latest.text.splitlines())  # and was carried
    last = shown[-1]
    assert last[0].role == "system"
    assert [message.id for message in summaries(last)] == [last[1].id] == [latest.id]
    assert last[2].text == TASK
    assert [message.role for message in last[-2:]] == ["assistant", "tool"]
    assert len(last) < len([message for message in history if message not in summaries(history)])
    assert {message.id for message in last} <= {message.id for message in history}


def test_workers_are_shown_the_agents_tools(run):
    _, _, asked = run([*map(calls, range(6)), DONE], tau=2200)
    names = {one["function"]["name"] for body in asked for one in body["tools"]}
    assert names == {"read", "submit"}
    info = ToolDef(read())
    described = ToolInfo(name=info.name, description=info.description, parameters=info.parameters)
    assert openai_chat_tools([described])[0] in asked[0]["tools"]


def test_under_tau_nothing_is_sent(run):
    sample, shown, asked = run([calls(1), DONE], tau=8000)
    assert not asked
    assert not summaries(sample.messages)
    assert len(shown) == 2


def test_a_failed_worker_ends_in_the_frameworks_error_and_a_whole_history(run, caplog):
    with caplog.at_level(logging.WARNING, logger="blockwise"):
        sample, shown, _ = run([*map(calls, range(6)), DONE], "error_400", tau=2200)
    assert "HTTP 400" in caplog.text
    assert "Compaction insufficient" in sample.error.message
    assert not summaries(sample.messages)
    assert [message.id for message in sample.messages[: len(shown[-1])]] == [
        message.id for message in shown[-1]
    ]
    assert len(sample.messages) == len(shown[-1]) + 2  # the last call and its result


def conversation():
    text = "Mira lives in Tarvos and keeps her boat in the northern harbour. " * 2
    past = [
        kind(content=f"{number}: {text}")
        for number in range(8)
        for kind in (ChatMessageUser, ChatMessageAssistant)
    ]
    head = [ChatMessageSystem(content="Be brief."), ChatMessageUser(content=TASK, source="input")]
    return [*head, ChatMessageAssistant(content="Let me see."), *past]


def compacted(messages, behaviour="summary", times=1, **limits):
    """What inspect_ai's own handler makes of them."""

    async def handle():
        async with scripted(behaviour) as (compactor, _):
            strategy = BlockwiseCompaction(compactor, **limits)
            handler = compaction(strategy, messages[:2], model=get_model("mockllm/model"))
            return [await handler.compact_input(messages, force=True) for _ in range(times)][-1]

    return asyncio.run(handle())


def test_the_summaries_stand_in_place_and_what_stays_is_the_same_object():
    given = conversation()
    shown, summary = compacted(given, tau=8000, keep=3)
    assert [shown[0], *shown[2:]] == [given[0], given[1], *given[-3:]]
    assert all(any(one is other for other in given) for one in [shown[0], *shown[2:]])
    assert shown[1] is summary
    assert summary.role == "user"
    assert summary.text.startswith(WRAPPER_HEADING)
    assert summary.metadata == {"summary": True}


def test_a_failed_worker_leaves_the_history_as_it_was():
    given = conversation()
    shown, summary = compacted(given, "error_400", tau=8000)
    assert summary is None
    assert len(shown) == len(given)
    assert all(map(lambda one, other: one is other, shown, given))


def test_what_cannot_be_compacted_again_stays():
    given = conversation()
    shown, summary = compacted(given, times=2, tau=8000)
    assert summary is None
    assert [message.role for message in shown] == ["system", "user", "user"]


def test_a_log_of_inspect_ai_names_the_limits():
    async def parameters():
        async with scripted() as (compactor, _):
            return BlockwiseCompaction(compactor, tau=5, keep=2)._repr_params_()

    found = asyncio.run(parameters())
    assert (found["threshold"], found["keep"], found["keep_tokens"]) == (5, 2, 0)
