"""Freed memory stays with the process: a training step asks for the same matrices every time.

glibc gives blocks above a threshold back to the kernel when they are freed, and the next step
pays for every page again. That is most of what a small eager step costs: quantizing a weight of
1536 x 576 takes a quarter of the time without it.
"""

import ctypes
from functools import cache

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
NEVER = 2**31 - 1  # bytes; the largest int, which mallopt takes
LARGEST_KEPT = 2**30  # bytes of one block


@cache
def keep_freed_memory() -> bool:
    """Tell glibc to keep what is freed, for the life of the process.

    Returns:
        Whether the process has a glibc, and it agreed.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library, which has thresholds of its own
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT) and mallopt(M_TRIM_THRESHOLD, NEVER))
