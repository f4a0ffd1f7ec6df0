"""The managed server against a fake vLLM: starts, refusals, locks, and a clean end."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from blockwise.config.backbones import ExternalEngine, PathModel, VllmEngine
from blockwise.errors import ConfigError, ServerError
from blockwise.models.prepared_model import PreparedModel
from blockwise.serving import server as server_module
from blockwise.serving.devices import LOCK_FOLDER_VARIABLE, reserved_devices
from blockwise.serving.http_json import get_json
from blockwise.serving.server import managed_server, managed_servers
from blockwise.serving.vllm_command import vllm_command
from serving_fixtures import tiny_backbone

FAKE_VLLM = Path(__file__).with_name("fake_vllm")
MODEL = PreparedModel(
    backbone="tiny",
    source="path",
    path="/fake-models/tiny",
    revision=None,
    tokenizer_path="/fake-models/tiny",
    digest="d",
    num_parameters=None,
)


@pytest.fixture(autouse=True)
def own_locks(tmp_path, monkeypatch):
    monkeypatch.setenv(LOCK_FOLDER_VARIABLE, str(tmp_path / "locks"))
    return tmp_path / "locks"


def fake_backbone(behaviour="serve", timeout_s=60.0, environment=(), **arguments):
    environment = {"PYTHONPATH": str(FAKE_VLLM), "FAKE_VLLM": behaviour, **dict(environment)}
    engine = VllmEngine(
        kind="vllm", arguments=arguments, environment=environment, startup_timeout_s=timeout_s
    )
    return tiny_backbone(engine=engine)


def started(backbone, tmp_path, report=print):
    return managed_server("tiny", backbone, MODEL, tmp_path / "logs" / "server.log", report)


def descendants_with(text: str) -> list[int]:
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if text in " ".join(process.cmdline()):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def test_a_healthy_server_is_ours_and_ends_with_the_context(tmp_path):
    with started(fake_backbone(), tmp_path) as server:
        served = get_json(f"{server.base_url}/models", "")["data"]
        assert {entry["id"] for entry in served} == {"tiny", server.start_id}
        assert server.served_model == "tiny"
        assert server.is_alive()
        assert descendants_with(server.start_id)
    assert not server.is_alive()
    assert not descendants_with(server.start_id)
    # Whichever of our two messages the watchdog reads first.
    log = server.log_path.read_text()
    assert "stopped by SIGTERM" in log or "the parent closed its pipe" in log


def test_the_context_ends_the_server_when_its_body_fails(tmp_path):
    with pytest.raises(KeyError), started(fake_backbone(), tmp_path) as server:
        raise KeyError
    assert not descendants_with(server.start_id)


def test_a_server_that_dies_during_the_body_is_seen(tmp_path):
    with started(fake_backbone(), tmp_path) as server:
        for pid in descendants_with(server.start_id):
            if "watchdog" not in " ".join(psutil.Process(pid).cmdline()):
                os.kill(pid, signal.SIGKILL)
        server.process.wait(20)
        assert not server.is_alive()


def test_a_server_whose_engine_is_dead_is_not_alive_though_its_process_is(tmp_path):
    with started(fake_backbone("sick"), tmp_path) as server:
        assert server.process.poll() is None
        assert not server.is_alive()


def test_a_death_at_the_start_names_its_cause_and_the_log(tmp_path):
    with pytest.raises(ServerError) as refusal, started(fake_backbone("die"), tmp_path):
        pass
    text = str(refusal.value)
    assert "ValueError: To serve at least one request with 16384 tokens" in text
    assert "See root cause above" not in text
    assert "exit code 1" in text
    assert str(tmp_path / "logs" / "server.log") in text


def test_a_server_that_never_gets_healthy_meets_its_own_deadline(tmp_path, monkeypatch):
    monkeypatch.setattr(server_module, "REPORT_INTERVAL_S", 0.5)
    lines = []
    backbone = fake_backbone("stall", timeout_s=2.0)
    with (
        pytest.raises(ServerError, match=r"startup_timeout_s = 2"),
        started(backbone, tmp_path, lines.append),
    ):
        pass
    assert lines
    assert all("starting vLLM for tiny" in line for line in lines)
    assert not descendants_with(MODEL.path)


def test_a_stolen_port_is_tried_again_elsewhere(tmp_path):
    lines = []
    backbone = fake_backbone("steal", environment={"FAKE_VLLM_MARK": str(tmp_path / "mark")})
    with started(backbone, tmp_path, lines.append) as server:
        assert server.is_alive()
    assert "trying another" in lines[0]


def test_replicas_start_under_one_lock_each_with_its_log_and_all_end(tmp_path):
    backbone = fake_backbone("steal", environment={"FAKE_VLLM_MARK": str(tmp_path / "mark")})
    engine = backbone.engine.model_copy(update={"num_replicas": 2})
    backbone = backbone.model_copy(update={"engine": engine})
    with managed_servers("tiny", backbone, MODEL, tmp_path / "server.log", print) as servers:
        assert len({server.base_url for server in servers}) == 2
        assert all(server.is_alive() for server in servers)
        names = [server.log_path.name for server in servers]
        assert names == ["server.replica1.log", "server.replica2.log"]
        with (
            pytest.raises(ServerError, match="holds cpu"),
            reserved_devices(0, print, wait_s=0.05),
        ):
            pass
    assert not any(server.is_alive() for server in servers)
    assert not descendants_with(MODEL.path)


def test_a_pinned_port_in_use_is_refused_before_the_start(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with (
            pytest.raises(ServerError, match=f"port {port}"),
            started(fake_backbone(port=port), tmp_path),
        ):
            pass
    assert not (tmp_path / "logs").exists()


def test_a_strangers_server_is_never_talked_to(tmp_path):
    with (
        pytest.raises(ServerError, match="not the server that was just started"),
        started(fake_backbone("stranger"), tmp_path),
    ):
        pass
    assert not descendants_with(MODEL.path)


def test_two_servers_never_share_a_device(tmp_path):
    script = textwrap.dedent("""
        import sys, time
        from blockwise.serving.devices import reserved_devices
        with reserved_devices(0, print):
            print("held", flush=True)
            sys.stdin.read()
    """)
    holder = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout.readline() == b"held\n"
    lines = []

    def release_when_told(line):
        lines.append(line)
        holder.kill()  # the kernel frees the lock, however the holder dies

    with started(fake_backbone(), tmp_path, release_when_told) as server:
        assert server.is_alive()
    assert "another server of this user holds cpu" in lines[0]
    holder.wait()


def test_kill_9_of_our_process_ends_the_server(tmp_path):
    script = textwrap.dedent(f"""
        import sys, time
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from pathlib import Path
        from test_server import fake_backbone, started
        with started(fake_backbone(), Path({str(tmp_path)!r})) as server:
            print(server.start_id, flush=True)
            time.sleep(120)
    """)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    job = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment
    )
    start_id = job.stdout.readline().strip()
    assert descendants_with(start_id)
    job.kill()
    job.wait()
    deadline = time.monotonic() + 20
    while any(
        start_id in " ".join(p.info["cmdline"] or ()) for p in psutil.process_iter(["cmdline"])
    ):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_sigterm_unwinds(tmp_path):
    script = textwrap.dedent("""
        import time
        from blockwise.serving.server import raise_on_sigterm
        raise_on_sigterm()
        try:
            print("ready", flush=True)
            time.sleep(120)
        finally:
            print("unwound", flush=True)
    """)
    job = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert job.stdout.readline() == "ready\n"
    job.terminate()
    assert job.communicate(timeout=20)[0] == "unwound\n"
    assert job.returncode == 143


def test_flags_are_ours_the_users_and_nothing_twice():
    backbone = fake_backbone(enforce_eager=True, seed=3, **{"async-scheduling": False})
    command = vllm_command("tiny", backbone, MODEL, "id1", 8001)
    flags = command[command.index("--model") :]
    assert flags[:4] == ["--model", "/fake-models/tiny", "--served-model-name", "tiny"]
    assert "--enforce-eager" in flags
    assert "--no-async-scheduling" in flags
    assert flags[flags.index("--seed") + 1] == "3"
    assert flags[flags.index("--max-model-len") + 1] == "8192"
    assert flags.count("--port") == flags.count("--seed") == 1
    hub = MODEL.model_copy(update={"path": "some/model", "revision": "abc"})
    assert "--revision abc" in " ".join(vllm_command("tiny", backbone, hub, "id1", 8001))


def external(url, **changes):
    engine = ExternalEngine(
        kind="external", url=url, served_model="big", version="somewhere", **changes
    )
    return tiny_backbone(engine=engine, model=PathModel(source="path", path="/fake-models/tiny"))


def test_an_unreachable_external_server_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(server_module, "EXTERNAL_WAIT_S", 0.0)
    with (
        pytest.raises(ServerError, match=r"127.0.0.1:9/v1/models cannot be reached"),
        started(external("http://127.0.0.1:9/v1"), tmp_path),
    ):
        pass


def test_a_missing_key_names_its_variable(tmp_path, monkeypatch):
    monkeypatch.delenv("SOME_KEY", raising=False)
    backbone = external("http://127.0.0.1:9/v1", api_key_env="SOME_KEY")
    with pytest.raises(ConfigError, match=r"SOME_KEY .*is not set"), started(backbone, tmp_path):
        pass


def test_an_external_server_is_checked_and_its_key_never_shown(tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_KEY", "very-secret")
    with started(fake_backbone(), tmp_path) as running:
        backbone = external(f"{running.base_url}/", api_key_env="SOME_KEY")
        with (
            pytest.raises(ServerError, match="does not serve 'big'; it serves tiny"),
            started(backbone, tmp_path),
        ):
            pass
        engine = backbone.engine.model_copy(update={"served_model": "tiny"})
        with started(backbone.model_copy(update={"engine": engine}), tmp_path) as server:
            assert server.base_url == running.base_url
            assert server.api_key == "very-secret"
            assert "very-secret" not in repr(server)
            assert server.is_alive()
    assert not server.is_alive()
