"""A model that is ready to be served: where its files are, and the digest that stands for them."""

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict

SHORT_DIGEST_CHARS = 12  # as captions show it


class GreedyTokens(BaseModel):
    """What the prepared weights answer to a fixed prompt, on transformers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    system: str
    prompt: str
    dtype: str  # computed in
    token_ids: tuple[int, ...]


class GgufProof(BaseModel):
    """What was held against the GGUF file after the conversion.

    The chat template is the file's byte for byte, and so is every token but the respelled.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_vocabulary_tokens: int
    num_respelled_tokens: int  # SentencePiece: tokens of blanks alone, spelled with its mark
    greedy: GreedyTokens


class GgufOrigin(BaseModel):
    """The published file whose weights were dequantized."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    sha256: str
    num_bytes: int
    origin: str  # where its bytes came from, in words
    architecture: str
    format: str  # how its weights are quantized, e.g. Q4_K_M
    license: str | None  # None: the file does not name one
    proof: GgufProof

    @property
    def words(self) -> str:
        """The model by name, format and digest."""
        stem = self.file.removesuffix(".gguf")
        name = re.sub(rf"[._-]{re.escape(self.format)}$", "", stem, flags=re.IGNORECASE)
        return f"{name}, {self.format} dequantized, sha256 {self.sha256[:SHORT_DIGEST_CHARS]}"


class PreparedModel(BaseModel):
    """What `blockwise.models.prepare` writes and every batch job reads."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[2] = 2
    backbone: str
    source: str  # random | pocket | path | hub | gguf
    path: str  # what the server loads: a folder or a hub id
    revision: str | None  # hub: the commit
    tokenizer_path: str  # a local folder, whatever the source
    digest: str  # of the files; hub: id@commit
    num_parameters: int | None  # None: not counted (path and hub)
    gguf: GgufOrigin | None = None  # the file it was made of

    @property
    def words(self) -> str:
        """The model as tables name it: a published one by name, format and digest."""
        if self.gguf is not None:
            return self.gguf.words
        if self.source == "hub":
            return self.digest
        return f"{self.source} model, digest {self.digest[:SHORT_DIGEST_CHARS]}"
