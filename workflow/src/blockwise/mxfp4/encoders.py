"""From text to token ids: UTF-8 bytes, which need no file, or a tokenizer of the hub.

Documents follow one another. Where the tokenizer has an end-of-document token, it stands after
each of them; no other special token is ever written, also where a text spells its name.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from blockwise.artifacts import digest
from blockwise.config.base import UNPINNED
from blockwise.config.mxfp4 import ByteTokenizer, HubTokenizer, Tokenizer
from blockwise.errors import ConfigError
from blockwise.mxfp4.texts import Piece, unpinned

NUM_BYTES = 256


class Encoder(NamedTuple):
    """A tokenizer that is ready: pieces of text in, ids in one row out."""

    name: str  # in words
    vocab_size: int
    encode: Callable[[Sequence[Piece]], NDArray[Any]]


def load_encoder(tokenizer: Tokenizer) -> Encoder:
    """Load a configured tokenizer.

    Raises:
        ConfigError: it cannot be loaded, is not a fast one, or its revision is unpinned.
    """
    match tokenizer:
        case ByteTokenizer():
            return Encoder("UTF-8 bytes", NUM_BYTES, _encode_bytes)
        case HubTokenizer():
            return _hub_encoder(tokenizer)


def _encode_bytes(pieces: Sequence[Piece]) -> NDArray[Any]:
    return np.frombuffer("".join(piece.text for piece in pieces).encode(), np.uint8)


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
