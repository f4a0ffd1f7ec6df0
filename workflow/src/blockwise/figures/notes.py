"""What a reader must know to read a figure, in words below it.

Every sentence comes from the marks: the caption of a backbone, what a row of the table says
of itself, what bars reach over, and what was left out. Said once where it holds for all, and
with the names of those that it holds for where it does not.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

import pandas as pd

from blockwise.figures.axes import distinct_words
from blockwise.figures.marks import BAR_WORDS
from blockwise.statistics import MIN_CLUSTERS
from blockwise.tables.compaction.parts.gates import (
    MAX_LENGTH_FINISH_FRAC,
    MIN_DISTINCT_SUMMARIES_FRAC,
    Gate,
)

PAIR_LABELS = (
    "experiment",
    "caption",
    "num_parameters",
    "baseline",
    "arm",
    "num_seeds",
    "num_diverged",
    "first_divergence_step",
)
"""What a mark of an arm beside its baseline keeps of its row."""
ARM_LABELS = (
    "experiment",
    "backbone",
    "dataset",
    "caption",
    "prompt",
    "note",
    "arm",
    "block_size_tokens",
)
"""Which arm a mark is of, in every figure."""
TIMING_LABELS = (
    *ARM_LABELS,
    "volume_mode",
    "volume_tokens",
    "num_timing_blocks",
    "num_server_starts",
    "num_invalid_cells",
    "gate",
)
"""What a mark of a timing comparison is of; each figure adds the length."""
RECALL_LABELS = (*ARM_LABELS, "gate", "num_cells", "num_answers")
"""What a mark of a recall comparison is of."""
VOLUME_LABELS = (*ARM_LABELS, "gate", "history_tokens", "worker_cap_tokens")
"""What a mark of single compactions of natural volume is of."""
COUNTED = re.compile(r"^(?P<some>\d+) of (?P<all>\d+)(?= )")
UNTIMED = "no valid timing block"
GATE_WORDS = {
    Gate.CANNOT_DO_TASK.value: "no verdict: this run does not show that the model can do the task",
    Gate.CAPPED.value: f"no verdict: a cap ended more than {MAX_LENGTH_FINISH_FRAC:.0%} of "
    "the summaries",
    Gate.NOT_DIVERSE.value: f"no verdict: fewer than {MIN_DISTINCT_SUMMARIES_FRAC:.0%} of the "
    "summaries are distinct",
    Gate.SAME_BLOCKS_AS.value: "no verdict on some arms: their history blocks are those of "
    "another arm",
}
"""What a figure says of marks that do not pass a gate; `few_starts` tells of the remaining one."""


def captions(marks: pd.DataFrame, scope: str = "backbone") -> Iterator[str]:
    """What every figure of these backbones must say, to the letter; the scale comes first."""
    for names, text in _distinct(marks, marks, "caption", (scope,)):
        yield f"{names}{sentence(text)}"


def training_captions(marks: pd.DataFrame) -> Iterator[str]:
    """What every figure of a training study must say: its scale, and the size of its model."""
    yield from captions(marks, "experiment")
    if "num_parameters" in marks:
        sizes = sorted({int(size) for size in marks["num_parameters"].dropna()})
        if sizes:
            yield f"{' and '.join(f'{size:,}' for size in sizes)} parameters."


def mark_notes(marks: pd.DataFrame, means: str, more: Iterable[str] = ()) -> Iterator[str]:
    """All that a figure of the compaction study says, in the order in which each says it.

    Args:
        marks: what is drawn.
        means: what marks are means of.
        more: what is special to this figure.
    """
    yield from captions(marks)
    yield from table_notes(marks)
    yield means
    yield from bars(marks)
    yield from more


def timing_notes(
    marks: pd.DataFrame, length: str, means: str, more: Iterable[str] = ()
) -> Iterator[str]:
    """The same of a timing comparison; `length` is the column of its length (`tau_tokens`)."""
    yield from captions(marks)
    yield from timing_settings(marks, length)
    yield from table_notes(marks)
    yield means
    yield from bars(marks)
    yield from few_starts(marks)
    yield from more
    yield from left_out(marks)


def table_notes(marks: pd.DataFrame) -> Iterator[str]:
    """Why the numbers of some rows say nothing, and why no verdict rests on some."""
    yield from said_once(marks, marks, "note", ("backbone", "dataset", "prompt", "arm"))
    if "gate" in marks:
        yield from gate_notes(marks, "gate")


def gate_notes(marks: pd.DataFrame, gate: str) -> Iterator[str]:
    """Why no verdict rests on some marks; `gate` is the column that names it."""
    told = marks.assign(gate_words=marks[gate].map(GATE_WORDS))
    yield from said_once(told, marks, "gate_words", ("backbone", "dataset", "prompt", "arm"))


def said_once(
    rows: pd.DataFrame, marks: pd.DataFrame, column: str, scopes: Sequence[str]
) -> Iterator[str]:
    """Each distinct statement, after the names of those it is about where it is not about all.

    One text may hold several statements, joined by a semicolon; each is told on its own. A
    count at its head, which differs from row to row, is told as all or some.

    Args:
        rows: the marks that the texts are about.
        marks: all that is drawn.
        column: where the texts are.
        scopes: labels that may tell these marks from the rest, the widest first.
    """
    told = rows.dropna(subset=[column])
    parts = told.assign(**{column: [text.split("; ") for text in told[column]]}).explode(column)
    parts[column] = [COUNTED.sub(_share_words, part) for part in parts[column]]
    for scope, text in _distinct(parts, marks, column, scopes):
        yield f"{scope}{sentence(text if scope else text[0].upper() + text[1:])}"


def _distinct(
    rows: pd.DataFrame, marks: pd.DataFrame, column: str, scopes: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """Whom each distinct text is about, and the text."""
    told = rows[rows[column].notna() & (rows[column] != "")]
    for text, own in told.groupby(column, sort=False):
        yield _scope(own, marks, scopes), str(text)


def _share_words(counted: re.Match[str]) -> str:
    return "all" if counted["some"] == counted["all"] else "some"


def _scope(own: pd.DataFrame, marks: pd.DataFrame, scopes: Sequence[str]) -> str:
    """The first label that is not the same everywhere, with the values that these marks have."""
    for scope in scopes:
        if set(own[scope].dropna()) != set(marks[scope].dropna()):
            return f"{', '.join(own[scope].dropna().unique())}: "
    return "" if set(own.index) == set(marks.index) else "In part: "


def sentence(text: str) -> str:
    """The text with a full stop at its end."""
    return text if text.endswith(".") else f"{text}."


def bars(marks: pd.DataFrame) -> Iterator[str]:
    """What the bars reach over, of the kinds that can be seen."""
    kinds = set(marks.loc[marks["low"] < marks["high"], "bar"])
    told = [words for kind, words in BAR_WORDS.items() if kind in kinds]
    if told:
        words = "; ".join(told)
        yield sentence(words[0].upper() + words[1:])


def few_starts(marks: pd.DataFrame) -> Iterator[str]:
    """What there is instead of an interval where times are of too few server starts."""
    timed = marks[marks["num_timing_blocks"] > 0]
    if (timed["gate"] == Gate.TOO_FEW_STARTS).any():
        yield (
            f"Fewer than {MIN_CLUSTERS} server starts: times have no interval; their minimum and "
            "maximum are over starts, and a single start has none."
        )


def left_out(marks: pd.DataFrame) -> Iterator[str]:
    """Cells and timing blocks behind no mark."""
    if (marks["num_invalid_cells"] > 0).any():
        yield "Invalid: cells whose times do not count, left out."
    unequal = "num_unequal_volume_timing_blocks"
    if unequal in marks and (marks[unequal] > 0).any():
        yield "Ratios: timing blocks of unequal compaction volume left out."


def timing_settings(marks: pd.DataFrame, length: str) -> Iterator[str]:
    """Length and volume of the compactions, once where all experiments agree.

    Args:
        marks: what is drawn.
        length: the column of the length, e.g. `tau_tokens`; where it varies inside an experiment
            an axis or titles tell it.
    """
    told = {
        str(experiment): _settings_words(rows, length)
        for experiment, rows in marks.groupby("experiment", sort=False)
    }
    if len(set(told.values())) == 1:
        yield sentence(next(iter(told.values())))
    else:
        yield from (sentence(f"{experiment}: {words}") for experiment, words in told.items())


def _settings_words(rows: pd.DataFrame, length: str) -> str:
    """Length and volume of one experiment; a natural cap differs from arm to arm."""
    volumes = dict.fromkeys(
        f"forced at {row['volume_tokens']:,} tokens"
        if row["volume_mode"] == "forced"
        else "natural"
        for row in rows.drop_duplicates(["volume_mode", "volume_tokens"]).to_dict("records")
    )
    words = f"decode volume of a compaction: {' or '.join(volumes)}"
    lengths = rows[length].dropna().unique()
    if len(lengths) != 1:
        return words.capitalize()
    what = {"tau_tokens": "tau =", "history_tokens": "History of"}[length]
    return f"{what} {int(lengths[0]):,} tokens; {words}"


def with_timing_reasons(marks: pd.DataFrame, otherwise: str) -> pd.DataFrame:
    """The same marks, where each absent value of a timing comparison says why.

    Args:
        marks: what is drawn.
        otherwise: the reason where there are valid cells and the table gives none.
    """
    is_silent = marks["value"].isna() & marks["omitted_reason"].isna()
    is_untimed = marks["num_timing_blocks"] == 0
    reasons = marks["omitted_reason"].mask(is_silent, otherwise)
    return marks.assign(omitted_reason=reasons.mask(is_silent & is_untimed, UNTIMED))


def count_words(counts: Iterable[int]) -> str:
    """A count, or the fewest and the most."""
    listed = list(counts) or [0]
    fewest, most = min(listed), max(listed)
    return f"{most}" if fewest == most else f"{fewest} to {most}"


def timing_blocks(group: pd.DataFrame) -> str:
    """How many timing blocks and server starts are behind a column of panels, and what is out."""
    rows = group[group["measure"] == group["measure"].iloc[0]]
    num_invalid = int(rows["num_invalid_cells"].sum())
    invalid = f", {num_invalid} invalid" if num_invalid else ""
    num_blocks = count_words(rows["num_timing_blocks"].astype(int))
    num_starts = count_words(rows["num_server_starts"].astype(int))
    return f"n = {num_blocks}{invalid}, on {num_starts} server start{'s' * (num_starts != '1')}"


def sizes(marks: pd.DataFrame) -> dict[int, str]:
    """The block sizes of all marks, ascending, in words."""
    return distinct_words(sorted(marks["block_size_tokens"].dropna().astype(int).unique()))
