"""The figures of the MXFP4 study, drawn from what the tables' own modules make of records."""

import functools
import importlib
import itertools
import math
import random
import subprocess
import sys

import pandas as pd
import pytest
import yaml
from drawn import assert_labels_are_apart, drawn_points, shown_texts, texts_of, tick_labels
from made_up_tables import table_of
from matplotlib.figure import Figure
from test_published_figures import NAMES as PUBLISHED

from blockwise.artifacts import write_bytes
from blockwise.config.mxfp4 import MXFP4, named_arms
from blockwise.config.recipes import Recipe
from blockwise.figures import style
from blockwise.figures.marks import Scale
from blockwise.figures.registry import FIGURES, figures_of, load_figure
from blockwise.figures.scales import plain, set_scale, set_ticks
from blockwise.figures.write import write_figure
from blockwise.mxfp4.records import (
    Diagnostics,
    Evaluation,
    OutlierError,
    Outliers,
    Speed,
    StepTimes,
)
from blockwise.tables.columns import csv_bytes
from blockwise.tables.inputs import LoadedRun, TableInputs
from blockwise.tables.registry import TABLES, Family
from training_records import ORIGIN, PROJECT_FOLDER, error_statistics, run

DEFAULT_FILE = PROJECT_FOLDER / "config" / "config.yaml"
STUDY = MXFP4.model_validate(yaml.safe_load(DEFAULT_FILE.read_text())["mxfp4"])
LONGEST = Recipe.model_validate(
    {
        "fprop": {},
        "dgrad": {"dy": {"rounding": "sr34"}},
        "wgrad": {
            "dy": {"rounding": "sr34", "scale_rule": "rceil"},
            "rotation": {"kind": "rht", "size": 32, "signs": "mismatched"},
        },
    }
)
SR_ARM, RHT_ARM = "F+D+W+SR(D:dy,W:dy)", "W+RHT16(W)"
FIXED = {
    "mxfp4_ladder": {
        "baselines": ["fp32", "bf16", "fp8"],
        "arms": ["F", "F+D+W", "F+D+W+DHT16(W)"],
        "seeds": [0],
    },
    "mxfp4_interventions": {
        "baselines": ["fp32"],
        "arms": ["W", "W+SR(W:dy)", RHT_ARM],
        "seeds": list(range(6)),
    },
    "mxfp4_diagnostics": {
        "arms": ["F+D+W", SR_ARM, "W+RHT16-mismatched(W)", "fp8"],
        "measure_at_steps": [0, 200],
    },
    "mxfp4_scale_rules": {
        "arms": ["W", "W+floor(W:dy,W:x)", "W+SR(W:dy)", "W+SR(W:dy)+rceil(W:dy,W:x)"],
        "measure_at_steps": [200],
    },
    "mxfp4_outliers": {
        "arms": ["W", RHT_ARM, "W+DHT16(W)"],
        "seeds": list(range(6)),
        "outlier_sizes": [1, 4, 16, 64],
    },
    "mxfp4_speed": {"baselines": ["fp32", "bf16"], "arms": ["F+D+W", SR_ARM], "num_rounds": 7},
}
"""What tests count on; the rest of the default profile may change."""
TRAINING = {
    "num_steps": 280,
    "evaluate_every_steps": 20,
    "num_repeated_batches": 8,
}
COST_NATS = {"fp32": 0.0, "bf16": 0.001, "fp8": 0.004}  # what an arm loses; others lose more


@pytest.fixture(autouse=True)
def _coarse(monkeypatch):
    """Bytes of a small picture tell as much as those of a large one."""
    monkeypatch.setattr(style, "PNG_DPI", 50)


def study_with(name, **changes):
    """The study of the default profile with one experiment alone, and changed."""
    arms = {**STUDY.arms, LONGEST.name: LONGEST}
    entry = STUDY.experiments[name].model_copy(update=FIXED[name] | changes)
    if name in ("mxfp4_ladder", "mxfp4_interventions"):
        training = entry.training.model_copy(update=TRAINING)
        entry = entry.model_copy(update={"training": training})
    return STUDY.model_copy(update={"arms": arms, "experiments": {name: entry}})


