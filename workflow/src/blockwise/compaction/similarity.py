"""How alike the summaries of one input are, repeat by repeat.

A stable compaction writes the same summary whenever it reads the same history. The repeats of
one input and arm, each a new sampling seed, are therefore turned into vectors and compared in
pairs by their cosine. Which cosine depends on the embedder: TF-IDF counts shared words, a
sentence-embedding model compares meaning, and numbers of two embedders are never comparable. So
the artifact names its embedder, tables show the name, and nothing is averaged here.

This runs as a job between cells and tables, on the CPU, after the servers have gone.
"""

import argparse
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from blockwise.artifacts import digest_tree, inside, read_model, read_sealed, write_model
from blockwise.compaction.embedder_model import FetchedEmbedder, embedder_folder, fetch_embedder
from blockwise.compaction.records import Batch, CellRecord, Record
from blockwise.config.base import UNPINNED
from blockwise.config.choices import Study
from blockwise.config.embedder import (
    Embedder,
    FilesEmbedder,
    HubEmbedder,
    PathEmbedder,
    TfidfEmbedder,
)
from blockwise.config.profile import Profile
from blockwise.errors import ArtifactError, ConfigError, ServerError, run_command

SCHEMA_VERSION: Literal[1] = 1
SEPARATOR = "\n\n"  # between the summaries of workers, as in the message that replaces a history
WORD = re.compile(r"\w")
TFIDF_TOKEN = r"\b\w+\b"  # noqa: S105  scikit-learn's own drops digits and letters that stand alone
COSINE_DECIMALS = 6  # embeddings are float32, of about seven digits
NO_WORD = "the summary holds no word"


class SummaryGroup(Record):
    """The repeats of one input and arm, compared in pairs.

    Shapes: `cosines` is (repeats, repeats), symmetric; `undefined_reasons` is (repeats,).
    """

    cell_keys: tuple[str, ...]  # in order of repeat
    cosines: tuple[tuple[float | None, ...], ...]  # None: undefined
    undefined_reasons: tuple[str | None, ...]  # why a repeat has no cosine


class Similarities(Record):
    """What was compared for one backbone and dataset."""

    schema_version: Literal[1] = SCHEMA_VERSION
    backbone: str
    dataset: str
    embedder: str | None  # in words; None: there was nothing to compare
    groups: tuple[SummaryGroup, ...]


class Embedding(NamedTuple):
    """Unit vectors of texts, and what made them."""

    embedder: str  # in words
    unit_vectors: NDArray[np.float64]  # (texts, dimensions)


def compare_summaries(
    batch: Batch,
    records: Sequence[CellRecord],
    embedder: Embedder,
    fetched: FetchedEmbedder | None = None,
) -> Similarities:
    """Cosines of all repeats of each input and arm.

    Args:
        batch: whose cells these are.
        records: its cells of the stability study, each once.
        embedder: how a summary becomes a vector.
        fetched: the record of a published embedder; None: it is fetched here.

    Raises:
        ArtifactError: a cell is no single compaction.
        ConfigError: the embedder cannot be used as configured.
        ServerError: the embedder could not be fetched.
    """
    texts = {record.cell_key: summary_of(record) for record in records}
    known = [key for key, text in texts.items() if WORD.search(text)]
    embedding = embed([texts[key] for key in known], embedder, fetched) if known else None
    vectors = dict(zip(known, embedding.unit_vectors, strict=True)) if embedding else {}
    return Similarities(
        backbone=batch.backbone,
        dataset=batch.dataset,
        embedder=embedding.embedder if embedding else None,
        groups=tuple(
            _compare([record.cell_key for record in group], vectors)
            for group in group_repeats(records)
        ),
    )


def group_repeats(records: Iterable[CellRecord]) -> list[list[CellRecord]]:
    """Cells of the same input and arm: everything of their specs agrees but `repeat`."""
    groups: dict[str, list[CellRecord]] = {}
    for record in records:
        groups.setdefault(record.spec.digest_without({"repeat"}), []).append(record)
    return [sorted(group, key=lambda record: record.repeat) for group in groups.values()]


def summary_of(record: CellRecord) -> str:
    """What the one compaction of a cell left: its workers' texts, in order.

    Raises:
        ArtifactError: the cell has no compaction, or several.
    """
    if len(record.compactions) != 1:
        raise ArtifactError(
            f"cell {record.cell_key} holds {len(record.compactions)} compactions; summaries are "
            "compared of cells with exactly 1. Delete its record file and rerun"
        )
    workers = [request for request in record.requests if request.role == "worker"]
    workers.sort(key=lambda request: request.worker_index or 0)
    return SEPARATOR.join(request.text.strip() for request in workers)


