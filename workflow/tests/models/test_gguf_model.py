"""GGUF files: converted to what the server loads, proven, or refused in words."""

import hashlib
import os
import shutil
import sys
from pathlib import Path

import gguf
import pytest
import torch
from safetensors import SafetensorError
from test_prepare import profile_with
from tiny_gguf import CHAT_TEMPLATE, NO_SYSTEM_TEMPLATE, TinyGguf
from transformers import AutoModelForCausalLM

from blockwise.artifacts import read_model, write_json, write_model
from blockwise.config.backbones import GgufModel
from blockwise.errors import ArtifactError
from blockwise.models import fetch_model, gguf_conversion
from blockwise.models import prepare as models_module
from blockwise.models.gguf_model import FetchedGguf, fetch_gguf
from blockwise.models.model_files import MODELS_VARIABLE
from blockwise.models.prepare import PreparedModel, prepare_model
from blockwise.models.renderer import Renderer
from serving_fixtures import tiny_backbone

SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
SMOLLM2_GREEDY = (504, 7626, 282, 1910, 359, 42, 198, 198, 504, 37939, 28, 260, 33900, 28, 284, 260)


@pytest.fixture
def models(tmp_path, monkeypatch):
    folder = tmp_path / "models"
    folder.mkdir()
    monkeypatch.setenv(MODELS_VARIABLE, str(folder))
    return folder


def prepare(source, folder: Path) -> PreparedModel:
    return prepare_model("tiny", tiny_backbone(model=source), folder)


def logits_of(model) -> torch.Tensor:
    with torch.inference_mode():
        return model.float()(torch.arange(24).unsqueeze(0)).logits


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "gemma3"])
def test_a_converted_model_computes_what_the_original_does(models, tmp_path, architecture):
    tiny = TinyGguf(architecture=architecture)
    source = tiny.write(models / "tiny.F32.gguf")
    prepared = prepare(source, tmp_path / "prepared")
    converted = AutoModelForCausalLM.from_pretrained(prepared.path)
    assert converted.dtype == torch.bfloat16
    given = dict(tiny.model.named_parameters())
    assert all(torch.equal(one, given[name]) for name, one in converted.named_parameters())
    torch.testing.assert_close(
        logits_of(converted), logits_of(tiny.model), rtol=1e-3, atol=1e-3
    )  # Gemma scales its embeddings in the model's own type
    assert prepared.num_parameters == sum(one.numel() for one in tiny.model.parameters())


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_tokenizer_and_template_are_the_file_s(models, tmp_path, architecture):
    tiny = TinyGguf(architecture=architecture)
    prepared = prepare(tiny.write(models / "tiny.gguf"), tmp_path / "prepared")
    template = (tmp_path / "prepared" / "chat_template.jinja").read_bytes()
    assert template == CHAT_TEMPLATE.encode()
    renderer = Renderer(prepared.tokenizer_path)
    ids = renderer.render([{"role": "user", "content": "the"}], add_generation_prompt=False)
    assert ids[0] == tiny.tokens.index("<|im_start|>")
    assert tiny.tokens.index("<|im_end|>") in ids
    proof = prepared.gguf.proof
    assert proof.num_vocabulary_tokens == len(tiny.tokens)
    assert proof.num_respelled_tokens == (2 if architecture == "gemma3" else 0)
    assert 1 <= len(proof.greedy.token_ids) <= 16
    assert proof.greedy.dtype == "bfloat16"


def test_the_record_names_model_format_digest_and_licence(models, tmp_path):
    tiny = TinyGguf(
        quantization=gguf.GGMLQuantizationType.Q8_0, file_type=gguf.LlamaFileType.MOSTLY_Q8_0
    )
    source = tiny.write(models / "tiny-instruct-q8_0.gguf")
    fetched = fetch_gguf("tiny", source, print)
    record = tmp_path / "fetched.json"
    write_model(record, fetched)
    backbone = tiny_backbone(model=source)
    folder = tmp_path / "prepared"
    prepared = prepare_model("tiny", backbone, folder, read_model(record, FetchedGguf))
    write_model(record, prepared)
    assert read_model(record, PreparedModel) == prepared
    origin = prepared.gguf
    assert (origin.sha256, origin.format, origin.license) == (source.sha256, "Q8_0", "apache-2.0")
    words = f"tiny-instruct, Q8_0 dequantized, sha256 {source.sha256[:12]}"
    assert origin.words == prepared.words == words
    assert origin.origin == f"models folder {models}"
    assert prepare(source, tmp_path / "again").digest == prepared.digest


def test_a_format_that_the_file_does_not_say_is_that_of_most_weights(models, tmp_path):
    tiny = TinyGguf(quantization=gguf.GGMLQuantizationType.Q8_0, file_type=None)
    assert prepare(tiny.write(models / "a.gguf"), tmp_path / "p").gguf.format == "Q8_0"


def test_the_jobs_fetch_and_prepare_by_their_command_lines(models, tmp_path, monkeypatch, capsys):
    source = TinyGguf().write(models / "tiny.gguf")
    config, fetched, output = (tmp_path / f"{name}.json" for name in ("config", "fetched", "out"))
    write_json(config, profile_with(tiny_backbone(model=source)))
    common = ["--config", str(config), "--backbone", "tiny"]
    monkeypatch.setattr(sys, "argv", ["fetch_model", *common, "--output", str(fetched)])
    fetch_model.main()
    assert f"bytes in {models / 'tiny.gguf'}, from models folder" in capsys.readouterr().err
    folder = ["--folder", str(tmp_path / "tiny"), "--fetched", str(fetched)]
    monkeypatch.setattr(sys, "argv", ["models", *common, *folder, "--output", str(output)])
    models_module.main()
    prepared = read_model(output, PreparedModel)
    assert (prepared.source, prepared.gguf.sha256) == ("gguf", source.sha256)
    assert (tmp_path / "tiny" / "config.json").is_file()


