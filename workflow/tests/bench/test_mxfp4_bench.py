"""The benchmark's arithmetic: ratios inside rounds, goals by arm."""

from pathlib import Path

import pytest

from blockwise.bench.mxfp4 import GOALS, PLAIN, SHAPE, bench_study, speed_figures
from blockwise.config.load import DEFAULT_FILE
from blockwise.errors import ConfigError
from blockwise.mxfp4.origin import origin
from blockwise.mxfp4.records import Speed, StepTimes


def speed(*times: tuple[str, str, list[float]]) -> Speed:
    return Speed(
        experiment="bench",
        num_parameters=1,
        tokens_per_step=1,
        num_threads=1,
        order=[],
        times=[StepTimes(arm=arm, form=form, step_s=step_s) for arm, form, step_s in times],
        load_average=0.0,
        cpu_steal_frac=0.0,
        origin=origin("cpu"),
    )


def test_ratios_are_formed_inside_a_round():
    found = speed_figures(
        speed(
            ("fp32", "plain, eager", [1.0, 2.0, 1.0]),
            (PLAIN, "ours, compiled", [1.2, 2.8, 1.3]),
            (PLAIN, "torchao, eager", [6.0, 14.0, 3.9]),
        )
    )
    ours, torchao = found
    assert ours.median == pytest.approx(1.3)
    assert ours.rounds == pytest.approx((1.2, 1.4, 1.3))
    assert (ours.goal, ours.is_met) == (GOALS[PLAIN], True)
    assert torchao.rounds == pytest.approx((5.0, 5.0, 3.0))
    assert torchao.is_met


def test_without_torchao_the_rest_is_measured():
    found = speed_figures(speed(("fp32", "plain, eager", [1.0]), (PLAIN, "ours, compiled", [2.0])))
    assert [one.is_met for one in found] == [False]


def test_the_default_profile_has_the_arms(project_folder):
    assert bench_study([project_folder / DEFAULT_FILE]).model == SHAPE


def test_a_profile_without_the_study_is_refused(project_folder, tmp_path):
    overlay = tmp_path / "none.yaml"
    overlay.write_text("mxfp4: null")
    with pytest.raises(ConfigError, match=r"no arm fp32, .*config/config\.yaml"):
        bench_study([project_folder / DEFAULT_FILE, Path(overlay)])
