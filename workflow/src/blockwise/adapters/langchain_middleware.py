"""LangChain: a middleware that compacts an agent's messages before its model is called.

    compaction = CompactionMiddleware(ChatCompactor(url, model), tau=24_000, tools=tools)
    agent = create_agent(chat_model, tools, middleware=[compaction])
    await agent.ainvoke({"messages": messages})

Source: langchain 1.5.2; messages are replaced as its own SummarizationMiddleware replaces them.
"""

from collections.abc import Sequence
from typing import Any

from langchain.agents.middleware import AgentMiddleware, AgentState
from langchain_core.messages import (
    BaseMessage,
    RemoveMessage,
    SystemMessage,
    convert_to_messages,
    convert_to_openai_messages,
)
from langchain_core.utils.function_calling import convert_to_openai_tool
from langgraph.graph.message import REMOVE_ALL_MESSAGES
from langgraph.runtime import Runtime

from blockwise.adapters.attempt import attempt
from blockwise.compaction.chat import ChatCompactor


class CompactionMiddleware(AgentMiddleware[AgentState[Any], Any, Any]):
    """Compacts the messages of an agent once they exceed tau.

    Messages that stay verbatim stay the same objects. Where nothing can be compacted, or a worker
    fails, the agent goes on with the messages as they are, and the log says why.
    """

    def __init__(
        self,
        compactor: ChatCompactor,
        *,
        tau: int,
        keep: int = 0,
        keep_tokens: int = 0,
        system_prompt: str | None = None,
        tools: Sequence[Any] = (),
    ) -> None:
        """Keep what every compaction is asked for.

        Args:
            compactor: where the workers are; it stays open.
            tau: messages of at most so many tokens are left as they are.
            keep: messages at the end that stay as they are, at least.
            keep_tokens: the last messages that hold at most so many tokens stay too.
            system_prompt: that of the agent. It is no message of the agent's state: given here, it
                is counted, and prompts of workers begin as the agent's do.
            tools: those of the agent, for the same reason.
        """
        super().__init__()
        self._compactor = compactor
        self._limits = {"tau": tau, "keep": keep, "keep_tokens": keep_tokens}
        self._head = [] if system_prompt is None else [SystemMessage(system_prompt)]
        self._tools = [convert_to_openai_tool(tool) for tool in tools]

    def before_model(self, state: AgentState[Any], runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Refuse a synchronous call.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            "compaction asks its workers asynchronously; call the agent with ainvoke or astream "
            "in place of invoke or stream"
        )

    async def abefore_model(
        self, state: AgentState[Any], runtime: Runtime[Any]
    ) -> dict[str, Any] | None:
        """Replace the messages by compacted ones; None where they stay.

        Raises:
            ServerError: there is no such server or model.
            EngineError: the chat template refuses the conversation.
        """
        plain: list[dict[str, Any]] = []
        originals: dict[int, BaseMessage] = {}  # by id() of what they were converted to
        for message in [*self._head, *state["messages"]]:
            converted = convert_to_openai_messages([message])
            plain += converted
            originals |= {id(one): message for one in converted}
        compacted = await attempt(self._compactor, plain, tools=self._tools, **self._limits)
        if compacted is None:
            return None
        restored: list[BaseMessage] = []
        for one in compacted:
            again = originals.get(id(one)) or convert_to_messages([one])[0]
            if not restored or restored[-1] is not again:  # one message may become several
                restored.append(again)
        kept = restored[len(self._head) :]
        return {"messages": [RemoveMessage(id=REMOVE_ALL_MESSAGES), *kept]}
