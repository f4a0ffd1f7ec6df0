"""The synthetic data sets: the official schemas, filled by a seeded generator.

They are the default where nothing may be downloaded, and the same loader reads them as
reads the published files: nothing downstream can tell the difference. Facts come first (who
works where, who bought what when), prose second; so every question is answerable from its
evidence, unambiguous in the whole data set, and unanswerable from anywhere else, because every name
is invented. `synthetic_hotpotqa` and `synthetic_locomo` hold the two plans, `encyclopedia` and
`smalltalk` their relations and sentences, `vocabulary` the names.

All randomness is drawn from generators seeded by text, which Python defines to the bit on
every platform. Row i does not depend on how many rows follow, so a larger set begins
with the smaller one.
"""

import random
from typing import Any

from blockwise.config.datasets import SyntheticSource
from blockwise.data import synthetic_hotpotqa, synthetic_locomo
from blockwise.data.vocabulary import NameMaker


def hotpotqa_rows(source: SyntheticSource) -> list[dict[str, Any]]:
    """Rows in the official HotpotQA (distractor) schema; the same seed gives the same bytes."""
    names = NameMaker(random.Random(f"{source.seed}:hotpotqa:names"), source.split)
    rows = []
    for index in range(source.num_rows):
        rng = random.Random(f"{source.seed}:hotpotqa:{index}")
        plan = synthetic_hotpotqa.plan_row(rng, names, index)
        paragraphs = synthetic_hotpotqa.write_paragraphs(
            plan, rng, sentences_per_paragraph=source.sentences_per_paragraph
        )
        row_id = f"synthetic-{source.seed}-{index:05d}"
        rows.append(synthetic_hotpotqa.render_row(plan, paragraphs, row_id))
    return rows


def locomo_rows(source: SyntheticSource) -> list[dict[str, Any]]:
    """Conversations in the official LoCoMo schema; the same seed gives the same bytes."""
    names = NameMaker(random.Random(f"{source.seed}:locomo:names"), source.split)
    rows = []
    for index in range(source.num_rows):
        rng = random.Random(f"{source.seed}:locomo:{index}")
        plan = synthetic_locomo.plan_conversation(
            rng,
            names,
            num_chat_sessions=source.chat_sessions_per_row,
            num_turns=source.turns_per_chat_session,
        )
        rows.append(synthetic_locomo.render_row(plan, rng, f"synthetic-{source.seed}-{index:03d}"))
    return rows
