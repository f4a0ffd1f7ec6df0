import pytest
from drawn import assert_labels_are_apart, drawn_points, shown_texts, texts_of, tick_labels
from made_up_tables import end_to_end, many, table_of

from blockwise.figures import style
from blockwise.figures.compaction.compaction_end_to_end import PANELS, draw, plotted

LONG_NAME = "meta-llama-3.3-70b-instruct-with-a-name-as-long-as-config-allows"
THREE_LAYOUTS = ("target_block", "suffix_target", "made_up")
SHAPES = {
    "one timing block": end_to_end(num=1),
    "many timing blocks of six starts": end_to_end(num=6, num_timing_blocks=120),
    "eight timing blocks": end_to_end(num=8),
    "two backbones and datasets": many(end_to_end, 2, 2),
    "no sequential arm": end_to_end().iloc[1:],
    "sequential alone": end_to_end().iloc[:1],
    "three layouts": end_to_end(layouts=THREE_LAYOUTS),
    "long names": many(end_to_end, 3, 1, caption="", experiment=LONG_NAME),
    "long backbone": end_to_end(backbone=LONG_NAME, dataset=LONG_NAME, num_invalid_cells=2),
    "nothing valid": end_to_end(num=0),
    "two experiments": many(end_to_end, 1, 1, other={"experiment": "other", "tau_tokens": 8192}),
}


@pytest.mark.parametrize("name", SHAPES)
def test_labels_are_apart_and_legible_at_the_width_of_the_figure(name):
    figure = draw(SHAPES[name])
    assert figure.get_figwidth() in (style.COLUMN_WIDTH_IN, style.TEXT_WIDTH_IN)
    texts = shown_texts(figure)
    assert len(texts) > 8
    assert all(text.get_fontsize() >= 7 for text in texts)
    assert_labels_are_apart(figure)


def test_scale_n_and_settings_are_said_in_the_figure():
    words = texts_of(draw(SHAPES["eight timing blocks"]))
    assert "pocket-scale, random weights: timing only." in words
    assert "n = 8, on 8 server starts" in words
    assert "Fewer than 6" not in words
    assert "tau = 4,096 tokens; decode volume of a compaction: forced at 512 tokens." in words
    assert "Capped bars: 95% interval." in words
    assert "Plain bars" not in words


def test_settings_that_differ_are_said_for_each_experiment():
    words = texts_of(draw(SHAPES["two experiments"]))
    assert "made_up: tau = 4,096 tokens" in words
    assert "other: tau = 8,192 tokens" in words


def test_a_range_is_not_called_an_interval():
    words = texts_of(draw(end_to_end(num=5)))
    assert "Plain bars: minimum to maximum." in words
    assert "Fewer than 6 server starts: times have no interval" in words
    assert "Capped" not in words


def test_left_out_cells_are_said():
    words = texts_of(draw(SHAPES["nothing valid"]))
    assert "n = 0, 12 invalid" in words
    assert "no valid timing block" in words


def test_timing_blocks_left_out_of_the_speedup_are_said():
    assert "unequal" not in texts_of(draw(end_to_end()))
    words = texts_of(draw(end_to_end(num_unequal_volume_timing_blocks=1)))
    assert "Ratios: timing blocks of unequal compaction volume left out." in words


def test_a_missing_speedup_says_why():
    table = end_to_end(speedup_omitted_reason="free-running sessions do different work")
    table["speedup_mean"] = None
    assert "free-running sessions do different work" in texts_of(draw(table))


def test_plotted_values_keep_their_bars():
    marks = plotted(SHAPES["eight timing blocks"])
    assert len(marks) == len(SHAPES["eight timing blocks"]) * len(PANELS)
    wall = marks[(marks.measure == "wall") & (marks.arm == "sequential")].iloc[0]
    assert (wall.value, wall.low, wall.high) == (12.0, pytest.approx(11.4), pytest.approx(12.6))


def test_the_level_of_sequential_is_drawn_through_amounts_and_one_through_ratios():
    figure = draw(end_to_end())
    _, levels = drawn_points(figure)
    assert {12.0, 1.0} <= levels


def test_block_sizes_run_from_sequential_to_many_workers():
    assert tick_labels(draw(SHAPES["one timing block"]).axes[3]) == ["seq.", "2k", "1k", "512"]


def test_block_sizes_that_round_alike_are_written_out():
    figure = draw(end_to_end(sizes=(2000, 2048)))
    assert tick_labels(figure.axes[3]) == ["seq.", "2048", "2000"]


def test_an_empty_table_gives_a_figure_that_says_so():
    empty = table_of("compaction_end_to_end", [])
    assert texts_of(draw(empty)) == "no valid timing block"
    assert plotted(empty).empty
