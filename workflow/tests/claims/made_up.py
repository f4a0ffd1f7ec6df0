"""Claims and tables that are made up, so that a verdict comes out as a test wants it."""

import pandas as pd

from blockwise.claims.verdicts import judge
from blockwise.config.claims import Claim

ESTIMATE = {
    "kind": "estimate",
    "table": "t",
    "name": "gain",
    "where": {"arm": "ours"},
    "replication": "server start",
}
ABOVE_1 = {"kind": "above", "than": 1}


def claim(**changes):
    return Claim.model_validate(
        {
            "paper": "2605.23296",
            "locator": "abstract",
            "statement": "It gains.",
            "reported": {"text": "2", "effect": 2.0, "grade": "secondary"},
            "metric": ESTIMATE,
            "unit": "1",
            "rule": ABOVE_1,
            "min_num_parameters": 0,
            "scale_reason": "any model can tell",
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
                "gate": "ok",
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
    """The claim, judged by one table or several."""
    (judged,) = judge({"c": one}, tables if isinstance(tables, dict) else {"t": tables})
    return judged


SUPPORTING, CONTRADICTING, HOLDING = (2, 1.5, 2.5, 8), (0.5, 0.3, 0.7, 8), (1.2, 0.8, 1.6, 8)
"""Rows that say so of `above 1`."""
