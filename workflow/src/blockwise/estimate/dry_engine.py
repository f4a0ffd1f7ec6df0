"""An engine without a model: counts what is sent, answers with the expected volume.

It stands where the client of a server stands, so the real protocols send it the real requests.
Prompts are counted by the backbone's renderer, found in a prefix cache that is kept message by
message, and refused where they exceed the window. Time is virtual and counted in decode steps
(one token of one request); what a step takes in seconds is decided later, so that one playback
serves every speed.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from blockwise.compaction.cells import CellSpec
from blockwise.config.backbones import Backbone
from blockwise.config.experiments import Protocol, Transcript
from blockwise.serving.endpoint_metrics import EngineMetrics
from blockwise.serving.engine import ChatRequest, Completion, Engine
from blockwise.serving.renderer import Message, Renderer

FILLER = "The town lies by the river, and in spring its market opens at seven in the morning. "

SHORT_ANSWER = "In the morning."


@dataclass(frozen=True)
class NaturalVolume:
    """Share of its budget that an answer decodes when it stops by itself."""

    worker_frac: float = 1.0  # the budget: an upper bound
    answer_frac: float = 1.0


@dataclass(frozen=True)
class Pace:
    """What a request lasts beside its decode steps, in decode steps: it orders what overlaps."""

    request_steps: float = 4.0  # client, network and queue
    prefill_token_steps: float = 1 / 64
    """Defaults lie between a small model on two cores (5 and 1/40) and an 8B model on an H100
    (1 and 1/200)."""


@dataclass(frozen=True)
class Sent:
    """One request as the engine saw it; steps count from the start of the cell."""

    prompt_tokens: int
    uncached_tokens: int
    decoded_tokens: int
    begin_step: float
    end_step: float


@dataclass
class _Node:
    """A message in a tree of conversations: those that go on from it, and its length."""

    following: dict[tuple[str, str], "_Node"] = field(default_factory=dict)
    tokens: int | None = None  # of the conversation up to here; None: not counted yet
    is_end: bool = False  # a request ended here


class PrefixCache:
    """Which conversations have been sent, salt by salt; it never evicts.

    Args:
        renderer: counts tokens.
        kv_block_tokens: what is cached is whole blocks.
        finds_cut_history: whether part of an earlier conversation is found, not only one that
            this goes on from.
    """

    def __init__(self, renderer: Renderer, kv_block_tokens: int, finds_cut_history: bool) -> None:
        self._renderer = renderer
        self._kv_block_tokens = kv_block_tokens
        self._finds_cut_history = finds_cut_history
        self._roots: dict[str | None, _Node] = {}

    def cached_tokens(self, request: ChatRequest, prompt_tokens: int) -> int:
        """Whole KV blocks that earlier requests share with this one, which then enters too."""
        node = self._roots.setdefault(request.cache_salt, _Node(tokens=0))
        messages = request.messages
        depth, shared = 0, 0
        whole = 0  # tokens of the longest earlier conversation that this one goes on from
        is_known = True
        for message in messages:
            key = (message["role"], message["content"])
            child = node.following.get(key)
            if child is None:
                if is_known:
                    shared = self._tokens(node, messages, depth) + self._partial(node, key)
                    is_known = False
                child = node.following[key] = _Node()
            node = child
            depth += is_known
            if is_known and node.is_end:
                whole = self._tokens(node, messages, depth)
        if is_known:
            shared = prompt_tokens
        if not self._finds_cut_history:
            shared = max(whole - 1, 0)  # what the earlier one could find itself
        node.is_end = True
        if node.tokens is None:
            node.tokens = prompt_tokens  # with the opening of the answer, which is cached too
        # At least the last token is computed, whatever the cache holds.
        return min(shared, prompt_tokens - 1) // self._kv_block_tokens * self._kv_block_tokens

    def _tokens(self, node: _Node, messages: Sequence[Message], depth: int) -> int:
        if node.tokens is None:
            known = messages[:depth]
            node.tokens = self._renderer.count(known, add_generation_prompt=False)
        return node.tokens

    def _partial(self, node: _Node, key: tuple[str, str]) -> int:
        """Tokens that the first new message shares with one that stood in its place."""
        role, content = key
        others = [text for other_role, text in node.following if other_role == role]
        common = max((_common(content, text) for text in others), key=len, default="")
        return self._renderer.count_text(common) if common else 0


def _common(one: str, other: str) -> str:
    """The longest text that both begin with."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one.startswith(other[:middle]):
            low = middle
        else:
            high = middle - 1
    return one[:low]


