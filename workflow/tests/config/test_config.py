"""Configuration: merged as documented, refused with key, value and remedy, never half."""

import copy
from pathlib import Path

import pytest
import yaml

from blockwise.config import schema
from blockwise.config.backbones import Weights
from blockwise.config.load import (
    check_files,
    check_pinned,
    load_profile,
    merge,
    missing_files,
    read_yaml,
    unpinned,
)
from blockwise.config.prompts import CompactionPrompt, load_prompt
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
            "study": "compaction_end_to_end",
            "tau_tokens": [2048],
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
MODEL = (*SMALL, "model")
ARGUMENTS = (*SMALL, "engine", "arguments")
EXPERIMENT = ("experiments", "e")


FORCED = {"mode": "forced", "total_tokens": 64}
NATURAL = {"mode": "natural", "sequential_max_tokens": 64, "worker_max_tokens": 32}
LADDER = {
    "study": "compaction_length_invariance",
    "history_tokens": [1024],
    "layouts": [],
    "volume": NATURAL,
}
EACH = {"mode": "forced", "worker_tokens": 32}
EAGER = {
    "study": "compaction_eager",
    "tau_tokens": [2048],
    "layouts": ["suffix_target"],
    "block_sizes_tokens": [512],
    "volume": EACH,
}
LOAD = {
    "study": "compaction_under_load",
    "history_tokens": 1024,
    "block_sizes_tokens": [512],
    "volume": FORCED,
    "num_bystanders": [2],
}
RECALL = {
    "study": "compaction_accuracy_volume",
    "tau_tokens": [2048],
    "block_sizes_tokens": [512],
    "volume": NATURAL,
}


