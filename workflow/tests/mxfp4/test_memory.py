"""Freed memory stays with a process that trains."""

import subprocess
import sys

import pytest

from blockwise.mxfp4 import memory

PROGRAM = """
import torch
from blockwise.mxfp4.memory import keep_freed_memory
assert not {kept} or keep_freed_memory()
block = torch.ones(1 << 24)
del block
print(int(open("/proc/self/statm").read().split()[1]) * 4096)
"""


def resident_bytes(kept):
    command = [sys.executable, "-c", PROGRAM.format(kept=kept)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_what_is_freed_stays_resident():
    if not memory.keep_freed_memory():
        pytest.skip("needs glibc: other C libraries have thresholds of their own")
    kept, given_back = resident_bytes(True), resident_bytes(False)
    assert kept - given_back > 48 << 20  # of the block's 64 MiB


def test_another_c_library_is_left_alone(monkeypatch):
    def none(name):
        raise OSError(name)

    memory.keep_freed_memory.cache_clear()
    monkeypatch.setattr(memory.ctypes, "CDLL", none)
    assert memory.keep_freed_memory() is False
    memory.keep_freed_memory.cache_clear()
