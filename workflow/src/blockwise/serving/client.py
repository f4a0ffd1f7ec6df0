"""The client: one request in, one trustworthy answer out, with its token and time accounting.

vLLM caps an answer silently where prompt and answer exceed the window, so the sum is checked
before anything is sent. What comes back is accepted by the rules of `answer`. Retries are ours
alone (the library's are off), because a retried request must be counted.
"""

import asyncio
import copy
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self, cast

import httpx2
import openai
import tenacity

from blockwise.config.backbones import Backbone, ExternalEngine, RequestForm
from blockwise.errors import EngineError
from blockwise.models.renderer import Message, Renderer
from blockwise.serving.answer import BusyEngineError, StreamedAnswer, TransientEngineError
from blockwise.serving.api_key import holds_key, without_key
from blockwise.serving.endpoint_metrics import PREEMPTIONS, EngineMetrics, parse_metrics
from blockwise.serving.http_json import HttpError, get_text, is_local
from blockwise.serving.running_server import Server

CONNECT_TIMEOUT_S = 30.0  # a live server accepts at once, but this process may be busy meanwhile
RETRY_WAIT_S = 1.0  # before the second attempt; twice as long before each further one
MAX_RETRY_WAIT_S = 30.0
BUSY_ATTEMPTS = 8  # where retries are allowed: two minutes of a server that is full
BUSY_STATUSES = (429, 503)  # too many requests, service unavailable
HTTP_SERVER_ERROR = 500
NUM_QUOTED_CHARS = 500


@dataclass(frozen=True)
class ChatRequest:
    """What to ask; `min_tokens == max_tokens` decodes exactly so many (forced)."""

    messages: Sequence[Message]
    max_tokens: int
    min_tokens: int = 0
    seed: int | None = None
    cache_salt: str | None = None  # None: the prefix cache is shared with everybody
    priority: int = 0  # a lower one is served first, by an engine that schedules by priority

    @property
    def is_forced(self) -> bool:
        """Whether the length of the answer is fixed."""
        return self.min_tokens == self.max_tokens


@dataclass(frozen=True)
class Completion:
    """An accepted answer."""

    text: str
    thinking_text: str
    finish_reason: str
    prompt_tokens: int
    cached_tokens: int | None  # None: the server does not report it
    completion_tokens: int  # thinking included
    thinking_tokens: int
    started_at_s: float  # time.perf_counter() when the accepted attempt was sent
    ttft_s: float  # see `ttft_source`
    wall_s: float  # as we saw it: sent to last event
    retry_reasons: tuple[str, ...]  # why each earlier attempt failed
    queue_s: float | None = None  # by the engine's clock; None: it does not report it
    decode_s: float | None = None  # first token to last, by the engine's clock
    ttft_source: Literal["engine", "client"] = "client"
    """engine: queue and prefill by the engine's clock; client: arrival of the first event."""

    @property
    def num_retries(self) -> int:
        """How many attempts failed before this one."""
        return len(self.retry_reasons)


