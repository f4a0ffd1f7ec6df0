"""Chaining documents into agent sessions of a wanted length.

A session is one agent's working day: documents arrive turn by turn until the backbone's own
tokenizer has counted the wanted number of tokens; the document that reaches it still
belongs. Independent documents (HotpotQA) are cut into sessions one after another, which share
nothing. Where documents make long conversations (LoCoMo), each session chains all it needs,
chat sessions in chronological order, and the order of the conversations rotates so that every
one of them gets to stand first. A question is asked at the last document of its
evidence, and dropped where the session does not hold all of it.

`python -m blockwise.compaction.sessions --config PROFILE.json --dataset NAME --backbone NAME
--documents FILE --model FILE --output FILE`
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from blockwise.artifacts import digest, read_model, write_model
from blockwise.config.datasets import SessionPlan
from blockwise.config.profile import Profile
from blockwise.data.dataset_format import load_format
from blockwise.data.documents import Document, DocumentSet, Session, SessionSet
from blockwise.data.prepare import configured_dataset
from blockwise.errors import ConfigError, DatasetError, run_command


class Chainer:
    """Takes documents until the target is reached; counts each document once."""

    def __init__(
        self,
        plan: SessionPlan,
        count_tokens: Callable[[str], int],
        context_window_tokens: int,
        *,
        backbone: str,
        window_tokens_of: Mapping[str, int],
    ) -> None:
        self._plan = plan
        self._count_tokens = count_tokens
        self._context_window_tokens = context_window_tokens
        self._backbone = backbone
        self._window_tokens_of = window_tokens_of
        self._counted: dict[Document, int] = {}

    def chain(self, documents: Sequence[Document]) -> tuple[list[Document], int]:
        """Documents from the start of the sequence up to the target, and their tokens.

        When the sequence ends before the target is reached, all of it comes back.
        """
        taken: list[Document] = []
        taken_ids: set[str] = set()
        num_tokens = 0
        for document in documents:
            if num_tokens >= self._plan.target_tokens:
                break
            taken_ids.add(document.id)
            kept = self._with_askable_questions(document, taken_ids)
            num_tokens += self._count(kept)
            taken.append(kept)
        return taken, num_tokens

    def _with_askable_questions(self, document: Document, taken_ids: set[str]) -> Document:
        askable = [
            question for question in document.questions if taken_ids.issuperset(question.evidence)
        ]
        kept = askable[: self._plan.max_questions_per_document]
        return document.model_copy(update={"questions": tuple(kept)})

    def _count(self, document: Document) -> int:
        if document not in self._counted:
            texts = [document.text, *(question.text for question in document.questions)]
            self._counted[document] = sum(map(self._count_tokens, texts))
        num_tokens = self._counted[document]
        if num_tokens > self._context_window_tokens:
            self._refuse(document, num_tokens)
        return num_tokens

    def _refuse(self, document: Document, num_tokens: int) -> None:
        fitting = sorted(
            name for name, window in self._window_tokens_of.items() if window >= num_tokens
        )
        remedy = (
            f"{', '.join(fitting)} has a window that fits"
            if fitting
            else "no backbone of this profile has a window that fits"
        )
        raise DatasetError(
            f"document {document.id} has {num_tokens} tokens with its questions, and the window of "
            f"{self._backbone} is {self._context_window_tokens}: {remedy}. Play this dataset on a "
            "backbone with a larger window, or name a source with shorter documents"
        )


def build_sessions(
    documents: DocumentSet,
    plan: SessionPlan,
    count_tokens: Callable[[str], int],
    backbone: str,
    context_window_tokens: int,
    *,
    window_tokens_of: Mapping[str, int] | None = None,
) -> SessionSet:
    """Chain a prepared dataset into the sessions of one backbone.

    Args:
        documents: the prepared dataset.
        plan: how many sessions, how long, how many questions a document.
        count_tokens: the backbone's own tokenizer.
        backbone: its name.
        context_window_tokens: its window.
        window_tokens_of: windows of all backbones, to name one that fits in an error.

    Raises:
        DatasetError: the documents run out, a further session would repeat an earlier one,
            or a document exceeds the window.
    """
    chainer = Chainer(
        plan,
        count_tokens,
        context_window_tokens,
        backbone=backbone,
        window_tokens_of=window_tokens_of or {},
    )
    if load_format(documents.format).has_conversations:
        chains = _rotating_chains(documents, plan, chainer)
    else:
        chains = _consecutive_chains(documents, plan, chainer)
    sessions = tuple(
        Session(
            id=f"{documents.dataset}-{index:03d}", documents=tuple(chain), num_tokens=num_tokens
        )
        for index, (chain, num_tokens) in enumerate(chains)
    )
    return SessionSet(
        dataset=documents.dataset,
        format=documents.format,
        backbone=backbone,
        content_digest=digest([session.model_dump(mode="json") for session in sessions]),
        num_skipped_rows=documents.num_skipped_rows,
        sessions=sessions,
    )


def _consecutive_chains(
    documents: DocumentSet, plan: SessionPlan, chainer: Chainer
) -> list[tuple[list[Document], int]]:
    """Each session starts where the one before ended: none shares a document."""
    chains: list[tuple[list[Document], int]] = []
    start = 0
    for _ in range(plan.num_sessions):
        chain, num_tokens = chainer.chain(documents.documents[start:])
        chains.append((chain, num_tokens))
        start += len(chain)
        if num_tokens < plan.target_tokens:
            _refuse_short(documents, plan, chains)
    return chains


def _rotating_chains(
    documents: DocumentSet, plan: SessionPlan, chainer: Chainer
) -> list[tuple[list[Document], int]]:
    """Session s starts with conversation s and goes round; none holds a document twice."""
    conversations: dict[str, list[Document]] = {}
    for document in documents.documents:
        conversations.setdefault(document.cluster, []).append(document)
    in_order = list(conversations.values())
    if plan.num_sessions > len(in_order):
        raise DatasetError(
            f"dataset {documents.dataset}: {plan.num_sessions} sessions are wanted of "
            f"{len(in_order)} conversations, and each starts with another one; a further session "
            f"would repeat the first. Set num_sessions to {len(in_order)} or less, or name a "
            "source with more conversations"
        )
    chains: list[tuple[list[Document], int]] = []
    for first in range(plan.num_sessions):
        rotated = in_order[first:] + in_order[:first]
        chains.append(chainer.chain([document for part in rotated for document in part]))
        if chains[-1][1] < plan.target_tokens:
            _refuse_short(documents, plan, chains)
    return chains


def _refuse_short(
    documents: DocumentSet, plan: SessionPlan, chains: Sequence[tuple[list[Document], int]]
) -> None:
    """The last chain ended with the data, not with the target."""
    num_reached_tokens = chains[-1][1]
    raise DatasetError(
        f"dataset {documents.dataset} is too small: session {len(chains) - 1} of "
        f"{plan.num_sessions} reaches {num_reached_tokens} of target_tokens {plan.target_tokens} "
        f"and the {len(documents.documents)} documents ({documents.num_rows} rows) are used up. "
        f"Lower target_tokens or num_sessions, or name a source with more rows "
        f"({documents.origin})"
    )


def main() -> None:
    """Command line: build the sessions of one dataset for one backbone."""
    # Imported here: a tokenizer library takes seconds to load, and only the command needs it.
    from blockwise.models.prepared_model import PreparedModel  # noqa: PLC0415
    from blockwise.models.renderer import Renderer  # noqa: PLC0415

    parser = argparse.ArgumentParser(description="Chain the documents of a dataset into sessions.")
    parser.add_argument("--config", type=Path, required=True, help="resolved profile, JSON")
    parser.add_argument("--dataset", required=True, help="its name in the profile")
    parser.add_argument("--backbone", required=True, help="its name in the profile")
    parser.add_argument("--documents", type=Path, required=True, help="prepared documents")
    parser.add_argument("--model", type=Path, required=True, help="prepared model, JSON")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    profile = read_model(arguments.config, Profile)
    plan = configured_dataset(profile, arguments.dataset).sessions
    if arguments.backbone not in profile.backbones:
        raise ConfigError(
            f"backbone {arguments.backbone!r} is not in profile {profile.profile}; it has: "
            f"{', '.join(sorted(profile.backbones))}"
        )
    windows = {name: entry.context_window_tokens for name, entry in profile.backbones.items()}
    documents = read_model(arguments.documents, DocumentSet)
    renderer = Renderer(read_model(arguments.model, PreparedModel).tokenizer_path)
    sessions = build_sessions(
        documents,
        plan,
        renderer.count_text,
        arguments.backbone,
        windows[arguments.backbone],
        window_tokens_of=windows,
    )
    write_model(arguments.output, sessions)
    num_documents = sum(len(session.documents) for session in sessions.sessions)
    num_tokens = sum(session.num_tokens for session in sessions.sessions)
    print(
        f"{arguments.dataset} for {arguments.backbone}: {len(sessions.sessions)} sessions, "
        f"{num_documents} documents, {num_tokens} tokens",
        file=sys.stderr,
    )


if __name__ == "__main__":
    run_command(main)
