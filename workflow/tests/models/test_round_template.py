"""Conversations with tools are counted by round, exactly, in three families of templates."""

import shutil

import pytest
from chat_templates import FAMILIES, SPECIAL_TOKENS, TOOLS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from blockwise.models.renderer import Renderer

TEXTS = st.sampled_from(["", " ", "x", " line one\n\nline two \n", "<|im_end|>", "naïve 日本 🙂"])
WORDS = TEXTS.filter(lambda text: bool(text.strip()))


def call(number, arguments):
    function = {"name": f"tool_{number}", "arguments": arguments}
    return {"id": f"call{number:05}", "type": "function", "function": function}


@st.composite
def tool_rounds(draw):
    arguments = st.sampled_from(["{}", '{"path": "a/b.py"}', '{"deep": {"x": [1, null]}}', "torn"])
    calls = [call(number, draw(arguments)) for number in range(draw(st.integers(1, 3)))]
    results = [{"role": "tool", "tool_call_id": one["id"], "content": draw(TEXTS)} for one in calls]
    return [{"role": "assistant", "content": draw(TEXTS), "tool_calls": calls}, *results]


@st.composite
def exchanges(draw):
    rounds = draw(st.lists(tool_rounds(), max_size=3))
    return [
        {"role": "user", "content": draw(WORDS)},
        *(message for one in rounds for message in one),
        {"role": "assistant", "content": draw(WORDS)},
    ]


@st.composite
def conversations(draw):
    system = [{"role": "system", "content": "Be brief."}] if draw(st.booleans()) else []
    turns = draw(st.lists(exchanges(), min_size=1, max_size=4))
    return [*system, *(message for one in turns for message in one)]


@pytest.fixture(scope="module", params=FAMILIES)
def renderer(request, tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("family") / "model"
    shutil.copytree(tiny_model.tokenizer_path, folder)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL_TOKENS)})
    tokenizer.chat_template = FAMILIES[request.param]
    tokenizer.save_pretrained(folder)
    return Renderer(str(folder))


@pytest.mark.parametrize("tools", [(), TOOLS], ids=["without tools", "with tools"])
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(messages=conversations(), generation=st.booleans())
def test_e2_counts_and_ends_are_those_of_the_whole_text(renderer, tools, messages, generation):
    offering = renderer.with_tools(tools) if tools else renderer
    assert offering._rounds is not None
    text = offering.render_text(messages, generation)
    expected = len(offering._encode(text))
    assert offering.count(messages, generation) == expected
    ends = offering.ends(messages)
    assert ends == sorted(ends)
    for stop, end in enumerate(ends, start=1):
        if stop == len(messages) or messages[stop]["role"] != "tool":
            whole = offering.render_text(messages[:stop], False)
            assert end == len(offering._encode(whole))


def test_e2_a_growing_conversation_renders_only_its_new_round(renderer, monkeypatch):
    asked = [{"role": "user", "content": "Look."}, {"role": "assistant", "content": "I do."}]
    calls = {"role": "assistant", "content": "", "tool_calls": [call(1, "{}")]}
    result = {"role": "tool", "tool_call_id": "call00001", "content": "It is there."}
    messages = [*asked, asked[0], calls, result]
    renderer.count(messages, True)
    monkeypatch.setattr(renderer, "render_text", None)
    expected = renderer.count(messages, True)
    assert renderer.count(messages, True) == expected
    assert renderer.ends(messages)[-1] + renderer._prompt_tokens == expected


def test_e2_a_system_prompt_alone_has_one_end(renderer):
    prompt = [{"role": "system", "content": "Be brief."}]
    text = renderer.render_text(prompt, False)
    assert renderer.ends(prompt) == [renderer.count(prompt, False)] == [len(renderer._encode(text))]
