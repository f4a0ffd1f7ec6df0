"""From text to token ids: UTF-8 bytes, a vocabulary learned here, or a tokenizer of the hub.

Documents follow one another. Where the tokenizer has an end-of-document token, it stands after
each of them; no other special token is ever written, also where a text spells its name.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from blockwise.artifacts import digest
from blockwise.config.base import UNPINNED
from blockwise.config.corpora import BpeTokenizer, ByteTokenizer, HubTokenizer, Tokenizer
from blockwise.errors import ConfigError, DatasetError
from blockwise.mxfp4.texts import Piece, unpinned

NUM_BYTES = 256
END_OF_DOCUMENT = "<|end|>"  # the only special token of a learned vocabulary


class Encoder(NamedTuple):
    """A tokenizer that is ready: pieces of text in, ids in one row out."""

    name: str  # in words
    vocab_size: int
    encode: Callable[[Sequence[Piece]], NDArray[Any]]


def load_encoder(
    tokenizer: Tokenizer, training_texts: Callable[[], Iterable[str]] = tuple
) -> Encoder:
    """Load a configured tokenizer, or learn it.

    Args:
        tokenizer: its configuration.
        training_texts: gives the texts that a vocabulary is learned from.

    Raises:
        ConfigError: it cannot be loaded, is not a fast one, or its revision is unpinned.
        DatasetError: the texts are too few for the vocabulary.
    """
    match tokenizer:
        case ByteTokenizer():
            return Encoder("UTF-8 bytes", NUM_BYTES, _encode_bytes)
        case BpeTokenizer():
            return _learned_encoder(tokenizer, training_texts())
        case HubTokenizer():
            return _hub_encoder(tokenizer)


def vocabulary_size(tokenizer: Tokenizer) -> int:
    """Words of a configured tokenizer; a learned one need not be learned for it.

    Raises:
        ConfigError: as `load_encoder`.
    """
    if isinstance(tokenizer, BpeTokenizer):
        return tokenizer.vocab_size
    return load_encoder(tokenizer).vocab_size


def _encode_bytes(pieces: Sequence[Piece]) -> NDArray[Any]:
    return np.frombuffer("".join(piece.text for piece in pieces).encode(), np.uint8)


def _learned_encoder(settings: BpeTokenizer, texts: Iterable[str]) -> Encoder:
    """A byte-level BPE of exactly the asked size: the same texts give the same merges."""
    from tokenizers import (  # noqa: PLC0415  # bytes need none of it
        Tokenizer as Bpe,
    )
    from tokenizers import models, pre_tokenizers, trainers  # noqa: PLC0415

    tokenizer = Bpe(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocab_size,
        special_tokens=[END_OF_DOCUMENT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() != settings.vocab_size:
        raise DatasetError(
            f"the training text gives a vocabulary of {tokenizer.get_vocab_size()}, not of "
            f"{settings.vocab_size}; lower mxfp4.tokenizer.vocab_size or use more text"
        )
    tokenizer.encode_special_tokens = True  # the name of the special token in a text stays text
    end = [tokenizer.token_to_id(END_OF_DOCUMENT)]

    def encode(pieces: Sequence[Piece]) -> NDArray[Any]:
        encodings = tokenizer.encode_batch([piece.text for piece in pieces])
        rows = [
            encoding.ids + end if piece.ends_document else encoding.ids
            for encoding, piece in zip(encodings, pieces, strict=True)
        ]
        return np.concatenate([np.array(row, np.uint32) for row in rows])

    name = f"byte-level BPE of {settings.vocab_size}, learned (digest {digest(tokenizer.to_str())})"
    return Encoder(name, settings.vocab_size, encode)


def _hub_encoder(source: HubTokenizer) -> Encoder:
    from transformers import AutoTokenizer  # noqa: PLC0415  # seconds, and bytes need none of it

    is_folder = Path(source.id).is_dir()
    if source.revision == UNPINNED and not is_folder:
        raise ConfigError(unpinned("mxfp4.tokenizer", source.id))
    revision = None if is_folder else source.revision
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(source.id, revision=revision)
    except (OSError, ValueError) as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise ConfigError(
            f"cannot load the tokenizer {source.id}: {first_line}. Name a folder or hub id with "
            "tokenizer files (if it is gated, accept its licence and set HF_TOKEN; if the network "
            "failed, run the same command again), or use `tokenizer: {kind: bytes}`"
        ) from error
    if not tokenizer.is_fast:
        raise ConfigError(
            f"{source.id} has no fast tokenizer (tokenizer.json), which a corpus needs; name one "
            "that has, or use `tokenizer: {kind: bytes}`"
        )
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]

    def encode(pieces: Sequence[Piece]) -> NDArray[Any]:
        ids = tokenizer(
            [piece.text for piece in pieces],
            add_special_tokens=False,
            split_special_tokens=True,  # names of special tokens in a text stay text
            return_attention_mask=False,
            verbose=False,  # it would warn of texts longer than the model's window
        )["input_ids"]
        rows = [
            row + end if piece.ends_document else row
            for row, piece in zip(ids, pieces, strict=True)
        ]
        return np.concatenate([np.array(row, np.uint32) for row in rows])

    content = digest(tokenizer.backend_tokenizer.to_str())
    name = (
        f"{Path(source.id).name} (digest {content})" if is_folder else f"{source.id} at {revision}"
    )
    return Encoder(name, max(tokenizer.get_vocab().values()) + 1, encode)
