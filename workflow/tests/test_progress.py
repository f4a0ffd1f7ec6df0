"""Progress: what a log says of work and of downloads, and what a terminal shows."""

import pytest

from blockwise import progress
from blockwise.progress import DownloadProgress, WorkProgress


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only where a test says so; the bar's own clock is another."""

    class Clock:
        now_s = 100.0

        def monotonic(self) -> float:
            return self.now_s

    stopped = Clock()
    monkeypatch.setattr(progress, "time", stopped)
    return stopped


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")


def test_a_log_has_a_line_every_ten_seconds_and_one_at_the_end(clock, capsys):
    with WorkProgress("batch", total=6, done=2) as work:
        for _ in range(3):
            clock.now_s += 6
            work.advance(600)
        clock.now_s += 2
    assert capsys.readouterr().err.splitlines() == [
        "batch: 4/6 cells, 100 tokens/s, 12 s, about 12 s left",
        "batch: 5/6 cells, 90 tokens/s, 20 s",
    ]


def test_a_line_says_the_state_and_the_unit_that_it_was_given(clock, capsys):
    with WorkProgress("arm", total=4, unit="steps") as work:
        clock.now_s += 10
        work.advance(50, pieces=4, state="loss 2.5")
        capsys.readouterr()
    assert capsys.readouterr().err == "arm: 4/4 steps, 5 tokens/s, loss 2.5, 10 s\n"


@pytest.mark.parametrize(("total", "said"), [(4_000_000, "1.5 of 4.0 MB"), (None, "1.5 MB")])
def test_a_download_counts_bytes_and_says_the_total_where_it_is_known(capsys, total, said):
    with DownloadProgress("https://host/a[1].json", total) as download:
        download.advance(1_000_000)
        download.advance(500_000)
    assert download.num_bytes == 1_500_000
    assert capsys.readouterr().err == f"fetching https://host/a[1].json: {said}\n"


def test_work_that_fails_says_how_far_it_came(capsys):
    with pytest.raises(OSError, match="full"), DownloadProgress("here", 10**6) as download:
        download.advance(200_000)
        raise OSError("full")
    assert capsys.readouterr().err == "fetching here: 0.2 of 1.0 MB\n"


def test_a_terminal_gets_the_bar_alone_with_its_title_as_it_is(terminal, capsys):
    with DownloadProgress("https://host/a[1].json", 4_000_000) as download:
        download.advance(4_000_000)
    with WorkProgress("[batch]", total=1) as work:
        work.say("[cell] is done")
        work.advance(10)
    shown = capsys.readouterr().err
    assert "fetching https://host/a[1].json" in shown
    assert "4.0/4.0 MB" in shown
    assert "[batch]" in shown
    assert "[cell] is done" in shown
    assert "[batch]:" not in shown  # the line of a log
