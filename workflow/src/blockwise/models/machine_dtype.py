"""The type of number that this machine's CPU computes in.

Numbers differ between the two, so the type is a flag of the server like any other: in the engine
card, and in the key of every cell.
"""

from functools import cache
from pathlib import Path
from typing import Literal

CPUINFO = Path("/proc/cpuinfo")
BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
"""Of x86; without one of them bfloat16 is emulated, and slower than float32."""


@cache
def cpu_dtype(cpuinfo: Path = CPUINFO) -> Literal["bfloat16", "float32"]:
    """bfloat16 where the CPU multiplies it, float32 elsewhere."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "float32"
    flags = next((line for line in lines if line.startswith("flags")), "")
    return "bfloat16" if BFLOAT16_FLAGS & {*flags.split()} else "float32"
