"""A pocket backbone through Snakemake: trained, examined on a real server, described."""

import json
import os
import signal
import subprocess
import time

import pytest
import yaml
from workspace import copy_workflow, run_snakemake, snakemake_command, write_config

from serving_fixtures import tiny_backbone

pytestmark = pytest.mark.timeout(400)

RECIPE = {
    "reasoning": True,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_size": 16,
    "num_steps": 40,
    "step_tokens": 300,
    "checkpoint_every_steps": 5,
    "learning_rate": 3e-3,
    "decay_steps": 5,
    "examination": {"num_question_scenes": 1, "num_block_scenes": 1, "num_sequential_scenes": 1},
}
FOLDER = "results/small/pocket/tiny"


def start_and_kill_in_mid_training(folder, config, checkpoint):
    command = snakemake_command("train_pocket", "--configfile", config)
    running = subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert checkpoint.exists(), "no checkpoint was written in time"
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()


def prepared(project_folder, target):
    """A copy of the workflow whose profile has one tiny recipe and its backbone."""
    folder = copy_workflow(project_folder, target)
    engine = {
        "kind": "vllm",
        "arguments": {
            "enforce-eager": True,
            "dtype": "float32",
            "reasoning-parser": "deepseek_r1",
        },
        "environment": {"VLLM_CPU_KVCACHE_SPACE": "1"},
    }
    backbone = tiny_backbone().model_dump(mode="json") | {
        "model": {"source": "pocket", "name": "tiny"},
        "reasoning": True,
        "context_window_tokens": 4096,
        "engine": engine,
    }
    config = write_config(folder, {"tiny": backbone})
    content = yaml.safe_load((folder / config).read_text()) | {"pocket": {"tiny": RECIPE}}
    (folder / config).write_text(yaml.safe_dump(content))
    return folder, config


def test_a_recipe_is_trained_to_model_files(project_folder, tmp_path):
    folder, config = prepared(project_folder, tmp_path / "run")
    target = f"{FOLDER}/training.json"
    status, output = run_snakemake(folder, target, "--configfile", config)
    assert status == 0, output
    training = json.loads((folder / target).read_text())
    assert training["curve"][-1]["step"] == RECIPE["num_steps"]
    assert (folder / FOLDER / "model" / "model.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.engine
def test_a_killed_training_ends_in_an_examined_and_described_backbone(project_folder, tmp_path):
    folder, config = prepared(project_folder, tmp_path / "run")
    checkpoint = folder / "results/small/runs/pocket/tiny.pt"
    start_and_kill_in_mid_training(folder, config, checkpoint)
    assert not (folder / FOLDER / "training.json").exists()

    status, output = run_snakemake(folder, "--unlock", "--configfile", config)
    assert status == 0, output
    status, output = run_snakemake(
        folder, "train_pocket", "--configfile", config, "--rerun-incomplete"
    )
    assert status == 0, output
    training = json.loads((folder / FOLDER / "training.json").read_text())
    assert training["num_resumes"] == 1
    assert training["curve"][-1]["step"] == RECIPE["num_steps"]
    skills = json.loads((folder / FOLDER / "skills.json").read_text())["results"]
    assert {one["skill"] for one in skills} == {"answer", "compact"}
    assert {one["kind"] for one in skills} >= {"single", "two", "absent", "suffix_target"}
    assert all(0 <= one["num_right"] <= one["num"] for one in skills)
    card = (folder / FOLDER / "README.md").read_text()
    assert training["recipe_digest"] in card

    status, output = run_snakemake(folder, "train_pocket", "--configfile", config)
    assert status == 0
    assert "Nothing to be done" in output
