"""The claims ledger: made-up tables must come out each way, and every entry must be sound."""

import math
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats

from blockwise.claims.ledger import build_claims, build_points, write_ledger
from blockwise.claims.verdicts import Verdict, judge
from blockwise.config.claims import Claim, load_claims
from blockwise.errors import ConfigError
from blockwise.figures.registry import FIGURES
from blockwise.statistics import mean_interval
from blockwise.tables.registry import TABLES, Family, load_tables

ESTIMATE = {"kind": "estimate", "table": "t", "name": "gain", "where": {"arm": "ours"}}


def claim(**changes):
    return Claim.model_validate(
        {
            "paper": "2605.23296",
            "locator": "abstract",
            "statement": "It gains.",
            "reported": {"text": "2", "effect": 2.0, "grade": "secondary"},
            "metric": ESTIMATE,
            "rule": {"kind": "above", "than": 1},
            "figure": "compaction_layouts",
            **changes,
        }
    )


def table(*rows, **shared):
    """Rows of (mean, low, high, clusters) of the arm `ours`."""
    return pd.DataFrame(
        [
            {
                "arm": "ours",
                "backbone": f"b{number}",
                "num_parameters": 1e6,
                "note": None,
                "gain_mean": mean,
                "gain_low": low,
                "gain_high": high,
                "gain_num_clusters": clusters,
                **shared,
            }
            for number, (mean, low, high, clusters) in enumerate(rows)
        ]
    )


def verdict(one, tables):
    (judged,) = judge({"c": one}, {"t": tables})
    return judged


@pytest.mark.parametrize(
    ("rule", "row", "expected"),
    [
        ({"kind": "above", "than": 1}, (2, 1.5, 2.5, 8), Verdict.SUPPORTED),
        ({"kind": "above", "than": 1}, (0.5, 0.3, 0.7, 8), Verdict.CONTRADICTED),
        ({"kind": "above", "than": 1}, (1.2, 0.8, 1.6, 8), Verdict.INCONCLUSIVE),
        ({"kind": "below", "than": 1}, (2, 1.5, 2.5, 8), Verdict.CONTRADICTED),
        ({"kind": "below", "than": 1}, (0.5, 0.3, 0.7, 8), Verdict.SUPPORTED),
        ({"kind": "within", "low": 1, "high": 3}, (2, 1.5, 2.5, 8), Verdict.SUPPORTED),
        ({"kind": "within", "low": 1, "high": 3}, (5, 4.5, 5.5, 8), Verdict.CONTRADICTED),
        ({"kind": "within", "low": 1, "high": 3}, (3, 2.5, 3.5, 8), Verdict.INCONCLUSIVE),
        ({"kind": "above", "than": 1}, (2, None, None, 3), Verdict.INCONCLUSIVE),
        ({"kind": "above", "than": 1}, (None, None, None, 0), Verdict.INCONCLUSIVE),
        ({"kind": "above", "than": 1}, (2, 1.5, None, 8), Verdict.SUPPORTED),
        ({"kind": "below", "than": 1}, (2, 1.5, None, 8), Verdict.CONTRADICTED),
        ({"kind": "within", "low": 1, "high": 3}, (2, 1.5, None, 8), Verdict.INCONCLUSIVE),
        ({"kind": "below", "than": 1}, (2, None, 2.5, 8), Verdict.INCONCLUSIVE),
    ],
)
def test_the_rule_decides_by_the_whole_interval(rule, row, expected):
    judged = verdict(claim(rule=rule), table(row))
    assert judged.verdict is expected, judged.reason


def test_few_clusters_and_small_models_are_given_as_reasons():
    few = verdict(claim(), table((2, None, None, 3)))
    assert few.reason == "3 clusters, and below 6 no interval is given"
    small = verdict(
        claim(min_num_parameters=1e9, scale_reason="it is said of large models"),
        table((2, 1.5, 2.5, 8)),
    )
    assert small.verdict is Verdict.NOT_TESTABLE
    assert small.reason == (
        "it takes a model of 1e+09 parameters, this one has 1.0e+06; it is said of large models"
    )


