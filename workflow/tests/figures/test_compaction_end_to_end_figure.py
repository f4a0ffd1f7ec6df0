import colorsys
import itertools
import subprocess
import sys

import matplotlib as mpl
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from blockwise.artifacts import write_bytes
from blockwise.errors import ArtifactError
from blockwise.figures import compaction_end_to_end as figure_module
from blockwise.figures import style
from blockwise.figures.compaction_end_to_end import draw, plotted
from blockwise.figures.registry import FIGURES, load_figure
from blockwise.figures.write import write_figure
from blockwise.tables.columns import csv_bytes, frame
from blockwise.tables.compaction_end_to_end import COLUMNS

LONG_NAME = "meta-llama-3.3-70b-instruct-with-a-name-as-long-as-config-allows"


def row(arm="target_block", block_size_tokens=512, wall_s=8.0, num_timing_blocks=3, **changes):
    """A row of the table; statistics spread by 10% around their mean."""
    values = dict.fromkeys(column.name for column in COLUMNS)
    values.update(
        experiment="end_to_end",
        backbone="timing-8m",
        dataset="hotpotqa",
        caption="pocket-scale, random weights: timing only",
        arm=arm,
        block_size_tokens=block_size_tokens,
        tau_tokens=4096,
        volume_mode="forced",
        volume_tokens=512,
        num_timing_blocks=num_timing_blocks,
        num_invalid_cells=0,
        num_unequal_volume_timing_blocks=0,
    )
    means = {"wall": wall_s, "ttft_after_compaction": 0.3, "total": 20_000}
    if arm == "sequential":
        values["speedup_omitted_reason"] = "the reference arm"
    else:
        means["speedup"] = 12 / wall_s
    for panel in figure_module.PANELS:
        mean = means.get(panel.measure) if num_timing_blocks else None
        values[f"{panel.measure}_num_clusters"] = num_timing_blocks if mean else 0
        if mean is None:
            continue
        names = ("mean", "min", "max", *(("low", "high") if num_timing_blocks >= 6 else ()))
        for statistic in names:
            factor = {"mean": 1.0, "min": 0.9, "low": 0.95, "max": 1.1, "high": 1.05}[statistic]
            values[f"{panel.measure}_{statistic}{panel.suffix}"] = mean * factor
    return {**values, **changes}


def arms(block_sizes_tokens=(512, 1024, 2048), layouts=("target_block",), **changes):
    rows = [row("sequential", None, wall_s=12.0, **changes)]
    for place, layout in enumerate(layouts):
        rows += [row(layout, size, 7.0 + place, **changes) for size in block_sizes_tokens]
    return rows


def table_of(*rows):
    return frame(rows, COLUMNS)


def several(num_backbones, num_datasets, **changes):
    pairs = itertools.product(range(num_backbones), range(num_datasets))
    return table_of(
        *(
            line
            for backbone, dataset in pairs
            for line in arms(backbone=f"model-{backbone}", dataset=f"data-{dataset}", **changes)
        )
    )


SHAPES = {
    "one timing block": table_of(*arms(num_timing_blocks=1)),
    "eight timing blocks": table_of(*arms(num_timing_blocks=8)),
    "two backbones and datasets": several(2, 2),
    "no sequential arm": table_of(*arms()[1:]),
    "sequential alone": table_of(*arms()[:1]),
    "three layouts": table_of(*arms(layouts=("target_block", "suffix_target", "made_up"))),
    "long names": several(3, 2, caption="", experiment=LONG_NAME),
    "long backbone": table_of(*arms(backbone=LONG_NAME, dataset=LONG_NAME, num_invalid_cells=2)),
    "nothing valid": table_of(*arms(num_timing_blocks=0, num_invalid_cells=3)),
    "two experiments": table_of(*arms(), *arms(experiment="other", tau_tokens=8192)),
}


def texts_of(figure):
    return " ".join(" ".join(text.get_text().split()) for text in shown_texts(figure))


