"""The whole workflow on a real vLLM server: what it makes, what it keeps, what it runs again.

The workflow talks to the session's shared server as an external engine; the managed server has
its own test (test_interrupted_run.py).
"""

import csv
import json
import re
from itertools import product
from pathlib import Path

import pytest
from workspace import SMALL_TIMING, copy_workflow, run_snakemake, stored_units, write_config

from blockwise.claims.verdicts import Verdict
from blockwise.config.arms import known_layouts
from blockwise.config.choices import Study
from blockwise.config.claims import load_claims
from blockwise.estimate.__main__ import estimate
from blockwise.estimate.bill import BYSTANDERS
from blockwise.estimate.hardware import gpu
from blockwise.figures.registry import figures_of
from blockwise.report.captions import CATEGORIES, title_of
from blockwise.tables.registry import Family, tables_of
from report.browser import CHROMIUM, WHY_NOT, chromium
from report.click_through import read_report

pytestmark = pytest.mark.engine

KEPT = ["length", "empty", "echo", "loop", "refusal"]  # random weights write no summaries
RECALL = {
    "study": "compaction_accuracy_volume",
    "tau_tokens": [2400],
    "block_sizes_tokens": [1024],
    "volume": {
        "mode": "natural",
        "sequential_max_tokens": 96,
        "worker_max_tokens": 32,
        "accept": KEPT,
    },
    "answer_tokens": 4,
}
ONE = {"datasets": ["hotpotqa"], "block_sizes_tokens": [512]}
FORCED = {"mode": "forced", "total_tokens": 64}
NATURAL = {
    "mode": "natural",
    "sequential_max_tokens": 32,
    "worker_max_tokens": 16,
    "accept": KEPT,
}
EXPERIMENTS = {
    "compaction_end_to_end": SMALL_TIMING,
    "recall": RECALL,
    "matched": {**SMALL_TIMING, **ONE, "study": "compaction_matched_volume"},
    "blocking": {**SMALL_TIMING, **ONE, "study": "compaction_blocking_share"},
    "layouts": {
        **ONE,
        "study": "compaction_layouts",
        "history_tokens": [2400],
        "layouts": known_layouts(),
        "volume": FORCED,
    },
    "load": {
        **ONE,
        "study": "compaction_under_load",
        "history_tokens": 1600,
        "volume": FORCED,
        "num_bystanders": [2],
        "bystanders": {"context_tokens": 256, "answer_tokens": 4, "num_alone_requests": 1},
    },
    "ahead": {
        **ONE,
        "study": "compaction_eager",
        "tau_tokens": [2400],
        "layouts": ["suffix_target"],
        "volume": {"mode": "forced", "worker_tokens": 16},
        "tool_waits_s": [0.1],
    },
    "strategies": {
        "study": "compaction_strategies",
        "datasets": ["hotpotqa"],
        "strategies": ["parallel", "rolling", "mask", "truncate"],
        "tau_tokens": 4000,
        "budget_tokens": 600,
        "worker_max_tokens": 32,
        "block_sizes_tokens": [1024],
        "accept": KEPT,
        "answer_tokens": 4,
        "num_sessions": 1,
    },
    "lengths": {
        "study": "compaction_length_invariance",
        "datasets": ["hotpotqa"],
        "history_tokens": [1200, 2400],
        "layouts": [],
        "volume": NATURAL,
    },
    "stability": {
        **ONE,
        "study": "compaction_stability",
        "history_tokens": [1600],
        "volume": NATURAL,
        "num_repeats": 2,
    },
    "volumes": {
        **ONE,
        "study": "compaction_volume_control",
        "history_tokens": [1600],
        "prompts": ["concise", "detailed"],
        "volume": NATURAL,
    },
    "prompts": {
        **RECALL,
        "study": "compaction_block_prompts",
        "datasets": ["hotpotqa"],
        "sequential": False,
        "block_prompts": {"evidence": "evidence"},
        "references": [],
    },
}


def external_backbone(engine_server, **changes):
    return {
        "model": {"source": "path", "path": engine_server.model.path},
        "architecture": "dense",
        "reasoning": False,
        "num_parameters": 1e6,
        "context_window_tokens": engine_server.backbone.context_window_tokens,
        "engine": {
            "kind": "external",
            "url": engine_server.server.base_url,
            "served_model": engine_server.server.served_model,
            "version": "the test session's vLLM",
            "cache_salt": True,
        },
        "caption": "random weights: timing only",
        **changes,
    }


@pytest.fixture(scope="module")
def finished(engine_server, tmp_path_factory, project_folder):
    folder = copy_workflow(project_folder, tmp_path_factory.mktemp("end_to_end"))
    config = write_config(folder, {"tiny": external_backbone(engine_server)}, None, EXPERIMENTS)
    status, said = run_snakemake(folder, "--configfile", config)
    assert status == 0, said
    return folder, config


