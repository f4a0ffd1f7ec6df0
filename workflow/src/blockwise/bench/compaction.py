"""Benchmark of the compaction layouts and of the client: `make bench-compaction`.

    python -m blockwise.bench.compaction [--backbone NAME]

One server start plays, interleaved, the same compaction (8k tokens of cached history, eight
history blocks, one forced volume) under sequential, the paper's layout and ours, and whole sessions
for the share of the client. Ratios are formed inside timing blocks; absolute times mean nothing on
a shared machine. The client's own cost is measured against an engine that answers at once.
The prompt is one word, so that layouts are compared and not prompts. The backbone is a small random
one, so that a benchmark takes minutes; what layouts read again does not hang on weights.
"""

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from blockwise.artifacts import digest
from blockwise.bench import client
from blockwise.bench.long_chats import long_chat_figures
from blockwise.bench.rounds import FEWEST_ROUNDS, Figure, figure, publish
from blockwise.compaction.fit import check_sessions_fit
from blockwise.compaction.plan import plan_batch
from blockwise.compaction.play_batch import BatchJob
from blockwise.compaction.records import CellRecord, TimingBlock
from blockwise.compaction.sessions import build_sessions
from blockwise.compaction.store import CellStore
from blockwise.config.arms import SEQUENTIAL
from blockwise.config.choices import Protocol
from blockwise.config.load import DEFAULT_FILE, load_profile
from blockwise.config.profile import Profile
from blockwise.data.prepare import prepare_documents
from blockwise.errors import BlockwiseError, ConfigError, run_command
from blockwise.models.prepare import prepare_model
from blockwise.models.renderer import Renderer
from blockwise.serving.server import end_with_parent, raise_on_sigterm

