"""Columns that claims read: the stall of one compaction, responses, and the gate of an answer."""

import math
from dataclasses import replace

import pandas as pd
import pytest

from blockwise.config.choices import Study
from blockwise.tables.compaction import (
    compaction_answers,
    compaction_blocking_share,
    compaction_volume_control,
)
from blockwise.tables.inputs import TableInputs
from record_factory import compaction, loaded, record, request
from tables.test_recall_gates import play


def test_the_stall_of_one_compaction_is_no_sum():
    """REVIEW 8: four stalls of 1.78 s were added up."""
    four = tuple(compaction(index=index, stall_s=1.78) for index in range(4))
    cell = loaded(record(compactions=four), study=Study.BLOCKING_SHARE)
    row = compaction_blocking_share.build(TableInputs([cell])).iloc[0]
    assert row.stall_mean_s == pytest.approx(4 * 1.78)
    assert row.stall_of_one_mean_s == pytest.approx(1.78)


def volume(output, prompt="concise", num_blocks=1, session="s0", num_cut=0, experiment="v"):
    """One compaction of a history by so many workers, of natural volume."""
    is_sequential = num_blocks == 1
    done = compaction(output_tokens=output, num_blocks=num_blocks, num_length_finishes=num_cut)
    workers = tuple(
        request("worker", text=f"{session} {prompt} {number}") for number in range(num_blocks)
    )
    made = record(
        "sequential" if is_sequential else "target_block",
        None if is_sequential else 1024 // num_blocks,
        session_id=session,
        spec={
            "protocol": "single",
            "volume_mode": "natural",
            "volume_tokens": 64,
            "history_tokens": 1024,
        },
        compactions=(done,),
        requests=workers,
    )
    made = made.model_copy(update={"cell_key": f"{made.cell_key}-{prompt}-{num_blocks}"})
    return loaded(made, study=Study.VOLUME_CONTROL, prompt=prompt, experiment=experiment)


def controlled(*cells):
    return compaction_volume_control.build(TableInputs(cells))


def test_a_ladder_response_is_the_factor_from_its_first_prompt_to_its_last():
    ladder = {"concise": 50, "moderate": 100, "very_detailed": 200}
    cells = [
        volume(tokens * (1 + index), prompt, session=f"s{index}")
        for index in range(6)
        for prompt, tokens in ladder.items()
    ]
    table = controlled(*cells)
    assert list(table.ladder_response_mean) == pytest.approx([4.0] * 3)
    assert list(table.ladder_response_num_clusters) == [6] * 3
    assert table.ladder_response_low.iloc[0] == pytest.approx(4.0)
    assert set(table.ladder_response_gate) == {"ok"}


def test_a_ladder_of_one_prompt_has_no_response():
    row = controlled(volume(50), volume(60, session="s1")).iloc[0]
    assert pd.isna(row.ladder_response_mean)
    assert pd.isna(row.ladder_response_gate)
    assert row.ladder_response_num_clusters == 0


@pytest.mark.parametrize(("num_cut", "gate"), [(0, "ok"), (1, "capped")])
def test_one_capped_prompt_closes_the_response_of_the_whole_ladder(num_cut, gate):
    table = controlled(volume(50), volume(200, "very_detailed", num_cut=num_cut))
    assert set(table.ladder_response_gate) == {gate}
    assert list(table.gate) == ["ok", gate]


def test_a_response_to_history_blocks_starts_at_sequential_and_crosses_experiments():
    cells = [
        volume(100 * blocks**exponent * (1 + index), num_blocks=blocks, session=f"s{index}")
        for index, exponent in enumerate([0.5] * 6)
        for blocks in (1, 4, 16)
    ]
    cells = [
        cell if cell.record.arm == "sequential" else volume(
            cell.record.compactions[0].output_tokens,
            num_blocks=cell.record.compactions[0].num_blocks,
            session=cell.record.session_id,
            experiment="other",
        )
        for cell in cells
    ]  # fmt: skip
    table = controlled(*cells)
    parallel = table[table.arm == "target_block"]
    assert list(parallel.blocks_response_mean) == pytest.approx([0.5] * 2, abs=0.01)
    assert set(parallel.blocks_response_num_clusters) == {6}
    assert table[table.arm == "sequential"].blocks_response_mean.isna().all()


def test_an_empty_summary_has_no_response():
    table = controlled(volume(0), volume(200, "very_detailed"))
    assert table.ladder_response_mean.isna().all()
    assert math.isclose(controlled(volume(1), volume(2, "brief")).ladder_response_mean.iloc[0], 16)


def answered(**played):
    return compaction_answers.build(TableInputs(cells=play(**played)))


def gate_of(table, **where):
    for name, value in where.items():
        table = table[table[name] == value]
    (gate,) = set(table.gate)
    return gate


def test_answers_of_a_model_that_does_the_task_pass_the_gate():
    table = answered(parallel=0.1)
    assert set(table.gate) == {"ok"}  # one arm above closed book is enough to compare two


@pytest.mark.parametrize(
    "played",
    [
        {"full_history": 0.1, "closed_book": 0.6},  # below closed book
        {"sequential": 0.1, "parallel": 0.05, "closed_book": 0.5},  # both arms are
        {"sessions": 5},  # too few for an interval
    ],
)
def test_answers_of_a_model_that_does_not_close_it(played):
    """REVIEW 2: "lossy: supported" rested on a model that could not do the task."""
    table = answered(**played)
    compacted = table[table.answer_context == "compacted"]
    assert set(compacted.gate) == {"cannot_do_task"}


@pytest.mark.parametrize(("num_alike", "gate"), [(1, "ok"), (2, "not_diverse")])
def test_answers_on_stock_phrases_say_so(num_alike, gate):
    """Half of the summaries distinct are enough, one less is not."""
    cells = play(texts=False)
    first, rest = cells[:num_alike], cells[num_alike:]
    if num_alike == 2:  # both arms of the first session say what the second one's say
        first = [
            replace(
                cell,
                record=cell.record.model_copy(update={"requests": rest[index + 2].record.requests}),
            )
            for index, cell in enumerate(first)
        ]
    table = compaction_answers.build(TableInputs(cells=[*first, *rest]))
    assert gate_of(table, arm="target_block", answer_context="compacted") == gate


def test_answers_of_an_arm_with_another_arm_s_history_blocks_say_so():
    table = answered(whole=(512, 488))
    assert gate_of(table, arm="target_block") == "same_blocks_as"
    assert gate_of(table, arm="sequential") == "ok"
