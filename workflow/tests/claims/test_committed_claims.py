"""The committed claims: each is sound, states its scale, and is measured by what it says."""

import pytest

from blockwise.config.claim_metrics import Replication
from blockwise.config.claims import Paper, load_claims
from blockwise.figures.registry import FIGURES
from blockwise.tables.columns import ColumnKind
from blockwise.tables.registry import TABLES, Family, load_tables


@pytest.fixture(scope="module")
def claims(project_folder):
    return load_claims(project_folder / "config" / "claims.yaml")


@pytest.fixture(scope="module")
def columns():
    return {
        name: {column.name: column for column in module.COLUMNS}
        for name, module in load_tables(*Family).items()
    }


def test_every_claim_names_what_is_there(claims, columns):
    for name, one in claims.items():
        assert one.figure in FIGURES, name
        assert one.metric.table in TABLES, name
        own, metric = columns[one.metric.table], one.metric
        named = {*metric.where, *metric.at_most, *metric.without}
        if metric.kind == "estimate":
            ends = {f"{metric.name}_{end}{metric.suffix}" for end in ("low", "high")}
            named |= ends | {*metric.by}
        else:
            named |= {*metric.by, metric.cluster}
        assert named <= own.keys(), name
        if metric.gate != "gate":
            assert metric.gate in own, name


def test_what_a_clock_says_is_replicated_by_server_start(claims, columns):
    for name, one in claims.items():
        if one.metric.kind != "estimate":
            continue
        low = columns[one.metric.table][f"{one.metric.name}_low{one.metric.suffix}"]
        is_start = one.metric.replication in {Replication.SERVER_START, Replication.ROUND}
        assert (low.kind is ColumnKind.TIMED) == is_start, name


def test_every_measured_table_of_compaction_has_a_gate(claims, columns):
    for name, one in claims.items():
        if one.metric.table.startswith("compaction_"):
            assert one.metric.gate in columns[one.metric.table], name


def test_recall_is_of_answerable_questions_and_takes_two_backbones(claims):
    recall = [one for one in claims.values() if one.metric.table == "compaction_answers"]
    assert len(recall) >= 4
    for one in recall:
        assert one.metric.where["categories"] == "headline"
        assert one.metric.where["weights"] == "published"
        assert one.min_backbones == 2


def test_a_claim_about_96k_cannot_be_told_by_a_shorter_window(claims):
    for name, one in claims.items():
        if "96k" in one.statement:
            assert one.min_window_tokens == 98304, name


def test_claims_of_ours_stand_apart(claims):
    ours = {name for name, one in claims.items() if one.paper is Paper.OURS}
    assert {name.split("-")[0] for name in ours} == {"suffix", "eager", "priority"}
    places = [one.paper is Paper.OURS for one in claims.values()]
    assert places == sorted(places)


def test_no_verdict_rests_on_batches_that_a_model_memorised(claims):
    """REVIEW 1: training losses of repeated batches are a mechanism."""
    assert all(one.metric.table != "mxfp4_interventions" for one in claims.values())


def test_claims_about_steering_measure_a_response(claims):
    """REVIEW 8: a level does not say who steers."""
    responses = {"prompts-hardly-steer-volume": "ladder", "block-size-steers-volume": "blocks"}
    for name, response in responses.items():
        metric = claims[name].metric
        assert (metric.name, metric.gate) == (f"{response}_response", f"{response}_response_gate")
    assert claims["blocking-for-tens-of-seconds"].metric.name == "stall_of_one"
    assert claims["recall-rises-with-volume"].metric.where["layout"] == "target_block"
