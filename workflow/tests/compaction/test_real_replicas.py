"""Two real vLLM servers of one backbone give the records that one gives, and share the sessions.

No speed-up is asked for: on two cores both compute on the same one.
"""

import json

import pytest

from blockwise.compaction.plan import plan_batch
from blockwise.compaction.play_batch import BatchJob
from blockwise.compaction.sessions import build_sessions
from blockwise.compaction.store import CellStore
from blockwise.config.profile import Profile
from blockwise.data.prepare import configured_dataset, prepare_documents
from serving_fixtures import NAME, WINDOW_TOKENS, tiny_backbone

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(3600)]

ONE_BLOCK_SIZE = {"tau_tokens": [1800], "block_sizes_tokens": [512], "answer_tokens": 4}
PROFILE = {
    "profile": "replicas",
    "datasets": {
        "d": {
            "format": "hotpotqa",
            "source": {"kind": "synthetic", "num_rows": 24, "sentences_per_paragraph": 3},
            "sessions": {"num_sessions": 3, "target_tokens": 2200},
        }
    },
    "experiments": {
        "timed": {
            **ONE_BLOCK_SIZE,
            "study": "compaction_end_to_end",
            "volume": {"mode": "forced", "total_tokens": 64},
            "num_sessions": 2,
        },
        "recall": {
            **ONE_BLOCK_SIZE,
            "study": "compaction_accuracy_volume",
            "layouts": ["target_block", "suffix_target"],
            "volume": {
                "mode": "natural",
                "sequential_max_tokens": 64,
                "worker_max_tokens": 32,
                "accept": ["length", "empty", "echo", "loop", "refusal"],
            },
            "references": ["full_history"],
        },
    },
}
SAID = ("role", "turn_index", "prompt_tokens", "completion_tokens", "finish_reason", "text")


def played(num_replicas, model, renderer, folder, prompts):
    """Every record of a run on so many servers, by cell, and the replica that each names."""
    backbone = tiny_backbone()
    engine = backbone.engine.model_copy(
        update={"num_replicas": num_replicas, "startup_timeout_s": 1200.0}
    )
    backbone = backbone.model_copy(update={"engine": engine})
    profile = Profile.model_validate(
        {**PROFILE, "backbones": {NAME: backbone.model_dump(mode="json")}}
    )
    dataset = configured_dataset(profile, "d")
    sessions = build_sessions(
        prepare_documents("d", dataset, folder),
        dataset.sessions,
        renderer.count_text,
        NAME,
        WINDOW_TOKENS,
    )
    plan = plan_batch(profile, NAME, sessions, model, renderer=renderer, prompts_folder=prompts)
    store = CellStore(folder / "cells", print)
    job = BatchJob(plan, backbone, model, store, "digest")
    job.play_missing(renderer, folder / "server.log")
    batch = job.batch(sessions, "")
    assert len(batch.engine_cards) == num_replicas
    replica_of = {card.id: card.arguments.get("replica") for card in batch.engine_cards}
    records = {}
    for path in {cell.record_path for cell in batch.selected}:
        record = json.loads((store.folder / path).read_text())["record"]
        for one in record.get("cells", [record]):
            records[one["cell_key"]] = (one, replica_of[one["engine_card_id"]])
    return records, [card.model_dump(mode="json") for card in batch.engine_cards]


def said_in(record):
    """What was asked and answered, in an order that does not depend on speed."""
    return sorted(json.dumps([one[name] for name in SAID]) for one in record["requests"])


def is_one_request_at_a_time(record):
    """Only then no batch, whose sums round otherwise, can change what random weights say."""
    return record["spec"]["layout"] == "sequential" and record["timing_block_id"] is not None


def shape_of(record):
    """How often each kind of request was sent, and what was compacted."""
    roles = sorted(request["role"] for request in record["requests"])
    return roles, record["num_turns"], len(record["compactions"]), len(record["answers"])


def cached_share(records):
    """Of the prompts of recall cells, whose histories their sessions share."""
    requests = [
        request
        for record, _ in records.values()
        if record["timing_block_id"] is None
        for request in record["requests"]
    ]
    cached_tokens = sum(request["cached_tokens"] for request in requests)
    return cached_tokens / sum(request["prompt_tokens"] for request in requests)


def test_two_servers_give_what_one_gives_and_each_session_stays_on_one(
    tiny_model, tiny_renderer, tmp_path, project_folder
):
    prompts = project_folder / "config" / "prompts"
    alone, spread = (
        played(number, tiny_model, tiny_renderer, tmp_path / str(number), prompts)
        for number in (1, 2)
    )
    shares = [cached_share(records) for records, _ in (alone, spread)]
    print(f"{len(alone[0])} cells; cached share of recall prompts, one and two servers: {shares}")
    for cards in (alone[1], spread[1]):
        print([(card["startup_s"], card["decode_8_tokens_per_s"]) for card in cards])
    assert alone[0].keys() == spread[0].keys()
    for key, (record, place) in spread[0].items():
        other = alone[0][key][0]
        assert shape_of(record) == shape_of(other)
        if is_one_request_at_a_time(record):
            assert said_in(record) == said_in(other)
        assert place == {
            "number": {"0": 1, "1": 2, "2": 1}[record["spec"]["session_id"][-1]],
            "of": 2,
        }
        assert record["timing_valid"] or record["timing_block_id"] is None, record
    assert shares[1] > 0.9 * shares[0] > 0, "a session's cells find each other's history"
