"""Single: one compaction of a history of a given length.

Whole documents are shown until the next one would exceed the length. Where the cell is timed,
one request of the agent's own brings the history into the cache first, as its traffic would
have; the compaction then starts from there, and nothing else runs.
"""

from blockwise.compaction.agent import ACKNOWLEDGEMENT, Agent
from blockwise.compaction.cell_spec import CellSpec
from blockwise.data.documents import Session


async def play(agent: Agent, session: Session, spec: CellSpec) -> None:
    """Grow the history to its length, and compact it once."""
    index = await grow_history(agent, session, spec)
    await agent.compact(index, closing=True)


async def grow_history(agent: Agent, session: Session, spec: CellSpec) -> int:
    """Show the documents that fit; return the index of the turn that would be next."""
    assert spec.history_tokens is not None  # cells of this protocol have a length
    num_shown = 0
    for document in session.documents:
        before = agent.history
        agent.append(document, agent.incoming(document, None), ACKNOWLEDGEMENT)
        if agent.history_tokens() > spec.history_tokens:
            agent.history = before
            break
        num_shown += 1
    if spec.is_timing:
        await agent.prime(num_shown)
    return num_shown
