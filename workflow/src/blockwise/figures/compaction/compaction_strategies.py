"""Figure `compaction_strategies`: what each strategy remembers against what it keeps and costs.

One column of panels for each thing that a strategy costs: tokens that it keeps, tokens that it
writes, the wait for one compaction and its requests. The last one shows the questions of the
first part of a session after one compaction and after more. Level lines are the floor
(questions alone) and the ceiling (the full history) on the same questions.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from blockwise.figures import notes
from blockwise.figures.axes import Amounts
from blockwise.figures.marks import Panel, Statistic, marks_of
from blockwise.figures.panels import Fill, Sheet, draw_sheet
from blockwise.statistics import MIN_CLUSTERS
from blockwise.tables.compaction.parts.categories import HEADLINE
from blockwise.tables.compaction.parts.gates import Gate

TABLE = "compaction_strategies"
ALL, FIRST_PART = "all", "first part"  # values of the table's column `questions`
LEVELS = {"closed_book": "closed book", "full_history": "full history"}
WITH, WITHOUT = "lost identifiers added", "no identifiers added"


@dataclass(frozen=True)
class _Against:
    """What recall is drawn against in one column of panels."""

    label: str
    column: str  # of the table
    questions: str


AGAINST = (
    _Against("history after compactions (tokens)", "kept_mean_tokens", ALL),
    _Against("written by compactions (tokens)", "compaction_output_mean_tokens", ALL),
    _Against("wait for one compaction (s)", "stall_mean_s", ALL),
    _Against("requests of one compaction", "requests_a_compaction_mean", ALL),
    _Against("compactions of the evidence", "num_compactions", FIRST_PART),
)
SCORES = (
    Panel("f1", "F1", Statistic.of("f1")),
    Panel("contains_gold", "contains gold", Statistic.of("contains_gold")),
)
KEPT = (
    *notes.RECALL_LABELS,
    "layout",
    "budget_tokens",
    "keep_identifiers",
    "questions",
    "stall_gate",
    *dict.fromkeys(one.column for one in AGAINST),
)


def plotted(table: pd.DataFrame) -> pd.DataFrame:
    """Exactly what is drawn: one row a mark; references once for each column of panels."""
    headline = table[table["categories"] == HEADLINE]
    marks = marks_of(headline, SCORES, KEPT)
    is_with = marks["keep_identifiers"].fillna(0) > 0
    marks["identifiers"] = is_with.map({True: WITH, False: WITHOUT}).astype("str")
    marks["level"] = marks["arm"].map(LEVELS).astype("str")
    columns = []
    for one in AGAINST:
        own = marks[marks["questions"] == one.questions]
        amount = own[one.column].astype("Float64")
        is_silent = amount.isna() & own["level"].isna()
        columns.append(
            own.assign(
                against=pd.array([one.label] * len(own), dtype="str"),
                amount=amount,
                value=own["value"].mask(is_silent),
                omitted_reason=own["omitted_reason"].mask(
                    is_silent | own["value"].isna(), "not measured in this run"
                ),
            )
        )
    return pd.concat(columns, ignore_index=True)


def draw(table: pd.DataFrame) -> Figure:
    """The figure of the table `compaction_strategies`."""
    return draw_sheet(plotted(table), SHEET)


def _num_words(group: pd.DataFrame) -> str:
    seen = group[group["level"].isna() & group["value"].notna()]
    answers, clusters = (
        notes.count_words(seen[name].astype(int)) for name in ("num_answers", "num")
    )
    return f"n = {answers} answers, {clusters} clusters"


def _notes(marks: pd.DataFrame) -> Iterator[str]:
    budgets = marks["budget_tokens"].dropna().astype(int).unique()
    held = notes.count_words(budgets)
    means = (
        "Marks: means over clusters (LoCoMo: conversation; HotpotQA: session), of LoCoMo "
        "categories 1, 2 and 4. Every strategy may leave a history of "
        f"{held} tokens, system prompt included."
    )
    return notes.mark_notes(marks, means, _more(marks))


def _more(marks: pd.DataFrame) -> Iterator[str]:
    yield (
        "Last column: the questions of the first part of a session; elsewhere all questions, after "
        "the last compaction. Level lines: on the same questions."
    )
    timed = marks[marks["stall_mean_s"].notna()]
    if (timed["stall_gate"] == Gate.TOO_FEW_STARTS).any():
        yield f"Waits are of fewer than {MIN_CLUSTERS} server starts and have no interval."


SHEET = Sheet(
    panels=SCORES,
    axis=Amounts(
        x="amount",
        label="",
        label_column="against",
        line_columns=("arm", "layout", "block_size_tokens"),
        log2=False,
        sized=False,
    ),
    nothing="no strategy was played",
    num_words=_num_words,
    notes_of=_notes,
    facts={"against": "{}"},
    fill=Fill("identifiers", WITHOUT, {WITHOUT: WITHOUT, WITH: WITH}),
    arm_words="{}",
)
