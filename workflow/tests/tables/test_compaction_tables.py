import pandas as pd
import pytest

from blockwise.artifacts import read_model, write_json
from blockwise.compaction.records import AnswerContext, CellRecord
from blockwise.config.choices import ContentType, Study
from blockwise.errors import ArtifactError
from blockwise.tables.compaction import (
    compaction_cells,
    compaction_events,
    compaction_requests,
    engine_cards,
)
from blockwise.tables.inputs import TableInputs
from record_factory import (
    answer,
    compaction,
    comparison,
    engine_card,
    loaded,
    record,
    request,
)


def only_row(table):
    assert len(table) == 1
    return table.iloc[0]


def test_token_sums_by_role():
    row = only_row(compaction_cells.build(TableInputs([loaded()])))
    assert (row.agent_prompt_tokens, row.agent_cached_tokens) == (1000, 600)
    assert (row.worker_prompt_tokens, row.worker_uncached_tokens) == (2000, 800)
    assert row.worker_completion_tokens == 256
    assert (row.question_prompt_tokens, row.question_cached_tokens) == (0, 0)
    assert row.total_tokens == 3 * 1000 + 16 + 256


def test_unreported_cached_tokens_stay_unknown():
    cell = loaded(record(requests=(request(), request(cached_tokens=None))))
    row = only_row(compaction_cells.build(TableInputs([cell])))
    assert pd.isna(row.agent_cached_tokens)
    assert pd.isna(row.agent_uncached_tokens)
    assert row.agent_prompt_tokens == 2000


def test_compaction_share_and_length_finishes():
    two = (compaction(), compaction(index=1, num_length_finishes=0))
    row = only_row(compaction_cells.build(TableInputs([loaded(record(compactions=two))])))
    assert (row.num_compactions, row.compaction_wall_s, row.compaction_stall_s) == (2, 4.0, 5.0)
    assert row.compaction_stall_frac == 0.5
    assert row.compaction_output_tokens == 512
    assert row.length_finish_frac == 1.0  # two of the two recorded workers


def test_a_cell_without_compaction_has_no_share_of_length_finishes():
    cell = loaded(record(compactions=(), requests=(request(),), answers=()))
    row = only_row(compaction_cells.build(TableInputs([cell])))
    assert row.compaction_stall_frac == 0.0
    assert pd.isna(row.length_finish_frac)
    assert pd.isna(row.f1_mean)


def test_immediate_accuracy_is_labelled_and_skips_undefined_matches():
    answers = (answer(), answer(exact_match=None, f1=0.25, num_evidence_compactions=2))
    row = only_row(compaction_cells.build(TableInputs([loaded(record(answers=answers))])))
    assert row.accuracy_kind == "immediate (not a recall measure)"
    assert (row.exact_match_mean, row.num_exact_match, row.num_answers) == (1.0, 1, 2)
    assert row.f1_mean == 0.625
    assert row.num_answers_evidence_compacted == 1


@pytest.mark.parametrize("reasons", [(), ("preempted: 1 times",)])
def test_deferred_accuracy_is_recall_and_its_times_are_not_judged(reasons):
    answers = (answer(context=AnswerContext.COMPACTED),)
    deferred = record(
        spec={"protocol": "deferred"}, timing_invalid_reasons=reasons, answers=answers
    )
    row = only_row(compaction_cells.build(TableInputs([loaded(deferred)])))
    assert row.accuracy_kind == "deferred recall"
    assert pd.isna(row.timing_valid)
    assert pd.isna(row.timing_invalid_reasons)
    assert pd.isna(row.timing_block_id)
    assert pd.isna(row.client_cpu_s)


def test_answers_on_the_last_tokens_have_columns_of_their_own():
    compacted, truncated = AnswerContext.COMPACTED, AnswerContext.TRUNCATION
    answers = (
        answer(context=compacted, exact_match=1.0, f1=1.0),
        answer(context=truncated, exact_match=0.0, f1=0.25),
        answer(context=truncated, exact_match=None, f1=0.75),
    )
    cell = loaded(record(spec={"protocol": "deferred"}, answers=answers))
    row = only_row(compaction_cells.build(TableInputs([cell])))
    assert (row.num_answers, row.exact_match_mean, row.f1_mean) == (1, 1.0, 1.0)
    assert (row.num_truncation_answers, row.truncation_f1_mean) == (2, 0.5)
    assert row.truncation_exact_match_mean == 0.0


def test_a_reference_has_no_layout_and_no_mode():
    answers = (answer(context=AnswerContext.FULL_HISTORY),)
    spec = {"protocol": "deferred", "tau_tokens": None}
    reference = record("full_history", spec=spec, compactions=(), answers=answers)
    row = only_row(compaction_cells.build(TableInputs([loaded(reference)])))
    assert (row.arm, row.accuracy_kind) == ("full_history", "full history")
    assert row[["layout", "mode", "tau_tokens"]].isna().all()


