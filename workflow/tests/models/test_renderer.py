"""The renderer: counts equal full tokenisation, offsets never part a character."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from blockwise.errors import ConfigError, EngineError
from blockwise.models.renderer import Renderer

TEXTS = st.text() | st.sampled_from(
    ["", " ", "<|eot|>", "<|us", "er|>", "  a <|bos|> b\n", "x" * 99]
)
ROLES = st.sampled_from(["system", "user", "assistant", "tool"])
CONVERSATIONS = st.lists(
    st.builds(lambda role, text: {"role": role, "content": text}, ROLES, TEXTS),
    min_size=1,
    max_size=6,
)
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {"id": "1", "type": "function", "function": {"name": "find", "arguments": '{"q": "a"}'}}
    ],
}


def whole(renderer: Renderer, messages, add_generation_prompt: bool) -> list[int]:
    """Token ids by transformers alone, without any of our short cuts."""
    return renderer._tokenizer.apply_chat_template(
        messages, tokenize=True, add_generation_prompt=add_generation_prompt, return_dict=False
    )


@settings(deadline=None)
@given(messages=CONVERSATIONS, generation=st.booleans())
def test_render_and_count_equal_whole_text_tokenisation(tiny_renderer, messages, generation):
    expected = whole(tiny_renderer, messages, generation)
    assert tiny_renderer.render(messages, generation) == expected
    assert tiny_renderer.count(messages, generation) == len(expected)


TEMPLATES = {
    "own": None,
    "trimming": "{% for m in messages %}<|user|>{{ m.content | trim }}<|eot|>{% endfor %}",
    "open": "{% for m in messages %}<|user|>{{ m.content }}{% endfor %}",
    "numbered": "{% for m in messages %}{{ loop.index }}/{{ messages | length }}{{ m.content }}"
    "<|eot|>{% endfor %}",
}


@pytest.mark.parametrize("template", TEMPLATES)
@settings(deadline=None, max_examples=50)
@given(messages=CONVERSATIONS)
def test_ends_are_the_counts_of_all_prefixes(tiny_model, template, messages):
    renderer = Renderer(tiny_model.tokenizer_path)
    if TEMPLATES[template] is not None:
        renderer._tokenizer.chat_template = TEMPLATES[template]
        renderer._learn_template()
    counts = [renderer.count(messages[: i + 1], False) for i in range(len(messages))]
    assert renderer.ends(messages) == counts


@settings(deadline=None)
@given(messages=CONVERSATIONS)
def test_own_template_is_prefix_stable_in_any_role_order(tiny_renderer, messages):
    assert tiny_renderer.prefix_break(messages) is None


@settings(deadline=None)
@given(text=TEXTS)
def test_offsets_cover_the_text_with_one_entry_a_token(tiny_renderer, text):
    offsets = tiny_renderer.token_offsets(text)
    assert len(offsets) == tiny_renderer.count_text(text)
    assert all(start <= stop for start, stop in offsets)
    previous = (0, 0)
    for offset in offsets:
        assert offset == previous or offset[0] in previous
        previous = offset
    assert not offsets or (offsets[0][0], offsets[-1][1]) == (0, len(text))


def test_bytes_of_one_character_share_its_offsets(tiny_renderer):
    offsets = tiny_renderer.token_offsets("a🙂b")
    assert offsets[0] == (0, 1)
    assert offsets[-1] == (2, 3)
    assert set(offsets[1:-1]) == {(1, 2)}
    assert len(offsets) > 3


def test_a_growing_conversation_tokenises_only_its_new_turn(tiny_model, monkeypatch):
    renderer = Renderer(tiny_model.tokenizer_path)
    messages = [{"role": "user", "content": f"document {index}"} for index in range(50)]
    renderer.count(messages, add_generation_prompt=True)
    seen = []
    encode = renderer._encode
    monkeypatch.setattr(renderer, "_encode", lambda text: seen.append(text) or encode(text))
    renderer.count([*messages, {"role": "assistant", "content": "noted"}], True)
    assert seen == ["<|assistant|>noted"]


def test_a_plain_conversation_is_counted_without_rendering_it(tiny_renderer, monkeypatch):
    messages = [{"role": "user", "content": "document"}, {"role": "assistant", "content": "noted"}]
    expected = [len(whole(tiny_renderer, messages, generation)) for generation in (False, True)]
    monkeypatch.setattr(tiny_renderer, "render_text", None)
    assert [tiny_renderer.count(messages, generation) for generation in (False, True)] == expected


def test_tool_call_arguments_may_be_text_or_object(tiny_renderer):
    as_object = json.loads(json.dumps(CALL))
    as_object["tool_calls"][0]["function"]["arguments"] = {"q": "a"}
    text = tiny_renderer.render_text([CALL], add_generation_prompt=False)
    assert 'find {"q": "a"}' in text
    assert tiny_renderer.render_text([as_object], add_generation_prompt=False) == text


def test_an_unknown_role_is_refused_in_words(tiny_renderer):
    with pytest.raises(EngineError, match="wizard"):
        tiny_renderer.count([{"role": "wizard", "content": "hi"}], add_generation_prompt=True)


def tokenizer_with(folder: Path, template: str | None, *added: AddedToken) -> Renderer:
    """A tokenizer that marks the start of each piece, as SentencePiece models do."""
    vocabulary = {"<unk>": 0, "▁": 1, **{chr(97 + i): 2 + i for i in range(26)}}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    tokenizer.add_special_tokens(list(added))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, chat_template=template, unk_token="<unk>"
    ).save_pretrained(folder)
    return Renderer(str(folder))


PLAIN = "{% for m in messages %}<turn>{{ m.role }} {{ m.content }}<end>{% endfor %}"


@pytest.mark.parametrize("strips", [False, True])
def test_foreign_tokenizers_are_counted_exactly_too(tmp_path, strips):
    renderer = tokenizer_with(
        tmp_path, PLAIN, AddedToken("<turn>", special=True), AddedToken("<end>", rstrip=strips)
    )
    messages = [
        {"role": "user", "content": text} for text in ("ab  c", " <end>  d ", "", "x<turn>")
    ]
    for stop in range(1, 5):
        expected = whole(renderer, messages[:stop], False)
        assert renderer.render(messages[:stop], False) == expected


def test_a_template_that_rewrites_earlier_turns_is_named(tmp_path):
    template = (
        "{% for m in messages %}<turn>{% if loop.last %}{{ m.content }}{% endif %}{% endfor %}"
    )
    renderer = tokenizer_with(tmp_path, template, AddedToken("<turn>", special=True))
    messages = [{"role": "user", "content": "ab"}, {"role": "assistant", "content": "c"}]
    problem = renderer.prefix_break(messages)
    assert problem is not None
    assert problem.startswith("turn 2 (assistant)")


def test_a_tokenizer_without_template_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no chat template"):
        tokenizer_with(tmp_path, None)


def test_a_folder_without_tokenizer_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot load a tokenizer"):
        Renderer(str(tmp_path))
