"""Small pieces of the real work, each with what it ends with when nobody disturbs it.

Four kinds: the batch job alone and the training job alone (a start is cheap, so most faults go
there), Snakemake with its tables and a figure, and the same on a real vLLM server. The first
three talk to `serving/model_double.py`, which a job starts as it would start vLLM.
"""

import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import yaml

from blockwise.artifacts import write_model
from blockwise.compaction.sessions import build_sessions
from blockwise.data.prepare import prepare_documents
from blockwise.models.prepare import prepare_model
from blockwise.models.renderer import Renderer
from blockwise.run.pipeline import Pipeline
from blockwise.tables.columns import ColumnKind
from blockwise.tables.registry import Family
from blockwise.tables.write import CompactionSources, MXFP4Sources, write_tables
from chaos.faults import Fault, unmount
from chaos.world import ATTEMPT_LIMIT_S, POLL_S, Role, Work, World, build_clock
from serving_fixtures import tiny_backbone
from workflow.workspace import (
    SMALL_DATASETS,
    SMALL_MXFP4,
    SMALL_TIMING,
    copy_workflow,
    snakemake_command,
)

RESULTS = Path("results/small")
RUNS = RESULTS / "runs"
BACKBONE, DATASET = "double", "hotpotqa"
SESSIONS, MODEL = RUNS / f"sessions/{BACKBONE}/{DATASET}.json", RUNS / f"backbones/{BACKBONE}.json"
BATCH = RUNS / f"compaction/{BACKBONE}/{DATASET}.json"
CORPUS = RUNS / "mxfp4/corpus"
TRAINED = RUNS / "mxfp4/training/mxfp4_ladder/0.json"
CHECKPOINTS = RUNS / "mxfp4/checkpoints"
CONFIG = "config/small.yaml"
SERVER_LOG = "logs/servers/double.log"
TABLE = RESULTS / "tables/compaction_cells.csv"
FIGURE = Path("figures/small/compaction_end_to_end.png")
PROBE_ANSWERS = 20  # that the job asks for before its first cell
TIMEOUT_S = 4.0  # of a request: a stalled one costs so long
DATASETS = {
    DATASET: {
        **SMALL_DATASETS[DATASET],
        "source": {**SMALL_DATASETS[DATASET]["source"], "num_rows": 40},
        "sessions": {"num_sessions": 2, "target_tokens": 3000},
    }
}
EXPERIMENTS = {
    "compaction_end_to_end": {**SMALL_TIMING, "seeds": [0, 1]},
    "recall": {
        "study": "compaction_accuracy_volume",
        "tau_tokens": [2400],
        "block_sizes_tokens": [1024],
        "volume": {
            "mode": "natural",
            "sequential_max_tokens": 96,
            "worker_max_tokens": 32,
            "accept": ["length", "empty", "echo", "loop", "refusal"],
        },
        "answer_tokens": 4,
    },
}
TRAINING = {
    **SMALL_MXFP4,
    "arms": {"fp32": {"precision": "fp32"}, "W+SR(W:dy)": {"wgrad": {"dy": {"rounding": "sr"}}}},
    "experiments": {
        "mxfp4_ladder": {
            "study": "mxfp4_ladder",
            "baselines": ["fp32"],
            "arms": ["W+SR(W:dy)"],
            "seeds": [0],
            "target_step": 100,
            "training": {
                "num_steps": 200,
                "batch_sequences": 2,
                "evaluate_every_steps": 50,
                "evaluation_sequences": 2,
                "checkpoint_every_steps": 10,
            },
        }
    },
}
EXACT = frozenset({ColumnKind.EXACT})
ALIKE = EXACT | {ColumnKind.SAMPLED}  # the double and the training job repeat every word and bit


