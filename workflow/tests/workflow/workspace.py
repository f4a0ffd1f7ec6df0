"""A copy of the workflow in a folder of its own, and ways to run it there."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

SMALL_DATASETS = {
    "hotpotqa": {
        "format": "hotpotqa",
        "source": {"kind": "synthetic", "num_rows": 12, "sentences_per_paragraph": 3},
        "sessions": {"num_sessions": 1, "target_tokens": 3000},
    },
    "locomo": {
        "format": "locomo",
        "source": {"kind": "synthetic", "num_rows": 2, "chat_sessions_per_row": 8},
        "sessions": {"num_sessions": 1, "target_tokens": 3000, "max_questions_per_document": 1},
    },
}
SMALL_MXFP4 = {
    "caption": "tiny",
    "compiled": False,
    "jobs": "per_seed",
    "model": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_layers": 1,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "sequence_tokens": 32,
    },
    "corpus": {"kind": "stdlib"},
    "optimizer": {"learning_rate": 3e-3, "warmup_steps": 3},
}
SMALL_TIMING = {
    "study": "compaction_end_to_end",
    "tau_tokens": [2400],
    "block_sizes_tokens": [512],
    "volume": {"mode": "forced", "total_tokens": 64},
    "answer_tokens": 4,
}


def copy_workflow(project_folder: Path, target: Path) -> Path:
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy(project_folder / "Snakefile", target)
    shutil.copytree(project_folder / "config", target / "config")
    for part in ("rules", "report"):
        shutil.copytree(project_folder / "workflow" / part, target / "workflow" / part)
    return target


def write_config(folder: Path, backbones, datasets=None, experiments=None) -> str:
    content = {
        "profile": "small",
        "backbones": backbones,
        "datasets": datasets or SMALL_DATASETS,
        "experiments": experiments or {"compaction_end_to_end": SMALL_TIMING},
    }
    (folder / "config" / "small.yaml").write_text(yaml.safe_dump(content))
    return "config/small.yaml"


def snakemake_command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]


def run_snakemake(folder: Path, *arguments: str, timeout_s: float = 560) -> tuple[int, str]:
    done = subprocess.run(
        snakemake_command(*arguments),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=timeout_s,
        env={**os.environ, "COLUMNS": "200"},
    )
    return done.returncode, done.stdout


def stored_units(folder: Path) -> dict[str, bytes]:
    cells = folder / "results" / "small" / "cells"
    return {
        str(path.relative_to(cells)): path.read_bytes()
        for kind in ("cells", "timing_blocks")
        for path in sorted((cells / kind).rglob("*.json"))
    }
