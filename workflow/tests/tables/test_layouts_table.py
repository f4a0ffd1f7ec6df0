import pandas as pd
import pytest

from blockwise.compaction.records import AnswerContext
from blockwise.config.choices import Study
from blockwise.errors import ArtifactError
from blockwise.tables.compaction import compaction_layouts
from blockwise.tables.inputs import TableInputs
from record_factory import answer, compaction, loaded, record, request


def single(arm="sequential", size=None, wall_s=4.0, **changes):
    """A compaction of forced volume, of a history of 1,024 tokens."""
    blocks = (size, 488) if size else (1000,)
    done = {"closing": True, "wall_s": wall_s, "block_tokens": blocks}
    event = compaction(**{**done, **changes.pop("event", {})})
    spec = {"protocol": "single", **changes.pop("spec", {})}
    cell = record(arm, size, spec=spec, compactions=(event,), answers=(), **changes)
    return loaded(cell, experiment="layouts", study=Study.LAYOUTS)


def recall(arm, size, answers, **changes):
    labels = {name: changes.pop(name) for name in ("format", "prompt") if name in changes}
    cell = record(arm, size, spec={"protocol": "deferred"}, answers=tuple(answers), **changes)
    return loaded(cell, experiment="recall", study=Study.ACCURACY_VOLUME, **labels)


def compacted(f1, **changes):
    return answer(context=AnswerContext.COMPACTED, f1=f1, num_evidence_compactions=1, **changes)


def row_of(cells, arm="independent", size=512):
    table = compaction_layouts.build(TableInputs(cells))
    rows = table[table.arm == arm]
    if size is not None:
        rows = rows[rows.block_size_tokens == size]
    assert len(rows) == 1
    return rows.iloc[0]


def three_arms(session_id="s0", slower=1.0):
    return [
        single(wall_s=4.0 * slower, session_id=session_id),
        single("independent", 512, wall_s=2.0 * slower, session_id=session_id),
        single("target_block", 512, wall_s=1.0 * slower, session_id=session_id),
    ]


def test_speedups_stand_against_sequential_and_against_the_papers_layout():
    cells = [*three_arms(), *three_arms("s1", slower=1.5)]
    row = row_of(cells)
    assert (row.speedup_mean, row.speedup_min, row.speedup_max) == (2.0, 2.0, 2.0)
    assert (row.target_block_speedup_mean, row.target_block_speedup_num_timing_blocks) == (0.5, 2)
    paper = row_of(cells, "target_block")
    assert paper.speedup_mean == 4.0
    assert paper.target_block_speedup_omitted_reason == "the reference arm"
    sequential = row_of(cells, "sequential", None)
    assert sequential.speedup_omitted_reason == "the reference arm"
    assert sequential.target_block_speedup_omitted_reason == "sequential has no layout"


def test_the_papers_layout_is_compared_at_the_same_size_only():
    cells = [*three_arms()[:2], single("target_block", 1024)]
    row = row_of(cells)
    assert pd.isna(row.target_block_speedup_mean)
    assert row.target_block_speedup_omitted_reason == (
        "no timing block holds a valid cell of both arms"
    )


def test_unequal_volume_is_left_out_and_counted():
    cells = three_arms()
    cells[1] = single("independent", 512, event={"output_tokens": 255})
    row = row_of(cells)
    assert (row.num_unequal_volume_timing_blocks, row.target_block_speedup_num_clusters) == (1, 0)
    assert row.speedup_omitted_reason == "unequal compaction volume in every timing block"


def test_times_are_means_over_server_starts_with_their_range():
    walls = {("s0", 0): 1.0, ("s1", 0): 3.0, ("s0", 1): 4.0, ("s0", 2): 9.0}
    cells = [
        single("independent", 512, wall_s=wall_s, session_id=session_id, server_start=start)
        for (session_id, start), wall_s in walls.items()
    ]
    row = row_of(cells)
    assert row.compaction_wall_mean_s == 5.0
    assert (row.compaction_wall_min_s, row.compaction_wall_max_s) == (2.0, 9.0)
    assert pd.isna(row.compaction_wall_low_s)
    assert (row.compaction_wall_num_clusters, row.num_timing_blocks) == (3, 4)
    assert (row.num_server_starts, row.gate) == (3, "too_few_starts")


def test_six_server_starts_give_an_interval_of_a_layouts_speedup():
    cells = [
        single(arm, size, wall_s=wall_s * (1 + start / 100), server_start=start)
        for start in range(6)
        for arm, size, wall_s in (
            ("sequential", None, 4.0),
            ("independent", 512, 2.0 + start / 10),
        )
    ]
    row = row_of(cells)
    assert row.speedup_low < row.speedup_mean < row.speedup_high
    assert row.compaction_wall_low_s < row.compaction_wall_mean_s < row.compaction_wall_high_s
    assert (row.speedup_num_clusters, row.gate) == (6, "ok")


