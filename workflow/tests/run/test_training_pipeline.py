"""The jobs of the training study: their names and words, and when they run again."""

import importlib.util

import pytest

import published_model
from blockwise.config.load import DEFAULT_FILE, load_profile
from blockwise.config.mxfp4_studies import Study
from blockwise.errors import ConfigError
from blockwise.run.training_pipeline import TrainingPipeline

LADDER, REMEDIES = "mxfp4_ladder", "mxfp4_interventions"


@pytest.fixture(scope="module")
def study(project_folder):
    return load_profile([project_folder / DEFAULT_FILE]).mxfp4


def changed(study, **values):
    return TrainingPipeline(study.model_copy(update=values))


def test_a_job_is_an_experiment_a_seed_or_a_run(study):
    assert TrainingPipeline(study).runs() == [(LADDER, "all"), (REMEDIES, "all")]
    seeds = changed(study, jobs="per_seed").runs()
    assert seeds == [(LADDER, "0"), *((REMEDIES, str(seed)) for seed in range(6))]
    runs = changed(study, jobs="per_run").runs()
    assert runs[:2] == [(LADDER, "0-0"), (LADDER, "0-1")]
    assert len(runs) == 7 + 6 * 7


def test_a_job_is_told_its_seeds_and_its_arm(study):
    jobs = TrainingPipeline(study)
    assert jobs.arguments(REMEDIES, "all")[:7] == ["--seeds", *"012345"]
    assert jobs.arguments(REMEDIES, "3")[:2] == ["--seeds", "3"]
    assert jobs.arguments(REMEDIES, "3-2")[-2:] == ["--arm", "W+SR(W:dy)"]


def test_several_processes_are_started_by_torchrun(study):
    assert TrainingPipeline(study).launcher() == []
    assert changed(study, num_processes=4).launcher()[-1] == "--nproc-per-node=4"
    assert changed(study, num_processes=4, device="cuda").num_gpus() == 4


def test_a_trainer_that_is_not_installed_is_refused_before_the_first_job(study, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    TrainingPipeline(study).check_installed()
    with pytest.raises(ConfigError, match=r"torchtitan, which is not installed.*trainer: own"):
        changed(study, trainer="torchtitan").check_installed()


def test_several_nodes_are_started_by_slurm_and_change_no_key(study, monkeypatch):
    one, jobs = (changed(study, num_processes=8, num_nodes=nodes) for nodes in (1, 2))
    assert jobs.training_key(LADDER) == one.training_key(LADDER)
    assert one.starter() == []
    assert one.step_resources() == {}
    started = [*jobs.starter(), "python", *jobs.launcher()]
    assert started[:3] == ["srun", "--nodes=2", "--ntasks=2"]
    assert {"--nnodes=2", "--nproc-per-node=4", "--rdzv-endpoint=$(hostname):29500"} < set(started)
    assert jobs.step_resources()["tasks_per_node"] == 4
    monkeypatch.setenv("PATH", "/nowhere")
    one.check_launcher()
    with pytest.raises(ConfigError, match="`srun` is not on the path"):
        jobs.check_launcher()


@pytest.mark.parametrize("processes", [7, 2])
def test_nodes_share_the_processes_evenly(study, processes):
    values = study.model_dump(mode="json") | {"num_processes": processes, "num_nodes": 2}
    with pytest.raises(ValueError, match="every node takes as many, and at least 2"):
        type(study).model_validate(values)


def test_a_job_runs_again_when_its_own_settings_change(study):
    before = TrainingPipeline(study)
    arms = {**study.arms, "W": study.arms["W+DHT16(W)"]}
    after = changed(study, arms=arms)
    assert after.training_key(REMEDIES) != before.training_key(REMEDIES)
    assert after.training_key(LADDER) == before.training_key(LADDER)  # it has no such arm
    renamed = changed(study, caption="another")
    assert renamed.training_key(LADDER) == before.training_key(LADDER)
    assert renamed.tables_key([]) != before.tables_key([])


def test_a_profile_without_the_study_has_no_jobs():
    nothing = TrainingPipeline(None)
    assert nothing.runs() == nothing.experiments(*Study) == nothing.launcher() == []
    assert nothing.num_gpus() == 0


def test_idle_trainings_are_nice_and_kept_runs_have_a_folder(study):
    plain, idle = TrainingPipeline(study), changed(study, priority="idle", keeps_records=True)
    assert plain.starter() == []
    assert plain.records_of("ladder") == []
    assert idle.starter() == ["nice", "-n", "19"]
    assert idle.records_of("ladder") == ["--records", "results/reference/ladder/records"]
    assert idle.training_key(LADDER) == plain.training_key(LADDER)


def test_a_published_model_has_a_job_a_part_and_a_job_a_start(tmp_path):
    jobs = TrainingPipeline(published_model.study(tmp_path))
    assert jobs.layer_errors("e") == ["e/errors/0.json", "e/errors/1.json"]
    assert jobs.descents("d") == ["d/descent/0.json", "d/descent/1.json"]
    assert TrainingPipeline(None).layer_errors("e") == TrainingPipeline(None).descents("d") == []


def test_a_published_model_is_made_ready_again_when_its_files_or_its_text_change(tmp_path):
    study = published_model.study(tmp_path)
    before = TrainingPipeline(study).pretrained_key()
    assert TrainingPipeline(study).pretrained_key() == before
    (tmp_path / "text/one.txt").write_text("another text")
    text = TrainingPipeline(study).pretrained_key()
    (tmp_path / "published/config.json").write_text("{}")
    assert len({before, text, TrainingPipeline(study).pretrained_key()}) == 3
    assert changed(study, pretrained=None).pretrained_key() == ""


def test_more_arms_and_fewer_parts_take_more_memory(tmp_path):
    study = published_model.study(tmp_path)
    large = study.pretrained.model_copy(update={"num_parameters": 1e9})
    study = study.model_copy(update={"pretrained": large})
    entry = study.experiments["errors"]

    def memory(**changes):
        one = study.model_copy(update={"experiments": {"e": entry.model_copy(update=changes)}})
        return TrainingPipeline(one).pretrained_memory_mb("e")

    assert memory(num_parts=4) < memory() < memory(num_parts=1)
    assert memory(arms=[*entry.arms, "W"]) > memory()
    assert TrainingPipeline(study).pretrained_memory_mb("descent") > memory(num_parts=1)
