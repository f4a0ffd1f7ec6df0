"""Rolling: one running summary, which takes in one history block after another.

Each request is a short conversation: the system prompt, the summary so far in its wrapper, as the
agent itself would see it, and the next history block. Its words are those of the sequential layout.
Nothing behind the system prompt is cached, and no request can begin before the last one has ended.

Source: ours; what agents commonly do when they summarise step by step.
"""

from blockwise.compaction.compactor import Compaction
from blockwise.compaction.history import slice_turns
from blockwise.compaction.strategy import Amounts, Arms, Kept, Round, Strategy, Work, summaries_of


async def _compact(work: Work) -> Kept:
    texts: tuple[str, ...] = ()
    rounds: list[Compaction] = []
    for number, part in enumerate(work.blocks):
        shown = work.with_head(texts, slice_turns(work.history.turns, *part.span))
        rounds.append(await work.summarise_whole(shown, number, work.room_tokens(1)))
        texts = summaries_of(rounds[-1])
    return Kept(texts=texts, rounds=tuple(rounds))


def _rounds(amounts: Amounts) -> list[Round]:
    room = amounts.room_tokens(1)
    summary = amounts.wrapper_tokens(1) + amounts.written_tokens(room)
    first, *others = amounts.block_tokens
    return [
        Round((room,), first, is_conversation=True),
        *(Round((room,), summary + tokens) for tokens in others),
    ]


STRATEGY = Strategy(arms=Arms.SIZES, compact=_compact, rounds=_rounds)
