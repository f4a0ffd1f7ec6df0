"""The agent: play one session, compacting whenever the next request would exceed tau.

`immediate` sessions ask each question in the turn of its document. With the fixed transcript
every answer decodes the same number of tokens and the recorded assistant turn is appended, so
all arms see the same history, cross tau at the same turns and answer the same work; that is
what timing needs, and its accuracy is no recall measure. `deferred` sessions show the documents
only, end with one closing compaction over everything, and then ask each question in its own
branch of that frozen history: no question or answer is ever in a history that is compacted.
"""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Literal

from blockwise.compaction.compactor import Compaction, CompactionRule, Compactor, derive_seed
from blockwise.compaction.dispatch import run_together
from blockwise.compaction.history import History, Turn
from blockwise.compaction.records import AnswerRecord, CompactionRecord, RequestRecord
from blockwise.compaction.scoring import score_answer
from blockwise.config.datasets import DatasetFormat
from blockwise.data.documents import Document, Question, Session
from blockwise.errors import CompactionError
from blockwise.serving.engine import ChatRequest, Completion, Engine
from blockwise.serving.renderer import Renderer

SYSTEM_PROMPT = (
    "You read documents and answer questions about them. Answer with a few words and nothing "
    'else. If the documents do not say, answer "no information available".'
)
ACKNOWLEDGEMENT = "Noted."
"""The recorded assistant turn where a document is shown and nothing is asked."""

CONCURRENT_QUESTIONS = 8  # branches of a frozen history asked at once; they share its cache


@dataclass(frozen=True)
class AgentRule:
    """Everything beside the compaction rule that says how a session is played."""

    dataset_format: DatasetFormat
    question_timing: Literal["immediate", "deferred"]
    transcript: Literal["fixed", "free"]
    tau_tokens: int
    answer_tokens: int
    seed: int


@dataclass
class Playback:
    """What playing a session produced, in the order in which it happened."""

    requests: list[RequestRecord] = field(default_factory=list)
    compactions: list[CompactionRecord] = field(default_factory=list)
    answers: list[AnswerRecord] = field(default_factory=list)
    num_turns: int = 0
    cache_broken_turns: list[int] = field(default_factory=list)
    wall_s: float = 0.0


