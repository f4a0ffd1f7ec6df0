"""The hardware's own MXFP4 GEMM, where there is one; a refusal where there is not.

torch.nn.functional.scaled_mm takes packed operands with block scales on AMD gfx950 (MI355X)
and NVIDIA sm100 (B200). Nothing falls back: a run that asks for native arithmetic must not be
an emulation that nobody notices.
"""

import torch
from torch import Tensor
from torch.nn import functional

from blockwise.errors import ConfigError
from blockwise.mxfp4.storage import Packed

NVIDIA_MAJOR = 10  # compute capability of sm100
AMD_ARCHITECTURE = "gfx950"
REMEDY = (
    f"native MXFP4 needs NVIDIA sm{NVIDIA_MAJOR}0 or AMD {AMD_ARCHITECTURE}; set "
    "mxfp4.backend: emulated to run anywhere"
)


def check_device(device: torch.device) -> None:
    """Refuse a device without MXFP4 GEMMs.

    Raises:
        ConfigError: it has none; the message names it.
    """
    if device.type != "cuda" or not torch.cuda.is_available():
        raise ConfigError(f"the device is {device.type!r}: {REMEDY}")
    properties = torch.cuda.get_device_properties(device)
    architecture = getattr(properties, "gcnArchName", "").split(":")[0]
    if architecture == AMD_ARCHITECTURE or (
        torch.version.hip is None and properties.major == NVIDIA_MAJOR
    ):
        return
    name = architecture or f"sm{properties.major}{properties.minor}"
    raise ConfigError(f"the device is {properties.name} ({name}): {REMEDY}")


def matmul(left: Packed, right: Packed, dtype: torch.dtype) -> Tensor:
    """The product left @ right^T with float32 accumulation.

    Args:
        left: [m, k], groups along k.
        right: [n, k], groups along k.
        dtype: of the result.
    """
    kind = functional.ScalingType.BlockWise1x32
    layout = functional.SwizzleType.NO_SWIZZLE
    if torch.version.hip is None:  # NVIDIA's tensor cores read scales in 32 x 4 x 4 tiles
        layout = functional.SwizzleType.SWIZZLE_32_4_4
    return functional.scaled_mm(
        left.elements,
        right.elements.t(),
        scale_a=_laid_out(left.scales, layout),
        scale_recipe_a=kind,
        scale_b=_laid_out(right.scales, layout),
        scale_recipe_b=kind,
        swizzle_a=layout,
        swizzle_b=layout,
        output_dtype=torch.bfloat16,  # the one type that both makers' kernels give
    ).to(dtype)


def _laid_out(scales: Tensor, layout: "functional.SwizzleType") -> Tensor:
    """Scales in the order the hardware reads them: rows to 128, columns to 4, then tiles."""
    if layout == functional.SwizzleType.NO_SWIZZLE:
        return scales.contiguous()
    num_rows, num_columns = scales.shape
    bytes_ = functional.pad(scales.view(torch.uint8), (0, -num_columns % 4, 0, -num_rows % 128))
    tiles = bytes_.view(bytes_.shape[0] // 128, 4, 32, bytes_.shape[1] // 4, 4)
    ordered = tiles.permute(0, 3, 2, 1, 4).reshape(-1)
    return ordered.contiguous().view(torch.float8_e8m0fnu)