class Lab:
    """Makes worlds below one folder."""

    def __init__(self, scratch: Path, project: Path) -> None:
        self.scratch, self._project = scratch.resolve(), project
        self.clock = build_clock(self.scratch)
        self._made = 0

    def job(self) -> "Bench":
        """The batch job alone."""
        folder = self._copied("job", {})
        with contextlib.chdir(folder):
            prepare_batch()
        values = {
            "config": RESULTS / "config.json",
            "backbone": BACKBONE,
            "sessions": SESSIONS,
            "model": MODEL,
            "prompts": "config/prompts",
            "store": RESULTS / "cells",
            "server-log": SERVER_LOG,
            "output": BATCH,
        }
        work = Work(
            command=_python("blockwise.compaction.play_batch", values),
            unlock=(),
            results=str(RESULTS),
            family=Family.COMPACTION,
            repeated=ALIKE,
            write_tables=lambda folder: write_tables(
                CompactionSources([folder / BATCH], folder / RESULTS / "cells"),
                folder / RESULTS / "tables",
            ),
        )
        return Bench(self, folder, work)

    def training(self) -> "Bench":
        """The training job alone: two arms, one after the other."""
        folder = self._prepared("training", {"mxfp4": TRAINING}, [str(CORPUS / "corpus.json")])
        values = {
            "config": RESULTS / "config.json",
            "experiment": "mxfp4_ladder",
            "seeds": 0,
            "corpus": CORPUS,
            "store": RESULTS / "cells",
            "checkpoints": CHECKPOINTS,
            "threads": 1,
            "output": TRAINED,
        }
        work = Work(
            command=_python("blockwise.mxfp4.train_arm", values),
            unlock=(),
            results=str(RESULTS),
            family=Family.MXFP4,
            repeated=ALIKE,
            write_tables=lambda folder: write_tables(
                MXFP4Sources(
                    folder / RESULTS / "config.json",
                    folder / RESULTS / "cells",
                    training=[folder / TRAINED],
                ),
                folder / RESULTS / "tables",
            ),
        )
        return Bench(self, folder, work)

    def workflow(self, *targets: str) -> "Bench":
        """Snakemake up to some files; all of them without a name."""
        folder = self._prepared(
            "workflow" if targets else "whole-workflow", {}, [str(SESSIONS), str(MODEL)]
        )
        return Bench(self, folder, _snakemake(targets))

    def real(self) -> "Bench":
        """Snakemake on a vLLM server of its own."""
        backbone = tiny_backbone(caption="random weights: timing only").model_dump(mode="json")
        experiments = {"compaction_end_to_end": {**SMALL_TIMING, "seeds": [0, 1, 2]}}
        values = {"backbones": {BACKBONE: backbone}, "experiments": experiments}
        folder = self._prepared("real", values, [str(SESSIONS), str(MODEL)])
        work = replace(_snakemake([str(TABLE)]), repeated=EXACT, is_real=True)
        return Bench(self, folder, work)

    def _prepared(self, name: str, values: dict, targets: Sequence[str]) -> Path:
        """A folder in which everything is made that comes before the work."""
        folder = self._copied(name, values)
        world = World(folder, _snakemake(targets))
        status, said = world.run(world.work.command)
        assert status == 0, said
        return folder

    def _copied(self, name: str, values: dict) -> Path:
        """A folder with the workflow and a configuration, of which `values` replace parts."""
        folder = copy_workflow(self._project, self.scratch / name)
        config = {
            "profile": "small",
            "backbones": {BACKBONE: double_backbone()},
            "datasets": DATASETS,
            "experiments": EXPERIMENTS,
            **values,
        }
        (folder / CONFIG).write_text(yaml.safe_dump(config))
        return folder

    def copy(self, folder: Path, work: Work) -> World:
        """A world of its own with what a folder holds."""
        self._made += 1
        target = self.scratch / f"world-{self._made:03d}"
        shutil.copytree(folder, target, symlinks=True, ignore=shutil.ignore_patterns("start-*"))
        return World(target, work, None if work.is_real else self.clock)