def test_rows_that_say_so_are_not_testable():
    note = "random weights: answers are noise, not testable at this scale"
    judged = verdict(claim(), table((2, 1.5, 2.5, 8), note=note))
    assert (judged.verdict, judged.reason) == (Verdict.NOT_TESTABLE, note)


def test_a_run_without_such_rows_is_not_testable():
    other = table((2, 1.5, 2.5, 8), arm="theirs")
    assert verdict(claim(), other).verdict is Verdict.NOT_TESTABLE
    (judged,) = judge({"c": claim()}, {})
    assert judged.reason == "this run has no such row of t"


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([(2, 1.5, 2.5, 8), (2, 1.8, 2.2, 8)], Verdict.SUPPORTED),
        ([(2, 1.5, 2.5, 8), (1.2, 0.8, 1.6, 8)], Verdict.INCONCLUSIVE),
        ([(2, 1.5, 2.5, 8), (1.2, 0.8, 1.6, 8), (0.5, 0.3, 0.7, 8)], Verdict.CONTRADICTED),
    ],
)
def test_the_least_favourable_point_decides(rows, expected):
    judged = verdict(claim(), table(*rows))
    assert judged.verdict is expected
    assert judged.points[0].verdict is expected
    assert len(judged.points) == len(rows)


def test_many_points_of_chance_are_not_all_believed():
    """Of a hundred intervals that barely exclude the threshold none survives; a clear one does."""
    barely, clear = (1.02, 1.001, 1.039, 8), (2, 1.9, 2.1, 8)
    holding = (1.0, 0.98, 1.02, 8)
    rows = table(barely, clear, *[holding] * 100)
    judged = verdict(claim(), rows)
    by_value = {one.point.value: one for one in judged.points}
    assert by_value[2].verdict is Verdict.SUPPORTED
    assert by_value[1.02].verdict is Verdict.INCONCLUSIVE
    assert "alone it would be supported" in by_value[1.02].reason
    assert verdict(claim(), table(barely)).verdict is Verdict.SUPPORTED


def test_ratios_are_tested_on_the_log_scale():
    metric = {**ESTIMATE, "is_ratio": True}
    interval = mean_interval([math.log(one) for one in (1.3, 1.5, 1.7, 1.4, 1.6, 1.9)], "abcdef")
    row = tuple(math.exp(one) for one in (interval.mean, interval.low, interval.high))
    judged = verdict(claim(metric=metric), table((*row, 6)))
    assert judged.verdict is Verdict.SUPPORTED


def test_the_needed_clusters_give_the_power_that_they_promise():
    values = [1.1, 1.6, 0.8, 1.9, 1.3, 0.9, 1.5, 1.2]
    interval = mean_interval(values, [str(one) for one in range(len(values))])
    effect = 1.25
    one = claim(reported={"text": "x", "effect": effect, "grade": "primary"})
    row = (interval.mean, interval.low, interval.high, len(values))
    needed = verdict(one, table(row)).points[0].needed_clusters
    deviation = pd.Series(values).std()
    shift = (effect - 1) / deviation * math.sqrt(needed)
    critical = stats.t.ppf(0.975, needed - 1)
    power = stats.nct.sf(critical, needed - 1, shift)
    assert 0.76 < power < 0.86


def test_slopes_and_differences_are_taken_inside_clusters():
    rows = [
        {
            "session": f"s{session}",
            "backbone": "b",
            "arm": arm,
            "num_parameters": 1e6,
            "tokens": tokens,
            "f1": session / 10 + (0.2 + session / 100) * tokens / 1000,
        }
        for session in range(7)
        for arm, tokens in (("short", 100), ("long", 600))
    ]
    cells = {"cells": pd.DataFrame(rows)}
    shared = {"table": "cells", "cluster": "session", "by": ["backbone"]}
    slope = claim(
        metric={"kind": "slope", "x": "tokens", "y": "f1", "x_unit": 1000, **shared},
        rule={"kind": "above", "than": 0},
    )
    difference = claim(
        metric={
            "kind": "difference",
            "value": "f1",
            "own": {"arm": "long"},
            "reference": {"arm": "short"},
            **shared,
        },
        rule={"kind": "above", "than": 0},
    )
    judged = judge({"slope": slope, "difference": difference}, cells)
    assert [one.verdict for one in judged] == [Verdict.SUPPORTED] * 2
    slope_point, difference_point = (one.points[0].point for one in judged)
    assert slope_point.value == pytest.approx(0.23)
    assert difference_point.value == pytest.approx(0.23 / 2)
    assert slope_point.num_clusters == difference_point.num_clusters == 7
    assert slope_point.where == "b"


