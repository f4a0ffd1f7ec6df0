"""Layouts: what each worker is shown, what of it is cached, and how its target is named."""

import re
from itertools import accumulate

import pytest
from doubles import HEADER_TOKENS, CharRenderer
from hypothesis import given, settings
from hypothesis import strategies as st

from blockwise.compaction.history import Cut, History, Turn, slice_turns
from blockwise.compaction.layouts import load_layout
from blockwise.compaction.partition import partition
from blockwise.compaction.target_name import MAX_CHARS, MIN_WORDS, name_place
from blockwise.config.arms import SEQUENTIAL, known_layouts
from blockwise.config.datasets import MalformedRows, SyntheticSource
from blockwise.data.formats import hotpotqa, locomo
from blockwise.data.synthetic import hotpotqa_rows, locomo_rows

RENDERER = CharRenderer()
LAYOUTS = {name: load_layout(name) for name in [SEQUENTIAL, *known_layouts()]}
SUFFIX_LAYOUTS = ["suffix_target", "suffix_full"]
FIRST_SIGN = 0x4E00  # ideographs: word characters that no layout's own text contains
QUOTED = re.compile(r"(?:words|begins)\n\n(.+?)\n\n\((?:inside )?message (\d+)", re.DOTALL)

FENCED = re.compile(r"(.*)<TARGET_BLOCK (\d{6})>\n(.*)\n</TARGET_BLOCK \2>(.*)", re.DOTALL)

repeating_texts = st.text("ab .\n\t{}", max_size=30)
sizes = st.integers(1, 30)
block_sizes = st.integers(1, 150)
boundaries = st.sampled_from(["turn", "token"])
all_layouts = st.sampled_from(sorted(LAYOUTS))


@st.composite
def histories(draw, texts):
    """Exchanges, some of them with tool calls whose results follow, and some without an answer."""
    turns = []
    for number in range(draw(st.integers(1, 6))):
        turns.append(Turn("user", draw(texts)))
        calls = [{"id": f"{number}.{i}"} for i in range(draw(st.integers(0, 2)))]
        if calls:
            turns.append(Turn("assistant", draw(st.just("") | texts), {"tool_calls": calls}))
        turns += [Turn("tool", draw(texts), {"tool_call_id": call["id"]}) for call in calls]
        if draw(st.booleans()):
            turns.append(Turn("assistant", draw(texts)))
    return History.with_system_prompt("be brief").extended(*turns)


@st.composite
def histories_without_repeats(draw):
    """No character of the conversation occurs twice, so nothing is shared by chance.

    Two empty turns would be, so none is empty.
    """
    history = draw(histories(sizes.map(lambda size: "x" * size)))
    ends = list(accumulate(len(turn.text) for turn in history.turns[1:]))
    signs = "".join(map(chr, range(FIRST_SIGN, FIRST_SIGN + ends[-1])))
    turns = (
        Turn(turn.role, signs[end - len(turn.text) : end], turn.extra)
        for turn, end in zip(history.turns[1:], ends, strict=True)
    )
    return History(history.turns[:1]).extended(*turns)


def cut_up(history, layout, block_size, boundary):
    size = 10**6 if layout == SEQUENTIAL else block_size
    return partition(history, history.compactable(0), size, boundary, RENDERER)


def ask_all(layout, history, blocks):
    return [LAYOUTS[layout].worker_messages(history, blocks, i, "P") for i in range(len(blocks))]


def text_of(turns):
    return "".join(turn.text for turn in turns)


def content_of(messages):
    return "".join(message["content"] for message in messages)


def num_shared(left, right):
    pairs = enumerate(zip(left, right, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(left), len(right)))


def shared_and_untouched_tokens(layout, history, blocks):
    """By worker: tokens its request shares with the conversation, and tokens it says it does."""
    own = RENDERER.render(history.messages(), False)
    head = RENDERER.count(history.messages()[:1], False)
    ends = list(accumulate((part.num_tokens for part in blocks), initial=head))
    for index, messages in enumerate(ask_all(layout, history, blocks)):
        num_cached = LAYOUTS[layout].cached_blocks(index, len(blocks))
        yield num_shared(RENDERER.render(messages, False), own), ends[num_cached]


