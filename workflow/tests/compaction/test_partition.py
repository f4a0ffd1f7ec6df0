"""History blocks cover the history exactly, never part a tool call from its result."""

from itertools import pairwise

import pytest
from doubles import HEADER_TOKENS, CharRenderer
from hypothesis import given, settings
from hypothesis import strategies as st

from blockwise.compaction.history import Cut, History, Turn, slice_turns
from blockwise.compaction.partition import partition
from blockwise.errors import CompactionError

RENDERER = CharRenderer()

texts = st.lists(st.text("abc <>{}\n", min_size=1, max_size=40), min_size=1, max_size=12)


def conversation(parts):
    turns = [Turn("user" if i % 2 == 0 else "assistant", text) for i, text in enumerate(parts)]
    return History.with_system_prompt("be brief").extended(*turns)


def cover_text(history, blocks):
    return "".join(
        turn.text for block in blocks for turn in slice_turns(history.turns, *block.span)
    )


@given(texts, st.integers(1, 120), st.sampled_from(["turn", "token"]))
def test_blocks_cover_the_range_once_and_in_order(parts, block_size, boundary):
    history = conversation(parts)
    turn_range = history.compactable(0)
    blocks = partition(history, turn_range, block_size, boundary, RENDERER)
    assert blocks[0].start == Cut(1)
    assert blocks[-1].stop == Cut(len(history.turns))
    assert all(left.stop == right.start for left, right in pairwise(blocks))
    assert cover_text(history, blocks) == "".join(parts)
    total = sum(len(part) + HEADER_TOKENS for part in parts)
    assert sum(block.num_tokens for block in blocks) == total
    assert all(block.num_tokens > 0 for block in blocks)
    assert len(blocks) <= -(-total // block_size)


@given(texts, st.integers(1, 120))
def test_turn_boundaries_never_split_an_exchange(parts, block_size):
    history = conversation(parts)
    blocks = partition(history, history.compactable(0), block_size, "turn", RENDERER)
    assert all(block.start.char == 0 and block.stop.char == 0 for block in blocks)
    assert all(history.turns[block.start.turn].role == "user" for block in blocks)


@given(texts, st.integers(8, 120))
def test_token_boundaries_are_within_a_header_of_the_paper_size(parts, block_size):
    history = conversation(parts)
    blocks = partition(history, history.compactable(0), block_size, "token", RENDERER)
    position = 0
    for number, block in enumerate(blocks[:-1], start=1):
        position += block.num_tokens
        assert abs(position - number * block_size) <= HEADER_TOKENS


@settings(deadline=None)
@given(texts, st.integers(1, 120), st.sampled_from(["turn", "token"]), st.integers(0, 3))
def test_a_closed_history_block_stays_as_it_is_while_the_conversation_grows(
    parts, block_size, boundary, last_turns
):
    whole = conversation(parts)
    known = []
    for stop in range(2, len(whole.turns) + 1):
        history = History(whole.turns[:stop])
        turn_range = history.compactable(last_turns)
        if turn_range[0] >= turn_range[1]:
            continue
        closed = partition(history, turn_range, block_size, boundary, RENDERER)[:-1]
        assert closed[: len(known)] == known
        known = closed


def test_an_agent_with_one_order_is_parted_at_its_tool_rounds():
    turns = [Turn("user", "do it " * 5)]
    for number in range(6):
        name = f"c{number}"
        turns.append(Turn("assistant", "", {"tool_calls": [{"id": name}]}))
        turns.append(Turn("tool", "a result " * 5, {"tool_call_id": name}))
    history = History.with_system_prompt("s").extended(*turns)
    blocks = partition(history, history.compactable(0), 100, "turn", RENDERER)
    assert len(blocks) > 2
    assert {block.start.turn % 2 for block in blocks[1:]} == {0}  # where a round begins


def test_one_history_block_is_what_sequential_covers():
    history = conversation(["one", "two", "three"])
    (block,) = partition(history, history.compactable(0), 10_000, "turn", RENDERER)
    assert block.span == (Cut(1), Cut(4))


@pytest.mark.parametrize("boundary", ["turn", "token"])
@pytest.mark.parametrize("block_size", [1, 5, 13, 40])
def test_a_tool_call_stays_with_its_results(boundary, block_size):
    call = {"tool_calls": [{"id": "c1"}, {"id": "c2"}]}
    history = History.with_system_prompt("s").extended(
        Turn("user", "look this up " * 3),
        Turn("assistant", "", call),
        Turn("tool", "first result " * 3, {"tool_call_id": "c1"}),
        Turn("tool", "second result " * 3, {"tool_call_id": "c2"}),
        Turn("assistant", "found it " * 3),
    )
    assert history.group_starts() == [0, 1, 2, 5]
    for block in partition(history, history.compactable(0), block_size, boundary, RENDERER):
        for cut in block.span:
            assert cut.turn not in (3, 4), "a cut between a call and its results"
            assert not (cut.turn == 2 and cut.char > 0)


def test_verbatim_turns_stay_and_never_part_a_tool_group():
    call = {"tool_calls": [{"id": "c1"}]}
    history = History.with_system_prompt("s").extended(
        Turn("user", "q"),
        Turn("assistant", "", call),
        Turn("tool", "r", {"tool_call_id": "c1"}),
    )
    assert history.compactable(0) == (1, 4)
    assert history.compactable(1) == (1, 2)
    assert history.compactable(99) == (1, 1)


def test_nothing_to_cut_and_a_block_size_of_zero_are_refused():
    history = conversation(["a"])
    with pytest.raises(CompactionError, match="block size 0 must be at least 1"):
        partition(history, (1, 2), 0, "turn", RENDERER)
    with pytest.raises(CompactionError, match="no turn is left"):
        partition(history, (1, 1), 8, "turn", RENDERER)