def table(folder, name):
    with (folder / f"results/small/tables/{name}.csv").open() as stream:
        return list(csv.DictReader(stream))


def test_every_table_and_figure_is_there_and_verified(finished):
    folder, _ = finished
    tables, figures = tables_of(Family.COMPACTION), figures_of(Family.COMPACTION)
    for name in (*tables, "data_dictionary"):
        assert table(folder, name), name
    assert set(figures) >= set(Study)
    for name, suffix in product(figures, ("pdf", "png", "csv")):
        assert (folder / f"figures/small/{name}.{suffix}").stat().st_size > 100
    manifest = json.loads((folder / "results/small/MANIFEST.json").read_text())
    assert len(manifest["files"]) >= len(tables) + 3 * len(figures)
    assert "results/small/config.json" in manifest["files"]


def test_the_report_is_one_file_that_needs_nothing_else(finished):
    folder, config = finished
    status, said = run_snakemake(folder, "--configfile", config, "--report", "report.html")
    assert status == 0, said
    report = (folder / "report.html").read_text()
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"https?:", report)
    for figure in figures_of(Family.COMPACTION):
        assert title_of(figure) in report
    for category in ("1 Claims", "2 Context compaction", "4 Tables and provenance"):
        assert category in report


def test_the_crate_is_a_target_that_holds_what_the_manifest_lists(finished):
    folder, config = finished
    status, said = run_snakemake(folder, "crate", "--configfile", config)
    assert status == 0, said
    assert re.findall(r"(?:local)?rule (\w+):", said) == ["crate"]
    crate = folder / "results/small/crate"
    graph = json.loads((crate / "ro-crate-metadata.json").read_text())["@graph"]
    (run,) = [entity for entity in graph if entity["@type"] == "CreateAction"]
    assert run["startTime"] < run["endTime"]
    listed = json.loads((folder / "results/small/MANIFEST.json").read_text())["files"]
    kept = [name for name in listed if "/runs/" not in name]
    assert all((crate / name).read_bytes() == (folder / name).read_bytes() for name in kept)


@pytest.mark.skipif(CHROMIUM is None, reason=WHY_NOT)
@pytest.mark.parametrize("width", [1280, 400])
def test_a_reader_gets_everywhere_in_the_report(finished, tmp_path, width):
    folder, _ = finished
    report = folder / "report.html"  # of the test above
    if not report.exists():
        pytest.skip("the test that writes the report did not run")
    figures = [title_of(figure) for figure in figures_of(Family.COMPACTION)]
    with chromium(tmp_path / "profile") as browser:
        read_report(
            browser,
            report,
            width,
            figures={CATEGORIES[Family.COMPACTION]: figures},
            tables=[*tables_of(Family.COMPACTION), "provenance", "data_dictionary"],
            claim="parallel",
        )


def test_the_ledger_judges_every_claim(finished):
    folder, _ = finished
    claims = {row["claim"]: row for row in table(folder, "claims")}
    assert claims.keys() == load_claims(folder / "config" / "claims.yaml").keys()
    assert {row["verdict"] for row in claims.values()} <= {verdict.value for verdict in Verdict}
    faster = claims["parallel-is-faster-end-to-end"]
    assert faster["value"]
    points = [row for row in table(folder, "claim_points") if row["claim"] == faster["claim"]]
    assert len(points) == int(faster["num_points"])


def test_experiments_share_their_cells(finished):
    cells = {row["experiment"]: [] for row in table(finished[0], "compaction_cells")}
    for row in table(finished[0], "compaction_cells"):
        cells[row["experiment"]].append(row["cell_key"])
    assert set(cells["matched"]) == set(cells["blocking"]) < set(cells["compaction_end_to_end"])


def test_no_cell_was_invalid(finished):
    reasons = {row["timing_invalid_reasons"] for row in table(finished[0], "compaction_cells")}
    assert reasons == {""}


def timing_cells(folder):
    return [
        row
        for row in table(folder, "compaction_cells")
        if row["experiment"] == "compaction_end_to_end"
    ]


def timing_events(folder):
    keys = {row["cell_key"] for row in timing_cells(folder)}
    return [row for row in table(folder, "compaction_events") if row["cell_key"] in keys]


def test_both_modes_did_the_same_work(finished):
    cells = timing_cells(finished[0])
    for dataset in ("hotpotqa", "locomo"):
        rows = [row for row in cells if row["dataset"] == dataset]
        assert len(rows) == 2
        assert len({row["timing_block_id"] for row in rows}) == 1
        assert len({row["num_turns"] for row in rows}) == 1
        assert all(int(row["num_compactions"]) >= 1 for row in rows)
    first = {}
    for row in timing_events(finished[0]):
        if row["compaction_index"] == "0":
            first.setdefault(row["dataset"], []).append(row)
    assert [len(rows) for rows in first.values()] == [2, 2]
    for rows in first.values():
        assert len({row["turn_index"] for row in rows}) == 1
        assert {row["output_tokens"] for row in rows} == {"64"}
        assert len({row["history_before_tokens"] for row in rows}) == 1


