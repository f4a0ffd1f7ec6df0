"""The training job: runs of one experiment, one after the other.

    python -m blockwise.mxfp4.train_arm --config ... --experiment ... --seeds ... --corpus ...

Finished runs come from the cell store and are never trained again; an unfinished one continues
from its checkpoint. With several processes this runs under torchrun, and the first writes.
"""

import argparse
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

from blockwise.artifacts import load_sealed, read_sealed, write_model, write_sealed
from blockwise.config.mxfp4 import MXFP4, Training, TrainingExperiment
from blockwise.config.recipes import Recipe
from blockwise.errors import run_command
from blockwise.mxfp4 import distributed
from blockwise.mxfp4.corpus import CorpusCard, TokenCorpus
from blockwise.mxfp4.records import RunSpec, TrainingBatch, TrainingRun, record_path, run_path
from blockwise.mxfp4.selection import experiment_of, study_of
from blockwise.mxfp4.trainers import STEPS, load_trainer
from blockwise.progress import WorkProgress
from blockwise.provenance import code_digest
from blockwise.timed import lock_path, stand_aside


def run_spec(
    study: MXFP4, training: Training, recipe: Recipe, seed: int, card: CorpusCard
) -> RunSpec:
    """Everything that can change one run."""
    return RunSpec(
        model=study.model,
        vocab_size=card.vocab_size,
        corpus_digest=card.digest,
        tokenizer=card.tokenizer,
        optimizer=study.optimizer,
        training=training,
        recipe=recipe,
        converted=study.converted,
        backend=study.backend,
        device=study.device,
        num_processes=study.num_processes,
        activation_checkpointing=study.activation_checkpointing,
        seed=seed,
        trainer=load_trainer(study.trainer).trainer_name(),
        code_digest=code_digest(STEPS[study.trainer]),
        torch_version=torch.__version__,
    )


class TrainingJob:
    """Trains the runs that are missing.

    Args:
        study: the whole study.
        corpus: its text.
        store: the cell store.
        checkpoints: folder of unfinished runs.
        records: folder that finished runs are kept in too, and taken from; None: there is none.
    """

    def __init__(
        self,
        study: MXFP4,
        corpus: TokenCorpus,
        store: Path,
        checkpoints: Path,
        *,
        records: Path | None = None,
    ) -> None:
        self._study, self._corpus = study, corpus
        self._store, self._checkpoints, self._records = store, checkpoints, records

    def run(self, title: str, specs: Sequence[tuple[str, RunSpec]]) -> dict[str, dict[int, str]]:
        """Train what is missing, by arm; keys by arm and seed."""
        keyed = [(arm, spec, spec.key) for arm, spec in specs]
        finished = distributed.of_first(lambda: {key for *_, key in keyed if self._has(key)})
        missing = [one for one in keyed if one[-1] not in finished]
        keys: dict[str, dict[int, str]] = {}
        for arm, spec, key in keyed:
            keys.setdefault(arm, {})[spec.seed] = key
        total = sum(spec.training.num_steps for _, spec in specs)
        left = sum(spec.training.num_steps for _, spec, _ in missing)
        with _progress(title, total, total - left) as progress:
            for arm, spec, key in missing:
                self._train(arm, spec, key, progress)
        return keys

    def _has(self, key: str) -> bool:
        """Whether a run is in the store, or in the kept records, from where the store gets it."""
        run = load_sealed(run_path(self._store, key), TrainingRun, print)
        if self._records is None:
            return run is not None
        kept = record_path(self._records, key)
        if run is not None:
            if not kept.exists():
                write_sealed(kept, run)
            return True
        if not kept.exists():
            return False
        write_sealed(run_path(self._store, key), read_sealed(kept, TrainingRun))
        return True

    def _train(self, arm: str, spec: RunSpec, key: str, progress: WorkProgress | None) -> None:
        checkpoint = self._checkpoints / spec.checkpoint_key
        steps = 0

        def report(num_tokens: int, loss: float) -> None:
            nonlocal steps
            steps += 1
            if self._study.priority == "idle":
                stand_aside(lock_path())
            if progress is not None:
                progress.advance(num_tokens, state=f"{arm}: loss {loss:.3f}")

        train = load_trainer(self._study.trainer).train_function(self._study.device)
        run = train(spec, self._corpus, checkpoint, is_compiled=self._study.compiled, report=report)
        if distributed.rank() == 0:
            write_sealed(run_path(self._store, key), run)
            if self._records is not None:
                write_sealed(record_path(self._records, key), run)
            shutil.rmtree(checkpoint, ignore_errors=True)
        if progress is not None:
            progress.advance(0, pieces=spec.training.num_steps - steps)  # diverged, or resumed
            ending = run.divergence or f"validation loss {run.evaluations[-1].quantized_loss:.4f}"
            progress.say(f"{arm}, seed {spec.seed}: {run.status}, {ending}")


def _progress(title: str, total: int, done: int) -> AbstractContextManager[WorkProgress | None]:
    """One line of progress, however many processes train."""
    if distributed.rank() != 0:
        return nullcontext()
    return WorkProgress(title, total, done, unit="steps")


def main() -> None:
    """Command line: names of the experiment, seed and arms, and paths."""
    parser = argparse.ArgumentParser(
        prog="python -m blockwise.mxfp4.train_arm", description=__doc__
    )
    parser.add_argument("--config", type=Path, required=True, help="resolved profile")
    parser.add_argument("--experiment", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("--arm", help="only this one; default: all arms of the experiment")
    parser.add_argument("--corpus", type=Path, required=True, help="folder of the token files")
    parser.add_argument("--store", type=Path, required=True, help="folder of the cell store")
    parser.add_argument("--checkpoints", type=Path, required=True)
    parser.add_argument("--records", type=Path, help="folder that keeps finished runs too")
    parser.add_argument("--threads", type=int, required=True, help="of one process")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    whole_study = study_of(arguments.config)
    experiment = experiment_of(whole_study, arguments.experiment, TrainingExperiment)
    study = whole_study.trained_in(experiment)
    corpus = TokenCorpus.open(arguments.corpus)
    arms = [arguments.arm] if arguments.arm else experiment.all_arms()
    specs = [
        (arm, run_spec(study, experiment.training, study.arms[arm], seed, corpus.card))
        for seed in arguments.seeds
        for arm in arms
    ]
    with distributed.process_group(study.device):
        distributed.check_num_processes(study.num_processes)
        job = TrainingJob(
            study, corpus, arguments.store, arguments.checkpoints, records=arguments.records
        )
        keys = job.run(arguments.experiment, specs)
        if distributed.rank() == 0:
            batch = TrainingBatch(experiment=arguments.experiment, runs=keys)
            write_model(arguments.output, batch)


if __name__ == "__main__":
    run_command(main)
