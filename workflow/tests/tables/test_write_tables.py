import csv
import subprocess
import sys

import pandas as pd
import pytest

from blockwise.artifacts import digest_file, read_json, write_model
from blockwise.claims.ledger import TABLES as LEDGER_TABLES
from blockwise.claims.ledger import write_ledger
from blockwise.compaction.judgements import Judgements
from blockwise.compaction.similarity import Similarities
from blockwise.errors import ArtifactError
from blockwise.report.data_dictionary import write_dictionary
from blockwise.tables.columns import ColumnKind, count, csv_bytes, flag, frame, number, text
from blockwise.tables.inputs import TableInputs
from blockwise.tables.registry import TABLES, Family, load_tables, tables_of
from blockwise.tables.write import CompactionSources, build_tables, write_tables
from record_factory import comparison, loaded, record, store_batch

TABLE_NAMES = set(tables_of(Family.COMPACTION))
FACTS = {"compaction_cells", "compaction_events", "compaction_requests", "engine_cards"}


@pytest.fixture
def written(tmp_path, project_folder):
    batch, store = store_batch(tmp_path / "in", comparison(num_sessions=2))
    write_tables(CompactionSources([batch], store), tmp_path / "tables")
    claims = project_folder / "config" / "claims.yaml"
    write_ledger(claims, tmp_path / "tables", [Family.COMPACTION])
    write_dictionary([Family.COMPACTION], tmp_path / "tables" / "data_dictionary.csv")
    return tmp_path / "tables"


def test_every_column_has_an_entry_and_every_entry_a_column(written):
    with (written / "data_dictionary.csv").open() as stream:
        entries = list(csv.DictReader(stream))
    listed = [(entry["table"], entry["column"]) for entry in entries]
    columns = []
    for path in written.glob("*.csv"):
        columns += [(path.stem, name) for name in pd.read_csv(path, nrows=0).columns]
    assert len(set(listed)) == len(listed)
    assert set(listed) == set(columns)
    assert {entry["kind"] for entry in entries} == {kind.value for kind in ColumnKind}
    assert all(entry["meaning"].endswith(".") for entry in entries)


def test_units_stand_in_the_column_names(written):
    endings = {"s": "_s", "tokens": "_tokens", "tokens/s": "_tokens_per_s"}
    with (written / "data_dictionary.csv").open() as stream:
        for entry in csv.DictReader(stream):
            if entry["unit"] in endings:
                assert entry["column"].endswith(endings[entry["unit"]]), entry


def test_all_tables_are_written_and_those_with_cells_are_not_empty(written):
    expected = {*TABLE_NAMES, *LEDGER_TABLES, "data_dictionary"}
    assert {path.stem for path in written.glob("*.csv")} == expected
    for name in (*FACTS, "compaction_end_to_end", "data_dictionary"):
        assert len(pd.read_csv(written / f"{name}.csv")), name


def test_the_registry_knows_the_tables_of_facts_and_no_machinery():
    assert TABLES.keys() >= FACTS
    assert set(load_tables(*Family)) == set(TABLES)
    for name, module in load_tables(*Family).items():
        assert module.__name__ == TABLES[name]
        assert module.build(TableInputs()).empty
        assert [column.name for column in module.COLUMNS] == list(module.build(TableInputs()))


