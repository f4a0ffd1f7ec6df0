"""Immediate: a whole session, each question in the turn of its document.

With the fixed transcript every answer decodes the same number of tokens and the recorded assistant
turn is appended, so all arms see the same history, cross tau at the same turns and answer the same
work up to the first compaction; that is what timing needs. Between an answer and the next document
the agent may wait, as for a tool. A question is asked before the history that answers it is
compacted, so the accuracy is no recall measure.
"""

from blockwise.compaction.agent import ACKNOWLEDGEMENT, Agent
from blockwise.compaction.cell_spec import CellSpec
from blockwise.compaction.records import AnswerContext
from blockwise.config.choices import Transcript
from blockwise.data.documents import Question, Session


async def play(agent: Agent, session: Session, spec: CellSpec) -> None:
    """Play every document and its questions, compacting whenever tau would be exceeded."""
    for index, document in enumerate(session.documents):
        if index:
            await agent.wait_for_tool()
        asked: list[Question | None] = [*document.questions] or [None]
        for number, question in enumerate(asked):
            shown = document if number == 0 else None
            incoming = agent.incoming(shown, question)
            await agent.make_room(index, incoming)
            completion = await agent.ask(index, incoming)
            recorded = ACKNOWLEDGEMENT if question is None else question.answer
            is_free = spec.transcript == Transcript.FREE
            agent.append(shown, incoming, completion.text if is_free else recorded)
            agent.work_ahead()
            if question is not None:
                agent.score(index, document, question, completion.text, AnswerContext.RUNNING)
