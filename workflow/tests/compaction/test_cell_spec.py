"""A cell's specification: what it refuses, what its key covers, and what cells share."""

import pytest
from pydantic import ValidationError

from blockwise.compaction.cell_spec import ARM_INGREDIENTS, CellSpec, ExternalIdentity
from cell_specs import SPEC, cell

EDITS = {
    "model_digest": "m2",
    "engine": {**SPEC.engine.model_dump(), "flags": {"dtype": "bfloat16"}},
    "request": {"form": "chat", "temperature": 1.0},
    "dataset_format": "locomo",
    "session_id": "s-001",
    "session_digest": "d2",
    "layout": "sequential",
    "block_size_tokens": 1024,
    "boundary": "token",
    "last_turns": 2,
    "prompt": "Summarise!",
    "tau_tokens": 4096,
    "protocol": "deferred",
    "block_prompts": {"dialogue": "Summarise the chat."},
    "history_tokens": 1024,
    "asks_truncated": True,
    "max_concurrent_workers": 2,
    "num_bystanders": 3,
    "bystanders": {"context_tokens": 128},
    "transcript": "free",
    "volume_mode": "natural",
    "volume_tokens": 256,
    "accept": ["length"],
    "answer_tokens": 32,
    "strategy": "rolling",
    "keep_identifiers": 20,
    "budget_tokens": 600,
    "ask_after": [1, 2],
    "seed": 1,
    "repeat": 1,
    "server_start": 1,
    "volume_block_size_tokens": 512,
    "is_eager": True,
    "max_background_workers": 1,
    "open_block": "keep",
    "worker_priority": 5,
    "tool_wait_s": 1.0,
    "code_digest": "c2",
}
EXTERNAL = ExternalIdentity(
    packages={}, context_window_tokens=8192, gpus=0, version="0.1", served_model="m"
)


def test_every_ingredient_has_an_edit():
    assert set(EDITS) == set(CellSpec.model_fields)


@pytest.mark.parametrize("name", EDITS)
def test_editing_an_ingredient_gives_a_new_cell(name):
    assert cell(**{name: EDITS[name]}).key != SPEC.key


@pytest.mark.parametrize("name", EDITS)
def test_only_the_arm_is_no_part_of_the_frame(name):
    assert (cell(**{name: EDITS[name]}).frame == SPEC.frame) == (name in ARM_INGREDIENTS)


@pytest.mark.parametrize(
    "changes",
    [{name: value} for name, value in EDITS.items()] + [{"engine": EXTERNAL.model_dump()}],
    ids="-".join,
)
def test_a_cell_that_was_written_down_is_the_same_cell(changes):
    one = cell(**changes)
    again = CellSpec.model_validate_json(one.model_dump_json())
    assert (again, again.key, again.frame) == (one, one.key, one.frame)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layout": "nobody"}, r"'nobody' is no layout and no reference; known: sequential, "),
        ({"boundary": "word"}, r"boundary\n.*'turn' or 'token'"),
        ({"engine": {"kind": "vllm"}}, r"engine\.vllm\.flags\n.*required"),
        ({"engine": {"kind": "other"}}, r"'other' .* does not match .*'vllm', 'external'"),
        ({"colour": "red"}, r"colour\n.*not permitted"),
    ],
)
def test_what_no_cell_can_be_is_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        cell(**changes)


def test_cells_that_differ_in_what_is_left_out_share_the_rest():
    assert cell(repeat=1).digest_without({"repeat"}) == SPEC.digest_without({"repeat"})
    assert cell(repeat=1, seed=1).digest_without({"repeat"}) != SPEC.digest_without({"repeat"})
    with pytest.raises(AssertionError, match=r"\['repeats'\] are no ingredients"):
        SPEC.digest_without({"repeats", "seed"})


@pytest.mark.parametrize("layout", ["closed_book", "full_history"])
def test_a_reference_compacts_nothing(layout):
    assert cell(protocol="deferred", layout=layout).compaction_rule() is None


def test_what_came_later_is_no_part_of_the_key_where_it_is_at_its_default():
    later = {"strategy", "keep_identifiers", "budget_tokens", "ask_after"}
    assert not later & set(SPEC.model_dump())
    assert later <= set(cell(**{name: EDITS[name] for name in later}).model_dump())
