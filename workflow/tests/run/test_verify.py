"""Verifying a run: what is damaged is named, and put out of the way when asked."""

import contextlib
from pathlib import Path

import pytest

from blockwise.artifacts import write_bytes
from blockwise.command_line import call
from blockwise.errors import ArtifactError
from blockwise.run import verify as verifying
from blockwise.run.manifest import write_manifest
from blockwise.run.verify import verify
from blockwise.tables.columns import csv_bytes, frame
from blockwise.tables.compaction import engine_cards
from record_factory import comparison, store_batch


@pytest.fixture
def run(tmp_path):
    """A finished run in the current folder: one table, one figure, one batch with its cells."""
    with contextlib.chdir(tmp_path):
        results = Path("results/default")
        table, figure = results / "tables/engine_cards.csv", results.parent.parent / "one.png"
        write_bytes(table, csv_bytes(frame([], engine_cards.COLUMNS)))
        write_bytes(figure, b"png")
        batch, store = store_batch(tmp_path / "made", comparison(2))
        (results / "runs/compaction/b").mkdir(parents=True)
        store.rename(results / "cells")
        batch = batch.rename(results / "runs/compaction/b/d.json")
        write_manifest(results / "MANIFEST.json", [table, figure, batch])
        yield results


def test_an_undamaged_run_has_no_problems(run, capsys):
    assert verify(run, repair=False) == []
    call(verifying.command, [str(run)])
    assert "all 3 files and their cells are as the run left them" in capsys.readouterr().out


def test_a_damaged_cell_is_named_and_its_batch_deleted_so_that_it_runs_again(run):
    cell = sorted((run / "cells/timing_blocks").iterdir())[0]
    cell.write_text(cell.read_text().replace("2", "3", 1))
    batch = run / "runs/compaction/b/d.json"
    (problem,) = verify(run, repair=False)
    assert str(cell) in problem
    assert batch.exists()
    verify(run, repair=True)
    assert (batch.exists(), cell.exists()) == (False, True)  # the store sets it aside when read


def test_a_damaged_table_is_named_and_deleted_so_that_it_is_made_again(run):
    table = run / "tables/engine_cards.csv"
    table.write_bytes(table.read_bytes() + b"x\n")
    assert verify(run, repair=False) == [f"{table}: damaged or edited since the run"]
    verify(run, repair=True)
    assert not table.exists()
    # With it Snakemake would find nothing to do: it misses no file that only others need.
    assert not (run / "MANIFEST.json").exists()


def test_a_repair_of_nothing_leaves_a_finished_run(run):
    assert verify(run, repair=True) == []
    assert (run / "MANIFEST.json").exists()


def test_a_table_of_other_code_is_named(run):
    table = run / "tables/engine_cards.csv"
    write_bytes(table, b"other,columns\n")
    write_manifest(run / "MANIFEST.json", [table])
    assert verify(run, repair=False) == [f"{table}: its columns are not those of this code"]


def test_the_command_ends_with_what_to_do(run):
    (run / "tables/engine_cards.csv").unlink()
    with pytest.raises(ArtifactError, match=r"1 artifacts are damaged; `make verify REPAIR=1`"):
        call(verifying.command, [str(run)])


def test_a_run_that_has_not_finished_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match=r"cannot read .*MANIFEST\.json"):
        verify(tmp_path, repair=False)
