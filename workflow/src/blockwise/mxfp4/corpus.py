"""The corpus: two files of tokens, and batches that are a pure function of seed and step.

Text becomes `train.bin` and `validation.bin`, plain arrays of integers, and a card with their
digests that is written last: where there is a card, the files are complete. Every arm of a seed
reads the same text at the same step because offsets are drawn from a counter, not from a
generator that someone has to carry along; a resumed run goes on with the text that it would have
seen. No text is read twice to be counted and no corpus is held in memory: pieces go in, arrays go
out, and batches are cut from mapped files.

`python -m blockwise.mxfp4.corpus --config PROFILE.json --cache DIR --output-dir DIR`
"""

import argparse
import hashlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from blockwise.artifacts import digest, digest_file, read_model, replacing, write_model
from blockwise.config.corpora import Corpus, Tokenizer
from blockwise.config.profile import Profile
from blockwise.errors import ArtifactError, ConfigError, DatasetError, run_command
from blockwise.mxfp4.encoders import Encoder, load_encoder
from blockwise.mxfp4.records import SCHEMA_VERSION, Record
from blockwise.mxfp4.texts import Piece, Text, open_source
from blockwise.progress import WorkProgress

CARD_FILE, TRAIN_FILE, VALIDATION_FILE = "corpus.json", "train.bin", "validation.bin"
STORED_TYPES: Mapping[str, np.dtype[Any]] = {"uint16": np.dtype("<u2"), "uint32": np.dtype("<u4")}
"""Numbers of the files: little-endian, so that they mean the same on every machine."""
GROUP_CHARS = 1 << 22  # tokenized at once: some 10 MB of Python integers, work for all threads


class CorpusCard(Record):
    """What a corpus is made of."""

    schema_version: Literal[1] = SCHEMA_VERSION
    source: str  # in words
    tokenizer: str  # in words
    vocab_size: int
    dtype: Literal["uint16", "uint32"]  # of the files, little-endian
    num_train_tokens: int
    num_validation_tokens: int
    train_sha256: str
    validation_sha256: str

    @property
    def digest(self) -> str:
        """Stands for the tokens of both files."""
        return digest([self.dtype, self.train_sha256, self.validation_sha256])


@dataclass(frozen=True)
class TokenCorpus:
    """A prepared corpus, its token files mapped into memory."""

    card: CorpusCard
    train: NDArray[Any]
    validation: NDArray[Any]

    @classmethod
    def open(cls, folder: Path) -> "TokenCorpus":
        """Open what `prepare_corpus` wrote.

        Raises:
            ArtifactError: a file is missing or is not the one that the card describes.
        """
        card = read_model(folder / CARD_FILE, CorpusCard)
        stored = STORED_TYPES[card.dtype]
        train, validation = folder / TRAIN_FILE, folder / VALIDATION_FILE
        return cls(
            card,
            _mapped(train, stored, card.num_train_tokens, card.train_sha256),
            _mapped(validation, stored, card.num_validation_tokens, card.validation_sha256),
        )

    def train_batch(
        self,
        step: int,
        seed: int,
        num_sequences: int,
        sequence_tokens: int,
        num_repeated: int | None = None,
    ) -> Tensor:
        """Windows of the training text at random offsets: a pure function of the arguments.

        Args:
            step: counted from 0.
            seed: not negative; another seed, other offsets.
            num_sequences: windows of the batch.
            sequence_tokens: tokens that are predicted in each.
            num_repeated: cycle over the batches of so many first steps; None: always new ones.

        Returns:
            int64 of shape [num_sequences, sequence_tokens + 1].

        Raises:
            DatasetError: the corpus is too small.
        """
        self._check_size("train", self.train, num_sequences, sequence_tokens)
        drawn_step = step if num_repeated is None else step % num_repeated
        # Raw output of a counter-based generator: NumPy promises that it never changes.
        draws = np.random.Philox(np.random.SeedSequence((seed, drawn_step)))
        num_starts = self.train.size - sequence_tokens
        starts = draws.random_raw(num_sequences) % np.uint64(num_starts)
        return _windows(self.train, starts.astype(np.int64), sequence_tokens)

    def validation_batch(self, num_sequences: int, sequence_tokens: int) -> Tensor:
        """Evenly spaced windows of the validation text, the same in every call.

        No token is predicted twice.

        Returns:
            int64 of shape [num_sequences, sequence_tokens + 1].

        Raises:
            DatasetError: the corpus is too small.
        """
        self._check_size("validation", self.validation, num_sequences, sequence_tokens)
        last_start = self.validation.size - sequence_tokens - 1
        starts = np.arange(num_sequences) * last_start // max(num_sequences - 1, 1)
        return _windows(self.validation, starts, sequence_tokens)

    def _check_size(
        self, split: str, tokens: NDArray[Any], num_sequences: int, sequence_tokens: int
    ) -> None:
        needed = num_sequences * sequence_tokens + 1
        if tokens.size < needed:
            raise DatasetError(
                f"the {split} text of {self.card.source} has {tokens.size} tokens, and a batch of "
                f"{num_sequences} sequences of {sequence_tokens} needs {needed}; use a larger "
                "corpus, or fewer or shorter sequences"
            )


