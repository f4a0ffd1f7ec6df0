"""What counts as recall, and against what: accuracy by volume, and prompts by content type."""

import pandas as pd
import pytest

from blockwise.compaction.judgements import (
    JudgeErrors,
    JudgeIdentity,
    Judgements,
    Verdict,
    VerdictRecord,
)
from blockwise.compaction.records import BY_CONTENT_TYPE, AnswerContext
from blockwise.config.backbones import Weights
from blockwise.config.choices import ContentType, Study
from blockwise.tables.compaction import compaction_answers, compaction_block_prompts
from blockwise.tables.inputs import TableInputs
from recall_factory import asked, build, prompt_cell, prompts_table, recall_cell, reference, row_of
from record_factory import answer, compaction, omission


def test_a_row_is_a_context_and_references_come_last():
    table = build(
        reference("full_history", 1.0),
        reference("closed_book", 0.0),
        recall_cell((*asked("compacted", 0.5), *asked("truncation", 0.25))),
        recall_cell(asked("compacted", 0.5), "sequential", None, spec={"asks_truncated": False}),
    )
    assert list(zip(table.arm, table.answer_context, strict=True)) == [
        ("sequential", "compacted"),
        ("target_block", "compacted"),
        ("target_block", "truncation"),
        ("closed_book", "closed_book"),
        ("full_history", "full_history"),
    ]
    assert list(table.f1_mean) == [0.5, 0.5, 0.25, 0.0, 1.0]
    assert list(table.prompt.isna()) == [False, False, False, True, True]
    assert table.note.isna().all()


def test_only_answers_with_compacted_evidence_count_and_elsewhere_the_same_questions():
    answers = (
        *asked("compacted", 1.0, 0.0),
        *asked("compacted", 0.0, 0.0, 0.5, num_evidence_compactions=0)[2:],
        *asked("truncation", 0.5, 0.5, 0.0),
    )
    table = build(recall_cell(answers), reference("closed_book", 0.25, 0.25, 1.0))
    for context, mean in (("compacted", 0.5), ("truncation", 0.5), ("closed_book", 0.25)):
        row = row_of(table, context)
        assert (row.f1_mean, row.num_answers, row.num_uncounted_answers) == (mean, 2, 1)


def test_a_reference_is_asked_what_any_arm_counts():
    first = asked("compacted", 1.0)
    second = (
        *asked("compacted", 1.0, num_evidence_compactions=0),
        *asked("compacted", 1.0, 1.0)[1:],
    )
    table = build(
        recall_cell(first),
        recall_cell(second, "sequential", None),
        recall_cell(asked("compacted", 1.0, 1.0, 1.0), experiment="other"),
        reference("closed_book", 0.0, 0.5, 1.0),
    )
    assert row_of(table, "closed_book").num_answers == 2


def test_repeats_are_averaged_before_questions_and_questions_before_sessions():
    table = build(
        recall_cell(asked("compacted", 1.0, 0.0), session_id="a", repeat=0),
        recall_cell(asked("compacted", 0.0), session_id="a", repeat=1),
        recall_cell(asked("compacted", 1.0), session_id="b"),
    )
    row = row_of(table)
    # Session a: q0 is (1 + 0) / 2, q1 is 0; session b: 1.
    assert row.f1_mean == pytest.approx((0.25 + 1.0) / 2)
    assert (row.f1_min, row.f1_max) == (0.25, 1.0)
    assert (row.f1_num_clusters, row.f1_num_questions, row.num_answers) == (2, 3, 4)
    assert pd.isna(row.f1_low)