def test_what_the_engine_did_for_the_workers():
    workers = (
        request(ttft_s=50.0),
        request("worker", prompt_tokens=900, cached_tokens=100, ttft_s=0.25),
        request("worker", prompt_tokens=500, cached_tokens=400, ttft_s=0.75, worker_index=1),
    )
    row = row_of([single("independent", 512, wall_s=4.0, requests=workers)])
    assert row.worker_uncached_mean_tokens == 900
    assert (row.worker_mean_ttft_mean_s, row.worker_max_ttft_mean_s) == (0.5, 0.75)
    assert (row.num_blocks_median, row.history_tokens) == (2, 1024)
    assert (row.stall_mean_s, row.compaction_decode_mean_tokens_per_s) == (2.5, 64.0)


def test_an_engine_that_reports_no_cache_leaves_the_uncached_tokens_empty():
    silent = (request("worker", cached_tokens=None),)
    row = row_of([single("independent", 512, requests=silent)])
    assert pd.isna(row.worker_uncached_mean_tokens)
    assert row.worker_uncached_num_clusters == 0


def test_every_history_length_is_a_comparison_of_its_own():
    longer = single("independent", 512, spec={"history_tokens": 2048})
    table = compaction_layouts.build(TableInputs([longer, *three_arms()]))
    assert list(table.history_tokens) == [1024] * 3 + [2048]
    assert table.speedup_omitted_reason.iloc[-1].startswith("no timing block")


def test_recall_of_the_same_arm_and_prompt_stands_beside_it():
    cells = [
        *three_arms(),
        recall("independent", 512, [compacted(1.0), compacted(0.0, question_id="q1")]),
        recall("independent", 512, [compacted(0.0)], session_id="s1"),
        recall("independent", 1024, [compacted(0.125)]),
        recall("independent", 512, [compacted(0.125)], prompt="concise", cell_key="concise"),
    ]
    row = row_of(cells)
    assert (row.recall_f1_mean, row.recall_f1_num_clusters, row.recall_num_answers) == (0.25, 2, 3)
    assert (row.recall_f1_min, row.recall_f1_max, row.recall_tau) == (0.0, 0.5, "4096")
    assert row.recall_note == "random weights: answers are noise, not testable at this scale"
    bare = row_of(cells, "target_block")
    assert bare.recall_note == "no recall cell of this layout, B and prompt"
    assert (bare.recall_num_answers, pd.isna(bare.recall_f1_mean)) == (0, True)


def test_recall_counts_a_shared_cell_once_and_answers_on_summaries_only():
    cell = recall(
        "independent",
        512,
        [
            compacted(0.5),
            answer(context=AnswerContext.TRUNCATION, f1=1.0, num_evidence_compactions=1),
            answer(context=AnswerContext.COMPACTED, question_id="q1", f1=1.0),
        ],
    )
    again = loaded(cell.record, experiment="block_prompts", study=Study.BLOCK_PROMPTS)
    row = row_of([*three_arms(), cell, again])
    assert (row.recall_f1_mean, row.recall_num_answers) == (0.5, 1)


def test_recall_clusters_by_conversation_where_there_are_some():
    scores = {"a": (1.0,), "b": (0.0, 0.0)}
    answers = [
        compacted(f1, cluster=name, question_id=f"{name}{index}", category="4")
        for name, group in scores.items()
        for index, f1 in enumerate(group)
    ]
    cells = [*three_arms(), recall("independent", 512, answers, format="locomo")]
    row = row_of(cells)
    assert (row.recall_f1_mean, row.recall_f1_num_clusters) == (0.5, 2)


def test_recall_of_the_headline_stands_beside_the_last_tokens_and_says_its_gate():
    answers = [
        compacted(0.5, contains_gold=1.0, category="1"),
        compacted(1.0, category="5", question_id="q5"),
        answer(
            context=AnswerContext.TRUNCATION,
            f1=0.25,
            contains_gold=0.0,
            num_evidence_compactions=1,
            category="1",
        ),
    ]
    told = [compaction(num_length_finishes=0)]
    cell = recall("independent", 512, answers, format="locomo", compactions=told)
    row = row_of([*three_arms(), cell])
    assert (row.recall_f1_mean, row.recall_contains_gold_mean, row.recall_num_answers) == (
        0.5,
        1,
        1,
    )
    assert (row.recall_truncation_f1_mean, row.recall_truncation_contains_gold_mean) == (0.25, 0)
    assert (row.recall_length_finish_frac, row.recall_distinct_summaries_frac) == (0, 0.5)
    assert row.recall_gate == "cannot_do_task"  # nobody asked without the history
    bare = row_of([*three_arms(), cell], "target_block")
    assert bare[["recall_gate", "recall_length_finish_frac"]].isna().all()


def test_invalid_cells_are_left_out_and_counted():
    spoiled = single("independent", 512, wall_s=1e6, session_id="s1", timing_valid=False)
    row = row_of([*three_arms(), spoiled])
    assert (row.num_timing_blocks, row.num_invalid_cells, row.compaction_wall_max_s) == (1, 1, 2.0)


def test_mixed_settings_are_refused():
    other = single("independent", 512, session_id="s1", spec={"volume_tokens": 1})
    with pytest.raises(ArtifactError, match="mixes cells of different settings"):
        compaction_layouts.build(TableInputs([*three_arms(), other]))
