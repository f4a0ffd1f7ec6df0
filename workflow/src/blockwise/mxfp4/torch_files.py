"""Torch files that somebody else may have made: read as values, never as code.

A pickle may call anything while it is read, so values are loaded by `weights_only`, and whatever
a damaged or hostile file makes torch raise is one of a known list.
"""

import pickle
import struct
from pathlib import Path
from typing import IO, Any

import torch

UNREADABLE = (
    OSError,
    EOFError,
    RuntimeError,  # most of torch's own words, RecursionError too
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    MemoryError,  # a length that no file has
    struct.error,
    pickle.UnpicklingError,
)
"""What reading a file that is no torch file, or not the expected one, raises."""


def load_values(source: Path | IO[bytes]) -> Any:
    """Tensors, numbers, texts and collections of them in a file of torch's.

    Raises:
        Exception: one of `UNREADABLE`; nothing in the file was run.
    """
    return torch.load(source, map_location="cpu", weights_only=True)