def twice(settings):
    """The same experiment under two names."""
    (name, entry), *_ = settings.experiments.items()
    return settings.model_copy(update={"experiments": {name: entry, "another": entry}})


def built(name, inputs):
    return importlib.import_module(TABLES[name]).build(inputs)


def trained(settings, name, arm, seed, diverged=False, cost_nats=0.05):
    """A run whose losses fall and level out; what the arm loses is added."""
    training = settings.experiments[name].training
    draw = random.Random(f"{arm} {seed}")
    cost = COST_NATS.get(arm, cost_nats) * draw.uniform(0.9, 1.1)
    evaluations = []
    for step in range(0, training.num_steps + 1, training.evaluate_every_steps):
        loss = 2 + seed / 20 + 3.5 * math.exp(-step / 50) + cost
        evaluations.append(Evaluation(step=step, quantized_loss=loss, unquantized_loss=loss - cost))
    changes = {"evaluations": evaluations, "train_losses": [2 + cost] * training.num_steps}
    if diverged:
        changes |= {"status": "diverged", "diverged_at_step": 37, "evaluations": evaluations[:2]}
        changes |= {"train_losses": [2.0] * 37}
    one = run(settings, name, "W", seed=seed).run
    spec = one.spec.model_copy(update={"recipe": settings.arms[arm]})
    return LoadedRun(name, arm, one.model_copy(update={"spec": spec, **changes}))


def runs_of(settings, diverged=(), **changes):
    runs = [
        trained(settings, name, arm, seed, diverged=arm in diverged, **changes)
        for name, entry in settings.experiments.items()
        for arm in entry.all_arms()
        for seed in entry.seeds
    ]
    return TableInputs(mxfp4=settings, runs=runs)


def ladder(settings=None, **changes):
    return built("mxfp4_ladder", runs_of(settings or study_with("mxfp4_ladder"), **changes))


def losses(settings=None, **changes):
    return built("mxfp4_losses", runs_of(settings or study_with("mxfp4_ladder"), **changes))


def interventions(settings=None, **changes):
    settings = settings or study_with("mxfp4_interventions")
    return built("mxfp4_interventions", runs_of(settings, **changes))


def errors(name, settings=None):
    settings = settings or study_with(name)
    found = []
    for experiment, entry in settings.experiments.items():
        places = itertools.product(entry.measure_at_steps, entry.arms, "FDW", range(2))
        statistics = [
            error_statistics(arm, gemm, f"layer {layer}", step=step, **_values(arm, step, layer))
            for step, arm, gemm, layer in places
            if settings.arms[arm].precision == "fp8" or gemm in settings.arms[arm].gemms
        ]
        found.append(
            Diagnostics(experiment=experiment, num_batches=8, errors=statistics, origin=ORIGIN)
        )
    return built(name, TableInputs(mxfp4=settings, diagnostics=found))


def _values(arm, step, layer):
    error = 1.4 if "mismatched" in arm else (0.02 if arm == "fp8" else 0.1) * (1 + layer / 10)
    return {
        "relative_error": error + step / 1e6,
        "systematic_error": error / 2,
        "cosine": max(0.0, 1 - error**2),
        "shrinkage": -0.004 if "SR" in arm else min(1.0, error**2),
    }


def outliers(settings=None):
    settings = settings or study_with("mxfp4_outliers")
    found = []
    for name, entry in settings.experiments.items():
        sizes = [(pattern, size) for pattern in PATTERNS for size in entry.outlier_sizes]
        cases = itertools.product(entry.arms, entry.seeds, [("gaussian", 0.0), *sizes])
        found.append(
            Outliers(
                experiment=name,
                origin=ORIGIN,
                errors=[
                    OutlierError(
                        arm=arm,
                        seed=seed,
                        pattern=pattern,
                        size=size,
                        relative_error=0.15 + seed / 500 + len(arm) * size / 5000,
                        underflow_frac=0.1,
                    )
                    for arm, seed, (pattern, size) in cases
                ],
            )
        )
    return built("mxfp4_outliers", TableInputs(mxfp4=settings, outliers=found))


