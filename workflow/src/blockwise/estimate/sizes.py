"""Tokens of what conversations are made of: turns of a session, and what a worker's layout adds.

Texts are counted once for a session, and once for a layout on three short history blocks played
through the layout itself; everything after that is sums.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from blockwise.compaction.agent import ACKNOWLEDGEMENT, SYSTEM_PROMPT, turn_text
from blockwise.compaction.cell_spec import CellSpec
from blockwise.compaction.compactor import WRAPPER_HEADING, replace_by_summaries
from blockwise.compaction.history import Cut, History, Turn
from blockwise.compaction.layouts import Layout, load_layout
from blockwise.compaction.partition import HistoryBlock
from blockwise.data.dataset_format import load_format
from blockwise.data.documents import Document, Question, Session
from blockwise.models.renderer import Renderer

OPENING_CHARS = 200
"""Of a document on which a layout is tried: a quotation takes 160 at most."""


@dataclass(frozen=True)
class Exchange:
    """A user's turn and the recorded answer, in rendered tokens; `document` opens it."""

    user_tokens: int
    assistant_tokens: int
    is_asked: bool
    answer_text_tokens: int  # of the recorded answer without its template


@dataclass(frozen=True)
class SessionSizes:
    """One session in one backbone's tokens."""

    head_tokens: int  # the system prompt
    generation_tokens: int  # the opening of an answer
    shown: tuple[Exchange, ...]  # every document, and nothing asked
    asked: tuple[Exchange, ...]  # every document with its questions, a turn each
    question_tokens: tuple[int, ...]  # every question as a turn of its own


@dataclass(frozen=True)
class Shape:
    """What a layout shows one of several workers, and what it adds.

    Its own history block is always shown.
    """

    shows_before: bool  # the history blocks before its own
    shows_after: bool
    added_tokens: int  # scope, prompt, marks, and the opening of the answer


class Sizes:
    """Counts in the tokens of one backbone.

    Args:
        renderer: its template and tokenizer, or what is assumed of them.
    """

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer
        self._sessions: dict[int, tuple[Session, SessionSizes]] = {}
        self._shapes: dict[tuple[str, str, int], tuple[Shape, ...]] = {}
        self._wrappers: dict[int, int] = {}
        self.heading_tokens = renderer.count_text(WRAPPER_HEADING)  # every wrapper opens with it

    def session(self, session: Session) -> SessionSizes:
        """The turns of a session."""
        if id(session) not in self._sessions:  # kept beside its sizes, so that no id comes again
            self._sessions[id(session)] = (session, self._sized(session))
        return self._sessions[id(session)][1]

    def wrapper_tokens(self, num_summaries: int) -> int:
        """A wrapper message, beside the text of its summaries."""
        if num_summaries not in self._wrappers:
            head = History.with_system_prompt(SYSTEM_PROMPT)
            history = head.extended(Turn("user", ACKNOWLEDGEMENT))
            texts = [ACKNOWLEDGEMENT] * num_summaries
            wrapped = replace_by_summaries(history, (1, 2), texts)
            text_tokens = num_summaries * self._renderer.count_text(ACKNOWLEDGEMENT)
            self._wrappers[num_summaries] = self._added(head, wrapped) - text_tokens
        return self._wrappers[num_summaries]

    def shapes(self, spec: CellSpec, session: Session, num_blocks: int) -> list[Shape]:
        """What each worker of a compaction is sent: the first, any between, and the last."""
        content = load_format(spec.dataset_format).content
        prompt = spec.block_prompts.get(content, spec.prompt)
        num_tried = min(num_blocks, 3)
        key = (spec.layout, prompt, num_tried)
        if key not in self._shapes:
            layout = load_layout(spec.layout)
            self._shapes[key] = self._tried(layout, prompt, session, num_tried)
        first, *rest = self._shapes[key]
        return [first, *rest[:-1] * (num_blocks - 2), rest[-1]] if rest else [first]

    def _added(self, before: History, after: History) -> int:
        counts = (
            self._renderer.count(one.messages(), add_generation_prompt=False)
            for one in (after, before)
        )
        return next(counts) - next(counts)

    def _sized(self, session: Session) -> SessionSizes:
        shown: list[tuple[Document | None, Question | None]] = []
        asked: list[tuple[Document | None, Question | None]] = []
        for document in session.documents:
            shown.append((document, None))
            asked += [
                (document if number == 0 else None, question)
                for number, question in enumerate(document.questions or (None,))
            ]
        questions = [question for document in session.documents for question in document.questions]
        head = History.with_system_prompt(SYSTEM_PROMPT)
        probe = head.extended(Turn("user", ACKNOWLEDGEMENT)).messages()
        opened = self._renderer.count(probe, add_generation_prompt=True)
        return SessionSizes(
            head_tokens=self._renderer.ends(probe)[0],
            generation_tokens=opened - self._renderer.count(probe, add_generation_prompt=False),
            shown=self._exchanges(head, shown),
            asked=self._exchanges(head, asked),
            question_tokens=tuple(
                self._exchanges(head, [(None, one)])[0].user_tokens for one in questions
            ),
        )

    def _exchanges(
        self, head: History, turns: Sequence[tuple[Document | None, Question | None]]
    ) -> tuple[Exchange, ...]:
        history, answers = head, []
        for document, question in turns:
            answers.append(ACKNOWLEDGEMENT if question is None else question.answer)
            user = Turn("user", turn_text(document, question))
            history = history.extended(user, Turn("assistant", answers[-1]))
        ends = self._renderer.ends(history.messages())
        sizes = [after - before for before, after in pairwise(ends)]
        return tuple(
            Exchange(user, assistant, question is not None, self._renderer.count_text(answer))
            for (_, question), answer, user, assistant in zip(
                turns, answers, sizes[::2], sizes[1::2], strict=True
            )
        )

    def _tried(
        self, layout: Layout, prompt: str, session: Session, num_blocks: int
    ) -> tuple[Shape, ...]:
        """The layout's own requests on a conversation of one short exchange a history block."""
        openings = [document.text[:OPENING_CHARS] for document in session.documents]
        texts = [f"{openings[index % len(openings)]} {index}." for index in range(num_blocks)]
        history = History.with_system_prompt(SYSTEM_PROMPT)
        for text in texts:
            history = history.extended(Turn("user", text), Turn("assistant", ACKNOWLEDGEMENT))
        head, *ends = self._renderer.ends(history.messages())[::2]
        sizes = [after - before for before, after in pairwise([head, *ends])]
        blocks = [
            HistoryBlock(Cut(1 + 2 * index), Cut(3 + 2 * index), size)
            for index, size in enumerate(sizes)
        ]
        shapes = []
        for index in range(num_blocks):
            messages = layout.worker_messages(history, blocks, index, prompt)
            sent = "\n".join(str(message["content"]) for message in messages)
            is_shown = [text in sent for text in texts]
            shown_tokens = sum(size for size, shown in zip(sizes, is_shown, strict=True) if shown)
            tokens = self._renderer.count(messages, add_generation_prompt=True)
            shapes.append(
                Shape(
                    shows_before=any(is_shown[:index]),
                    shows_after=any(is_shown[index + 1 :]),
                    added_tokens=tokens - head - shown_tokens,
                )
            )
        return tuple(shapes)