def test_a_bound_of_seeds_that_never_got_there_is_judged():
    row = table((None, 1.5, None, 6)).assign(gain_at_least=1.9)
    judged = verdict(claim(), row)
    assert (judged.verdict, judged.points[0].point.value) == (Verdict.SUPPORTED, 1.9)


def test_conversations_are_the_clusters_whatever_sessions_they_stand_in():
    """Every session chains two conversations, and each of these stands in two sessions."""
    rows = [
        {
            "backbone": "b",
            "num_parameters": 1e6,
            "session_id": f"s{session}",
            "cluster": f"c{(session + place) % 8}",
            "question_id": f"q{place}",
            "answer_context": context,
            "f1": 0.5 + (context == "full") * (0.1 + session / 100),
        }
        for session in range(8)
        for place in range(2)
        for context in ("compacted", "full")
        if (session, place, context) != (0, 0, "compacted")  # its partner is left out too
    ]
    one = claim(
        metric={
            "kind": "difference",
            "table": "t",
            "value": "f1",
            "own": {"answer_context": "compacted"},
            "reference": {"answer_context": "full"},
            "cluster": "cluster",
            "paired_by": ["session_id", "question_id"],
            "by": ["backbone"],
        },
        rule={"kind": "below", "than": 0},
    )
    point = verdict(one, pd.DataFrame(rows)).points[0].point
    own = [0.17 if c == 0 else 0.1 + (2 * c - 1) / 200 for c in range(8)]
    assert point.num_clusters == 8
    assert point.value == pytest.approx(-sum(own) / 8)


def test_a_metric_with_an_unknown_column_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"table t has no column colour.*data_dictionary"):
        verdict(claim(metric={**ESTIMATE, "where": {"colour": "red"}}), table((2, 1.5, 2.5, 8)))


def test_the_ledger_is_written_beside_the_tables(tmp_path, project_folder):
    for name, module in load_tables(*Family).items():
        columns = [column.name for column in module.COLUMNS]
        pd.DataFrame(columns=columns).to_csv(tmp_path / f"{name}.csv", index=False)
    claims = project_folder / "config" / "claims.yaml"
    write_ledger(claims, tmp_path, list(Family))
    written = pd.read_csv(tmp_path / "claims.csv")
    assert set(written["claim"]) == set(load_claims(claims))
    assert set(written["verdict"]) == {Verdict.NOT_TESTABLE.value}
    assert pd.read_csv(tmp_path / "claim_points.csv").empty


def test_every_committed_claim_names_what_is_there(project_folder):
    columns = {
        name: {column.name for column in module.COLUMNS}
        for name, module in load_tables(*Family).items()
    }
    for name, one in load_claims(project_folder / "config" / "claims.yaml").items():
        assert one.figure in FIGURES, name
        assert one.metric.table in TABLES, name
        assert set(one.metric.where) <= columns[one.metric.table], name
        if one.min_num_parameters:
            assert one.scale_reason, name


def test_claims_that_are_none_are_refused_with_their_place(tmp_path):
    file = tmp_path / "claims.yaml"
    file.write_text("one: {paper: '2605.23296', locator: x}\n")
    with pytest.raises(ConfigError, match=r"one.statement: Field required"):
        load_claims(Path(file))


def test_rows_of_both_tables_agree():
    judged = judge({"c": claim()}, {"t": table((2, 1.5, 2.5, 8), (0.5, 0.3, 0.7, 8))})
    claims, points = build_claims(judged), build_points(judged)
    assert len(points) == claims["num_points"].iloc[0] == 2
    assert points["value"].iloc[0] == claims["value"].iloc[0] == 0.5
    assert points["verdict"].iloc[0] == claims["verdict"].iloc[0] == Verdict.CONTRADICTED.value
