"""C3 to C6: what templates hide, what failed workers leave, what the window holds, what counts."""

import asyncio
import itertools
import shutil

import pytest
from doubles import CachingEngine, CharRenderer, rule

from blockwise.compaction.ahead import AnswersAhead
from blockwise.compaction.history import Cut, History, Turn
from blockwise.compaction.messages import OnOversize, Policy, compact_messages
from blockwise.compaction.messages_record import Outcome
from blockwise.compaction.partition import token_pieces
from blockwise.config.arms import SEQUENTIAL, known_layouts
from blockwise.errors import CompactionError, EngineError
from blockwise.models.assumed_renderer import AssumedRenderer
from blockwise.models.renderer import CountedBy, Renderer

GOOD = "The user asked what has to be done and the assistant said it."


def chat(num_exchanges=6):
    return [
        {"role": "system", "content": "You are a careful engineer."},
        *(
            {"role": role, "content": f"{role} says in message {number} what has to be done. " * 3}
            for number in range(num_exchanges)
            for role in ("user", "assistant")
        ),
    ]


def compact(messages, engine, renderer=None, *, ahead=None, policy=None, **changes):
    renderer = renderer or CharRenderer()
    call = compact_messages(engine, renderer, messages, rule(**changes), policy=policy, ahead=ahead)
    return asyncio.run(call)


