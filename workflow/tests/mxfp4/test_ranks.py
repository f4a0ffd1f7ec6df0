"""torchrun and FSDP2: two processes take the steps of one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from blockwise.config.recipes import Recipe

FOLDER = Path(__file__).parent
RECIPE = Recipe(fprop={}, dgrad={}, wgrad={"rotation": {"kind": "dht"}})


def losses(num_processes: int, recipe: Recipe, checkpoint: Path) -> list[float]:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={num_processes}",
        str(FOLDER / "ranks.py"),
        recipe.model_dump_json(),
        str(checkpoint),
    ]
    environment = {**os.environ, "PYTHONPATH": str(FOLDER), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_two_ranks_agree_with_one(tmp_path):
    one = losses(1, RECIPE, tmp_path / "one.pt")
    two = losses(2, RECIPE, tmp_path / "two.pt")
    assert len(one) == 12
    assert two == pytest.approx(one, abs=1e-5)
