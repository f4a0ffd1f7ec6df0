"""The claims table of the README, written from the ledger of the reference run.

It stands between two marks; nobody edits it by hand, and `make reference` writes it again.
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import Any

import pandas as pd

from blockwise.claims.verdicts import Verdict
from blockwise.errors import ArtifactError
from blockwise.report.pages import SIGNS, by_verdict, estimate_words, verdict_counts

BEGIN = "<!-- claims of the reference run: written by `make reference` -->"
END = "<!-- end of the claims -->"
HEAD = ["| verdict | claim | reported | this run | why |", "|---|---|---|---|---|"]


def claims_section(claims: pd.DataFrame) -> str:
    """The claims of `claims.csv` as Markdown: what was tested, and the rest folded away."""
    untested = claims["verdict"] == Verdict.NOT_TESTABLE
    lines = [
        f"**{verdict_counts(claims)}.**",
        "",
        *_rows(by_verdict(claims[~untested]).to_dict("records")),
        "",
        f"<details><summary>{int(untested.sum())} claims that this scale cannot test</summary>",
        "",
        *_rows(claims[untested].to_dict("records")),
        "",
        "</details>",
    ]
    return "\n".join(lines)


def _rows(claims: Iterable[Mapping[Hashable, Any]]) -> Iterator[str]:
    yield from HEAD
    for claim in claims:
        sign, _ = SIGNS[Verdict(claim["verdict"])]
        cells = (
            f"{sign} {claim['verdict']}",
            f"{claim['statement']} ({claim['paper']}, {claim['place']})",
            f"{claim['reported']} ({claim['grade']})",
            estimate_words(claim),
            str(claim["reason"]),
        )
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def with_claims(readme: str, claims: pd.DataFrame) -> str:
    """The README with the section of these claims.

    Raises:
        ArtifactError: it has lost the marks between which the section stands.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ArtifactError(f"README.md has no place for the claims; put {BEGIN} and {END} there")
    return f"{before}{BEGIN}\n{claims_section(claims)}\n{END}{after}"
