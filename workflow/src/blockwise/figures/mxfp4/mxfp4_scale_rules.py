"""Figure `mxfp4_scale_rules`: errors of Wgrad by the rule of the scale and by the rounding.

The measures of the figure `mxfp4_diagnostics`, and the share of values that a rule cuts, which
is what makes stochastic rounding biased. Arms stand below the rule that sets their scales; the
mark tells how the gradient, dy, is rounded.
"""

import pandas as pd
from matplotlib.figure import Figure

from blockwise.figures.marks import marks_of
from blockwise.figures.mxfp4.mxfp4_diagnostics import (
    ERRORS,
    GRADIENT_TO_NOISE,
    KEPT,
    SATURATION,
    SIDES,
    UNDERFLOW,
    at_last_step,
    notes_on,
    panels_in,
    title_of,
)
from blockwise.figures.rows import Sheet, draw_rows

TABLE = "mxfp4_scale_rules"
COLUMNS = (*ERRORS, UNDERFLOW, SATURATION, GRADIENT_TO_NOISE)
ROUNDING_WORDS = {
    "rtne": "dy to nearest (RTNE)",
    "sr": "dy stochastic (SR)",
    "sr34": "dy stochastic after 3/4 (SR(3/4))",
    "none": "dy not in MXFP4",
}


def plotted(table: pd.DataFrame) -> pd.DataFrame:
    """Exactly what is drawn: one row a mark, rule by rule in the order of their first arms."""
    rows = at_last_step(table)
    rows = rows[rows["gemm"] == "W"]
    rules = [
        _rule_words(left, right)
        for left, right in zip(rows["left_scale_rule"], rows["right_scale_rule"], strict=True)
    ]
    marks = marks_of(
        rows.assign(
            scale_rule=pd.array(rules, dtype="str"),
            rounding=rows["left_rounding"].fillna("none"),
        ),
        panels_in(COLUMNS),
        (*KEPT, "scale_rule", "rounding"),
    )
    order = {rule: rank for rank, rule in enumerate(dict.fromkeys(rules))}
    return marks.sort_values("scale_rule", key=lambda own: own.map(order), kind="stable")


def draw(table: pd.DataFrame) -> Figure:
    """The figure of the table `mxfp4_scale_rules`."""
    return draw_rows(plotted(table), SHEET)


def _rule_words(left: str, right: str) -> str:
    """The rule of both operands, or of each."""
    words = ["none" if pd.isna(rule) else rule for rule in (left, right)]
    return words[0] if words[0] == words[1] else f"dy {words[0]}, x {words[1]}"


SHEET = Sheet(
    columns=COLUMNS,
    by="measure",
    nothing="no error was measured",
    title_of=title_of,
    notes_of=notes_on(COLUMNS),
    section="scale_rule",
    lane="rounding",
    lane_words=ROUNDING_WORDS,
    hollow_words=SIDES,
)
