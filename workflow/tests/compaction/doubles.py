"""Test doubles of the compaction tests: a transparent template and an engine without a model.

One character is one token; the template puts `<role>` (three tokens) before each message.
"""

import asyncio
import time
from collections.abc import Callable, Sequence

from blockwise.compaction.compactor import CompactionRule
from blockwise.errors import EngineError
from blockwise.models.renderer import CountedBy
from blockwise.serving.client import ChatRequest, Completion

HEADER_TOKENS = 3
KV_BLOCK_TOKENS = 16


class CharRenderer:
    takes_user_runs = True
    counted_by = CountedBy.TOKENIZER

    def shown(self, messages):
        return list(messages)

    def render(self, messages, add_generation_prompt):
        rendered = []
        for message in messages:
            rendered += [-1, hash(message["role"]) % 1000 + 10**6, -2]
            rendered += [ord(char) for char in message["content"]]
        return rendered + ([-1, hash("assistant") % 1000 + 10**6, -2] * add_generation_prompt)

    def count(self, messages, add_generation_prompt):
        return len(self.render(messages, add_generation_prompt))

    def ends(self, messages):
        return [self.count(messages[: index + 1], False) for index in range(len(messages))]

    def count_text(self, text):
        return len(text)

    def token_offsets(self, text):
        return [(index, index + 1) for index in range(len(text))]

    def prefix_break(self, messages):
        return None


class CachingEngine:
    """Answers at once, with the prefix-cache arithmetic of a real engine."""

    window_tokens = 100_000

    def __init__(
        self,
        answer: Callable[[ChatRequest], str | tuple[str, str]] | None = None,  # text, finish reason
        delays=(),
    ):
        self.requests: list[ChatRequest] = []
        self.renderer = CharRenderer()
        self.failures: list[int] = []  # how many attempts of request i fail
        self._answer = answer or (lambda request: f"summary {len(self.requests)}")
        self._delays = list(delays)
        self._cached: dict[str | None, set[tuple[int, ...]]] = {}

    async def complete(self, request: ChatRequest, *, max_attempts: int = 1) -> Completion:
        number = len(self.requests)
        self.requests.append(request)
        num_failures = self.failures[number] if number < len(self.failures) else 0
        begin_s = time.perf_counter()
        if number < len(self._delays):
            await asyncio.sleep(self._delays[number])
        if num_failures >= max_attempts:
            raise EngineError(f"request {number} failed {num_failures} times")
        prompt = self.renderer.render(request.messages, True)
        cached = self._cached_tokens(request.cache_salt, prompt)
        forced = request.min_tokens == request.max_tokens
        said = self._answer(request)
        text, finish_reason = said if isinstance(said, tuple) else (said, "stop")
        return Completion(
            text=text,
            thinking_text="",
            finish_reason="length" if forced else finish_reason,
            prompt_tokens=len(prompt),
            cached_tokens=cached,
            completion_tokens=request.max_tokens if forced else len(text),
            thinking_tokens=0,
            started_at_s=begin_s,
            ttft_s=0.001,
            wall_s=time.perf_counter() - begin_s,
            retry_reasons=("failed",) * num_failures,
        )

    def _cached_tokens(self, salt: str | None, prompt: Sequence[int]) -> int:
        known = self._cached.setdefault(salt, set())
        hit = 0
        for end in range(KV_BLOCK_TOKENS, len(prompt) + 1, KV_BLOCK_TOKENS):
            if hit == end - KV_BLOCK_TOKENS and tuple(prompt[:end]) in known:
                hit = end
            known.add(tuple(prompt[:end]))
        return hit

    async def metrics(self):
        return None


class ForgetfulEngine(CachingEngine):
    """Without the arithmetic of a prefix cache, which keeps every prefix of every prompt."""

    def _cached_tokens(self, salt, prompt):
        return 0


def rule(**changes) -> CompactionRule:
    """A parallel rule of natural volume."""
    values = {
        "layout": "suffix_target",
        "block_size_tokens": 300,
        "boundary": "turn",
        "prompt": "Write a summary of it.",
        "volume_mode": "natural",
        "volume_tokens": 200,
        "last_turns": 0,
    }
    return CompactionRule(**{**values, **changes})