def test_locomo_clusters_by_conversation_and_hotpotqa_by_session():
    answers = tuple(
        answer(
            question_id=f"q{number}",
            cluster=f"conversation {number % 7}",
            category="1",
            context=AnswerContext.COMPACTED,
            num_evidence_compactions=2,
            f1=(number % 7) / 8,
        )
        for number in range(70)
    )
    (locomo,) = build(recall_cell(answers, format="locomo", spec={"asks_truncated": False})).iloc
    assert locomo.f1_num_clusters == 7
    assert locomo.f1_low < locomo.f1_mean < locomo.f1_high
    (hotpotqa,) = build(recall_cell(answers, spec={"asks_truncated": False})).iloc
    assert hotpotqa.f1_num_clusters == 1


def test_open_domain_and_adversarial_questions_stand_apart():
    scores = {"1": 0.5, "2": 0.25, "3": 0.125, "4": 0.0, "5": 1.0}
    answers = tuple(
        one
        for number, (category, f1) in enumerate(scores.items())
        for one in (
            *asked("compacted", *[f1] * 5, category=category)[number : number + 1],
            *asked("truncation", *[f1 / 2] * 5, category=category)[number : number + 1],
        )
    )
    table = build(recall_cell(answers, format="locomo"))
    rows = table[table.answer_context == "compacted"].set_index("categories")
    assert list(rows.index) == ["headline", "3", "5"]
    assert list(rows.f1_mean) == [0.25, 0.125, 1.0]
    assert list(rows.truncation_f1_mean) == [0.125, 0.0625, 0.5]
    assert list(rows.num_answers) == [3, 1, 1]
    assert set(rows.num_uncounted_answers) == {0}
    hotpotqa = build(recall_cell(answers))
    assert set(hotpotqa.categories) == {"headline"}
    assert row_of(hotpotqa).num_answers == 5


def test_the_gold_in_a_sentence_is_scored_beside_the_official_f1():
    answers = tuple(
        one.model_copy(update={"contains_gold": gold})
        for context, golds in (("compacted", (1.0, 0.0)), ("truncation", (0.0, 0.0)))
        for one, gold in zip(asked(context, 0.25, 0.25), golds, strict=True)
    )
    row = row_of(build(recall_cell(answers)))
    assert (row.f1_mean, row.contains_gold_mean, row.contains_gold_num_questions) == (0.25, 0.5, 2)
    assert (row.truncation_f1_mean, row.truncation_contains_gold_mean) == (0.25, 0.0)


def test_a_cell_of_two_experiments_has_its_answers_once():
    cells = [
        recall_cell(asked("compacted", 0.5)),
        recall_cell(asked("compacted", 0.5), experiment="again", study=Study.BLOCK_PROMPTS),
        recall_cell(asked("compacted", 0.75), arm="sequential", size=None, experiment="again"),
    ]
    table = compaction_answers.build(TableInputs(cells=cells))
    assert list(table.f1) == [0.5, 0.75]
    assert list(table.experiments) == ["again recall", "again"]
    both = f"{Study.ACCURACY_VOLUME} {Study.BLOCK_PROMPTS}"
    assert list(table.studies) == [both, Study.ACCURACY_VOLUME]
    assert list(table.contains_gold) == [1.0, 1.0]


def test_answers_say_which_questions_stand_apart():
    answers = tuple(
        one for category in "12345" for one in asked("compacted", 1.0, category=category)
    )
    table = compaction_answers.build(TableInputs(cells=[recall_cell(answers, format="locomo")]))
    assert list(table.categories) == ["headline", "headline", "3", "headline", "5"]


def test_exact_match_is_empty_where_the_rules_define_none():
    row = row_of(build(recall_cell(asked("compacted", 1.0))))
    assert pd.isna(row.exact_match_mean)
    assert row.exact_match_num_questions == 0
    row = row_of(build(recall_cell(asked("compacted", 1.0, 0.5, exact_match=1.0))))
    assert (row.exact_match_mean, row.exact_match_num_questions) == (1.0, 2)


