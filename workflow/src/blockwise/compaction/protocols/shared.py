"""Shared: one compaction on an engine that other sessions use at the same time.

Bystanders are short conversations with a cached history of their own that ask again as soon
as they are answered. Each first asks a few times while nothing else runs, which is the
undisturbed case of the same cell; then the compaction starts, and they go on until it ends. An
eager arm first summarises its closed history blocks in the background, which is part of it.
"""

import asyncio

from blockwise.compaction.agent import SYSTEM_PROMPT, Agent
from blockwise.compaction.cell_spec import CellSpec
from blockwise.compaction.dispatch import run_together
from blockwise.compaction.history import History, Turn
from blockwise.compaction.protocols.single import grow_history
from blockwise.data.documents import Session


async def play(agent: Agent, session: Session, spec: CellSpec) -> None:
    """Let bystanders ask alone, then compact while they go on."""
    rule = spec.bystanders
    assert rule is not None, spec.label
    index = await grow_history(agent, session, spec)
    histories = [
        _bystander(agent, session, rule.context_tokens, number)
        for number in range(spec.num_bystanders)
    ]
    is_over = asyncio.Event()

    async def ask_alone(number: int, history: History) -> None:
        for _ in range(rule.num_alone_requests):
            await agent.ask_as_bystander(number, history, rule.answer_tokens, meanwhile=False)

    async def ask_meanwhile(number: int, history: History) -> None:
        while not is_over.is_set():
            await agent.ask_as_bystander(number, history, rule.answer_tokens, meanwhile=True)

    async def compact() -> None:
        try:
            await agent.finish_ahead()
            await agent.compact(index, closing=True)
        finally:
            is_over.set()

    await run_together(agent.warm(history) for history in histories)
    await run_together(ask_alone(*one) for one in enumerate(histories))
    await run_together([compact(), *(ask_meanwhile(*one) for one in enumerate(histories))])


def _bystander(agent: Agent, session: Session, context_tokens: int, number: int) -> History:
    """A conversation of its own, so that bystanders share no cache with anybody.

    It opens with the bystander's number and holds text of the session up to its context.
    """
    text = f"Visitor {number + 1}.\n\n" + "\n\n".join(
        document.text for document in session.documents
    )
    history = History.with_system_prompt(SYSTEM_PROMPT).extended(Turn("user", text))
    offsets = agent.renderer.token_offsets(text)
    beside = agent.renderer.count(history.messages(), add_generation_prompt=True) - len(offsets)
    num_tokens = min(len(offsets), context_tokens - beside)
    return History.with_system_prompt(SYSTEM_PROMPT).extended(
        Turn("user", text[: offsets[num_tokens - 1][1]])
    )