@settings(deadline=None)
@given(all_layouts, histories_without_repeats(), block_sizes, boundaries)
def test_a_prefix_ends_where_its_layout_says(layout, history, block_size, boundary):
    blocks = cut_up(history, layout, block_size, boundary)
    for shared, untouched in shared_and_untouched_tokens(layout, history, blocks):
        # what breaks the prefix, a mark or another text, stands behind a header of the template
        assert untouched <= shared <= untouched + HEADER_TOKENS


@settings(deadline=None)
@given(all_layouts, histories(repeating_texts), block_sizes, boundaries)
def test_a_prefix_holds_whatever_the_texts_are(layout, history, block_size, boundary):
    blocks = cut_up(history, layout, block_size, boundary)
    for shared, untouched in shared_and_untouched_tokens(layout, history, blocks):
        assert shared >= untouched


@settings(deadline=None)
@given(all_layouts, histories_without_repeats(), block_sizes, boundaries)
def test_every_worker_sees_its_own_history_block_and_the_prompt(
    layout, history, block_size, boundary
):
    blocks = cut_up(history, layout, block_size, boundary)
    for part, messages in zip(blocks, ask_all(layout, history, blocks), strict=True):
        assert text_of(slice_turns(history.turns, *part.span)) in content_of(messages[:-1])
        assert messages[-1]["role"] == "user"
        assert messages[-1]["content"].endswith("\n\nP")


@settings(deadline=None)
@given(histories_without_repeats(), block_sizes, boundaries)
def test_an_independent_worker_sees_no_other_history_block(history, block_size, boundary):
    blocks = cut_up(history, "independent", block_size, boundary)
    for part, messages in zip(blocks, ask_all("independent", history, blocks), strict=True):
        own = text_of(slice_turns(history.turns, *part.span))
        assert content_of(messages[:-1]) == history.turns[0].text + own


@settings(deadline=None)
@given(histories_without_repeats(), block_sizes, boundaries)
def test_full_marked_shows_everything_and_marks_its_history_block(history, block_size, boundary):
    blocks = cut_up(history, "full_marked", block_size, boundary)
    for part, messages in zip(blocks, ask_all("full_marked", history, blocks), strict=True):
        before, nonce, target, after = FENCED.fullmatch(content_of(messages[:-1])).groups()
        assert target == text_of(slice_turns(history.turns, *part.span))
        assert f"<TARGET_BLOCK {nonce}> and </TARGET_BLOCK {nonce}>" in messages[-1]["content"]
        assert before + target + after == text_of(history.turns)


@settings(deadline=None)
@given(st.sampled_from(SUFFIX_LAYOUTS), histories(repeating_texts), block_sizes, boundaries)
def test_a_suffix_layout_leaves_the_conversation_untouched(layout, history, block_size, boundary):
    own = history.messages()
    blocks = cut_up(history, layout, block_size, boundary)
    for part, messages in zip(blocks, ask_all(layout, history, blocks), strict=True):
        stop = blocks[-1].stop if layout == "suffix_full" else part.stop
        whole, cut_turn = messages[: stop.turn], messages[stop.turn : -1]
        assert whole == own[: stop.turn]
        if stop.char:
            text = own[stop.turn]["content"][: stop.char]
            assert cut_turn == [own[stop.turn] | {"content": text}]
        else:
            assert cut_turn == []


@settings(deadline=None)
@given(st.sampled_from(SUFFIX_LAYOUTS), histories(repeating_texts), block_sizes, boundaries)
def test_a_target_is_named_by_its_number_and_by_words_that_occur_once(
    layout, history, block_size, boundary
):
    blocks = cut_up(history, layout, block_size, boundary)
    for index, messages in enumerate(ask_all(layout, history, blocks)):
        shown, request = messages[:-1], messages[-1]["content"]
        places = [blocks[index].start]
        if layout == "suffix_full" and index + 1 < len(blocks):
            places.append(blocks[index].stop)
        for place in places:
            assert f"message {place.turn + 1} of {len(shown)}" in request
        for quotation, number in QUOTED.findall(request):
            holders = [message for message in shown if quotation in message["content"]]
            assert holders == [shown[int(number) - 1]]
            text = holders[0]["content"]
            assert text.find(quotation) == text.rfind(quotation)