def random_model(**sizes):
    return {"source": "random", **sizes}


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
        (
            (*EXPERIMENT, "block_sizes_tokens"),
            [4096],
            r"\[4096\] exceed 2048, the longest.*lower B or raise",
        ),
        ((*EXPERIMENT, "block_sizes_tokens"), [512, 512], r"lists a value twice"),
        ((*EXPERIMENT, "layouts"), ["spiral"], r"'spiral' is unknown; choose of"),
        ((*EXPERIMENT, "tau_tokens"), [4090], r"exceed the window of small \(4096\); lower tau"),
        ((*EXPERIMENT, "tau_tokens"), [], r"tau_tokens: is empty"),
        (
            (*EXPERIMENT, "volume"),
            {"mode": "forced", "total_tokens": 2040},
            r"cannot shrink \(sequential\).*raise tau",
        ),
        (
            (*EXPERIMENT, "volume"),
            {"mode": "natural", "sequential_max_tokens": 256, "worker_max_tokens": 512},
            r"cannot shrink \(target_block B=512\).*lower the volume",
        ),
        (
            (*SMALL, "engine"),
            {"kind": "vllm", "num_replicas": 2, "arguments": {"port": 8001}},
            r"arguments.port 8001 pins one port and num_replicas is 2; remove the port",
        ),
        (ARGUMENTS, {"data_parallel_size": 2}, r"no prefix cache holds; set num_replicas to 2"),
        (
            (*SMALL, "engine"),
            {
                "kind": "external",
                "url": ["http://a/v1", "http://b/v1", "http://a/v1/"],
                "served_model": "m",
                "version": "1",
            },
            r"url names http://a/v1 more than once",
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
        (
            (*EXPERIMENT, "volume"),
            {"mode": "forced", "total_tokens": 3},
            r"total_tokens 3 leaves workers.*B=512 are 4 history blocks; give at least 4",
        ),
        (ARGUMENTS, {"max_model_len": 5}, r"must not hold max-model-len: .*remove them"),
        (ARGUMENTS, {"port": 70000}, r"arguments.port 70000 is no whole number from 1 to 65535"),
        (ARGUMENTS, {"port": True}, r"arguments.port True is no whole number"),
        (ARGUMENTS, {"port": "any"}, r"arguments.port 'any' is no whole number.*remove it"),
        (MODEL, random_model(hidden_size=250), r"hidden_size 250 is no multiple of num_attention"),
        (MODEL, random_model(num_key_value_heads=3), r"num_attention_heads 4 is no multiple of nu"),
        (MODEL, random_model(hidden_size=64), r"is a head size of 16, and vLLM takes \(32, 64"),
        ((*SMALL, "reasoning"), True, r"without a reasoning-parser leaves the thinking.*name the"),
        ((*EXPERIMENT, "study"), KeyError, r"experiments.e: study is required and missing"),
        ((*EXPERIMENT, "study"), "compaction_speed", r"experiments.e: .*compaction_end_to_end"),
        ((*EXPERIMENT, "study"), "compaction_accuracy_volume", r"mode: 'forced' is refused"),
        ((*EXPERIMENT, "study"), "compaction_layouts", r"e.history_tokens: required and missing"),
        ((*EXPERIMENT, "block_sizes_tokens"), [], r"parallel layouts need at least one B"),
        (EXPERIMENT, {**LADDER, "volume": FORCED}, r"measures the volume itself.*mode to natural"),
        (EXPERIMENT, {**LADDER, "study": "compaction_layouts"}, r"set volume.mode to forced"),
        (EXPERIMENT, {**LADDER, "history_tokens": [4096]}, r"history of 4096 tokens plus an outpu"),
        (EXPERIMENT, {**RECALL, "study": "compaction_block_prompts"}, r"name prompts in block_pr"),
        (EXPERIMENT, {**RECALL, "block_prompts": {"poetry": "x"}}, r"block_prompts.poetry"),
        (
            EXPERIMENT,
            {**BASE["experiments"]["e"], "study": "compaction_matched_volume", "sequential": False},
            r"matched volume compares sequential with parallel arms",
        ),
        (EXPERIMENT, {**EAGER, "volume": FORCED}, r"volume.worker_tokens: required and missing"),
        (EXPERIMENT, {**EAGER, "layouts": []}, r"held against parallel compaction: name a layout"),
        (
            EXPERIMENT,
            {**EAGER, "block_sizes_tokens": [256, 512]},
            r"so an eager experiment has one",
        ),
        (
            EXPERIMENT,
            {**EAGER, "layouts": ["suffix_full"], "eager_layouts": ["suffix_full"]},
            r"'suffix_full' shows a worker what follows .*choose of \['independent', 'suffix_t",
        ),
        (EXPERIMENT, {**EAGER, "eager_layouts": ["independent"]}, r"name it in layouts"),
        (EXPERIMENT, {**EAGER, "boundary": "token"}, r"open_blocks keep needs the boundary turn"),
        (EXPERIMENT, {**EAGER, "tool_waits_s": [-1.0]}, r"a wait is 0 s or more"),
        (
            EXPERIMENT,
            {**EAGER, "block_sizes_tokens": [1500], "volume": {**EACH, "worker_tokens": 300}},
            r"cannot shrink \(suffix_target B=1500\): up to 2116 tokens of .*open history block",
        ),
        (
            EXPERIMENT,
            {**LOAD, "worker_priorities": [5]},
            r"set scheduling-policy: priority in back",
        ),
        (
            EXPERIMENT,
            {**LOAD, "layouts": ["full_marked"], "background_workers": [1]},
            r"'full_marked' shows a worker what follows.*background_workers",
        ),
        ((*EXPERIMENT, "backbones"), ["nobody"], r"names 'nobody', which is not in backbones: sma"),
        ((*EXPERIMENT, "datasets"), ["nothing"], r"names 'nothing', which is not in datasets"),
        ((*SMALL, "datasets"), ["nothing"], r"backbones.small.datasets names 'nothing', which is"),
    ],
)
def test_bad_values_are_refused_with_key_value_and_remedy(tmp_path, path, value, message):
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, edited(path, value))


def test_a_backbone_plays_its_own_datasets_only(tmp_path):
    played = {"source": {"kind": "synthetic"}, "sessions": {"num_sessions": 1, "target_tokens": 1}}
    content = edited((*SMALL, "datasets"), ["own"])
    content["datasets"]["own"] = {"format": "locomo", **played}
    profile = load(tmp_path, content)
    assert profile.experiments_of("small", "own")
    assert not any(profile.experiments_of("small", name) for name in BASE["datasets"])
    content["experiments"]["e"] |= {"tau_tokens": [4090], "datasets": [*BASE["datasets"]]}
    load(tmp_path, content)  # too long for a window that never meets it


def test_all_problems_come_in_one_message(tmp_path):
    content = edited((*SMALL, "gpu"), 1)
    content["datasets"] = {}
    content["backbones"]["wide"] = BASE["backbones"]["small"]
    content["experiments"]["e"]["tau_tokens"] = [4090]
    content["experiments"]["f"] = {**BASE["experiments"]["e"], "block_sizes_tokens": [9999]}
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, content)
    text = str(refused.value)
    assert "4 problem(s)" in text
    for part in ("small.gpu", "datasets: is empty", "window of wide", "[9999] exceed"):
        assert part in text


