"""From a configured source to a `DocumentSet`: the first stage of every run.

`python -m blockwise.data.prepare --config PROFILE.json --dataset NAME --cache DIR --output FILE`
"""

import argparse
import sys
from pathlib import Path

from blockwise.artifacts import digest, read_model, write_model
from blockwise.config.datasets import Dataset
from blockwise.config.profile import Profile
from blockwise.data.dataset_format import load_format
from blockwise.data.documents import DocumentSet
from blockwise.data.row_choice import choose_rows
from blockwise.data.sources import load_rows
from blockwise.errors import ConfigError, run_command


def prepare_documents(dataset_name: str, dataset: Dataset, cache_folder: Path) -> DocumentSet:
    """Load and read one dataset.

    Raises:
        DatasetError: the source fails, is empty, or holds malformed rows that may not be
            skipped; or a row that is asked for by its id is not among them.
    """
    dataset_format = load_format(dataset.format)
    rows, origin = load_rows(dataset_name, dataset, cache_folder)
    if dataset.row_ids is not None:
        ids_file = Path(dataset.row_ids)
        rows = choose_rows(rows, ids_file, id_keys=dataset_format.id_keys, origin=origin)
    documents, skipped = dataset_format.read(rows, origin=origin, malformed=dataset.malformed_rows)
    return DocumentSet(
        dataset=dataset_name,
        format=dataset.format,
        origin=origin,
        content_digest=digest([document.model_dump(mode="json") for document in documents]),
        num_rows=len(rows),
        num_skipped_rows=len(skipped),
        skipped=tuple(skipped),
        documents=tuple(documents),
    )


def configured_dataset(profile: Profile, name: str) -> Dataset:
    """The dataset of this name.

    Raises:
        ConfigError: the profile has none.
    """
    if name not in profile.datasets:
        raise ConfigError(
            f"dataset {name!r} is not in profile {profile.profile}; it has: "
            f"{', '.join(sorted(profile.datasets))}"
        )
    return profile.datasets[name]


def main() -> None:
    """Command line: prepare one dataset of a profile."""
    parser = argparse.ArgumentParser(description="Prepare the documents of one dataset.")
    parser.add_argument("--config", type=Path, required=True, help="resolved profile, JSON")
    parser.add_argument("--dataset", required=True, help="its name in the profile")
    parser.add_argument("--cache", type=Path, required=True, help="where fetched files stay")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    dataset = configured_dataset(read_model(arguments.config, Profile), arguments.dataset)
    prepared = prepare_documents(arguments.dataset, dataset, arguments.cache)
    write_model(arguments.output, prepared)
    for report in prepared.skipped:
        print(f"skipped malformed row: {report}", file=sys.stderr)
    print(
        f"{arguments.dataset}: {len(prepared.documents)} documents from {prepared.num_rows} rows "
        f"of {prepared.origin}, {prepared.num_skipped_rows} skipped",
        file=sys.stderr,
    )


if __name__ == "__main__":
    run_command(main)
