"""Made-up cells: small, complete records whose every sum can be checked by hand."""

import itertools
from pathlib import Path

from blockwise.artifacts import write_model, write_sealed
from blockwise.compaction.cell_spec import ARM_INGREDIENTS
from blockwise.compaction.records import (
    AnswerContext,
    AnswerRecord,
    Batch,
    CellRecord,
    CompactionRecord,
    Environment,
    OmittedCell,
    RequestRecord,
    SelectedCell,
    TimingBlock,
)
from blockwise.config.backbones import Weights
from blockwise.config.choices import ContentType, Protocol, Study
from blockwise.serving.engine_card import EngineCard
from blockwise.tables.inputs import LoadedCell, LoadedOmission
from cell_specs import cell

ENVIRONMENT = Environment(
    commit="c" * 40,
    dirty=False,
    code_digest="runcode",
    config_digest="config",
    packages={"python": "3.11"},
    host="host",
    cpu_model="cpu",
    num_cpus=2,
    load_average_1min=0.25,
    cpu_steal_frac=0.0,
    started_at="2026-01-01T00:00:00+00:00",
    command="python -m blockwise",
)


def request(role="agent", **changes):
    worker = role == "worker"
    values = {
        "role": role,
        "turn_index": 0,
        "compaction_index": 0 if worker else None,
        "worker_index": 0 if worker else None,
        "num_messages": 3,
        "prompt_tokens": 1000,
        "cached_tokens": 600,
        "completion_tokens": 16,
        "thinking_tokens": 0,
        "max_tokens": 16,
        "start_s": 0.0,
        "ttft_s": 0.25,
        "wall_s": 0.5,
        "queue_s": 0.0,
        "decode_s": 0.25,
        "finish_reason": "length",
        "summary_fault": None,
        "retry_reasons": (),
        "text": "words that no table shows",
        "thinking_text": "",
    }
    return RequestRecord(**{**values, **changes})


def compaction(**changes):
    values = {
        "index": 0,
        "turn_index": 2,
        "closing": False,
        "num_blocks": 2,
        "block_tokens": (512, 488),
        "block_content": (ContentType.EVIDENCE, ContentType.EVIDENCE),
        "history_before_tokens": 1040,
        "history_after_tokens": 300,
        "input_tokens": 1000,
        "output_tokens": 256,
        "thinking_tokens": 0,
        "prompt_tokens": 1600,
        "cached_tokens": 600,
        "wall_s": 2.0,
        "stall_s": 2.5,
        "num_length_finishes": 2,
        "num_retried_workers": 0,
        "num_ahead_workers": 0,
        "background_s": 0.0,
        "ttft_after_s": 0.5,
    }
    return CompactionRecord(**{**values, **changes})


def answer(**changes):
    values = {
        "question_id": "q0",
        "cluster": "row0",
        "document_id": "d0",
        "turn_index": 0,
        "context": AnswerContext.RUNNING,
        "category": "bridge",
        "question": "Where?",
        "gold": "there",
        "answer": "there",
        "exact_match": 1.0,
        "f1": 1.0,
        "contains_gold": 1.0,
        "num_evidence_compactions": 0,
    }
    return AnswerRecord(**{**values, **changes})


SPECS = {
    Protocol.IMMEDIATE: {"tau_tokens": 4096, "transcript": "fixed"},
    Protocol.DEFERRED: {"tau_tokens": 4096, "volume_mode": "natural", "asks_truncated": True},
    Protocol.SINGLE: {"history_tokens": 1024, "answer_tokens": 1},
    Protocol.SHARED: {"history_tokens": 1024, "answer_tokens": 1, "num_bystanders": 2},
}


def record(
    arm="sequential",
    block_size_tokens=None,
    session_id="s0",
    seed=0,
    repeat=0,
    server_start=0,
    **changes,
):
    """A timing cell of the immediate protocol, or of the one in the spec's changes.

    `spec` in the changes is merged into the default spec of that protocol; what it says of the
    frame names the timing block. Deferred cells and single ones of natural volume lie in none.
    """
    told = changes.pop("spec", {})
    protocol = Protocol(told.get("protocol", "immediate"))
    nothing = {"tau_tokens": None, "transcript": None, "request": {"temperature": 1.0}}
    own = {
        "session_id": session_id,
        "seed": seed,
        "repeat": repeat,
        "server_start": server_start,
        "layout": arm,
        "block_size_tokens": block_size_tokens,
        "volume_tokens": 256,
    }
    spec = cell(**{**nothing, **own, **SPECS[protocol], **told})
    frame = [str(value) for key, value in told.items() if key not in ARM_INGREDIENTS]
    named = [session_id, str(seed), str(repeat), *([f"start{server_start}"] * (server_start > 0))]
    timing_block_id = "-".join(["tb", *named, *frame])
    size = block_size_tokens
    natural = spec.volume_mode == "natural"
    timed = protocol != "deferred" and not (protocol == "single" and natural)
    values = {
        "cell_key": "-".join([arm, str(block_size_tokens), *named]),
        "spec": spec,
        "timing_block_id": timing_block_id if timed else None,
        "position_in_block": 0 if timed else None,
        "engine_card_id": "card",
        "timing_valid": timed,
        "timing_invalid_reasons": (),
        "wall_s": 10.0,
        "waited_s": 0.0,
        "client_cpu_s": 0.125 if timed else None,
        "num_turns": 4,
        "num_preemptions": 0 if timed else None,
        "requests": (
            request(),
            request("worker", completion_tokens=128, max_tokens=128),
            request("worker", completion_tokens=128, max_tokens=128, worker_index=1),
        ),
        "compactions": (compaction(block_tokens=(size, 488) if size else (1000,)),),
        "answers": (answer(), answer(question_id="q1", exact_match=0.0, f1=0.5)),
        "environment": ENVIRONMENT,
    }
    return CellRecord(**{**values, **changes})