def test_missing_files_come_with_the_other_problems(tmp_path, project_folder):
    content = edited((*SMALL, "gpu"), 1)
    content["datasets"]["hotpotqa"]["source"] = {"kind": "path", "path": "/no/such.json"}
    content["experiments"]["e"]["prompts"] = ["poetic"]
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError) as refused:
        load_profile([file], prompts_folder=project_folder / "config" / "prompts")
    assert "3 problem(s)" in str(refused.value)
    for part in ("small.gpu", "/no/such.json is no file", "'poetic' is no file"):
        assert part in str(refused.value)


def test_a_reasoning_backbone_with_its_parser_is_sound(tmp_path):
    content = edited((*SMALL, "reasoning"), True)
    content["backbones"]["small"]["engine"]["arguments"] = {"reasoning_parser": "openai_gptoss"}
    content["backbones"]["small"]["engine"]["arguments"]["port"] = 65535
    assert load(tmp_path, content).backbones["small"].reasoning


def test_one_token_a_worker_is_enough_and_without_layouts_there_is_one_worker(tmp_path):
    content = edited((*EXPERIMENT, "volume", "total_tokens"), 4)
    load(tmp_path, content)
    content["experiments"]["e"].update(layouts=[], volume={"mode": "forced", "total_tokens": 1})
    load(tmp_path, content)


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


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"profile: \xff\xfe", r"bad\.yaml is not UTF-8 text"),
        (b"? [a, b]\n: 1\n", r"bad\.yaml is not valid YAML.*unhashable"),
        (b"? {a: b}\n: 1\n", r"bad\.yaml is not valid YAML.*unhashable"),
        (b"profile: 2024-13-45\n", r"bad\.yaml is not valid YAML: month must be"),
    ],
)
def test_broken_files_are_refused_by_name(tmp_path, raw, message):
    file = tmp_path / "bad.yaml"
    file.write_bytes(raw)
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        read_yaml(file)


def test_merge_keys_are_no_duplicates(tmp_path):
    file = tmp_path / "merge.yaml"
    file.write_text(
        "a: {b: &x {p: 1, q: 2}}\nc: {d: &y {<<: *x, q: 3}}\ne: {<<: *y, <<: *x, r: 4}\n"
    )
    content = read_yaml(file)
    assert content["c"]["d"] == {"p": 1, "q": 3}
    assert content["e"]["r"] == 4


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


def test_null_removes_a_mapping_and_nothing_else():
    below = {"experiments": {"e": {"p": 1}, "f": {"q": 2}}, "judge": {"url": "x"}, "n": [1]}
    above = {"experiments": {"e": None, "f": {"q": None}}, "judge": None, "n": None}
    assert merge(below, above) == {"experiments": {"f": {"q": None}}, "n": None}


def test_command_line_values_give_the_same_profile_as_yaml(tmp_path):
    text = {
        "experiments": {
            "e": {
                "seeds": ["0", "1"],
                "tau_tokens": ["1024"],
                "sequential": "no",
                "backbones": "null",
            }
        }
    }
    typed = copy.deepcopy(BASE)
    typed["experiments"]["e"].update(seeds=[0, 1], tau_tokens=[1024], sequential=False)
    assert load(tmp_path, BASE, text) == load(tmp_path, typed)


def test_default_backbones_given_as_command_line_strings_are_the_same(project_folder):
    file = project_folder / "config" / "config.yaml"
    strings = yaml.load(file.read_text(), Loader=yaml.BaseLoader)["backbones"]
    assert strings["smollm2-135m"]["engine"]["environment"] == {"VLLM_CPU_KVCACHE_SPACE": "2"}
    assert load_profile([file], {"backbones": strings}) == load_profile([file])


@pytest.mark.parametrize("text", ["{a: b}", "[1, 2]", "2024-07-26", "2024-13-45", "a: [", "26 Jul"])
def test_command_line_strings_become_nothing_but_scalars(tmp_path, text):
    overrides = {"backbones": edited((*SMALL, "caption"), text)["backbones"]}
    assert load(tmp_path, BASE, overrides).backbones["small"].caption == text


GGUF = {"source": "gguf", "file": "m.Q4_1.gguf", "sha256": "0" * 64}