class DryEngine(Engine):
    """Answers every request in virtual time.

    Args:
        backbone: its window.
        renderer: its template and tokenizer, or what is assumed of them.
        volume: of answers that stop by themselves.
        pace: how long requests last.
        kv_block_tokens: granularity of the prefix cache.
        finds_cut_history: see `PrefixCache`.
        spec: the cell that is played.
    """

    def __init__(
        self,
        backbone: Backbone,
        renderer: Renderer,
        *,
        volume: NaturalVolume,
        pace: Pace,
        kv_block_tokens: int,
        finds_cut_history: bool,
        spec: CellSpec,
    ) -> None:
        self._backbone = backbone
        self._renderer = renderer
        self._volume = volume
        self._pace = pace
        self._prefill = asyncio.Lock()  # an engine has so many FLOPs, however many wait
        self._cache = PrefixCache(renderer, kv_block_tokens, finds_cut_history)
        self._prompts = tuple(filter(None, [spec.prompt, *spec.block_prompts.values()]))
        self._is_shared = spec.protocol is Protocol.SHARED  # elsewhere the pace changes nothing
        self._keeps_answers = spec.transcript == Transcript.FREE
        self._texts: dict[int, str] = {}
        self.sent: list[Sent] = []

    async def complete(self, request: ChatRequest, *, max_attempts: int = 1) -> Completion:
        """An answer of the length asked for, or of the length expected."""
        del max_attempts
        prompt_tokens = self._checked_prompt_tokens(request)
        cached_tokens = self._cache.cached_tokens(request, prompt_tokens)
        uncached_tokens = prompt_tokens - cached_tokens
        is_worker = request.messages[-1]["content"].endswith(self._prompts)  # every layout's end
        decoded = self._decoded(request, is_worker)
        loop = asyncio.get_running_loop()
        begin = loop.time()
        if self._is_shared:
            await asyncio.sleep(self._pace.request_steps)
            async with self._prefill:
                await asyncio.sleep(uncached_tokens * self._pace.prefill_token_steps)
        await asyncio.sleep(decoded)
        self.sent.append(Sent(prompt_tokens, uncached_tokens, decoded, begin, loop.time()))
        return Completion(
            # An answer that nobody keeps is short: scoring a long one takes longer than all else.
            text=self._text(decoded) if is_worker or self._keeps_answers else SHORT_ANSWER,
            thinking_text="",
            finish_reason="length" if decoded == request.max_tokens else "stop",
            prompt_tokens=prompt_tokens,
            cached_tokens=cached_tokens,
            completion_tokens=decoded,
            thinking_tokens=0,
            started_at_s=begin,
            ttft_s=0.0,
            wall_s=loop.time() - begin,
            retry_reasons=(),
        )

    async def metrics(self) -> EngineMetrics:
        """Nothing is ever preempted here."""
        return EngineMetrics(0, 0, 0, None, None)

    def _decoded(self, request: ChatRequest, is_worker: bool) -> int:
        if request.is_forced:
            return request.max_tokens
        frac = self._volume.worker_frac if is_worker else self._volume.answer_frac
        return max(1, round(frac * request.max_tokens))

    def _text(self, num_tokens: int) -> str:
        """A text of so many tokens."""
        if num_tokens not in self._texts:
            per_copy = max(1, self._renderer.count_text(FILLER))
            text = FILLER * (num_tokens // per_copy + 2)
            offsets = self._renderer.token_offsets(text)
            self._texts[num_tokens] = text[: offsets[num_tokens - 1][1]]
        return self._texts[num_tokens]
