"""Reading a model where it is: a folder, a GGUF file, or the Hugging Face hub.

Of a folder and of the hub only settings, tokenizer files and the heads of weight files are read; a
GGUF file is digested whole, because its digest is what names it.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from blockwise.artifacts import digest_file
from blockwise.config.base import SAFE_NAME
from blockwise.describe.facts import ModelFacts, Shape, shape_of_config
from blockwise.errors import ArtifactError, ConfigError, ServerError
from blockwise.models.gguf_file import GgufFile, open_gguf
from blockwise.models.hub_model import TOKENIZER_PATTERNS
from blockwise.models.model_files import models_folder

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
FLOAT_TYPES = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})
"""Types of safetensors of which one number is one parameter."""

PACKED_TYPES = frozenset({"U8", "I8", "U16", "I16", "U32", "I32"})
"""Types into which several parameters are packed. The others hold positions and flags."""

HEADER_SIZE_BYTES = 8  # a safetensors file begins with the size of its header
MAX_HEADER_BYTES = 100_000_000  # the format's own limit


def read_model(text: str) -> ModelFacts:
    """Read what can be known of a model.

    Args:
        text: a folder of Hugging Face files, a GGUF file, or a hub id.

    Raises:
        ConfigError: it is none of the three.
        ArtifactError: its files cannot be read.
        ServerError: the hub refused or could not be reached.
    """
    path = Path(text).expanduser()
    if path.is_dir():
        return _read_folder(path.resolve())
    if path.is_file() and path.suffix == ".gguf":
        return _read_gguf(path)
    if HUB_ID.fullmatch(text) and not path.exists():
        return _read_hub(text)
    raise ConfigError(
        f"{text!r} is no folder and no .gguf file of this machine, and no hub id (as org/name); "
        "name one of these"
    )


def entry_name(text: str) -> str:
    """A name for the configuration: that of the model, in small letters."""
    name = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")
    return name if re.match(SAFE_NAME, name) else "my-model"


def _read_folder(folder: Path) -> ModelFacts:
    num_parameters, notes = _parameters_of(_tensors(sorted(folder.glob("*.safetensors"))))
    return ModelFacts(
        name=entry_name(folder.name),
        source={"source": "path", "path": str(folder)},
        shape=shape_of_config(_config(folder)),
        num_parameters=num_parameters,
        chat_template=_chat_template(folder),
        read_from="config.json, tokenizer files and the heads of *.safetensors",
        notes=notes,
    )


def _config(folder: Path) -> Mapping[str, Any]:
    path = folder / "config.json"
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"cannot read {path}: {error}; name a folder with the files of a Hugging Face model"
        ) from error
    if not isinstance(values, dict):
        raise ArtifactError(f"{path} holds no settings; name the folder of a Hugging Face model")
    return values


def _chat_template(folder: Path) -> str | None:
    """The template of a tokenizer's folder: a file of its own, or a value of its settings."""
    own = folder / "chat_template.jinja"
    if own.is_file():
        return own.read_text(encoding="utf-8", errors="replace")
    try:
        settings = json.loads((folder / "tokenizer_config.json").read_bytes())
    except (OSError, ValueError):
        return None
    template = settings.get("chat_template") if isinstance(settings, dict) else None
    return template if isinstance(template, str) else None


def _tensors(files: Iterable[Path]) -> Iterable[tuple[str, int]]:
    """Type and number of elements of every tensor, from the heads of the files."""
    for file in files:
        try:
            with file.open("rb") as stream:
                size = int.from_bytes(stream.read(HEADER_SIZE_BYTES), "little")
                if size > MAX_HEADER_BYTES:
                    raise ValueError(f"its header would have {size} bytes")
                header = json.loads(stream.read(size))
            for name, tensor in header.items():
                if name != "__metadata__":
                    yield str(tensor["dtype"]), math.prod(tensor["shape"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArtifactError(
                f"cannot read the head of {file}: {error}; it is cut short or no safetensors file"
            ) from error


def _parameters_of(tensors: Iterable[tuple[str, int]]) -> tuple[int | None, tuple[str, ...]]:
    """How many parameters, or None and why not."""
    counted = list(tensors)
    packed = sorted({kind for kind, _ in counted} & PACKED_TYPES)
    if packed:
        return None, (f"parameters: weights are packed ({', '.join(packed)}); see the model card",)
    num_parameters = sum(number for kind, number in counted if kind in FLOAT_TYPES)
    if not num_parameters:
        return None, ("parameters: there are no safetensors; see the model card",)
    return num_parameters, ()


def _read_gguf(path: Path) -> ModelFacts:
    file = open_gguf(path)
    refusals = [f"this file cannot be used: {reason}" for reason in file.refusals()]
    if not (models_folder() / path.name).exists():
        refusals.append(f"the file is looked for in {models_folder()}: put it there, or name `hub`")
    return ModelFacts(
        name=entry_name(path.stem),
        source={"source": "gguf", "file": path.name, "sha256": digest_file(path)},
        shape=_shape_of_gguf(file),
        num_parameters=sum(int(tensor.n_elements) for tensor in file.reader.tensors) or None,
        chat_template=file.chat_template,
        read_from=f"the GGUF file's own settings; weights are {file.format}, to be dequantized",
        notes=tuple(refusals),
    )


def _shape_of_gguf(file: GgufFile) -> Shape:
    def number(key: str) -> int | None:
        value = file.value(f"{file.architecture}.{key}")
        return int(value) if isinstance(value, int | float) else None

    num_layers, num_heads = number("block_count"), number("attention.head_count")
    hidden_size, kv_values = number("embedding_length"), None
    if num_layers and num_heads and hidden_size:
        head_size = number("attention.key_length") or hidden_size // num_heads
        kv_values = 2 * num_layers * (number("attention.head_count_kv") or num_heads) * head_size
    return Shape(
        model_type=file.architecture,
        is_moe=(number("expert_count") or 0) > 1,
        window_tokens=number("context_length"),
        kv_values_per_token=kv_values,
    )


def _read_hub(name: str) -> ModelFacts:
    # Imported here: files of this machine need no hub client.
    import huggingface_hub  # noqa: PLC0415

    try:
        info = huggingface_hub.HfApi().model_info(name)
        folder = Path(
            huggingface_hub.snapshot_download(
                name, revision=info.sha, allow_patterns=TOKENIZER_PATTERNS
            )
        )
    except Exception as error:  # the hub client raises many kinds; all mean the same here
        words = str(error).strip().splitlines() or [repr(error)]
        raise ServerError(
            f"the hub says nothing of {name}: {words[0]}. This needs the network and, for gated "
            "models, a token in HF_TOKEN; a folder or a GGUF file of this machine needs neither"
        ) from error
    sizes = info.safetensors.parameters if info.safetensors else {}
    num_parameters, notes = _parameters_of(sizes.items())
    return ModelFacts(
        name=entry_name(name.rpartition("/")[2]),
        source={"source": "hub", "id": name, "revision": info.sha},
        shape=shape_of_config(_config(folder)),
        num_parameters=num_parameters,
        chat_template=_chat_template(folder),
        read_from=f"the hub: config.json, tokenizer files and sizes at commit {info.sha}",
        notes=notes,
    )