def loaded(cell_record=None, **labels):
    values = {
        "experiment": "end_to_end",
        "study": Study.END_TO_END,
        "prompt": "detailed",
        "target_frac": None,
        "backbone": "smollm2-135m",
        "dataset": "hotpotqa",
        "caption": "pocket-scale, random weights: timing only",
        "weights": Weights.RANDOM,
        "format": "hotpotqa",
        "num_parameters": 8.5e6,
        "num_skipped_rows": 0,
    }
    return LoadedCell(**{**values, **labels}, record=cell_record or record())


def omission(**changes):
    values = {
        "experiment": "accuracy_volume",
        "study": Study.ACCURACY_VOLUME,
        "backbone": "smollm2-135m",
        "dataset": "hotpotqa",
        "caption": "pocket-scale, random weights: timing only",
        "weights": Weights.RANDOM,
        "format": "hotpotqa",
        "num_parameters": 8.5e6,
        "arm": "full_history",
        "session_id": "s0",
        "reason": "20000 tokens exceed the window of 16384",
    }
    return LoadedOmission(**{**values, **changes})


def engine_card(**changes):
    values = {
        "id": "card",
        "backbone": "smollm2-135m",
        "engine": "vllm 0.32.0",
        "model_digest": "model",
        "context_window_tokens": 16384,
        "kv_cache_tokens": 40000,
        "kv_block_tokens": 128,
        "prefix_caching": True,
        "prefix_stable": True,
        "prefix_break": None,
        "request_form": "chat",
        "decode_1_tokens_per_s": 100.0,
        "decode_8_tokens_per_s": 400.0,
        "seeded_output_batch_invariant": True,
        "startup_s": 25.0,
        "arguments": {"dtype": "float32"},
    }
    return EngineCard(**{**values, **changes})


def comparison(
    num_sessions=3, block_sizes_tokens=(512, 1024), spec=None, num_server_starts=1, **labels
):
    """Every arm on every session and start: sequential takes 10 s, a block size B 5 s + B/1024 s.

    Each session takes 10% longer than the one before, and each start 2%. `spec` is merged into the
    spec of every cell.
    """
    cells = []
    for start, index in itertools.product(range(num_server_starts), range(num_sessions)):
        session_id, slower = f"s{index}", (1 + 0.1 * index) * (1 + 0.02 * start)
        own = {"session_id": session_id, "server_start": start, "spec": spec or {}}
        cells.append(loaded(record(wall_s=10.0 * slower, **own), **labels))
        for size in block_sizes_tokens:
            wall_s = (5.0 + size / 1024) * slower
            cells.append(loaded(record("target_block", size, wall_s=wall_s, **own), **labels))
    return cells


def store_batch(folder: Path, cells, name="batch", omitted=()):
    """Write cells of one backbone and dataset as a real store and batch; return both paths.

    Of omissions, what stands in a batch for each is written.
    """
    store = folder / "cells"
    units = {}
    for one in cells:
        unit = one.record.timing_block_id or one.record.cell_key
        units.setdefault(unit, {})[one.record.cell_key] = one.record
    paths = {}
    for unit, members in units.items():
        first = next(iter(members.values()))
        if first.timing_block_id is None:
            paths[unit], content = f"cells/{unit}.json", first
        else:
            paths[unit] = f"timing_blocks/{unit}.json"
            content = TimingBlock(
                id=unit, engine_card_id=first.engine_card_id, cells=tuple(members.values())
            )
        write_sealed(store / paths[unit], content)
    selected = tuple(
        SelectedCell(
            experiment=one.experiment,
            study=one.study,
            prompt=one.prompt,
            target_frac=one.target_frac,
            cell_key=one.record.cell_key,
            record_path=paths[one.record.timing_block_id or one.record.cell_key],
        )
        for one in cells
    )
    head = cells[0] if cells else loaded()
    batch = Batch(
        backbone=head.backbone,
        dataset=head.dataset,
        format=head.format,
        caption=head.caption,
        weights=head.weights,
        num_parameters=head.num_parameters,
        num_skipped_rows=head.num_skipped_rows,
        selected=selected,
        omitted=tuple(
            OmittedCell(**{name: getattr(one, name) for name in OmittedCell.model_fields})
            for one in omitted
        ),
        engine_cards=(engine_card(),),
    )
    batch_path = folder / f"{name}.json"
    write_model(batch_path, batch)
    return batch_path, store
