"""A recipe: which operand of which GEMM of a linear layer is quantized, and how.

A linear layer computes three products, each with two operands quantized along the dimension
that is summed: Fprop Y = X W^T over input features, Dgrad dX = dY W over output features, Wgrad
dW = dY^T X over tokens. An arm is one recipe. Its name follows from the recipe and is checked
against the key it stands under, so that no table can call an arm what it is not.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, model_validator

from blockwise.config.base import ConfigModel

GROUP_SIZE = 32
"""Values that share a scale, of every MX format; dimensions come in multiples of it."""


class Precision(StrEnum):
    """Arithmetic of a linear layer's GEMMs."""

    FP32 = "fp32"
    FP32_REORDERED = "fp32-reordered"  # sums taken in another order: the null arm
    BF16 = "bf16"
    FP8 = "fp8"  # E4M3 operands, E5M2 gradients, one scale a tensor; emulated
    FP8_REORDERED = "fp8-reordered"  # fp8, its products summed backwards: a null arm
    MXFP4 = "mxfp4"


class ScaleRule(StrEnum):
    """How the power-of-two scale follows from a group's largest magnitude, `amax`."""

    EVEN = "even"  # amax rounded half up to one mantissa bit, then its exponent (AMD, torchao)
    FLOOR = "floor"  # exponent of amax: OCP MX v1.0; clips above 6
    CEIL = "ceil"  # next power of two at or above amax
    RCEIL = "rceil"  # smallest scale that clips nothing


class Rounding(StrEnum):
    """How a scaled value becomes one of the E2M1 values."""

    RTNE = "rtne"  # to nearest, ties to even
    SR = "sr"  # stochastic, unbiased where nothing clips
    SR34 = "sr34"  # stochastic after scaling by 3/4, which keeps all rules from clipping


class GroupShape(StrEnum):
    """Which elements share a scale."""

    ROW = "1d"  # 32 along the contraction
    SQUARE = "2d"  # 32 x 32: the same groups whichever dimension is summed


class Operand(ConfigModel):
    """How one operand of a GEMM is quantized."""

    rounding: Rounding = Rounding.RTNE
    scale_rule: ScaleRule = ScaleRule.EVEN
    groups: GroupShape = GroupShape.ROW
    centred: bool = Field(
        False,
        description="Take the mean over the summed dimension out before rotation and rounding; "
        "the product gets it back in full precision.",
    )


class DeterministicHadamard(ConfigModel):
    """DHT: the Hadamard matrix itself."""

    kind: Literal["dht"]
    size: Literal[16, 32] = 16


class RandomizedHadamard(ConfigModel):
    """RHT: the Hadamard matrix after random signs."""

    kind: Literal["rht"]
    size: Literal[16, 32] = 16
    signs: Literal["fixed", "redrawn", "mismatched"] = Field(
        "redrawn",
        description="fixed: the same in every run. redrawn: one a step. mismatched: each operand "
        "has its own, which no longer cancels; a negative control.",
    )


Rotation = Annotated[DeterministicHadamard | RandomizedHadamard, Field(discriminator="kind")]
"""Both operands are rotated along the contraction, so that it cancels in the product."""


class Gemm(ConfigModel):
    """A quantized GEMM: its operands and their rotation. An operand that is null is left as is."""

    rotation: Rotation | None = None

    @property
    def operands(self) -> tuple[tuple[str, Operand | None], tuple[str, Operand | None]]:
        """Names and recipes of the two operands, in the order of the product."""
        left, right = (name for name in type(self).model_fields if name != "rotation")
        return (left, getattr(self, left)), (right, getattr(self, right))

    @model_validator(mode="after")
    def _something_is_quantized(self) -> "Gemm":
        if not any(operand for _, operand in self.operands):
            raise ValueError("both operands are null; leave the GEMM out or quantize one")
        return self


class Fprop(Gemm):
    """Y = X W^T, summed over input features."""

    x: Operand | None = Operand()
    w: Operand | None = Operand()


