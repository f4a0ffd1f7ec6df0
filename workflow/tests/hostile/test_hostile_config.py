"""Configurations that nobody should write: refused in words, or harmless all the way."""

import json

import pytest
import yaml
from hostile_values import REPEATABLE, WORDS, spoilt, values
from hypothesis import example, given, settings
from hypothesis import strategies as st

from blockwise.artifacts import canonical_json
from blockwise.config.load import load_profile, missing_files, read_yaml
from blockwise.errors import ConfigError

CONFIG = {
    "profile": "t",
    "backbones": {
        "small": {
            "model": {"source": "path", "path": "/models/small"},
            "architecture": "dense",
            "reasoning": False,
            "num_parameters": 1e6,
            "context_window_tokens": 4096,
            "engine": {
                "kind": "vllm",
                "arguments": {"dtype": "float32"},
                "environment": {"VLLM_CPU_KVCACHE_SPACE": "1"},
            },
            "caption": "small",
        },
        "elsewhere": {
            "model": {"source": "hub", "id": "a/b", "revision": "c"},
            "architecture": "moe",
            "reasoning": True,
            "num_parameters": 1e9,
            "context_window_tokens": 8192,
            "engine": {
                "kind": "external",
                "url": "http://host:8000/v1",
                "served_model": "b",
                "version": "1",
                "api_key_env": "SOME_KEY",
            },
        },
    },
    "datasets": {
        "hotpotqa": {
            "format": "hotpotqa",
            "source": {"kind": "url", "url": "https://host/a.json"},
            "sessions": {"num_sessions": 1, "target_tokens": 1000},
        },
        "locomo": {
            "format": "locomo",
            "source": {"kind": "path", "path": "/data/locomo.json"},
            "sessions": {"num_sessions": 1, "target_tokens": 1000},
        },
    },
    "experiments": {
        "e": {
            "study": "compaction_end_to_end",
            "tau_tokens": [2048],
            "block_sizes_tokens": [512],
            "volume": {"mode": "forced", "total_tokens": 128},
            "prompts": ["detailed"],
        }
    },
    "judge": {"url": "http://host/v1", "served_model": "j", "version": "1"},
    "embedder": {"kind": "path", "path": "/models/embedder"},
}
MAX_MESSAGE_CHARS = 20_000
HUGE = "0x" + "f" * 5000
NESTED_LISTS = "[" * 600
LAUGHS = "\n".join(
    [
        "a: &a [x, x]",
        *(
            f"{two}: &{two} [*{one}, *{one}]"
            for one, two in zip("abcdefgh", "bcdefghi", strict=True)
        ),
    ]
)


def outcome(load):
    """What a user sees: a profile that can be written and run, or one message."""
    try:
        return load()
    except ConfigError as error:
        message = str(error)
        assert len(message) < MAX_MESSAGE_CHARS
        assert all(line.isprintable() for line in message.expandtabs().split("\n")), message
        return None


@settings(max_examples=120, **REPEATABLE)
@given(spoilt(CONFIG))
def test_a_spoilt_configuration_is_refused_in_words_or_can_be_recorded(
    tmp_path_factory, project_folder, content
):
    folder = tmp_path_factory.getbasetemp()
    file = folder / "spoilt.yaml"
    file.write_text(yaml.safe_dump(content))
    prompts = project_folder / "config" / "prompts"
    profile = outcome(lambda: load_profile([file], prompts_folder=prompts))
    if profile is not None:
        json.loads(canonical_json(profile.model_dump(mode="json")).encode())
        assert all(line.isprintable() for line in missing_files(profile, prompts))


@settings(max_examples=60, **REPEATABLE)
@given(st.dictionaries(st.sampled_from([*CONFIG, "surprise"]), values, max_size=3))
@example({"profile": HUGE})
@example({"backbones": {"small": {"num_parameters": ".inf"}}})
def test_spoilt_values_of_the_command_line_are_refused_in_words(tmp_path_factory, overrides):
    file = tmp_path_factory.getbasetemp() / "sound.yaml"
    file.write_text(yaml.safe_dump(CONFIG))
    outcome(lambda: load_profile([file], overrides))


@settings(max_examples=70, **REPEATABLE)
@given(st.one_of(st.binary(max_size=60), st.text("[]{}&*!:-?|>\"'#%@ \n\tab0", max_size=40)))
@example("a: " + HUGE)
@example(NESTED_LISTS)
@example(LAUGHS)
@example("a: &a {a: *a}")
@example("!!python/object/apply:os.system ['touch escaped']")
@example("a: !!python/name:os.system")
@example("a: 2026-02-31")
@example('"\\ud800": 1')
@example("? [a]\n: b")
@example(".nan: .inf")
def test_a_file_of_anything_is_a_mapping_or_refused(tmp_path_factory, content):
    folder = tmp_path_factory.getbasetemp()
    file = folder / "anything.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    outcome(lambda: read_yaml(file))
    outcome(lambda: load_profile([file]))
    outcome(lambda: load_profile([file, file]))
    assert not (folder / "escaped").exists()


@pytest.mark.parametrize("word", WORDS)
def test_no_name_leads_anywhere_else(tmp_path, word):
    """Names become files: whatever is accepted as one stays one, in its own folder."""
    for collection in ("backbones", "datasets", "experiments"):
        entries = CONFIG[collection]
        content = {**CONFIG, collection: {word: next(iter(entries.values())), **entries}}
        assert_names_are_safe(tmp_path, content)
    assert_names_are_safe(tmp_path, {**CONFIG, "profile": word})


def assert_names_are_safe(folder, content):
    file = folder / "named.yaml"
    file.write_text(yaml.safe_dump(content))
    profile = outcome(lambda: load_profile([file]))
    if profile is not None:
        names = [profile.profile, *profile.backbones, *profile.datasets, *profile.experiments]
        assert all(name[0].isalnum() and "/" not in name and len(name) < 65 for name in names)
        assert all(name.isprintable() for name in names)


@pytest.mark.parametrize(
    "arguments",
    [
        {"host": "0.0.0.0"},
        {"HOST": "0.0.0.0"},
        {"hos": "0.0.0.0"},  # the server's parser takes a beginning for the whole
        {"host=0.0.0.0": True},
        {"dtype=auto --host=0.0.0.0": True},
        {"-host": "0.0.0.0"},
        {"config": "flags.yaml"},
        {"uds": "/tmp/socket"},
    ],
)
def test_a_server_of_ours_is_bound_to_this_machine_whatever_its_arguments(tmp_path, arguments):
    engine = {**CONFIG["backbones"]["small"]["engine"], "arguments": arguments}
    content = {**CONFIG, "backbones": {"small": {**CONFIG["backbones"]["small"], "engine": engine}}}
    file = tmp_path / "bound.yaml"
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=r"backbones\.small\.engine.*arguments"):
        load_profile([file])