def test_a_gguf_model_is_published_weights_and_pinned_by_its_digest(tmp_path):
    places = {
        "hub": {"id": "a/b", "revision": "c"},
        "package": {"name": "llm-model", "version": "0.1.2"},
    }
    profile = load(tmp_path, edited(MODEL, {**GGUF, **places}))
    assert profile.backbones["small"].weights is Weights.PUBLISHED
    assert unpinned(profile) == []
    assert load(tmp_path, edited(MODEL, GGUF)).backbones["small"].model.package is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"file": "folder/m.gguf"}, "model.file: 'folder/m.gguf' is refused"),
        ({"file": "../m.gguf"}, "model.file: '../m.gguf' is refused"),
        ({"file": "-rm.gguf"}, "model.file: '-rm.gguf' is refused"),
        ({"file": "m.safetensors"}, "model.file: 'm.safetensors' is refused"),
        ({"sha256": "unpinned"}, "model.sha256: 'unpinned' is refused"),
        ({"sha256": "A" * 64}, "model.sha256: 'AAA.* is refused"),
        ({"package": {"name": "-r", "version": "1"}}, "package.name: '-r' is refused"),
        ({"package": {"name": "a", "version": ""}}, "package.version: '' is refused"),
        ({"package": {"name": "a"}}, "package.version: required and missing"),
        ({"hub": {"id": "a/b"}}, "hub.revision: required and missing"),
        ({"url": "https://x"}, "model.url: unknown key"),
    ],
)
def test_a_gguf_model_that_names_no_file_or_place_is_refused(tmp_path, change, message):
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, edited(MODEL, {**GGUF, **change}))


def test_a_pocket_backbone_is_out_of_domain_on_data_that_is_not_synthetic(tmp_path):
    data = tmp_path / "rows.json"
    data.write_text("[]")
    model = {"source": "pocket", "name": "pocket-4m"}
    content = edited(MODEL, model)
    name = next(iter(content["datasets"]))
    captions = []
    for source in ({"kind": "synthetic"}, {"kind": "path", "path": str(data)}):
        content["datasets"][name]["source"] = source
        profile = load(tmp_path, content)
        captions.append(profile.caption_of("small", name))
        assert profile.backbones["small"].weights is Weights.POCKET
    assert "out of domain" not in captions[0]
    assert captions[1].endswith("out of domain: it was taught the synthetic language only")


def test_missing_paths_and_prompts_are_named(tmp_path):
    content = edited(("datasets", "hotpotqa", "source"), {"kind": "path", "path": "/no/such.json"})
    content["backbones"]["small"]["model"] = {"source": "path", "path": "/no/model"}
    content["experiments"]["e"]["prompts"] = ["poetic"]
    problems = missing_files(load(tmp_path, content), Path("config/prompts"))
    assert len(problems) == 3
    assert "/no/such.json is no file" in problems[0]
    assert "/no/model is no folder" in problems[1]
    assert "'poetic' is no file" in problems[2]


def test_an_arm_whose_block_size_exceeds_the_history_is_left_out(tmp_path):
    content = edited((*EXPERIMENT, "tau_tokens"), [1024, 3000])
    content["experiments"]["e"]["block_sizes_tokens"] = [512, 2048]
    experiment = load(tmp_path, content).experiments["e"]
    assert experiment.arms(1024) == [("sequential", None), ("target_block", 512)]
    assert experiment.arms(3000)[-1] == ("target_block", 2048)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"poetic\.md holds no prompt"),
        ("---\ntarget_frac: 0.1\n---\n \n", r"poetic\.md holds no prompt"),
        (
            "---\ntarget_frac: 2\n---\nDo.",
            r"it is \{'target_frac': 2\}: .* less than or equal to 1",
        ),
        ("---\ntarget_frac: yes\n---\nDo.", r"it is \{'target_frac': True\}"),
        ("---\nwords: 2\n---\nDo.", r"must hold target_frac and nothing else"),
        ("---\n: [\n---\nDo.", r"front matter of .*poetic\.md is not valid YAML"),
    ],
)
def test_a_prompt_that_is_not_understood_is_refused(tmp_path, text, message):
    (tmp_path / "poetic.md").write_text(text)
    profile = load(tmp_path, edited((*EXPERIMENT, "prompts"), ["poetic"]))
    with pytest.raises(ConfigError, match=f"experiments.e: .*{message}"):
        check_files(profile, tmp_path)


def test_a_prompt_may_say_which_volume_it_asks_for(tmp_path):
    (tmp_path / "plain.md").write_text("Summarise {this}.\n")
    (tmp_path / "brief.md").write_text("---\ntarget_frac: 0.1\n---\n\nOne tenth.\n")
    assert load_prompt(tmp_path, "plain") == CompactionPrompt("plain", "Summarise {this}.", None)
    assert load_prompt(tmp_path, "brief") == CompactionPrompt("brief", "One tenth.", 0.1)


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
    assert len(default.backbones) == 3
    assert load_profile([folder / "config.yaml", folder / "paper.yaml"]).require_pinned