def test_volume_and_context_are_those_of_a_session():
    cells = []
    for index, session_id in enumerate(("a", "b")):
        events = (
            compaction(output_tokens=100, thinking_tokens=10, history_after_tokens=900),
            compaction(
                index=1,
                closing=True,
                output_tokens=100 * index,
                thinking_tokens=20,
                history_after_tokens=300 + 100 * index,
            ),
        )
        answers = asked("compacted", 1.0)
        cells.append(recall_cell(answers, session_id=session_id, compactions=events))
    row = row_of(build(*cells, reference("closed_book", 0.0)))
    assert row.compaction_output_mean_tokens == 150
    assert (row.compaction_output_min_tokens, row.compaction_output_max_tokens) == (100, 200)
    assert row.compaction_thinking_mean_tokens == 30
    assert (row.context_min_tokens, row.context_max_tokens) == (300, 400)
    floor = row_of(build(*cells, reference("closed_book", 0.0)), "closed_book")
    assert floor.compaction_output_mean_tokens == 0
    assert pd.isna(floor.context_mean_tokens)


def test_the_difference_to_truncation_is_formed_question_by_question():
    cells = [
        recall_cell(
            (*asked("compacted", 0.5 + index / 16), *asked("truncation", index / 16)),
            session_id=f"s{index}",
        )
        for index in range(7)
    ]
    table = build(*cells)
    row = row_of(table)
    # Questions differ, their differences do not: the interval is a point.
    for name in ("mean", "low", "high", "min", "max"):
        assert row[f"f1_minus_truncation_{name}"] == pytest.approx(0.5)
    assert row.f1_minus_truncation_num_clusters == 7
    assert pd.isna(row_of(table, "truncation").f1_minus_truncation_mean)
    few = row_of(build(*cells[:5]))
    assert (few.f1_minus_truncation_mean, few.f1_minus_truncation_num_clusters) == (0.5, 5)
    assert pd.isna(few.f1_minus_truncation_low)


def test_an_omitted_context_keeps_its_row_and_says_why():
    missing = omission(experiment="recall", weights=Weights.PUBLISHED)
    row = row_of(build(recall_cell(asked("compacted", 1.0)), omitted=[missing]), "full_history")
    assert row.omitted_reason == "20000 tokens exceed the window of 16384"
    assert (row.num_cells, row.num_answers, row.num_omitted_sessions) == (0, 0, 1)
    assert pd.isna(row.f1_mean)


def test_a_partly_omitted_context_is_not_complete():
    missing = omission(experiment="recall", weights=Weights.PUBLISHED, session_id="b")
    cells = [recall_cell(asked("compacted", 1.0), session_id=name) for name in "ab"]
    table = build(*cells, reference("full_history", 0.5, session_id="a"), omitted=[missing])
    row = row_of(table, "full_history")
    assert (row.num_cells, row.num_omitted_sessions, row.f1_mean) == (1, 1, 0.5)
    assert row.note == "fewer sessions than the other contexts: see omitted_reason"


def test_random_weights_answer_noise():
    row = row_of(build(recall_cell(asked("compacted", 1.0), weights=Weights.RANDOM)))
    assert row.note == "random weights: answers are noise, not testable at this scale"
    assert row.f1_mean == 1.0


def test_other_studies_take_no_part():
    cell = recall_cell(asked("compacted", 1.0), study=Study.BLOCK_PROMPTS)
    assert build(cell, omitted=[omission(study=Study.BLOCK_PROMPTS)]).empty


def judged(*verdicts, dataset="hotpotqa"):
    """A judge's verdicts on the answers a0, a1, ... of the batch."""
    return Judgements(
        backbone="smollm2-135m",
        dataset=dataset,
        judge=JudgeIdentity(served_model="m", version="1", prompt="p", max_reply_tokens=8),
        omitted_reason=None,
        errors=JudgeErrors(
            num_questions=40,
            num_unreadable=0,
            false_accept_frac=0.25,
            false_accept_wrong_frac=0.0,
            false_accept_vague_frac=0.5,
            false_reject_frac=0.125,
        ),
        verdicts=tuple(
            VerdictRecord(
                key=str(number),
                question="Where?",
                gold="there",
                answer=f"a{number}",
                verdict=verdict,
                reply="",
            )
            for number, verdict in enumerate(verdicts)
        ),
    )