PATTERNS = ("token_outliers", "channel_means")


def speed(settings=None, forms=("ours, compiled",), baseline_forms=("ours, compiled",)):
    settings = settings or study_with("mxfp4_speed")
    found = []
    for name, entry in settings.experiments.items():
        choices = [
            (arm, form)
            for arm in named_arms(entry)
            for form in (baseline_forms if arm in entry.baselines else forms)
        ]
        times = [
            StepTimes(
                arm=arm,
                form=form,
                step_s=[
                    (1 + number / 10) * (1 + index / 50) for index in range(number, number + 7)
                ],
            )
            for number, (arm, form) in enumerate(choices)
        ]
        found.append(
            Speed(
                experiment=name,
                num_parameters=1000,
                tokens_per_step=1024,
                num_threads=1,
                order=[["fp32"]] * 7,
                times=times,
                load_average=0.5,
                cpu_steal_frac=0.0,
                origin=ORIGIN,
            )
        )
    return built("mxfp4_speed", TableInputs(mxfp4=settings, speeds=found))


MADE = {
    "mxfp4_ladder": ladder,
    "mxfp4_losses": losses,
    "mxfp4_interventions": interventions,
    "mxfp4_diagnostics": lambda settings=None: errors("mxfp4_diagnostics", settings),
    "mxfp4_scale_rules": lambda settings=None: errors("mxfp4_scale_rules", settings),
    "mxfp4_outliers": outliers,
    "mxfp4_speed": speed,
}


def many_arms_of(name):
    """An experiment with many arms of the default profile, and the longest name."""
    experiment = "mxfp4_ladder" if name == "mxfp4_losses" else name
    starts = {"mxfp4_outliers": ("W",), "mxfp4_scale_rules": ("W",), "mxfp4_interventions": ("W",)}
    arms = [arm for arm in STUDY.arms if arm.startswith(starts.get(name, ("F", "fp8")))]
    return study_with(experiment, arms=[*arms[-4:], LONGEST.name])


def draw(name, table):
    return load_figure(name).draw(table)


@functools.cache
def of_default(name):
    """Table and figure of the default profile's experiment; tests change neither."""
    table = MADE[name]()
    return table, draw(name, table)


def test_every_figure_of_the_study_is_tested_here():
    assert set(MADE) | set(PUBLISHED) == set(figures_of(Family.MXFP4))
    assert set(figures_of(*Family)) == set(FIGURES)


@pytest.mark.parametrize("name", MADE)
def test_every_plotted_value_is_drawn_and_stands_in_the_table(name):
    table, figure = of_default(name)
    marks = load_figure(name).plotted(table)
    drawn = {
        float(value)
        for ax in figure.axes
        for line in ax.lines
        for value in (*line.get_xdata(), *line.get_ydata())
    }
    is_level = marks["level"].notna()
    assert set(marks.loc[~is_level, "value"].dropna()) <= drawn
    numbers = table.select_dtypes("number").astype("float64")
    shown = marks[["value", "low", "high"]].stack().dropna()
    assert len(shown)
    assert set(shown) <= set(numbers.stack().dropna())


@pytest.mark.parametrize("name", MADE)
def test_an_empty_table_gives_a_figure_that_says_so(name):
    empty = table_of(name, [])
    assert texts_of(draw(name, empty)).startswith("no ")
    assert load_figure(name).plotted(empty).empty


@pytest.mark.parametrize("name", MADE)
def test_two_draws_give_the_same_picture_and_the_scale_and_n_are_shown(name):
    table, figure = of_default(name)
    words = texts_of(figure)
    assert f"{STUDY.caption}." in words
    assert "n = " in words
    assert style.png_bytes(figure) == style.png_bytes(draw(name, table))


@pytest.mark.parametrize("name", ["mxfp4_speed", "mxfp4_outliers"])
def test_two_draws_give_the_same_pdf(name):
    table, figure = of_default(name)
    assert style.pdf_bytes(figure) == style.pdf_bytes(draw(name, table))


