"""What does not fit is said before any job: by the bill, and by the dry run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from blockwise.errors import ConfigError
from blockwise.estimate import plans
from blockwise.estimate.__main__ import estimate
from blockwise.estimate.hardware import gpu
from blockwise.estimate.plans import check_fits
from blockwise.run.pipeline import Pipeline
from compaction.doubles import CharRenderer

SMALL = Path(__file__).parent / "small.yaml"
DEVICE = gpu(80, 989, 3350)
SHORT = {"experiments": {"lengths": {"history_tokens": [300]}}}
TIGHT = {"experiments": {"end_to_end": {"tau_tokens": [1700]}}}
NARROW = {
    "backbones": {"double": {"context_window_tokens": 8700}},
    "experiments": {"strategies": None},  # refused already when the configuration is read
}


@pytest.fixture(autouse=True)
def counted_in_characters(monkeypatch, project_folder):
    monkeypatch.chdir(project_folder)
    monkeypatch.setattr(plans.Renderers, "of", lambda *_: CharRenderer())


def changed(tmp_path, values):
    """The small configuration with values of its own, as one file."""

    def merge(before, after):
        for key, value in after.items():
            is_nested = isinstance(value, dict) and key not in {"source", "model"}
            before[key] = merge(before[key], value) if is_nested else value
        return before

    whole = merge(yaml.safe_load(SMALL.read_text()), values)
    played = {name: entry for name, entry in whole["experiments"].items() if entry is not None}
    file = tmp_path / "changed.yaml"
    file.write_text(json.dumps({**whole, "experiments": played}))
    return [file]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (SHORT, r"double on rows: .*lengths: the first document of session .* is 300; raise it"),
        (TIGHT, r"end_to_end: document .* cannot follow a compaction.*raise tau_tokens"),
        (NARROW, r"a compaction request of up to \d+ tokens .* the window of 8700; lower"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_before_any_job(tmp_path, change, message):
    files = changed(tmp_path, change)
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        check_fits(Pipeline(files, {}))


def test_the_bill_names_what_does_not_fit_and_counts_on(tmp_path):
    bill = estimate(changed(tmp_path, SHORT), tmp_path, DEVICE)
    assert any("history_tokens is 300; raise it" in text for text in bill.warnings)
    assert any("cells of lengths, sequential B=None would fail" in text for text in bill.warnings)
    assert sum(line.num_cells for line in bill.lines) > 0


def test_what_fits_is_said_to_by_nobody(tmp_path, capsys):
    check_fits(Pipeline([SMALL], {}))
    assert capsys.readouterr().err == ""


def test_the_shipped_profile_of_a_night_is_warned_of_nothing(project_folder, capsys):
    names = ("config.yaml", "small.yaml")  # its data are not here: documents of usual size
    check_fits(Pipeline([project_folder / "config" / name for name in names], {}))
    assert capsys.readouterr().err == ""


def test_data_that_is_elsewhere_is_warned_of_and_not_refused(tmp_path, capsys):
    elsewhere = {"kind": "hub", "id": "a/b"}
    source = {"datasets": {"rows": {"source": elsewhere}, "chats": {"source": elsewhere}},
              "experiments": {"lengths": {"history_tokens": [300]}}}  # fmt: skip
    check_fits(Pipeline(changed(tmp_path, source), {}))
    said = capsys.readouterr().err
    assert "may not fit: double on rows" in said
    assert "dataset rows is not on this machine" in said


@pytest.mark.parametrize(
    ("format_", "file"), [("hotpotqa", "hotpotqa_dev_300.json"), ("locomo", "locomo_6.json")]
)
def test_real_documents_on_a_tokenizer_that_nobody_has_make_a_bill(
    tmp_path, monkeypatch, project_folder, shared_data, format_, file
):
    monkeypatch.undo()
    monkeypatch.chdir(project_folder)
    source = {"kind": "path", "path": str(shared_data / file)}
    sessions = {"num_sessions": 2, "target_tokens": 13000}
    values = {
        "datasets": {"rows": {"format": format_, "source": source, "sessions": sessions}},
        "backbones": {"double": {"model": {"source": "hub", "id": "nobody/has-this"}}},
    }
    bill = estimate(changed(tmp_path, values), tmp_path, DEVICE)
    assert any("four characters a token" in text for text in bill.assumptions)
    assert sum(line.num_requests for line in bill.lines) > 100


def test_the_dry_run_says_so_in_words(tmp_path, project_folder):
    names = yaml.safe_load(SMALL.read_text())["experiments"]
    experiments = {name: None for name in names if name != "lengths"}
    shorter = {"sessions": {"target_tokens": 2000}}
    (file,) = changed(
        tmp_path,
        {
            "datasets": {"rows": shorter, "chats": shorter},
            "experiments": {**experiments, "lengths": {"history_tokens": [100]}},
        },
    )
    command = [sys.executable, "-m", "snakemake", "-n", "--cores", "2", "--configfile", str(file)]
    done = subprocess.run(
        command, cwd=project_folder, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode != 0
    assert "the first document of session" in done.stderr + done.stdout
    assert "history_tokens is 100; raise it" in done.stderr + done.stdout