class Agent:
    """Plays one session once.

    Args:
        engine: client of the server.
        renderer: template and tokenizer of the backbone.
        rule: how the session is played.
        compaction: how its history is compacted.
        cache_salt: fresh for every attempt of a cell, shared by its turns and workers.
        kv_block_tokens: cache granularity; None switches the eviction check off.
    """

    def __init__(
        self,
        engine: Engine,
        renderer: Renderer,
        rule: AgentRule,
        compaction: CompactionRule,
        *,
        cache_salt: str | None,
        kv_block_tokens: int | None,
    ) -> None:
        self._engine = engine
        self._renderer = renderer
        self._rule = rule
        self._compactor = Compactor(engine, renderer, compaction)
        self._cache_salt = cache_salt
        self._kv_block_tokens = kv_block_tokens
        self._history = History.with_system_prompt(SYSTEM_PROMPT)
        self._playback = Playback()
        self._begin_s = 0.0
        self._num_compactions_of: dict[str, int] = {}  # by document in the history so far
        self._turn_of: dict[str, int] = {}  # its turn in the history; absent once summarised
        self._cached_prefix_tokens = 0  # prompt of the last agent request on this history

    async def play(self, session: Session) -> Playback:
        """Play every document of the session and return what was measured.

        Raises:
            CompactionError: a compaction failed or did not end below tau.
            EngineError: an answer could not be trusted.
        """
        self._begin_s = time.perf_counter()
        if self._rule.question_timing == "immediate":
            for index, document in enumerate(session.documents):
                await self._play_document(index, document)
        else:
            await self._show_documents(session)
            await self._compact(len(session.documents), closing=True)
            await self._ask_in_branches(session)
        self._playback.wall_s = time.perf_counter() - self._begin_s
        return self._playback

    async def _play_document(self, index: int, document: Document) -> None:
        asked: list[Question | None] = [*document.questions] or [None]
        for number, question in enumerate(asked):
            incoming = Turn("user", turn_text(document if number == 0 else None, question))
            await self._make_room(index, incoming)
            if number == 0:
                self._enter(document)
            completion = await self._ask(index, incoming)
            self._history = self._history.extended(
                incoming, Turn("assistant", self._assistant_text(question, completion))
            )
            self._playback.num_turns += 1
            if question is not None:
                self._score(index, document, question, completion.text)

    def _assistant_text(self, question: Question | None, completion: Completion) -> str:
        if self._rule.transcript == "free":
            return completion.text
        return question.answer if question is not None else ACKNOWLEDGEMENT

    def _enter(self, document: Document) -> None:
        """Note that the next turn of the history brings this document."""
        self._num_compactions_of[document.id] = 0
        self._turn_of[document.id] = len(self._history.turns)

    async def _show_documents(self, session: Session) -> None:
        for index, document in enumerate(session.documents):
            incoming = Turn("user", turn_text(document, None))
            await self._make_room(index, incoming)
            self._enter(document)
            self._history = self._history.extended(incoming, Turn("assistant", ACKNOWLEDGEMENT))
            self._playback.num_turns += 1

    async def _ask_in_branches(self, session: Session) -> None:
        gate = asyncio.Semaphore(CONCURRENT_QUESTIONS)

        async def ask(index: int, document: Document, question: Question) -> None:
            request = self._request(Turn("user", turn_text(None, question)), index)
            async with gate:
                completion = await self._engine.complete(request, max_attempts=2)
            self._record(request, completion, "question", index)
            self._score(index, document, question, completion.text)

        await run_together(
            ask(index, document, question)
            for index, document in enumerate(session.documents)
            for question in document.questions
        )
        self._playback.answers.sort(key=lambda answer: (answer.turn_index, answer.question_id))
        self._playback.requests.sort(key=lambda record: record.start_s)

    async def _make_room(self, index: int, incoming: Turn) -> None:
        """Compact if the rendered next request, answer budget included, exceeds tau."""
        needed = self._next_request_tokens(incoming)
        if needed <= self._rule.tau_tokens:
            return
        await self._compact(index, closing=False)
        left = self._next_request_tokens(incoming)
        if left > self._rule.tau_tokens:
            raise CompactionError(
                f"no_progress: after a compaction the next request of turn {index} still needs "
                f"{left} tokens (before: {needed}), tau is {self._rule.tau_tokens}; raise tau, "
                "lower the summary volume or keep fewer last turns verbatim"
            )

    def _next_request_tokens(self, incoming: Turn) -> int:
        messages = self._history.extended(incoming).messages()
        rendered = self._renderer.count(messages, add_generation_prompt=True)
        return rendered + self._rule.answer_tokens

    async def _compact(self, index: int, *, closing: bool) -> None:
        before_tokens = self._renderer.count(self._history.messages(), add_generation_prompt=False)
        number = len(self._playback.compactions)
        compaction = await self._compactor.compact(
            self._history,
            cache_salt=self._cache_salt,
            seed=derive_seed(self._rule.seed, 1, number),
            keep_last_turns=not closing,
        )
        for worker, (request, completion) in enumerate(
            zip(compaction.requests, compaction.workers, strict=True)
        ):
            self._record(request, completion, "worker", index, (number, worker))
        self._history = compaction.history
        after_tokens = self._renderer.count(self._history.messages(), add_generation_prompt=False)
        self._playback.compactions.append(
            _compaction_record(compaction, number, index, closing, (before_tokens, after_tokens))
        )
        self._check_worker_caches(index, compaction)
        self._cached_prefix_tokens = 0
        self._count_compaction(*compaction.turn_range)

    def _count_compaction(self, start: int, stop: int) -> None:
        """Count a compaction of the turns [start, stop) for the documents that were in them.

        A document is in its own turn until that is summarised, and in the wrapper from then on;
        the wrapper is the first turn that any later compaction replaces.
        """
        moved = stop - start - 1  # turns that the history became shorter
        for document_id in self._num_compactions_of:
            turn = self._turn_of.get(document_id)
            if turn is None or turn < stop:
                self._num_compactions_of[document_id] += 1
                self._turn_of.pop(document_id, None)
            else:
                self._turn_of[document_id] = turn - moved

    async def _ask(self, index: int, incoming: Turn) -> Completion:
        """One timed agent turn on the running history."""
        request = self._request(incoming, index)
        completion = await self._engine.complete(request)
        self._record(request, completion, "agent", index)
        self._check_cache(index, completion)
        last = self._playback.compactions[-1] if self._playback.compactions else None
        if last is not None and last.ttft_after_s is None:
            self._playback.compactions[-1] = last.model_copy(
                update={"ttft_after_s": completion.ttft_s}
            )
        return completion

    def _request(self, incoming: Turn, index: int) -> ChatRequest:
        timed = self._rule.question_timing == "immediate" and self._rule.transcript == "fixed"
        return ChatRequest(
            messages=self._history.extended(incoming).messages(),
            max_tokens=self._rule.answer_tokens,
            min_tokens=self._rule.answer_tokens if timed else 0,
            seed=derive_seed(self._rule.seed, 0, index),
            cache_salt=self._cache_salt,
        )

    def _check_cache(self, index: int, completion: Completion) -> None:
        """Notice an eviction: the last prompt of this history must still be cached."""
        self._expect_cached(index, completion, self._cached_prefix_tokens)
        self._cached_prefix_tokens = completion.prompt_tokens

    def _check_worker_caches(self, index: int, compaction: Compaction) -> None:
        """Notice an eviction during a compaction: what a worker shares with the last prompt."""
        for worker, untouched in zip(compaction.workers, compaction.untouched_tokens, strict=True):
            self._expect_cached(index, worker, min(untouched, self._cached_prefix_tokens))

    def _expect_cached(self, index: int, completion: Completion, num_tokens: int) -> None:
        if self._kv_block_tokens is None or completion.cached_tokens is None:
            return
        whole = num_tokens // self._kv_block_tokens * self._kv_block_tokens
        if completion.cached_tokens < whole:
            self._playback.cache_broken_turns.append(index)

    def _score(self, index: int, document: Document, question: Question, answer: str) -> None:
        score = score_answer(self._rule.dataset_format, answer, question)
        evidence = [name for name in question.evidence if name in self._num_compactions_of]
        counts = [self._num_compactions_of[name] for name in evidence or [document.id]]
        self._playback.answers.append(
            AnswerRecord(
                question_id=question.id,
                cluster=document.cluster,
                document_id=document.id,
                turn_index=index,
                category=question.category,
                question=question.text,
                gold=question.answer,
                answer=answer,
                exact_match=score.exact_match,
                f1=score.f1,
                num_evidence_compactions=min(counts),
            )
        )

    def _record(
        self,
        request: ChatRequest,
        completion: Completion,
        role: Literal["agent", "worker", "question"],
        index: int,
        place: tuple[int, int] | None = None,
    ) -> None:
        self._playback.requests.append(
            RequestRecord(
                role=role,
                turn_index=index,
                compaction_index=place[0] if place else None,
                worker_index=place[1] if place else None,
                num_messages=len(request.messages),
                prompt_tokens=completion.prompt_tokens,
                cached_tokens=completion.cached_tokens,
                completion_tokens=completion.completion_tokens,
                thinking_tokens=completion.thinking_tokens,
                max_tokens=request.max_tokens,
                start_s=completion.started_at_s - self._begin_s,
                ttft_s=completion.ttft_s,
                wall_s=completion.wall_s,
                finish_reason=completion.finish_reason,
                retry_reasons=completion.retry_reasons,
                text=completion.text,
                thinking_text=completion.thinking_text,
            )
        )


