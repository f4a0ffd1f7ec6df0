"""The training study through Snakemake: what it makes, what it keeps, what it trains again."""

import csv
import json
import os
import shutil
import signal
import subprocess
import time

import pytest
import yaml
from workspace import (
    SMALL_MXFP4,
    copy_workflow,
    run_snakemake,
    snakemake_command,
    write_config,
)

import published_model
from blockwise.figures.registry import figures_of
from blockwise.tables.registry import Family, tables_of

pytestmark = pytest.mark.timeout(600)

TRAINING = {
    "num_steps": 28,
    "batch_sequences": 2,
    "evaluate_every_steps": 7,
    "evaluation_sequences": 2,
    "checkpoint_every_steps": 5,
}
STUDY = {
    **SMALL_MXFP4,
    "arms": {
        "fp32": {"precision": "fp32"},
        "F": {"fprop": {}},
        "W": {"wgrad": {}},
        "W+SR(W:dy)": {"wgrad": {"dy": {"rounding": "sr"}}},
    },
    "experiments": {
        "mxfp4_ladder": {
            "study": "mxfp4_ladder",
            "baselines": ["fp32"],
            "arms": ["F", "W+SR(W:dy)"],
            "seeds": [0],
            "target_step": 20,
            "training": TRAINING,
        },
        "mxfp4_interventions": {
            "study": "mxfp4_interventions",
            "baselines": ["fp32"],
            "arms": ["W"],
            "seeds": [0, 1],
            "training": {**TRAINING, "num_repeated_batches": 2},
        },
        "mxfp4_diagnostics": {
            "study": "mxfp4_diagnostics",
            "arms": ["W"],
            "measure_at_steps": [0, 7],
            "num_batches": 2,
            "training": TRAINING,
        },
        "mxfp4_scale_rules": {
            "study": "mxfp4_scale_rules",
            "arms": ["W"],
            "measure_at_steps": [7],
            "num_batches": 2,
            "training": TRAINING,
        },
        "mxfp4_outliers": {
            "study": "mxfp4_outliers",
            "arms": ["W"],
            "seeds": [0],
            "num_tokens": 64,
            "num_features": 32,
            "outlier_sizes": [4],
        },
        "mxfp4_speed": {
            "study": "mxfp4_speed",
            "baselines": ["fp32"],
            "arms": ["W"],
            "batch_sequences": 2,
            "num_rounds": 2,
        },
    },
}
BACKBONE = {
    "model": {
        "source": "random",
        "seed": 0,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "vocab_size": 512,
    },
    "architecture": "dense",
    "reasoning": False,
    "num_parameters": 1e5,
    "context_window_tokens": 8192,
    "engine": {"kind": "vllm"},
    "caption": "not served here",
}


def configure(folder, study) -> str:
    config = write_config(folder, {"tiny": BACKBONE})
    content = yaml.safe_load((folder / config).read_text())
    (folder / config).write_text(yaml.safe_dump({**content, "mxfp4": study}))
    return config


def with_published_model(folder):
    """The study with measurements on a tiny model that lies in the folder."""
    arms = ("W+DHT16(W)", "W+RHT16(W)")
    experiments = {
        "mxfp4_layer_errors": {
            **published_model.LAYER_ERRORS,
            "arms": ["W", *arms],
            "ratios": [arms],
            "num_batches": 2,
        },
        "mxfp4_descent": {
            **published_model.DESCENT,
            "references": ["W"],
            "arms": ["F"],
            "num_micro_batches": 2,
        },
    }
    recipes = {name: published_model.ARMS[name].model_dump(mode="json") for name in arms}
    return {
        **STUDY,
        "arms": {**STUDY["arms"], **recipes},
        "pretrained": published_model.pretrained(folder),
        "experiments": {**STUDY["experiments"], **experiments},
    }


@pytest.fixture(scope="module")
def finished(project_folder, tmp_path_factory):
    folder = copy_workflow(project_folder, tmp_path_factory.mktemp("mxfp4"))
    config = configure(folder, with_published_model(folder))
    status, said = run_snakemake(folder, "mxfp4", "--configfile", config)
    assert status == 0, said
    return folder, config


def table(folder, name):
    with (folder / f"results/small/tables/{name}.csv").open() as stream:
        return list(csv.DictReader(stream))


def runs(folder):
    return {path.stem for path in folder.glob("results/small/cells/training_runs/*/*.json")}


