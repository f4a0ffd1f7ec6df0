"""Which devices a server gets, and that nobody else loads a second model on them meanwhile.

One lock file per device, held with flock for as long as the server lives: the kernel releases
it however the holder dies. GPUs are locked by their UUID, because a scheduler may show two
jobs two different cards under the same index. The replicas of one backbone are held together
and share the devices out among themselves: GPUs by number, and on the CPU whole cores, because two
servers that bind their threads to the same cores spin against each other.
"""

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from blockwise.errors import ServerError

LOCK_FOLDER_VARIABLE = "BLOCKWISE_LOCK_FOLDER"  # overrides where the lock files lie
VISIBLE_VARIABLES = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
WAIT_S = 6 * 3600.0  # a whole batch of the paper profile may run before ours
RETRY_INTERVAL_S = 0.5
REPORT_INTERVAL_S = 60.0
CPU = "cpu"
MIN_CORES = 2  # vLLM on the CPU keeps one for its scheduler and computes on the others
CPU_FOLDER = Path("/sys/devices/system/cpu")


@dataclass(frozen=True)
class DeviceShare:
    """What one server of several gets of the devices that are held for all."""

    environment: Mapping[str, str] = field(default_factory=dict)  # shows it its GPUs
    cpus: tuple[int, ...] = ()  # it may run on these alone; empty: on all


def share_out(environment: Mapping[str, str], num_replicas: int) -> list[DeviceShare]:
    """Divide what `reserved_devices` holds; GPUs divide evenly by construction."""
    if not environment:
        return [DeviceShare(cpus=cpus) for cpus in cpu_shares(_cores(), num_replicas)]
    names = environment[VISIBLE_VARIABLES[0]].split(",")
    each = len(names) // num_replicas
    chunks = [",".join(names[i * each : (i + 1) * each]) for i in range(num_replicas)]
    return [DeviceShare(environment=dict.fromkeys(VISIBLE_VARIABLES, chunk)) for chunk in chunks]


def cpu_shares(cores: Iterable[tuple[int, ...]], num_replicas: int) -> list[tuple[int, ...]]:
    """Whole cores for each replica, as logical CPUs; empty where there are too few to divide."""
    held = sorted(cores)
    each = len(held) // num_replicas
    if num_replicas == 1 or each < MIN_CORES:
        return [()] * num_replicas
    chunks = (held[index * each : (index + 1) * each] for index in range(num_replicas))
    return [tuple(sorted(cpu for core in chunk for cpu in core)) for chunk in chunks]


def _cores() -> set[tuple[int, ...]]:
    """The cores that this process may use, each as the logical CPUs of it."""
    allowed = os.sched_getaffinity(0)
    cores = set()
    for cpu in allowed:
        try:
            listed = (CPU_FOLDER / f"cpu{cpu}" / "topology" / "core_cpus_list").read_text()
        except OSError:  # a kernel that does not tell: each counts as a core
            listed = str(cpu)
        cores.add(tuple(sorted(set(_parse_cpus(listed)) & allowed)))
    return cores


def _parse_cpus(listed: str) -> Iterator[int]:
    """The numbers in the kernel's notation for CPUs, e.g. `0,4-5`."""
    for part in listed.strip().split(","):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


@contextlib.contextmanager
def reserved_devices(
    num_gpus: int, report: Callable[[str], None], wait_s: float = WAIT_S
) -> Iterator[dict[str, str]]:
    """Hold `num_gpus` free GPUs, or the CPU where it is 0.

    Yields:
        The environment variable that shows exactly these GPUs to the server; empty for the CPU.

    Raises:
        ServerError: fewer GPUs are visible than wanted, or none came free in time.
    """
    devices = visible_gpus() if num_gpus else {CPU: CPU}
    if len(devices) < num_gpus:
        raise ServerError(
            f"the backbone wants {num_gpus} GPU(s), {len(devices)} are visible; set its `gpus`, "
            f"times engine.num_replicas, to what this machine has, or mend {VISIBLE_VARIABLES[0]}"
        )
    wanted = num_gpus or 1
    with contextlib.ExitStack() as held:
        names = _wait_for(devices, wanted, held, report, wait_s)
        if not num_gpus:
            yield {}
            return
        visible = ",".join(devices[name] for name in names)
        yield dict.fromkeys(VISIBLE_VARIABLES, visible)


def visible_gpus() -> dict[str, str]:
    """GPUs that this process may use: lock name (UUID where known) -> how CUDA calls it."""
    uuids = _nvidia_uuids()
    shown = next((os.environ[name] for name in VISIBLE_VARIABLES if os.environ.get(name)), None)
    if shown is not None:
        entries = [entry.strip() for entry in shown.split(",") if entry.strip()]
    else:
        entries = [str(index) for index in range(len(uuids) or _num_torch_gpus())]
    gpus = {}
    for entry in entries:
        known = entry.isdigit() and int(entry) < len(uuids)
        gpus[uuids[int(entry)] if known else entry] = entry
    return gpus


def _nvidia_uuids() -> list[str]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        done = subprocess.run(
            [program, "--query-gpu=uuid", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


def _num_torch_gpus() -> int:
    # Imported here: seconds of start-up that only a machine without nvidia-smi needs (ROCm).
    import torch  # noqa: PLC0415

    return torch.cuda.device_count()


def _wait_for(
    devices: dict[str, str],
    wanted: int,
    held: contextlib.ExitStack,
    report: Callable[[str], None],
    wait_s: float,
) -> list[str]:
    """Take `wanted` of the devices, all at once or none, as soon as they are free."""
    start_s = time.monotonic()
    next_report_s = start_s
    while True:
        with contextlib.ExitStack() as attempt:
            taken: list[str] = []
            for name in devices:
                if len(taken) < wanted and (lock := _try_lock(name)) is not None:
                    attempt.enter_context(lock)
                    taken.append(name)
            if len(taken) == wanted:
                held.push(attempt.pop_all())
                return taken
        now_s = time.monotonic()
        if now_s - start_s > wait_s:
            raise ServerError(
                f"no free device after {wait_s:.0f} s: another server of this user holds "
                f"{', '.join(devices)} (locks in {lock_folder()}); wait for it or stop it"
            )
        if now_s >= next_report_s:
            report(f"waiting: another server of this user holds {', '.join(devices)}")
            next_report_s = now_s + REPORT_INTERVAL_S
        time.sleep(RETRY_INTERVAL_S)


def lock_folder() -> Path:
    """Where the lock files of this user lie."""
    override = os.environ.get(LOCK_FOLDER_VARIABLE)
    if override:
        return Path(override)
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    base = Path(runtime) if runtime and Path(runtime).is_dir() else Path(tempfile.gettempdir())
    return base / f"blockwise-locks-{os.getuid()}"


def _try_lock(name: str) -> IO[str] | None:
    """The open, locked file of a device, or None while somebody else holds it."""
    path = lock_folder() / f"{name.replace('/', '_')}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        stream = path.open("a")
    except OSError as error:
        raise ServerError(
            f"cannot make the lock file {path}: {error.strerror}; set {LOCK_FOLDER_VARIABLE} to a "
            "folder that you can write"
        ) from error
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.close()
        return None
    return stream
