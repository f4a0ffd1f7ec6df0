"""Managed servers: one context manager is one backbone's, from their start to nothing left of them.

A backbone has one server or several replicas. Inside the `with` each is healthy and it is ours:
it lists a name that only this start knows, so a stranger's server on the same port is never
talked to. Outside it there is no process, no shared memory and no lock, because a watchdog owns
each process tree and the kernel owns the locks. Everything a server prints goes to its log file,
and every failure quotes the lines of it that say why.
"""

import contextlib
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import tenacity

from blockwise.config.backbones import Backbone, Engine, ExternalEngine, VllmEngine
from blockwise.errors import ServerError
from blockwise.models.prepared_model import PreparedModel
from blockwise.serving.alike import refuse_unlike_endpoints
from blockwise.serving.api_key import NO_KEY, read_key
from blockwise.serving.devices import DeviceShare, reserved_devices, share_out
from blockwise.serving.http_json import HttpError, is_up
from blockwise.serving.process_signals import end_with_parent, raise_on_sigterm
from blockwise.serving.running_server import Server
from blockwise.serving.served_models import served_models
from blockwise.serving.server_log import ADDRESS_IN_USE, ServerLog
from blockwise.serving.vllm_command import HOST, pinned_port, vllm_command, vllm_environment
from blockwise.serving.watchdog import GIVE_UP_S, GRACE_S

__all__ = [
    "Server",
    "end_with_parent",
    "managed_server",
    "managed_servers",
    "raise_on_sigterm",
]

POLL_INTERVAL_S = 0.25
REPORT_INTERVAL_S = 10.0
PORT_ATTEMPTS = 3  # a free port can be taken between our look and the server's bind
EXTERNAL_ATTEMPTS = 3
EXTERNAL_WAIT_S = 2.0


@contextmanager
def managed_server(
    name: str,
    backbone: Backbone,
    model: PreparedModel,
    log_path: Path,
    report: Callable[[str], None],
) -> Iterator[Server]:
    """Serve a backbone by one server, however many replicas it has; as `managed_servers`."""
    with managed_servers(name, one_replica(backbone), model, log_path, report) as servers:
        yield servers[0]


@contextmanager
def managed_servers(
    name: str,
    backbone: Backbone,
    model: PreparedModel,
    log_path: Path,
    report: Callable[[str], None],
) -> Iterator[tuple[Server, ...]]:
    """Serve a backbone by all its replicas for as long as the `with` lasts.

    Args:
        name: the backbone's name.
        backbone: its configuration.
        model: its prepared files.
        log_path: where the server's output is appended; each of several replicas has a file of its
            own beside it.
        report: takes a line of progress about every 10 s.

    Raises:
        ServerError: one did not start, did not become healthy in time, cannot be reached, or is
            not like the others.
        ConfigError: the key of an external one is not in the environment.
    """
    engine = backbone.engine
    if isinstance(engine, ExternalEngine):
        servers = tuple(_external_server(name, engine, url) for url in engine.urls)
        refuse_unlike_endpoints(name, servers)
        yield servers
        return
    with reserved_devices(backbone.num_gpus, report) as devices, contextlib.ExitStack() as running:
        launches = []
        for number, share in enumerate(share_out(devices, engine.num_replicas), start=1):
            log = ServerLog(_log_of(log_path, number, engine.num_replicas))
            launch = _Launch(name, backbone, engine, model, log, report, share)
            running.callback(launch.stop)
            launch.begin()
            launches.append(launch)
        yield tuple(launch.wait() for launch in launches)


def one_replica(backbone: Backbone) -> Backbone:
    """The same backbone with a single server."""
    engine = backbone.engine
    if isinstance(engine, ExternalEngine):
        alone: Engine = engine.model_copy(update={"url": engine.urls[0]})
    else:
        alone = engine.model_copy(update={"num_replicas": 1})
    return backbone.model_copy(update={"engine": alone})


def _log_of(log_path: Path, number: int, num_replicas: int) -> Path:
    if num_replicas == 1:
        return log_path
    return log_path.with_name(f"{log_path.stem}.replica{number}{log_path.suffix}")


