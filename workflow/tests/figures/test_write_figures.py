import colorsys
import subprocess
import sys

import matplotlib as mpl
import pandas as pd
import pytest
from made_up_tables import end_to_end, many
from matplotlib.colors import to_rgb

from blockwise.artifacts import write_bytes
from blockwise.errors import ArtifactError
from blockwise.figures import style
from blockwise.figures.compaction.compaction_end_to_end import draw
from blockwise.figures.registry import FIGURES, load_figure, table_of
from blockwise.figures.write import write_figure
from blockwise.tables.columns import csv_bytes
from blockwise.tables.registry import TABLES

NAME = "compaction_end_to_end"


def write_table(folder, table):
    write_bytes(folder / f"{NAME}.csv", csv_bytes(table))


def test_a_rerun_is_byte_identical(tmp_path):
    write_table(tmp_path / "tables", many(end_to_end, 1, 2))
    for folder in ("first", "second"):
        if folder == "first":
            write_figure(NAME, tmp_path / "tables", tmp_path / folder)
        else:  # another process, with another hash seed
            command = [sys.executable, "-m", "blockwise.figures.write", "--figure", NAME]
            command += ["--tables", str(tmp_path / "tables")]
            subprocess.run([*command, "--output-dir", str(tmp_path / folder)], check=True)
    names = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert names == [f"{NAME}.{suffix}" for suffix in ("csv", "pdf", "png")]
    for name in names:
        first, second = tmp_path / "first" / name, tmp_path / "second" / name
        assert first.read_bytes() == second.read_bytes()


def test_the_readers_own_settings_change_nothing():
    table = end_to_end(num=1)
    before = style.png_bytes(draw(table))
    with mpl.rc_context({"font.size": 20.0, "axes.facecolor": "red"}):
        assert style.png_bytes(draw(table)) == before


def test_names_that_look_like_something_else_stay_names(tmp_path):
    write_table(tmp_path, end_to_end(backbone="nan", dataset="007", prompt="1e3", note="true"))
    write_figure(NAME, tmp_path, tmp_path / "figures")
    names = ["backbone", "dataset", "prompt", "note"]
    written = tmp_path / "figures" / f"{NAME}.csv"
    marks = pd.read_csv(written, dtype=dict.fromkeys(names, str), keep_default_na=False)
    assert [set(marks[name]) for name in names] == [{"nan"}, {"007"}, {"1e3"}, {"true"}]


def test_every_registered_figure_offers_what_the_writer_calls():
    assert NAME in FIGURES
    for name in FIGURES:
        module = load_figure(name)
        assert module.TABLE in TABLES
        assert all(hasattr(module, part) for part in ("plotted", "draw"))


def test_unknown_figures_and_bad_tables_are_refused(tmp_path):
    with pytest.raises(ArtifactError, match="no figure is called 'absent'"):
        write_figure("absent", tmp_path, tmp_path)
    with pytest.raises(ArtifactError, match="cannot read table"):
        write_figure(NAME, tmp_path, tmp_path)
    write_bytes(tmp_path / f"{NAME}.csv", b"experiment,arm\na,b\n")
    with pytest.raises(ArtifactError, match="lacks the column"):
        write_figure(NAME, tmp_path, tmp_path)


def test_arms_differ_by_marker_line_and_colour_and_in_grey():
    looks = [style.look_of_arm(arm) for arm in (*style.ARMS, "a new layout")]
    for facet in ("color", "marker", "linestyle"):
        assert len({getattr(look, facet) for look in looks}) == len(looks)
    sequential, target_block, *_ = [to_rgb(look.color) for look in looks]
    grey = [colorsys.rgb_to_yiq(*color)[0] for color in (sequential, target_block)]
    assert abs(grey[0] - grey[1]) > 0.25


def test_levels_differ_by_line_and_sizes_by_marks():
    assert len({look.linestyle for look in style.LEVELS.values()}) == len(style.LEVELS)
    assert [style.marker_size_pt(rank, 3) for rank in range(3)] == sorted(
        {style.marker_size_pt(rank, 3) for rank in range(3)}
    )


@pytest.mark.parametrize("name", FIGURES)
def test_the_workflow_knows_the_table_of_every_figure(name):
    assert table_of(name) == load_figure(name).TABLE
