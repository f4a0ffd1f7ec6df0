"""Collecting a streamed answer, and the rules by which it is accepted.

A stream that is cut ends like one that is complete, and a crashed engine can still send its
last event, so no single sign is trusted: an answer counts only with a finish reason, without
an error event, with a usage report, with the token counts that were asked for, and with the
prompt length that we computed ourselves.

Time to first token comes from the engine where it reports it (queue and prefill, by the clock
of the process that computes). The arrival of the first event is no measure of it on few
cores: an API server that the engine starves delivers the whole answer at once. Measured on two
busy cores, the first event of 256 tokens came after 0.02 s or after 0.59 s of 0.59 s.
"""

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from blockwise.errors import EngineError


class TransientEngineError(EngineError):
    """A failure that the same request may not meet again: worth another attempt."""


class BusyEngineError(TransientEngineError):
    """The server takes no more requests for now: worth several attempts.

    Args:
        message: in words.
        retry_after_s: when it wants to be asked again; None: it does not say.
    """

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


@dataclass
class StreamedAnswer:
    """What has arrived of one answer."""

    started_at_s: float  # time.perf_counter() just before the request was sent
    first_token_s: float | None = None
    text_parts: list[str] = field(default_factory=list)
    thinking_parts: list[str] = field(default_factory=list)
    finish_reason: str | None = None
    model: str | None = None  # that the server says it asked
    usage: Any = None
    engine_times: Any = None  # vLLM's per-request metrics

    async def collect(self, chunks: AsyncIterator[Any]) -> None:
        """Read a stream of chat or completion chunks to its end.

        The first chunk with a choice marks the first token that reached us: vLLM sends the
        chat role together with the engine's first output, and nothing before it.
        Source: vLLM 0.32, chat_completion/serving.py, `chat_completion_stream_generator`.

        Raises:
            TransientEngineError: the server reported an error inside the stream.
        """
        async for chunk in chunks:
            extra = chunk.model_extra or {}
            if extra.get("error"):
                raise TransientEngineError(
                    f"the server sent an error inside the stream: {extra['error']}"
                )
            self.model = chunk.model
            for choice in chunk.choices or ():
                if self.first_token_s is None:
                    self.first_token_s = time.perf_counter()
                self._take(choice)
            if chunk.usage is not None:
                self.usage = chunk.usage
                self.engine_times = extra.get("metrics")

    def _take(self, choice: Any) -> None:
        delta = getattr(choice, "delta", None)
        if delta is None:  # completion form
            self.text_parts.append(choice.text or "")
        else:
            self.text_parts.append(delta.content or "")
            # two names of one thing: vLLM's now, and what it and others used before
            thinking = getattr(delta, "reasoning", None) or getattr(
                delta, "reasoning_content", None
            )
            self.thinking_parts.append(thinking or "")
        if choice.finish_reason is not None:
            self.finish_reason = choice.finish_reason

    def check_model(self, expected: str) -> None:
        """Refuse the answer of another model.

        Raises:
            EngineError: it is one.
        """
        if self.model != expected:
            raise EngineError(
                f"{expected} was asked and {self.model} answered: it is not our server any more; "
                "run the same command again, and it starts its own"
            )

    def check(self, expected_prompt_tokens: int | None, max_tokens: int, min_tokens: int) -> None:
        """Accept the answer or say why not; without an expected prompt its length is free.

        Raises:
            TransientEngineError: it is incomplete.
            EngineError: the server's accounting contradicts ours.
        """
        num_characters = sum(map(len, self.text_parts)) + sum(map(len, self.thinking_parts))
        if self.finish_reason is None or self.first_token_s is None:
            raise TransientEngineError(
                f"the stream was cut: it ended after {num_characters} characters without a finish "
                "reason; see the server's log"
            )
        if self.usage is None or self.usage.completion_tokens is None:
            raise TransientEngineError(
                "the answer came without a usage report, so its tokens cannot be counted; the "
                "server must honour stream_options.include_usage"
            )
        completion_tokens = self.usage.completion_tokens
        if min_tokens == max_tokens and completion_tokens != max_tokens:
            raise TransientEngineError(
                f"{completion_tokens} tokens came where exactly {max_tokens} were asked for "
                f"(finish reason {self.finish_reason}); the server must honour ignore_eos and "
                "min_tokens"
            )
        if not min_tokens <= completion_tokens <= max_tokens:
            raise TransientEngineError(
                f"{completion_tokens} tokens came where {min_tokens} to {max_tokens} were asked for"
            )
        if expected_prompt_tokens not in (None, self.usage.prompt_tokens):
            raise EngineError(
                f"the server counted {self.usage.prompt_tokens} prompt tokens, we rendered "
                f"{expected_prompt_tokens}: its chat template or tokenizer is not ours; make "
                "`model` and `request.chat_template_arguments` those of the server"
            )

    @property
    def engine_ttft_s(self) -> float | None:
        """Queue and prefill time by the engine's clock, where the server reports both."""
        queue_s, prefill_s = self.queue_s, self._engine_time_s("time_to_first_token_ms")
        return None if queue_s is None or prefill_s is None else queue_s + prefill_s

    @property
    def queue_s(self) -> float | None:
        """Time before the engine took the request up, by its clock."""
        return self._engine_time_s("queue_time_ms")

    @property
    def decode_s(self) -> float | None:
        """Time from the first token to the last, by the engine's clock."""
        return self._engine_time_s("generation_time_ms")

    def _engine_time_s(self, name: str) -> float | None:
        time_ms = (self.engine_times or {}).get(name)
        return None if time_ms is None else float(time_ms) / 1000

    @property
    def cached_tokens(self) -> int | None:
        """Prompt tokens taken from the prefix cache, where the server reports them."""
        details = self.usage.prompt_tokens_details
        return None if details is None else details.cached_tokens

    @property
    def reported_thinking_tokens(self) -> int | None:
        """Thinking tokens, where the server counts them apart."""
        details = self.usage.completion_tokens_details
        return None if details is None else details.reasoning_tokens
