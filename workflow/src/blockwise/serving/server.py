"""A managed server: one context manager is one server, from start to nothing left of it.

Inside the `with` the server is healthy and it is ours: it lists a name that only this start
knows, so a stranger's server on the same port is never talked to. Outside it there is no
process, no shared memory and no lock, because a watchdog owns the process tree and the kernel
owns the locks. Everything the server prints goes to one log file, and every failure quotes
the lines of it that say why.
"""

import contextlib
import os
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

from blockwise.config.backbones import Backbone, ExternalEngine, VllmEngine
from blockwise.errors import ServerError
from blockwise.serving.devices import reserved_devices
from blockwise.serving.http_json import HttpError, get_json, is_up
from blockwise.serving.prepared_model import PreparedModel
from blockwise.serving.process_signals import end_with_parent, raise_on_sigterm
from blockwise.serving.running_server import NO_KEY, Server
from blockwise.serving.server_log import ADDRESS_IN_USE, ServerLog
from blockwise.serving.vllm_command import HOST, pinned_port, vllm_command, vllm_environment
from blockwise.serving.watchdog import GIVE_UP_S, GRACE_S

__all__ = ["Server", "end_with_parent", "managed_server", "raise_on_sigterm"]

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
    """Serve a backbone for as long as the `with` lasts.

    Args:
        name: the backbone's name.
        backbone: its configuration.
        model: its prepared files.
        log_path: where the server's output is appended.
        report: takes a line of progress about every 10 s.

    Raises:
        ServerError: it did not start, did not become healthy in time, or cannot be reached.
    """
    engine = backbone.engine
    if isinstance(engine, ExternalEngine):
        yield _external_server(name, engine)
        return
    with reserved_devices(backbone.gpus, report) as devices:
        launch = _Launch(name, backbone, engine, model, ServerLog(log_path), report, devices)
        server = launch.start()
        try:
            yield server
        finally:
            launch.stop()


@dataclass
class _Launch:
    """One vLLM server under its watchdog."""

    name: str
    backbone: Backbone
    engine: VllmEngine
    model: PreparedModel
    log: ServerLog
    report: Callable[[str], None]
    devices: dict[str, str]
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> Server:
        """Start the server and wait until it is healthy; retries on a stolen port."""
        pinned = pinned_port(self.backbone)
        for attempt in range(1, PORT_ATTEMPTS + 1):
            port = _free_port() if pinned is None else _checked_port(self.name, pinned)
            try:
                return self._start_on(port)
            except BaseException as error:
                self.stop()
                stolen = isinstance(error, ServerError) and self.log.says(ADDRESS_IN_USE)
                if not stolen or pinned is not None or attempt == PORT_ATTEMPTS:
                    raise
                self.report(f"port {port} was taken before vLLM could bind it; trying another")
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

    def _start_on(self, port: int) -> Server:
        start_id = uuid.uuid4().hex
        command = vllm_command(self.name, self.backbone, self.model, start_id, port)
        start_s = time.monotonic()
        with self.log.open_for(command) as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "blockwise.serving.watchdog", "--", *command],
                stdin=subprocess.PIPE,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches us alone; we stop it in order
                env=vllm_environment(self.backbone, self.devices),
            )
        self._wait_until_healthy(self.process, f"http://{HOST}:{port}", start_id, start_s)
        return Server(
            base_url=f"http://{HOST}:{port}/v1",
            served_model=self.name,
            start_id=start_id,
            startup_s=time.monotonic() - start_s,
            log_path=self.log.path,
            api_key=NO_KEY,
            process=self.process,
        )

    def _wait_until_healthy(
        self, process: "subprocess.Popen[bytes]", root_url: str, start_id: str, start_s: float
    ) -> None:
        next_report_s = REPORT_INTERVAL_S
        while True:
            waited_s = time.monotonic() - start_s
            code = process.poll()
            if code is not None:
                raise ServerError(
                    f"the server of {self.name} died while starting (exit code {code} after "
                    f"{waited_s:.0f} s): {self.log.telling_lines()}\nlog: {self.log.path}"
                )
            if is_up(f"{root_url}/health"):
                self._check_identity(root_url, start_id)
                return
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

    def _check_identity(self, root_url: str, start_id: str) -> None:
        try:
            served = _model_ids(get_json(f"{root_url}/v1/models", NO_KEY))
        except HttpError as problem:
            served = []
            detail = str(problem)
        else:
            detail = f"it serves {', '.join(served) or 'nothing'}"
        if start_id not in served:
            raise ServerError(
                f"{root_url} answers, but it is not the server that was just started for "
                f"{self.name} ({detail}); stop the other server or unpin the port"
            )


def _external_server(name: str, engine: ExternalEngine) -> Server:
    """Check that somebody else's server can be used."""
    key = NO_KEY
    if engine.api_key_env is not None:
        key = os.environ.get(engine.api_key_env, "")
        if not key:
            raise ServerError(
                f"the environment variable {engine.api_key_env} (engine.api_key_env of {name}) is "
                "not set; export the key of the server in it"
            )
    base_url = engine.url.rstrip("/")
    start_s = time.monotonic()
    attempts = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(EXTERNAL_ATTEMPTS),
        wait=tenacity.wait_fixed(EXTERNAL_WAIT_S),
        retry=tenacity.retry_if_exception_type(HttpError),
        reraise=True,
    )
    try:
        served = _model_ids(attempts(get_json, f"{base_url}/models", key))
    except HttpError as problem:
        raise ServerError(
            f"the external server of {name} cannot be used: {problem} ({EXTERNAL_ATTEMPTS} "
            "attempts). Check engine.url (it ends in /v1), the key, and that the server runs"
        ) from problem
    if served and engine.served_model not in served:
        raise ServerError(
            f"the external server of {name} does not serve {engine.served_model!r}; it serves "
            f"{', '.join(served)}. Set engine.served_model to one of these"
        )
    return Server(
        base_url=base_url,
        served_model=engine.served_model,
        start_id=uuid.uuid4().hex,
        startup_s=time.monotonic() - start_s,
        log_path=None,
        api_key=key,
    )


def _model_ids(answer: object) -> list[str]:
    entries = answer.get("data") if isinstance(answer, dict) else None
    return [str(entry.get("id")) for entry in entries or () if isinstance(entry, dict)]


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
