"""Pages of the report: the claims with the points behind them, and every table to be searched.

`python -m blockwise.report.pages --tables DIR --families compaction mxfp4 --output-dir DIR`

Each page is one file that needs nothing else: the library that sorts and searches the tables
(DataTables, through itables) lies in it. The report holds pages as data URIs, and Chromium leaves
a frame of more than 2 MiB of URI blank, so a page is packed: gzip, which browsers undo themselves.
"""

import argparse
import base64
import gzip
import json
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
from itables import to_html_datatable
from itables.javascript import generate_init_offline_itables_html

from blockwise.artifacts import write_bytes
from blockwise.claims.ledger import TABLES as LEDGER_TABLES
from blockwise.claims.ledger import read_tables
from blockwise.claims.verdicts import Verdict
from blockwise.config.claims import Paper
from blockwise.errors import run_command
from blockwise.report.data_dictionary import TABLE_NAME as DICTIONARY
from blockwise.tables.registry import Family
from blockwise.tables.write import PROVENANCE

CLAIMS_PAGE, TABLES_PAGE = "claims.html", "tables.html"
MAX_PAGE_BYTES = 1_500_000  # as a data URI, a third more, it stays below Chromium's 2 MiB
SIGNS = {
    Verdict.SUPPORTED: ("\N{HEAVY CHECK MARK}", "#0072b2"),
    Verdict.CONTRADICTED: ("\N{HEAVY BALLOT X}", "#d55e00"),
    Verdict.INCONCLUSIVE: ("?", "#595959"),
    Verdict.CANNOT_DO: ("\N{EMPTY SET}", "#595959"),
    Verdict.NOT_MEASURED: ("\N{HORIZONTAL ELLIPSIS}", "#595959"),
    Verdict.NOT_TESTABLE: ("\N{EN DASH}", "#595959"),
}
"""Sign and colour of each verdict: the sign says it without the colour."""

STYLE = """
body { font-family: system-ui, sans-serif; margin: 1rem; color: #111; background: #fff; }
h1 { font-size: 1.3rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
p { max-width: 50rem; line-height: 1.4; }
.scroll { overflow-x: auto; }
table { font-size: 0.85rem; } td { vertical-align: top; }
:is(.claims, .own) td { overflow-wrap: anywhere; }
:is(.claims, .own) :is(th:nth-child(1), th:nth-child(4), th:nth-child(5)) { width: 18%; }
:is(.claims, .own) th:nth-child(2) { width: 22%; }
:is(.claims, .own) th:nth-child(3) { width: 11%; }
@media (max-width: 40rem) {
  :is(.claims, .own) thead { display: none; }
  :is(.claims, .own) :is(table, tbody, tr, td) { display: block; width: auto !important; }
  :is(.claims, .own) tr { border-top: 2px solid #999; padding: 0.4rem 0; }
  :is(.claims, .own) td:nth-child(n+3)::before { font-weight: bold; }
  :is(.claims, .own) td:nth-child(3)::before { content: "reported: "; }
  :is(.claims, .own) td:nth-child(4)::before { content: "ours: "; }
  :is(.claims, .own) td:nth-child(5)::before { content: "points: "; }
  :is(.claims, .own) td:nth-child(6)::before { content: "figure: "; }
}
details ul { margin: 0.3rem 0; padding-left: 1.1rem; } details li { margin-bottom: 0.4rem; }
nav a { margin-right: 0.8rem; white-space: nowrap; }
"""