SCALED = {"llama.rope.scaling.type": "yarn"}
BAD = {
    "architecture": (TinyGguf(architecture="phi3"), r"'phi3', and llama, qwen2, qwen3, gemma3 are"),
    "quantization": (
        TinyGguf(raw_dtype=gguf.GGMLQuantizationType.Q8_1),
        r"quantized as Q8_1, which gguf cannot dequantize; take another quantization",
    ),
    "scaled positions": (TinyGguf(extra=SCALED), r"rotary embedding is scaled \(yarn\)"),
    "Llama 3.1": (TinyGguf(added="rope_freqs.weight"), r"embedding is scaled \(rope_freqs.weight"),
    "no template": (TinyGguf(chat_template=None), r"no chat template; take an instruction-tuned"),
    "another tokenizer": (TinyGguf(tokenizer="bert"), r"tokenizer is bert, and gpt2 or llama is"),
    "another splitting": (TinyGguf(pre_tokenizer="chameleon"), r"by the rule 'chameleon'"),
    "system message": (
        TinyGguf(chat_template=NO_SYSTEM_TEMPLATE),
        r"takes no system message \(says: no system role\).*Take a model whose template does",
    ),
    "dropped system message": (
        TinyGguf(chat_template="{{ messages[-1]['content'] }}"),
        r"takes no system message \(leaves it out\)",
    ),
    "a tensor too few": (
        TinyGguf(left_out="output_norm.weight"),
        r"the file has no output_norm.weight",
    ),
    "a tensor too many": (TinyGguf(added="blk.0.odd.weight"), r"no place for blk.0.odd.weight"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_used_is_refused_and_leaves_nothing(models, tmp_path, case):
    tiny, message = BAD[case]
    source = tiny.write(models / "tiny.gguf")
    with pytest.raises(ArtifactError, match=message):
        prepare(source, tmp_path / "out" / "prepared")
    assert list((tmp_path / "out").iterdir()) == []


def damaged(path: Path, data: bytes) -> GgufModel:
    """A source whose digest is that of damaged bytes: the reader is asked, not the digest."""
    source = GgufModel(source="gguf", file=path.name, sha256="0" * 64)
    path.write_bytes(data)
    return source.model_copy(update={"sha256": hashlib.sha256(data).hexdigest()})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: b"PK\x03\x04" + data[4:], r"no GGUF file: it begins with b'PK"),
        (lambda data: data[: len(data) // 2], r"cut short or of a kind that gguf does not know"),
        (lambda data: data[:100], r"cut short or of a kind"),
        (lambda data: b"", r"no GGUF file: it begins with b''"),
    ],
)
def test_damaged_files_of_the_right_digest_are_refused(models, tmp_path, change, message):
    TinyGguf().write(models / "whole.gguf")
    source = damaged(models / "tiny.gguf", change((models / "whole.gguf").read_bytes()))
    with pytest.raises(ArtifactError, match=message):
        prepare(source, tmp_path / "prepared")
    assert not (tmp_path / "prepared").exists()


@pytest.mark.parametrize("change", ["flipped", "truncated", "gone"])
def test_a_file_that_changed_after_it_was_fetched_is_not_read(models, tmp_path, change):
    path = models / "tiny.gguf"
    source = TinyGguf().write(path)
    fetched = fetch_gguf("tiny", source, print)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data if change == "flipped" else data[:-9])
    if change == "gone":
        path.unlink()
    backbone = tiny_backbone(model=source)
    with pytest.raises(ArtifactError, match=rf"tiny.gguf .*sha256 {source.sha256} was fetched"):
        prepare_model("tiny", backbone, tmp_path / "prepared", fetched)


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), SafetensorError("No space left on device")]
)
def test_a_full_disk_is_one_message_and_leaves_the_old_model(models, tmp_path, monkeypatch, error):
    source = TinyGguf().write(models / "tiny.gguf")
    folder = tmp_path / "out" / "prepared"
    before = prepare(source, folder)

    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(gguf_conversion, "save_file", refuse)
    with pytest.raises(ArtifactError, match=r"cannot write .*prepared: .*No space.*free space"):
        prepare(source, folder)
    assert [path.name for path in folder.parent.iterdir()] == ["prepared"]
    monkeypatch.undo()
    monkeypatch.setenv(MODELS_VARIABLE, str(models))
    assert prepare(source, folder) == before


@pytest.fixture
def smollm2(monkeypatch):
    folder = Path(os.environ.get(MODELS_VARIABLE) or "absent")
    if not (folder / SMOLLM2).is_file():
        pytest.skip(f"needs {SMOLLM2} in the folder that {MODELS_VARIABLE} names")
    return GgufModel(source="gguf", file=SMOLLM2, sha256=SMOLLM2_SHA256)


def test_smollm2_is_the_published_model(smollm2, tmp_path):
    prepared = prepare(smollm2, tmp_path / "prepared")
    assert prepared.words == "SmolLM2-135M-Instruct, Q4_1 dequantized, sha256 b179c9523d0e"
    assert prepared.num_parameters == 134_515_008
    assert (prepared.gguf.architecture, prepared.gguf.license) == ("llama", "apache-2.0")
    assert prepared.gguf.proof.greedy.token_ids == SMOLLM2_GREEDY
    shutil.rmtree(prepared.path)
