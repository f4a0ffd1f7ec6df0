"""What torchtitan needs before it can be imported, and on a CPU what stands in for a GPU.

torchtitan 0.3.0 takes every machine for a CUDA one, and imports kernels of its expert-parallel
dispatcher that need triton. A dense Llama uses neither. On a CPU four names are replaced, before
its first import or right after it; where a GPU trains, nothing is.
"""

import importlib
import importlib.metadata
import importlib.util
import sys
from types import ModuleType, SimpleNamespace
from typing import Any, Literal, NoReturn, cast

from blockwise.errors import ConfigError

PACKAGE = "torchtitan"
TRIED_VERSION = "0.3.0"
KERNELS = "torchtitan.distributed.minimal_async_ep.kernels"
MEMORY_STATISTICS = (
    "max_active_gib",
    "max_active_pct",
    "max_reserved_gib",
    "max_reserved_pct",
    "num_alloc_retries",
    "num_ooms",
)


def version() -> str:
    """The installed torchtitan.

    Raises:
        ConfigError: there is none.
    """
    if importlib.util.find_spec(PACKAGE) is None:
        raise ConfigError(
            "mxfp4.trainer is torchtitan, which is not installed here; install it as "
            f"workflow/docs/training.md says (tried: {TRIED_VERSION}), or set mxfp4.trainer: own"
        )
    return importlib.metadata.version(PACKAGE)


def prepare(device: Literal["cpu", "cuda"]) -> None:
    """Make torchtitan importable, as often as one likes.

    Raises:
        ConfigError: it is not installed.
    """
    version()
    if device == "cuda":
        return
    torch_utils: Any = importlib.import_module("torch._utils")
    torch_utils._get_available_device_type = lambda: "cpu"
    sys.modules.setdefault(KERNELS, _kernels())
    metrics: Any = importlib.import_module("torchtitan.components.metrics")
    metrics.build_device_memory_monitor = _NoMemory
    utils: Any = importlib.import_module("torchtitan.distributed.utils")
    utils.set_pg_timeouts = lambda **_: None  # it names a CUDA device to gloo


def _kernels() -> ModuleType:
    """Kernels of the expert-parallel dispatcher that end whoever calls one."""

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise NotImplementedError("experts in parallel need a GPU with triton")

    def attribute(name: str) -> Any:
        if name.startswith("__"):  # Python's own: a module without a file and a path
            raise AttributeError(name)
        return refuse

    module: Any = ModuleType(KERNELS)
    module.__getattr__ = attribute
    return cast(ModuleType, module)


class _NoMemory:
    """Counts no device memory: there is none."""

    device_name = "cpu"
    device_capacity_gib = 0.0

    def get_peak_stats(self) -> SimpleNamespace:
        """Zero, whatever is asked."""
        return SimpleNamespace(**dict.fromkeys(MEMORY_STATISTICS, 0.0))

    def reset_peak_stats(self) -> None:
        """Nothing to forget."""
