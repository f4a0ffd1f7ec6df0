"""What a prepared corpus of bytes holds, as text again."""

from pathlib import Path

import numpy as np

from blockwise.config.corpora import ByteTokenizer
from blockwise.mxfp4.corpus import TokenCorpus

BYTES = ByteTokenizer(kind="bytes")


def texts_of(folder: Path) -> list[str]:
    """Train and validation text."""
    corpus = TokenCorpus.open(folder)
    return [bytes(split.astype(np.uint8)).decode() for split in (corpus.train, corpus.validation)]
