"""What all figures of the compaction study have in common, and what is special to each."""

import pandas as pd
import pytest
from drawn import assert_labels_are_apart, drawn_points, texts_of, tick_labels
from made_up_tables import (
    MADE_UP,
    accuracy_volume,
    block_prompts,
    blocking_share,
    layouts,
    length_invariance,
    many,
    matched_volume,
    stability,
    table_of,
    under_load,
    volume_control,
)

from blockwise.figures import style
from blockwise.figures.registry import figures_of, load_figure
from blockwise.figures.write import read_table
from blockwise.tables.registry import Family

LONG_NAME = "meta-llama-3.3-70b-instruct-with-a-name-as-long-as-config-allows"


@pytest.fixture(autouse=True)
def _coarse(monkeypatch):
    """Bytes of a small picture tell as much as those of a large one."""
    monkeypatch.setattr(style, "PNG_DPI", 50)


def draw(name, table):
    return load_figure(name).draw(table)


def test_every_figure_is_tested_here():
    assert set(MADE_UP) == set(figures_of(Family.COMPACTION))


@pytest.mark.parametrize("name", MADE_UP)
def test_every_plotted_value_is_drawn_and_stands_in_the_table(name):
    table = MADE_UP[name]()
    marks = load_figure(name).plotted(table)
    points, levels = drawn_points(draw(name, table))
    heights = {y for _, y in points}
    is_level = marks["level"].notna()
    assert set(marks.loc[~is_level, "value"].dropna()) <= heights
    assert set(marks.loc[is_level, "value"].dropna()) <= levels
    numbers = table.select_dtypes("number").astype("float64")
    shown = marks.loc[marks["level"] != "in proportion", ["value", "low", "high", "beyond"]]
    assert set(shown.stack().dropna()) <= set(numbers.stack().dropna())


@pytest.mark.parametrize("name", MADE_UP)
def test_an_empty_table_gives_a_figure_that_says_so(name):
    empty = table_of(load_figure(name).TABLE, [])
    assert texts_of(draw(name, empty)).startswith("no ")
    assert load_figure(name).plotted(empty).empty


@pytest.mark.parametrize("name", MADE_UP)
def test_panels_without_a_mark_say_why(name):
    figure = draw(name, MADE_UP[name](num=0))
    assert "n = 0" in texts_of(figure)
    for ax in figure.axes:
        has_mark = any(line.get_marker() not in ("None", "", "_") for line in ax.lines)
        assert has_mark or ax.texts or not ax.get_visible(), ax.get_ylabel()


@pytest.mark.parametrize("name", MADE_UP)
def test_two_draws_give_the_same_bytes_and_the_caption_is_shown(name):
    table = MADE_UP[name]()
    figure = draw(name, table)
    assert "pocket-scale, random weights: timing only." in texts_of(figure)
    assert style.png_bytes(figure) == style.png_bytes(draw(name, table))


@pytest.mark.parametrize("name", MADE_UP)
def test_labels_of_long_names_are_apart(name):
    table = many(MADE_UP[name], 1, 1, backbone=LONG_NAME, other={"experiment": LONG_NAME})
    figure = draw(name, table)
    assert figure.get_figwidth() in (style.COLUMN_WIDTH_IN, style.TEXT_WIDTH_IN)
    assert_labels_are_apart(figure)


@pytest.mark.parametrize(
    "name",
    ["compaction_stability", "compaction_accuracy_volume"],
    ids=["arms side by side", "along tokens"],
)
def test_labels_of_eight_backbones_and_two_datasets_are_apart(name):
    assert_labels_are_apart(draw(name, many(MADE_UP[name], 8, 2)))


@pytest.mark.parametrize("name", figures_of(Family.COMPACTION))
def test_labels_of_the_committed_figures_are_apart(name, project_folder):
    table_name = load_figure(name).TABLE
    table = read_table(project_folder / f"results/reference/{table_name}.csv", table_name)
    assert_labels_are_apart(draw(name, table))


def test_a_larger_share_is_drawn_for_a_smaller_tau():
    points, _ = drawn_points(draw("compaction_blocking_share", blocking_share(sizes=(512,))))
    shares = sorted(point for point in points if point[1] < 1)
    assert [share for _, share in shares] == sorted((y for _, y in shares), reverse=True)


