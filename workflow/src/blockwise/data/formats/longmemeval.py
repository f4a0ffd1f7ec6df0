"""LongMemEval: one dated chat session between a user and an assistant is one document.

A row is one question and the haystack that its user has told the assistant: dozens of dated chat
sessions, of which a few hold the evidence. `longmemeval_oracle.json` has the evidence alone and in
no order, so chat sessions are sorted by their dates. Some haystacks hold the same chat session on
two days, so documents are numbered in their haystack and not called by the official ids.

The user has no name. Haystacks of several users may be chained into one session, so each document
names its user by a code, and so does the question. The code is drawn from the id of the row: that
id itself ends in `_abs` where the question cannot be answered, and would give it away.

The official score is the verdict of an LLM judge, whose instructions differ by question type, and
there is no official exact match. The scores here are what strings can say of the same questions:

- F1 over words, and whether the answer contains the gold one. A gold of temporal reasoning may
  name a second answer that is acceptable too; the better of both counts.
- An abstention question is right if the answer says that the information is not there.
- The gold of a preference question is a rubric for the judge, which no word overlap stands for.
  Preference questions therefore stand apart, and so do abstention questions.

Deviation: the official question comes after the whole haystack. Here it comes at its last evidence
session, as in every dataset of this study, so that its distance from its evidence is known.

Source: Wu et al. 2024 (LongMemEval, arXiv 2410.10813), MIT licence; file schema and evaluation
rules of the official release, the rules rewritten.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import Field

from blockwise.artifacts import digest
from blockwise.config.choices import ContentType
from blockwise.data.dataset_format import DatasetFormat, UsualDocuments
from blockwise.data.documents import Document, Question
from blockwise.data.rows import MalformedRowError, OfficialRow, parse_row
from blockwise.data.scoring import Score, contains_gold, is_refusal, plain_words, word_f1

QuestionType = Literal[
    "single-session-user",
    "single-session-assistant",
    "single-session-preference",
    "temporal-reasoning",
    "knowledge-update",
    "multi-session",
]
HEADLINE_CATEGORIES = frozenset(
    {
        "single-session-user",
        "single-session-assistant",
        "temporal-reasoning",
        "knowledge-update",
        "multi-session",
    }
)
"""Question types whose gold is an answer, which only the haystack gives."""

ABSTENTION = "abstention"
"""Category of the questions, of any type, that their haystack does not answer."""

ABSTENTION_SUFFIX = "_abs"  # of their ids

REFUSALS = (
    "no information",
    "not mention",  # not mentioned, did not mention
    "n't mention",
    "not enough",
    "not provided",
)
"""Phrases that make an answer to an abstention question right: ours, from the words of its golds.

