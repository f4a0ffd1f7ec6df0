"""Prepare a backbone's model: make it, or check what is there, before any server needs it.

Mistakes belong here, where a job costs nothing, and not in the job that holds a
GPU. What comes out is a `PreparedModel`: a path that exists, and a digest that changes exactly
when the files do, so that cells re-run when their model does.
"""

import argparse
import sys
from pathlib import Path

from safetensors import SafetensorError

from blockwise.artifacts import digest_tree, read_model, replacing_folder, write_model
from blockwise.config.backbones import (
    Backbone,
    GgufModel,
    HubModel,
    PathModel,
    PocketModel,
    RandomModel,
)
from blockwise.config.profile import Profile
from blockwise.errors import ConfigError, run_command
from blockwise.models.gguf_model import FetchedGguf, convert_gguf, fetch_gguf
from blockwise.models.hub_model import FetchedModel, check_in_place, fetch_model
from blockwise.models.prepared_model import PreparedModel

__all__ = ["PreparedModel", "prepare_model"]

CONFIG_FILE = "config.json"
WRITE_FAILURES = (OSError, SafetensorError)  # the second is how a full disk shows in weights
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tekken.json")


def prepare_model(
    name: str,
    backbone: Backbone,
    folder: Path,
    fetched: FetchedModel | FetchedGguf | None = None,
) -> PreparedModel:
    """Make or check the model of a backbone.

    Args:
        name: the backbone's name.
        backbone: its configuration.
        folder: where a random or converted model is written; replaced if it exists.
        fetched: the record of a model of the hub or of a GGUF file; None: it is fetched here.

    Raises:
        ConfigError: the revision is unpinned, or the folder is no model.
        ServerError: the hub refused or could not be reached.
        ArtifactError: files cannot be written, or are not what was fetched.
    """
    tokenizer_only = backbone.engine.kind == "external"
    match backbone.model:
        case RandomModel() as recipe:
            return _random(name, recipe, backbone, folder)
        case PocketModel() as source:
            return _pocket(name, source)
        case PathModel() as source:
            return _path(name, source, tokenizer_only)
        case HubModel():
            assert not isinstance(fetched, FetchedGguf), name
            return _hub(name, backbone, fetched)
        case GgufModel() as source:
            assert not isinstance(fetched, FetchedModel), name
            return _gguf(name, source, fetched, folder)


def _random(name: str, recipe: RandomModel, backbone: Backbone, folder: Path) -> PreparedModel:
    # Imported here: it needs torch and transformers (6 s), which the other sources do not.
    from blockwise.models.random_backbone import make_random_backbone  # noqa: PLC0415

    with replacing_folder(folder, WRITE_FAILURES) as unfinished:
        num_parameters = make_random_backbone(
            recipe,
            backbone.context_window_tokens,
            unfinished,
            with_weights=not has_dummy_weights(backbone),
        )
    return PreparedModel(
        backbone=name,
        source="random",
        path=str(folder),
        revision=None,
        tokenizer_path=str(folder),
        digest=digest_tree(folder),
        num_parameters=num_parameters,
    )


def has_dummy_weights(backbone: Backbone) -> bool:
    """Whether the engine makes the weights up: those of 8B parameters need not be written."""
    engine = backbone.engine
    return engine.kind == "vllm" and engine.arguments.get("load-format") == "dummy"


def _pocket(name: str, source: PocketModel) -> PreparedModel:
    if not (source.folder / CONFIG_FILE).is_file():
        raise ConfigError(
            f"backbones.{name}.model.name: {source.folder} holds no model; name one that the "
            f"repository ships, or train it (snakemake train_pocket) and put its folder there"
        )
    return folder_model(name, "pocket", source.folder)


def _path(name: str, source: PathModel, tokenizer_only: bool) -> PreparedModel:
    folder = source.folder
    if not folder.is_dir():
        raise ConfigError(f"backbones.{name}.model.path: {folder} is no folder; mend the path")
    missing = []
    if not tokenizer_only and not (folder / CONFIG_FILE).is_file():
        missing.append(CONFIG_FILE)
    if not any((folder / file).is_file() for file in TOKENIZER_FILES):
        missing.append(f"a tokenizer ({' or '.join(TOKENIZER_FILES)})")
    if missing:
        raise ConfigError(
            f"backbones.{name}.model.path: {folder} lacks {' and '.join(missing)}; name a folder "
            "of Hugging Face model files"
        )
    return folder_model(name, "path", folder)


def folder_model(name: str, source: str, folder: Path) -> PreparedModel:
    """A model whose Hugging Face files lie in a folder that has been looked at."""
    return PreparedModel(
        backbone=name,
        source=source,
        path=str(folder),
        revision=None,
        tokenizer_path=str(folder),
        digest=digest_tree(folder),
        num_parameters=None,
    )


def _hub(name: str, backbone: Backbone, fetched: FetchedModel | None) -> PreparedModel:
    if fetched is None:
        fetched = fetch_model(name, backbone)
    check_in_place(fetched)
    return PreparedModel(
        backbone=name,
        source="hub",
        path=fetched.id,
        revision=fetched.revision,
        tokenizer_path=fetched.folder,
        digest=f"{fetched.id}@{fetched.revision}",
        num_parameters=None,
    )


def _gguf(name: str, source: GgufModel, fetched: FetchedGguf | None, folder: Path) -> PreparedModel:
    if fetched is None:
        fetched = fetch_gguf(name, source, lambda line: print(line, file=sys.stderr))
    with replacing_folder(folder, WRITE_FAILURES) as unfinished:
        origin, num_parameters = convert_gguf(fetched, unfinished)
    return PreparedModel(
        backbone=name,
        source="gguf",
        path=str(folder),
        revision=None,
        tokenizer_path=str(folder),
        digest=digest_tree(folder),
        num_parameters=num_parameters,
        gguf=origin,
    )


def main() -> None:
    """Command line: prepare one backbone and write its `PreparedModel`."""
    parser = argparse.ArgumentParser(description="Make or check a backbone's model.")
    parser.add_argument("--config", type=Path, required=True, help="resolved profile, JSON")
    parser.add_argument("--backbone", required=True, help="its name in the profile")
    parser.add_argument("--folder", type=Path, required=True, help="where to write a made model")
    parser.add_argument(
        "--fetched", type=Path, nargs="*", default=[], help="record of a fetched model, if any"
    )
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    profile = read_model(arguments.config, Profile)
    if arguments.backbone not in profile.backbones:
        raise ConfigError(
            f"backbone {arguments.backbone!r} is not in {arguments.config}; it has "
            f"{', '.join(sorted(profile.backbones))}"
        )
    backbone = profile.backbones[arguments.backbone]
    fetched: list[FetchedModel | FetchedGguf] = [
        read_model(path, FetchedGguf)
        if isinstance(backbone.model, GgufModel)
        else read_model(path, FetchedModel)
        for path in arguments.fetched
    ]
    prepared = prepare_model(arguments.backbone, backbone, arguments.folder, *fetched)
    write_model(arguments.output, prepared)


if __name__ == "__main__":
    run_command(main)
