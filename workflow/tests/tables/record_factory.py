"""Made-up cells: small, complete records whose every sum can be checked by hand."""

from pathlib import Path

from blockwise.artifacts import write_model
from blockwise.compaction.records import (
    AnswerRecord,
    Batch,
    CellRecord,
    CompactionRecord,
    Environment,
    RequestRecord,
    SelectedCell,
    TimingBlock,
)
from blockwise.compaction.store import write_sealed
from blockwise.serving.engine_card import EngineCard
from blockwise.tables.load import LoadedCell

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
        "finish_reason": "length",
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
        "ttft_after_s": 0.5,
    }
    return CompactionRecord(**{**values, **changes})


def answer(**changes):
    values = {
        "question_id": "q0",
        "cluster": "row0",
        "document_id": "d0",
        "turn_index": 0,
        "category": "bridge",
        "question": "Where?",
        "gold": "there",
        "answer": "there",
        "exact_match": 1.0,
        "f1": 1.0,
        "num_evidence_compactions": 0,
    }
    return AnswerRecord(**{**values, **changes})


def record(arm="sequential", block_size_tokens=None, session_id="s0", seed=0, repeat=0, **changes):
    """A timing cell; `spec` in the changes is merged into the default spec."""
    spec = {
        "question_timing": "immediate",
        "transcript": "fixed",
        "tau_tokens": 4096,
        "boundary": "turn",
        "last_turns": 0,
        "volume_mode": "forced",
        "volume_tokens": 256,
        "answer_tokens": 16,
        "code_digest": "cellcode",
        **changes.pop("spec", {}),
    }
    values = {
        "cell_key": f"{arm}-{block_size_tokens}-{session_id}-{seed}-{repeat}",
        "spec": spec,
        "arm": arm,
        "block_size_tokens": block_size_tokens,
        "session_id": session_id,
        "seed": seed,
        "repeat": repeat,
        "timing_block_id": f"tb-{session_id}-{seed}-{repeat}",
        "position_in_block": 0,
        "engine_card_id": "card",
        "timing_valid": True,
        "timing_invalid_reasons": (),
        "wall_s": 10.0,
        "client_cpu_s": 0.125,
        "num_turns": 4,
        "num_preemptions": 0,
        "requests": (
            request(),
            request("worker", completion_tokens=128, max_tokens=128),
            request("worker", completion_tokens=128, max_tokens=128, worker_index=1),
        ),
        "compactions": (compaction(),),
        "answers": (answer(), answer(question_id="q1", exact_match=0.0, f1=0.5)),
        "environment": ENVIRONMENT,
    }
    return CellRecord(**{**values, **changes})


def loaded(cell_record=None, **labels):
    values = {
        "experiment": "end_to_end",
        "backbone": "timing-8m",
        "dataset": "hotpotqa",
        "caption": "pocket-scale, random weights: timing only",
        "random_weights": True,
        "format": "hotpotqa",
        "num_parameters": 8.5e6,
        "num_skipped_rows": 0,
    }
    return LoadedCell(**{**values, **labels}, record=cell_record or record())


def engine_card(**changes):
    values = {
        "id": "card",
        "backbone": "timing-8m",
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


def comparison(num_sessions=3, block_sizes_tokens=(512, 1024), **labels):
    """Every arm on every session: sequential takes 10 s, a block size B 5 s + B/1024 s."""
    cells = []
    for index in range(num_sessions):
        session_id, slower = f"s{index}", 1 + 0.1 * index
        cells.append(loaded(record(session_id=session_id, wall_s=10.0 * slower), **labels))
        for size in block_sizes_tokens:
            wall_s = (5.0 + size / 1024) * slower
            parallel = record("target_block", size, session_id=session_id, wall_s=wall_s)
            cells.append(loaded(parallel, **labels))
    return cells


def store_batch(folder: Path, cells, name="batch"):
    """Write cells of one backbone and dataset as a real store and batch; return both paths."""
    store = folder / "cells"
    units = {}
    for cell in cells:
        unit = cell.record.timing_block_id or cell.record.cell_key
        units.setdefault(unit, {})[cell.record.cell_key] = cell.record
    paths = {}
    for unit, members in units.items():
        first = next(iter(members.values()))
        if first.timing_block_id is None:
            paths[unit], content = f"cells/{unit}.json", first
        else:
            paths[unit] = f"timing_blocks/{unit}.json"
            content = TimingBlock(
                id=unit,
                session_id=first.session_id,
                seed=first.seed,
                repeat=first.repeat,
                engine_card_id=first.engine_card_id,
                cells=tuple(members.values()),
            )
        write_sealed(store / paths[unit], content)
    selected = tuple(
        SelectedCell(
            experiment=cell.experiment,
            cell_key=cell.record.cell_key,
            record_path=paths[cell.record.timing_block_id or cell.record.cell_key],
        )
        for cell in cells
    )
    head = cells[0] if cells else loaded()
    batch = Batch(
        backbone=head.backbone,
        dataset=head.dataset,
        format=head.format,
        caption=head.caption,
        random_weights=head.random_weights,
        num_parameters=head.num_parameters,
        num_skipped_rows=head.num_skipped_rows,
        selected=selected,
        engine_cards=(engine_card(),),
    )
    batch_path = folder / f"{name}.json"
    write_model(batch_path, batch)
    return batch_path, store
