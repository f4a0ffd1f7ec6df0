"""Loads a tokenizer; only where one has to be chosen, by transformers' automatic classes.

Importing `AutoTokenizer` brings torch, scikit-learn and the generation code along: six seconds of
CPU in every job that counts tokens. A folder whose own files name the generic class leaves nothing
to choose, and that class alone is imported in a second. The result is the same (a test compares).
"""

import json
from pathlib import Path
from typing import Any

GENERIC_CLASSES = frozenset({"TokenizersBackend", "PreTrainedTokenizerFast"})
"""The class that reads tokenizer.json as it stands; transformers 5 and 4 name it so."""
UNCHANGED_MODELS = frozenset({"llama", "gpt_oss"})
"""Model types whose files are believed. For some others, transformers knows a better class."""


def load_tokenizer(path: str, revision: str | None = None) -> Any:
    """Load the tokenizer that `AutoTokenizer` would.

    Args:
        path: a local folder (nothing is fetched) or a hub id.
        revision: commit of a hub id.

    Raises:
        OSError, ValueError: transformers' own, where there is none.
    """
    if _names_the_generic_class(Path(path)):
        from transformers import PreTrainedTokenizerFast  # noqa: PLC0415  # see above

        return PreTrainedTokenizerFast.from_pretrained(path)
    from transformers import AutoTokenizer  # noqa: PLC0415  # see above

    return AutoTokenizer.from_pretrained(path, revision=revision)


def _names_the_generic_class(folder: Path) -> bool:
    try:
        tokenizer = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        model = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return (
            (folder / "tokenizer.json").is_file()
            and "auto_map" not in tokenizer
            and tokenizer.get("tokenizer_class") in GENERIC_CLASSES
            and model.get("model_type") in UNCHANGED_MODELS
        )
    except (OSError, ValueError, AttributeError, TypeError):
        return False
