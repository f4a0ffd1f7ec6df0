"""Where a record of this study comes from: code, packages, machine, device and command."""

import torch

from blockwise.mxfp4.records import Origin
from blockwise.provenance import (
    command_line,
    cpu_model,
    git_state,
    host_name,
    package_versions,
    utc_now,
)


def origin(device: str) -> Origin:
    """The origin of a record whose work begins now.

    Args:
        device: where it computes, as torch names it, e.g. `cpu` or `cuda`.
    """
    commit, dirty = git_state()
    return Origin(
        commit=commit,
        dirty=dirty,
        packages=package_versions(),
        host=host_name(),
        cpu=cpu_model(),
        device=_device_name(torch.device(device)),
        command=command_line(),
        started_at=utc_now(),
    )


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
