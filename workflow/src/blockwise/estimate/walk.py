"""A cell's requests by arithmetic: no event loop, no engine, no text.

The history is a list of turn sizes. It grows by a user's turn (a document, a question, or both)
and the recorded answer. Where the next request would exceed tau, N = ceil(X / B) workers share a
forced volume or each decode a natural one, and the summaries become the first turn. What a worker
is sent follows from its layout's `Shape`; what it finds in the cache is the longest prefix of the
conversation that was computed before it, in whole KV blocks. `tests/estimate` holds the sums
against cells that the protocols play on an engine double.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from blockwise.compaction.cell_spec import CellSpec
from blockwise.compaction.compactor import split_exactly
from blockwise.compaction.layouts import load_layout
from blockwise.compaction.protocols.deferred import CONCURRENT_QUESTIONS, part_starts
from blockwise.compaction.strategy import IDENTIFIER_TOKENS, Amounts, load_strategy
from blockwise.config.arms import SEQUENTIAL, Reference
from blockwise.config.choices import Boundary, OpenBlock, Protocol, Transcript, VolumeMode
from blockwise.data.documents import Session
from blockwise.errors import CompactionError
from blockwise.estimate.sizes import Exchange, Sizes
from blockwise.estimate.strategy_bill import Prices, kept_tokens

MEANWHILE = "meanwhile"
"""The role of what a bystander asks during a compaction, as often as that leaves time for."""


@dataclass(frozen=True)
class NaturalVolume:
    """Shares of their budgets that answers take when they stop by themselves."""

    worker_frac: float = 1.0  # the budget: an upper bound
    answer_frac: float = 1.0
    kept_frac: float = 1.0  # of what a worker decodes: its summary, without the thinking


@dataclass(frozen=True)
class Cache:
    """What a server's prefix cache finds."""

    kv_block_tokens: int
    finds_cut_history: bool  # part of an earlier conversation, not only the whole of one


@dataclass(frozen=True)
class Wave:
    """Requests of one kind, `at_once` of them running beside each other. Units: tokens."""

    role: str
    num_requests: int
    at_once: int
    prompt_tokens: int
    uncached_tokens: int
    decoded_tokens: int


@dataclass(frozen=True)
class Walked:
    """All requests of one cell, in order."""

    waves: tuple[Wave, ...]
    most_request_tokens: int  # prompt and answer of the longest
    most_kv_tokens: int  # alive at once in a compaction
    num_answers: int
    waited_s: float  # for tools
    failure: str | None  # why it would fail; what comes after is not counted


@dataclass
class _Turn:
    tokens: int
    is_user: bool