def test_a_cell_shows_its_study_prompt_load_and_length():
    shared = record(
        "target_block",
        512,
        spec={"protocol": "shared", "max_concurrent_workers": 2},
        requests=(request("bystander", compaction_index=None, worker_index=1),),
        answers=(),
    )
    cell = loaded(shared, study=Study.UNDER_LOAD, prompt="concise", target_frac=0.125)
    row = only_row(compaction_cells.build(TableInputs([cell])))
    assert (row.study, row.prompt, row.target_frac) == ("compaction_under_load", "concise", 0.125)
    assert (row.protocol, row.history_tokens, row.num_bystanders) == ("shared", 1024, 2)
    assert (row["mode"], row.max_concurrent_workers) == ("parallel", 2)
    assert (row.bystander_prompt_tokens, row.bystander_completion_tokens) == (1000, 16)
    assert row[["tau_tokens", "transcript", "accuracy_kind"]].isna().all()


def test_the_verdict_on_times_is_the_records_own():
    reasons = ("preempted: 2 times", "retried: 1 requests (cut)")
    spoiled = record(timing_valid=False, timing_invalid_reasons=reasons, num_preemptions=2)
    row = only_row(compaction_cells.build(TableInputs([loaded(spoiled)])))
    assert not row.timing_valid
    assert row.timing_invalid_reasons == "; ".join(reasons)


def test_preemptions_that_the_engine_does_not_tell_stay_unknown():
    row = only_row(compaction_cells.build(TableInputs([loaded(record(num_preemptions=None))])))
    assert pd.isna(row.num_preemptions)


def test_the_seed_column_claims_no_order_of_sessions():
    meanings = {column.name: column.meaning for column in compaction_cells.COLUMNS}
    assert "session order" not in meanings["seed"]


def test_a_record_whose_spec_another_version_wrote_is_refused(tmp_path):
    path = tmp_path / "cell.json"
    told = record().model_dump(mode="json")
    write_json(path, {**told, "spec": {**told["spec"], "transcript": "sideways"}})
    with pytest.raises(ArtifactError, match=r"spec\.transcript"):
        read_model(path, CellRecord)


def test_arms_and_sessions_share_what_they_were_told():
    one = record(session_id="s1", seed=3).spec
    other = record("target_block", 512).spec
    assert one.settings == other.settings
    assert one.settings != record(spec={"tau_tokens": 2048}).spec.settings


def test_events_and_requests_list_a_shared_cell_once():
    cells = [loaded(), loaded(experiment="other")]
    assert len(compaction_cells.build(TableInputs(cells))) == 2
    events, requests = (
        compaction_events.build(TableInputs(cells)),
        compaction_requests.build(TableInputs(cells)),
    )
    assert len(events) == 1
    assert list(requests.role) == ["agent", "worker", "worker"]
    assert list(requests.request_index) == [0, 1, 2]


def test_an_event_shows_its_blocks_and_rates():
    row = only_row(compaction_events.build(TableInputs([loaded(record("target_block", 512))])))
    assert row.realised_block_tokens == "512 488"
    assert row.uncached_tokens == 1000
    assert row.decode_tokens_per_s == 128.0


def test_an_event_shows_the_content_of_its_history_blocks():
    mixed = compaction(block_content=(ContentType.DIALOGUE, ContentType.TOOL_OUTPUT))
    row = only_row(compaction_events.build(TableInputs([loaded(record(compactions=(mixed,)))])))
    assert row.block_content == "dialogue tool_output"


def test_a_request_shows_the_engines_clock_where_it_has_one():
    requests = (
        request(queue_s=0.125, decode_s=None),
        request("bystander", compaction_index=0, worker_index=1),
    )
    table = compaction_requests.build(TableInputs([loaded(record(requests=requests))]))
    assert list(table.role) == ["agent", "bystander"]
    assert list(table.queue_s) == [0.125, 0.0]
    assert pd.isna(table.decode_s[0])
    assert list(table.worker_index[1:]) == [1]


def test_an_event_is_identified_by_cell_and_timing_block():
    events = compaction_events.build(TableInputs(comparison(num_sessions=2)))
    keys = events[["cell_key", "timing_block_id", "compaction_index"]]
    assert len(events) == 6
    assert not keys.duplicated().any()


def test_requests_hold_no_text():
    assert (
        "words that no table shows"
        not in compaction_requests.build(TableInputs([loaded()])).to_csv()
    )


def test_engine_cards_one_row_a_server_start():
    other = engine_card(id="other", kv_cache_tokens=None, ttft_source="engine")
    table = engine_cards.build(TableInputs(engine_cards=[engine_card(), other]))
    assert list(table.ttft_source) == ["client", "engine"]
    assert list(table.engine_card_id) == ["card", "other"]
    assert table.arguments[0] == '{"dtype":"float32"}'
    assert pd.isna(table.kv_cache_tokens[1])
