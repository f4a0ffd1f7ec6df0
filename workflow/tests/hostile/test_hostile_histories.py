"""Conversations of any text: shown to workers as they are, or refused in words."""

import asyncio
import json
import string

import pytest
from hostile_values import REPEATABLE, WORDS, values, words
from hypothesis import example, given, settings
from hypothesis import strategies as st

from blockwise.compaction.agent import ANSWER_FORM, SYSTEM_PROMPT, Agent, AgentRule
from blockwise.compaction.cell_spec import CellSpec
from blockwise.compaction.compactor import CompactionRule, Compactor
from blockwise.compaction.conversation_document import read_conversation
from blockwise.compaction.history import History, Turn, slice_turns
from blockwise.compaction.judgements import Item
from blockwise.compaction.judging import fill_prompt
from blockwise.compaction.messages import compact_messages
from blockwise.compaction.partition import partition
from blockwise.compaction.protocols import immediate
from blockwise.config.arms import SEQUENTIAL, known_layouts
from blockwise.data.documents import Document, Question, Session
from blockwise.errors import BlockwiseError, CompactionError
from compaction.doubles import CachingEngine, CharRenderer

TEMPLATES = (
    "{}", "{0}", "{start}", "{stop}", "{prompt!r}", "{x.__class__.__mro__}", "{{", "}}", "{",
    "%s", "%(start)s", "%n%", "100%", "$start ${stop}", "{{question}}", "{% raw %}", "\\{\\}",
)  # fmt: skip
encodable = words.filter(lambda text: "\ud800" not in text and len(text) < 100)
texts = st.lists(st.sampled_from(TEMPLATES) | encodable, min_size=1, max_size=4).map(" ".join)
exchanges = st.lists(st.tuples(texts, texts), min_size=1, max_size=4)
layouts = st.sampled_from([SEQUENTIAL, *known_layouts()])
boundaries = st.sampled_from(["turn", "token"])


def rule(layout, prompt, block_size=200, boundary="turn"):
    return CompactionRule(
        layout=layout,
        block_size_tokens=None if layout == SEQUENTIAL else block_size,
        boundary=boundary,
        prompt=prompt,
        volume_mode="natural",
        volume_tokens=5,
        last_turns=0,
    )


def history_of(system, exchanges):
    pairs = ((Turn("user", asked), Turn("assistant", said)) for asked, said in exchanges)
    return History.with_system_prompt(system).extended(*(turn for pair in pairs for turn in pair))


@settings(max_examples=80, **REPEATABLE)
@given(layouts, texts, texts.filter(str.strip), exchanges, st.integers(30, 400), boundaries)
def test_what_workers_are_shown_is_never_a_template(
    layout, system, prompt, exchanges, block_size, boundary
):
    """Whatever stands in a text or a prompt, braces and percent signs too, arrives as it is."""
    engine, history = CachingEngine(), history_of(system, exchanges)
    engine.window_tokens = 10**9
    compactor = Compactor(engine, CharRenderer(), rule(layout, prompt, block_size, boundary))
    done = asyncio.run(compactor.compact(history, cache_salt=None, seed=0))
    assert len(engine.requests) == len(done.blocks)
    for request, part in zip(engine.requests, done.blocks, strict=True):
        shown = [message["content"] for message in request.messages]
        assert shown[0] == system
        assert shown[-1].endswith(prompt)
        for turn in slice_turns(history.turns, *part.span):
            assert any(turn.text in content for content in shown[1:])
        if layout in {SEQUENTIAL, "suffix_target", "suffix_full"}:
            num_shown = len(shown) - 1
            whole = [turn.text for turn in history.turns[:num_shown]]
            assert shown[: num_shown - 1] == whole[:-1]
            assert whole[-1].startswith(shown[num_shown - 1])


