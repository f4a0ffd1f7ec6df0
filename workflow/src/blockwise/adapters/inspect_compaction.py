"""inspect_ai: a compaction strategy for its agents.

    strategy = BlockwiseCompaction(ChatCompactor(url, model), tau=24_000, keep=2)
    agent = react(tools=tools, compaction=strategy)

inspect_ai counts tokens itself, calls a strategy once they exceed its threshold, and ends the
sample with an error of its own where what comes back still exceeds it. Source: 0.3.285.
"""

from typing import Any

from inspect_ai.model import (
    ChatMessage,
    ChatMessageUser,
    CompactionStrategy,
    Model,
    messages_from_openai,
    messages_to_openai,
)
from inspect_ai.tool import ToolInfo

from blockwise.adapters.attempt import attempt
from blockwise.compaction.chat import ChatCompactor
from blockwise.compaction.conversation import pins_system_messages

SUMMARY = "summary"  # in a message's metadata: how inspect_ai knows the summaries of strategies


class BlockwiseCompaction(CompactionStrategy):
    """Compacts the messages of an agent once inspect_ai counts more than tau.

    System messages and the sample's input always stay; the summaries stand before the input.
    Messages that stay verbatim stay the same objects. Where nothing can be compacted, or a worker
    fails, they all do, and the log says why. Where a provider joins neighbouring messages of the
    user's, as that of vLLM does, a later compaction summarises the summaries again.
    """

    def __init__(
        self, compactor: ChatCompactor, *, tau: int, keep: int = 0, keep_tokens: int = 0
    ) -> None:
        """Keep what every compaction is asked for.

        Args:
            compactor: where the workers are; it stays open.
            tau: tokens, tools included; inspect_ai leaves a conversation of at most so many alone.
            keep: messages at the end that stay as they are, at least.
            keep_tokens: the last messages that hold at most so many tokens stay too.
        """
        super().__init__(type="summary", threshold=tau)
        self._compactor = compactor
        self._limits = {"keep": keep, "keep_tokens": keep_tokens}

    def _repr_params_(self) -> dict[str, Any]:
        """What logs of inspect_ai hold of it."""
        return {**super()._repr_params_(), **self._limits}

    async def compact(
        self, model: Model, messages: list[ChatMessage], tools: list[ToolInfo]
    ) -> tuple[list[ChatMessage], ChatMessageUser | None]:
        """The messages for the model, and the one that holds the summaries (None: they stay).

        Arguments are those of every strategy; the model is not asked.

        Raises:
            ServerError: there is no such server or model.
            EngineError: the chat template refuses the conversation.
        """
        plain: list[Any] = list(await messages_to_openai(messages))
        originals = {id(one): message for one, message in zip(plain, messages, strict=True)}
        inputs = {key for key, message in originals.items() if _is_input(message)}
        compacted: list[Any] | None = await attempt(
            self._compactor,
            plain,
            tools=[_openai_tool(tool) for tool in tools],
            pin=lambda place, one: pins_system_messages(place, one) or id(one) in inputs,
            **self._limits,
        )
        if compacted is None:
            return messages, None
        restored: list[ChatMessage] = []
        summary: ChatMessageUser | None = None
        for one in compacted:
            message = originals.get(id(one)) or (await messages_from_openai([one]))[0]
            restored.append(message)
            if isinstance(message, ChatMessageUser) and id(one) not in originals:
                summary = message
                summary.metadata = {SUMMARY: True}
        return restored, summary


def _is_input(message: ChatMessage) -> bool:
    return message.source == "input" and SUMMARY not in (message.metadata or {})


def _openai_tool(tool: ToolInfo) -> dict[str, Any]:
    """A tool as the OpenAI providers of inspect_ai send it."""
    parameters = tool.parameters.model_dump(exclude_none=True)
    described = {"name": tool.name, "description": tool.description, "parameters": parameters}
    return {"type": "function", "function": described}
