"""The printed entry of a backbone: what it says, what it leaves open, and that it is valid."""

import json
import sys
from types import SimpleNamespace

import pytest
import yaml

from blockwise.command_line import call
from blockwise.config.backbones import Backbone, Family, RandomModel
from blockwise.describe import backbone as describing
from blockwise.describe.read_model import entry_name
from blockwise.errors import ArtifactError, ConfigError, ServerError
from blockwise.models.prepare import prepare_model
from models.tiny_gguf import TinyGguf
from serving_fixtures import tiny_backbone

LLAMA31 = "{%- if not date_string is defined %}{%- set date_string = '26 Jul 2024' %}{%- endif %}"


@pytest.fixture
def printed(capsys):
    """Name, checked entry and comments that the command prints."""

    def run(*words):
        call(describing.command, [str(word) for word in words])
        said = capsys.readouterr().out
        comments = [line[2:] for line in said.splitlines() if line.startswith("# ")]
        ((name, entry),) = yaml.safe_load(said)["backbones"].items()
        return SimpleNamespace(
            name=name, entry=entry, backbone=Backbone.model_validate(entry), comments=comments
        )

    return run


@pytest.fixture
def folder(tmp_path):
    """A folder of a model's settings, and of the head of its weights."""

    def make(config=None, template="{{ messages }}", tensors=None, name="My Model"):
        path = tmp_path / name
        path.mkdir(exist_ok=True)
        settings = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 64}
        settings |= {"num_key_value_heads": 2, "max_position_embeddings": 4096}
        (path / "config.json").write_text(json.dumps({**settings, **(config or {})}))
        (path / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
        tensors = {"w": ("BF16", [10, 20]), "ids": ("I64", [7])} if tensors is None else tensors
        entries = {
            key: {"dtype": kind, "shape": shape, "data_offsets": [0, 0]}
            for key, (kind, shape) in tensors.items()
        }
        head = json.dumps({"__metadata__": {"format": "pt"}, **entries}).encode()
        (path / "model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head)
        return path

    return make


@pytest.mark.parametrize(
    ("recipe", "architecture"),
    [
        ({}, "dense"),
        ({"family": Family.GPT_OSS, "num_experts": 4, "num_experts_per_token": 2}, "moe"),
    ],
)
def test_a_real_folder_is_described_as_it_is(printed, tmp_path, recipe, architecture):
    shape = {"hidden_size": 128, "num_layers": 2, "num_attention_heads": 2, "vocab_size": 2048}
    model = RandomModel(source="random", num_key_value_heads=2, **shape, **recipe)
    prepared = prepare_model("made", tiny_backbone(model=model), tmp_path / "made")
    found = printed(prepared.path)
    assert found.backbone.architecture == architecture
    assert found.backbone.context_window_tokens == tiny_backbone().context_window_tokens
    assert found.backbone.num_parameters == prepared.num_parameters
    assert found.backbone.engine.environment == {"VLLM_CPU_KVCACHE_SPACE": "1"}
    assert any(line.startswith("memory: ") for line in found.comments)


def test_sizes_follow_from_the_settings(printed, folder):
    found = printed(folder(), "--window", 1_000_000)
    assert (found.name, found.backbone.num_parameters) == ("my-model", 200)
    width = 2 if "at 2 bytes" in found.comments[1] else 4
    kv_bytes = 1_000_000 * 2 * 2 * 2 * 16 * width  # keys and values, layers, heads, head size
    assert f"{kv_bytes / 1e9:.3g} GB of KV cache for one window" in found.comments[1]
    space = int(found.entry["engine"]["environment"]["VLLM_CPU_KVCACHE_SPACE"])
    assert (space - 1) * 2**30 < kv_bytes <= space * 2**30


def test_a_model_of_text_and_images_keeps_its_shape_a_level_deeper(printed, folder):
    inner = {"num_hidden_layers": 3, "max_position_embeddings": 2048, "num_experts": 8}
    found = printed(folder({"text_config": inner}))
    assert found.backbone.architecture == "moe"
    assert found.backbone.context_window_tokens == 2048


@pytest.mark.parametrize(
    ("config", "template", "parser"),
    [
        ({"model_type": "qwen3"}, "{% if enable_thinking %}", "qwen3"),
        ({"model_type": "gpt_oss"}, "<|channel|>analysis", "openai_gptoss"),
        ({"model_type": "other"}, "<think>", "deepseek_r1"),
    ],
)
def test_what_thinks_gets_a_parser(printed, folder, config, template, parser):
    found = printed(folder(config, template))
    assert found.backbone.reasoning
    assert found.entry["engine"]["arguments"]["reasoning-parser"] == parser
    is_guess = any("not found out: reasoning parser" in line for line in found.comments)
    assert is_guess == (config["model_type"] == "other")


def test_a_date_in_the_template_is_pinned_or_named(printed, folder):
    pinned = printed(folder(template=LLAMA31))
    assert pinned.backbone.request.chat_template_arguments == {"date_string": "26 Jul 2024"}
    named = printed(folder(template="{{ strftime_now('%d') }}"))
    assert any("it writes today's date" in line for line in named.comments)


def test_what_is_missing_is_said(printed, folder):
    found = printed(folder({"num_hidden_layers": None}, template=None))
    open_questions = " ".join(line for line in found.comments if line.startswith("not found out"))
    for what in ("memory: ", "chat template: there is none", "whether it thinks", "preflight"):
        assert what in open_questions


def test_packed_weights_need_the_number_of_parameters(printed, folder):
    path = folder(tensors={"blocks": ("U8", [100])})
    with pytest.raises(ConfigError, match=r"weights are packed \(U8\).*--parameters"):
        printed(path)
    assert printed(path, "--parameters", 300).backbone.num_parameters == 300


def test_gpus_are_as_many_as_asked_for(printed, folder):
    found = printed(folder(), "--gpus", 2, "--name", "Mine!")
    assert (found.name, found.backbone.gpus) == ("mine", 2)
    assert found.entry["engine"]["arguments"] == {"tensor-parallel-size": 2}


def test_a_gguf_file_is_named_by_its_digest(printed, tmp_path, monkeypatch):
    monkeypatch.setenv("BLOCKWISE_MODELS", str(tmp_path))
    source = TinyGguf().write(tmp_path / "tiny.gguf")
    found = printed(tmp_path / "tiny.gguf")
    assert found.backbone.model == source
    assert found.backbone.context_window_tokens == 128
    refused = TinyGguf(chat_template=None).write(tmp_path / "other.gguf")
    monkeypatch.setenv("BLOCKWISE_MODELS", str(tmp_path / "elsewhere"))
    found = printed(tmp_path / refused.file)
    assert any("cannot be used: it has no chat template" in line for line in found.comments)
    assert any("is looked for in" in line for line in found.comments)


def test_the_hub_is_asked_for_settings_and_sizes_only(printed, folder, monkeypatch):
    asked = {}

    class Hub:
        def model_info(self, name):
            sizes = SimpleNamespace(parameters={"BF16": 700, "F32": 5})
            return SimpleNamespace(sha="c0ffee", safetensors=sizes)

    def snapshot_download(name, **options):
        asked.update(options)
        return str(folder())

    hub = SimpleNamespace(HfApi=Hub, snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    found = printed("org/Some-Model")
    assert found.entry["model"] == {"source": "hub", "id": "org/Some-Model", "revision": "c0ffee"}
    assert (found.name, found.backbone.num_parameters) == ("some-model", 705)
    assert asked["revision"] == "c0ffee"
    assert not any("safetensors" in pattern for pattern in asked["allow_patterns"])


def test_a_hub_that_cannot_be_reached_is_said_in_one_message(printed, monkeypatch):
    class Hub:
        def model_info(self, name):
            raise OSError("no route")

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(HfApi=Hub))
    with pytest.raises(ServerError, match="the hub says nothing of org/m: no route"):
        printed("org/m")


def test_what_is_no_model_is_refused(printed, tmp_path, folder):
    with pytest.raises(ConfigError, match=r"is no folder and no \.gguf file"):
        printed("no-such-thing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match=r"cannot read .*config\.json"):
        printed(tmp_path / "empty")
    path = folder()
    (path / "model.safetensors").write_bytes(b"\xff" * 20)
    with pytest.raises(ArtifactError, match="cannot read the head of"):
        printed(path)


@pytest.mark.parametrize(
    ("text", "name"),
    [("Qwen2.5 (Chat)", "qwen2.5-chat"), ("---", "my-model"), ("x" * 80, "my-model")],
)
def test_names_are_those_of_the_configuration(text, name):
    assert entry_name(text) == name
