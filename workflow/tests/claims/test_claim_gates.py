"""Gates: without them no verdict, whatever the interval says (METHOD, Gates)."""

import pandas as pd
import pytest

from blockwise.claims.verdicts import Verdict
from blockwise.statistics import MIN_CLUSTERS
from claims.made_up import CONTRADICTING, ESTIMATE, SUPPORTING, claim, table, verdict

SEEDS = {**ESTIMATE, "null": "null", "replication": "seed of a training"}


@pytest.mark.parametrize("row", [SUPPORTING, CONTRADICTING])
@pytest.mark.parametrize(
    ("gate", "expected"),
    [
        ("cannot_do_task", Verdict.CANNOT_DO),
        ("capped", Verdict.INCONCLUSIVE),
        ("not_diverse", Verdict.INCONCLUSIVE),
        ("too_few_starts", Verdict.INCONCLUSIVE),
        ("same_blocks_as", Verdict.NOT_MEASURED),
    ],
)
def test_a_closed_gate_closes_a_verdict_of_either_side(row, gate, expected):
    judged = verdict(claim(), table(row, gate=gate))
    assert judged.verdict is expected
    assert judged.reason
    open_gate = verdict(claim(), table(row))
    assert open_gate.verdict in {Verdict.SUPPORTED, Verdict.CONTRADICTED}


@pytest.mark.parametrize("gate", ["cannot_do_task", "capped", "not_diverse"])
def test_points_behind_a_gate_are_left_out_and_counted(gate):
    rows = table(SUPPORTING, CONTRADICTING).assign(gate=["ok", gate])
    judged = verdict(claim(), rows)
    assert judged.verdict is Verdict.SUPPORTED
    assert (len(judged.points), judged.num_deciding) == (2, 1)
    words = gate if gate in {"capped", "not_diverse"} else "cannot do the task"
    assert f"left out: 1 {words}" in judged.reason


def test_a_point_on_too_few_starts_keeps_a_claim_open():
    """What six starts would say is not known, so it is not left out."""
    rows = table(SUPPORTING, (2, None, None, 5)).assign(gate=["ok", "too_few_starts"])
    judged = verdict(claim(), rows)
    assert judged.verdict is Verdict.INCONCLUSIVE
    assert "n = 5 (server start), and a verdict takes 6" in judged.reason


@pytest.mark.parametrize(
    ("num_clusters", "expected"),
    [(MIN_CLUSTERS - 1, Verdict.INCONCLUSIVE), (MIN_CLUSTERS, Verdict.SUPPORTED)],
)
def test_six_clusters_are_the_least(num_clusters, expected):
    assert verdict(claim(), table((2, 1.7, 2.3, num_clusters))).verdict is expected


def test_points_behind_a_gate_take_no_part_in_the_test_of_all_points():
    """A hundred that are capped would else raise what one true effect must show."""
    barely = (1.02, 1.001, 1.039, 8)
    capped = table((1.0, 0.98, 1.02, 8), *[(1.0, 0.98, 1.02, 8)] * 99, gate="capped")
    assert verdict(claim(), pd.concat([table(barely), capped])).verdict is Verdict.SUPPORTED
    open_gates = pd.concat([table(barely), capped.assign(gate="ok")])
    assert verdict(claim(), open_gates).verdict is Verdict.INCONCLUSIVE


def test_rounds_of_one_process_are_one_value():
    metric = {**ESTIMATE, "replication": "round of one process"}
    judged = verdict(claim(metric=metric), table(SUPPORTING))
    assert judged.verdict is Verdict.INCONCLUSIVE
    assert "rounds of one process are one value" in judged.reason


@pytest.mark.parametrize(
    ("null", "expected"),
    [
        ((-0.1, 0.1), Verdict.SUPPORTED),
        ((0.0, 0.1), Verdict.SUPPORTED),  # zero itself is included
        ((-0.1, 0.0), Verdict.SUPPORTED),
        ((0.001, 0.1), Verdict.INCONCLUSIVE),
        ((-0.1, -0.001), Verdict.INCONCLUSIVE),
        ((None, None), Verdict.INCONCLUSIVE),
    ],
)
def test_a_training_needs_a_null_arm_at_zero(null, expected):
    rows = table(SUPPORTING, null_low=null[0], null_high=null[1])
    judged = verdict(claim(metric=SEEDS), rows)
    assert judged.verdict is expected
    if expected is Verdict.SUPPORTED:  # the spread of chance stands beside the effect
        assert f"the null arm: {null[0]:.3g} to {null[1]:.3g}" in judged.reason


def test_a_training_whose_claim_names_no_null_arm_has_no_verdict():
    metric = {**ESTIMATE, "replication": "seed of a training"}
    judged = verdict(claim(metric=metric), table(SUPPORTING))
    assert judged.verdict is Verdict.INCONCLUSIVE
    assert "no null arm" in judged.reason


def test_the_null_arm_of_the_same_training_stands_in_another_row():
    """A recovered fraction has no null of its own; the measure that it is of has one."""
    rows = table(SUPPORTING, CONTRADICTING, CONTRADICTING).assign(
        arm=["ours", "null", "null"],
        experiment=["e", "e", "other"],
        measure="loss",
        null_low=[None, -0.2, 0.3],
        null_high=[None, 0.2, 0.4],
    )
    judged = verdict(claim(metric=SEEDS), rows)
    assert judged.points[0].point.null == (-0.2, 0.2)
    assert judged.verdict is Verdict.SUPPORTED
    elsewhere = verdict(claim(metric=SEEDS), rows.assign(measure=["loss", "tokens", "loss"]))
    assert elsewhere.verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("row", [SUPPORTING, CONTRADICTING])
def test_recall_takes_more_than_one_backbone(row):
    """REVIEW 4: verdicts on recall changed from training to training."""
    one = claim(min_backbones=2)
    alone = verdict(one, table(row, row).assign(backbone="b"))
    assert alone.verdict is Verdict.INCONCLUSIVE
    assert alone.reason.startswith("only b says ")
    both = verdict(one, table(row, row))
    assert both.verdict is (Verdict.SUPPORTED if row == SUPPORTING else Verdict.CONTRADICTED)


def test_a_backbone_that_cannot_do_the_task_is_no_second_one():
    rows = table(SUPPORTING, SUPPORTING).assign(gate=["ok", "cannot_do_task"])
    assert verdict(claim(min_backbones=2), rows).verdict is Verdict.INCONCLUSIVE


def test_a_training_that_does_not_reach_its_target_has_no_verdict_of_a_difference():
    """Censored seeds count with the horizon, so a difference of two overheads is biased."""
    rows = table((2, None, None, 6), num_censored=2, null_low=-0.1, null_high=0.1)
    judged = verdict(claim(metric=SEEDS), rows)
    assert judged.verdict is Verdict.INCONCLUSIVE
    assert judged.reason == "2 trainings do not reach the target; mxfp4_ladder bounds them"