def prepare_corpus(
    corpus: Corpus, tokenizer: Tokenizer, output_folder: Path, cache: Path
) -> CorpusCard:
    """Tokenize a corpus into a folder.

    Args:
        corpus: where the text comes from.
        tokenizer: what makes it tokens.
        output_folder: gets the two token files and, last, their card.
        cache: where `datasets` keeps its files.

    Raises:
        DatasetError: the text is missing, unreadable or empty.
        ConfigError: a revision is unpinned, or the tokenizer cannot be loaded.
        ArtifactError: the files cannot be written.
    """
    encoder = load_encoder(
        tokenizer, lambda: (piece.text for piece in open_source(corpus, cache).train.pieces)
    )
    source = open_source(corpus, cache)
    dtype: Literal["uint16", "uint32"] = "uint16" if encoder.vocab_size <= 1 << 16 else "uint32"
    written = {}
    for file, text in ((VALIDATION_FILE, source.validation), (TRAIN_FILE, source.train)):
        num_tokens, sha256 = _write_tokens(output_folder / file, text, encoder, STORED_TYPES[dtype])
        if not num_tokens:
            raise DatasetError(
                f"{file} of {source.name} would hold 0 tokens; name text that has some"
            )
        written[file] = (num_tokens, sha256)
    card = CorpusCard(
        source=source.name,
        tokenizer=encoder.name,
        vocab_size=encoder.vocab_size,
        dtype=dtype,
        num_train_tokens=written[TRAIN_FILE][0],
        num_validation_tokens=written[VALIDATION_FILE][0],
        train_sha256=written[TRAIN_FILE][1],
        validation_sha256=written[VALIDATION_FILE][1],
    )
    write_model(output_folder / CARD_FILE, card)
    return card


def _write_tokens(
    path: Path, text: Text, encoder: Encoder, stored: np.dtype[Any]
) -> tuple[int, str]:
    """Write the tokens of a split; return their number and the file's sha256."""
    num_tokens, sha256 = 0, hashlib.sha256()
    with (
        replacing(path) as stream,
        WorkProgress(f"corpus, {path.stem}", text.total, unit=text.unit) as progress,
    ):
        for group in _groups(text.pieces):
            tokens = encoder.encode(group)
            if text.unit == "tokens":
                tokens = tokens[: text.total - num_tokens]
            data = tokens.astype(stored).tobytes()
            stream.write(data)
            sha256.update(data)
            num_tokens += tokens.size
            num_documents = sum(piece.ends_document for piece in group)
            num_done = tokens.size if text.unit == "tokens" else num_documents
            progress.advance(tokens.size, pieces=num_done)
            if text.unit == "tokens" and num_tokens == text.total:
                break
    return num_tokens, sha256.hexdigest()


def _groups(pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
    group: list[Piece] = []
    num_chars = 0
    for piece in pieces:
        group.append(piece)
        num_chars += len(piece.text)
        if num_chars >= GROUP_CHARS:
            yield group
            group, num_chars = [], 0
    if group:
        yield group


def _mapped(path: Path, stored: np.dtype[Any], num_tokens: int, sha256: str) -> NDArray[Any]:
    expected_bytes = num_tokens * stored.itemsize
    try:
        num_bytes = path.stat().st_size
        found = digest_file(path) if num_bytes == expected_bytes else None
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}; prepare it again") from error
    if found != sha256:
        wrong = f"{num_bytes} bytes, not {expected_bytes}" if found is None else "another digest"
        raise ArtifactError(
            f"{path} has {wrong}, so it is not the file that {CARD_FILE} describes; delete the "
            "folder and prepare the corpus again"
        )
    return np.memmap(path, stored, mode="r")


def _windows(tokens: NDArray[Any], starts: NDArray[np.int64], sequence_tokens: int) -> Tensor:
    positions = starts[:, None] + np.arange(sequence_tokens + 1)
    return torch.from_numpy(tokens[positions].astype(np.int64))


def main() -> None:
    """Command line: prepare the corpus of a profile."""
    parser = argparse.ArgumentParser(description="Tokenize the training study's corpus.")
    parser.add_argument("--config", type=Path, required=True, help="resolved profile, JSON")
    parser.add_argument("--cache", type=Path, required=True, help="where `datasets` keeps files")
    parser.add_argument("--output-dir", type=Path, required=True)
    arguments = parser.parse_args()
    profile = read_model(arguments.config, Profile)
    if profile.mxfp4 is None:
        raise ConfigError(f"profile {profile.profile} has no mxfp4 study; add the key `mxfp4`")
    card = prepare_corpus(
        profile.mxfp4.corpus, profile.mxfp4.tokenizer, arguments.output_dir, arguments.cache
    )
    print(
        f"{card.source}: {card.num_train_tokens} tokens to train on, "
        f"{card.num_validation_tokens} to validate, of {card.tokenizer}",
        file=sys.stderr,
    )


if __name__ == "__main__":
    run_command(main)