@settings(max_examples=40, **REPEATABLE)
@given(texts, texts, texts, texts)
def test_what_an_agent_asks_is_never_a_template(text, question, gold, said):
    asked = Question(id="q", text=question, answer=gold, category="bridge", evidence=("d",))
    document = Document(id="d", cluster="d", text=text, questions=(asked,))
    session = Session(id="s", documents=(document,), num_tokens=1)
    engine = CachingEngine(lambda _: said)
    agent_rule = AgentRule("hotpotqa", None, 10**6, forced_answers=False, seed=0)
    agent = Agent(engine, engine.renderer, agent_rule, None, cache_salt=None, kv_block_tokens=None)
    spec = CellSpec.model_construct(transcript="free")
    asyncio.run(immediate.play(agent, session, spec))
    (request,) = engine.requests
    assert [message["content"] for message in request.messages] == [
        SYSTEM_PROMPT,
        f"{text}\n\nQuestion: {question}\n{ANSWER_FORM}",
    ]
    assert agent.history.turns[-1].text == said
    prompt = "Q {{question}} G {{gold}} A {{answer}} {} %s"
    filled = fill_prompt(prompt, Item(question, gold, said))
    parts = [
        json.dumps(" ".join(one.splitlines()), ensure_ascii=False) for one in (question, gold, said)
    ]
    assert filled == "Q {} G {} A {} {{}} %s".format(*parts)


@settings(max_examples=12, **REPEATABLE)
@given(exchanges, st.integers(20, 60), boundaries)
@example([(word.replace("\ud800", ""), "a") for word in WORDS if len(word) < 400], 50, "token")
def test_history_blocks_cover_any_text_with_a_real_tokenizer(
    tiny_renderer, exchanges, block_size, boundary
):
    history = history_of("s", exchanges)
    blocks = partition(history, history.compactable(0), block_size, boundary, tiny_renderer)
    pieces = [slice_turns(history.turns, *part.span) for part in blocks]
    covered = "".join(turn.text for piece in pieces for turn in piece)
    assert covered == "".join(turn.text for turn in history.turns[1:])
    whole = tiny_renderer.count(history.messages(), False)
    head = tiny_renderer.count(history.messages()[:1], False)
    assert sum(part.num_tokens for part in blocks) == whole - head


message = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "tool", "developer", "boss"])},
    optional={
        "content": values | st.just([{"type": "text", "text": "{}"}]),
        "tool_calls": values | st.just([{"id": "1", "function": {"name": "f"}}]),
        "tool_call_id": values | st.just("1"),
        "name": values,
    },
)
conversation = values | st.lists(message | values, max_size=5)


@settings(max_examples=120, **REPEATABLE)
@given(st.one_of(conversation, st.fixed_dictionaries({"messages": conversation})), layouts)
@example([{"role": "user", "content": "x", "extra": float("nan")}], SEQUENTIAL)
@example([{"role": "user", "content": "\ud800"}], SEQUENTIAL)
def test_any_json_is_compacted_or_refused_in_words(document, layout):
    content = json.dumps(document, skipkeys=True).encode()
    try:
        messages = read_conversation(content).messages
        asyncio.run(
            compact_messages(CachingEngine(), ShowingRenderer(), messages, rule(layout, "{}"))
        )
    except BlockwiseError as error:
        str(error).encode()


class ShowingRenderer(CharRenderer):
    """Also takes messages whose content is null, as templates do."""

    def render(self, messages, add_generation_prompt):
        shown = [{**message, "content": message["content"] or ""} for message in messages]
        return super().render(shown, add_generation_prompt)


@pytest.mark.parametrize("content", [b"", b"[" * 100_000, b"\xff", b'{"messages": 1}', b"[1]"])
def test_standard_input_of_anything_is_refused_in_words(content):
    with pytest.raises(CompactionError, match=r"standard input|messages\[0\]"):
        read_conversation(content)


def test_the_examples_hold_what_formatting_would_change():
    changed = 0
    for text in TEMPLATES:
        try:
            changed += text.format(start=1) != text
        except (LookupError, ValueError, AttributeError):
            changed += 1
        changed += string.Template(text).safe_substitute(start=1) != text
    assert changed > len(TEMPLATES) / 2
