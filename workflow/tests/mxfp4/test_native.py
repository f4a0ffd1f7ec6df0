"""The native backend refuses in words, and hands the hardware what emulation multiplies.

No machine here has FP4 GEMMs. What can be checked without one: refusals, the layout of scales,
torch's own checks of the call's shapes and types (on its fake tensors), and the products with
a reference in place of the GEMM.
"""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional

from blockwise.config.recipes import Operand, Recipe
from blockwise.errors import ConfigError
from blockwise.mxfp4 import conversion_of, convert, native
from blockwise.mxfp4.packed import Packed, pack, unpack

ALL_GEMMS = Recipe(fprop={}, dgrad={}, wgrad={"rotation": {"kind": "rht", "size": 32}})
SWIZZLED = functional.SwizzleType.SWIZZLE_32_4_4


def pretend_gpu(monkeypatch, name, major, minor=0, architecture=None, hip=None):
    properties = SimpleNamespace(name=name, major=major, minor=minor)
    if architecture:
        properties.gcnArchName = architecture
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.version, "hip", hip)


def pretend_native(monkeypatch):
    """The checks pass, and the GEMM is a reference: unpack and multiply."""
    monkeypatch.setattr(native, "check_device", lambda device: None)

    def matmul(left, right, dtype):
        return (unpack(left) @ unpack(right).T).to(dtype)

    monkeypatch.setattr(native, "matmul", matmul)


def model_of(recipe, backend):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 32, bias=False))
    convert(model, recipe, backend=backend)
    return model