class _Walk:
    """One cell on its way."""

    def __init__(
        self, spec: CellSpec, session: Session, sizes: Sizes, volume: NaturalVolume, cache: Cache
    ) -> None:
        self._spec, self.session, self._all_sizes = spec, session, sizes
        self._volume, self._cache = volume, cache
        self.sizes = sizes.session(session)
        self.turns = [_Turn(self.sizes.head_tokens, is_user=False)]
        self.waves: list[Wave] = []
        self.most_request_tokens = self.most_kv_tokens = self.num_answers = 0
        self._cached_tokens = 0  # the last prompt on this history
        self._opening_tokens = self.sizes.head_tokens  # cached, and opens the next history too
        self.answer_tokens = self._natural(spec.answer_tokens, volume.answer_frac)

    @property
    def history_tokens(self) -> int:
        return sum(turn.tokens for turn in self.turns)

    def append(self, exchange: Exchange, assistant_tokens: int | None = None) -> None:
        self.turns.append(_Turn(exchange.user_tokens, is_user=True))
        tokens = exchange.assistant_tokens if assistant_tokens is None else assistant_tokens
        self.turns.append(_Turn(tokens, is_user=False))

    def make_room(self, exchange: Exchange) -> None:
        """Compact before a turn that would exceed tau.

        Raises:
            CompactionError: it would exceed tau after it too.
        """
        tau_tokens = self._spec.tau_tokens
        if tau_tokens is None or self._needed(exchange) <= tau_tokens:
            return
        self.compact(closing=False)
        if self._needed(exchange) > tau_tokens:
            raise CompactionError(
                f"after a compaction the next request needs {self._needed(exchange)} tokens, tau "
                f"is {tau_tokens}; raise tau or lower the volume"
            )

    def _needed(self, exchange: Exchange) -> int:
        beside = self.sizes.generation_tokens + self._spec.answer_tokens
        return self.history_tokens + exchange.user_tokens + beside

    def ask(self, prompt_tokens: int, decoded_tokens: int) -> None:
        """One turn of the agent on its history."""
        uncached = prompt_tokens - self._found(self._cached_tokens, prompt_tokens)
        self._send(Wave("agent", 1, 1, prompt_tokens, uncached, decoded_tokens))
        self._cached_tokens = prompt_tokens

    def ask_in_branches(self, history_tokens: int, num_documents: int | None = None) -> None:
        """Every question of these documents on one frozen history, which the first one computes."""
        documents = self.session.documents[:num_documents]
        num_asked = sum(len(document.questions) for document in documents)
        asked = self.sizes.question_tokens[:num_asked]
        if not asked:
            return
        prompts = [history_tokens + one + self.sizes.generation_tokens for one in asked]
        found = sum(self._found(history_tokens, prompt) for prompt in prompts[1:])
        self._send(
            Wave(
                "question",
                len(asked),
                min(CONCURRENT_QUESTIONS, len(asked)),
                sum(prompts),
                sum(prompts) - found,
                len(asked) * self.answer_tokens,
            ),
            max(prompts) + self._spec.answer_tokens,
        )
        self.num_answers += len(asked)
        self._cached_tokens = history_tokens

    def compact(self, *, closing: bool) -> None:
        """Replace the history by its summaries.

        Raises:
            CompactionError: nothing is left to compact, or the volume is less than a token each.
        """
        spec = self._spec
        stop = len(self.turns) - (0 if closing else spec.last_turns)
        if stop <= 1:
            raise CompactionError("no turn is left to compact; keep fewer last turns verbatim")
        ends = self._block_ends(stop, spec.block_size_tokens)
        if spec.strategy is not None:
            self._replace(stop, self._compact_by_strategy(spec.strategy, ends))
            return
        if spec.open_block is OpenBlock.KEEP and not closing and spec.block_size_tokens:
            ends = ends[:-1]  # they are ends of turns, as the rule asks for
            stop = 1 + next(at for at, end in enumerate(self._turn_ends()) if end == ends[-1])
        num_workers = len(ends) - 1
        if not num_workers:
            raise CompactionError("no history block is closed; lower B or raise tau")
        budgets = self._budgets(stop, num_workers)
        decoded = budgets
        if spec.volume_mode is VolumeMode.NATURAL:
            decoded = [self._natural(one, self._volume.worker_frac) for one in budgets]
        prompts, uncached = self._worker_tokens(ends)
        most = spec.max_concurrent_workers or spec.max_background_workers or num_workers
        at_once = min(most, num_workers)
        self._send(
            Wave("worker", num_workers, at_once, sum(prompts), uncached, sum(decoded)),
            max(prompt + budget for prompt, budget in zip(prompts, budgets, strict=True)),
        )
        self.most_kv_tokens = max(
            self.most_kv_tokens, self.history_tokens + uncached + sum(decoded)
        )
        summaries = round(self._volume.kept_frac * sum(decoded))
        self._replace(stop, summaries + self._all_sizes.wrapper_tokens(num_workers))

    def _compact_by_strategy(self, name: str, ends: list[int]) -> int:
        """Send the requests that a strategy says it sends; tokens that it keeps."""
        spec, sizes = self._spec, self._all_sizes
        budget, head = spec.budget_tokens or 0, self.sizes.head_tokens
        reserved = IDENTIFIER_TOKENS * spec.keep_identifiers
        amounts = Amounts(
            block_tokens=[stop - start for start, stop in pairwise(ends)],
            worker_tokens=spec.volume_tokens,
            room_tokens=lambda number: budget - head - sizes.wrapper_tokens(number) - reserved,
            wrapper_tokens=sizes.wrapper_tokens,
            written_tokens=lambda most: self._natural(most, self._volume.worker_frac),
        )
        whole = spec.model_copy(update={"layout": SEQUENTIAL})
        prices = Prices(
            head,
            sizes.shapes(whole, self.session, 1)[0].added_tokens,
            lambda: self._worker_tokens(ends),
            lambda shared, prompt: prompt - self._found(min(shared, self._cached_tokens), prompt),
        )
        rounds = load_strategy(name).rounds(amounts)
        for asked in map(prices.asked, rounds):
            decoded = sum(map(amounts.written_tokens, asked.max_tokens))
            number, prompts = len(asked.prompts), sum(asked.prompts)
            self._send(
                Wave("worker", number, number, prompts, asked.uncached_tokens, decoded),
                max(map(sum, zip(asked.prompts, asked.max_tokens, strict=True))),
            )
            self.most_kv_tokens = max(
                self.most_kv_tokens, self.history_tokens + asked.uncached_tokens + decoded
            )
        return kept_tokens(rounds, amounts, head, budget, spec.keep_identifiers)

    def _replace(self, stop: int, tokens: int) -> None:
        """What is left of the turns before `stop`, as one turn, and what of it is cached."""
        self.turns[1:stop] = [_Turn(tokens, is_user=True)]
        self._cached_tokens = self._opening_tokens if self._cache.finds_cut_history else 0
        self._opening_tokens = self.sizes.head_tokens + self._all_sizes.heading_tokens

    def _budgets(self, stop: int, num_workers: int) -> list[int]:
        """What each worker may decode: `Compactor`'s rule."""
        spec = self._spec
        each_size = spec.volume_block_size_tokens
        if spec.volume_mode is VolumeMode.FORCED and each_size is None:
            return split_exactly(spec.volume_tokens, num_workers)
        if spec.volume_mode is VolumeMode.FORCED and spec.block_size_tokens is None:
            return [(len(self._block_ends(stop, each_size)) - 1) * spec.volume_tokens]
        return [spec.volume_tokens] * num_workers

    def drain(self) -> None:
        """Workers that were sent ahead and that no compaction needed."""
        spec = self._spec
        stop = len(self.turns) - spec.last_turns
        if not spec.is_eager or stop <= 1:
            return
        closed = self._block_ends(stop, spec.block_size_tokens)[:-1]
        num_workers = len(closed) - 1
        if num_workers:
            prompts, uncached = self._worker_tokens(closed)
            decoded = num_workers * spec.volume_tokens
            self._send(Wave("unused", num_workers, num_workers, sum(prompts), uncached, decoded))

    def _turn_ends(self) -> list[int]:
        return list(accumulate(turn.tokens for turn in self.turns))

    def _block_ends(self, stop: int, block_size_tokens: int | None) -> list[int]:
        """Where history blocks begin and end, in tokens of the history: `partition`'s rule."""
        ends = self._turn_ends()
        origin, end = ends[0], ends[stop - 1]
        size = block_size_tokens or end - origin
        cuts = list(range(origin + size, end, size))
        if self._spec.boundary is Boundary.TURN:
            starts = [ends[at - 1] for at in range(2, stop) if self.turns[at].is_user]
            cuts = [next((start for start in starts if start >= cut), end) for cut in cuts]
        return sorted({origin, *cuts, end})

    def _worker_tokens(self, ends: list[int]) -> tuple[list[int], int]:
        """Prompts of all workers, and what of them is computed."""
        num_workers = len(ends) - 1
        layout = load_layout(self._spec.layout)
        shapes = self._all_sizes.shapes(self._spec, self.session, num_workers)
        known, prompts, uncached = self._cached_tokens, [], 0
        for index, (shape, (start, stop)) in enumerate(zip(shapes, pairwise(ends), strict=True)):
            first = ends[0] if shape.shows_before else start
            last = ends[-1] if shape.shows_after else stop
            prompts.append(self.sizes.head_tokens + last - first + shape.added_tokens)
            untouched = ends[layout.cached_blocks(index, num_workers)]
            is_found = self._cache.finds_cut_history or untouched >= known
            uncached += prompts[-1] - is_found * self._found(min(untouched, known), prompts[-1])
            if self._cache.finds_cut_history:
                known = max(known, untouched)
        return prompts, uncached

    def bystanders(self) -> None:
        """Each asks alone a few times, and once more for every moment of the compaction."""
        number, rule = self._spec.num_bystanders, self._spec.bystanders
        assert rule is not None, self._spec.label
        prompt, answer = rule.context_tokens, rule.answer_tokens
        uncached = prompt - self._found(prompt, prompt)
        for role, times in (("bystander", rule.num_alone_requests), (MEANWHILE, 1)):
            num = number * times
            self._send(Wave(role, num, number, num * prompt, num * uncached, num * answer))

    def _found(self, known_tokens: int, prompt_tokens: int) -> int:
        """Of a known prefix, what the cache gives: whole KV blocks, never the last token."""
        reach = min(known_tokens - (not self._cache.finds_cut_history), prompt_tokens - 1)
        return max(0, reach) // self._cache.kv_block_tokens * self._cache.kv_block_tokens

    def _natural(self, budget_tokens: int, frac: float) -> int:
        return max(1, round(frac * budget_tokens))

    def _send(self, wave: Wave, longest: int | None = None) -> None:
        self.waves.append(wave)
        longest = wave.prompt_tokens + wave.decoded_tokens if longest is None else longest
        if wave.role in {"agent", "worker", "question"}:
            self.most_request_tokens = max(self.most_request_tokens, longest)


