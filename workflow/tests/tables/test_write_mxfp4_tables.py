"""The MXFP4 tables as files: from batches and the store to CSV, and what is refused."""

import csv
import sys

import pandas as pd
import pytest

from blockwise.artifacts import digest_file, read_json, write_model
from blockwise.config.experiments import Study as CompactionStudy
from blockwise.config.mxfp4_studies import Study
from blockwise.errors import ArtifactError, ConfigError
from blockwise.mxfp4.records import Diagnostics, TrainingBatch
from blockwise.report import data_dictionary
from blockwise.tables import write
from blockwise.tables.columns import ColumnKind
from blockwise.tables.inputs import LoadedRun
from blockwise.tables.mxfp4.parts.training import load_runs
from blockwise.tables.registry import TABLES, Family, load_tables, tables_of
from blockwise.tables.write import MXFP4Sources, write_tables
from training_records import (
    ORIGIN,
    error_statistics,
    interventions,
    ladder,
    run,
    store_profile,
    store_runs,
    study,
    training,
)

NAMES = set(tables_of(Family.MXFP4))


@pytest.fixture
def settings():
    return study(
        ladder=ladder(["F", "F+D+W"], seeds=[0, 1]),
        repeated=interventions(["W"], seeds=[0, 1]),
    )


def runs_of(settings):
    return [
        run(settings, name, arm, seed=seed)
        for name, experiment in settings.experiments.items()
        for arm in experiment.all_arms()
        for seed in experiment.seeds
    ]


def test_every_study_and_the_facts_have_a_table():
    assert {study.value for study in Study} | {
        "mxfp4_runs",
        "mxfp4_losses",
        "mxfp4_layer_depths",
        "mxfp4_layer_medians",
        "mxfp4_layer_ratios",
        "mxfp4_operands",
        "mxfp4_seeds",
        "mxfp4_verdicts",
    } == NAMES
    assert {study.value for study in CompactionStudy} < set(tables_of(Family.COMPACTION))
    assert set(TABLES) == NAMES | set(tables_of(Family.COMPACTION))


def test_runs_come_in_the_order_of_the_configuration(tmp_path, settings):
    batches, store = store_runs(tmp_path, runs_of(settings))
    loaded = load_runs(settings, batches[::-1], store)
    assert [(one.experiment, one.arm, one.run.spec.seed) for one in loaded] == [
        (name, arm, seed)
        for name, arms in (("ladder", ("fp8", "F", "F+D+W")), ("repeated", ("fp32", "W")))
        for arm in arms
        for seed in (0, 1)
    ]


def test_two_experiments_may_share_a_run(tmp_path):
    settings = study(a=ladder(["F"]), b=ladder(["F"]))
    runs = [run(settings, name, arm) for name in ("a", "b") for arm in ("fp8", "F")]
    batches, store = store_runs(tmp_path, runs)
    assert len(list(store.rglob("*.json"))) == 2
    assert len(load_runs(settings, batches, store)) == 4


def refused(settings, tmp_path, runs, match):
    batches, store = store_runs(tmp_path, runs)
    with pytest.raises(ArtifactError, match=match):
        load_runs(settings, batches, store)


def test_a_run_that_the_configuration_does_not_ask_for_is_refused(tmp_path, settings):
    other = run(settings, "ladder", "W")
    posing = LoadedRun("ladder", "F", other.run)
    refused(settings, tmp_path / "recipe", [posing], r"run of F, seed 0, is of the recipe W.*rerun")
    refused(settings, tmp_path / "arm", [other], r"not what experiment ladder asks for")
    longer = study(ladder=ladder(["F"], training=training(num_steps=40)))
    runs = [run(longer, "ladder", "F")]
    refused(settings, tmp_path / "schedule", runs, "another schedule")
    gone = study(gone=ladder(["F"]))
    refused(settings, tmp_path / "gone", [run(gone, "gone", "F")], "'gone', which .* not train")


def test_runs_of_different_settings_are_not_compared(tmp_path, settings):
    runs = [run(settings, "ladder", "fp8"), run(settings, "ladder", "F", spec={"vocab_size": 9})]
    refused(settings, tmp_path, runs, r"ladder mixes runs of different vocab_size: \w+ and \w+")


def test_a_run_counts_once(tmp_path, settings):
    runs = [run(settings, "ladder", "fp8")]
    first, store = store_runs(tmp_path, runs)
    second, _ = store_runs(tmp_path, runs, "again")
    with pytest.raises(ArtifactError, match="second run of fp8, seed 0"):
        load_runs(settings, [*first, *second], store)


def test_without_any_input_every_table_is_empty_but_there(tmp_path, settings):
    config = store_profile(tmp_path, settings)
    write_tables(MXFP4Sources(config, tmp_path / "cells"), tmp_path / "tables")
    modules = load_tables(Family.MXFP4)
    assert {path.stem for path in (tmp_path / "tables").glob("*.csv")} == NAMES
    for name, module in modules.items():
        table = pd.read_csv(tmp_path / "tables" / f"{name}.csv")
        assert table.empty
        assert list(table) == [column.name for column in module.COLUMNS]


