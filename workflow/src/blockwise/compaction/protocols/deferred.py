"""Deferred: a whole session first, every question after a closing compaction of all of it.

No question or answer is ever in a history that is compacted. Each question is asked in its
own branch of the frozen compacted history and never appended. Floors and ceilings are asked
the same questions with the same answer budget: on nothing (closed book), on the last tokens,
as many as the compacted history holds (truncation, asked by the compacted cell itself), and on
everything (full history).
"""

import asyncio

from blockwise.compaction.agent import ACKNOWLEDGEMENT, Agent
from blockwise.compaction.cell_spec import CellSpec
from blockwise.compaction.dispatch import run_together
from blockwise.compaction.history import Cut, History, slice_turns
from blockwise.compaction.partition import last_tokens_cut
from blockwise.compaction.records import AnswerContext
from blockwise.config.arms import Reference
from blockwise.data.documents import Question, Session
from blockwise.models.renderer import Renderer
from blockwise.serving.client import ChatRequest, Completion

CONCURRENT_QUESTIONS = 8  # branches of a frozen history asked at once; they share its cache


async def play(agent: Agent, session: Session, spec: CellSpec) -> None:
    """Show every document, close, and ask every question in each context of the cell."""
    if spec.layout == Reference.CLOSED_BOOK:
        await _ask_all(agent, session, agent.history, AnswerContext.CLOSED_BOOK)
        return
    whole = await _show_documents(agent, session)
    if spec.layout == Reference.FULL_HISTORY:
        await _ask_all(agent, session, agent.history, AnswerContext.FULL_HISTORY)
        return
    await agent.compact(len(session.documents), closing=True)
    await _ask_all(agent, session, agent.history, AnswerContext.COMPACTED)
    if spec.asks_truncated:
        tail = truncated(whole, agent.history_tokens(), agent.renderer)
        await _ask_all(agent, session, tail, AnswerContext.TRUNCATION)


def truncated(whole: History, num_tokens: int, renderer: Renderer) -> History:
    """The system prompt and the last tokens of a history, `num_tokens` in all at most."""
    start = last_tokens_cut(whole, num_tokens, renderer)
    stop = Cut(len(whole.turns))
    head = whole.turns[: whole.num_system_turns]
    return History((*head, *slice_turns(whole.turns, start, stop)))


async def _show_documents(agent: Agent, session: Session) -> History:
    """Show every document; return the history as it would be without any compaction."""
    whole = agent.history
    for index, document in enumerate(session.documents):
        incoming = agent.incoming(document, None)
        await agent.make_room(index, incoming)
        agent.append(document, incoming, ACKNOWLEDGEMENT)
        whole = whole.extended(*agent.history.turns[-2:])
    return whole


async def _ask_all(
    agent: Agent, session: Session, history: History, context: AnswerContext
) -> None:
    gate = asyncio.Semaphore(CONCURRENT_QUESTIONS)

    async def ask(index: int, question: Question) -> tuple[ChatRequest, Completion]:
        async with gate:
            return await agent.ask_in_branch(index, history, question)

    asked = [
        (index, document, question)
        for index, document in enumerate(session.documents)
        for question in document.questions
    ]
    answers = await run_together(ask(index, question) for index, _, question in asked)
    for (index, document, question), (request, completion) in zip(asked, answers, strict=True):
        agent.record_question(request, completion, index)
        agent.score(index, document, question, completion.text, context)
    agent.playback.answers.sort(
        key=lambda a: (list(AnswerContext).index(a.context), a.turn_index, a.question_id)
    )
