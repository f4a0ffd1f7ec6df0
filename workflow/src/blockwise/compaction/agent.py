"""The agent: a conversation with one engine that is compacted when it outgrows tau.

The agent keeps the running history, compacts it before any request that would exceed tau,
asks, checks that the engine still held the history it should have cached, scores answers, and
writes down everything that happened. What is shown and asked, and when, is the protocol's
business (blockwise.compaction.protocols).
"""

import asyncio
import time
from dataclasses import dataclass, field

from blockwise.compaction.acceptance import Answer
from blockwise.compaction.ahead import AnswersAhead
from blockwise.compaction.by_strategy import compactor_of
from blockwise.compaction.compactor import Compaction, CompactionRule, derive_seed
from blockwise.compaction.history import History, Turn
from blockwise.compaction.records import (
    AnswerContext,
    AnswerRecord,
    CompactionRecord,
    RequestRecord,
    RequestRole,
)
from blockwise.config.choices import SummaryFault
from blockwise.data.dataset_format import load_format
from blockwise.data.documents import Document, Question
from blockwise.errors import CompactionError
from blockwise.models.renderer import Renderer
from blockwise.serving.client import ChatRequest, Completion, EngineClient

SYSTEM_PROMPT = (
    "You are a helpful assistant. The user shows you texts, one message after another, and asks "
    "you about them later."
)
ANSWER_FORM = "Give only the answer, in at most six words."
"""How every question ends. An instruction beside the question is followed better than the same
words in the system prompt, which stand thousands of tokens before it. Nobody is told that an
answer may be missing: small models then say so of everything (decision 0042)."""

ACKNOWLEDGEMENT = "Noted."
"""The recorded assistant turn where a document is shown and nothing is asked."""


@dataclass(frozen=True)
class AgentRule:
    """Everything beside the compaction rule that says how an agent behaves."""

    dataset_format: str
    tau_tokens: int | None  # None: nothing triggers a compaction
    answer_tokens: int
    forced_answers: bool  # every answer decodes exactly answer_tokens
    seed: int
    is_eager: bool = False  # workers are sent as soon as their history block is closed
    max_background_workers: int | None = None  # before a compaction is due; None: any number
    tool_wait_s: float = 0.0  # between an answer and the next document


@dataclass
class Playback:
    """What playing a session produced, in the order in which it happened."""

    requests: list[RequestRecord] = field(default_factory=list)
    compactions: list[CompactionRecord] = field(default_factory=list)
    answers: list[AnswerRecord] = field(default_factory=list)
    num_turns: int = 0
    cache_broken_turns: list[int] = field(default_factory=list)
    wall_s: float = 0.0
    waited_s: float = 0.0  # part of it: for tools
    num_failed_ahead: int = 0  # workers that failed before their compaction was due


