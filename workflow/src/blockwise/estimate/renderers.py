"""The renderer of a backbone where its tokenizer is on this machine, or an assumed one.

Nothing is downloaded for an estimate. A random backbone's tokenizer is made (half a second); a
model of the hub counts only if an earlier run left it in the hub's own cache.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from blockwise.config.backbones import Backbone, HubModel, PathModel, PocketModel, RandomModel
from blockwise.config.base import UNPINNED
from blockwise.errors import ConfigError
from blockwise.serving.hub_model import TOKENIZER_PATTERNS
from blockwise.serving.models import TOKENIZER_FILES
from blockwise.serving.renderer import Message, Renderer

CHARS_PER_TOKEN = 4
"""English prose in the vocabularies of Llama 3 and gpt-oss takes 4 to 5 characters a token."""
TOKENS_PER_MESSAGE = 5
"""Llama 3's header and end of turn; gpt-oss's channels come to about as many."""


class AssumedRenderer(Renderer):
    """Counts by length where the tokenizer is not here: four characters are a token."""

    def __init__(self) -> None:
        """Load nothing."""

    def count(self, messages: Sequence[Message], add_generation_prompt: bool) -> int:
        """Tokens of a conversation, template included."""
        texts = sum(self.count_text(message["content"]) for message in messages)
        return texts + TOKENS_PER_MESSAGE * (len(messages) + add_generation_prompt)

    def ends(self, messages: Sequence[Message]) -> list[int]:
        """`count` of every prefix."""
        ends, total = [], 0
        for message in messages:
            total += self.count([message], add_generation_prompt=False)
            ends.append(total)
        return ends

    def count_text(self, text: str) -> int:
        """Tokens of a bare text."""
        return len(self.token_offsets(text))

    # No list: 64 bystanders would each make one of 120k pairs.
    def token_offsets(self, text: str) -> Sequence[tuple[int, int]]:  # type: ignore[override]
        """Characters of each token, worked out when they are asked for."""
        return _EvenOffsets(len(text))


class _EvenOffsets(Sequence[tuple[int, int]]):
    """Offsets of tokens that all have the same length, but perhaps the last."""

    def __init__(self, num_chars: int) -> None:
        self._num_chars = num_chars

    def __len__(self) -> int:
        return (self._num_chars + CHARS_PER_TOKEN - 1) // CHARS_PER_TOKEN

    def __getitem__(self, index: Any) -> Any:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        start = index % len(self) * CHARS_PER_TOKEN
        return start, min(start + CHARS_PER_TOKEN, self._num_chars)


class Renderers:
    """Renderers by backbone, each tokenizer loaded once."""

    def __init__(self) -> None:
        self._assumed = AssumedRenderer()
        self._trained: dict[int, Renderer] = {}

    def of(self, backbone: Backbone) -> Renderer:
        """The backbone's own renderer, or the assumed one."""
        if isinstance(backbone.model, RandomModel):
            return self._of_random(backbone.model)
        folder = model_folder(backbone)
        if folder is None:
            return self._assumed
        try:
            return Renderer(str(folder), backbone.request.chat_template_arguments)
        except ConfigError:  # half a download; the run itself will say what is missing
            return self._assumed

    def _of_random(self, recipe: RandomModel) -> Renderer:
        if recipe.vocab_size not in self._trained:
            # Imported here: it needs torch, which takes seconds to load.
            from blockwise.serving.random_backbone import train_tokenizer  # noqa: PLC0415

            with tempfile.TemporaryDirectory() as folder:
                train_tokenizer(recipe.vocab_size).save_pretrained(folder)
                self._trained[recipe.vocab_size] = Renderer(folder)
        return self._trained[recipe.vocab_size]


def model_folder(backbone: Backbone) -> Path | None:
    """Where a backbone's tokenizer files lie on this machine, if they do."""
    match backbone.model:
        case PathModel() | PocketModel() as source:
            folder = source.folder
        case HubModel() as source:
            found = _cached_snapshot(source)
            if found is None:
                return None
            folder = found
        case _:
            return None
    return folder if any((folder / name).is_file() for name in TOKENIZER_FILES) else None


def _cached_snapshot(source: HubModel) -> Path | None:
    # Imported here: the other sources need no hub client.
    import huggingface_hub  # noqa: PLC0415
    from huggingface_hub.errors import LocalEntryNotFoundError  # noqa: PLC0415

    try:
        folder = huggingface_hub.snapshot_download(
            source.id,
            revision=None if source.revision == UNPINNED else source.revision,
            allow_patterns=TOKENIZER_PATTERNS,
            local_files_only=True,
        )
    except (LocalEntryNotFoundError, OSError, ValueError):
        return None
    return Path(folder)


def is_assumed(renderer: Renderer) -> bool:
    """Whether a renderer is only assumed."""
    return isinstance(renderer, AssumedRenderer)
