"""Tests of atomic writing: a folder is the old one or complete, whoever is killed."""

import signal
import subprocess
import sys

import pytest

from blockwise.artifacts import replacing_folder
from blockwise.errors import ArtifactError

KILLED = """
import os, pathlib, signal, sys
from blockwise.artifacts import replacing_folder
with replacing_folder(pathlib.Path(sys.argv[1])) as unfinished:
    (unfinished / "weights").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_a_killed_job_left_is_removed_by_the_next(tmp_path):
    model = tmp_path / "model"
    with replacing_folder(model) as unfinished:
        (unfinished / "weights").write_text("old")
    done = subprocess.run([sys.executable, "-c", KILLED, str(model)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert (model / "weights").read_text() == "old"
    assert names(tmp_path) == [".model.unfinished", "model"]
    with replacing_folder(model) as unfinished:
        assert names(unfinished) == []
        (unfinished / "config").write_text("new")
    assert names(tmp_path) == ["model"]
    assert names(model) == ["config"]


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), ValueError("short")])
def test_a_folder_that_cannot_be_written_stays_what_it_was(tmp_path, failure):
    model = tmp_path / "deep" / "model"
    with replacing_folder(model) as unfinished:
        (unfinished / "weights").write_text("old")
    expected = rf"cannot write {model}: .*{failure.args[-1]}.*free space or mend"
    with (
        pytest.raises(ArtifactError, match=expected),
        replacing_folder(model, (OSError, ValueError)) as unfinished,
    ):
        (unfinished / "weights").write_text("new")
        raise failure
    assert names(model.parent) == ["model"]
    assert (model / "weights").read_text() == "old"