def turn_text(document: Document | None, question: Question | None) -> str:
    """The user's text: a document, a question, or a document with its first question."""
    parts = [] if document is None else [document.text]
    if question is not None:
        parts.append(f"Question: {question.text}")
    return "\n\n".join(parts)


def _compaction_record(
    compaction: Compaction, number: int, index: int, closing: bool, tokens: tuple[int, int]
) -> CompactionRecord:
    workers = compaction.workers
    cached = [worker.cached_tokens for worker in workers]
    known = [value for value in cached if value is not None]
    return CompactionRecord(
        index=number,
        turn_index=index,
        closing=closing,
        num_blocks=len(compaction.blocks),
        block_tokens=tuple(part.num_tokens for part in compaction.blocks),
        history_before_tokens=tokens[0],
        history_after_tokens=tokens[1],
        input_tokens=sum(part.num_tokens for part in compaction.blocks),
        output_tokens=sum(worker.completion_tokens for worker in workers),
        thinking_tokens=sum(worker.thinking_tokens for worker in workers),
        prompt_tokens=sum(worker.prompt_tokens for worker in workers),
        cached_tokens=sum(known) if len(known) == len(cached) else None,
        wall_s=compaction.wall_s,
        stall_s=compaction.stall_s,
        num_length_finishes=sum(worker.finish_reason == "length" for worker in workers),
        num_retried_workers=sum(worker.num_retries > 0 for worker in workers),
        ttft_after_s=None,
    )
