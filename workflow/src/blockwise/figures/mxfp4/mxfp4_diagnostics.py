"""Figure `mxfp4_diagnostics`: what FP4 does to each GEMM, and what a remedy changes about it.

A row for each arm with a mark for each GEMM that it quantizes, at the last step that was
measured on the trajectory that all arms share. From left to right the size of the error, the
part of it that stays over batches, how parallel and how short the product is, the values that
are lost, and how the gradient of the weights compares with its noise.
"""

from collections.abc import Callable, Iterator

import pandas as pd
from matplotlib.figure import Figure

from blockwise.figures import notes
from blockwise.figures.axes import thousands
from blockwise.figures.marks import Panel, Scale, Statistic, marks_of
from blockwise.figures.rows import Column, Sheet, draw_rows
from blockwise.figures.scales import percent

TABLE = "mxfp4_diagnostics"
LEAST_GRADIENT_TO_NOISE = 3**0.5
"""Below it quantized training becomes less effective.

Source: Chmiel et al., FP4 All the Way (arXiv 2505.19115): gradient norm under sqrt(3) times the
quantization noise.
"""

MEASURES = {
    "relative_error": "",
    "systematic_error": "",
    "cosine": "",
    "shrinkage": "",
    "left_underflow": "_frac",
    "right_underflow": "_frac",
    "left_saturation": "_frac",
    "right_saturation": "_frac",
    "gradient_to_noise": "",
}
PANELS = {
    name: Panel(name, name, Statistic.of(name, suffix, num="num_layers", has_interval=False))
    for name, suffix in MEASURES.items()
}
ERRORS = (
    Column(("relative_error",), "relative\nerror", Scale.LOG),
    Column(("systematic_error",), "systematic\nerror", Scale.LOG),
    Column(("cosine",), "cosine", Scale.NEAR_ONE),
    Column(("shrinkage",), "shrinkage", Scale.SIGNED_LOG),
)
UNDERFLOW = Column(("left_underflow", "right_underflow"), "underflow\nto zero", tick_words=percent)
SATURATION = Column(
    ("left_saturation", "right_saturation"), "saturation\n(beyond 6)", tick_words=percent
)
GRADIENT_TO_NOISE = Column(
    ("gradient_to_noise",),
    "gradient\nover noise",
    Scale.LOG,
    line=LEAST_GRADIENT_TO_NOISE,
    tick_words=thousands,
)
COLUMNS = (*ERRORS, UNDERFLOW, GRADIENT_TO_NOISE)
KEPT = (
    "experiment",
    "caption",
    "num_parameters",
    "baseline",
    "seed",
    "step",
    "arm",
    "gemm",
    "num_batches",
    "num_layers",
)
GEMM_WORDS = {"F": "F: Fprop", "D": "D: Dgrad", "W": "W: Wgrad"}
SIDES = ("left operand", "right operand")


def plotted(table: pd.DataFrame) -> pd.DataFrame:
    """Exactly what is drawn: one row a mark, at the last step of each experiment."""
    return marks_of(at_last_step(table), panels_in(COLUMNS), KEPT)


def draw(table: pd.DataFrame) -> Figure:
    """The figure of the table `mxfp4_diagnostics`."""
    return draw_rows(plotted(table), SHEET)


def at_last_step(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the last step that each experiment measured."""
    return table[table["step"] == table.groupby("experiment")["step"].transform("max")]


def panels_in(columns: tuple[Column, ...]) -> list[Panel]:
    """The measures of some columns."""
    return [PANELS[key] for column in columns for key in column.keys]


def title_of(own: pd.DataFrame) -> str:
    """The trajectory of a band."""
    first = own.iloc[0]
    return f"step {first['step']} of the training of {first['baseline']}, seed {first['seed']}"


def notes_on(columns: tuple[Column, ...]) -> Callable[[pd.DataFrame], Iterator[str]]:
    """What a figure of these columns must say."""

    def words(marks: pd.DataFrame) -> Iterator[str]:
        yield from notes.training_captions(marks)
        layers = notes.count_words(marks["num_layers"].astype(int))
        batches = notes.count_words(marks["num_batches"].astype(int))
        yield f"Marks: means over n = {layers} layers, {batches} batches each."
        yield from notes.bars(marks)
        yield (
            "Systematic error: what is left of the error when it is averaged over batches; "
            "shrinkage: 1 less the projection on the float32 product."
        )
        shares = "underflow: share of an operand's values that became zero"
        if SATURATION in columns:
            shares += "; saturation: share that is cut at 6, the largest value"
        yield notes.sentence(shares.capitalize())
        yield (
            "Dashed: gradient = sqrt(3) x noise, below which quantized training becomes less "
            "effective (Chmiel et al., arXiv 2505.19115)."
        )

    return words


SHEET = Sheet(
    columns=COLUMNS,
    by="measure",
    nothing="no error was measured",
    title_of=title_of,
    notes_of=notes_on(COLUMNS),
    lane="gemm",
    lane_words=GEMM_WORDS,
    hollow_words=SIDES,
)
