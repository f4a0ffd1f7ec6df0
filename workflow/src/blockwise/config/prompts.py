"""Compaction prompts: a file each, its text part of every cell's key.

A prompt may open with front matter that says which volume its words ask for, as a share of
the text to be summarised; tables measure how far the summaries are from it.

    ---
    target_frac: 0.1
    ---
    Summarise ...

The text is sent as it stands: nothing is ever formatted into it.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from blockwise.errors import ConfigError

FRONT_MATTER = re.compile(r"\A---\n(?P<fields>.*?)\n---\n(?P<text>.*)\Z", re.DOTALL)


@dataclass(frozen=True)
class CompactionPrompt:
    """What workers are told, and the volume that it asks for."""

    name: str
    text: str
    target_frac: float | None  # output over input tokens; None: it names none


class _Fields(BaseModel):
    """The front matter of a prompt."""

    model_config = ConfigDict(extra="forbid", strict=True)

    target_frac: float = Field(gt=0, le=1)


def prompt_path(folder: Path, name: str) -> Path:
    """File of a prompt."""
    return folder / f"{name}.md"


def load_prompt(folder: Path, name: str) -> CompactionPrompt:
    """Read one prompt.

    Raises:
        ConfigError: the file is missing or empty, or its front matter is not understood.
    """
    path = prompt_path(folder, name)
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the prompt {path}: {error}") from None
    match = FRONT_MATTER.match(content)
    text = (match["text"] if match else content).strip()
    if not text:
        raise ConfigError(f"{path} holds no prompt; write what the worker shall do")
    return CompactionPrompt(name, text, _target_frac(path, match["fields"]) if match else None)


def _target_frac(path: Path, fields_text: str) -> float:
    try:
        fields: Any = yaml.safe_load(fields_text)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"the front matter of {path} is not valid YAML: {error}") from None
    try:
        return _Fields.model_validate(fields).target_frac
    except ValidationError as error:
        raise ConfigError(
            f"the front matter of {path} must hold target_frac and nothing else, a number above 0 "
            f"and at most 1; it is {fields!r}: {error.errors()[0]['msg']}"
        ) from None
