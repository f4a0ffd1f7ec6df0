"""The outlier stress: what is drawn, who may take part, and what follows from the geometry."""

import sys
from collections import defaultdict
from statistics import fmean

import pytest
import torch

from blockwise.artifacts import read_model, write_model
from blockwise.config.load import load_profile
from blockwise.config.mxfp4 import OutlierExperiment
from blockwise.config.recipes import (
    DeterministicHadamard,
    Fprop,
    Operand,
    RandomizedHadamard,
    Recipe,
    Wgrad,
)
from blockwise.errors import ConfigError
from blockwise.mxfp4 import outliers
from blockwise.mxfp4.outliers import draw_operands, stress
from blockwise.mxfp4.records import Outliers
from blockwise.mxfp4.selection import study_of

DHT, RHT = DeterministicHadamard(kind="dht"), RandomizedHadamard(kind="rht")
ARMS = {
    "W": Recipe(wgrad=Wgrad()),
    "DHT": Recipe(wgrad=Wgrad(rotation=DHT)),
    "RHT": Recipe(wgrad=Wgrad(rotation=RHT)),
}


def experiment(**changes) -> OutlierExperiment:
    values = {
        "study": "mxfp4_outliers",
        "arms": list(ARMS),
        "seeds": [0, 1],
        "num_tokens": 256,
        "num_features": 64,
        "outlier_sizes": [4.0, 16.0],
        "outlier_token_frac": 0.02,
    }
    return OutlierExperiment(**{**values, **changes})


def drawn(pattern, size):
    return draw_operands(experiment(), pattern, size, torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def mean_errors():
    """Relative error and underflow by pattern, size and arm, over seeds."""
    found = defaultdict(list)
    for one in stress(experiment(seeds=[0, 1, 2, 3]), ARMS):
        found[one.pattern, one.size, one.arm].append((one.relative_error, one.underflow_frac))
    return {case: tuple(map(fmean, zip(*values, strict=True))) for case, values in found.items()}


def test_token_outliers_are_a_share_of_the_tokens_of_dy():
    plain, changed = drawn("gaussian", 0.0), drawn("token_outliers", 16.0)
    assert torch.equal(plain.x, changed.x)
    ratio = changed.dy / plain.dy
    is_outlier = (ratio == 16.0).all(1)
    assert int(is_outlier.sum()) == 5  # 2% of 256
    assert (ratio[~is_outlier] == 1.0).all()


def test_channel_means_are_constant_along_tokens_within_an_octave_of_the_size():
    plain, changed = drawn("gaussian", 0.0), drawn("channel_means", 16.0)
    assert torch.equal(plain.dy, changed.dy)
    means = changed.x - plain.x
    torch.testing.assert_close(means, means[:1].expand_as(means), rtol=0, atol=1e-4)
    assert float(means.abs().min()) >= 16 / 2**0.5 - 1e-4
    assert float(means.abs().max()) <= 16 * 2**0.5 + 1e-4
    assert 0 < int((means[0] > 0).sum()) < 64


def test_every_arm_stands_in_every_case_once():
    found = stress(experiment(), ARMS)
    cases = [(one.arm, one.seed, one.pattern, one.size) for one in found]
    assert len(set(cases)) == len(cases) == 3 * 2 * (1 + 2 * 2)
    assert {one.size for one in found if one.pattern == "gaussian"} == {0.0}


def test_arms_meet_the_same_operands_and_random_numbers():
    random = Recipe(wgrad=Wgrad(dy=Operand(rounding="sr"), rotation=RHT))
    twins = {"one": random, "other": random.model_copy(update={"fprop": Fprop()})}
    found = stress(experiment(), twins)
    one, other = (
        [(e.relative_error, e.underflow_frac) for e in found if e.arm == arm] for arm in twins
    )
    assert one == other
    assert stress(experiment(), twins) == found


def test_an_unquantized_dy_loses_nothing():
    arms = {"x": Recipe(wgrad=Wgrad(dy=None))}
    assert all(error.underflow_frac == 0.0 for error in stress(experiment(), arms))


def test_without_outliers_a_rotation_changes_little(mean_errors):
    # Rotated normal numbers are normal numbers.
    plain = mean_errors["gaussian", 0.0, "W"][0]
    for arm in ("DHT", "RHT"):
        assert mean_errors["gaussian", 0.0, arm][0] == pytest.approx(plain, rel=0.05)


def test_a_rotation_spreads_token_outliers(mean_errors):
    # One token 16 times larger takes the scale of its group of 32: values of the others below
    # about 1/24 of it vanish. Rotated, it is shared by 16 and no longer stands out.
    for arm in ("DHT", "RHT"):
        for index in range(2):
            unrotated = mean_errors["token_outliers", 16.0, "W"][index]
            assert mean_errors["token_outliers", 16.0, arm][index] < 0.9 * unrotated


def test_a_deterministic_rotation_collects_a_channel_mean_and_a_random_one_spreads_it(mean_errors):
    # A mean m along tokens becomes one coefficient of 4 m in each run of 16. Beside it the other
    # 15, of size 1, lose most of what they hold. With random signs all 16 are of size m.
    error = mean_errors["channel_means", 4.0, "DHT"][0]
    assert error > 1.1 * mean_errors["channel_means", 4.0, "RHT"][0]
    assert error > 1.1 * mean_errors["channel_means", 4.0, "W"][0]


def test_arms_without_wgrad_are_refused_together():
    arms = {**ARMS, "F": Recipe(fprop=Fprop()), "fp8": Recipe(precision="fp8")}
    with pytest.raises(ConfigError, match=r"the arms F, fp8 do not quantize Wgrad .* leave them"):
        stress(experiment(), arms)


def command(monkeypatch, tmp_path, project_folder, name):
    profile = load_profile([project_folder / "config" / "config.yaml"])
    small = experiment(arms=["W", "W+RHT16(W)"])
    study = profile.mxfp4.model_copy(
        update={"experiments": {**profile.mxfp4.experiments, "small": small}}
    )
    write_model(tmp_path / "profile.json", profile.model_copy(update={"mxfp4": study}))
    arguments = ["--config", tmp_path / "profile.json", "--output", tmp_path / "outliers.json"]
    argv = ["outliers", *map(str, arguments), "--experiment", name]
    monkeypatch.setattr(sys, "argv", argv)
    outliers.main()


def test_the_job_writes_a_record(monkeypatch, tmp_path, project_folder):
    command(monkeypatch, tmp_path, project_folder, "small")
    found = read_model(tmp_path / "outliers.json", Outliers)
    assert found.experiment == "small"
    assert len(found.errors) == 2 * 2 * (1 + 2 * 2)


def test_the_job_refuses_another_study(monkeypatch, tmp_path, project_folder):
    with pytest.raises(ConfigError, match=r"'mxfp4_speed' is a mxfp4_speed; this job takes one of"):
        command(monkeypatch, tmp_path, project_folder, "mxfp4_speed")


def test_a_profile_without_the_study_is_refused(tmp_path, project_folder):
    profile = load_profile([project_folder / "config" / "config.yaml"])
    write_model(tmp_path / "profile.json", profile.model_copy(update={"mxfp4": None}))
    with pytest.raises(ConfigError, match=r"profile\.json has no section mxfp4, .*; add it"):
        study_of(tmp_path / "profile.json")
