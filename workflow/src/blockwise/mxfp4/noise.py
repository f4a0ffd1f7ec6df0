"""Random numbers that are a function of a key and a position.

Stochastic rounding needs one number an element, inside a compiled kernel, the same on every
device and after a resumed run. A generator's state cannot be read in there; a hash of key and
position can, costs a few integer operations, and fuses with the rounding. In a training the key
is itself a function, of seed, step, micro-batch, process and layer: a run that is resumed and a
forward pass that is computed again find the same numbers, and no state has to be kept.
"""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

GOLDEN_RATIO = -1640531527  # 2^32 / phi as int32: neighbouring positions land far apart
MIX_1, MIX_2 = 0x7FEB352D, -2073254261  # 0x846CA68B; C. Wellons' lowbias32, best of its search
UNIFORM_BITS = 22  # as many as stay exact when a float32 below 4 is added


def hashed(key: Tensor, num: int) -> Tensor:
    """Hash of the positions 0..num-1 under a key.

    Args:
        key: int32, no dimension.
        num: how many, below 2^31.

    Returns:
        int32 of shape [num]; all 32 bits are usable.
    """
    value = torch.arange(num, dtype=torch.int32, device=key.device) * GOLDEN_RATIO + key
    value = (value ^ _shifted(value, 16)) * MIX_1
    value = (value ^ _shifted(value, 15)) * MIX_2
    return value ^ _shifted(value, 16)


def uniform(key: Tensor, num: int) -> Tensor:
    """Numbers in [0, 1), float32 of shape [num]."""
    return _shifted(hashed(key, num), 32 - UNIFORM_BITS).to(torch.float32) * 2.0**-UNIFORM_BITS


def signs(key: Tensor, num: int) -> Tensor:
    """Numbers that are 1 or -1, float32 of shape [num]."""
    return 1.0 - 2.0 * _shifted(hashed(key, num), 31).to(torch.float32)


def subkey(key: Tensor, stream: int) -> Tensor:
    """An independent key for another use of the same draw."""
    return hashed(key ^ GOLDEN_RATIO, stream + 1)[stream]


def training_keys(moment: Sequence[int | str], layers: Sequence[str]) -> Tensor:
    """Keys of layers at one moment of a training.

    Args:
        moment: seed, step, micro-batch and process.
        layers: their names.

    Returns:
        int32 of shape [number of layers], on the CPU.
    """
    with torch.inference_mode(False):  # what infers may hand a key to what trains
        numbers = [_digest((*moment, layer)) for layer in layers]
        return torch.tensor(numbers, dtype=torch.int32)


def _digest(parts: Sequence[int | str]) -> int:
    text = "/".join(str(part) for part in parts)
    short = hashlib.blake2b(text.encode(), digest_size=4).digest()
    return int.from_bytes(short, "little", signed=True)


def draw_key(generator: torch.Generator) -> Tensor:
    """A key from a generator: int32 without a dimension, on its device."""
    drawn = torch.randint(-(2**31), 2**31, (1,), generator=generator, device=generator.device)
    return drawn.to(torch.int32)[0]


def _shifted(value: Tensor, num_bits: int) -> Tensor:
    """Right shift of the 32 bits with zeros from the left."""
    return torch.bitwise_right_shift(value, num_bits) & ((1 << (32 - num_bits)) - 1)