def test_marks_at_one_tau_stand_beside_each_other():
    figure = draw("compaction_blocking_share", blocking_share(taus=(3072,), sizes=(512, 1024)))
    share, *_ = figure.axes
    places = {float(x) for line in share.lines for x in line.get_xdata()}
    assert len(places) == 3
    assert all(abs(place / 3072 - 1) < 0.1 for place in places)


def test_block_sizes_are_told_by_the_size_of_marks_where_the_axis_has_something_else():
    words = texts_of(draw("compaction_blocking_share", blocking_share()))
    assert "size: B = 512 tokens" in words
    assert "size: B =" not in texts_of(draw("compaction_layouts", layouts()))


def test_matched_volume_says_why_it_is_empty_or_how_equal_it_is():
    words = texts_of(draw("compaction_matched_volume", matched_volume()))
    assert words.count("random weights: only forced equal volume is compared") == 4
    words = texts_of(draw("compaction_matched_volume", matched_volume(num_matched=3)))
    assert "there its volume is +4% off sequential's." in words


def test_layouts_name_the_workers_below_the_block_sizes():
    figure = draw("compaction_layouts", layouts())
    assert tick_labels(figure.axes[-1]) == ["seq.\n1", "1k\n4", "512\n8"]


def test_layouts_without_recall_show_their_costs_alone():
    costs, both = (draw("compaction_layouts", layouts(recall=known)) for known in (False, True))
    assert "recall" not in texts_of(costs)
    assert "recall (F1)" in texts_of(both)
    assert len(both.axes) == len(costs.axes) + 2 * len(costs.axes) // 4


def test_a_layout_without_recall_beside_one_that_has_it_says_so_in_its_panel():
    known, unknown = layouts(recall=True), layouts(recall=False).assign(backbone="another")
    words = texts_of(draw("compaction_layouts", pd.concat([known, unknown])))
    assert "no recall cell of this layout" in words


def test_latencies_reach_the_95th_percentile_or_the_maximum_of_few_requests():
    many_requests = load_figure("compaction_under_load").plotted(under_load(num_requests=120))
    first = many_requests[many_requests["measure"] == "ttft"].iloc[0]
    assert first["bar"] == "median to 95th percentile"
    assert (first["high"], first["beyond"]) == pytest.approx((0.05 * 1.8, 0.05 * 2.2))
    few = load_figure("compaction_under_load").plotted(under_load(num_requests=10))
    first = few[few["measure"] == "ttft"].iloc[0]
    assert first["bar"] == "median to maximum"
    assert first["high"] == pytest.approx(0.05 * 2.5)
    assert pd.isna(first["beyond"])


def test_load_has_a_row_of_arms_for_each_number_of_bystanders():
    figure = draw("compaction_under_load", under_load(num_bystanders=(1, 6)))
    lowest = figure.axes[-1]
    assert tick_labels(lowest, "minor") == ["1 bystander", "6 bystanders"]
    assert tick_labels(lowest)[:3] == ["seq.\n1", "512\n6", "512\nby 2\n6"]


def test_a_summary_in_proportion_starts_at_the_shortest_history():
    marks = load_figure("compaction_length_invariance").plotted(length_invariance())
    line = marks[(marks["level"] == "in proportion") & (marks["measure"] == "output")]
    first, last = line["value"]
    lengths = line["input_mean_tokens"].astype(float)
    assert last / first == pytest.approx(lengths.iloc[1] / lengths.iloc[0])
    assert "slope 0.29" in texts_of(draw("compaction_length_invariance", length_invariance()))


def test_length_ticks_that_would_touch_are_left_out():
    table = length_invariance(lengths=tuple(1024 * length for length in range(1, 33)))
    assert_labels_are_apart(draw("compaction_length_invariance", table))


def test_inputs_of_one_arm_stand_beside_each_other():
    figure = draw("compaction_stability", stability(sessions=("s0", "s1"), lengths=(1024,)))
    points, _ = drawn_points(figure)
    assert len({x for x, _ in points}) == 2 * 3
    assert tick_labels(figure.axes[-1], "minor") == ["history 1k"]


def test_an_interval_without_an_upper_end_is_said_to_be_open():
    table = stability(output_cv_high=None)
    assert "open there" in texts_of(draw("compaction_stability", table))
    assert "open there" not in texts_of(draw("compaction_stability", stability()))