PACKED = "data:application/gzip;base64,"
UNPACK = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>blockwise</title></head><body>
<noscript>This page needs JavaScript; the same tables lie in tables/ as CSV.</noscript>
<script>
const bytes = Uint8Array.from(atob("CONTENT".split(",")[1]), (one) => one.charCodeAt(0));
const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
new Response(stream).text().then((page) => {
  document.open();
  document.write(page);
  document.close();
});
</script></body></html>
"""

WITHDRAWN = (
    "The verdicts on the claims are withdrawn until the repaired rules have judged a run on "
    "published models and real text, because those of earlier runs rest on random weights, on "
    "models trained in this repository and on bytes that a model had memorised."
)
"""What the README says in place of verdicts, and what stands above them on the page."""

CLAIMS_INTRO = """What this run says of each claim of the two papers, and of ours. A rule decides,
from the 95% interval of every point that it finds in the tables. The value shown is the least
favourable of these points; open the points of a claim to see all of them and the table each is a
row of. A secondary grade means that the reported value comes from somebody else's reading of the
paper, an implied one that no paper says it."""


def write_pages(tables_folder: Path, families: Sequence[Family], output_folder: Path) -> None:
    """Write the pages of a run whose tables and ledger are there."""
    claims, points = (pd.read_csv(tables_folder / f"{name}.csv") for name in LEDGER_TABLES)
    pages = {
        CLAIMS_PAGE: _packed(_page("Claims", _claims_body(claims, points))),
        TABLES_PAGE: _packed_tables(tables_folder, families),
    }
    for name, content in pages.items():
        write_bytes(output_folder / name, content.encode())


def unpacked(page: str) -> str:
    """The page that a packed one holds."""
    start = page.index(PACKED) + len(PACKED)
    return gzip.decompress(base64.b64decode(page[start : page.index('"', start)])).decode()


def _packed(page: str) -> str:
    content = base64.b64encode(gzip.compress(page.encode(), mtime=0)).decode()
    return UNPACK.replace("CONTENT", PACKED + content)


def _packed_tables(folder: Path, families: Sequence[Family]) -> str:
    """The page of all tables; the longest are left to their files where it would be too large."""
    left_out: list[str] = []
    tables = {
        **read_tables(folder, families),
        DICTIONARY: pd.read_csv(folder / f"{DICTIONARY}.csv"),
    }
    longest_first = sorted(tables, key=lambda name: tables[name].size, reverse=True)
    while True:
        body = _tables_body(tables, _provenance(folder, families), left_out)
        page = _packed(_page("Tables and provenance", body))
        if len(page) <= MAX_PAGE_BYTES or len(left_out) == len(tables):
            return page
        left_out.append(longest_first[len(left_out)])


def _page(title: str, body: Iterator[str]) -> str:
    bundle = files("itables") / "html" / "dt_bundle.js"
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>",
            generate_init_offline_itables_html(str(bundle)),
            f"<h1>{escape(title)}</h1>",
            *body,
            "</body></html>",
        ]
    )


def _claims_body(claims: pd.DataFrame, points: pd.DataFrame) -> Iterator[str]:
    yield f"<p><b>{escape(WITHDRAWN)}</b></p>"
    yield f"<p>{escape(CLAIMS_INTRO)}</p>"
    is_ours = claims["paper"] == Paper.OURS.value
    for paper, style, own in (
        (Paper.COMPACTION, "claims", claims[~is_ours]),
        (Paper.OURS, "own", claims[is_ours]),
    ):
        yield f"<h2>{escape(paper.section.capitalize())}</h2>"
        yield f"<p><b>{verdict_counts(own)}</b></p>"
        rows = [_claim_cells(claim, points) for claim in by_verdict(own).to_dict("records")]
        if rows:
            yield f'<div class="{style}">{_searchable(pd.DataFrame(rows), allow_html=True)}</div>'


def verdict_counts(claims: pd.DataFrame) -> str:
    """How many claims have each verdict, in words."""
    counts = claims["verdict"].value_counts()
    return ", ".join(f"{counts.get(one.value, 0)} {one.value}" for one in Verdict)


def by_verdict(claims: pd.DataFrame) -> pd.DataFrame:
    """The claims in the order of their verdicts, and of the ledger inside one."""
    order = list(Verdict)
    return claims.sort_values("verdict", key=lambda words: words.map(order.index), kind="stable")


def _claim_cells(claim: Mapping[Hashable, Any], points: pd.DataFrame) -> dict[str, str]:
    own = points[points["claim"] == claim["claim"]]
    sign, colour = SIGNS[Verdict(claim["verdict"])]
    verdict = escape(claim["verdict"])
    return {
        "verdict": f'<b style="color:{colour}">{sign} {verdict}</b><br>{_text(claim["reason"])}',
        "claim": f"{_text(claim['statement'])}<br><small>arXiv {_text(claim['paper'])}, "
        f"{_text(claim['locator'])}</small>",
        "reported": f"{_text(claim['reported'])}<br><small>{_text(claim['grade'])}</small>",
        "ours": f"{escape(estimate_words(claim))}<br><small>{escape(scale_words(claim))}<br>"
        f"{_text(claim['metric'])}; supported if {_text(claim['rule'])}</small>",
        "points": _points(own),
        "figure": _text(claim["figure"]),
    }


def _points(points: pd.DataFrame) -> str:
    if points.empty:
        return "none"
    items = (
        f"<li>{_text(one['verdict'])}: {escape(estimate_words(one))}<br>"
        f"<small>{_text(one['table'])}: {_text(one['point'])}<br>{escape(scale_words(one))}<br>"
        f"{_text(one['reason'])}</small></li>"
        for one in points.to_dict("records")
    )
    return f"<details><summary>{len(points)}</summary><ul>{''.join(items)}</ul></details>"


def estimate_words(row: Mapping[Hashable, Any]) -> str:
    """An estimate of the ledger with its unit, interval and n, or a dash."""
    if pd.isna(row["value"]):
        return "-"
    floor = "" if pd.isna(row["floor"]) else f"; the last tokens: {row['floor']:.3g}"
    unit = "" if row["unit"] in {1, "1"} else f" {row['unit']}"
    return (
        f"{row['value']:.3g}{unit}{_interval(row['low'], row['high'])}, "
        f"n = {int(row['num_clusters'])} ({row['replication']}){floor}"
    )


def scale_words(row: Mapping[Hashable, Any]) -> str:
    """Model, window and data of a point, as far as they are known."""
    return "; ".join(str(row[name]) for name in ("model", "window", "data") if pd.notna(row[name]))


def _interval(low: float, high: float) -> str:
    if pd.isna(low) and pd.isna(high):
        return ""
    if pd.isna(high):
        return f" (above {low:.3g})"
    return f" (below {high:.3g})" if pd.isna(low) else f" ({low:.3g} to {high:.3g})"


def _text(value: Any) -> str:
    return "" if pd.isna(value) else escape(str(value), quote=False)


def _tables_body(
    tables: Mapping[str, pd.DataFrame], provenance: pd.DataFrame, left_out: Collection[str]
) -> Iterator[str]:
    links = (f'<a href="#{name}">{name}</a>' for name in ("provenance", *tables))
    yield f"<nav>{' '.join(links)}</nav>"
    yield '<h2 id="provenance">provenance</h2>'
    yield _searchable(provenance)
    for name, table in tables.items():
        yield f'<h2 id="{name}">{name}</h2>'
        if name in left_out:
            yield f"<p>{len(table)} rows, too many for this page: see tables/{name}.csv.</p>"
        else:
            yield _searchable(table) if len(table) else "<p>This run has no such rows.</p>"


def _provenance(folder: Path, families: Sequence[Family]) -> pd.DataFrame:
    """What made the tables: code, machine, packages."""
    rows = []
    for family in families:
        made = json.loads((folder / PROVENANCE[family]).read_text(encoding="utf-8"))
        facts = {key: made[key] for key in ("commit", "dirty", "host", "written_at", "command")}
        facts |= {f"package {name}": version for name, version in made["packages"].items()}
        rows += [
            {"tables": family.value, "what": key, "value": value} for key, value in facts.items()
        ]
    return pd.DataFrame(rows).astype(str)


def _searchable(table: pd.DataFrame, *, allow_html: bool = False) -> str:
    html = to_html_datatable(
        table,
        connected=False,
        allow_html=allow_html,
        showIndex=False,
        maxBytes=0,  # never cut short
        paging=len(table) > 50,
        classes="display compact",
        autoWidth=not allow_html,  # the style says how wide the columns of claims are
    )
    return f'<div class="scroll">{html}</div>'


def main() -> None:
    """Command line: the folder of the tables, which families it has, and where pages go."""
    parser = argparse.ArgumentParser(
        prog="python -m blockwise.report.pages", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--tables", type=Path, required=True, metavar="DIR")
    parser.add_argument("--families", type=Family, nargs="+", choices=list(Family), required=True)
    parser.add_argument("--output-dir", type=Path, required=True)
    arguments = parser.parse_args()
    write_pages(arguments.tables, arguments.families, arguments.output_dir)


if __name__ == "__main__":
    run_command(main)