def test_another_process_writes_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.undo()  # both at full size
    name = "mxfp4_losses"
    table = losses(study_with("mxfp4_ladder", arms=["F"], baselines=["fp32"]))
    write_bytes(tmp_path / f"{name}.csv", csv_bytes(table))
    write_figure(name, tmp_path, tmp_path / "first")
    command = [sys.executable, "-m", "blockwise.figures.write", "--figure", name]
    command += ["--tables", str(tmp_path), "--output-dir", str(tmp_path / "second")]
    subprocess.run(command, check=True)
    for suffix in ("csv", "pdf", "png"):
        first, second = (tmp_path / run / f"{name}.{suffix}" for run in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("name", MADE)
def test_names_of_all_arms_are_apart_and_legible(name):
    figure = draw(name, MADE[name](twice(many_arms_of(name))))
    assert figure.get_figwidth() == style.TEXT_WIDTH_IN
    texts = shown_texts(figure)
    assert all(text.get_fontsize() >= 7 for text in texts)
    assert LONGEST.name in texts_of(figure).replace("+ ", "+").replace(", ", ",")
    assert "another" in texts_of(figure)
    assert_labels_are_apart(figure)


def test_one_seed_is_said_not_to_be_powered_beside_every_arm():
    table, figure = of_default("mxfp4_ladder")
    compared = table[table["arm"] != table["baseline"]]
    words = texts_of(figure)
    assert words.count("not powered, n = 1") == len(compared)


@pytest.mark.parametrize(
    ("loss", "said"), [(3.0, "a validation loss of 3;"), (0.01, "a set validation loss;")]
)
def test_a_set_target_stands_in_the_title_reached_or_not(loss, said):
    settings = study_with("mxfp4_ladder", target_step=None, target_loss=loss)
    assert f"target: {said} horizon" in texts_of(draw("mxfp4_ladder", ladder(settings)))


def test_six_seeds_have_verdicts_of_the_table():
    table = ladder(study_with("mxfp4_ladder", seeds=list(range(6))))
    words = texts_of(draw("mxfp4_ladder", table))
    for verdict in ("slower", "faster", "not powered"):
        assert words.count(f"{verdict}, n = 6") == (table["verdict"] == verdict).sum()
    assert "slower, n = 6" in words


def test_the_reported_range_stands_behind_arms_against_fp8():
    table, figure = of_default("mxfp4_ladder")
    marks = load_figure("mxfp4_ladder").plotted(table)
    reported = marks[marks["level"].notna()].set_index("arm")
    assert set(reported["baseline"]) == {"fp8"}
    assert list(reported.loc["F+D+W", ["low", "high"]]) == [0.26, 0.27]
    bands = {
        (round(bar.get_x(), 9), round(bar.get_x() + bar.get_width(), 9))
        for bar in figure.axes[2].patches
        if bar.get_width() < 0.1
    }
    assert bands == set(zip(reported["low"], reported["high"], strict=True))
    assert "reported (secondary)" in texts_of(figure)


def test_what_the_paper_says_did_not_converge_is_said():
    table = ladder(study_with("mxfp4_ladder", arms=["F", SR_ARM]))
    assert texts_of(draw("mxfp4_ladder", table)).count("reported: no convergence") == 1


def test_arms_that_do_not_get_there_and_arms_that_diverge_are_told_apart():
    settings = study_with("mxfp4_ladder", arms=["F"], baselines=["fp32"])
    slow = draw("mxfp4_ladder", ladder(settings, cost_nats=0.9))
    assert "1 not reached" in texts_of(slow)
    lost = draw("mxfp4_ladder", ladder(settings, diverged=["F"]))
    assert "1 diverged, first at step 37" in texts_of(lost)
    for figure in (slow, lost):
        bounds = [line for line in figure.axes[0].lines if line.get_marker() == ">"]
        assert [line.get_markerfacecolor() for line in bounds] == ["white"]
        assert "Open triangle: lower bound" in texts_of(figure)


def test_arms_stand_in_the_order_of_the_configuration():
    settings = study_with("mxfp4_ladder", arms=["F+D+W", "F"], baselines=["bf16", "fp32"])
    labels = draw("mxfp4_ladder", ladder(settings)).axes[0].get_yticklabels()
    assert [label.get_text() for label in labels] == ["bf16", "fp32", "F+D+W", "F"]


def test_unquantized_losses_are_dashed_and_only_where_they_differ():
    table = losses(study_with("mxfp4_ladder", arms=["F"], baselines=["fp32"]))
    marks = load_figure("mxfp4_losses").plotted(table)
    assert set(marks.loc[marks["measure"] == "unquantized_loss", "arm"]) == {"F"}
    _, fp32, f, *_ = draw("mxfp4_losses", table).axes
    assert {line.get_linestyle() for line in fp32.lines} == {"-"}
    assert {line.get_linestyle() for line in f.lines} == {"-", "--"}


def test_a_diverged_run_ends_in_a_cross_and_says_so():
    table = losses(study_with("mxfp4_ladder", arms=["F"], baselines=["fp32"]), diverged=["F"])
    figure = draw("mxfp4_losses", table)
    everything, _, f, *_ = figure.axes
    assert "x" in {line.get_marker() for line in everything.lines}
    assert "n = 1, 1 diverged" in f.get_title()
    assert "last finite loss at step 20" in texts_of(figure)


def test_panels_of_one_arm_show_the_second_half():
    table = losses(study_with("mxfp4_ladder", arms=["F"], baselines=["fp32"]))
    everything, fp32, *_ = draw("mxfp4_losses", table).axes
    horizon = table["train_tokens"].max()
    assert everything.get_xlim()[0] == 0
    assert fp32.get_xlim()[0] == horizon / 2


def test_t_and_n_of_an_intervention_are_printed():
    table, figure = of_default("mxfp4_interventions")
    table, words = table.set_index("arm"), texts_of(figure)
    for arm in table.index.drop("fp32"):
        t = table.loc[arm, "train_loss_over_baseline_t"]
        assert f"t = {t:.1f}, n = 6" in words
    assert "against fp32: 280 steps, 8 batches that repeat" in words
    assert "Capped bars: 95% interval." in words
    assert words.count("no other plain arm") == 1


def test_interventions_of_few_or_diverged_seeds_say_so():
    table = interventions(study_with("mxfp4_interventions", seeds=[0, 1]))
    words = texts_of(draw("mxfp4_interventions", table))
    assert "n = 2 not powered" in words
    assert "t = " not in words
    words = texts_of(draw("mxfp4_interventions", interventions(diverged=["W+SR(W:dy)"])))
    assert words.count("6 of 6 diverged") == 4


def test_the_last_measured_step_is_drawn():
    table, figure = of_default("mxfp4_diagnostics")
    assert set(load_figure("mxfp4_diagnostics").plotted(table)["step"]) == {200}
    assert "step 200 of the training of fp32" in texts_of(figure)


def test_gradients_are_held_against_the_noise_that_training_stands():
    *_, gradients = of_default("mxfp4_diagnostics")[1].axes
    lines = [line for line in gradients.lines if line.get_linestyle() == "--"]
    assert [list(line.get_xdata()) for line in lines] == [[math.sqrt(3)] * 2]
    assert {line.get_marker() for line in gradients.lines} - {"None", "|"} == {"^"}  # Wgrad alone


def test_gemms_have_looks_and_right_operands_are_hollow():
    relative, *_, underflow, _ = of_default("mxfp4_diagnostics")[1].axes
    assert {"o", "s", "^"} <= {line.get_marker() for line in relative.lines}
    hollow = [
        float(line.get_xdata()[0])
        for line in underflow.lines
        if line.get_markerfacecolor() == "white"
    ]
    assert set(hollow) == {0.03}


def test_scale_rules_show_wgrad_rule_by_rule():
    table, figure = of_default("mxfp4_scale_rules")
    marks = load_figure("mxfp4_scale_rules").plotted(table)
    assert set(marks["gemm"]) == {"W"}
    labels = figure.axes[0].get_yticklabels()
    rules = [label.get_text() for label in labels if label.get_fontweight() == "bold"]
    assert rules == ["even", "floor", "rceil"]


def test_rules_that_differ_between_operands_are_both_named():
    arm = "W+SR(3/4)(W:dy)"
    table = errors("mxfp4_scale_rules", study_with("mxfp4_scale_rules", arms=["W", arm]))
    table["right_scale_rule"] = table["right_scale_rule"].mask(table["arm"] == arm, "ceil")
    words = texts_of(draw("mxfp4_scale_rules", table))
    assert "dy even, x ceil" in words


def test_each_pattern_has_a_panel_with_its_sizes():
    gaussian, *others = of_default("mxfp4_outliers")[1].axes
    assert gaussian.get_xscale() == "linear"
    assert [ax.get_xscale() for ax in others] == ["log", "log"]
    assert tick_labels(others[0]) == ["1", "4", "16", "64"]
    assert [ax.get_title() for ax in others] == ["token outliers in dy", "channel means in x"]


def test_arms_at_one_size_stand_beside_each_other():
    points, _ = drawn_points(of_default("mxfp4_outliers")[1])
    assert len({x for x, _ in points if 48 < x < 80}) == 3


def test_a_step_is_held_against_each_baseline_in_the_same_form():
    both = ("ours, compiled", "ours, eager")
    table = speed(forms=both, baseline_forms=both)
    marks = load_figure("mxfp4_speed").plotted(table)
    baselines = marks[marks["against"] != "other forms"]
    assert set(baselines["against"]) == {"fp32", "bf16"}
    assert (baselines["form"] == baselines["baseline_form"]).all()
    assert (baselines["arm"] != baselines["baseline"]).all()
    others = marks[marks["against"] == "other forms"]
    assert set(others["baseline_form"]) == {"ours, compiled"}


def test_a_form_that_no_baseline_has_is_shown_and_said():
    figure = draw("mxfp4_speed", speed(forms=("ours, compiled", "torchao, eager")))
    words = texts_of(figure)
    assert "eager against compiled" in words
    assert "n = 7 rounds" in words
    for ax in figure.axes:
        levels = [line for line in ax.lines if line.get_linestyle() == "--"]
        assert [list(line.get_xdata()) for line in levels] == [[1.0, 1.0]]


def test_arm_names_break_after_plus_and_comma_only():
    arm = "F+D+W+SR(3/4)(D:dy,W:dy)+RHT16-mismatched(W)"
    lines = style.wrapped_arm(arm, 0.9).split("\n")
    assert len(lines) > 2
    assert "".join(lines) == arm
    assert all(line[-1] in "+," for line in lines[:-1])


ENDS = {
    Scale.LOG: ([0.02, 1.4], [0.11, 0.12], [1.0, 1.9], [3.0]),
    Scale.NEAR_ONE: ([0.0, 0.9996], [0.98, 0.991], [-0.05, 1.0], [0.5]),
    Scale.SIGNED_LOG: ([-0.004, 1.0], [0.001, 0.006], [-0.3, 0.2], []),
    Scale.DIFFERENCE: ([-0.02, 0.003], [0.0, 0.4], [0.0]),
    Scale.AMOUNT: ([0.0, 0.13], [0.002], [0.0]),
}


@pytest.mark.parametrize("scale", ENDS)
def test_axes_hold_their_marks_and_have_ticks(scale):
    for ends in ENDS[scale]:
        ax = Figure(figsize=(1, 1)).add_axes((0.1, 0.1, 0.8, 0.8))
        set_scale(ax, ends, scale)
        set_ticks(ax, scale, plain, 0.8)
        low, high = ax.get_xlim()
        places = [ax.transLimits.transform(ax.transScale.transform((end, 0)))[0] for end in ends]
        assert all(0 <= place <= 1 for place in places), ends
        assert 1 <= len(ax.get_xticks()) <= 6
        assert all(low <= tick <= high for tick in ax.get_xticks())


def test_names_of_the_table_are_read_back_as_they_were_written(tmp_path):
    table, _ = of_default("mxfp4_ladder")
    write_bytes(tmp_path / "mxfp4_ladder.csv", csv_bytes(table))
    write_figure("mxfp4_ladder", tmp_path, tmp_path / "figures")
    written = pd.read_csv(tmp_path / "figures" / "mxfp4_ladder.csv")
    assert list(written["arm"].unique()) == list(table["arm"].unique())
