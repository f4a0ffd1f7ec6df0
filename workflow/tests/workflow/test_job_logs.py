"""What a job says: on the terminal of who waits, and in the log that Snakemake names."""

import subprocess
import sys

from workspace import SMALL_DATASETS, copy_workflow, run_snakemake, write_config

from serving_fixtures import tiny_backbone

WORDS = "error: "


def test_a_failing_job_is_heard_on_the_terminal_and_in_its_log(tmp_path, project_folder):
    folder = copy_workflow(project_folder, tmp_path / "run")
    (folder / "rows.json").write_text('[{"_id": "a", "question": "without its paragraphs"}]')
    hotpotqa = {**SMALL_DATASETS["hotpotqa"], "source": {"kind": "path", "path": "rows.json"}}
    backbone = tiny_backbone(caption="random weights: timing only").model_dump(mode="json")
    config = write_config(folder, {"tiny": backbone}, {"hotpotqa": hotpotqa})
    target = "results/small/runs/data/hotpotqa.json"
    arguments = (target, "--configfile", config)

    status, said = run_snakemake(folder, *arguments)
    assert status != 0
    log = folder / "logs/jobs/prepare_dataset/hotpotqa.log"
    written = log.read_text()
    assert WORDS in written
    assert written.strip() in said
    assert str(log.relative_to(folder)) in said


def reproduce(folder, config):
    command = [sys.executable, "-m", "blockwise", "reproduce", config, "--cores", "2"]
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
    return done.returncode, done.stderr


def test_a_failed_run_ends_with_the_log_and_the_next_command(tmp_path, project_folder):
    folder = copy_workflow(project_folder, tmp_path / "run")
    (folder / "rows.json").write_text('[{"_id": "a", "question": "without its paragraphs"}]')
    hotpotqa = {**SMALL_DATASETS["hotpotqa"], "source": {"kind": "path", "path": "rows.json"}}
    backbone = tiny_backbone(caption="random weights: timing only").model_dump(mode="json")
    config = write_config(folder, {"tiny": backbone}, {"hotpotqa": hotpotqa})

    status, said = reproduce(folder, config)
    assert status == 2
    first, failed, log = said.splitlines()[-3:]
    assert first.startswith("error: 1 job failed; mend what is named, then the same command goes")
    assert failed.startswith("  - prepare_dataset (hotpotqa) failed: malformed row: rows.json: ")
    assert log == "    its log: logs/jobs/prepare_dataset/hotpotqa.log"
    assert "Traceback" not in said
    assert (
        "Error in rule prepare_dataset"
        in max(
            (folder / ".snakemake/log").iterdir(), key=lambda path: path.stat().st_mtime
        ).read_text()
    )


def test_a_refused_configuration_ends_in_one_message(tmp_path, project_folder):
    folder = copy_workflow(project_folder, tmp_path / "run")
    (folder / "config/wrong.yaml").write_text("profile: wrong\nbackbone: {}\n")
    status, said = reproduce(folder, "config/wrong.yaml")
    assert status == 2
    assert said.startswith("error: ")
    assert "backbone" in said
    assert "Traceback" not in said
