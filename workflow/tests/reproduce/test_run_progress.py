"""What a run shows: events of Snakemake, words of jobs, the whole, and failures."""

import io
import logging

import pytest
from rich.console import Console

from blockwise.estimate.bill import BYSTANDERS, Line
from blockwise.reproduce import run_progress
from blockwise.reproduce.run_progress import RunProgress, failure_words
from blockwise.reproduce.run_work import RunWork
from blockwise.run.run_events import EventKind, RunEvent, decode, encode


def record(message="", level=logging.INFO, **values):
    made = logging.LogRecord("snakemake", level, "", 0, message, None, None)
    vars(made).update(values)
    return made


@pytest.mark.parametrize(
    ("made", "event"),
    [
        (record(event="run_info", stats={"total": 7}), RunEvent(EventKind.PLANNED, num_jobs=7)),
        (
            record(event="job_info", jobid=3, rule_name="r", wildcards={"x": "y"}, log=["a.log"]),
            RunEvent(EventKind.DESCRIBED, 3, "r", {"x": "y"}, ("a.log",)),
        ),
        (record(event="job_finished", job_id=3), RunEvent(EventKind.FINISHED, 3)),
        (
            record(event="job_error", jobid=3, log=["a.log"]),
            RunEvent(EventKind.FAILED, 3, logs=("a.log",)),
        ),
        (record("no such rule", logging.ERROR), RunEvent(EventKind.REFUSED, text="no such rule")),
        (record("Building DAG of jobs..."), None),
        (record(event="shellcmd", cmd="true"), None),
    ],
)
def test_events_survive_their_line(made, event):
    line = encode(made)
    assert (None if line is None else decode(line)) == event


def test_words_of_jobs_are_no_events():
    assert decode("mxfp4_ladder: 3/10 steps, 5 tokens/s, 3 s") is None


BATCH = {"backbone": "b", "dataset": "d"}
LINES = [
    Line(stage="timing", experiment="x", num_cells=4, wall_h=0.1, **BATCH),
    Line(stage="servers", experiment="", num_jobs=1, wall_h=0.1, **BATCH),
    Line(stage=BYSTANDERS, experiment="x", wall_h=9.0, **BATCH),
    Line(stage="training", backbone="mxfp4", dataset="", experiment="t", num_cells=7, wall_h=0.2),
]


def job(kind, rule="run_compaction", number=1, **wildcards):
    return RunEvent(kind, number, rule, wildcards or BATCH)


def test_lines_of_jobs_move_the_work_on(tmp_path):
    work = RunWork(LINES, tmp_path)
    assert (work.seconds, work.done_s, work.cells) == (pytest.approx(1440), 0, (0, 4))
    work.hear("b on d: 1/4 cells, 9 tokens/s, 3 s")
    work.hear("t: 5/10 steps, 9 tokens/s, W: loss 2.0, 3 s, about 3 s left")
    work.hear("starting vLLM for b: 10 s, log: logs/servers/b/d.log")
    assert work.cells == (1, 4)
    assert work.done_s == pytest.approx(720 / 4 + 720 / 2)
    assert work.left_s(elapsed_s=1080) == pytest.approx(900 * 2)  # half as fast as estimated
    work.finish(job(EventKind.DESCRIBED))
    assert work.cells == (4, 4)


def test_parts_of_a_batch_add_up(tmp_path):
    work = RunWork(LINES, tmp_path)
    for part in ("recall-1of2", "recall-2of2"):
        event = job(EventKind.DESCRIBED, "run_compaction_part", part=part, **BATCH)
        work.begin(event)
        work.hear("b on d: 2/2 cells, 9 tokens/s, 3 s")
        work.finish(event)
    assert work.cells == (4, 4)


def test_what_an_earlier_run_finished_is_done_until_it_is_played_again(tmp_path):
    (tmp_path / "compaction/b").mkdir(parents=True)
    (tmp_path / "compaction/b/d.json").write_text("{}")
    work = RunWork(LINES, tmp_path)
    assert work.cells == (4, 4)
    assert work.left_s(elapsed_s=10) == pytest.approx(720)  # none of it is this run's own pace
    work.begin(job(EventKind.DESCRIBED))
    assert work.cells == (0, 4)


def test_a_log_gets_the_words_of_jobs_and_the_whole_between_them(monkeypatch, tmp_path):
    monkeypatch.setattr(run_progress, "PLAIN_INTERVAL_S", 0.0)
    said = io.StringIO()
    with RunProgress("reproduce x", Console(file=said), RunWork(LINES, tmp_path)) as progress:
        progress.see(RunEvent(EventKind.PLANNED, num_jobs=2))
        progress.see(job(EventKind.DESCRIBED))
        progress.hear("b on d: 1/4 cells, 9 tokens/s, 3 s")
        progress.see(RunEvent(EventKind.FINISHED, 1))
    lines = said.getvalue().splitlines()
    assert "b on d: 1/4 cells, 9 tokens/s, 3 s" in lines
    assert lines[-1].startswith("reproduce x: job 1/2, 4/4 cells, about ")
    assert "\x1b" not in said.getvalue()


def test_a_terminal_gets_one_bar(tmp_path):
    said = io.StringIO()
    console = Console(file=said, force_terminal=True, width=150)
    with RunProgress("reproduce x", console, RunWork(LINES, tmp_path)) as progress:
        progress.see(RunEvent(EventKind.PLANNED, num_jobs=2))
        progress.hear("b on d: 1/4 cells, 9 tokens/s, 3 s")
    assert "job 0/2, 1/4 cells, about" in said.getvalue()
    assert "b on d: 1/4 cells, 9 tokens/s, 3 s" in said.getvalue()


def test_a_failure_names_the_job_its_last_error_and_its_log(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.log").write_text("b on d: 0/4 cells\nerror: the server died. Free memory\n")
    event = RunEvent(EventKind.FAILED, 1, "run_compaction", BATCH, ("job.log", "server.log"))
    assert failure_words(event) == (
        "run_compaction (b, d) failed: the server died. Free memory\n    its log: job.log"
    )
    assert "Snakemake's log in .snakemake/log" in failure_words(RunEvent(EventKind.FAILED, 1, "r"))