def embed(
    texts: Sequence[str], embedder: Embedder, fetched: FetchedEmbedder | None = None
) -> Embedding:
    """Unit vectors of texts, each of which holds a word.

    Raises:
        ConfigError: the embedder cannot be used as configured.
        ServerError: the embedder could not be fetched.
    """
    match embedder:
        case TfidfEmbedder():
            return _tfidf(texts)
        case PathEmbedder(path=path):
            folder = Path(path)
            if not folder.is_dir():
                raise ConfigError(f"embedder.path: {folder} is no folder; mend the path")
            name = f"{folder.name} (digest {digest_tree(folder)})"
            return _sentence_vectors(texts, name, str(folder), None)
        case FilesEmbedder():
            if (fetched or fetch_embedder(embedder, print)).absent is not None:
                return _tfidf(texts)
            folder, name = embedder_folder(embedder)
            return _sentence_vectors(texts, name, str(folder), None)
        case HubEmbedder(id=hub_id, revision=revision):
            if revision == UNPINNED:
                raise ConfigError(
                    f"embedder.revision of {hub_id} is {UNPINNED!r}: nobody has verified which "
                    "commit is meant; run `make pin` where the hub can be reached"
                )
            return _sentence_vectors(texts, f"{hub_id} at {revision}", hub_id, revision)


def _tfidf(texts: Sequence[str]) -> Embedding:
    """TF-IDF of words; the weights of words are fitted once, on all texts."""
    # Imported here, as is the other embedder: tables import this module for its artifact.
    from sklearn.feature_extraction.text import (  # type: ignore[import-untyped]  # noqa: PLC0415
        TfidfVectorizer,
    )

    vectors = TfidfVectorizer(token_pattern=TFIDF_TOKEN).fit_transform(texts)
    name = f"TF-IDF of words (scikit-learn {version('scikit-learn')})"
    return Embedding(name, vectors.toarray())


def _sentence_vectors(
    texts: Sequence[str], name: str, source: str, revision: str | None
) -> Embedding:
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415

    try:
        model = SentenceTransformer(
            source, device="cpu", revision=revision, local_files_only=revision is None
        )
    except (OSError, ValueError) as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        if revision is None:
            raise ConfigError(
                f"embedder: {source} is no sentence-embedding model ({first_line}); name a "
                "folder of sentence-transformers or Hugging Face model files"
            ) from error
        raise ServerError(
            f"cannot fetch the embedder {name}: {first_line}. If it is gated, accept its licence "
            "and set HF_TOKEN; if the network failed, run the same command again: what is "
            "complete is kept"
        ) from error
    limit = f", first {model.max_seq_length} tokens of a summary" if model.max_seq_length else ""
    vectors = model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)
    package = f"sentence-transformers {version('sentence-transformers')}"
    return Embedding(f"{name}{limit} ({package})", np.asarray(vectors, dtype=np.float64))


def _compare(cell_keys: Sequence[str], vectors: Mapping[str, NDArray[np.float64]]) -> SummaryGroup:
    def cosine(one: str, other: str) -> float | None:
        first, second = sorted((one, other))  # the last bit of a sum may depend on the order
        if first not in vectors or second not in vectors:
            return None
        exact = float(vectors[first] @ vectors[second])
        return round(min(max(exact, -1.0), 1.0), COSINE_DECIMALS)

    return SummaryGroup(
        cell_keys=tuple(cell_keys),
        cosines=tuple(tuple(cosine(one, other) for other in cell_keys) for one in cell_keys),
        undefined_reasons=tuple(None if key in vectors else NO_WORD for key in cell_keys),
    )


def read_repeats(batch: Batch, store_folder: Path) -> list[CellRecord]:
    """The cells of the stability study that a batch selects, each once.

    Raises:
        ArtifactError: a record is missing or damaged, or is of another cell.
    """
    paths = {
        selected.cell_key: inside(store_folder, selected.record_path)
        for selected in batch.selected
        if selected.study is Study.STABILITY
    }
    records = []
    for cell_key, path in paths.items():
        record = read_sealed(path, CellRecord)
        if record.cell_key != cell_key:
            raise ArtifactError(
                f"{path} holds cell {record.cell_key}, not {cell_key}; delete it and rerun"
            )
        records.append(record)
    return records


def main() -> None:
    """Command line: compare the summaries of one batch."""
    parser = argparse.ArgumentParser(
        prog="python -m blockwise.compaction.similarity", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--config", type=Path, required=True, help="resolved profile, JSON")
    parser.add_argument("--batch", type=Path, required=True)
    parser.add_argument("--store", type=Path, required=True, help="folder of the cell store")
    parser.add_argument(
        "--fetched", type=Path, nargs="*", default=[], help="record of a published embedder, if any"
    )
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    embedder = read_model(arguments.config, Profile).embedder
    batch = read_model(arguments.batch, Batch)
    records = read_repeats(batch, arguments.store)
    fetched = [read_model(path, FetchedEmbedder) for path in arguments.fetched]
    write_model(arguments.output, compare_summaries(batch, records, embedder, *fetched))


if __name__ == "__main__":
    run_command(main)
