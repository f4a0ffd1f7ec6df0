"""Which rows of recall may carry a verdict, and what each of the others names as its gate."""

import pandas as pd
import pytest

from blockwise.compaction.records import BY_CONTENT_TYPE
from recall_factory import asked, build, prompt_cell, prompts_table, recall_cell, reference, row_of
from record_factory import compaction, request


def play(
    sequential=0.5,
    parallel=0.5,
    full_history=0.9,
    closed_book=0.1,
    sessions=6,
    texts=True,
    whole=(1000,),
    **told,
):
    """Cells of two arms and both references on some sessions, whose scores differ a little."""
    cells = []
    for index in range(sessions):
        place = {"session_id": f"s{index}", **told}
        more = index / 100
        workers = tuple(
            request("worker", text=f"{index} {number if texts else 0}") for number in range(2)
        )
        natural = {"requests": workers}
        for arm, size, f1 in (("sequential", None, sequential), ("target_block", 512, parallel)):
            answers = asked("compacted", f1 + more)
            blocks = (512, 488) if size else whole
            done = compaction(closing=True, num_length_finishes=0, block_tokens=blocks)
            natural["compactions"] = (done,)
            cells.append(recall_cell(answers, arm, size, **natural, **place))
        cells.append(reference("closed_book", closed_book, **place))
        if full_history is not None:
            cells.append(reference("full_history", full_history + more / 2, **place))
    return cells


def gates(table, column="answer_context"):
    return dict(zip(zip(table.arm, table[column], strict=True), table.gate, strict=True))


def test_a_model_that_does_the_task_passes_the_gate():
    table = build(*play(parallel=0.1))
    assert set(table.gate) == {"ok"}  # one arm above closed book is enough to compare two
    row = row_of(table, arm="sequential")
    assert row.f1_minus_closed_book_mean == pytest.approx(0.425)
    assert 0 < row.f1_minus_closed_book_low < row.f1_minus_closed_book_high
    assert pd.isna(row_of(table, "closed_book").f1_minus_closed_book_mean)
    assert row_of(table, "full_history").f1_minus_closed_book_mean == pytest.approx(0.8125)


@pytest.mark.parametrize(
    "played",
    [
        {"full_history": 0.1, "closed_book": 0.6},  # below closed book
        {"sequential": 0.1, "parallel": 0.05, "closed_book": 0.5},  # both arms below it
        {"sessions": 5},  # too few clusters for an interval
        {"sequential": 0.0, "parallel": 0.0, "full_history": None},  # no arm, and no full history
    ],
)
def test_a_model_that_is_not_shown_to_do_the_task_has_no_recall(played):
    table = build(*play(**played))
    compacted = table[table.answer_context == "compacted"]
    assert set(compacted.gate) == {"cannot_do_task"}


def test_references_pass_where_the_arms_do_not():
    table = build(*play(sequential=0.1, parallel=0.05, closed_book=0.5))
    assert gates(table)["full_history", "full_history"] == "ok"


def test_without_full_history_an_arm_above_closed_book_decides():
    table = build(*play(full_history=None, parallel=0.0))
    assert set(table.gate) == {"ok"}


def test_arms_are_held_against_those_of_their_own_prompt():
    brief = [
        recall_cell(asked("compacted", 0.0), session_id=f"s{index}", prompt="brief")
        for index in range(6)
    ]
    table = build(*play(), *brief)
    by_prompt = table[table.answer_context == "compacted"].groupby("prompt").gate.unique()
    assert list(by_prompt["detailed"]) == ["ok"]
    assert list(by_prompt["brief"]) == ["cannot_do_task"]


def test_stock_phrases_and_caps_gate_the_arm_and_not_the_references():
    table = build(*play(texts=False, sessions=6))
    assert gates(table)["sequential", "compacted"] == "ok"  # half of the texts are distinct
    cells = [
        recall_cell(asked("compacted", 0.5 + index / 100), session_id=f"s{index}")
        for index in range(6)
    ]
    references = [cell for cell in play() if not cell.record.compactions]
    table = build(*cells, *references)
    row = row_of(table)
    assert (row.length_finish_frac, row.distinct_summaries_frac) == (1.0, pytest.approx(1 / 12))
    assert row.gate == "capped"
    assert gates(table)["full_history", "full_history"] == "ok"
    assert pd.isna(row_of(table, "closed_book").length_finish_frac)


def test_an_arm_of_one_history_block_is_sequential():
    row = row_of(build(*play(whole=(512, 488))), arm="target_block")
    assert (row.gate, row.same_blocks_as) == ("same_blocks_as", "sequential")


def test_prompts_of_one_arm_are_gated_together_and_by_the_references_of_any_experiment():
    cells = []
    for index in range(6):
        place = {"session_id": f"s{index}"}
        cells += [
            prompt_cell("detailed", 0.0, **place),
            prompt_cell(BY_CONTENT_TYPE, 0.5 + index / 100, **place),
        ]
    table = prompts_table(*cells)
    assert set(table.gate) == {"cannot_do_task"}  # nobody asked without the history
    references = [cell for cell in play() if not cell.record.compactions]
    table = prompts_table(*cells, *references)
    assert set(table.gate) == {"capped"}  # the made-up workers all stop at their cap
    row = table[table.prompt == BY_CONTENT_TYPE].iloc[0]
    assert row.f1_minus_closed_book_mean == pytest.approx(0.425)
