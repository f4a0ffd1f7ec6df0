"""Configuration: merged as documented, refused with key, value and remedy, never half."""

import copy
from pathlib import Path

import pytest
import yaml

from blockwise.config import schema
from blockwise.config.load import (
    check_files,
    check_pinned,
    load_profile,
    merge,
    missing_files,
    read_yaml,
)
from blockwise.errors import ConfigError

BASE = {
    "profile": "t",
    "backbones": {
        "small": {
            "model": {"source": "random"},
            "architecture": "dense",
            "reasoning": False,
            "num_parameters": 1e6,
            "context_window_tokens": 4096,
            "engine": {"kind": "vllm"},
        }
    },
    "datasets": {
        "hotpotqa": {
            "format": "hotpotqa",
            "source": {"kind": "synthetic"},
            "sessions": {"num_sessions": 1, "target_tokens": 1000},
        }
    },
    "experiments": {
        "e": {
            "question_timing": "immediate",
            "tau_tokens": 2048,
            "block_sizes_tokens": [512],
            "volume": {"mode": "forced", "total_tokens": 128},
        }
    },
}


def load(tmp_path, content, overrides=None):
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(content))
    return load_profile([file], overrides)


def edited(path, value):
    content = copy.deepcopy(BASE)
    place = content
    for key in path[:-1]:
        place = place[key]
    if value is KeyError:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return content


def test_the_base_is_sound(tmp_path):
    assert load(tmp_path, BASE).experiments["e"].layouts == ["target_block"]


SMALL = ("backbones", "small")
EXPERIMENT = ("experiments", "e")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("surprise",), 1, r"surprise: unknown key; config/README.md"),
        ((*SMALL, "gpu"), 1, r"backbones.small.gpu: unknown key"),
        ((*SMALL, "architecture"), "sparse", r"architecture: 'sparse' is refused.*'dense' or 'moe"),
        ((*SMALL, "context_window_tokens"), "wide", r"context_window_tokens: 'wide' is refused"),
        ((*SMALL, "engine"), KeyError, r"backbones.small.engine: required and missing"),
        (("backbones",), {}, r"backbones: is empty; name at least one"),
        (("datasets",), {}, r"datasets: is empty; name at least one"),
        (("profile",), "reference", r"'reference' is reserved"),
        (("profile",), "../up", r"profile: '../up' is refused"),
        (("profile",), KeyError, r"profile: required and missing"),
        (("datasets", "a/b"), BASE["datasets"]["hotpotqa"], r"datasets.a/b"),
        ((*EXPERIMENT, "block_sizes_tokens"), [4096], r"exceed tau_tokens 2048.*lower B or raise"),
        ((*EXPERIMENT, "block_sizes_tokens"), [512, 512], r"lists a value twice"),
        ((*EXPERIMENT, "layouts"), ["spiral"], r"'spiral' is unknown; choose of"),
        ((*EXPERIMENT, "tau_tokens"), 4090, r"exceed the window of small \(4096\); lower tau"),
        (
            (*EXPERIMENT, "volume"),
            {"mode": "forced", "total_tokens": 2040},
            r"cannot shrink \(sequential\).*raise tau",
        ),
        (
            (*EXPERIMENT, "volume"),
            {"mode": "natural", "sequential_max_tokens": 256, "worker_max_tokens": 512},
            r"cannot shrink \(B=512\).*lower the volume",
        ),
        (
            SMALL,
            {
                **BASE["backbones"]["small"],
                "request": {"temperature": 0.7},
                "engine": {"kind": "vllm", "arguments": {"enable-chunked-prefill": True}},
            },
            r"backbones.small: request.temperature 0.7 with chunked prefill kills vLLM",
        ),
        ((*EXPERIMENT, "question_timing"), "deferred", r"comes from natural volume only"),
        ((*EXPERIMENT, "backbones"), ["nobody"], r"names 'nobody', which is not in backbones: sma"),
        ((*EXPERIMENT, "datasets"), ["nothing"], r"names 'nothing', which is not in datasets"),
    ],
)
def test_bad_values_are_refused_with_key_value_and_remedy(tmp_path, path, value, message):
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, edited(path, value))


