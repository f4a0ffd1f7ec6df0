"""Figure `compaction_accuracy_volume`: what is still known after compaction, against its volume.

The form of the paper's Figure 4. Filled marks are arms on their compacted history, at the tokens
that their compactions decoded, joined over prompts and B; hollow ones are the same questions
asked on the last tokens instead, as many as the compacted history holds. Level lines are the
floor (questions alone) and the ceiling (the full history), where the window holds it. Recall is
drawn twice, as the official F1 and as the share of answers that contain the gold, on the
questions of the headline.
"""

from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure

from blockwise.config.arms import SEQUENTIAL
from blockwise.figures import notes
from blockwise.figures.axes import Amounts
from blockwise.figures.marks import Panel, Statistic, marks_of
from blockwise.figures.panels import Fill, Sheet, draw_sheet
from blockwise.tables.compaction.parts.categories import HEADLINE

TABLE = "compaction_accuracy_volume"
COMPACTED, TRUNCATION = "compacted", "truncation"
LEVELS = {"closed_book": "closed book", "full_history": "full history"}
SCORES = (
    Panel("f1", "F1", Statistic.of("f1"), reason="omitted_reason"),
    Panel(
        "contains_gold",
        "contains gold",
        Statistic.of("contains_gold"),
        reason="omitted_reason",
    ),
    Panel("exact_match", "exact match", Statistic.of("exact_match"), reason="omitted_reason"),
)
JUDGED = Panel("judged_accuracy", "judged accuracy", Statistic.of("judged_accuracy"))
VOLUME = ("mean", "min", "max")
KEPT = (
    *notes.RECALL_LABELS,
    "tau_tokens",
    "answer_context",
    *(f"compaction_output_{name}_tokens" for name in VOLUME),
    "judge",
    "judge_false_accept_frac",
)
NO_EXACT_MATCH = "the official rules define no exact match"


def plotted(table: pd.DataFrame) -> pd.DataFrame:
    """Exactly what is drawn: one row a mark; references once for each tau."""
    headline = table[table["categories"] == HEADLINE]
    marks = marks_of(_beside_arms(headline), _panels(table), KEPT)
    marks["level"] = marks["answer_context"].map(LEVELS).astype("str")
    is_silent = marks["value"].isna() & marks["omitted_reason"].isna()
    is_undefined = is_silent & (marks["measure"] == "exact_match") & (marks["num_answers"] > 0)
    reasons = marks["omitted_reason"].mask(is_silent, "no answer counts")
    return marks.assign(omitted_reason=reasons.mask(is_undefined, NO_EXACT_MATCH))


def draw(table: pd.DataFrame) -> Figure:
    """The figure of the table `compaction_accuracy_volume`."""
    return draw_sheet(plotted(table), _sheet(_panels(table)))


def _panels(table: pd.DataFrame) -> tuple[Panel, ...]:
    """A judge's verdicts are shown where there is one."""
    return (*SCORES, JUDGED) if table["judge"].notna().any() else SCORES


def _beside_arms(table: pd.DataFrame) -> pd.DataFrame:
    """The table with each reference repeated for every tau that it stands beside."""
    scope, settings = ["experiment", "backbone", "dataset"], ["tau_tokens"]
    is_reference = table["answer_context"].isin(list(LEVELS))
    arms = table.loc[~is_reference, scope + settings].drop_duplicates()
    references = table[is_reference].drop(columns=settings).merge(arms, on=scope, how="left")
    return pd.concat([table[~is_reference], references[table.columns]], ignore_index=True)


def _num_words(group: pd.DataFrame) -> str:
    seen = group[(group["answer_context"] == COMPACTED) & group["value"].notna()]
    answers, clusters = (
        notes.count_words(seen[name].astype(int)) for name in ("num_answers", "num")
    )
    return f"n = {answers} answers, {clusters} clusters"


def _notes(marks: pd.DataFrame) -> Iterator[str]:
    means = (
        "Marks: means over clusters (LoCoMo: conversation; HotpotQA: session) of answers whose "
        "evidence was compacted, of LoCoMo those in categories 1, 2 and 4; tokens: means over "
        "sessions, thinking included."
    )
    return notes.mark_notes(marks, means, _more(marks))


def _more(marks: pd.DataFrame) -> Iterator[str]:
    yield "Plain bars along the tokens: minimum to maximum. Level lines: on the same questions."
    for experiment, own in marks.dropna(subset=["prompt"]).groupby("experiment", sort=False):
        yield f"{experiment}: {_prompt_words(own)}."
    for level, own in marks.dropna(subset=["level"]).groupby("level", sort=False):
        absent = own[own["value"].isna() & (own["num_cells"] == 0)]
        named = absent.assign(omitted_reason=f"{level}: " + absent["omitted_reason"])
        yield from notes.said_once(named, own, "omitted_reason", ("backbone", "dataset"))
    for judge, rows in marks.dropna(subset=["judge"]).groupby("judge", sort=False):
        accepted = float(rows["judge_false_accept_frac"].iloc[0])
        yield f"Judge {judge}: accepts {accepted:.0%} of wrong answers."


def _prompt_words(marks: pd.DataFrame) -> str:
    """Prompts in the order of what sequential compaction wrote under them."""
    volumes = marks[marks["arm"] == SEQUENTIAL].groupby("prompt")["compaction_output_mean_tokens"]
    prompts = list(volumes.mean().sort_values().index) or list(marks["prompt"].unique())
    if len(prompts) == 1:
        return f"prompt {prompts[0]}"
    return "along a line, prompts " + ", ".join(prompts)


def _sheet(panels: tuple[Panel, ...]) -> Sheet:
    mean, low, high = (f"compaction_output_{name}_tokens" for name in VOLUME)
    return Sheet(
        panels=panels,
        axis=Amounts(
            x=mean,
            label="compaction output of a session (tokens)",
            line_columns=("arm",),
            log2=False,
            x_low=low,
            x_high=high,
        ),
        nothing="no recall cell",
        num_words=_num_words,
        notes_of=_notes,
        facts={"experiment": "{}", "tau_tokens": "tau = {:,} tokens"},
        fill=Fill(
            "answer_context",
            TRUNCATION,
            {COMPACTED: "after compaction", TRUNCATION: "last tokens instead"},
        ),
    )