def test_verdicts_stand_beside_the_scores_with_the_judges_errors():
    answers = tuple(
        answer(
            question_id=f"q{number}",
            answer=f"a{number}",
            context=AnswerContext.COMPACTED,
            num_evidence_compactions=1,
            f1=0.0,
        )
        for number in range(4)
    )
    verdicts = judged(Verdict.CORRECT, Verdict.WRONG, Verdict.UNREADABLE)
    row = row_of(build(recall_cell(answers), judgements=[judged(dataset="other"), verdicts]))
    assert (row.judge, row.judged_accuracy_mean, row.judged_accuracy_num_questions) == (
        "m, 1",
        0.5,
        2,
    )
    assert (row.num_unjudged_answers, row.f1_mean) == (2, 0.0)
    assert (row.judge_false_accept_frac, row.judge_false_reject_frac) == (0.25, 0.125)


def test_without_a_judge_its_columns_are_empty():
    row = row_of(build(recall_cell(asked("compacted", 1.0))))
    names = ["judge", "judged_accuracy_mean", "num_unjudged_answers", "judge_false_accept_frac"]
    assert row[names].isna().all()


def test_prompts_by_content_type_are_compared_with_the_one_they_fall_back_on():
    cells = []
    for index in range(6):
        place = {"session_id": f"s{index}"}
        cells += [
            prompt_cell("brief", 0.0, text="other", **place),
            prompt_cell("detailed", index / 16, **place),
            prompt_cell(BY_CONTENT_TYPE, index / 16 + 0.25, **place),
        ]
    table = prompts_table(*cells)
    assert list(table.prompt) == ["brief", BY_CONTENT_TYPE, "detailed"]
    row = table[table.prompt == BY_CONTENT_TYPE].iloc[0]
    assert row.compared_prompt == "detailed"
    for name in ("mean", "low", "high"):
        assert row[f"f1_minus_one_prompt_{name}"] == pytest.approx(0.25)
    assert row.f1_minus_one_prompt_num_clusters == 6
    assert table[table.prompt != BY_CONTENT_TYPE].f1_minus_one_prompt_mean.isna().all()


def test_arms_are_compared_at_their_own_size_and_tau():
    table = prompts_table(
        prompt_cell("detailed", 0.0, size=512),
        prompt_cell(BY_CONTENT_TYPE, 1.0, size=1024),
        prompt_cell("detailed", 0.0, size=1024, spec={"tau_tokens": 2048}),
        prompt_cell("detailed", 0.0, arm="sequential", size=None),
    )
    assert table.compared_prompt.isna().all()
    assert table.f1_minus_one_prompt_mean.isna().all()


def test_volume_and_content_of_the_history_blocks():
    events = (
        compaction(
            output_tokens=250,
            input_tokens=1000,
            block_content=(ContentType.DIALOGUE, ContentType.TOOL_OUTPUT),
        ),
        compaction(index=1, closing=True, output_tokens=350, input_tokens=1000),
    )
    (row,) = prompts_table(prompt_cell("detailed", 1.0, compactions=events)).iloc
    assert (row.compaction_output_mean_tokens, row.output_over_input_mean_frac) == (600, 0.3)
    assert row.num_dialogue_history_blocks == row.num_tool_output_history_blocks == 1
    assert row.num_evidence_history_blocks == 2


def test_the_labels_of_plan_and_table_agree_and_references_take_no_part():
    assert compaction_block_prompts.BY_CONTENT_TYPE == BY_CONTENT_TYPE
    floor = reference("closed_book", 1.0, study=Study.BLOCK_PROMPTS)
    assert prompts_table(floor, recall_cell(asked("compacted", 1.0))).empty