def shown_texts(figure):
    """Every text that a reader sees: no hidden panel, no tick label beyond the axis."""
    hidden = set()
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in axis.get_major_ticks():
                if not (ax.get_visible() and low <= tick.get_loc() <= high):
                    hidden |= {tick.label1, tick.label2}
        if not ax.get_visible():
            hidden |= set(ax.findobj(Text))
    return [
        text
        for text in figure.findobj(Text)
        if text.get_visible() and text.get_text().strip() and text not in hidden
    ]


def shown_boxes(figure):
    with style.drawing():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()  # lays the figure out
    renderer = canvas.get_renderer()
    return [(text.get_text(), text.get_window_extent(renderer)) for text in shown_texts(figure)]


@pytest.mark.parametrize("name", SHAPES)
def test_no_label_overlaps_another_or_leaves_the_figure(name):
    figure = draw(SHAPES[name])
    boxes = shown_boxes(figure)
    assert len(boxes) > 8
    for (text, box), (other, other_box) in itertools.combinations(boxes, 2):
        apart = (
            box.x1 <= other_box.x0 + 1
            or other_box.x1 <= box.x0 + 1
            or box.y1 <= other_box.y0 + 1
            or other_box.y1 <= box.y0 + 1
        )
        assert apart, (text, other)
    page = figure.bbox
    for text, box in boxes:
        assert box.x0 >= page.x0 - 1, text
        assert box.x1 <= page.x1 + 1, text
        assert box.y0 >= page.y0 - 1, text
        assert box.y1 <= page.y1 + 1, text


@pytest.mark.parametrize("name", SHAPES)
def test_text_is_legible_at_the_width_it_is_made_for(name):
    figure = draw(SHAPES[name])
    assert figure.get_figwidth() in (style.COLUMN_WIDTH_IN, style.TEXT_WIDTH_IN)
    assert all(text.get_fontsize() >= 7 for text in shown_texts(figure))


def test_scale_n_and_settings_are_said_in_the_figure():
    words = texts_of(draw(SHAPES["eight timing blocks"]))
    assert "pocket-scale, random weights: timing only." in words
    assert "n = 8" in words
    assert "tau = 4,096 tokens; decode volume of a compaction: forced at 512 tokens." in words
    assert "Capped bars: 95% interval." in words
    assert "Plain bars" not in words


def test_a_range_is_not_called_an_interval():
    words = texts_of(draw(table_of(*arms(num_timing_blocks=5))))
    assert "Plain bars: minimum to maximum." in words
    assert "interval" not in words


def test_left_out_cells_are_said():
    words = texts_of(draw(SHAPES["nothing valid"]))
    assert "n = 0, 12 invalid" in words
    assert "no valid timing block" in words


def test_timing_blocks_left_out_of_the_speedup_are_said():
    assert "unequal" not in texts_of(draw(table_of(*arms())))
    words = texts_of(draw(table_of(*arms(num_unequal_volume_timing_blocks=1))))
    assert "Speed-up: timing blocks of unequal compaction volume left out." in words


def test_a_missing_speedup_says_why():
    rows = arms()
    for line in rows:
        line.update({name: None for name in line if name.startswith("speedup_")})
        line["speedup_omitted_reason"] = "free-running sessions do different work"
    assert "free-running sessions do different work" in texts_of(draw(table_of(*rows)))


def test_an_empty_table_gives_a_figure_that_says_so():
    assert texts_of(draw(table_of())) == "no valid timing block"
    assert plotted(table_of()).empty


def test_plotted_values_are_the_drawn_ones():
    table = SHAPES["eight timing blocks"]
    marks = plotted(table)
    assert len(marks) == len(table) * len(figure_module.PANELS)
    drawn = {
        float(value)
        for ax in draw(table).axes
        for line in ax.lines
        if line.get_marker() not in ("None", "", "_")
        for value in line.get_ydata()
    }
    assert {float(value) for value in marks["value"].dropna()} <= drawn
    wall = marks[(marks.measure == "wall") & (marks.arm == "sequential")].iloc[0]
    assert (wall.value, wall.low, wall.high) == (12.0, pytest.approx(11.4), pytest.approx(12.6))


