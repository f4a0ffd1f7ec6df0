"""Adding a backbone as the README says: print its entry, paste it, run; nothing else runs again.

Two of them, of two architectures, each on a server that the run starts by itself.
"""

import csv

import pytest
import yaml
from test_end_to_end import EXPERIMENTS
from workspace import copy_workflow, run_snakemake, stored_units, write_config

from blockwise.command_line import call
from blockwise.config.backbones import Family as ModelFamily
from blockwise.config.backbones import RandomModel
from blockwise.describe import backbone as describing
from blockwise.models.prepare import prepare_model
from blockwise.tables.registry import Family, tables_of
from serving_fixtures import tiny_backbone

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(5400)]

RUN_LIMIT_S = 1700.0  # a start of vLLM and forty cells, on a machine that others load
SHAPE = {"hidden_size": 128, "intermediate_size": 256, "num_layers": 2, "vocab_size": 2048}
SHAPE |= {"num_attention_heads": 2, "num_key_value_heads": 2}
RECIPES = {
    "dense-one": {"family": ModelFamily.LLAMA3},
    "moe-one": {"family": ModelFamily.GPT_OSS, "num_experts": 4, "num_experts_per_token": 2},
}


def entry_of(folder, name, capsys):
    """What the command prints of a model folder, without its first line: the entry alone."""
    call(describing.command, [str(folder), "--name", name])
    printed = capsys.readouterr().out
    return printed.partition("backbones:\n")[2]


def backbones_of(folder, table):
    """The backbones that have rows in a table; None where it names none."""
    with (folder / f"results/small/tables/{table}.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    return {row["backbone"] for row in rows} if rows and "backbone" in rows[0] else None


def test_a_printed_entry_is_all_that_a_backbone_takes(project_folder, tmp_path, capsys):
    folder = copy_workflow(project_folder, tmp_path / "run").resolve()
    first = tiny_backbone(caption="random weights: timing only").model_dump(mode="json")
    config = write_config(folder, {"tiny": first}, None, EXPERIMENTS)
    overlay = yaml.safe_dump({"backbones": {"tiny": first}})
    known, units = {"tiny"}, {}
    for name, recipe in [(None, None), *RECIPES.items()]:
        if name is not None:
            model = RandomModel(source="random", **SHAPE, **recipe)
            made = prepare_model(name, tiny_backbone(model=model), tmp_path / "models" / name)
            overlay += entry_of(made.path, name, capsys)
            known |= {name}
        (folder / "config/mine.yaml").write_text(overlay)
        status, said = run_snakemake(
            folder, "--configfile", config, "config/mine.yaml", timeout_s=RUN_LIMIT_S
        )
        assert status == 0, said[-5000:]
        batches = said.split("rule run_compaction:")[1:]
        played = name or "tiny"
        assert len(batches) == 2  # its two datasets
        assert all(f"backbone={played}" in part.split("threads:")[0] for part in batches)
        before, units = units, stored_units(folder)
        assert {key: units[key] for key in before} == before
        assert len(units) > len(before)
        shown = {table: backbones_of(folder, table) for table in tables_of(Family.COMPACTION)}
        named = {table: found for table, found in shown.items() if found is not None}
        assert len(named) > 10
        assert {table: found for table, found in named.items() if found != known} == {}