def swizzled_slowly(scales):
    """NVIDIA's layout, one scale at a time: tiles of 128 x 4, each stored as 32 x 16 bytes."""
    num_rows, num_columns = scales.shape
    tile_rows, tile_columns = -(-num_rows // 128), -(-num_columns // 4)
    ordered = [0] * (tile_rows * tile_columns * 512)
    for row in range(num_rows):
        for column in range(num_columns):
            tile = row // 128 * tile_columns + column // 4
            r, c = row % 128, column % 4
            ordered[tile * 512 + r % 32 * 16 + r // 32 * 4 + c] = int(scales[row, column])
    return ordered


def test_the_cpu_is_refused():
    with pytest.raises(ConfigError, match=r"'cpu'.*sm100.*gfx950.*mxfp4.backend: emulated"):
        native.check_device(torch.device("cpu"))


def test_cuda_without_a_gpu_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"'cuda'.*mxfp4.backend: emulated"):
        native.check_device(torch.device("cuda"))


@pytest.mark.parametrize(
    ("gpu", "named"),
    [
        ({"name": "NVIDIA H200", "major": 9}, r"NVIDIA H200 \(sm90\)"),
        ({"name": "NVIDIA RTX 5090", "major": 12}, r"NVIDIA RTX 5090 \(sm120\)"),
        (
            {"name": "MI300X", "major": 9, "architecture": "gfx942:sramecc+:xnack-", "hip": "7"},
            r"MI300X \(gfx942\)",
        ),
        (
            {"name": "Radeon", "major": 10, "minor": 3, "architecture": "gfx1030", "hip": "7"},
            r"Radeon \(gfx1030\)",
        ),
    ],
    ids=["sm90", "sm120", "gfx942", "gfx1030"],
)
def test_another_gpu_is_refused_by_name(monkeypatch, gpu, named):
    pretend_gpu(monkeypatch, **gpu)
    with pytest.raises(ConfigError, match=named + r".*sm100.*gfx950.*emulated"):
        native.check_device(torch.device("cuda"))


@pytest.mark.parametrize(
    "gpu",
    [
        {"name": "NVIDIA B200", "major": 10},
        {"name": "MI355X", "major": 9, "architecture": "gfx950:sramecc+:xnack-", "hip": "7"},
    ],
    ids=["sm100", "gfx950"],
)
def test_hardware_with_fp4_is_taken(monkeypatch, gpu):
    pretend_gpu(monkeypatch, **gpu)
    native.check_device(torch.device("cuda"))


def test_convert_refuses_native_on_the_cpu_and_changes_nothing():
    model = nn.Sequential(nn.Linear(32, 32))
    with pytest.raises(ConfigError, match="'cpu'"):
        convert(model, ALL_GEMMS, backend="native")
    assert type(model[0]) is nn.Linear


def test_a_build_of_torch_without_the_gemm_is_refused_before_anything_is_converted(monkeypatch):
    def scaled_mm(*_, **__):
        raise NotImplementedError("MXFP4 scaling supported on ROCM and CUDA+MSLK only\nat ...")

    monkeypatch.setattr(native, "check_device", lambda device: None)
    monkeypatch.setattr(functional, "scaled_mm", scaled_mm)
    model = nn.Sequential(nn.Linear(32, 32))
    refused = r"torch .* on cpu refuses.*128 x 256 x 128: MXFP4 scaling.*only\. Use.*emulated"
    with pytest.raises(ConfigError, match=refused):
        convert(model, ALL_GEMMS, backend="native")
    assert type(model[0]) is nn.Linear


@pytest.mark.parametrize("wrong", ["another scale", "transposed scales", "NaN"])
def test_a_product_that_is_not_the_emulated_one_is_refused(monkeypatch, wrong):
    def matmul(left, right, dtype):
        if wrong == "transposed scales":
            right = Packed(right.elements, right.scales.t().contiguous().view_as(right.scales))
        product = (unpack(left) @ unpack(right).T).to(dtype)
        return product * {"another scale": 2, "NaN": float("nan")}.get(wrong, 1)

    monkeypatch.setattr(native, "matmul", matmul)
    with pytest.raises(ConfigError, match=r"on cpu gives.*differs.*of its norm.*emulated"):
        native.check_gemm(torch.device("cpu"))


def test_a_product_in_bfloat16_is_accepted(monkeypatch):
    monkeypatch.setattr(
        native, "matmul", lambda a, b, dtype: (unpack(a) @ unpack(b).T).bfloat16().to(dtype)
    )
    native.check_gemm(torch.device("cpu"))


@pytest.mark.parametrize(
    ("hip", "shape", "refused"),
    [
        (None, (48, 64, 96), None),
        (None, (48, 40, 96), r"NVIDIA.*\(1, 16, 32\).*\(48, 40, 96\)"),
        ("7.0", (64, 96, 128), None),
        ("7.0", (64, 96, 96), r"AMD.*\(32, 32, 64\).*\(64, 96, 96\).*mxfp4\.converted"),
        ("7.0", (48, 96, 128), r"AMD.*\(48, 96, 128\)"),
    ],
)
def test_sizes_that_the_hardware_does_not_take_are_refused_in_words(
    monkeypatch, hip, shape, refused
):
    monkeypatch.setattr(torch.version, "hip", hip)
    monkeypatch.setattr(
        functional, "scaled_mm", lambda left, right, **_: torch.zeros(len(left), right.shape[1])
    )
    num_rows, num_columns, num_summed = shape
    left, right = (pack(torch.ones(num, num_summed), Operand()) for num in (num_rows, num_columns))
    if refused is None:
        assert native.matmul(left, right, torch.float32).shape == (num_rows, num_columns)
        return
    with pytest.raises(ConfigError, match=refused):
        native.matmul(left, right, torch.float32)


def test_an_operand_that_is_not_quantized_is_refused(monkeypatch):
    pretend_native(monkeypatch)
    model = nn.Sequential(nn.Linear(32, 32))
    with pytest.raises(ConfigError, match=r"F:w is not quantized.*use the emulated backend"):
        convert(model, Recipe(fprop={"w": None}), backend="native")
    assert type(model[0]) is nn.Linear


@pytest.mark.parametrize("shape", [(128, 4), (256, 8), (96, 3), (130, 5), (1, 1), (384, 12)])
def test_scales_are_laid_out_in_tiles(shape):
    generator = torch.Generator().manual_seed(0)
    scales = torch.randint(1, 255, shape, generator=generator, dtype=torch.uint8)
    result = native._laid_out(scales.view(torch.float8_e8m0fnu), SWIZZLED)
    assert result.dtype == torch.float8_e8m0fnu
    assert result.is_contiguous()
    assert result.view(torch.uint8).flatten().tolist() == swizzled_slowly(scales)


def test_scales_stay_where_the_hardware_wants_no_tiles():
    scales = torch.arange(12, dtype=torch.uint8).view(4, 3).view(torch.float8_e8m0fnu)
    result = native._laid_out(scales, functional.SwizzleType.NO_SWIZZLE)
    assert torch.equal(result.view(torch.uint8), scales.view(torch.uint8))


@pytest.mark.parametrize("shape", [(128, 96, 64), (40, 80, 128), (32, 16, 32)])
def test_torch_accepts_the_call(shape):
    """On fake tensors: the checks that torch makes of types, strides and sizes of the scales.

    Sums stay short, for torch 2.13 forgets here (not in the kernel) that a byte holds two.
    """
    num_rows, num_columns, num_summed = shape
    with FakeTensorMode():

        def packed(num):
            return Packed(
                torch.empty(num, num_summed // 2, dtype=torch.float4_e2m1fn_x2, device="cuda"),
                torch.empty(num, num_summed // 32, dtype=torch.float8_e8m0fnu, device="cuda"),
            )

        result = native.matmul(packed(num_rows), packed(num_columns), torch.bfloat16)
        assert result.shape == (num_rows, num_columns)
        assert result.dtype == torch.bfloat16


def test_the_gemm_writes_what_it_can_and_the_product_has_the_type_asked_for(monkeypatch):
    asked = []

    def scaled_mm(left, right, *, output_dtype, **_):
        asked.append(output_dtype)
        return torch.zeros(len(left), right.shape[1], dtype=output_dtype)

    monkeypatch.setattr(functional, "scaled_mm", scaled_mm)
    packed = pack(torch.ones(32, 64), Operand())
    assert native.matmul(packed, packed, torch.float32).dtype == torch.float32
    assert asked == [torch.bfloat16]


def test_native_products_are_the_emulated_ones(monkeypatch):
    """All three GEMMs, each operand packed along the dimension that its GEMM sums over."""
    pretend_native(monkeypatch)
    x = torch.randn(64, 64, generator=torch.Generator().manual_seed(1))
    results = []
    for backend in ("emulated", "native"):
        model, entered = model_of(ALL_GEMMS, backend), x.clone().requires_grad_()
        with conversion_of(model).step(0):
            output = model(entered)
            output.square().sum().backward()
        results.append([output, entered.grad, *(p.grad for p in model.parameters())])
    for emulated, through_packing in zip(*results, strict=True):
        torch.testing.assert_close(through_packing, emulated, rtol=1e-5, atol=1e-5)
