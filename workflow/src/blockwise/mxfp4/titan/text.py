"""The prepared corpus as a data loader of torchtitan.

Batches are those of our own trainer: a pure function of seed and step, shared by sequences. So
the state is the step, and any number of processes goes on where another number stopped.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor
from torchtitan.components.dataloader import BaseDataLoader
from torchtitan.components.tokenizer import BaseTokenizer

from blockwise.config.mxfp4 import Training
from blockwise.mxfp4.corpus import TokenCorpus

Batch = tuple[dict[str, Tensor], Tensor]


class CorpusLoader(BaseDataLoader):
    """One process's part of each batch: what is read, and what is to be predicted."""

    @dataclass(kw_only=True, slots=True)
    class Config(BaseDataLoader.Config):
        """Which text; torchtitan copies and prints configs, so the corpus stands behind a call."""

        corpus: Callable[[], TokenCorpus]
        split: Literal["train", "validation"]
        training: Training
        seed: int
        infinite: bool = True  # torchtitan's validator sets it

    def __init__(
        self,
        config: Config,
        *,
        dp_world_size: int,
        dp_rank: int,
        seq_len: int,
        local_batch_size: int,
        **_: Any,
    ) -> None:
        self._config, self._step = config, 0
        self._num_parts, self._part = dp_world_size, dp_rank
        self._sequence_tokens, self._num_sequences = seq_len, local_batch_size

    def __iter__(self) -> Iterator[Batch]:
        windows = self._train() if self._config.split == "train" else self._validation()
        for sequences in windows:
            yield {"input": sequences[:, :-1]}, sequences[:, 1:]

    def _train(self) -> Iterator[Tensor]:
        training = self._config.training
        while True:
            batch = self._config.corpus().train_batch(
                self._step,
                self._config.seed,
                training.batch_sequences,
                self._sequence_tokens,
                training.num_repeated_batches,
            )
            self._step += 1
            yield batch.chunk(self._num_parts)[self._part]

    def _validation(self) -> Iterator[Tensor]:
        sequences = self._config.corpus().validation_batch(
            self._config.training.evaluation_sequences, self._sequence_tokens
        )
        yield from sequences[self._part :: self._num_parts].split(self._num_sequences)

    def state_dict(self) -> dict[str, Any]:
        """Batches that were read."""
        return {"step": self._step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on after so many."""
        self._step = int(state_dict["step"])


class NoTokenizer(BaseTokenizer):
    """The corpus was tokenized when it was prepared."""

    @dataclass(kw_only=True, slots=True)
    class Config(BaseTokenizer.Config):
        """How many words there are."""

        vocab_size: int

    def __init__(self, config: Config, **_: Any) -> None:
        super().__init__()
        self._vocab_size = config.vocab_size

    def encode(self, *_: Any, **__: Any) -> list[int]:
        """Nobody asks."""
        raise NotImplementedError("the corpus holds tokens")

    def decode(self, *_: Any, **__: Any) -> str:
        """Nobody asks."""
        raise NotImplementedError("the corpus holds tokens")

    def get_vocab_size(self) -> int:
        """Words of the corpus."""
        return self._vocab_size
