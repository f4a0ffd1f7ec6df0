"""What jobs ask of Slurm: read from a dry run of the paper's profile, nothing is submitted."""

import re
import shutil
import subprocess
import sys

import pytest
from workspace import copy_workflow

from blockwise.config.load import load_profile
from blockwise.run.job_resources import server_memory_mb, training_memory_mb

SLURM = ("--workflow-profile", "config/profiles/slurm")
FILES = ("config/config.yaml", "config/paper.yaml")
JOB = re.compile(r"^(?:local)?rule (?P<rule>\w+):\n(?P<lines>(?:    .*\n)+)", re.M)
VALUE = re.compile(r"(?P<key>\w+)=(?P<value>[^,]*)")


@pytest.fixture(scope="module")
def jobs(tmp_path_factory, project_folder):
    """Rule, wildcards and resources of every job, as the scheduler of a cluster is told."""
    folder = copy_workflow(project_folder, tmp_path_factory.mktemp("cluster"))
    command = [sys.executable, "-m", "snakemake", *SLURM, "--configfile", *FILES, "--dry-run"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return [
        (match["rule"], _values(match["lines"], "wildcards"), _values(match["lines"], "resources"))
        for match in JOB.finditer(done.stdout + done.stderr)
    ]


def _values(lines, key):
    found = re.search(rf"^    {key}: (.*)$", lines, re.M)
    return {m["key"]: m["value"] for m in VALUE.finditer(found[1])} if found else {}


@pytest.fixture(scope="module")
def paper(project_folder):
    return load_profile([project_folder / file for file in FILES])


def slurm_answers():
    command = shutil.which("sinfo")
    if command is None:
        return False
    try:
        return (
            subprocess.run([command], capture_output=True, check=False, timeout=20).returncode == 0
        )
    except subprocess.TimeoutExpired:
        return False


def of_rule(jobs, rule):
    found = [(wildcards, resources) for name, wildcards, resources in jobs if name == rule]
    assert found, rule
    return found


def test_a_server_has_the_gpus_of_its_backbone_on_one_node(jobs, paper):
    for wildcards, resources in of_rule(jobs, "run_compaction_part"):
        backbone = paper.backbones[wildcards["backbone"]]
        assert int(resources["gpu"]) == backbone.gpus > 0
        assert resources["nodes"] == "1"
        assert int(resources["mem_mb"]) == server_memory_mb(backbone)


def test_every_part_of_every_backbone_is_there_once(jobs, paper):
    named = [tuple(wildcards.values()) for wildcards, _ in of_rule(jobs, "run_compaction_part")]
    assert len(set(named)) == len(named)
    for name in paper.backbones:
        for dataset in paper.datasets:
            parts = paper.parts_of(name, dataset)
            played = {part for who, what, part in named if (who, what) == (name, dataset)}
            assert played == {part.name for part in parts}


def test_only_what_is_timed_has_a_node_of_its_own(jobs):
    for rule, wildcards, resources in jobs:
        alone = rule == "time_mxfp4" or wildcards.get("part", "").startswith("timing")
        assert ("--exclusive" in resources.get("slurm_extra", "")) == alone, (rule, wildcards)
        assert (resources.get("cpus_per_task") == "-1") == alone, (rule, wildcards)


def test_nothing_but_servers_and_training_takes_a_gpu(jobs):
    takers = {rule for rule, _, resources in jobs if int(resources.get("gpu", 0)) > 0}
    assert takers == {"run_compaction_part", "train_mxfp4"}
    assert {resources["gpu"] for _, resources in of_rule(jobs, "fetch_model")} == {"0"}


def test_training_has_its_processes_and_the_memory_of_a_checkpoint(jobs, paper):
    for _, resources in of_rule(jobs, "train_mxfp4"):
        assert int(resources["gpu"]) == paper.mxfp4.num_processes
        assert int(resources["nodes"]) == paper.mxfp4.num_nodes
        assert int(resources["mem_mb"]) == training_memory_mb(paper.mxfp4)
        assert "tasks_per_node" not in resources


def test_every_job_has_a_limit_of_time_and_memory(jobs):
    for rule, _, resources in jobs:
        assert int(resources["runtime"]) > 0, rule
        assert int(resources["mem_mb"]) > 0, rule


@pytest.mark.skipif(not slurm_answers(), reason="needs Slurm: no controller answers `sinfo`")
@pytest.mark.timeout(280)
def test_a_job_runs_through_slurm(tmp_path, project_folder):
    folder = copy_workflow(project_folder, tmp_path / "run")
    target = "results/default/runs/data/hotpotqa.json"
    polling = ("--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "3")
    command = [sys.executable, "-m", "snakemake", *SLURM, *polling, target]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "has been submitted with SLURM jobid" in said
    assert (folder / target).is_file()
