"""Files dated ahead: which are pulled back, to when, and in which order they stay."""

import os
import time

from blockwise.run.file_times import pull_back

DAY_NS = 24 * 3600 * 10**9


def dated(path, time_ns):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("content")
    os.utime(path, ns=(time_ns, time_ns))
    return path


def test_what_is_dated_ahead_keeps_its_order_and_its_content(tmp_path):
    now_ns = time.time_ns()
    early = dated(tmp_path / "results/early", now_ns - DAY_NS)
    later = dated(tmp_path / "results/deep/later", now_ns + 2 * DAY_NS)
    ahead = [dated(tmp_path / "figures" / name, now_ns + DAY_NS) for name in ("a", "b")]
    folders = [tmp_path / name for name in ("results", "figures", "none")]
    pulled = pull_back(now_ns, *folders)
    assert sorted(pulled) == sorted([later, *ahead])
    times = [path.stat().st_mtime_ns for path in (early, *ahead, later)]
    assert times[0] == now_ns - DAY_NS
    assert times[1] == times[2] < times[3] == now_ns
    assert later.read_text() == "content"
    assert pull_back(now_ns, *folders) == []


def test_what_a_link_points_to_is_left_alone(tmp_path):
    now_ns = time.time_ns()
    mine = dated(tmp_path / "elsewhere/mine", now_ns + DAY_NS)
    (tmp_path / "results").mkdir()
    (tmp_path / "results/link").symlink_to(mine)
    assert pull_back(now_ns, tmp_path / "results") == []
    assert mine.stat().st_mtime_ns == now_ns + DAY_NS