WITHOUT_CALLS = """\
{% for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
PATH = "src/deep/file_number_17.py"


def test_c3_calls_that_the_template_leaves_out_are_shown_as_text_and_counted(tiny_model, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model.tokenizer_path, folder)
    (folder / "chat_template.jinja").write_text(WITHOUT_CALLS)
    renderer = Renderer(str(folder))
    assert not renderer.shows_tool_rounds
    function = {"name": "write_file", "arguments": f'{{"path": "{PATH}", "text": "{"x " * 300}"}}'}
    messages = [
        *chat(2),
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "a", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "a", "content": "written: 301 words"},
        {"role": "assistant", "content": "It is written."},
    ]
    engine = CachingEngine(lambda _: GOOD)
    engine.renderer = renderer
    done = compact(messages, engine, renderer)
    said = str(engine.requests[-1].messages)
    assert f"[calls write_file({function['arguments']})" in said
    assert "written: 301 words" in said
    assert done.tokens_before > 300
    assert done.record.outcome is Outcome.COMPACTED


def test_c3_a_template_that_shows_tool_rounds_is_left_alone(tiny_renderer):
    assert tiny_renderer.shows_tool_rounds
    assert tiny_renderer.shown(chat()) == chat()


class Failing(CachingEngine):
    """Fails the request of one worker as long as it is told to."""

    broken = True

    async def complete(self, request, *, max_attempts=1):
        if self.broken and len(self.requests) == 2:
            self.requests.append(request)
            await asyncio.sleep(0.01)  # the others are done by then
            raise EngineError("the server is gone")
        return await super().complete(request, max_attempts=max_attempts)


def test_c4_finished_workers_are_kept_for_the_next_attempt():
    engine, ahead = Failing(lambda _: GOOD), AnswersAhead()
    failed = compact(chat(), engine, ahead=ahead)
    assert failed.status is Outcome.FAILED
    assert "the server is gone" in failed.reason
    assert failed.messages == chat()
    num_asked = len(engine.requests)
    engine.broken = False
    done = compact(chat(), engine, ahead=ahead)
    assert done.status is Outcome.COMPACTED
    assert len(engine.requests) - num_asked == 1
    assert done.record.num_blocks == num_asked > 2
    assert ahead.wasted_tokens == 0
    ahead.settle(())
    assert ahead.wasted_tokens == 0  # nothing was left in it


def test_c4_what_was_finished_of_another_history_is_not_taken():
    engine, ahead = Failing(lambda _: GOOD), AnswersAhead()
    compact(chat(), engine, ahead=ahead)
    engine.broken = False
    before = len(engine.requests)
    other = [{**message, "content": f"{message['content']}!"} for message in chat()]
    done = compact(other, engine, ahead=ahead)
    assert len(engine.requests) - before == done.record.num_blocks


def test_c4_what_failed_again_and_again_does_not_pile_up():
    ahead, sizes = AnswersAhead(), []
    for number in range(3):
        messages = [{**message, "content": f"{message['content']}{number}"} for message in chat()]
        compact(messages, Failing(lambda _: GOOD), ahead=ahead)
        sizes.append(len(ahead._finished))
    assert sizes == [sizes[0]] * 3
    assert ahead.wasted_tokens > 0


def with_window(window_tokens):
    engine = CachingEngine(lambda _: GOOD)
    engine.window_tokens = window_tokens
    return engine


def test_c5_the_layout_that_fits_is_named_and_nothing_is_paid():
    engine = with_window(900)
    with pytest.raises(CompactionError, match=r"window has 900. use the layout independent"):
        compact(chat(), engine)
    assert not engine.requests


def test_c5_a_cap_shrinks_to_what_the_window_leaves():
    messages = chat(2)
    needed = CharRenderer().count(messages, True)
    engine = with_window(needed + 500)
    done = compact(messages, engine, volume_tokens=5000)
    assert done.status is Outcome.COMPACTED
    assert all(64 <= request.max_tokens < 500 for request in engine.requests)


@pytest.mark.parametrize("layout", [SEQUENTIAL, *known_layouts()])
def test_c5_a_history_over_the_window_is_cut_into_pieces(layout):
    engine = with_window(1500)
    messages = chat()
    done = compact(
        messages,
        engine,
        policy=Policy(on_oversize=OnOversize.SPLIT),
        layout=layout,
        block_size_tokens=None if layout == SEQUENTIAL else 2000,
    )
    assert done.status is Outcome.COMPACTED
    said = "".join(request.messages[-1]["content"] for request in engine.requests)
    for message in messages[1:]:
        assert message["content"][:40] in said
    for request in engine.requests:
        prompt_tokens = engine.renderer.count(request.messages, True)
        assert prompt_tokens + request.max_tokens <= 1500


def test_c5_one_tool_result_over_the_window_is_cut():
    long_result = " ".join(f"line{number}" for number in range(1500))
    calls = [{"id": "a", "type": "function", "function": {"name": "cat", "arguments": "{}"}}]
    messages = [
        *chat(1),
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "a", "content": long_result},
        {"role": "assistant", "content": "I have read it."},
    ]
    engine = with_window(3000)
    done = compact(messages, engine, policy=Policy(on_oversize=OnOversize.SPLIT))
    assert done.status is Outcome.COMPACTED
    assert done.record.is_split
    assert len(engine.requests) > 3
    said = "".join(request.messages[-1]["content"] for request in engine.requests)
    assert "line0 " in said
    assert "line1499" in said


def test_c5_no_room_for_any_piece_is_said():
    engine = with_window(300)
    with pytest.raises(CompactionError, match="leaves no room for a piece"):
        compact(chat(), engine, policy=Policy(on_oversize=OnOversize.SPLIT))
    assert not engine.requests


@pytest.mark.parametrize("size", [7, 50, 333, 10_000])
def test_c5_pieces_cover_the_turns_exactly(size):
    history = History(tuple(Turn(one["role"], one["content"]) for one in chat()))
    pieces = token_pieces(history, (1, 13), size, CharRenderer())
    assert (pieces[0].start, pieces[-1].stop) == (Cut(1), Cut(13))
    assert all(a.stop == b.start for a, b in itertools.pairwise(pieces))
    whole = CharRenderer().count(chat()[1:], False)
    assert sum(piece.num_tokens for piece in pieces) == whole
    assert max(piece.num_tokens for piece in pieces) <= size + 3


def test_c6_without_a_tokenizer_tokens_are_counted_by_length_and_labelled():
    renderer = AssumedRenderer()
    engine = CachingEngine(lambda _: GOOD)
    done = compact(chat(40), engine, renderer)
    assert done.record.counted_by is CountedBy.LENGTH
    assert done.record.num_blocks > 3
    scaled = renderer.scaled(chat(40), 4321)
    assert scaled.count(chat(40), False) == 4321
    assert scaled.ends(chat(40))[-1] == 4321
    assert compact(chat(40), engine, scaled).record.counted_by is CountedBy.SERVER


@pytest.mark.parametrize("boundary", ["turn", "token"])
def test_c6_by_length_the_history_is_covered_too(boundary):
    engine = CachingEngine(lambda _: GOOD)
    done = compact(chat(40), engine, AssumedRenderer(), boundary=boundary, layout="independent")
    assert done.record.outcome is Outcome.COMPACTED
    for message in chat(40)[1:]:
        said = "".join(str(request.messages) for request in engine.requests)
        assert message["content"][:30] in said


@pytest.mark.parametrize(("keep", "kept"), [(0, 0), (170, 1), (400, 2), (10**6, 12)])
def test_b2_the_tail_is_measured_in_tokens_too(keep, kept):
    messages = chat()
    policy = Policy(keep_tokens=keep)
    if kept == 12:
        with pytest.raises(CompactionError, match="no turn is left"):
            compact(messages, CachingEngine(lambda _: GOOD), policy=policy)
        return
    done = compact(messages, CachingEngine(lambda _: GOOD), policy=policy)
    assert done.messages[2:] == messages[len(messages) - kept :]


def test_b2_the_tail_never_starts_inside_a_tool_round():
    calls = [{"id": "a", "type": "function", "function": {"name": "cat", "arguments": "{}"}}]
    tool_round = [
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "a", "content": "short"},
    ]
    messages = [*chat(), *tool_round, {"role": "assistant", "content": "Read."}]
    done = compact(
        messages, CachingEngine(lambda _: GOOD), policy=Policy(keep_tokens=20), last_turns=0
    )
    assert done.messages[2:] == [*tool_round, messages[-1]]
