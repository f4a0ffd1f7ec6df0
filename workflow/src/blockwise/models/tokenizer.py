"""Loads a tokenizer; only where one has to be chosen, by transformers' automatic classes.

Importing `AutoTokenizer` brings torch, scikit-learn and the generation code along: six seconds of
CPU in every job that counts tokens. A folder whose own files name the class leaves nothing to
choose, and that class alone is imported in a second. The result is the same (a test compares).
"""

import importlib
import json
from pathlib import Path
from typing import Any

GENERIC_CLASSES = frozenset({"TokenizersBackend", "PreTrainedTokenizerFast"})
"""The class that reads tokenizer.json as it stands; transformers 5 and 4 name it so."""
BELIEVED_CLASSES = {
    "llama": GENERIC_CLASSES,
    "gpt_oss": GENERIC_CLASSES,
    "qwen2": frozenset({"Qwen2Tokenizer", "Qwen2TokenizerFast"}),
    "qwen3": frozenset({"Qwen2Tokenizer", "Qwen2TokenizerFast"}),
}
"""By model type, the classes that its files may name and that are then taken. For some other types
and names, transformers knows a better class."""


def load_tokenizer(path: str, revision: str | None = None) -> Any:
    """Load the tokenizer that `AutoTokenizer` would.

    Args:
        path: a local folder (nothing is fetched) or a hub id.
        revision: commit of a hub id.

    Raises:
        OSError, ValueError: transformers' own, where there is none.
    """
    named = _believed_class(Path(path))
    if named is not None:
        return getattr(importlib.import_module("transformers"), named).from_pretrained(path)
    from transformers import AutoTokenizer  # noqa: PLC0415  # see above

    return AutoTokenizer.from_pretrained(path, revision=revision)


def _believed_class(folder: Path) -> str | None:
    """The class that a folder's own files name, where it is the one that would be chosen."""
    try:
        tokenizer = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        model = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        named = tokenizer.get("tokenizer_class")
        is_whole = (folder / "tokenizer.json").is_file() and "auto_map" not in tokenizer
        believed = BELIEVED_CLASSES.get(model.get("model_type"), frozenset())
    except (OSError, ValueError, AttributeError, TypeError):
        return None
    if not is_whole or named not in believed:
        return None
    return "PreTrainedTokenizerFast" if named in GENERIC_CLASSES else named
