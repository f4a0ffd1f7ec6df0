"""Where the rows of a dataset come from: hub, web, a file of this machine, or our generator.

All four deliver the same thing, a list of rows in an official schema and a few words on their
origin. What the rows mean is for the readers to judge.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from blockwise.config.base import UNPINNED
from blockwise.config.datasets import (
    Dataset,
    HubSource,
    PathSource,
    SyntheticSource,
    UrlSource,
)
from blockwise.data import synthetic
from blockwise.download import fetch
from blockwise.errors import DatasetError

GENERATORS: Mapping[str, Callable[[SyntheticSource], list[dict[str, Any]]]] = {
    "hotpotqa": synthetic.hotpotqa_rows,
    "locomo": synthetic.locomo_rows,
}
"""Formats whose rows can be made up. A generator is no part of its format: decision 0047."""

Rows = list[Mapping[str, Any]]


def load_rows(dataset_name: str, dataset: Dataset, cache_folder: Path) -> tuple[Rows, str]:
    """Load the raw rows of a dataset.

    Args:
        dataset_name: its name in the configuration, for messages.
        dataset: its configuration.
        cache_folder: where files from the web stay.

    Returns:
        The rows, unchecked, and their origin in words.

    Raises:
        DatasetError: the source is missing, unreachable, damaged or no list of rows.
    """
    match dataset.source:
        case SyntheticSource() as source:
            return _generate(dataset_name, dataset.format, source)
        case PathSource() as source:
            return _read_list(dataset_name, Path(source.path), source.path), source.path
        case UrlSource() as source:
            path = fetch(source.url, cache_folder, sha256=source.sha256)
            return _read_list(dataset_name, path, source.url), source.url
        case HubSource() as source:
            return _load_hub(dataset_name, source)


def _generate(dataset_name: str, dataset_format: str, source: SyntheticSource) -> tuple[Rows, str]:
    if dataset_format not in GENERATORS:
        raise DatasetError(
            f"dataset {dataset_name}: nothing writes synthetic {dataset_format} rows, only "
            f"{', '.join(GENERATORS)}; name another source"
        )
    origin = f"synthetic {dataset_format} (seed {source.seed})"
    return list(GENERATORS[dataset_format](source)), origin


def _read_list(dataset_name: str, path: Path, origin: str) -> Rows:
    """Read a JSON file that must hold a list of rows."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise DatasetError(
            f"dataset {dataset_name}: cannot read {origin}: {error.strerror}; mend "
            f"datasets.{dataset_name}.source"
        ) from error
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, or nested without end
        raise DatasetError(
            f"dataset {dataset_name}: {origin} is not JSON ({error}); name the official file, "
            "unpacked and complete"
        ) from error
    if not isinstance(content, list):
        raise DatasetError(
            f"dataset {dataset_name}: {origin} holds one {type(content).__name__}, not a list of "
            "rows; name the official file"
        )
    return content


def _load_hub(dataset_name: str, source: HubSource) -> tuple[Rows, str]:
    import datasets  # type: ignore[import-untyped]  # noqa: PLC0415  # seconds, and optional

    revision = None if source.revision == UNPINNED else source.revision
    subset = f"/{source.subset}" if source.subset else ""
    origin = f"{source.id}{subset} {source.split} at {source.revision}"
    try:
        rows = list(
            datasets.load_dataset(source.id, source.subset, split=source.split, revision=revision)
        )
    except Exception as error:  # the library raises dozens of unrelated types
        raise DatasetError(
            f"dataset {dataset_name}: cannot load {origin} from the hub: "
            f"{type(error).__name__}: {error}. Check id, subset, split, revision and the network; "
            "or fetch the official file by hand and name it with `source: {kind: path}`"
        ) from error
    return rows, origin