class EngineClient:
    """Async client of one server; `async with EngineClient(...) as engine`."""

    def __init__(
        self,
        server: Server,
        backbone: Backbone,
        renderer: Renderer,
        *,
        exact_prompts: bool = True,
        client: openai.AsyncOpenAI | None = None,
    ) -> None:
        """Make a client.

        Args:
            server: a server that answers.
            backbone: how it is asked.
            renderer: template and tokenizer that requests are counted with.
            exact_prompts: refuse an answer whose prompt the server counts differently from us.
                Off only where the server's template is not known and nothing is measured by it.
            client: of a user's own, whose headers and connections are used; None: one is made.
        """
        self._exact_prompts = exact_prompts
        self._server = server
        self._backbone = backbone
        self._renderer = renderer
        self._tools: list[Mapping[str, Any]] = []
        timeout = openai.Timeout(backbone.request.timeout_s, connect=CONNECT_TIMEOUT_S)
        self._owns_client = client is None
        if client is not None:
            self._client = client.with_options(max_retries=0, timeout=timeout)
            return
        # A proxy of the environment is for other machines. Idle connections are not kept:
        # uvicorn closes them after 5 s, and a request sent into that moment is lost.
        http_client = openai.DefaultAsyncHttpxClient(
            trust_env=not is_local(server.base_url),
            timeout=timeout,
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0),
        )
        self._client = openai.AsyncOpenAI(
            base_url=server.base_url,
            api_key=server.api_key,
            max_retries=0,
            timeout=timeout,
            http_client=http_client,
        )

    def with_tools(self, tools: Sequence[Mapping[str, Any]], renderer: Renderer) -> Self:
        """The same client, whose requests offer these tools and allow none to be called.

        An agent's tools stand at the head of its prompts: a request without them shares no prefix
        with the agent's own.

        Args:
            tools: of the agent's requests, in its order.
            renderer: this client's, with the same tools.
        """
        other = copy.copy(self)
        other._renderer = renderer
        other._tools = list(tools)
        return other

    @property
    def window_tokens(self) -> int:
        """The context window: prompt and answer together."""
        return self._backbone.context_window_tokens

    @property
    def renderer(self) -> Renderer:
        """The template and tokenizer that requests are counted with."""
        return self._renderer

    async def complete(self, request: ChatRequest, *, max_attempts: int = 1) -> Completion:
        """Ask, and ask again after a transient failure while attempts are left.

        Waits grow from attempt to attempt, by chance too, so that workers that were refused
        together do not come back together. A server that is full is asked more often, when it
        wants to be; with one attempt nothing is asked twice.

        Raises:
            EngineError: the request does not fit the window, or no attempt gave an answer that
                can be trusted.
        """
        expected_tokens = self._checked_prompt_tokens(request)
        arguments = self._arguments(request)
        reasons: list[str] = []
        attempts = tenacity.AsyncRetrying(
            stop=partial(_gives_up, max_attempts),
            wait=_wait_s,
            retry=tenacity.retry_if_exception_type(TransientEngineError),
            before_sleep=lambda state: reasons.append(_reason(state)),
            reraise=True,
        )
        async for attempt in attempts:
            with attempt:
                return await self._attempt(request, arguments, expected_tokens, tuple(reasons))
        raise AssertionError("the last attempt returns or raises")

    async def metrics(self) -> EngineMetrics | None:
        """Counters of the server; None where an external one does not show them.

        Raises:
            EngineError: a server of ours does not answer, or what answers is no such page.
        """
        url = self._server.base_url.removesuffix("/v1") + "/metrics"
        try:
            page = await asyncio.to_thread(get_text, url, self._server.api_key)
        except HttpError as problem:
            if isinstance(self._backbone.engine, ExternalEngine):
                return None
            raise EngineError(f"no metrics: {problem}; see the server's log") from problem
        if PREEMPTIONS not in page:
            return None
        try:
            return parse_metrics(page)
        except ValueError as problem:
            raise EngineError(f"{url} is no Prometheus page: {problem}") from problem

    async def aclose(self) -> None:
        """Close the connections, but for those of a user's own client."""
        if self._owns_client:
            await self._client.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    def _checked_prompt_tokens(self, request: ChatRequest) -> int:
        if not 0 <= request.min_tokens <= request.max_tokens or request.max_tokens < 1:
            raise EngineError(
                f"min_tokens {request.min_tokens} and max_tokens {request.max_tokens} do not fit: "
                "0 <= min_tokens <= max_tokens and max_tokens >= 1"
            )
        prompt_tokens = self._renderer.count(request.messages, add_generation_prompt=True)
        if prompt_tokens + request.max_tokens > self.window_tokens:
            raise EngineError(
                f"a prompt of {prompt_tokens} tokens and an answer of up to {request.max_tokens} "
                f"exceed the window of {self.window_tokens}; lower tau_tokens or the answer "
                "budget, or use a backbone with a larger window"
            )
        return prompt_tokens

    def _arguments(self, request: ChatRequest) -> dict[str, Any]:
        """Keyword arguments of the client call, both request forms."""
        defaults = self._backbone.request
        extra: dict[str, Any] = {}
        if request.min_tokens:
            extra["min_tokens"] = request.min_tokens
        if request.is_forced:
            extra["ignore_eos"] = True
        if defaults.repetition_penalty != 1.0:  # no field of OpenAI's: sent only where it is asked
            extra["repetition_penalty"] = defaults.repetition_penalty
        if request.cache_salt is not None:
            extra["cache_salt"] = request.cache_salt
        if request.priority:
            extra["priority"] = request.priority
        arguments: dict[str, Any] = {
            "model": self._server.served_model,
            "max_tokens": request.max_tokens,
            "temperature": defaults.temperature,
            "top_p": defaults.top_p,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if request.seed is not None:
            arguments["seed"] = request.seed
        # In the extra body messages and tokens go out as they are. As an argument the library walks
        # each of them by its types, which took a second for 64 workers on 13k tokens of history.
        if defaults.form is RequestForm.COMPLETION:
            arguments["prompt"] = []
            extra["prompt"] = self._renderer.render(request.messages, add_generation_prompt=True)
        else:
            arguments["messages"] = []
            extra["messages"] = list(request.messages)
            if self._tools:
                extra |= {"tools": self._tools, "tool_choice": "none"}
            if defaults.chat_template_arguments:
                extra["chat_template_kwargs"] = dict(defaults.chat_template_arguments)
        return {**arguments, "extra_body": extra}

    async def _attempt(
        self,
        request: ChatRequest,
        arguments: dict[str, Any],
        expected_tokens: int,
        retry_reasons: tuple[str, ...],
    ) -> Completion:
        answer = StreamedAnswer(started_at_s=time.perf_counter())
        await self._receive(answer, arguments)
        wall_s = time.perf_counter() - answer.started_at_s
        if self._server.process is not None:  # others may call their models what they like
            answer.check_model(self._server.served_model)
        answer.check(
            expected_tokens if self._exact_prompts else None, request.max_tokens, request.min_tokens
        )
        client_ttft_s = cast(float, answer.first_token_s) - answer.started_at_s
        engine_ttft_s = answer.engine_ttft_s
        thinking_text = "".join(answer.thinking_parts)
        thinking_tokens = answer.reported_thinking_tokens
        if thinking_tokens is None:
            thinking_tokens = self._renderer.count_text(thinking_text)
        return Completion(
            text="".join(answer.text_parts),
            thinking_text=thinking_text,
            finish_reason=cast(str, answer.finish_reason),
            prompt_tokens=answer.usage.prompt_tokens,
            cached_tokens=answer.cached_tokens,
            completion_tokens=answer.usage.completion_tokens,
            thinking_tokens=thinking_tokens,
            started_at_s=answer.started_at_s,
            ttft_s=client_ttft_s if engine_ttft_s is None else engine_ttft_s,
            wall_s=wall_s,
            retry_reasons=retry_reasons,
            queue_s=answer.queue_s,
            decode_s=answer.decode_s,
            ttft_source="client" if engine_ttft_s is None else "engine",
        )

    async def _receive(self, answer: StreamedAnswer, arguments: dict[str, Any]) -> None:
        """Send and read the stream; whatever fails or comes back, the key is in none of it."""
        try:
            await self._exchange(answer, arguments)
        except EngineError as error:
            error.args = (without_key(str(error), self._server.api_key),)
            raise
        if holds_key("".join([*answer.text_parts, *answer.thinking_parts]), self._server.api_key):
            raise EngineError(
                f"{self._server.base_url} answers with the key that it was sent, and answers are "
                "recorded; this one was dropped. Use a server that does not repeat headers"
            )

    async def _exchange(self, answer: StreamedAnswer, arguments: dict[str, Any]) -> None:
        """Send and read the stream; every failure of the library becomes ours, in words."""
        limit_s = self._backbone.request.timeout_s
        is_completion = self._backbone.request.form is RequestForm.COMPLETION
        api: Any = self._client.completions if is_completion else self._client.chat.completions
        where = self._server.base_url
        try:
            async with asyncio.timeout(limit_s):
                stream = await api.create(**arguments)
                async with stream:
                    await answer.collect(stream)
        except (TimeoutError, openai.APITimeoutError) as error:
            if isinstance(error.__cause__, httpx2.ConnectTimeout):
                raise TransientEngineError(
                    f"{where} did not accept a connection within {CONNECT_TIMEOUT_S:g} s; see "
                    "that it runs, and that this machine is not overloaded"
                ) from error
            raise TransientEngineError(
                f"{where} did not answer within request.timeout_s = {limit_s:g}; raise it or see "
                "the server's log"
            ) from error
        except openai.APIStatusError as error:
            words = (
                f"{where} answers HTTP {error.status_code}: {self._quote(error)}; see the server's "
                "log"
            )
            if error.status_code in BUSY_STATUSES:
                raise BusyEngineError(words, _retry_after_s(error)) from error
            is_transient = error.status_code >= HTTP_SERVER_ERROR
            raise (TransientEngineError if is_transient else EngineError)(words) from error
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            raise TransientEngineError(
                f"the connection to {where} failed ({type(cause).__name__}: {cause}); if the "
                "server is gone its log says why"
            ) from error
        except openai.APIError as error:
            raise TransientEngineError(
                f"{where} sent an error inside the stream: {self._quote(error)}; see the server's "
                "log"
            ) from error
        except ValueError as error:
            raise TransientEngineError(
                f"{where} sent a stream that is not JSON events ({error}); see the server's log"
            ) from error

    def _quote(self, error: openai.APIError) -> str:
        """The beginning of what the server said; a key that the cut parts is none any more."""
        return without_key(error.message, self._server.api_key).strip()[:NUM_QUOTED_CHARS]


def _gives_up(max_attempts: int, state: tenacity.RetryCallState) -> bool:
    """Whether this attempt was the last."""
    if max_attempts > 1 and isinstance(_error_of(state), BusyEngineError):
        max_attempts = max(max_attempts, BUSY_ATTEMPTS)
    return state.attempt_number >= max_attempts


def _wait_s(state: tenacity.RetryCallState) -> float:
    """Seconds until the next attempt: as the server says, else ever longer, and by chance more."""
    error = _error_of(state)
    if isinstance(error, BusyEngineError) and error.retry_after_s is not None:
        least_s = error.retry_after_s
    else:
        least_s = RETRY_WAIT_S * 2 ** (state.attempt_number - 1)
    return min(least_s, MAX_RETRY_WAIT_S) + random.uniform(0.0, RETRY_WAIT_S)


def _error_of(state: tenacity.RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome is not None else None


def _retry_after_s(error: openai.APIStatusError) -> float | None:
    """The seconds of a `Retry-After`; None where there is none or it is a date."""
    try:
        return max(0.0, float(error.response.headers.get("retry-after", "")))
    except ValueError:
        return None


def _reason(state: tenacity.RetryCallState) -> str:
    """Why an attempt failed, in the words of its error."""
    return str(state.outcome.exception()) if state.outcome else "unknown"