class Agent:
    """One conversation.

    Args:
        engine: client of the server.
        renderer: template and tokenizer of the backbone.
        rule: how the agent behaves.
        compaction: how its history is compacted; None for a reference that never is.
        cache_salt: fresh for every attempt of a timing cell, shared by its turns and workers.
        kv_block_tokens: cache granularity; None switches the eviction check off.
        finds_cut_history: whether the engine finds part of a cached prompt, not the whole only.
    """

    def __init__(
        self,
        engine: EngineClient,
        renderer: Renderer,
        rule: AgentRule,
        compaction: CompactionRule | None,
        *,
        cache_salt: str | None,
        kv_block_tokens: int | None,
        finds_cut_history: bool = True,
    ) -> None:
        self._engine = engine
        self._rule = rule
        self._format = load_format(rule.dataset_format)
        self._compactor = compactor_of(engine, renderer, compaction) if compaction else None
        self._cache_salt = cache_salt
        self._kv_block_tokens = kv_block_tokens
        self._finds_cut_history = finds_cut_history
        self._begin_s = time.perf_counter()
        self._num_compactions_of: dict[str, int] = {}  # by document in the history so far
        self._turn_of: dict[str, int] = {}  # its turn in the history; absent once summarised
        self._cached_prefix_tokens = 0  # prompt of the last agent request on this history
        self._ahead: AnswersAhead | None = None
        if rule.is_eager:
            self._ahead = AnswersAhead(rule.max_background_workers, self._record_unused)
        self.renderer = renderer
        self.history = History.with_system_prompt(SYSTEM_PROMPT)
        self.playback = Playback()

    def begin(self) -> None:
        """Start the clock of the cell."""
        self._begin_s = time.perf_counter()

    def end(self) -> None:
        """Stop it."""
        self.playback.wall_s = time.perf_counter() - self._begin_s

    async def drain(self) -> None:
        """Wait for workers that no compaction needs any more, so that no other cell meets them."""
        if self._ahead is not None:
            await self._ahead.drain()
            self.playback.num_failed_ahead = self._ahead.num_failed

    async def wait_for_tool(self) -> None:
        """Wait as long as a tool takes, which every arm of a session does."""
        if self._rule.tool_wait_s:
            begin_s = time.perf_counter()
            await asyncio.sleep(self._rule.tool_wait_s)
            self.playback.waited_s += time.perf_counter() - begin_s

    def work_ahead(self) -> int:
        """Send the workers of closed history blocks, if the arm is eager; how many were sent."""
        if self._ahead is None:
            return 0
        assert self._compactor is not None  # a reference is not eager
        return self._compactor.send_ahead(
            self.history,
            cache_salt=self._cache_salt,
            seed=self._compaction_seed(),
            ahead=self._ahead,
        )

    async def finish_ahead(self) -> None:
        """Send the workers of all closed history blocks and wait for them, if the arm is eager."""
        while self._ahead is not None and (self.work_ahead() or self._ahead.num_running):
            await self._ahead.wait_for_one()

    def _compaction_seed(self) -> int:
        """Of the next compaction, whenever its workers are sent."""
        return derive_seed(self._rule.seed, 1, len(self.playback.compactions))

    def incoming(self, document: Document | None, question: Question | None) -> Turn:
        """The user's turn that brings a document, a question, or both."""
        text = turn_text(document, question)
        if document is None:
            return Turn("user", text)
        return Turn("user", text, content=self._format.content)

    def append(self, document: Document | None, incoming: Turn, assistant_text: str) -> None:
        """Take an exchange into the history; `document` is the one that it brings."""
        if document is not None:
            self._num_compactions_of[document.id] = 0
            self._turn_of[document.id] = len(self.history.turns)
        self.history = self.history.extended(incoming, Turn("assistant", assistant_text))
        self.playback.num_turns += 1

    async def make_room(self, index: int, incoming: Turn) -> None:
        """Compact if the rendered next request, answer budget included, exceeds tau.

        Raises:
            CompactionError: a compaction failed or did not end below tau.
        """
        tau_tokens = self._rule.tau_tokens
        if tau_tokens is None:
            return
        needed = self._next_request_tokens(incoming)
        if needed <= tau_tokens:
            return
        await self.compact(index, closing=False)
        left = self._next_request_tokens(incoming)
        if left > tau_tokens:
            raise CompactionError(
                f"no_progress: after a compaction the next request of turn {index} still needs "
                f"{left} tokens (before: {needed}), tau is {tau_tokens}; raise tau, lower the "
                "summary volume or keep fewer last turns verbatim"
            )

    def _next_request_tokens(self, incoming: Turn) -> int:
        messages = self.history.extended(incoming).messages()
        return self.renderer.count(messages, add_generation_prompt=True) + self._rule.answer_tokens

    async def compact(self, index: int, *, closing: bool) -> None:
        """Replace the history by its summaries; a closing compaction leaves no turn verbatim.

        Raises:
            CompactionError: it failed; the history is as it was.
        """
        assert self._compactor is not None  # a reference has no tau and closes nothing
        before_tokens = self.history_tokens()
        number = len(self.playback.compactions)
        compaction = await self._compactor.compact(
            self.history,
            cache_salt=self._cache_salt,
            seed=self._compaction_seed(),
            keep_last_turns=not closing,
            ahead=self._ahead,
        )
        for worker, (request, completion, fault) in enumerate(
            zip(compaction.requests, compaction.workers, compaction.faults, strict=True)
        ):
            self._record(request, completion, "worker", index, (number, worker), fault=fault)
        moved = len(self.history.turns) - len(compaction.history.turns)
        self.history = compaction.history
        self.playback.compactions.append(
            _compaction_record(
                compaction, number, index, closing, (before_tokens, self.history_tokens())
            )
        )
        self._check_worker_caches(index, compaction)
        self._cached_prefix_tokens = 0
        self._count_compaction(compaction.turn_range[1], moved)

    def history_tokens(self) -> int:
        """Rendered tokens of the history, generation prompt excluded."""
        return self.renderer.count(self.history.messages(), add_generation_prompt=False)

    def _count_compaction(self, stop: int, moved: int) -> None:
        """Count a compaction of the turns before `stop` for the documents that were in them.

        A document is in its own turn until a compaction goes over that. Whatever stands for it from
        then on, the wrapper or what a strategy left of it, is gone over by every later one.

        Args:
            stop: the first turn that stayed as it was.
            moved: turns that the history became shorter.
        """
        for document_id in self._num_compactions_of:
            turn = self._turn_of.get(document_id)
            if turn is None or turn < stop:
                self._num_compactions_of[document_id] += 1
                self._turn_of.pop(document_id, None)
            else:
                self._turn_of[document_id] = turn - moved

    async def ask(self, index: int, incoming: Turn) -> Completion:
        """One agent turn on the running history, whose cached prefix is checked."""
        request = self._request(self.history.extended(incoming), index)
        return await self._ask(index, request)

    async def prime(self, index: int) -> None:
        """Bring the history into the cache as the agent's own traffic would have.

        The request is the one to which the last recorded assistant turn was the answer.
        """
        messages = History(self.history.turns[:-1]).messages()
        await self._ask(index, ChatRequest(messages, 1, 1, cache_salt=self._cache_salt))

    async def _ask(self, index: int, request: ChatRequest) -> Completion:
        completion = await self._engine.complete(request)
        self._record(request, completion, "agent", index)
        self._check_cache(index, completion)
        last = self.playback.compactions[-1] if self.playback.compactions else None
        if last is not None and last.ttft_after_s is None:
            self.playback.compactions[-1] = last.model_copy(
                update={"ttft_after_s": completion.ttft_s}
            )
        return completion

    async def ask_in_branch(
        self, index: int, history: History, question: Question
    ) -> tuple[ChatRequest, Completion]:
        """Ask on a history of the caller's; nothing of it enters the running one.

        Not recorded: what was asked at once is recorded in its own order, not in that of the
        answers, which a retried request changes (`record_question`).
        """
        request = self._request(history.extended(self.incoming(None, question)), index)
        return request, await self._engine.complete(request, max_attempts=2)

    def record_question(self, request: ChatRequest, completion: Completion, index: int) -> None:
        """Record what was asked in a branch."""
        self._record(request, completion, "question", index)

    async def warm(self, history: History) -> None:
        """Bring a bystander's conversation into the cache; not recorded."""
        await self._engine.complete(
            ChatRequest(history.messages(), 1, 1, cache_salt=self._cache_salt), max_attempts=2
        )

    async def ask_as_bystander(
        self, number: int, history: History, answer_tokens: int, *, meanwhile: bool
    ) -> None:
        """One request of another session on the same engine.

        Args:
            number: which bystander.
            history: its conversation, ending with a user's turn.
            answer_tokens: decoded exactly.
            meanwhile: whether the compaction is under way.
        """
        request = ChatRequest(
            history.messages(), answer_tokens, answer_tokens, cache_salt=self._cache_salt
        )
        completion = await self._engine.complete(request, max_attempts=2)
        self._record(request, completion, "bystander", 0, (0 if meanwhile else None, number))

    def _request(self, history: History, index: int) -> ChatRequest:
        return ChatRequest(
            messages=history.messages(),
            max_tokens=self._rule.answer_tokens,
            min_tokens=self._rule.answer_tokens if self._rule.forced_answers else 0,
            seed=derive_seed(self._rule.seed, 0, index),
            cache_salt=self._cache_salt,
        )

    def _check_cache(self, index: int, completion: Completion) -> None:
        """Notice an eviction: the last prompt of this history must still be cached."""
        self._expect_cached(index, completion, self._cached_prefix_tokens)
        self._cached_prefix_tokens = completion.prompt_tokens

    def _check_worker_caches(self, index: int, compaction: Compaction) -> None:
        """Notice an eviction during a compaction: what a worker shares with the last prompt."""
        cached = self._cached_prefix_tokens
        for worker, untouched in zip(compaction.workers, compaction.untouched_tokens, strict=True):
            if untouched >= cached or self._finds_cut_history:
                self._expect_cached(index, worker, min(untouched, cached))

    def _expect_cached(self, index: int, completion: Completion, num_tokens: int) -> None:
        if self._kv_block_tokens is None or completion.cached_tokens is None:
            return
        # Where parts are not found, the cache holds what the same prompt could find again, and
        # that is all but its last token.
        reach = num_tokens if self._finds_cut_history else num_tokens - 1
        whole = reach // self._kv_block_tokens * self._kv_block_tokens
        if completion.cached_tokens < whole:
            self.playback.cache_broken_turns.append(index)

    def score(
        self,
        index: int,
        document: Document,
        question: Question,
        answer: str,
        context: AnswerContext,
    ) -> None:
        """Score an answer and note how often its evidence has been compacted."""
        score = self._format.score(answer, question)
        evidence = [name for name in question.evidence if name in self._num_compactions_of]
        counts = [self._num_compactions_of.get(name, 0) for name in evidence or [document.id]]
        self.playback.answers.append(
            AnswerRecord(
                question_id=question.id,
                cluster=document.cluster,
                document_id=document.id,
                turn_index=index,
                context=context,
                category=question.category,
                question=question.text,
                gold=question.answer,
                answer=answer,
                exact_match=score.exact_match,
                f1=score.f1,
                contains_gold=score.contains_gold,
                num_evidence_compactions=min(counts),
            )
        )

    def _record_unused(self, request: ChatRequest, answer: Answer) -> None:
        """Record a summary that no compaction took: it was paid."""
        self._record(request, answer.completion, "unused", self.playback.num_turns)

    def _record(
        self,
        request: ChatRequest,
        completion: Completion,
        role: RequestRole,
        index: int,
        compaction_and_worker: tuple[int | None, int | None] = (None, None),
        *,
        fault: SummaryFault | None = None,
    ) -> None:
        self.playback.requests.append(
            RequestRecord(
                role=role,
                turn_index=index,
                compaction_index=compaction_and_worker[0],
                worker_index=compaction_and_worker[1],
                num_messages=len(request.messages),
                prompt_tokens=completion.prompt_tokens,
                cached_tokens=completion.cached_tokens,
                completion_tokens=completion.completion_tokens,
                thinking_tokens=completion.thinking_tokens,
                max_tokens=request.max_tokens,
                start_s=completion.started_at_s - self._begin_s,
                ttft_s=completion.ttft_s,
                wall_s=completion.wall_s,
                queue_s=completion.queue_s,
                decode_s=completion.decode_s,
                finish_reason=completion.finish_reason,
                summary_fault=fault,
                retry_reasons=completion.retry_reasons,
                text=completion.text,
                thinking_text=completion.thinking_text,
            )
        )


def turn_text(document: Document | None, question: Question | None) -> str:
    """The user's text: a document, a question, or a document with its first question."""
    parts = [] if document is None else [document.text]
    if question is not None:
        parts.append(question_text(question.text))
    return "\n\n".join(parts)


def question_text(question: str) -> str:
    """A question and the form of its answer."""
    return f"Question: {question}\n{ANSWER_FORM}"


def _compaction_record(
    compaction: Compaction, number: int, index: int, closing: bool, tokens: tuple[int, int]
) -> CompactionRecord:
    workers, due_s = compaction.workers, compaction.begin_s
    ahead = [worker for worker in workers if worker.started_at_s < due_s]
    cached = [worker.cached_tokens for worker in workers]
    known = [value for value in cached if value is not None]
    return CompactionRecord(
        index=number,
        turn_index=index,
        closing=closing,
        num_blocks=len(compaction.blocks),
        block_tokens=tuple(part.num_tokens for part in compaction.blocks),
        block_content=compaction.block_content,
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
        num_ahead_workers=len(ahead),
        background_s=sum(min(worker.wall_s, due_s - worker.started_at_s) for worker in ahead),
        ttft_after_s=None,
    )
