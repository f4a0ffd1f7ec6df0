"""What a fused MXFP4 kernel has to beat, from the roofline of a GPU: nothing here is measured.

    python -m blockwise.bench.roofline

A GEMM takes the longer of its arithmetic and its memory traffic. Preparing an operand (rotation,
scale, rounding) is memory traffic alone: bfloat16 in, the narrow format out. FP8 pays for its cast
as well. What FP4 gains in arithmetic has to pay for a larger preparation, which is why the
preparation belongs into the kernel that wrote the operand, or into the GEMM.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from blockwise.config.recipes import GROUP_SIZE

BF16_BYTES, FP8_BYTES = 2.0, 1.0
MXFP4_BYTES = 0.5 + 1 / GROUP_SIZE  # two elements a byte, and one byte of scale for a group


@dataclass(frozen=True)
class Chip:
    """Peaks of a data sheet, dense."""

    name: str
    fp8_flop_per_s: float
    fp4_flop_per_s: float
    bytes_per_s: float


@dataclass(frozen=True)
class Product:
    """A GEMM [rows, summed] x [summed, columns]."""

    name: str
    num_rows: int
    num_columns: int
    num_summed: int

    @property
    def num_operand_values(self) -> int:
        """Of both operands."""
        return (self.num_rows + self.num_columns) * self.num_summed


@dataclass(frozen=True)
class Budget:
    """Times of one product, in seconds, at the peaks."""

    fp8_s: float  # GEMM
    fp8_cast_s: float  # both operands, in passes of their own
    mxfp4_s: float
    mxfp4_cast_s: float

    @property
    def speedup_apart(self) -> float:
        """FP8 over MXFP4 where every operand is prepared in a pass of its own."""
        return (self.fp8_s + self.fp8_cast_s) / (self.mxfp4_s + self.mxfp4_cast_s)

    @property
    def speedup_fused(self) -> float:
        """The same where no preparation costs a pass: the most that fusing can give."""
        return self.fp8_s / self.mxfp4_s

    @property
    def largest_preparation_s(self) -> float:
        """What MXFP4's preparation may take, beside FP8 with its casts, before it loses."""
        return self.fp8_s + self.fp8_cast_s - self.mxfp4_s


# AMD Instinct MI355X data sheet: 5.03 (OCP-FP8) and 10.07 PFLOP/s (MXFP4), 8 TB/s. NVIDIA HGX
# B200 data sheet, an eighth: 4.5 and 9 PFLOP/s dense, 8 TB/s.
CHIPS = (
    Chip("MI355X", 5.03e15, 10.07e15, 8e12),
    Chip("B200", 4.5e15, 9e15, 8e12),
)
# 32,768 tokens (four sequences of 8,192) through up_proj of SmolLM2-135M and of Llama 3.1-8B.
NUM_TOKENS = 32_768
PRODUCTS = tuple(
    Product(f"{model}, {gemm}", *sizes)
    for model, hidden, wide in (("SmolLM2-135M", 576, 1536), ("Llama 3.1-8B", 4096, 14_336))
    for gemm, sizes in (
        ("Fprop", (NUM_TOKENS, wide, hidden)),
        ("Dgrad", (NUM_TOKENS, hidden, wide)),
        ("Wgrad", (wide, hidden, NUM_TOKENS)),
    )
)


def budget(product: Product, chip: Chip) -> Budget:
    """Times of a product at a chip's peaks; results are written in bfloat16."""
    num_operations = 2 * product.num_rows * product.num_columns * product.num_summed
    result_bytes = BF16_BYTES * product.num_rows * product.num_columns
    num_values = product.num_operand_values

    def gemm_s(flop_per_s: float, value_bytes: float) -> float:
        traffic = value_bytes * num_values + result_bytes
        return max(num_operations / flop_per_s, traffic / chip.bytes_per_s)

    def cast_s(value_bytes: float) -> float:
        return (BF16_BYTES + value_bytes) * num_values / chip.bytes_per_s

    return Budget(
        fp8_s=gemm_s(chip.fp8_flop_per_s, FP8_BYTES),
        fp8_cast_s=cast_s(FP8_BYTES),
        mxfp4_s=gemm_s(chip.fp4_flop_per_s, MXFP4_BYTES),
        mxfp4_cast_s=cast_s(MXFP4_BYTES),
    )


def table(chips: Sequence[Chip] = CHIPS, products: Sequence[Product] = PRODUCTS) -> str:
    """The budgets as a table of Markdown; times in microseconds."""
    lines = [
        "| chip | product of `up_proj`, 32,768 tokens | FP8 GEMM | FP8 casts | MXFP4 GEMM | "
        "MXFP4 preparation apart | gain, apart | gain, fused | preparation may take |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for chip in chips:
        for product in products:
            one = budget(product, chip)
            times = [
                f"{1e6 * seconds:.0f}"
                for seconds in (one.fp8_s, one.fp8_cast_s, one.mxfp4_s, one.mxfp4_cast_s)
            ]
            gains = [f"{one.speedup_apart:.2f}x", f"{one.speedup_fused:.2f}x"]
            cells = [chip.name, product.name, *times, *gains]
            lines.append(f"| {' | '.join(cells)} | {1e6 * one.largest_preparation_s:.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Command line: print the table."""
    argparse.ArgumentParser(
        prog="python -m blockwise.bench.roofline", description=__doc__
    ).parse_args()
    print(table())


if __name__ == "__main__":
    main()
