"""The hardware's own MXFP4 GEMM, where there is one; a refusal where there is not.

torch.nn.functional.scaled_mm takes packed operands with block scales on AMD gfx950 (MI355X)
and NVIDIA sm100 (B200). Nothing falls back: a run that asks for native arithmetic must not be
an emulation that nobody notices. Before anything is trained one small product is held against the
emulation, since not every build of torch for such a device has the GEMM.
"""

import torch
from torch import Tensor
from torch.nn import functional

from blockwise.config.recipes import GROUP_SIZE, Operand
from blockwise.errors import ConfigError
from blockwise.mxfp4.packed import Packed, pack, unpack

NVIDIA_MAJOR = 10  # compute capability of sm100
AMD_ARCHITECTURE = "gfx950"
REMEDY = (
    f"native MXFP4 needs NVIDIA sm{NVIDIA_MAJOR}0 or AMD {AMD_ARCHITECTURE}; set "
    "mxfp4.backend: emulated to run anywhere"
)
AMD_MULTIPLES = (32, 32, 64)  # rows, columns, summed: torch asks 32 of the packed sizes
NVIDIA_MULTIPLES = (1, 16, GROUP_SIZE)
"""Source: aten/src/ATen/native/cuda/ScaledBlas.cpp of torch 2.10, which builds of CUDA hand on to
FBGEMM's (later MSLK's) kernel: one without it has no MXFP4."""
PROBED_ROWS, PROBED_COLUMNS, PROBED_SUMMED = 128, 256, 128  # fits every multiple above
PRODUCT_TOLERANCE = 2.0**-7  # the result is bfloat16: 8 bits, and sums in another order


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


def check_gemm(device: torch.device) -> None:
    """Multiply once, and hold the product against the emulation's.

    Raises:
        ConfigError: this build of torch refuses, or the product is another one.
    """
    left, right = (pack(_numbers(num, device), Operand()) for num in (PROBED_ROWS, PROBED_COLUMNS))
    where = f"torch {torch.__version__} on {_name(device)}"
    size = f"{PROBED_ROWS} x {PROBED_COLUMNS} x {PROBED_SUMMED}"
    try:
        product = matmul(left, right, torch.float32)
    except (RuntimeError, ValueError) as error:  # what it does not implement is a RuntimeError
        raise ConfigError(
            f"{where} refuses an MXFP4 GEMM of {size}: {str(error).splitlines()[0]}. Use a build "
            f"with it (CUDA: with MSLK; ROCm: 7.0 or later), or set mxfp4.backend: emulated"
        ) from error
    expected = unpack(left) @ unpack(right).T
    error_frac = float((product - expected).norm() / expected.norm())
    if not error_frac < PRODUCT_TOLERANCE:  # nor is NaN
        raise ConfigError(
            f"{where} gives an MXFP4 product of {size} that differs from the emulation by "
            f"{error_frac:.3g} of its norm, and {PRODUCT_TOLERANCE:.3g} is what bfloat16 explains; "
            "use another build of torch, or set mxfp4.backend: emulated"
        )


def matmul(left: Packed, right: Packed, dtype: torch.dtype) -> Tensor:
    """The product left @ right^T with float32 accumulation.

    Args:
        left: [m, k], groups along k.
        right: [n, k], groups along k.
        dtype: of the result.

    Raises:
        ConfigError: a size that the hardware's GEMM does not take.
    """
    _check_sizes(left, right)
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


def _numbers(num_rows: int, device: torch.device) -> Tensor:
    """A matrix whose groups have scales of their own: none can be taken for another."""
    row = torch.arange(num_rows, dtype=torch.float32, device=device)[:, None]
    column = torch.arange(PROBED_SUMMED, dtype=torch.float32, device=device)[None]
    exponents = (5 * row + 3 * (column / GROUP_SIZE).floor()) % 7
    return (row * 1.3 + column * 0.7).sin() * exponents.exp2()


def _check_sizes(left: Packed, right: Packed) -> None:
    sizes = (len(left.scales), len(right.scales), GROUP_SIZE * left.scales.shape[1])
    is_amd = torch.version.hip is not None
    multiples = AMD_MULTIPLES if is_amd else NVIDIA_MULTIPLES
    if any(size % multiple for size, multiple in zip(sizes, multiples, strict=True)):
        raise ConfigError(
            f"the native MXFP4 GEMM of {'AMD' if is_amd else 'NVIDIA'} takes rows, columns and "
            f"summed values in multiples of {multiples}, and a layer has {sizes}; change the "
            "model's sizes or the tokens of a step, leave the layer out of mxfp4.converted, or set "
            "mxfp4.backend: emulated"
        )


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _laid_out(scales: Tensor, layout: "functional.SwizzleType") -> Tensor:
    """Scales in the order the hardware reads them: rows to 128, columns to 4, then tiles."""
    if layout == functional.SwizzleType.NO_SWIZZLE:
        return scales.contiguous()
    num_rows, num_columns = scales.shape
    bytes_ = functional.pad(scales.view(torch.uint8), (0, -num_columns % 4, 0, -num_rows % 128))
    tiles = bytes_.view(bytes_.shape[0] // 128, 4, 32, bytes_.shape[1] // 4, 4)
    ordered = tiles.permute(0, 3, 2, 1, 4).reshape(-1)
    return ordered.contiguous().view(torch.float8_e8m0fnu)