def test_a_bar_need_not_hold_its_mark():
    table = stability(output_cv=0.5, output_cv_low=0.6, output_cv_high=0.9)
    figure = draw("compaction_stability", table)
    bars = [
        path.get_extents() for drawn in figure.axes[0].collections for path in drawn.get_paths()
    ]
    assert bars
    assert {(round(bar.y0, 6), round(bar.y1, 6)) for bar in bars} == {(0.6, 0.9)}


def test_prompts_run_from_terse_to_wordy_with_what_they_ask_for():
    table = volume_control().sample(frac=1, random_state=0)
    figure = draw("compaction_volume_control", table)
    ladder = ["concise", "brief", "moderate", "detailed", "very_detailed"]
    assert tick_labels(figure.axes[-1], "minor") == ladder
    _, levels = drawn_points(figure)
    assert {0.02, 0.05, 0.1, 0.2, 0.4} <= levels


def test_notes_of_many_rows_are_said_once():
    words = texts_of(draw("compaction_volume_control", volume_control()))
    assert words.count("were cut off at their cap") == 1
    assert "All workers were cut off" in words
    table = volume_control(note="3 of 10 repeats have no cosine")
    table.loc[0, "note"] = None
    assert "In part: some repeats have no cosine." in texts_of(
        draw("compaction_volume_control", table)
    )


def test_floors_and_ceilings_are_levels_beside_every_arm():
    table = many(accuracy_volume, 1, 1, other={"tau_tokens": 8192})
    marks = load_figure("compaction_accuracy_volume").plotted(table)
    closed_book = marks[(marks["level"] == "closed book") & (marks["measure"] == "f1")]
    assert set(closed_book["tau_tokens"]) == {3072, 8192}
    assert "full history" in texts_of(draw("compaction_accuracy_volume", table))


def test_a_reference_that_cannot_be_played_says_why():
    absent = accuracy_volume(full_history=False)
    words = texts_of(draw("compaction_accuracy_volume", absent))
    assert "Full history: 20000 tokens exceed the window of 16384." in words
    both = pd.concat([absent, accuracy_volume(dataset="locomo")], ignore_index=True)
    words = texts_of(draw("compaction_accuracy_volume", both))
    assert "hotpotqa: full history: 20000 tokens exceed the window of 16384." in words


@pytest.mark.parametrize("name", ["compaction_accuracy_volume", "compaction_block_prompts"])
def test_only_the_headline_is_drawn(name):
    headline = MADE_UP[name]()
    apart = MADE_UP[name](categories="5", f1_mean=0.987, contains_gold_mean=0.987)
    table = pd.concat([headline, apart], ignore_index=True)
    marks = load_figure(name).plotted(table)
    pd.testing.assert_frame_equal(marks, load_figure(name).plotted(headline))
    assert {"f1", "contains_gold"} <= set(marks["measure"])


def test_gates_are_said_in_words():
    figure = draw("compaction_accuracy_volume", accuracy_volume())
    assert "does not show that the model can do the task." in texts_of(figure)
    assert "a cap ended more than 5% of the summaries." in texts_of(
        draw("compaction_layouts", layouts())
    )
    assert "No verdict" not in texts_of(
        draw("compaction_length_invariance", length_invariance(gate="ok"))
    )


def test_a_judge_has_a_panel_and_its_errors_are_said():
    assert "judged" not in texts_of(draw("compaction_accuracy_volume", accuracy_volume()))
    words = texts_of(draw("compaction_accuracy_volume", accuracy_volume(judge="a model, v1")))
    assert "judged accuracy" in words
    assert "Judge a model, v1: accepts 5% of wrong answers." in words


def test_datasets_without_exact_match_say_so():
    table = accuracy_volume(exact_match_mean=None, format="locomo")
    words = texts_of(draw("compaction_accuracy_volume", table))
    assert "the official rules define no exact match" in words


def test_one_prompt_is_hollow_and_named():
    figure = draw("compaction_block_prompts", block_prompts(sizes=(512,)))
    recall = figure.axes[0]
    faces = [line.get_markerfacecolor() for line in recall.lines if line.get_marker() == "s"]
    assert sorted(face == "white" for face in faces) == [False, True]
    assert "One prompt: detailed." in texts_of(figure)