def test_the_order_of_files_changes_no_byte(tmp_path, settings):
    config = store_profile(tmp_path, settings)
    batches, store = store_runs(tmp_path, runs_of(settings))
    for folder, paths in (("first", batches), ("second", batches[::-1])):
        write_tables(MXFP4Sources(config, store, training=paths), tmp_path / folder)
    for name in NAMES:
        first, second = (tmp_path / folder / f"{name}.csv" for folder in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()
    assert len(pd.read_csv(tmp_path / "first" / "mxfp4_runs.csv")) == 10


def test_a_profile_without_the_study_is_refused(tmp_path):
    config = store_profile(tmp_path, None)
    with pytest.raises(ConfigError, match="no section mxfp4"):
        MXFP4Sources(config, tmp_path).load()


@pytest.fixture
def command(monkeypatch):
    """Run a module's command line in this process."""

    def call(module, *arguments):
        monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, arguments)])
        module.main()

    return call


def arguments_of(folder, config, store):
    return "mxfp4", "--config", config, "--store", store, "--output-dir", folder / "tables"


def test_the_command_line_writes_the_family_and_what_it_is_made_from(tmp_path, command):
    entry = {
        "study": "mxfp4_diagnostics",
        "arms": ["W"],
        "training": training(),
        "measure_at_steps": [10],
        "num_batches": 4,
    }
    settings = study(ladder=ladder(["F"]), d=entry)
    config = store_profile(tmp_path, settings)
    batches, store = store_runs(tmp_path, runs_of(study(ladder=ladder(["F"]))))
    errors = Diagnostics(experiment="d", num_batches=4, errors=[error_statistics()], origin=ORIGIN)
    write_model(tmp_path / "diagnostics" / "d.json", errors)
    command(
        write,
        *arguments_of(tmp_path, config, store),
        *("--training", *batches),
        *("--diagnostics", tmp_path / "diagnostics" / "d.json"),
        *("--outliers", "--speed"),
    )
    rows = {name: len(pd.read_csv(tmp_path / "tables" / f"{name}.csv")) for name in NAMES}
    assert (rows["mxfp4_ladder"], rows["mxfp4_diagnostics"], rows["mxfp4_speed"]) == (2, 1, 0)
    table = pd.read_csv(tmp_path / "tables" / "mxfp4_diagnostics.csv")
    assert table.num_parameters[0] == 1000  # the runs know it
    provenance = read_json(tmp_path / "tables" / "PROVENANCE_mxfp4.json")
    assert provenance["training"] == [{"name": "ladder/0.json", "sha256": digest_file(batches[0])}]
    assert provenance["diagnostics"][0]["name"] == "diagnostics/d.json"
    assert provenance["began_at"] == "2026-01-01T00:00:00+00:00"
    assert not (tmp_path / "tables" / "PROVENANCE.json").exists()


def test_a_batch_that_names_a_damaged_run_is_deleted(tmp_path, settings, command):
    config = store_profile(tmp_path, settings)
    batches, store = store_runs(tmp_path, runs_of(settings))
    key = next(iter(next(iter(read_json(batches[0])["runs"].values())).values()))
    damaged = store / "training_runs" / key[:2] / f"{key}.json"
    damaged.write_text(damaged.read_text().replace("2.0", "1.0", 1))
    batches[1].write_text("{")
    with pytest.raises(ArtifactError) as refusal:
        command(write, *arguments_of(tmp_path, config, store), "--training", *batches)
    said = str(refusal.value)
    assert f"{damaged} is damaged" in said
    assert f"deleted {batches[0]}, which the next run makes anew" in said
    assert f"{batches[1]} is not valid JSON" in said
    assert [path.exists() for path in (*batches[:3], damaged)] == [False, False, True, True]


def test_a_missing_run_is_named_and_its_batch_deleted(tmp_path):
    batch = tmp_path / "ladder" / "0.json"
    write_model(batch, TrainingBatch(experiment="ladder", runs={"F": {0: "ab12"}}))
    sources = MXFP4Sources(tmp_path / "config.json", tmp_path / "cells", training=[batch])
    problems = sources.discard_damaged()
    assert "ab12.json: No such file" in problems[0]
    assert not batch.exists()
    assert sources.discard_damaged() == []


def test_the_dictionary_explains_the_columns_of_both_families(tmp_path, command):
    path = tmp_path / "data_dictionary.csv"
    command(data_dictionary, "--families", "compaction", "mxfp4", "--output", path)
    with path.open() as stream:
        entries = list(csv.DictReader(stream))
    listed = [(entry["table"], entry["column"]) for entry in entries]
    columns = {
        (name, column.name)
        for name, module in load_tables(*Family).items()
        for column in module.COLUMNS
    }
    assert len(set(listed)) == len(listed)
    assert columns < set(listed)
    endings = {"s": "_s", "tokens": "_tokens", "nats": "_nats"}
    for entry in entries:
        assert entry["meaning"].endswith(".")
        assert entry["kind"] in set(ColumnKind)
        if entry["unit"] in endings:
            assert entry["column"].endswith(endings[entry["unit"]]), entry
