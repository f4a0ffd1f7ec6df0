"""Deferred: a whole session first, every question after a closing compaction of all of it.

No question or answer is ever in a history that is compacted. Each question is asked in its
own branch of the frozen compacted history and never appended. Floors and ceilings are asked
the same questions with the same answer budget: on nothing (closed book), on the last tokens,
as many as the compacted history holds (truncation, asked by the compacted cell itself), and on
everything (full history).

Cells of strategies are compacted at places that no strategy decides: a session is cut into parts of
about equal length, and everything is compacted after each. So every strategy goes over the same
texts equally often. The questions of the first part are asked after some of these compactions,
on the same evidence, and all others after the last, the closing one.
"""

import asyncio
from collections.abc import Sequence
from itertools import accumulate, pairwise

from blockwise.compaction.agent import ACKNOWLEDGEMENT, Agent
from blockwise.compaction.cell_spec import CellSpec
from blockwise.compaction.dispatch import run_together
from blockwise.compaction.history import Cut, History, slice_turns
from blockwise.compaction.partition import last_tokens_cut
from blockwise.compaction.records import AnswerContext
from blockwise.config.arms import Reference
from blockwise.data.documents import Question, Session
from blockwise.errors import CompactionError
from blockwise.models.renderer import Renderer
from blockwise.serving.client import ChatRequest, Completion

CONCURRENT_QUESTIONS = 8  # branches of a frozen history asked at once; they share its cache


async def play(agent: Agent, session: Session, spec: CellSpec) -> None:
    """Show every document, close, and ask every question in each context of the cell."""
    if spec.layout == Reference.CLOSED_BOOK:
        await _ask_all(agent, session, agent.history, AnswerContext.CLOSED_BOOK)
        return
    if spec.ask_after:
        await _play_in_parts(agent, session, spec.ask_after)
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


def part_starts(session: Session, num_parts: int) -> list[int]:
    """Where the parts of a session begin, in documents, and after them its number of documents.

    Parts hold whole documents and about as many characters each, which no tokenizer changes.

    Raises:
        CompactionError: there are fewer documents than parts.
    """
    ends = list(accumulate(len(document.text) for document in session.documents))
    if len(ends) < num_parts:
        raise CompactionError(
            f"session {session.id} has {len(ends)} documents and cannot be cut into {num_parts} "
            "parts; lower ask_after or raise the dataset's sessions.target_tokens"
        )
    starts = [0]
    for number in range(1, num_parts):
        target = number * ends[-1] / num_parts
        allowed = range(starts[-1] + 1, len(ends) - num_parts + number + 1)
        starts.append(min(allowed, key=lambda start: abs(ends[start - 1] - target)))
    return [*starts, len(ends)]


async def _play_in_parts(agent: Agent, session: Session, ask_after: Sequence[int]) -> None:
    """Show part after part, compact everything after each, and ask."""
    num_parts = max(ask_after)
    starts = part_starts(session, num_parts)
    for number, (start, stop) in enumerate(pairwise(starts), 1):
        for document in session.documents[start:stop]:
            agent.append(document, agent.incoming(document, None), ACKNOWLEDGEMENT)
        await agent.compact(stop, closing=number == num_parts)
        if number in ask_after:
            asked = session.documents if number == num_parts else session.documents[: starts[1]]
            only = session.model_copy(update={"documents": asked})
            await _ask_all(agent, only, agent.history, AnswerContext.STRATEGY)


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
