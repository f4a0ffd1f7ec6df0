"""torchrun and FSDP2: two processes take the steps of one, and go on from where it stopped."""

import os
import subprocess
import sys
from pathlib import Path

import pydantic
import pytest
from ranks import kill, trained

from blockwise.errors import ConfigError
from blockwise.mxfp4 import distributed
from blockwise.mxfp4.records import TrainingRun

FOLDER = Path(__file__).parent
RUNS = pydantic.TypeAdapter(dict[str, TrainingRun])


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """Folders of checkpoints: `of-one` is begun here, `of-two` by two processes."""
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def of_two(work) -> dict[str, TrainingRun]:
    """The runs of two processes, one of which continues what one process began."""
    kill(work / "of-one")
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(FOLDER)])}
    done = subprocess.run(
        [sys.executable, *launch, str(FOLDER / "ranks.py"), str(work)],
        capture_output=True,
        text=True,
        timeout=280,
        env={**environment, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return RUNS.validate_json(done.stdout.strip().splitlines()[-1])


@pytest.fixture(scope="module")
def of_one(tmp_path_factory) -> TrainingRun:
    return trained(tmp_path_factory.mktemp("one"))


def assert_equal(run: TrainingRun, other: TrainingRun) -> None:
    assert len(run.train_losses) == 8
    assert run.train_losses == pytest.approx(other.train_losses, abs=1e-5)
    assert run.gradient_norms == pytest.approx(other.gradient_norms, abs=1e-4)
    for one, two in zip(run.evaluations, other.evaluations, strict=True):
        assert one.unquantized_loss == pytest.approx(two.unquantized_loss, abs=1e-5)
        # A last bit may move a value to its FP4 neighbour, which shows in so few tokens.
        assert one.quantized_loss == pytest.approx(two.quantized_loss, abs=5e-4)


@pytest.mark.parametrize("name", ["whole", "recomputed"])
def test_two_ranks_agree_with_one(of_one, of_two, name):
    assert_equal(of_two[name], of_one)


def test_two_ranks_continue_what_one_began(of_one, of_two):
    assert_equal(of_two["continued"], of_one)
    assert of_two["continued"].process_counts == [1, 2]
    assert of_two["continued"].num_resumes == 1


def test_one_rank_continues_what_two_began(work, of_one, of_two):
    continued = trained(work / "of-two")
    assert_equal(continued, of_one)
    assert continued.process_counts == [2, 1]


def test_a_run_of_fewer_processes_than_configured_is_refused():
    with pytest.raises(ConfigError, match=r"1 processes.*num_processes is 8.*--nproc-per-node"):
        distributed.check_num_processes(8)
