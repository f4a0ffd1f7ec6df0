"""The table of strategies: which answers a row is of, and what stands beside them."""

import pytest

from blockwise.compaction.records import AnswerContext
from blockwise.config.backbones import Weights
from blockwise.config.choices import Study
from blockwise.tables.compaction import compaction_answers, compaction_strategies
from blockwise.tables.inputs import TableInputs
from record_factory import answer, compaction, loaded, record, request

RECALL = {
    "protocol": "deferred",
    "ask_after": [1, 2],
    "budget_tokens": 500,
    "asks_truncated": False,
}
TIMED = {"protocol": "immediate", "budget_tokens": 500, "volume_mode": "natural"}
LABELS = {"study": Study.STRATEGIES, "weights": Weights.PUBLISHED}


def asked(question, number, f1, **changes):
    values = {"context": AnswerContext.STRATEGY, "num_evidence_compactions": number, "f1": f1}
    return answer(question_id=question, **{**values, **changes})


def recall(name, first, again, last, *, session="s0", keep=0, kept=(300, 400), **changes):
    """Two questions: q0 of the first part is asked after both compactions, q1 after the last."""
    done = tuple(
        compaction(
            index=n, closing=n == 1, history_after_tokens=tokens, output_tokens=100 * (n + 1)
        )
        for n, tokens in enumerate(kept)
    )
    requests = tuple(request("worker", compaction_index=n) for n in (0, 1, 1))
    spec = {**RECALL, "strategy": name, "keep_identifiers": keep}
    cell = record(
        session_id=session,
        spec=spec,
        answers=(asked("q0", 1, first), asked("q0", 2, again), asked("q1", 1, last)),
        compactions=done,
        requests=requests,
        **changes,
    )
    return loaded(cell, experiment="recall", **LABELS)


def timed(name, stalls, *, session="s0", start=0, valid=True):
    done = tuple(compaction(index=n, stall_s=stall) for n, stall in enumerate(stalls))
    cell = record(
        session_id=session,
        server_start=start,
        spec={**TIMED, "strategy": name},
        compactions=done,
        timing_valid=valid,
    )
    return loaded(cell, experiment="timed", **LABELS)


def reference(name, *scores):
    answers = tuple(
        answer(question_id=f"q{n}", f1=f1, context=AnswerContext(name))
        for n, f1 in enumerate(scores)
    )
    spec = {"protocol": "deferred", "tau_tokens": None, "asks_truncated": False}
    cell = record(name, answers=answers, compactions=(), requests=(), spec=spec)
    return loaded(cell, experiment="recall", **{**LABELS, "prompt": ""})


def build(*cells):
    return compaction_strategies.build(TableInputs(cells=cells))


def row_of(table, arm, questions="all", number=2, **values):
    wanted = {"arm": arm, "questions": questions, "num_compactions": number, **values}
    for name, value in wanted.items():
        table = table[table[name].isna() if value is None else table[name] == value]
    assert len(table) == 1, wanted
    return table.iloc[0]


def test_a_row_is_of_all_questions_at_the_end_or_of_the_first_part_after_each():
    table = build(recall("rolling", 1.0, 0.5, 0.25))
    assert len(table) == 3
    assert row_of(table, "rolling").f1_mean == pytest.approx((0.5 + 0.25) / 2)
    assert row_of(table, "rolling", "first part", 1).f1_mean == 1.0
    assert row_of(table, "rolling", "first part", 2).f1_mean == 0.5
    assert list(table["num_answers"]) == [2, 1, 1]


def test_what_is_kept_written_and_asked_is_of_as_many_compactions():
    table = build(recall("rolling", 1.0, 0.5, 0.25))
    last, first = (row_of(table, "rolling", "first part", number) for number in (2, 1))
    assert (first.kept_mean_tokens, last.kept_mean_tokens) == (300, 400)
    assert (first.compaction_output_mean_tokens, last.compaction_output_mean_tokens) == (100, 300)
    assert (first.num_requests_mean, last.num_requests_mean) == (1, 3)


def test_references_are_asked_the_same_questions_once_for_each_set():
    table = build(
        recall("mask", 1.0, 0.5, 0.25),
        reference("closed_book", 0.0, 0.1),
        reference("full_history", 1.0, 0.8),
    )
    assert row_of(table, "full_history", number=None).f1_mean == pytest.approx(0.9)
    assert row_of(table, "full_history", "first part", None).f1_mean == 1.0
    assert row_of(table, "closed_book", number=None).gate == "cannot_do_task"  # one cluster
    assert row_of(table, "mask").f1_minus_closed_book_mean == pytest.approx(0.375 - 0.05)


def test_a_strategy_is_held_against_the_last_tokens_of_as_many_identifiers():
    table = build(
        recall("truncate", 0.25, 0.25, 0.25),
        recall("truncate", 0.5, 0.5, 0.5, keep=20),
        recall("mask", 1.0, 1.0, 1.0),
        recall("mask", 1.0, 1.0, 1.0, keep=20),
    )
    without = row_of(table, "mask", keep_identifiers=0)
    assert without.f1_minus_truncate_mean == pytest.approx(0.75)
    assert row_of(table, "mask", keep_identifiers=20).f1_minus_truncate_mean == pytest.approx(0.5)
    assert row_of(table, "truncate", keep_identifiers=0).f1_minus_truncate_num_questions == 0


def test_times_are_of_the_same_strategy_against_the_clock():
    table = build(
        recall("rolling", 1.0, 0.5, 0.25),
        recall("rolling", 1.0, 0.5, 0.25, keep=20),
        timed("rolling", (1.0, 3.0)),
        timed("rolling", (2.0, 2.0), start=1),
        timed("rolling", (9.0,), session="s1", valid=False),
    )
    for kept in (0, 20):  # identifiers cost no request
        row = row_of(table, "rolling", keep_identifiers=kept)
        assert (row.stall_mean_s, row.stall_p50_s, row.stall_p95_s) == (2.0, 2.0, 3.0)
        assert (row.num_stalls, row.num_server_starts, row.num_invalid_cells) == (4, 2, 1)
        assert row.stall_gate == "too_few_starts"
    assert row.requests_a_compaction_mean == 1.0


def test_a_strategy_without_recall_keeps_its_times():
    row = row_of(build(timed("rolling", (1.0, 3.0))), "rolling", number=None)
    assert row.stall_mean_s == 2.0
    assert row.num_answers == 0
    assert row.note == "no recall cell of this strategy"


def test_answers_of_strategies_say_after_how_many_compactions_and_are_no_compacted_ones():
    table = compaction_answers.build(TableInputs(cells=[recall("rolling", 1.0, 0.5, 0.25)]))
    assert list(table["answer_context"]) == ["strategy"] * 3
    assert list(table["num_evidence_compactions"]) == [1, 2, 1]
    assert set(table["arm"]) == {"rolling"}