def walk(
    spec: CellSpec, session: Session, sizes: Sizes, volume: NaturalVolume, cache: Cache
) -> Walked:
    """The requests of one cell.

    Args:
        spec: the cell.
        session: what it plays.
        sizes: counts in the backbone's tokens.
        volume: of answers that stop by themselves.
        cache: of the server.
    """
    one = _Walk(spec, session, sizes, volume, cache)
    failure = None
    try:
        match spec.protocol:
            case Protocol.IMMEDIATE:
                _immediate(one, spec)
            case Protocol.DEFERRED:
                _deferred(one, spec)
            case Protocol.SINGLE | Protocol.SHARED:
                _single(one, spec)
    except CompactionError as error:
        failure = str(error)
    return Walked(
        tuple(one.waves),
        one.most_request_tokens,
        one.most_kv_tokens,
        one.num_answers,
        spec.tool_wait_s * max(0, len(session.documents) - 1),
        failure,
    )


def _immediate(one: _Walk, spec: CellSpec) -> None:
    is_free = spec.transcript == Transcript.FREE
    decoded = one.answer_tokens if is_free else spec.answer_tokens
    for exchange in one.sizes.asked:
        one.make_room(exchange)
        prompt = one.history_tokens + exchange.user_tokens + one.sizes.generation_tokens
        one.ask(prompt, decoded)
        beside = exchange.assistant_tokens - exchange.answer_text_tokens
        one.append(exchange, beside + decoded if is_free else None)
        one.num_answers += exchange.is_asked
    one.drain()


