"""When a stage runs again: its own values, its code, and files that change under their name."""

import os
import re

import pytest
import yaml

from blockwise.run.pipeline import Pipeline


@pytest.fixture
def make(tmp_path, project_folder, monkeypatch):
    monkeypatch.chdir(project_folder)
    data = tmp_path / "data.json"
    data.write_text("[]")
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    base = yaml.safe_load((project_folder / "config" / "config.yaml").read_text())
    end_to_end = {
        **base["experiments"]["compaction_end_to_end"], "backbones": None, "datasets": None,
    }  # fmt: skip
    base["experiments"] = {"compaction_end_to_end": end_to_end}
    timing = {**base["backbones"]["smollm2-135m"], "datasets": None}
    base["backbones"] = {
        "smollm2-135m": timing,
        "mine": {**timing, "model": {"source": "path", "path": str(model)}},
    }
    base["datasets"]["own"] = {
        **base["datasets"]["hotpotqa"],
        "source": {"kind": "path", "path": str(data)},
    }

    def pipeline(**changes):
        file = tmp_path / "c.yaml"
        file.write_text(yaml.safe_dump({**base, **changes}))
        return Pipeline([file], {})

    pipeline.data, pipeline.model, pipeline.base = data, model, base
    return pipeline


def test_an_edited_data_file_is_prepared_again(make):
    own, other = (make().dataset_key(name) for name in ("own", "hotpotqa"))
    make.data.write_text("[1]")
    assert make().dataset_key("own") != own
    assert make().dataset_key("hotpotqa") == other


def test_new_weights_under_an_old_path_are_prepared_again(make):
    mine, other = (make().backbone_key(name) for name in ("mine", "smollm2-135m"))
    os.utime(make.model / "config.json", ns=(1, 1))
    assert make().backbone_key("mine") != mine
    assert make().backbone_key("smollm2-135m") == other


def test_an_experiment_touches_only_its_own_batches(make):
    experiments = {
        **make.base["experiments"],
        "more": {**make.base["experiments"]["compaction_end_to_end"], "backbones": ["mine"]},
    }
    before, after = make(), make(experiments=experiments)
    changed = {
        batch
        for batch in before.batches()
        if before.compaction_key(*batch) != after.compaction_key(*batch)
    }
    assert changed == {("mine", dataset) for dataset in before.profile.datasets}
    assert before.dataset_key("locomo") == after.dataset_key("locomo")


def test_the_number_of_sessions_rebuilds_sessions_and_not_the_data(make):
    more = {**make.base["datasets"]}
    more["locomo"] = {**more["locomo"], "sessions": {"num_sessions": 2, "target_tokens": 99}}
    before, after = make(), make(datasets=more)
    assert before.dataset_key("locomo") == after.dataset_key("locomo")
    assert before.sessions_key("mine", "locomo") != after.sessions_key("mine", "locomo")


def test_a_split_makes_parts_of_a_batch_and_changes_no_key(make):
    backbones = {**make.base["backbones"]}
    backbones["mine"] = {**backbones["mine"], "split": {"timing": 3}}
    before, after = make(), make(backbones=backbones)
    assert after.parts("smollm2-135m", "hotpotqa") == []
    assert after.parts("mine", "hotpotqa") == [
        "timing-start0-1of3",
        "timing-start0-2of3",
        "timing-start0-3of3",
    ]
    assert before.compaction_key("mine", "hotpotqa") == after.compaction_key("mine", "hotpotqa")
    whole, parted = (after.backbone_pattern(is_split=is_split) for is_split in (False, True))
    assert re.fullmatch(whole, "smollm2-135m")
    assert not re.fullmatch(whole, "mine")
    assert re.fullmatch(parted, "mine")
    assert not re.fullmatch(before.backbone_pattern(is_split=True), "mine")


def test_a_further_server_start_is_a_further_job_of_every_backbone_that_it_is_timed_on(make):
    experiments = {**make.base["experiments"]}
    name = "compaction_end_to_end"
    twice = {**experiments[name], "backbones": ["mine"], "num_server_starts": 2}
    before, after = make(), make(experiments={**experiments, "twice": twice})
    assert before.parts("mine", "hotpotqa") == []
    parts = after.parts("mine", "hotpotqa")
    assert parts == ["timing-start0-1of1", "timing-start1-1of1"]
    assert all(after.is_timed("mine", "hotpotqa", part) for part in parts)
    assert after.parts("smollm2-135m", "hotpotqa") == []
    assert re.fullmatch(after.backbone_pattern(is_split=True), "mine")
    assert re.fullmatch(after.backbone_pattern(is_split=False), "smollm2-135m")
    for backbone, is_changed in (("mine", True), ("smollm2-135m", False)):
        keys = {one.compaction_key(backbone, "hotpotqa") for one in (before, after)}
        assert (len(keys) == 2) == is_changed