class Dgrad(Gemm):
    """dX = dY W, summed over output features."""

    dy: Operand | None = Operand()
    w: Operand | None = Operand()


class Wgrad(Gemm):
    """dW = dY^T X, summed over tokens."""

    dy: Operand | None = Operand()
    x: Operand | None = Operand()


class Recipe(ConfigModel):
    """What each GEMM of the converted linear layers does."""

    precision: Precision = Precision.MXFP4
    fprop: Fprop | None = None
    dgrad: Dgrad | None = None
    wgrad: Wgrad | None = None

    @property
    def gemms(self) -> dict[str, Gemm]:
        """The quantized GEMMs by letter."""
        letters = {"F": self.fprop, "D": self.dgrad, "W": self.wgrad}
        return {letter: gemm for letter, gemm in letters.items() if gemm is not None}

    @property
    def name(self) -> str:
        """What an arm with this recipe is called, e.g. `F+D+W+SR(W:dy)+DHT16(W)`.

        Letters are the quantized GEMMs. In brackets stands where a remedy acts: GEMMs for a
        rotation, operands for the rest; scale rule and groups are named where they are not the
        defaults. M is an operand whose mean is taken out: `W+M(W:x)+DHT16(W)`.
        """
        if self.precision != Precision.MXFP4:
            return self.precision.value
        uses: dict[str, list[str]] = {}
        for letter, gemm in self.gemms.items():
            for operand_name, operand in gemm.operands:
                for word in _operand_words(operand):
                    uses.setdefault(word, []).append(f"{letter}:{operand_name}")
            if gemm.rotation is not None:
                uses.setdefault(_rotation_word(gemm.rotation), []).append(letter)
        remedies = [f"{word}({','.join(where)})" for word, where in uses.items()]
        return "+".join([*self.gemms, *remedies])

    @property
    def random_letters(self) -> str:
        """Letters of the GEMMs that need random numbers, e.g. `DW`."""
        return "".join(
            letter
            for letter, gemm in self.gemms.items()
            if any(one is not None and one.rounding != Rounding.RTNE for _, one in gemm.operands)
            or (isinstance(gemm.rotation, RandomizedHadamard) and gemm.rotation.signs != "fixed")
        )

    @property
    def groups_tokens(self) -> bool:
        """Whether tokens share scales: in Wgrad, and in square groups of anything but weights."""
        return self.wgrad is not None or any(
            name != "w" and operand is not None and operand.groups == GroupShape.SQUARE
            for gemm in self.gemms.values()
            for name, operand in gemm.operands
        )

    @property
    def is_rotated(self) -> bool:
        """Whether a GEMM is rotated."""
        return any(gemm.rotation is not None for gemm in self.gemms.values())

    @model_validator(mode="after")
    def _precision_fits(self) -> "Recipe":
        if self.precision == Precision.MXFP4 and not self.gemms:
            raise ValueError("mxfp4 without a GEMM quantizes nothing; name fprop, dgrad or wgrad")
        if self.precision != Precision.MXFP4 and self.gemms:
            raise ValueError(
                f"precision {self.precision} takes no fprop, dgrad or wgrad; remove them or set "
                "precision: mxfp4"
            )
        return self


def _operand_words(operand: Operand | None) -> list[str]:
    if operand is None:
        return ["unquantized"]
    centred = ["M"] if operand.centred else []
    rounding = {Rounding.RTNE: [], Rounding.SR: ["SR"], Rounding.SR34: ["SR(3/4)"]}
    rule = [] if operand.scale_rule == ScaleRule.EVEN else [operand.scale_rule.value]
    groups = ["2D"] if operand.groups == GroupShape.SQUARE else []
    return [*centred, *rounding[operand.rounding], *rule, *groups]


def _rotation_word(rotation: DeterministicHadamard | RandomizedHadamard) -> str:
    word = f"{rotation.kind.upper()}{rotation.size}"
    if rotation.kind == "dht" or rotation.signs == "redrawn":
        return word
    return f"{word}-{rotation.signs}"
