"""LoCoMo: one dated chat session of a long conversation is one document.

A row is a conversation of two people over months, cut into chat sessions; its questions
name the turns (dia ids such as `D8:6`, chat session 8, turn 6) that hold their evidence.
An agent that hears the conversation session by session can answer a question once it has
heard the last of them, so that is where the question is asked. The evidence strings
were typed by hand ("D8:6; D9:17", "D:11:26", "D"): every dia id found in them counts, and what
names no chat session of the conversation does not. Without any, the question goes to the end of
its conversation.

Questions say "she" and "the trip" and rely on one conversation being in view. Several
are chained here, so each question names its own.

Source: Maharana et al. 2024 (LoCoMo); file schema of the official release.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from blockwise.config.datasets import MalformedRows
from blockwise.data.documents import Document, Question
from blockwise.data.rows import MalformedRowError, OfficialRow, parse_row, read_documents

SESSION_KEY = re.compile(r"session_(\d{1,9})")  # of more digits no number can be made
DIA_ID = re.compile(r"D\s*:?\s*(\d{1,9})\s*:\s*\d+")

HEADLINE_CATEGORIES = frozenset({"1", "2", "4"})
"""Questions that only the conversation answers: multi-hop, temporal and single-hop.

Open-domain questions (3) ask for what a model may know or guess anyway, and adversarial ones (5)
for a refusal. A model that refuses everything is right on all of the latter, so recall of either
kind stands apart.
"""

ADVERSARIAL_CATEGORY = 5
NO_INFORMATION = "no information available"
"""Gold of every adversarial question: the official rule accepts nothing but a refusal."""

Text = Annotated[str, Field(min_length=1)]


class Turn(OfficialRow):
    """One line of a chat session; a shared photo comes as its caption."""

    speaker: Text
    text: str
    blip_caption: str | None = None


class OfficialQuestion(OfficialRow):
    """One question; adversarial ones mostly have no `answer`."""

    question: Text
    category: int = Field(ge=1, le=5)
    answer: str | int | float | None = None
    evidence: list[str] = Field(default_factory=list)

    @field_validator("evidence", mode="before")
    @classmethod
    def _absent_evidence_is_empty(cls, value: Any) -> Any:
        return [] if value is None else value  # exports with fixed columns write None

    @model_validator(mode="after")
    def _answerable_questions_have_an_answer(self) -> "OfficialQuestion":
        if self.category != ADVERSARIAL_CATEGORY and self.answer in (None, ""):
            raise ValueError(f"answer: a question of category {self.category} needs one")
        return self

    def gold(self) -> str:
        """The gold answer as text: some official ones are numbers."""
        return NO_INFORMATION if self.category == ADVERSARIAL_CATEGORY else str(self.answer)


class ChatSession(OfficialRow):
    """The lines of one chat session and when it took place."""

    date_time: Text
    turns: Annotated[list[Turn], Field(min_length=1)]


class LocomoRow(OfficialRow):
    """One conversation; `conversation` is still in its official, flat form."""

    sample_id: Text
    conversation: dict[str, Any]
    qa: list[OfficialQuestion]


class Speakers(OfficialRow):
    """The two people of a conversation."""

    speaker_a: Text
    speaker_b: Text


def read_rows(
    rows: Iterable[Mapping[str, Any]], *, origin: str, malformed: MalformedRows
) -> tuple[list[Document], list[str]]:
    """Read official rows.

    Returns:
        One document a chat session, conversation after conversation, each in
        chronological order; and a report for each skipped row (a whole conversation).

    Raises:
        DatasetError: a malformed row under `refuse`, or no row at all.
    """
    return read_documents(rows, _read_row, id_key="sample_id", origin=origin, malformed=malformed)


def name_conversation(question: str, speaker_a: str, speaker_b: str) -> str:
    """The question with the name of its conversation behind it.

    Before it the name was half a sentence, which models repeated instead of answering.
    """
    return f"{question} (asked about the chats of {speaker_a} and {speaker_b})"


def evidence_chat_sessions(evidence: Iterable[str]) -> list[int]:
    """Numbers of the chat sessions that evidence strings name, ascending, each once."""
    return sorted({int(number) for text in evidence for number in DIA_ID.findall(text)})


def _read_row(row: Any) -> list[Document]:
    parsed = parse_row(row, LocomoRow)
    speakers = parse_row(parsed.conversation, Speakers)
    chat_sessions = _chat_sessions(parsed.conversation)
    questions: dict[int, list[Question]] = {number: [] for number in chat_sessions}
    last_number = max(chat_sessions)
    for index, official in enumerate(parsed.qa):
        named = evidence_chat_sessions(official.evidence)
        # Without evidence the last chat session stands for it: when that one has been
        # compacted, so has everything before it.
        known = [number for number in named if number in chat_sessions] or [last_number]
        questions[known[-1]].append(
            Question(
                id=f"{parsed.sample_id}/q{index}",
                text=name_conversation(official.question, speakers.speaker_a, speakers.speaker_b),
                answer=official.gold(),
                category=str(official.category),
                evidence=tuple(_document_id(parsed.sample_id, number) for number in known),
            )
        )
    return [
        Document(
            id=_document_id(parsed.sample_id, number),
            cluster=parsed.sample_id,
            text=_render(speakers, chat_session),
            questions=tuple(questions[number]),
        )
        for number, chat_session in chat_sessions.items()
    ]


def _document_id(sample_id: str, number: int) -> str:
    return f"{sample_id}/session_{number}"


def _chat_sessions(conversation: Mapping[str, Any]) -> dict[int, ChatSession]:
    """Chat sessions by number, ascending; dates without a session are ignored."""
    found: dict[int, ChatSession] = {}
    for key, turns in conversation.items():
        match = SESSION_KEY.fullmatch(key)
        if match is None or not turns:
            continue
        form = {"turns": turns, "date_time": conversation.get(f"{key}_date_time")}
        if int(match[1]) in found:
            raise MalformedRowError(f"conversation.{key}: chat session {match[1]} is there twice")
        try:
            found[int(match[1])] = parse_row(form, ChatSession)
        except MalformedRowError as error:
            raise MalformedRowError(f"conversation.{key}: {error}") from error
    if not found:
        raise MalformedRowError("key conversation: has no session_N with turns")
    return dict(sorted(found.items()))


def _render(speakers: Speakers, chat_session: ChatSession) -> str:
    """A chat session as text: who talked, when, and every line under its speaker's name."""
    heading = (
        f"Chat between {speakers.speaker_a} and {speakers.speaker_b}, {chat_session.date_time}"
    )
    return "\n".join([heading, *map(_render_turn, chat_session.turns)])


def _render_turn(turn: Turn) -> str:
    photo = f" [shares a photo: {turn.blip_caption}]" if turn.blip_caption else ""
    return f"{turn.speaker}: {turn.text}{photo}"
