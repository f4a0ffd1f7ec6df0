"""A claims file of anybody's: refused in words, or judged; and shown as text in the report."""

import contextlib
import json

import pandas as pd
import pytest
import yaml
from hostile_values import REPEATABLE, spoilt, values, words
from hypothesis import example, given, settings
from hypothesis import strategies as st

from blockwise.claims.ledger import build_claims, build_points
from blockwise.claims.verdicts import judge
from blockwise.config.claims import Claim, load_claims
from blockwise.errors import ConfigError
from blockwise.report.data_dictionary import write_dictionary
from blockwise.report.pages import CLAIMS_PAGE, unpacked, write_pages
from blockwise.tables.columns import csv_bytes
from blockwise.tables.registry import Family, load_tables
from blockwise.tables.write import PROVENANCE

SHARED = {
    "paper": "2605.23296",
    "locator": "abstract",
    "statement": "It gains.",
    "reported": {"text": "2", "effect": 2.0, "grade": "secondary"},
    "unit": "1",
    "rule": {"kind": "above", "than": 1},
    "min_num_parameters": 0,
    "scale_reason": "any model can tell",
    "figure": "compaction_layouts",
}
COUNTED = {"table": "t", "replication": "server start"}
METRICS = (
    {"kind": "estimate", "name": "gain", "where": {"arm": "ours"}, **COUNTED},
    {
        "kind": "slope",
        **COUNTED,
        "x": "size",
        "y": "gain_mean",
        "cluster": "seed",
        "by": ["arm"],
    },
    {
        "kind": "difference",
        **COUNTED,
        "value": "gain_mean",
        "own": {"arm": "ours"},
        "reference": {"arm": "theirs"},
        "cluster": "seed",
        "by": ["note"],
    },
)
CLAIMS = {f"claim-{metric['kind']}": {**SHARED, "metric": metric} for metric in METRICS}
TABLE = pd.DataFrame(
    [
        {
            "arm": arm,
            "seed": seed,
            "size": 10 * repeat,
            "note": None if seed else "a",
            "num_parameters": 1e6,
            "gain_mean": 1.0 + seed + repeat,
            "gain_low": 0.5,
            "gain_high": None,
            "gain_num_clusters": 8,
        }
        for arm in ("ours", "theirs")
        for seed in range(2)
        for repeat in range(2)
    ]
)
IMAGE = '<img src=x onerror="alert(1)">'


@settings(max_examples=100, **REPEATABLE)
@given(spoilt(CLAIMS))
def test_spoilt_claims_are_refused_in_words_or_judged(tmp_path_factory, claims):
    file = tmp_path_factory.getbasetemp() / "claims.yaml"
    file.write_text(yaml.safe_dump(claims))
    with contextlib.suppress(ConfigError):
        judged = judge(load_claims(file), {"t": TABLE})
        csv_bytes(build_claims(judged))
        csv_bytes(build_points(judged))


columns = st.sampled_from([*TABLE.columns]) | words


@settings(max_examples=80, **REPEATABLE)
@given(
    st.one_of(
        st.fixed_dictionaries(
            {
                "kind": st.just("estimate"),
                "name": columns,
                "where": st.dictionaries(columns, values),
                "at_most": st.dictionaries(columns, st.floats(), max_size=1),
                "without": st.dictionaries(columns, words, max_size=1),
                "by": st.lists(columns, max_size=2),
                "null": words,
                "gate": columns,
            }
        ),
        st.fixed_dictionaries(
            {
                "kind": st.just("slope"),
                "x": columns,
                "y": columns,
                "cluster": columns,
                "by": st.lists(columns, max_size=2),
            }
        ),
        st.fixed_dictionaries(
            {
                "kind": st.just("difference"),
                "value": columns,
                "own": st.dictionaries(columns, words, max_size=1),
                "reference": st.dictionaries(columns, words, max_size=1),
                "cluster": columns,
                "by": st.lists(columns, max_size=2),
                "paired_by": st.lists(columns, max_size=2),
            }
        ),
    )
)
@example({"kind": "estimate", "name": "arm", "where": {}})
@example({"kind": "slope", "x": "arm", "y": "note", "cluster": "seed", "by": ["arm"]})
@example({"kind": "slope", "x": "size", "y": "gain_mean", "cluster": "seed", "by": []})
@example(
    {
        "kind": "difference", "value": "arm", "own": {}, "reference": {}, "cluster": "seed",
        "by": ["arm"],
    }
)  # fmt: skip
def test_a_metric_of_any_columns_is_refused_in_words_or_measured(metric):
    try:
        claim = Claim.model_validate({**SHARED, "metric": {**metric, **COUNTED}})
    except ValueError:
        return  # as `load_claims` says in words
    with contextlib.suppress(ConfigError):
        csv_bytes(build_claims(judge({"c": claim}, {"t": TABLE})))


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    for name, module in load_tables(Family.MXFP4).items():
        names = [column.name for column in module.COLUMNS]
        pd.DataFrame(columns=names).to_csv(folder / f"{name}.csv", index=False)
    made_by = {"commit": IMAGE, "dirty": False, "host": IMAGE, "written_at": "now"}
    made_by |= {"command": IMAGE, "packages": {"torch": IMAGE}}
    (folder / PROVENANCE[Family.MXFP4]).write_text(json.dumps(made_by))
    write_dictionary([Family.MXFP4], folder / "data_dictionary.csv")
    return folder


def test_markup_in_a_claim_is_text_in_the_report(tables, tmp_path):
    marked = {
        **SHARED,
        "statement": IMAGE,
        "locator": IMAGE,
        "reported": {"text": IMAGE, "grade": "primary"},
        "metric": {**METRICS[0], "name": IMAGE},
        "scale_reason": IMAGE,
    }
    judged = judge({"c": Claim.model_validate(marked)}, {})
    (tables / "claims.csv").write_bytes(csv_bytes(build_claims(judged)))
    (tables / "claim_points.csv").write_bytes(csv_bytes(build_points(judged)))
    write_pages(tables, [Family.MXFP4], tmp_path)
    for page in tmp_path.iterdir():
        assert IMAGE not in unpacked(page.read_text()), page.name
    assert "&lt;img src=x" in unpacked((tmp_path / CLAIMS_PAGE).read_text())
