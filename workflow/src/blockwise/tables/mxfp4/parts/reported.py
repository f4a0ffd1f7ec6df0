"""What the paper on MXFP4 pretraining reports, to stand beside what was measured here.

Source: Pretraining large language models with MXFP4 on native FP4 hardware (arXiv 2605.09825),
Llama 3.1-8B on C4: tokens to the target against the FP8 baseline.

Deviation: taken from a secondary reading of the paper, never its own words, so every table says
"reported (secondary)". It is unknown which operands its SR arm rounds stochastically, whether
the signs of its RHT are redrawn, and, by contradicting sources, whether Fprop and Dgrad are
rotated too: arms that differ in these alone have the same number beside them.
"""

from dataclasses import dataclass

from blockwise.config.recipes import (
    Gemm,
    Precision,
    RandomizedHadamard,
    Recipe,
    Rotation,
    Rounding,
    ScaleRule,
)

SOURCE = "reported (secondary)"
REACHED = "reached"
NO_CONVERGENCE = "no convergence"
ALL_GEMMS = "F+D+W"


@dataclass(frozen=True)
class Reported:
    """Extra tokens to the target against FP8, as a range, and how the training went."""

    low_frac: float | None
    high_frac: float | None
    outcome: str


REPORTED = {
    "F": Reported(0.08, 0.09, REACHED),
    "F+D": Reported(0.10, 0.11, REACHED),
    ALL_GEMMS: Reported(0.26, 0.27, REACHED),
    "F+D+W+SR": Reported(None, None, NO_CONVERGENCE),
    "F+D+W+RHT16": Reported(None, None, NO_CONVERGENCE),
    "F+D+W+DHT16": Reported(0.08, 0.09, REACHED),
    "F+D+W+DHT32": Reported(0.08, 0.09, REACHED),
}
"""By the kind of arm that the paper names."""


def reported_for(arm: Recipe, baseline: Recipe) -> Reported | None:
    """What the paper reports of an arm of this kind against this baseline, if anything."""
    if baseline.precision != Precision.FP8:
        return None
    return REPORTED.get(_kind(arm) or "")


def _kind(arm: Recipe) -> str | None:
    """The paper's name of an arm with its kernels' scale rule; None: it has no such arm.

    A remedy acts on the last GEMM (Wgrad, where all are quantized) and maybe on others.
    """
    remedies = [_remedies(gemm) for gemm in arm.gemms.values()]
    if not remedies or not all(words <= remedies[-1] for words in remedies):
        return None
    return "+".join([*arm.gemms, *sorted(remedies[-1])])


def _remedies(gemm: Gemm) -> set[str]:
    """What is done to a GEMM, in the paper's words or, where it does no such thing, in ours."""
    words = set()
    for _, operand in gemm.operands:
        if operand is None:
            words.add("unquantized")
        elif operand.centred:
            words.add("centred")
        elif operand.scale_rule != ScaleRule.EVEN:
            words.add(operand.scale_rule.value)
        elif operand.rounding != Rounding.RTNE:
            words.add(operand.rounding.upper())
    if gemm.rotation is not None:
        words.add(_rotation_word(gemm.rotation))
    return words


def _rotation_word(rotation: Rotation) -> str:
    if isinstance(rotation, RandomizedHadamard) and rotation.signs == "mismatched":
        return "mismatched"  # a negative control
    return f"{rotation.kind.upper()}{rotation.size}"