class Bench:
    """One kind of work: where it starts, and where it ends undisturbed."""

    def __init__(self, lab: Lab, folder: Path, work: Work) -> None:
        self._lab, self._folder, self.work = lab, folder, work
        self.has_clock = lab.clock is not None and not work.is_real
        self.finished = self._finish()

    def _finish(self) -> World:
        """Run undisturbed, and note how long each process lives."""
        world = self._lab.copy(self._folder, self.work)
        seen: dict[Role, list[float]] = {}

        class Watch(Fault):
            def strike(self, world, alive, now_s):
                for role in filter(None, alive.values()):
                    seen.setdefault(role, []).append(now_s)

        begin_s = time.monotonic()
        orphans = disturb(world, [Watch("nothing")])
        self.wall_s = time.monotonic() - begin_s
        said = (world.folder / "start-00.log").read_text()
        assert not orphans, orphans
        assert world.processes[0].returncode == 0, said
        self.spans = {role: times[-1] - times[0] for role, times in seen.items()}
        self.rows = world.rows()
        table = self.rows.get("compaction_requests", ())
        self.num_answers = len(table) + PROBE_ANSWERS
        return world

    def fresh(self) -> World:
        """Where nothing has been done yet."""
        return self._lab.copy(self._folder, self.work)

    def done(self) -> World:
        """Where everything has been done."""
        return self._lab.copy(self.finished.folder, self.work)


def disturb(world: World, faults: Sequence[Fault]) -> list[str]:
    """Run the work once while faults strike; what of it is still there when it should be gone."""
    for fault in faults:
        fault.prepare(world)
    process = world.start()
    begin_s = time.monotonic()
    while process.poll() is None:
        now_s, alive = time.monotonic() - begin_s, world.alive()
        for fault in faults:
            if not fault.has_struck:
                fault.strike(world, alive, now_s)
        if now_s > ATTEMPT_LIMIT_S:
            os.killpg(process.pid, signal.SIGKILL)
            world.wait_for_end()
            return [f"no end after {ATTEMPT_LIMIT_S} s"]
        time.sleep(POLL_S)
    left = world.wait_for_end()
    for fault in faults:
        fault.clear(world)
    return [f"orphan {pid}: {name[:200]}" for pid, name in left.items()]


def discard(world: World, places: Sequence[str]) -> None:
    """Take a world away, with its small disks."""
    unmount([world.folder / place for place in places])
    world.close()


def prepare_batch() -> None:
    """What Snakemake's first rules make, in this process: a start of each takes seconds."""
    pipeline = Pipeline([Path(CONFIG)], {})
    pipeline.begin_run()
    profile = pipeline.profile
    backbone = profile.backbones[BACKBONE]
    dataset = profile.datasets[DATASET]
    model = prepare_model(BACKBONE, backbone, MODEL.with_suffix(""))
    write_model(MODEL, model)
    count = Renderer(model.tokenizer_path).count_text
    documents = prepare_documents(DATASET, dataset, RUNS / "downloads")
    window = backbone.context_window_tokens
    sessions = build_sessions(
        documents, dataset.sessions, count, BACKBONE, window, window_tokens_of={BACKBONE: window}
    )
    write_model(SESSIONS, sessions)


def double_backbone() -> dict:
    """A backbone that the double serves in vLLM's place."""
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_layers": 1, "vocab_size": 512}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    return {
        "model": {"source": "random", "seed": 0, **shape, **heads},
        "architecture": "dense",
        "reasoning": False,
        "num_parameters": 1e5,
        "context_window_tokens": 8192,
        "engine": {"kind": "vllm", "startup_timeout_s": 60},
        "request": {"timeout_s": TIMEOUT_S},
        "caption": "a double of a server",
    }


def _snakemake(targets: Sequence[str]) -> Work:
    given = [*targets, "--configfile", CONFIG] if targets else ["--configfile", CONFIG]
    return Work(
        command=tuple(snakemake_command("--rerun-incomplete", *given)),
        unlock=(sys.executable, "-m", "blockwise.run.run_lock", "--configfile", CONFIG),
        results=str(RESULTS),
        family=Family.COMPACTION,
        repeated=ALIKE,
    )


def _python(module: str, values: dict) -> tuple[str, ...]:
    flags = [word for name, value in values.items() for word in (f"--{name}", str(value))]
    return (sys.executable, "-m", module, *flags)
