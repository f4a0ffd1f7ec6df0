"""What a GGUF file says of itself, and why one cannot be used.

Everything is asked before a weight is read, so that a refusal costs seconds.
"""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import gguf

from blockwise.errors import ArtifactError

MAGIC = b"GGUF"
ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma3")
"""Those whose tensors and settings `gguf_conversion` carries over completely."""

TOKENIZERS = {"gpt2": "byte-level BPE", "llama": "SentencePiece"}
PRE_TOKENIZERS = frozenset(
    {"default", "gpt-2", "smollm", "llama-bpe", "llama3", "llama-v3", "qwen2", "deepseek-r1-qwen"}
)
"""Rules by which byte-level vocabularies cut text before merging, as llama.cpp names them, that the
converted tokenizer follows. Under another rule the same text would become other tokens."""

ROPE_FACTORS = "rope_freqs.weight"
"""Llama 3.1 and later: factors of the rotary embedding, of which config.json would need the rule
that made them."""


class UnreadableGgufError(ArtifactError):
    """The file is no GGUF file that can be read."""


@dataclass(frozen=True)
class GgufFile:
    """A GGUF file, mapped into memory."""

    path: Path
    reader: Any  # gguf.GGUFReader

    def value(self, key: str) -> Any:
        """A value of the metadata; None where the file does not have it."""
        field = self.reader.get_field(key)
        return None if field is None else field.contents()

    def _text(self, key: str) -> str | None:
        value = self.value(key)
        return None if value is None else str(value)

    @property
    def architecture(self) -> str:
        """As llama.cpp names it."""
        return str(self.value("general.architecture"))

    @property
    def license(self) -> str | None:
        """Of the weights, where the file names it."""
        return self._text("general.license")

    @property
    def chat_template(self) -> str | None:
        """As the publisher wrote it."""
        return self._text("tokenizer.chat_template")

    @cached_property
    def tokens(self) -> list[str]:
        """The vocabulary, in order of ids."""
        return self.value("tokenizer.ggml.tokens") or []

    @property
    def format(self) -> str:
        """How most of its weights are quantized, e.g. Q4_K_M."""
        try:
            name = gguf.LlamaFileType(self.value("general.file_type")).name
        except ValueError:  # not said, or of a later version: what most weights are
            elements: Counter[str] = Counter()
            for tensor in self.reader.tensors:
                elements[tensor.tensor_type.name] += int(tensor.n_elements)
            name = elements.most_common(1)[0][0] if elements else "no weights"
        return name.removeprefix("MOSTLY_").removeprefix("ALL_")

    def refusals(self) -> list[str]:
        """Why it cannot be used, in words; nothing where it can."""
        if self.architecture not in ARCHITECTURES:
            known = ", ".join(ARCHITECTURES)
            return [f"its architecture is {self.architecture!r}, and {known} are converted"]
        return [*self._weight_refusals(), *self._text_refusals()]

    def _weight_refusals(self) -> list[str]:
        refusals = []
        unreadable = {
            tensor.tensor_type.name
            for tensor in self.reader.tensors
            if not _can_be_dequantized(tensor)
        }
        if unreadable:
            refusals.append(
                f"its weights are quantized as {', '.join(sorted(unreadable))}, which gguf "
                "cannot dequantize; take another quantization of the model"
            )
        scaling = self.value(f"{self.architecture}.rope.scaling.type")
        if scaling not in (None, "none") or any(
            tensor.name == ROPE_FACTORS for tensor in self.reader.tensors
        ):
            refusals.append(
                f"its rotary embedding is scaled ({scaling or ROPE_FACTORS}), which is not carried "
                "over; take the publisher's own files (`source: hub`)"
            )
        if not self.reader.tensors:
            refusals.append("it holds no weights; name the whole model's file")
        return refusals

    def _text_refusals(self) -> list[str]:
        refusals = []
        kind, rule = self.value("tokenizer.ggml.model"), self.value("tokenizer.ggml.pre")
        if not self.tokens or kind not in TOKENIZERS:
            known = " or ".join(TOKENIZERS)
            refusals.append(f"its tokenizer is {kind or 'missing'}, and {known} is converted")
        elif kind == "gpt2" and (rule or "default") not in PRE_TOKENIZERS:
            refusals.append(
                f"its tokenizer cuts text by the rule {rule!r}, and "
                f"{', '.join(sorted(PRE_TOKENIZERS))} are known"
            )
        if not self.chat_template:
            refusals.append("it has no chat template; take an instruction-tuned model")
        return refusals


def open_gguf(path: Path) -> GgufFile:
    """Read a file's metadata.

    Raises:
        UnreadableGgufError: it is no GGUF file, cut short, or of an unknown kind.
    """
    try:
        with path.open("rb") as stream:
            magic = stream.read(len(MAGIC))
        if magic != MAGIC:
            raise UnreadableGgufError(f"{path} is no GGUF file: it begins with {magic!r}")
        return GgufFile(path, gguf.GGUFReader(path))
    except UnreadableGgufError:
        raise
    except Exception as error:  # a reader of anybody's bytes: it raises dozens of types
        raise UnreadableGgufError(
            f"{path} cannot be read as GGUF ({type(error).__name__}: {error}): it is cut short or "
            "of a kind that gguf does not know; take another file of the model"
        ) from error


def _can_be_dequantized(tensor: Any) -> bool:
    try:
        gguf.dequantize(tensor.data[:1], tensor.tensor_type)
    except NotImplementedError:
        return False
    return True