Source of the golds: "You did not mention ..." and "The information provided is not enough".
"""

ALSO_ACCEPTABLE = re.compile(
    r"(?P<first>.+?)\. (?P<second>.+?)(?: \([^()]*\))? is also acceptable\.?"
)
"""A gold with two right answers, as in "7 days. 8 days (including the last day) is also ..."."""

USER_CODE_CHARS = 6  # 16 million codes: two of 500 users share one with a chance below 1%

Text = Annotated[str, Field(min_length=1)]
DateTime = Annotated[str, Field(pattern=r"^\d{4}/\d{2}/\d{2} \(\w{3}\) \d{2}:\d{2}$")]
"""In the form `2023/05/30 (Tue) 23:40`, whose alphabetical order is the order of time."""


class Turn(OfficialRow):
    """One message of a chat session; `has_answer` marks evidence and is not needed."""

    role: Literal["user", "assistant"]
    content: str


class LongMemEvalRow(OfficialRow):
    """One question with its haystack: three lists of the same length."""

    question_id: Text
    question_type: QuestionType
    question: Text
    answer: str | int | float
    question_date: DateTime
    haystack_session_ids: Annotated[list[Text], Field(min_length=1)]
    haystack_dates: list[DateTime]
    haystack_sessions: list[list[Turn]]
    answer_session_ids: list[str]

    @property
    def is_abstention(self) -> bool:
        """Whether the haystack does not answer the question."""
        return self.question_id.endswith(ABSTENTION_SUFFIX)


def _read_row(row: Any) -> list[Document]:
    parsed = parse_row(row, LongMemEvalRow)
    user = digest(parsed.question_id)[:USER_CODE_CHARS]
    chat_sessions = _chat_sessions(parsed)
    ids = [f"{parsed.question_id}/{number:03d}" for number in range(len(chat_sessions))]
    # Without evidence the last chat session stands for it: when that one has been compacted, so
    # has everything before it.
    evidence = [
        document_id
        for document_id, (_, session_id, _) in zip(ids, chat_sessions, strict=True)
        if session_id in parsed.answer_session_ids
    ] or ids[-1:]
    question = Question(
        id=parsed.question_id,
        text=f"{parsed.question} (asked by user {user} on {parsed.question_date})",
        answer=str(parsed.answer),
        category=ABSTENTION if parsed.is_abstention else parsed.question_type,
        evidence=tuple(evidence),
    )
    return [
        Document(
            id=document_id,
            cluster=parsed.question_id,
            text=_render(user, date, turns),
            questions=(question,) if document_id == evidence[-1] else (),
        )
        for document_id, (date, _, turns) in zip(ids, chat_sessions, strict=True)
    ]


def _chat_sessions(row: LongMemEvalRow) -> list[tuple[str, str, list[Turn]]]:
    """Date, id and messages of each chat session that has any, in chronological order."""
    dates, names, turns = row.haystack_dates, row.haystack_session_ids, row.haystack_sessions
    if not len(dates) == len(names) == len(turns):
        raise MalformedRowError(
            f"haystack_session_ids, haystack_dates and haystack_sessions have {len(names)}, "
            f"{len(dates)} and {len(turns)} entries, not one each for every chat session"
        )
    found = [one for one in zip(dates, names, turns, strict=True) if one[2]]
    if not found:
        raise MalformedRowError("key haystack_sessions: no chat session has a message")
    return sorted(found, key=lambda one: one[0])


def _render(user: str, date: str, turns: list[Turn]) -> str:
    """A chat session as text: whose it is, when it was, and every message under its role."""
    lines = (f"{turn.role.capitalize()}: {turn.content}" for turn in turns)
    return "\n".join([f"Chat of user {user} with an assistant, {date}", *lines])


def score_answer(answer: str, question: Question) -> Score:
    """Score one answer by strings; the official judge stands in for none of this.

    The gold of an abstention question explains why there is no answer, and is ignored.
    """
    if question.category == ABSTENTION:
        refused = float(is_refusal(answer, REFUSALS))
        return Score(exact_match=None, f1=refused, contains_gold=refused)
    golds = acceptable_answers(question.answer)
    words = plain_words(answer)
    return Score(
        exact_match=None,
        f1=max(word_f1(words, plain_words(gold)) for gold in golds),
        contains_gold=float(any(contains_gold(answer, gold) for gold in golds)),
    )


def acceptable_answers(gold: str) -> list[str]:
    """The answers that a gold accepts: mostly itself alone."""
    match = ALSO_ACCEPTABLE.fullmatch(gold.strip())
    return [match["first"], match["second"]] if match else [gold]


FORMAT = DatasetFormat(
    id_keys=("question_id",),
    read_row=_read_row,
    content=ContentType.DIALOGUE,
    score=score_answer,
    headline_categories=HEADLINE_CATEGORIES,
    has_conversations=True,
    # Source: longmemeval_s of the official release: 500 haystacks of about 115k tokens (its README)
    # and of 48 chat sessions on average, one question each.
    usual=UsualDocuments(
        document_tokens=2400,
        category="multi-session",
        documents_per_asked=48,
        num_conversations=500,
    ),
)
