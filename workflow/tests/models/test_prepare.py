"""Preparing models: from a folder, from the hub, and what is refused."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from blockwise.artifacts import read_model, write_json
from blockwise.config.backbones import PathModel, PocketModel
from blockwise.errors import ConfigError
from blockwise.models.prepare import PreparedModel, prepare_model
from serving_fixtures import tiny_backbone


def profile_with(backbone) -> dict:
    return {
        "profile": "test",
        "backbones": {"tiny": backbone.model_dump(mode="json")},
        "datasets": {
            "made": {
                "format": "hotpotqa",
                "source": {"kind": "synthetic"},
                "sessions": {"num_sessions": 1, "target_tokens": 100},
            }
        },
        "experiments": {
            "one": {
                "study": "compaction_end_to_end",
                "tau_tokens": [1000],
                "block_sizes_tokens": [500],
                "volume": {"mode": "forced", "total_tokens": 64},
            }
        },
    }


def test_a_folder_of_model_files_is_digested(tiny_model):
    prepared = prepare_model(
        "local", tiny_backbone(model=PathModel(source="path", path=tiny_model.path)), Path("unused")
    )
    assert (prepared.path, prepared.digest) == (tiny_model.path, tiny_model.digest)


def test_a_pocket_backbone_is_the_folder_of_its_name(tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = PocketModel(source="pocket", name="pocket-9m")
    backbone = tiny_backbone(model=source)
    with pytest.raises(ConfigError, match=r"pocket-9m/model holds no model; .*train_pocket"):
        prepare_model("mine", backbone, Path("unused"))
    shutil.copytree(tiny_model.path, source.folder)
    prepared = prepare_model("mine", backbone, Path("unused"))
    assert (prepared.source, prepared.path) == ("pocket", str(source.folder))
    assert prepared.digest == tiny_model.digest


def test_a_folder_without_model_files_is_refused(tmp_path):
    backbone = tiny_backbone(model=PathModel(source="path", path=str(tmp_path)))
    with pytest.raises(ConfigError, match=r"lacks config.json and a tokenizer"):
        prepare_model("local", backbone, tmp_path / "unused")


def test_the_command_line_writes_the_model_and_its_card(tmp_path):
    config = tmp_path / "config.json"
    write_json(config, profile_with(tiny_backbone()))
    output = tmp_path / "tiny.json"
    command = [sys.executable, "-m", "blockwise.models.prepare", "--config", str(config)]
    command += ["--folder", str(tmp_path / "tiny"), "--output", str(output), "--backbone"]
    subprocess.run([*command, "tiny"], check=True, capture_output=True)
    prepared = read_model(output, PreparedModel)
    assert prepared.backbone == "tiny"
    assert (Path(prepared.path) / "config.json").is_file()
    refused = subprocess.run([*command, "absent"], check=False, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "'absent' is not in" in refused.stderr
    assert "Traceback" not in refused.stderr