def test_all_problems_come_in_one_message(tmp_path):
    content = edited((*SMALL, "gpu"), 1)
    content["datasets"] = {}
    content["backbones"]["wide"] = BASE["backbones"]["small"]
    content["experiments"]["e"]["tau_tokens"] = 4090
    content["experiments"]["f"] = {**BASE["experiments"]["e"], "block_sizes_tokens": [9999]}
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, content)
    text = str(refused.value)
    assert "4 problem(s)" in text
    for part in ("small.gpu", "datasets: is empty", "window of wide", "[9999] exceed"):
        assert part in text


def test_a_name_given_twice_is_refused(tmp_path):
    file = tmp_path / "twice.yaml"
    file.write_text("profile: a\nbackbones:\n  x: {}\n  x: {}\n")
    with pytest.raises(ConfigError, match=r"twice.yaml, line 4: the name 'x' is given twice"):
        read_yaml(file)


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "a: [", "just words"])
def test_files_that_are_no_mapping_are_refused(tmp_path, text):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        read_yaml(file)
    with pytest.raises(ConfigError, match="cannot read the configuration"):
        read_yaml(tmp_path / "absent.yaml")


def test_overlays_replace_named_collections_and_merge_the_rest():
    below = {"profile": "a", "backbones": {"x": 1, "y": 2}, "experiments": {"e": {"p": 1, "q": 2}}}
    above = {"profile": "b", "backbones": {"z": 3}, "experiments": {"e": {"p": 9}, "f": {}}}
    assert merge(below, above) == {
        "profile": "b",
        "backbones": {"z": 3},
        "experiments": {"e": {"p": 9, "q": 2}, "f": {}},
    }


def test_an_overlay_that_changes_a_kind_leaves_nothing_of_the_other():
    below = {"volume": {"mode": "forced", "total_tokens": 1}}
    above = {"volume": {"mode": "natural", "worker_max_tokens": 2}}
    assert merge(below, above) == above
    assert merge(below, {"volume": {"total_tokens": 5}})["volume"]["mode"] == "forced"


def test_command_line_values_give_the_same_profile_as_yaml(tmp_path):
    text = {
        "experiments": {
            "e": {
                "seeds": ["0", "1"],
                "tau_tokens": "1024",
                "sequential": "no",
                "backbones": "null",
            }
        }
    }
    typed = copy.deepcopy(BASE)
    typed["experiments"]["e"].update(seeds=[0, 1], tau_tokens=1024, sequential=False)
    assert load(tmp_path, BASE, text) == load(tmp_path, typed)


def test_missing_paths_and_prompts_are_named(tmp_path):
    content = edited(("datasets", "hotpotqa", "source"), {"kind": "path", "path": "/no/such.json"})
    content["backbones"]["small"]["model"] = {"source": "path", "path": "/no/model"}
    content["experiments"]["e"]["prompt"] = "poetic"
    problems = missing_files(load(tmp_path, content), Path("config/prompts"))
    assert len(problems) == 3
    assert "/no/such.json is no file" in problems[0]
    assert "/no/model is no folder" in problems[1]
    assert "'poetic' is no file" in problems[2]


def test_an_unpinned_profile_may_dry_run_but_not_run(tmp_path, project_folder):
    prompts = project_folder / "config" / "prompts"
    content = edited(("datasets", "hotpotqa", "source"), {"kind": "hub", "id": "a/b"})
    content["require_pinned"] = True
    profile = load(tmp_path, content)
    check_files(profile, prompts)
    with pytest.raises(ConfigError, match=r"datasets.hotpotqa.source.revision.*make pin"):
        check_pinned(profile)


def test_the_committed_schema_is_the_one_the_models_generate():
    assert schema.SCHEMA_FILE.read_text() == schema.schema_text()


def test_every_committed_profile_is_sound(project_folder):
    folder = project_folder / "config"
    default = load_profile([folder / "config.yaml"])
    assert default.profile == "default"
    assert len(default.backbones) == 2
    paper = load_profile([folder / "config.yaml", folder / "paper.yaml"])
    assert len(paper.backbones) == 4
    assert paper.require_pinned