def _deferred(one: _Walk, spec: CellSpec) -> None:
    if spec.ask_after:
        _in_parts(one, spec.ask_after)
        return
    if spec.layout != Reference.CLOSED_BOOK:
        for exchange in one.sizes.shown:
            one.make_room(exchange)
            one.append(exchange)
    if not spec.is_reference:
        one.compact(closing=True)
    one.ask_in_branches(one.history_tokens)
    if spec.asks_truncated:  # the last tokens, as many as the compacted history holds
        whole = one.sizes.head_tokens + _tokens(one.sizes.shown)
        one.ask_in_branches(min(one.history_tokens, whole))


def _in_parts(one: _Walk, ask_after: Sequence[int]) -> None:
    num_parts = max(ask_after)
    starts = part_starts(one.session, num_parts)
    for number, (start, stop) in enumerate(pairwise(starts), 1):
        for exchange in one.sizes.shown[start:stop]:
            one.append(exchange)
        one.compact(closing=number == num_parts)
        if number in ask_after:
            one.ask_in_branches(one.history_tokens, stop if number == num_parts else starts[1])


def _single(one: _Walk, spec: CellSpec) -> None:
    assert spec.history_tokens is not None
    for exchange in one.sizes.shown:
        if one.history_tokens + _tokens([exchange]) > spec.history_tokens:
            break
        one.append(exchange)
    if spec.is_timing:
        one.ask(one.history_tokens - one.turns[-1].tokens + one.sizes.generation_tokens, 1)
    if spec.protocol is Protocol.SHARED:
        one.bystanders()
    one.compact(closing=True)


def _tokens(exchanges: Iterable[Exchange]) -> int:
    return sum(exchange.user_tokens + exchange.assistant_tokens for exchange in exchanges)