@dataclass
class _Launch:
    """One vLLM server under its watchdog."""

    name: str
    backbone: Backbone
    engine: VllmEngine
    model: PreparedModel
    log: ServerLog
    report: Callable[[str], None]
    share: DeviceShare
    process: "subprocess.Popen[bytes] | None" = None
    port: int = 0
    start_id: str = ""
    start_s: float = 0.0

    def begin(self) -> None:
        """Start the server, and do not wait for it."""
        pinned = pinned_port(self.backbone)
        self.port = _free_port() if pinned is None else _checked_port(self.name, pinned)
        self.start_id = uuid.uuid4().hex
        self.start_s = time.monotonic()
        command = vllm_command(self.name, self.backbone, self.model, self.start_id, self.port)
        watchdog = [sys.executable, "-m", "blockwise.serving.watchdog"]
        if self.share.cpus:
            watchdog += ["--cpus", ",".join(map(str, self.share.cpus))]
        with self.log.open_for(command) as stream:
            self.process = subprocess.Popen(
                [*watchdog, "--", *command],
                stdin=subprocess.PIPE,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches us alone; we stop it in order
                env=vllm_environment(self.backbone, self.share.environment),
            )

    def wait(self) -> Server:
        """Wait until the server is healthy; starts it again on a stolen port."""
        for attempt in range(1, PORT_ATTEMPTS + 1):
            try:
                return self._wait_until_healthy()
            except BaseException as error:
                self.stop()
                stolen = isinstance(error, ServerError) and self.log.says(ADDRESS_IN_USE)
                is_pinned = pinned_port(self.backbone) is not None
                if not stolen or is_pinned or attempt == PORT_ATTEMPTS:
                    raise
            self.report(f"port {self.port} was taken before vLLM could bind it; trying another")
            self.begin()
        raise AssertionError("the last attempt returns or raises")

    def stop(self) -> None:
        """End the server and everything it started; the watchdog does the work."""
        process = self.process
        if process is None:
            return
        self.process = None
        process.terminate()
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(GRACE_S + GIVE_UP_S + 5.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _wait_until_healthy(self) -> Server:
        process, root_url = self.process, f"http://{HOST}:{self.port}"
        assert process is not None
        next_report_s = REPORT_INTERVAL_S
        while True:
            waited_s = time.monotonic() - self.start_s
            code = process.poll()
            if code is not None:
                raise ServerError(
                    f"the server of {self.name} died while starting (exit code {code} after "
                    f"{waited_s:.0f} s): {self.log.telling_lines()}\nlog: {self.log.path}"
                )
            if is_up(f"{root_url}/health"):
                self._check_identity(root_url)
                return Server(
                    base_url=f"{root_url}/v1",
                    served_model=self.name,
                    start_id=self.start_id,
                    startup_s=time.monotonic() - self.start_s,
                    log_path=self.log.path,
                    api_key=NO_KEY,
                    process=process,
                )
            if waited_s > self.engine.startup_timeout_s:
                raise ServerError(
                    f"the server of {self.name} was not healthy after {waited_s:.0f} s, the limit "
                    f"is engine.startup_timeout_s = {self.engine.startup_timeout_s:g}; raise it "
                    f"or mend what the log says: {self.log.telling_lines()}\n"
                    f"log: {self.log.path}"
                )
            if waited_s >= next_report_s:
                self.report(
                    f"starting vLLM for {self.name}: {waited_s:.0f} s, log: {self.log.path}"
                )
                next_report_s += REPORT_INTERVAL_S
            time.sleep(POLL_INTERVAL_S)

    def _check_identity(self, root_url: str) -> None:
        try:
            served = list(served_models(f"{root_url}/v1", NO_KEY))
        except HttpError as problem:
            served = []
            detail = str(problem)
        else:
            detail = f"it serves {', '.join(served) or 'nothing'}"
        if self.start_id not in served:
            raise ServerError(
                f"{root_url} answers, but it is not the server that was just started for "
                f"{self.name} ({detail}); stop the other server or unpin the port"
            )


def _external_server(name: str, engine: ExternalEngine, base_url: str) -> Server:
    """Check that somebody else's server can be used."""
    key = NO_KEY
    if engine.api_key_env is not None:
        key = read_key(engine.api_key_env, f"engine.api_key_env of {name}", "the server")
    start_s = time.monotonic()
    attempts = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(EXTERNAL_ATTEMPTS),
        wait=tenacity.wait_fixed(EXTERNAL_WAIT_S),
        retry=tenacity.retry_if_exception_type(HttpError),
        reraise=True,
    )
    try:
        served = attempts(served_models, base_url, key)
    except HttpError as problem:
        raise ServerError(
            f"the external server of {name} cannot be used: {problem} ({EXTERNAL_ATTEMPTS} "
            "attempts). Check engine.url (it ends in /v1), the key, and that the server runs"
        ) from problem
    if served and engine.served_model not in served:
        raise ServerError(
            f"the external server of {name} at {base_url} does not serve {engine.served_model!r}; "
            f"it serves {', '.join(served)}. Set engine.served_model to one of these"
        )
    return Server(
        base_url=base_url,
        served_model=engine.served_model,
        start_id=uuid.uuid4().hex,
        startup_s=time.monotonic() - start_s,
        log_path=None,
        api_key=key,
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _checked_port(name: str, port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # TIME_WAIT is no clash
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise ServerError(
                f"port {port}, pinned by engine.arguments.port of {name}, cannot be used: "
                f"{error.strerror}; stop what listens there, pin another or remove the key"
            ) from error
    return port