def test_the_same_input_gives_the_same_bytes_whatever_its_order(tmp_path):
    small, _ = store_batch(tmp_path, comparison(1, backbone="a", num_parameters=2e6), "a")
    large, store = store_batch(tmp_path, comparison(1, backbone="b"), "b")
    write_tables(CompactionSources([small, large], store), tmp_path / "first")
    write_tables(CompactionSources([large, small], store), tmp_path / "second")
    for name in TABLE_NAMES:
        first, second = (tmp_path / folder / f"{name}.csv" for folder in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()


def test_provenance_names_the_batches(tmp_path):
    batch, store = store_batch(tmp_path / "in", comparison(1))
    write_tables(CompactionSources([batch], store), tmp_path / "tables")
    provenance = read_json(tmp_path / "tables" / "PROVENANCE.json")
    assert provenance["batches"] == [{"name": "in/batch.json", "sha256": digest_file(batch)}]
    assert provenance["code_digest"]
    assert provenance["began_at"] == "2026-01-01T00:00:00+00:00"


def test_what_was_measured_on_the_cells_afterwards_is_read_and_named(tmp_path):
    similarities = Similarities(
        backbone="smollm2-135m", dataset="hotpotqa", embedder=None, groups=()
    )
    judgements = Judgements(
        backbone="smollm2-135m",
        dataset="hotpotqa",
        judge=None,
        omitted_reason="no judge",
        errors=None,
        verdicts=(),
    )
    paths = tmp_path / "similarity" / "d.json", tmp_path / "judge" / "d.json"
    write_model(paths[0], similarities)
    write_model(paths[1], judgements)
    batch, store = store_batch(tmp_path / "in", comparison(1))
    sources = CompactionSources([batch], store, similarities=paths[:1], judgements=paths[1:])
    inputs = sources.load()
    assert (inputs.similarities, inputs.judgements) == ([similarities], [judgements])
    write_tables(sources, tmp_path / "tables")
    provenance = read_json(tmp_path / "tables" / "PROVENANCE.json")
    assert provenance["similarities"][0]["name"] == "similarity/d.json"
    assert provenance["judgements"][0]["sha256"] == digest_file(paths[1])


def test_no_cell_at_all_is_an_error(tmp_path):
    batch, store = store_batch(tmp_path, [])
    with pytest.raises(ArtifactError, match="1 batches select 0 cells"):
        CompactionSources([batch], store).load()


def test_recall_cells_alone_give_an_empty_comparison(tmp_path):
    batch, store = store_batch(tmp_path, [loaded(record(spec={"protocol": "deferred"}))])
    tables = build_tables(Family.COMPACTION, CompactionSources([batch], store).load())
    assert len(tables["compaction_cells"]) == 1
    assert tables["compaction_end_to_end"].empty


def test_csv_form_of_every_type():
    columns = [
        text("name", "N."),
        count("num", "N."),
        number("x", "X.", ColumnKind.TIMED, "1"),
        flag("yes", "Y."),
    ]
    rows = [
        {"name": 'a,"b"', "num": 3, "x": 0.1 + 0.2, "yes": True},
        {"name": None, "num": None, "x": None, "yes": None},
        {"name": "nan", "num": 0, "x": float("nan"), "yes": False},
    ]
    assert csv_bytes(frame(rows, columns)).decode() == (
        'name,num,x,yes\n"a,""b""",3,0.3,true\n,,,\nnan,0,,false\n'
    )


def command_line(folder, store, *batches):
    command = [sys.executable, "-m", "blockwise.tables.write", "compaction"]
    return subprocess.run(
        [
            *command,
            *("--batches", *map(str, batches)),
            *("--store", str(store), "--output-dir", str(folder / "tables")),
        ],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_batch_that_names_a_damaged_record_is_deleted(tmp_path):
    batch, store = store_batch(tmp_path, comparison(2))
    sound, _ = store_batch(tmp_path, [], "sound")
    lost, cut, *_ = sorted((store / "timing_blocks").iterdir())
    lost.unlink()
    cut.write_text(cut.read_text()[:100])
    done = command_line(tmp_path, store, batch, sound)
    assert done.returncode == 2
    assert f"cannot read {lost}" in done.stderr
    assert f"{cut} is not valid JSON" in done.stderr
    assert "Run the same command again: only what is damaged runs" in done.stderr
    assert (batch.exists(), sound.exists(), cut.exists()) == (False, True, True)


def test_a_damaged_batch_is_deleted(tmp_path):
    batch, store = store_batch(tmp_path, comparison(1))
    batch.write_text(batch.read_text()[:-10])
    done = command_line(tmp_path, store, batch)
    assert done.returncode == 2
    assert f"{batch} is not valid JSON" in done.stderr
    assert f"deleted {batch}" in done.stderr
    assert not batch.exists()
    assert list(store.rglob("*.json"))


def test_the_command_line_refuses_without_a_traceback(tmp_path):
    done = command_line(tmp_path, tmp_path, "absent.json")
    assert done.returncode == 2
    assert done.stderr.startswith("error: cannot read absent.json")
    assert not (tmp_path / "tables").exists()
