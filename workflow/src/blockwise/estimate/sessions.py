"""Sessions to play without a download: the real ones where they are here, else assumed ones.

Synthetic and local datasets are prepared as the run prepares them. A dataset of the hub or the
web counts if an earlier run of this profile prepared it; otherwise documents of the published
average size stand in, chained to `target_tokens` by the real chainer.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from blockwise.artifacts import read_model
from blockwise.compaction.sessions import build_sessions
from blockwise.config.datasets import Dataset, local_file
from blockwise.config.profile import Profile
from blockwise.data.dataset_format import load_format
from blockwise.data.documents import Document, DocumentSet, Question, SessionSet
from blockwise.data.prepare import prepare_documents
from blockwise.errors import ArtifactError, DatasetError
from blockwise.models.renderer import Renderer

ASSUMED_ORIGIN = "assumed"
FILLER = "The town lies by the river, and in spring its market opens at seven in the morning. "
SHORT_ANSWER = "In the morning."

QUESTION_TOKENS = 20  # HotpotQA's questions have 18 words on average, LoCoMo's fewer


class Datasets:
    """The documents of a profile, each dataset loaded once.

    Args:
        profile: the configuration.
        prepared_folder: where a run of this profile leaves prepared datasets.
    """

    def __init__(self, profile: Profile, prepared_folder: Path) -> None:
        self._profile = profile
        self._folder = prepared_folder
        self._known: dict[str, DocumentSet | None] = {}

    def documents(self, name: str) -> DocumentSet | None:
        """The dataset's own documents; None where they are not on this machine."""
        if name not in self._known:
            self._known[name] = self._load(name, self._profile.datasets[name])
        return self._known[name]

    def sessions(self, name: str, backbone: str, renderer: Renderer) -> tuple[SessionSet, bool]:
        """The sessions that a backbone plays of a dataset, and whether they are its own.

        Raises:
            DatasetError: the documents do not make the sessions that are asked for.
        """
        dataset = self._profile.datasets[name]
        found = self.documents(name)
        documents = found or assumed_documents(name, dataset, renderer.count_text)
        windows = {
            one: entry.context_window_tokens for one, entry in self._profile.backbones.items()
        }
        sessions = build_sessions(
            documents,
            dataset.sessions,
            renderer.count_text,
            backbone,
            windows[backbone],
            window_tokens_of=windows,
        )
        return sessions, found is not None

    def _load(self, name: str, dataset: Dataset) -> DocumentSet | None:
        source = dataset.source
        is_here = source.kind in {"synthetic", "path"} or (
            source.kind == "url" and local_file(source.url) is not None
        )
        if is_here:
            return prepare_documents(name, dataset, self._folder)
        try:
            prepared = read_model(self._folder / f"{name}.json", DocumentSet)
        except ArtifactError:
            return None
        wanted = source.url if source.kind == "url" else f"at {getattr(source, 'revision', '')}"
        return prepared if prepared.origin.endswith(wanted) else None


def assumed_documents(name: str, dataset: Dataset, count_text: Callable[[str], int]) -> DocumentSet:
    """Documents of the published average size, enough for the sessions of a plan.

    Raises:
        DatasetError: the format declares no usual size.
    """
    usual = load_format(dataset.format).usual
    if usual is None:
        raise DatasetError(
            f"dataset {name} is not on this machine, and the format {dataset.format} declares no "
            "usual size of its documents: prepare the dataset first (`snakemake --until "
            "prepare_dataset`), or declare `usual` in the format's module"
        )
    text = _filler(usual.document_tokens, count_text)
    asked = _filler(QUESTION_TOKENS, count_text)
    plan = dataset.sessions
    per_session = plan.target_tokens // count_text(text) + 1
    if usual.num_conversations is not None:  # each session goes round all conversations
        clusters = max(usual.num_conversations, plan.num_sessions)
        sizes = [per_session // clusters + 1] * clusters
    else:
        sizes = [1] * (per_session * plan.num_sessions)
    questions = [(asked, usual.category)] * usual.num_questions
    places = [(cluster, number) for cluster, size in enumerate(sizes) for number in range(size)]
    documents = [
        _document(
            f"{name}-{cluster}-{number}",
            f"{name}-{cluster}",
            text,
            [] if index % usual.documents_per_asked else questions,
        )
        for index, (cluster, number) in enumerate(places)
    ]
    return DocumentSet(
        dataset=name,
        format=dataset.format,
        origin=ASSUMED_ORIGIN,
        content_digest=ASSUMED_ORIGIN,
        num_rows=len(sizes),
        num_skipped_rows=0,
        skipped=(),
        documents=tuple(documents),
    )


def _document(
    document_id: str, cluster: str, text: str, asked: Sequence[tuple[str, str]]
) -> Document:
    questions = tuple(
        Question(
            id=f"{document_id}-{index}",
            text=question,
            answer=SHORT_ANSWER,
            category=category,
            evidence=(document_id,),
        )
        for index, (question, category) in enumerate(asked)
    )
    return Document(id=document_id, cluster=cluster, text=text, questions=questions)


def _filler(num_tokens: int, count_text: Callable[[str], int]) -> str:
    """A text of about so many tokens, whatever counts them."""
    per_copy = max(1, count_text(FILLER))
    whole = FILLER * (num_tokens // per_copy + 1)
    return whole[: max(1, round(len(whole) * num_tokens / count_text(whole)))]