HISTORY_TOKENS = 8192
BLOCK_SIZE_TOKENS = 1024  # N = 8
VOLUME_TOKENS = 1024
PAPER, OURS = "target_block", "suffix_target"
DATASET = "bench"
RANDOM_NAME = "random-8m"
RANDOM_BACKBONE: Mapping[str, Any] = {
    "model": {
        "source": "random",
        "hidden_size": 320,
        "intermediate_size": 1024,
        "num_layers": 4,
        "num_attention_heads": 5,
        "num_key_value_heads": 5,
    },
    "architecture": "dense",
    "reasoning": False,
    "num_parameters": 8.2e6,
    "context_window_tokens": 2 * HISTORY_TOKENS,
    "engine": {
        "kind": "vllm",
        "arguments": {"enforce-eager": True, "dtype": "float32"},
        "environment": {"VLLM_CPU_KVCACHE_SPACE": "2"},
    },
}
EXPERIMENTS: Mapping[str, Any] = {
    "layouts": {
        "study": "compaction_layouts",
        "history_tokens": [HISTORY_TOKENS],
        "layouts": [PAPER, OURS],
        "block_sizes_tokens": [BLOCK_SIZE_TOKENS],
        "prompts": [DATASET],
        "volume": {"mode": "forced", "total_tokens": VOLUME_TOKENS},
    },
    "sessions": {
        "study": "compaction_end_to_end",
        "tau_tokens": [HISTORY_TOKENS // 2],
        "layouts": [PAPER, OURS],
        "block_sizes_tokens": [BLOCK_SIZE_TOKENS // 2],
        "prompts": [DATASET],
        "volume": {"mode": "forced", "total_tokens": VOLUME_TOKENS // 2},
        "num_sessions": 1,
    },
}
MEMORY_MARKS = (200, client.NUM_TURNS)


def engine_figures(blocks: Sequence[TimingBlock]) -> list[Figure]:
    """Ratios between layouts, each formed inside one timing block.

    Raises:
        ConfigError: a cell's times do not count.
    """
    for block in blocks:
        for cell in block.cells:
            if not cell.timing_valid:
                reasons = "; ".join(cell.timing_invalid_reasons)
                raise ConfigError(f"{cell.arm}: {reasons}; mend this and run again")
    single = [block for block in blocks if block.cells[0].protocol is Protocol.SINGLE]
    sessions = [cell for block in blocks if block not in single for cell in block.cells]
    return [
        figure(
            f"uncached prompt tokens, {OURS} over {PAPER}",
            "x",
            _ratios(single, _uncached_tokens, OURS, PAPER),
            goal=1 / 8,
            at_least=False,
        ),
        figure(
            f"speed-up of {OURS} over {PAPER}",
            "x",
            _ratios(single, _wall_s, PAPER, OURS),
            goal=1.5,
            at_least=True,
        ),
        figure(
            f"speed-up of {OURS} over {SEQUENTIAL}",
            "x",
            _ratios(single, _wall_s, SEQUENTIAL, OURS),
            goal=3.0,
            at_least=True,
        ),
        figure(
            "client CPU time over session wall time",
            "share",
            [(cell.client_cpu_s or 0.0) / cell.wall_s for cell in sessions],
            goal=0.03,
            at_least=False,
        ),
    ]


def client_figures(renderer: Renderer, num_rounds: int) -> list[Figure]:
    """What the client costs by itself."""
    name = f"client time of a compaction with {client.NUM_WORKERS} workers"
    figures = [
        figure(
            f"{name}, {layout}",
            "s",
            client.compaction_client_s(renderer, layout, num_rounds),
            goal=0.05,
            at_least=False,
        )
        for layout in (PAPER, OURS)
    ]
    memory = client.session_memory_bytes(renderer, MEMORY_MARKS)
    early, late = (memory[mark] for mark in MEMORY_MARKS)
    growth = f"memory gained from turn {MEMORY_MARKS[0]} to turn {MEMORY_MARKS[1]}"
    return [*figures, figure(growth, "MB", [(late - early) / 1e6], goal=2.0, at_least=False)]


def _ratios(
    blocks: Sequence[TimingBlock], of: Callable[[CellRecord], float], above: str, below: str
) -> list[float]:
    ratios = []
    for block in blocks:
        values = {cell.arm: of(cell) for cell in block.cells}
        ratios.append(values[above] / values[below])
    return ratios


def _wall_s(cell: CellRecord) -> float:
    return cell.compactions[0].wall_s


def _uncached_tokens(cell: CellRecord) -> float:
    compaction = cell.compactions[0]
    assert compaction.cached_tokens is not None  # else the cell would not be valid
    return compaction.prompt_tokens - compaction.cached_tokens


def bench_profile(files: Sequence[Path], backbone: str, num_rounds: int) -> Profile:
    """The profile of the benchmark: one backbone, and the benchmark's own experiments.

    Args:
        files: of a configuration.
        backbone: one of it, or the random one of the benchmark.
        num_rounds: timing blocks.

    Raises:
        ConfigError: the configuration has no such backbone, or its window is too small.
    """
    backbones = {RANDOM_NAME: RANDOM_BACKBONE}
    backbones |= {name: one.model_dump() for name, one in load_profile(files).backbones.items()}
    if backbone not in backbones:
        raise ConfigError(f"no backbone {backbone!r}; choose of {', '.join(backbones)}")
    rows = 4 * num_rounds + 40  # a row makes a document of about 500 tokens
    return Profile.model_validate(
        {
            "profile": "compaction-benchmark",
            "backbones": {backbone: {**backbones[backbone], "datasets": None}},
            "datasets": {
                DATASET: {
                    "format": "hotpotqa",
                    "source": {"kind": "synthetic", "num_rows": rows, "sentences_per_paragraph": 3},
                    "sessions": {"num_sessions": 1, "target_tokens": HISTORY_TOKENS + 1024},
                }
            },
            "experiments": {
                name: {**experiment, "num_repeats": num_rounds}
                for name, experiment in EXPERIMENTS.items()
            },
        }
    )


def measure(profile: Profile, scratch: Path, num_rounds: int) -> list[Figure]:
    """Play the cells of the benchmark and measure the client."""
    (name,) = profile.backbones
    backbone = profile.backbones[name]
    (scratch / f"{DATASET}.md").write_text(client.PROMPT)
    model = prepare_model(name, backbone, scratch / name)
    renderer = Renderer(model.tokenizer_path, backbone.request.chat_template_arguments)
    figures = [
        *client_figures(renderer, num_rounds),
        *long_chat_figures(lambda: Renderer(model.tokenizer_path), num_rounds),
    ]
    dataset = profile.datasets[DATASET]
    sessions = build_sessions(
        prepare_documents(DATASET, dataset, scratch),
        dataset.sessions,
        renderer.count_text,
        name,
        backbone.context_window_tokens,
    )
    plan = plan_batch(profile, name, sessions, model, renderer=renderer, prompts_folder=scratch)
    cells = ((cell.experiment, cell.spec) for cell in plan.selected)
    check_sessions_fit(cells, plan.sessions, renderer)
    store = CellStore(scratch / "cells", print)
    config_digest = digest(profile.model_dump(mode="json"))
    job = BatchJob(plan, backbone, model, store, config_digest)
    job.play_missing(renderer, Path(f"logs/bench/{name}.log"))
    blocks = [block for unit in plan.units if isinstance(block := store.load(unit), TimingBlock)]
    return [*engine_figures(blocks), *figures]


def main() -> None:
    """Command line of the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--configfile", type=Path, nargs="+", default=[DEFAULT_FILE])
    parser.add_argument(
        "--backbone", default=RANDOM_NAME, help="one of the profile (default: %(default)s)"
    )
    parser.add_argument(
        "--rounds", type=int, default=FEWEST_ROUNDS, help="timing blocks (default: %(default)s)"
    )
    parser.add_argument("--output", type=Path, default=Path("results/bench/compaction.json"))
    arguments = parser.parse_args()
    raise_on_sigterm()
    end_with_parent()
    name = arguments.backbone
    if arguments.rounds < 1:
        raise BlockwiseError(f"--rounds {arguments.rounds}: give at least 1")
    profile = bench_profile(arguments.configfile, name, arguments.rounds)
    with tempfile.TemporaryDirectory() as scratch:
        figures = measure(profile, Path(scratch), arguments.rounds)
    publish(arguments.output, "compaction", name, figures)


if __name__ == "__main__":
    run_command(main)