def chat(*texts):
    roles = ("user", "assistant")
    return [Turn(roles[index % 2], text) for index, text in enumerate(texts)]


def test_a_quotation_grows_until_it_occurs_once():
    opening = "Chat between Ann and Ben, on the "
    turns = chat(f"{opening}first of May.", "Noted.", f"{opening}second of May.")
    assert f"begins\n\n{opening}second\n\n(message 3 of 3)" in name_place(turns, Cut(2))


def test_a_place_inside_a_message_is_named_by_the_words_there_and_the_space_before_them():
    (quotation, _), *_ = QUOTED.findall(
        name_place(chat("Zero one two three four five six"), Cut(0, 4))
    )
    assert quotation == " one two three four five six"
    assert len(quotation.split()) == MIN_WORDS


def test_a_tool_call_without_text_is_named_by_its_number_and_what_follows():
    call = Turn("assistant", "", {"tool_calls": [{"id": "1"}]})
    turns = [Turn("user", "look"), call, Turn("tool", "42 found", {"tool_call_id": "1"})]
    name = name_place(turns, Cut(1))
    assert name.startswith("message 2 of 3, before the message that begins")
    assert "\n\n42 found\n\n(message 3)" in name


def test_repeated_texts_are_told_apart_by_their_numbers():
    turns = chat("go on", "Noted.", "go on", "Noted.")
    assert name_place(turns, Cut(2)) == "message 3 of 4"
    assert name_place(turns, Cut(3, 3)) == "character 4 of message 4 of 4"


def test_a_text_without_words_does_not_become_a_long_quotation():
    for blob in ("x" * 10_000, "=" * 10_000):
        assert len(name_place(chat(f"{blob} end"), Cut(0))) < 2 * MAX_CHARS


def dataset_history(name):
    """A conversation about synthetic documents, as an agent keeps it."""
    source = SyntheticSource(kind="synthetic", seed=0, num_rows=3, sentences_per_paragraph=3)
    reader, rows = {
        "hotpotqa": (
            hotpotqa.FORMAT.read,
            hotpotqa_rows(source.model_copy(update={"num_rows": 20})),
        ),
        "locomo": (locomo.FORMAT.read, locomo_rows(source)),
    }[name]
    documents, _ = reader(rows, origin=name, malformed=MalformedRows.REFUSE)
    turns = (chat(document.text, "Noted.") for document in documents)
    return History.with_system_prompt("be brief").extended(*(t for pair in turns for t in pair))


@pytest.mark.parametrize("layout", SUFFIX_LAYOUTS)
@pytest.mark.parametrize("boundary", ["turn", "token"])
@pytest.mark.parametrize("dataset", ["hotpotqa", "locomo"])
def test_the_tokens_of_a_quotation_occur_in_the_history_as_one_run(
    dataset, boundary, layout, tiny_renderer
):
    history = dataset_history(dataset)
    known = f" {' '.join(map(str, tiny_renderer.render(history.messages(), False)))} "
    blocks = partition(history, history.compactable(0), 512, boundary, tiny_renderer)
    num_quotations = 0
    for messages in ask_all(layout, history, blocks):
        text = messages[-1]["content"]
        offsets = tiny_renderer.token_offsets(text)
        ids = tiny_renderer.render(messages[-1:], False)[-len(offsets) - 1 : -1]  # bare of template
        for match in QUOTED.finditer(text):
            start, stop = match.span(1)
            inside = [i for i, (a, b) in enumerate(offsets) if a < stop and b > start]
            assert (offsets[inside[0]][0], offsets[inside[-1]][1]) == (start, stop)
            assert f" {' '.join(str(ids[i]) for i in inside)} " in known
            num_quotations += 1
    num_places = len(blocks) if layout == "suffix_target" else 2 * len(blocks) - 1
    assert num_quotations >= 0.9 * num_places  # 99% in decision 0010; there are few places here
