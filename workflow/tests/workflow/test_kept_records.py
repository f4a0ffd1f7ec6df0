"""Finished trainings are kept to be committed, and another folder goes on where they stop."""

import json
import shutil

import pytest
from test_mxfp4_workflow import TRAINING, configure
from workspace import SMALL_MXFP4, copy_workflow, run_snakemake

pytestmark = pytest.mark.timeout(600)

ARMS = ["fp8", "fp8-reordered", "W"]
STUDY = {
    **SMALL_MXFP4,
    "priority": "idle",
    "keeps_records": True,
    "arms": {"fp8": {"precision": "fp8"}, "fp8-reordered": {"precision": "fp8-reordered"}}
    | {"W": {"wgrad": {}}},
    "experiments": {
        "mxfp4_ladder": {
            "study": "mxfp4_ladder",
            "baselines": ["fp8"],
            "null_arm": "fp8-reordered",
            "curve": "averaged",
            "arms": ["W"],
            "seeds": [0, 1],
            "target_step": 20,
            "training": {**TRAINING, "final_evaluation_sequences": 4, "average_decay": 0.9},
        }
    },
}
RECORDS = "results/reference/small/records"


def records(folder):
    return {path.stem: path.read_bytes() for path in (folder / RECORDS).glob("*.json")}


def play(folder, config, *seeds):
    jobs = [f"results/small/runs/mxfp4/training/mxfp4_ladder/{seed}.json" for seed in seeds]
    status, said = run_snakemake(folder, *jobs, "--configfile", config)
    assert status == 0, said
    return said


@pytest.fixture(scope="module")
def first(project_folder, tmp_path_factory):
    """A folder in which one of two seeds is trained."""
    folder = copy_workflow(project_folder, tmp_path_factory.mktemp("kept") / "first")
    play(folder, configure(folder, STUDY), 0)
    return folder


def test_a_second_machine_trains_what_the_first_one_did_not(first, project_folder, tmp_path):
    kept = records(first)
    assert len(kept) == len(ARMS)
    assert str(first) not in " ".join(content.decode() for content in kept.values())

    second = copy_workflow(project_folder, tmp_path / "second")
    shutil.copytree(first / RECORDS, second / RECORDS)  # what a checkout brings
    said = play(second, configure(second, STUDY), 0, 1)
    assert {key: records(second)[key] for key in kept} == kept  # taken as they are
    assert len(records(second)) == 2 * len(ARMS)
    trained = [line for line in said.splitlines() if ": finished, validation loss" in line]
    assert sorted(line.rpartition(": finished")[0].split()[-3:] for line in trained) == sorted(
        [f"{arm},", "seed", "1"] for arm in ARMS
    )
    stored = {
        path.stem: path.read_bytes()
        for path in second.glob("results/small/cells/training_runs/*/*.json")
    }
    assert stored == records(second)
    for content in stored.values():
        record = json.loads(content)["record"]
        assert record["final_evaluation"]["step"] == TRAINING["num_steps"]
        assert None not in [one["averaged_loss"] for one in record["evaluations"]]


def test_a_kept_record_that_is_damaged_is_named_and_nothing_is_trained(
    first, project_folder, tmp_path
):
    folder = copy_workflow(project_folder, tmp_path / "folder")
    shutil.copytree(first / RECORDS, folder / RECORDS)
    path = next((folder / RECORDS).glob("*.json"))
    path.write_bytes(path.read_bytes().replace(b'"seed": 0', b'"seed": 1'))
    jobs = "results/small/runs/mxfp4/training/mxfp4_ladder/0.json"
    status, said = run_snakemake(folder, jobs, "--configfile", configure(folder, STUDY))
    assert status != 0
    assert "is damaged: its content does not match its digest" in said
    assert ": finished, validation loss" not in said