def test_every_table_and_figure_is_there_without_a_server(finished):
    folder, _ = finished
    for name in tables_of(Family.MXFP4):
        assert table(folder, name), name
    for name in figures_of(Family.MXFP4):
        assert (folder / f"figures/small/{name}.png").stat().st_size > 100
    assert not (folder / "results/small/runs/compaction").exists()


def test_finished_checkpoints_are_gone(finished):
    folder, _ = finished
    assert not list(folder.glob("results/small/runs/mxfp4/checkpoints/*"))
    assert len(runs(folder)) == 3 + 4


def test_a_second_run_has_nothing_to_do(finished):
    folder, config = finished
    status, said = run_snakemake(folder, "mxfp4", "--configfile", config)
    assert status == 0, said
    assert "Nothing to be done" in said


def test_an_input_that_a_wrong_clock_dated_tomorrow_fails_no_run(finished):
    folder, config = finished
    corpus = folder / "results/small/runs/mxfp4/corpus/corpus.json"
    tomorrow_s = time.time() + 24 * 3600
    os.utime(corpus, (tomorrow_s, tomorrow_s))
    for lost in ("runs/mxfp4/training/mxfp4_ladder/0.json", "tables/mxfp4_ladder.csv"):
        (folder / "results/small" / lost).unlink()
    before = runs(folder)
    status, said = run_snakemake(folder, "mxfp4", "--configfile", config)
    assert status == 0, said
    assert corpus.stat().st_mtime < tomorrow_s - 3600
    assert runs(folder) == before


def test_adding_an_arm_trains_that_arm_alone(finished):
    folder, _ = finished
    before = runs(folder)
    study = json.loads(json.dumps(STUDY))
    study["arms"]["W+DHT16(W)"] = {"wgrad": {"rotation": {"kind": "dht"}}}
    study["experiments"]["mxfp4_ladder"]["arms"].append("W+DHT16(W)")
    config = configure(folder, study)
    ladder = "results/small/tables/mxfp4_ladder.csv"
    status, said = run_snakemake(folder, ladder, "--configfile", config)
    assert status == 0, said
    assert before < runs(folder)
    assert len(runs(folder) - before) == 1
    assert "W+DHT16(W)" in {row["arm"] for row in table(folder, "mxfp4_ladder")}


@pytest.mark.slow  # test_train.py does the same inside one process
def test_a_killed_training_continues_and_ends_the_same(project_folder, tmp_path):
    folder = copy_workflow(project_folder, tmp_path / "run")
    study = json.loads(json.dumps(STUDY))
    study["experiments"] = {"mxfp4_ladder": study["experiments"]["mxfp4_ladder"]}
    study["experiments"]["mxfp4_ladder"]["training"] = {**TRAINING, "num_steps": 600}
    config = configure(folder, study)
    target = "results/small/runs/mxfp4/training/mxfp4_ladder/0.json"
    with subprocess.Popen(
        snakemake_command(target, "--configfile", config),
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        deadline = time.monotonic() + 120
        while not list(folder.glob("results/small/runs/mxfp4/checkpoints/*/*/checkpoint.json")):
            assert process.poll() is None, "it ended before the first checkpoint"
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    status, said = run_snakemake(folder, "--configfile", config, "--unlock")
    assert status == 0, said
    status, said = run_snakemake(folder, target, "--rerun-incomplete", "--configfile", config)
    assert status == 0, said
    resumed = ladder_runs(folder, target)
    assert sum(run["num_resumes"] for run in resumed.values()) == 1
    assert {len(run["train_losses"]) for run in resumed.values()} == {600}
    shutil.rmtree(folder / "results/small/cells")
    (folder / target).unlink()
    status, said = run_snakemake(folder, target, "--configfile", config)
    assert status == 0, said
    whole = ladder_runs(folder, target)
    assert sum(run["num_resumes"] for run in whole.values()) == 0
    for arm, run in whole.items():
        assert resumed[arm]["train_losses"] == run["train_losses"]
        assert resumed[arm]["evaluations"] == run["evaluations"]


def ladder_runs(folder, target):
    """Records by arm."""
    keys = json.loads((folder / target).read_text())["runs"]
    store = folder / "results/small/cells/training_runs"
    return {
        arm: json.loads((store / by_seed["0"][:2] / f"{by_seed['0']}.json").read_text())["record"]
        for arm, by_seed in keys.items()
    }