def test_block_sizes_run_from_sequential_to_many_workers():
    figure = draw(SHAPES["one timing block"])
    labels = [label.get_text() for label in figure.axes[3].get_xticklabels()]
    assert labels == ["seq.", "2k", "1k", "512"]


def test_block_sizes_that_round_alike_are_written_out():
    figure = draw(table_of(*arms(block_sizes_tokens=(2000, 2048))))
    labels = [label.get_text() for label in figure.axes[3].get_xticklabels()]
    assert labels == ["seq.", "2048", "2000"]


def test_arms_differ_by_marker_line_and_colour_and_in_grey():
    looks = [style.look_of_arm(arm) for arm in (*style.ARMS, "a new layout")]
    for facet in ("color", "marker", "linestyle"):
        assert len({getattr(look, facet) for look in looks}) == len(looks)
    sequential, target_block, *_ = [to_rgb(look.color) for look in looks]
    grey = [colorsys.rgb_to_yiq(*color)[0] for color in (sequential, target_block)]
    assert abs(grey[0] - grey[1]) > 0.25


def write_table(folder, table):
    write_bytes(folder / "compaction_end_to_end.csv", csv_bytes(table))


def test_a_rerun_is_byte_identical(tmp_path):
    write_table(tmp_path / "tables", several(1, 2))
    for folder in ("first", "second"):
        if folder == "first":
            write_figure("compaction_end_to_end", tmp_path / "tables", tmp_path / folder)
        else:  # another process, with another hash seed
            command = [sys.executable, "-m", "blockwise.figures.write"]
            command += ["--figure", "compaction_end_to_end", "--tables", str(tmp_path / "tables")]
            subprocess.run([*command, "--output-dir", str(tmp_path / folder)], check=True)
    names = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert names == [f"compaction_end_to_end.{suffix}" for suffix in ("csv", "pdf", "png")]
    for name in names:
        first, second = tmp_path / "first" / name, tmp_path / "second" / name
        assert first.read_bytes() == second.read_bytes()


def test_the_readers_own_settings_change_nothing():
    table = SHAPES["one timing block"]
    before = style.png_bytes(draw(table))
    with mpl.rc_context({"font.size": 20.0, "axes.facecolor": "red"}):
        assert style.png_bytes(draw(table)) == before


def test_names_that_look_like_something_else_stay_names(tmp_path):
    write_table(tmp_path, table_of(*arms(backbone="nan", dataset="007")))
    write_figure("compaction_end_to_end", tmp_path, tmp_path / "figures")
    marks = pd.read_csv(
        tmp_path / "figures" / "compaction_end_to_end.csv",
        dtype={"backbone": str, "dataset": str},
        keep_default_na=False,
    )
    assert (set(marks.backbone), set(marks.dataset)) == ({"nan"}, {"007"})


def test_every_registered_figure_offers_what_the_writer_calls():
    assert "compaction_end_to_end" in FIGURES
    for name in FIGURES:
        module = load_figure(name)
        assert all(hasattr(module, part) for part in ("TABLE", "plotted", "draw"))


def test_unknown_figures_and_bad_tables_are_refused(tmp_path):
    with pytest.raises(ArtifactError, match="no figure is called 'absent'"):
        write_figure("absent", tmp_path, tmp_path)
    with pytest.raises(ArtifactError, match="cannot read table"):
        write_figure("compaction_end_to_end", tmp_path, tmp_path)
    write_bytes(tmp_path / "compaction_end_to_end.csv", b"experiment,arm\na,b\n")
    with pytest.raises(ArtifactError, match="lacks the column"):
        write_figure("compaction_end_to_end", tmp_path, tmp_path)
