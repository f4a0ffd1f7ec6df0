"""Files dated ahead: which are pulled back, to when, and in which order they stay."""

import os
import time

from blockwise.file_times import pull_back

DAY_NS = 24 * 3600 * 10**9


def dated(path, time_ns):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("content")
    os.utime(path, ns=(time_ns, time_ns))
    return path


def test_what_is_dated_ahead_keeps_its_order_and_its_content(tmp_path):
    now_ns = time.time_ns()
    clock = tmp_path / "config.json"
    early = dated(tmp_path / "results/early", now_ns - DAY_NS)
    later = dated(tmp_path / "results/deep/later", now_ns + 2 * DAY_NS)
    ahead = [dated(tmp_path / "figures" / name, now_ns + DAY_NS) for name in ("a", "b")]
    pulled = pull_back(clock, tmp_path / "results", tmp_path / "figures", tmp_path / "none")
    assert sorted(pulled) == sorted([later, *ahead])
    times = [path.stat().st_mtime_ns for path in (early, *ahead, later, clock)]
    assert times[0] == now_ns - DAY_NS
    assert times[1] == times[2] < times[3] == times[4] < now_ns + DAY_NS
    assert later.read_text() == "content"
    assert pull_back(clock, tmp_path / "results", tmp_path / "figures") == []
