"""What a job says: on the terminal of who waits, and in the log that Snakemake names."""

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
