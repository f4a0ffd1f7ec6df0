"""FP8 with one scale a tensor, emulated: the baseline the paper compares with.

The usual recipe: E4M3 for weights and activations, E5M2 for gradients, whose range matters
more, each scaled so that its largest magnitude is the format's largest value.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor


def fake_quantize_fp8(values: Tensor, dtype: torch.dtype) -> Tensor:
    """The values as FP8 would hold them; shape and type stay.

    Args:
        values: any float tensor. With a NaN or Inf inside, all of it becomes NaN.
        dtype: torch.float8_e4m3fn or torch.float8_e5m2.
    """
    if values.numel() == 0:  # an expert may get no token
        return values
    wide = values.to(torch.float32)
    amax = wide.abs().amax()
    largest = torch.finfo(dtype).max
    scale = (amax / largest).clamp(min=torch.finfo(torch.float32).tiny)
    narrow = (wide / scale).clamp(-largest, largest).to(dtype)
    result = narrow.to(torch.float32) * scale
    return torch.where(amax.isfinite(), result, torch.nan).to(values.dtype)


def compiled_fp8(values: Tensor, dtype: torch.dtype) -> Tensor:
    """`fake_quantize_fp8`, compiled once for all shapes; equal to it bit for bit."""
    if torch.compiler.is_compiling():  # inside a compiled model it is compiled with the rest
        return fake_quantize_fp8(values, dtype)
    result: Tensor = _compiled()(values, dtype)
    return result


@cache
def _compiled() -> Any:
    return torch.compile(fake_quantize_fp8, dynamic=True)
