"""The random backbone: the same bytes from the same recipe, a tokenizer that loses nothing."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockwise.config.backbones import Family, RandomModel, VllmEngine
from blockwise.models.common_words import ranked_words, zipf_lines
from blockwise.models.prepare import prepare_model
from blockwise.models.random_backbone import SPECIAL_TOKENS, train_tokenizer
from serving_fixtures import tiny_backbone


def test_same_recipe_gives_same_bytes_and_another_seed_does_not(tiny_model, tmp_path):
    again = prepare_model("again", tiny_backbone(), tmp_path / "again")
    recipe = tiny_backbone().model.model_copy(update={"seed": 1})
    other = prepare_model("other", tiny_backbone(model=recipe), tmp_path / "other")
    assert again.digest == tiny_model.digest
    assert other.digest != tiny_model.digest
    weights = "model.safetensors"
    tokenizer = "tokenizer.json"
    ours = Path(tiny_model.path)
    assert (ours / weights).read_bytes() != (tmp_path / "other" / weights).read_bytes()
    assert (ours / tokenizer).read_bytes() == (tmp_path / "other" / tokenizer).read_bytes()


def test_folder_holds_what_a_server_needs(tiny_model):
    config = json.loads((Path(tiny_model.path) / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["vocab_size"] == 2048
    assert config["max_position_embeddings"] == 8192
    generation = json.loads((Path(tiny_model.path) / "generation_config.json").read_text())
    assert generation["eos_token_id"] == SPECIAL_TOKENS.index("<|eot|>")
    assert tiny_model.num_parameters == 2 * 2048 * 128 + 2 * (4 * 128**2 + 3 * 128 * 256) + 5 * 128


def test_families_have_the_shape_of_their_publishers_models(tmp_path):
    configs = {}
    for family in (Family.LLAMA3, Family.GPT_OSS):
        changes = {"family": family, "num_experts": 6, "num_experts_per_token": 2}
        recipe = tiny_backbone().model.model_copy(update=changes)
        prepare_model(family, tiny_backbone(model=recipe), tmp_path / family)
        configs[family] = json.loads((tmp_path / family / "config.json").read_text())
    llama, gpt_oss = configs[Family.LLAMA3], configs[Family.GPT_OSS]
    assert llama["architectures"] == ["LlamaForCausalLM"]
    assert llama["rope_parameters"]["rope_type"] == "llama3"
    assert gpt_oss["architectures"] == ["GptOssForCausalLM"]
    assert (gpt_oss["num_local_experts"], gpt_oss["num_experts_per_tok"]) == (6, 2)
    assert gpt_oss["layer_types"] == ["sliding_attention", "full_attention"]


def test_remaking_replaces_the_folder_and_leaves_no_scratch(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "stale").write_text("from an older recipe")
    prepare_model("again", tiny_backbone(), folder)
    assert not (folder / "stale").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(RandomModel(source="random").vocab_size)


def test_every_id_is_a_token_and_special_tokens_come_first(tokenizer):
    vocabulary = tokenizer.get_vocab()
    assert sorted(vocabulary.values()) == list(range(4096))
    assert [tokenizer.convert_ids_to_tokens(index) for index in range(6)] == list(SPECIAL_TOKENS)


def test_a_vocabulary_beyond_the_corpus_is_filled_with_reserved_tokens():
    tokenizer = train_tokenizer(40_000)
    assert len(tokenizer) == 40_000
    assert any(token.startswith("<|reserved_") for token in tokenizer.get_vocab())


@settings(deadline=None)
@given(text=st.text())
def test_any_text_round_trips(tokenizer, text):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text


def test_plain_english_costs_few_tokens(tokenizer):
    text = "The city was founded in the second half of the century by a member of the family."
    assert len(tokenizer(text)["input_ids"]) < 1.6 * len(text.split())


def test_word_list_is_clean():
    words = ranked_words()
    assert len(words) == len(set(words)) > 1000
    assert all(word.isalpha() for word in words)
    assert words[0] == "the"
    counts = " ".join(zipf_lines()).split()
    assert counts.count("the") == 10 * counts.count(words[9])


def test_an_engine_that_makes_weights_up_is_given_none(tiny_model, tmp_path):
    engine = VllmEngine(kind="vllm", arguments={"load-format": "dummy"})
    dummy = prepare_model("dummy", tiny_backbone(engine=engine), tmp_path / "dummy")
    assert dummy.num_parameters == tiny_model.num_parameters
    ours, theirs = Path(dummy.path), Path(tiny_model.path)
    assert {path.name for path in theirs.iterdir()} - {path.name for path in ours.iterdir()} == {
        "model.safetensors"
    }
    for name in ("config.json", "tokenizer.json", "generation_config.json"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes()
