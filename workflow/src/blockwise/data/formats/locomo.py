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

An answer has an F1 over stemmed words, by category: a multi-hop gold answer is a comma-separated
list whose parts are scored apart, an open-domain one carries its explanation behind a semicolon,
and an adversarial question is right only if the answer says that nothing is known.

Source: Maharana et al. 2024 (LoCoMo); file schema and evaluation script (task_eval) of the
official release, the rules of the script rewritten.
"""

import re
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from blockwise.config.choices import ContentType
from blockwise.data.dataset_format import DatasetFormat, UsualDocuments
from blockwise.data.documents import Document, Question
from blockwise.data.rows import MalformedRowError, OfficialRow, parse_row
from blockwise.data.scoring import Score, contains_gold, is_refusal, normalize, word_f1

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

REFUSALS = (NO_INFORMATION, "not mentioned")
"""Phrases that make the answer to an adversarial question right."""

MULTI_HOP, OPEN_DOMAIN, ADVERSARIAL = "1", "3", str(ADVERSARIAL_CATEGORY)
"""Categories whose answers have a rule of their own; 2 and 4 are plain F1."""

DROPPED = re.compile(r"\b(a|an|the|and)\b")
"""Words that count for nothing."""

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


def score_answer(answer: str, question: Question) -> Score:
    """Score one answer; there is no official exact match.

    The gold of an adversarial question is ignored: only a refusal is right. The explanation behind
    an open-domain gold's semicolon is no part of the gold.
    """
    if question.category == ADVERSARIAL:
        refused = float(is_refusal(answer, REFUSALS))
        return Score(exact_match=None, f1=refused, contains_gold=refused)
    gold = question.answer
    if question.category == OPEN_DOMAIN:
        gold = gold.split(";", maxsplit=1)[0]
    f1_of = _multi_hop_f1 if question.category == MULTI_HOP else _stemmed_f1
    contained = float(contains_gold(answer, gold, stemmed_words))
    return Score(exact_match=None, f1=f1_of(answer, gold), contains_gold=contained)


def stemmed_words(text: str) -> list[str]:
    """Stemmed words, lower-case, without punctuation, articles and "and"."""
    return [_stem(word) for word in normalize(text, DROPPED).split()]


def _multi_hop_f1(answer: str, gold: str) -> float:
    """Mean over the parts of the gold, each against the part of the answer that fits it best."""
    parts = answer.split(",")
    best = [max(_stemmed_f1(part, wanted) for part in parts) for wanted in gold.split(",")]
    return sum(best) / len(best)


def _stemmed_f1(answer: str, gold: str) -> float:
    return word_f1(stemmed_words(answer), stemmed_words(gold))


@cache
def _stemmer() -> Any:
    """NLTK's Porter stemmer in its default mode; imported late, it costs a second."""
    from nltk.stem.porter import PorterStemmer  # type: ignore[import-untyped]  # noqa: PLC0415

    return PorterStemmer()


@lru_cache(maxsize=65_536)  # more than the distinct words of LoCoMo; bounds a long table job
def _stem(word: str) -> str:
    return str(_stemmer().stem(word))


FORMAT = DatasetFormat(
    id_keys=("sample_id",),
    read_row=_read_row,
    content=ContentType.DIALOGUE,
    score=score_answer,
    headline_categories=HEADLINE_CATEGORIES,
    has_conversations=True,
    # Source of the size: arXiv 2605.23296 (secondary reading); ten conversations are published.
    usual=UsualDocuments(document_tokens=700, category="4", num_questions=6, num_conversations=10),
)