def test_sequential_reads_its_history_from_the_cache(finished):
    for row in timing_events(finished[0]):
        if row["num_blocks"] == "1":
            assert int(row["uncached_tokens"]) < 400  # the prompt and two KV blocks
        else:  # each worker reads its own history block again
            assert int(row["uncached_tokens"]) > int(row["input_tokens"])


def test_recall_cells_asked_after_the_closing_compaction(finished):
    rows = [row for row in table(finished[0], "compaction_cells") if row["experiment"] == "recall"]
    arms = ("sequential", "target_block", "closed_book", "full_history")
    assert sorted(row["arm"] for row in rows) == sorted(2 * arms)
    assert all(int(row["num_answers"]) >= 3 for row in rows)
    assert all(row["timing_block_id"] == "" for row in rows)


def test_the_estimate_agrees_with_the_run(finished, monkeypatch):
    folder, config = finished
    monkeypatch.chdir(folder)
    bill = estimate([Path(config)], None, gpu(80, 1000, 3000))
    assert bill.warnings == ()
    assert any("speed from engine cards" in text for text in bill.assumptions)
    cells = {row["cell_key"]: row for row in table(folder, "compaction_cells")}
    requests = table(folder, "compaction_requests")
    for dataset in ("hotpotqa", "locomo"):
        lines = [one for one in bill.lines if one.dataset == dataset and one.stage != BYSTANDERS]
        own = [row for row in cells.values() if row["dataset"] == dataset]
        assert sum(line.num_cells for line in lines) == len(own)
        sent = [row for row in requests if row["dataset"] == dataset]
        # Bystanders ask for as long as a compaction lasts: no plan holds their number.
        sure = [row for row in sent if row["role"] != "bystander" or row["compaction_index"] == ""]
        assert sum(line.num_requests for line in lines) == len(sure)
        tokens = sum(int(row["prompt_tokens"]) for row in sure)
        estimated = sum(line.prompt_tokens for line in lines)
        assert estimated == pytest.approx(tokens, rel=0.05), dataset
    (meanwhile,) = [line for line in bill.lines if line.stage == BYSTANDERS]
    assert meanwhile.num_requests > 0
    timed_s = sum(float(row["wall_s"]) for row in cells.values() if row["timing_block_id"])
    estimated_s = 3600 * sum(line.wall_h for line in bill.lines if line.stage == "timing")
    assert timed_s / 1.5 < estimated_s < timed_s * 1.5


def test_a_second_run_has_nothing_to_do(finished):
    folder, config = finished
    before = stored_units(folder)
    status, said = run_snakemake(folder, "--configfile", config)
    assert status == 0
    assert "Nothing to be done" in said
    assert stored_units(folder) == before


def test_another_backbone_runs_its_own_cells_only(finished, engine_server):
    folder, config = finished
    before = stored_units(folder)
    third = external_backbone(engine_server, request={"chat_template_arguments": {"x": 1}})
    both = {"tiny": external_backbone(engine_server), "third": third}
    write_config(folder, both, None, EXPERIMENTS)
    status, said = run_snakemake(folder, "--configfile", config)
    assert status == 0, said
    assert said.count("localrule run_compaction:") == 2
    batches = said.split("localrule run_compaction:")[1:]
    assert all("backbone=third" in part.split("threads:")[0] for part in batches)
    after = stored_units(folder)
    assert {name: after[name] for name in before} == before
    assert len(after) == 2 * len(before)
    assert {row["backbone"] for row in table(folder, "compaction_cells")} == {"tiny", "third"}


def test_rebuilt_tables_and_figures_are_byte_identical(finished):
    folder, config = finished
    files = [
        *(folder / "results/small/tables").glob("*.csv"),
        *(folder / "figures/small").iterdir(),
    ]
    before = {path: path.read_bytes() for path in files}
    status, said = run_snakemake(
        folder, "--configfile", config, "--forcerun", "tabulate_compaction", "plot_figure"
    )
    assert status == 0, said
    assert {path: path.read_bytes() for path in files} == before


def test_a_damaged_cell_runs_again_and_nothing_else_does(finished):
    folder, config = finished
    before = stored_units(folder)
    name = next(name for name in before if name.startswith("cells/"))
    damaged = folder / "results/small/cells" / name
    damaged.write_text(before[name].decode()[:-40])
    cells = "results/small/tables/compaction_cells.csv"
    same_command = (cells, "--configfile", config, "--forcerun", "tabulate_compaction")
    status, said = run_snakemake(folder, *same_command)
    assert status != 0
    assert damaged.name in said
    assert "Run the same command again" in said
    status, said = run_snakemake(folder, *same_command)
    assert status == 0, said
    assert f"{damaged.stem}.damaged" in said
    after = stored_units(folder)
    assert set(after) == set(before)
    assert [key for key in before if after[key] != before[key]] == [name]
