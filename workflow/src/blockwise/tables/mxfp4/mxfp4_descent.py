"""`mxfp4_descent.csv`: what a step along each arm's gradient gains, as a share of a reference's.

Arms are paired by start: same text, same random numbers, same weights. A gain is how much the
held-out loss falls from the published weights on. A share of one says that the arm's direction is
worth what the reference's is. The null arm, float32 with its sums in another order, shows what of
a difference is nothing.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from blockwise.config.pretrained import DescentExperiment
from blockwise.mxfp4.records import DescentOfArm, DescentStart
from blockwise.tables.columns import Column, ColumnKind, count, frame, number, text
from blockwise.tables.inputs import TableInputs
from blockwise.tables.mxfp4.parts.published import PUBLISHED_SCOPE, published_scope
from blockwise.tables.mxfp4.parts.spread import Spread, interval_of, verdict
from blockwise.tables.mxfp4.parts.training import ARM

STEPS = {"equal length": "stepped_loss", "signs": "signed_loss"}
COSINE = Spread("cosine", "", "1", "Cosine with the first baseline's gradient", over="starts")
GAIN = Spread("gain", "_nats", "nats", "Fall of the held-out loss", over="starts")
SHARE = Spread("share", "_frac", "1", "The arm's gain over that of reference", over="starts")

COLUMNS: tuple[Column, ...] = (
    *PUBLISHED_SCOPE,
    text(
        "step",
        "equal length: along the gradient, as long for every arm; signs: along its signs, as long.",
    ),
    text("reference", "Arm whose gain is a share of one."),
    ARM,
    count("num_micro_batches", "Micro-batches that a gradient is averaged over."),
    count("num_asked_starts", "Starts that the configuration asks for."),
    number(
        "step_frac",
        "Length of the step over the norm of the weights that move.",
        ColumnKind.EXACT,
        "1",
    ),
    *COSINE.columns(),
    *GAIN.columns(),
    *SHARE.columns(),
    text(
        "share_verdict",
        "more: the interval of the share is above one; less: below one; not powered: it includes "
        "one, or there are too few starts for an interval.",
        ColumnKind.SAMPLED,
    ),
)


def build(inputs: TableInputs) -> pd.DataFrame:
    """One row a step, reference and arm of an experiment; the reference's own row is one."""
    experiments = inputs.mxfp4.experiments if inputs.mxfp4 else {}
    rows: list[dict[str, Any]] = []
    for name, settings in experiments.items():
        starts = [one.start for one in inputs.descents if one.experiment == name]
        if isinstance(settings, DescentExperiment) and starts:
            by_start = {start.spec.start: start for start in starts}
            rows += _rows(published_scope(inputs, name), settings, by_start)
    return frame(rows, COLUMNS)


def _rows(
    scope: Mapping[str, Any], settings: DescentExperiment, starts: Mapping[int, DescentStart]
) -> list[dict[str, Any]]:
    lengths = {
        "equal length": settings.step_norm_frac,
        "signs": settings.signed_step_frac,
    }
    return [
        {
            **scope,
            "step": step,
            "reference": reference,
            "arm": arm,
            "num_micro_batches": settings.num_micro_batches,
            "num_asked_starts": len(settings.starts),
            "step_frac": lengths[step],
            **_values(_gains(starts, arm, step), _gains(starts, reference, step)),
            **COSINE.values({start: one.cosine for start, one in _of(starts, arm).items()}),
        }
        for step in STEPS
        for reference in (*settings.baselines, *settings.references)
        for arm in settings.all_arms()
    ]


def _of(starts: Mapping[int, DescentStart], arm: str) -> dict[int, DescentOfArm]:
    return {number: start.arms[arm] for number, start in starts.items() if arm in start.arms}


def _gains(starts: Mapping[int, DescentStart], arm: str, step: str) -> dict[int, float]:
    losses = {number: getattr(one, STEPS[step]) for number, one in _of(starts, arm).items()}
    return {
        number: starts[number].held_out_loss - loss
        for number, loss in losses.items()
        if loss is not None
    }


def _values(own: Mapping[int, float], reference: Mapping[int, float]) -> dict[str, Any]:
    """Gains, and shares where the reference gains anything."""
    shares = {
        start: gain / reference[start] for start, gain in own.items() if reference.get(start, 0) > 0
    }
    beyond = interval_of({start: share - 1 for start, share in shares.items()})
    return {
        **GAIN.values(own),
        **SHARE.values(shares),
        "share_verdict": verdict(beyond, above="more", below="less"),
    }
