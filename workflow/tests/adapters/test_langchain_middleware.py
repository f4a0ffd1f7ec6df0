"""The middleware in a real agent of LangChain, with its own fake model."""

import asyncio
import logging

import pytest
from scripted_workers import NEEDED, scripted

pytest.importorskip("langchain", reason=NEEDED)

from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_core.utils.function_calling import convert_to_openai_tool

from blockwise.adapters.langchain_middleware import CompactionMiddleware
from blockwise.compaction.compactor import WRAPPER_HEADING
from blockwise.serving import client as engine_module

PROMPT = "Be brief."


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    monkeypatch.setattr(engine_module, "RETRY_WAIT_S", 0.0)


@tool
def read(path: str) -> str:
    """Read a file."""
    return f"{path}: " + "Mira lives in Tarvos. " * 60  # some 330 tokens


class ScriptedModel(GenericFakeChatModel):
    """LangChain's fake model, which may be offered tools and keeps what it was shown."""

    shown: list = []  # noqa: RUF012

    def bind_tools(self, tools, **_):
        return self

    def _generate(self, messages, *arguments, **options):
        self.shown.append(list(messages))
        return super()._generate(messages, *arguments, **options)


def conversation():
    """Eight exchanges of about 60 tokens each, and a question that waits."""
    text = "Mira lives in Tarvos and keeps her boat in the northern harbour. " * 2
    past = [kind(f"{number}: {text}") for number in range(8) for kind in (HumanMessage, AIMessage)]
    return [*past, HumanMessage("Where does Mira live?")]


def calls(number):
    call = {"name": "read", "args": {"path": f"{number}.txt"}, "id": f"call{number}"}
    return AIMessage("", tool_calls=[call])


def run(messages, answers, behaviour="summary", **limits):
    """The last state's messages, what the model was shown at each step, what workers were asked."""

    async def agent_run():
        async with scripted(behaviour) as (compactor, workers):
            model = ScriptedModel(messages=iter(answers), shown=[])
            compaction = CompactionMiddleware(
                compactor, system_prompt=PROMPT, tools=[read], **limits
            )
            agent = create_agent(model, [read], system_prompt=PROMPT, middleware=[compaction])
            state = await agent.ainvoke({"messages": messages})
            return state["messages"], model.shown, workers.asked

    return asyncio.run(agent_run())


def same(ones, others):
    return len(ones) == len(others) and all(map(lambda a, b: a is b, ones, others))


def test_the_summaries_stand_in_place_and_what_stays_is_the_same_object():
    given = conversation()
    messages, shown, asked = run(given, [calls(1), "In Tarvos."], tau=600, keep=3)
    assert asked
    assert isinstance(messages[0], HumanMessage)
    assert messages[0].content.startswith(WRAPPER_HEADING)
    assert same(messages[1:4], given[-3:])
    assert [message.type for message in messages[4:]] == ["ai", "tool", "ai"]
    assert same(shown[0][1:], messages[:4])  # behind the system prompt


def test_workers_are_shown_the_agents_prompt_and_tools():
    _, _, asked = run(conversation(), ["In Tarvos."], tau=600)
    assert all(body["messages"][0] == {"role": "system", "content": PROMPT} for body in asked)
    assert all(body["tools"] == [convert_to_openai_tool(read)] for body in asked)


def test_tool_calls_stay_with_their_results_over_many_compactions():
    answers = [*map(calls, range(5)), "In Tarvos."]
    messages, shown, asked = run(conversation(), answers, tau=900, keep=1)
    assert len(shown) == 6
    assert asked
    for state in [messages, *shown]:
        open_calls = set()
        for message in state:
            if isinstance(message, ToolMessage):
                open_calls.remove(message.tool_call_id)
            else:
                assert not open_calls
                open_calls = {call["id"] for call in getattr(message, "tool_calls", ())}
        assert not open_calls
        found = [m.content for m in state if str(m.content).startswith(WRAPPER_HEADING)]
        assert len(found) <= 1
    first, last = (
        set(state[at].content.splitlines()) for state, at in ((shown[0], 1), (messages, 0))
    )
    assert {line for line in first if line.startswith("summary")} < last  # they are carried
    assert sum(isinstance(message, ToolMessage) for message in messages) < 5


def test_under_tau_nothing_is_sent():
    given = conversation()
    messages, _, asked = run(given, ["In Tarvos."], tau=8000)
    assert not asked
    assert same(messages[:-1], given)


def test_a_failed_worker_leaves_the_history_as_it_was(caplog):
    given = conversation()
    with caplog.at_level(logging.WARNING, logger="blockwise"):
        messages, _, asked = run(given, ["In Tarvos."], "error_400", tau=600)
    assert asked
    assert same(messages[:-1], given)
    assert messages[-1].content == "In Tarvos."
    assert "HTTP 400" in caplog.text


def test_one_question_that_is_too_long_leaves_the_agent_at_work(caplog):
    given = [HumanMessage("Where does Mira live? " * 200)]
    with caplog.at_level(logging.WARNING, logger="blockwise"):
        messages, _, asked = run(given, ["In Tarvos."], tau=600)
    assert not asked
    assert same(messages[:-1], given)
    assert "stay as they are" in caplog.text


def test_a_message_that_becomes_several_comes_back_once():
    use = {"type": "tool_use", "id": "a", "name": "read", "input": {"path": "x"}}
    results = [
        {"type": "tool_result", "tool_use_id": "a", "content": "Tarvos."},
        {"type": "tool_result", "tool_use_id": "b", "content": "Tarvos."},
    ]
    round_ = [AIMessage([use, {**use, "id": "b"}]), HumanMessage(results)]
    given = [*conversation(), *round_, HumanMessage("Where does she live?")]
    messages, _, asked = run(given, ["In Tarvos."], tau=600, keep=3)
    assert asked
    assert same(messages[1:-1], given[-3:])


def test_a_synchronous_call_is_refused_in_words():
    async def made():
        async with scripted() as (compactor, _):
            return CompactionMiddleware(compactor, tau=600)

    model = ScriptedModel(messages=iter(["In Tarvos."]))
    agent = create_agent(model, [], middleware=[asyncio.run(made())])
    with pytest.raises(NotImplementedError, match="ainvoke or astream"):
        agent.invoke({"messages": conversation()})
