"""Figure `compaction_block_prompts`: a prompt for each content type against one prompt for all.

From top to bottom recall with either, their difference question by question, and the volume
that each spends, because more words remember more. Hollow marks are one prompt for all history
blocks, filled ones a prompt for the content type of each.
"""

from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure

from blockwise.figures import notes
from blockwise.figures.axes import Sizes
from blockwise.figures.marks import Panel, Scale, Statistic, marks_of
from blockwise.figures.panels import Fill, Sheet, draw_sheet
from blockwise.tables.compaction.parts.categories import HEADLINE

TABLE = "compaction_block_prompts"
BY_CONTENT_TYPE = "by content type"  # label of such arms in a batch
ONE_PROMPT = "one prompt"
DIFFERENCE = "f1_minus_one_prompt"
PANELS = (
    Panel("f1", "recall (F1)", Statistic.of("f1")),
    Panel("contains_gold", "recall\n(contains gold)", Statistic.of("contains_gold")),
    Panel("exact_match", "recall\n(exact match)", Statistic.of("exact_match")),
    Panel(
        DIFFERENCE,
        "F1 by type less\none prompt",
        Statistic.of(DIFFERENCE),
        Scale.DIFFERENCE,
    ),
    Panel(
        "compaction_output",
        "compaction\noutput (tokens)",
        Statistic.of("compaction_output", "_tokens", has_interval=False),
        Scale.TOKENS,
    ),
    Panel(
        "output_over_input",
        "output over\ninput tokens",
        Statistic.of("output_over_input", "_frac", has_interval=False),
    ),
)
REASONS = {
    "f1": "no answer counts",
    "contains_gold": "no answer counts",
    "exact_match": "the official rules define no exact match",
    DIFFERENCE: "no question answered with both",
}


def plotted(table: pd.DataFrame) -> pd.DataFrame:
    """Exactly what is drawn: one row a mark, with its bar and what the bar means."""
    headline = table[table["categories"] == HEADLINE]
    marks = marks_of(headline, PANELS, (*notes.RECALL_LABELS, "tau_tokens"))
    is_one = marks["prompt"] != BY_CONTENT_TYPE
    marks["prompts"] = is_one.map({True: ONE_PROMPT, False: BY_CONTENT_TYPE})
    reasons = marks["measure"].map(REASONS).fillna("no compaction")
    marks["omitted_reason"] = reasons.where(marks["value"].isna()).astype("str")
    return marks


def draw(table: pd.DataFrame) -> Figure:
    """The figure of the table `compaction_block_prompts`."""
    return draw_sheet(plotted(table), SHEET)


def _num_words(group: pd.DataFrame) -> str:
    return f"n = {notes.count_words(group['num_answers'].astype(int))} answers"


def _notes(marks: pd.DataFrame) -> Iterator[str]:
    means = (
        "Recall: means over clusters (LoCoMo: conversation; HotpotQA: session) of answers whose "
        "evidence was compacted, of LoCoMo those in categories 1, 2 and 4; volume: means over "
        "sessions, thinking included."
    )
    one = marks.loc[marks["prompts"] == ONE_PROMPT, "prompt"].unique()
    return notes.mark_notes(marks, means, [f"One prompt: {', '.join(one)}."] if len(one) else [])


SHEET = Sheet(
    panels=PANELS,
    axis=Sizes(),
    nothing="no recall cell",
    num_words=_num_words,
    notes_of=_notes,
    facts={"experiment": "{}", "tau_tokens": "tau = {:,} tokens"},
    variants=("prompt",),
    fill=Fill(
        "prompts", ONE_PROMPT, {ONE_PROMPT: "one prompt", BY_CONTENT_TYPE: "by content type"}
    ),
)
