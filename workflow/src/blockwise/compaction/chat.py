"""One object for an agent: its messages go in, shorter ones come out, against any server.

    async with ChatCompactor("http://127.0.0.1:8000/v1", "my-model") as compactor:
        result = await compactor.compact(messages, tools=tools, tau=24_000, keep=2)
        messages = result.apply(messages)

Nothing of the study is needed for it: no configuration file, no cell, no server of ours. Policies
are plain arguments, checked when the object is made.
"""

import asyncio
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import openai
from pydantic import Field, ValidationError, field_validator, model_validator

from blockwise.compaction.ahead import AnswersAhead
from blockwise.compaction.compactor import CompactionRule
from blockwise.compaction.conversation import (
    OnBrokenTools,
    OnMedia,
    Pin,
    pins_system_messages,
    plain_messages,
    read_history,
)
from blockwise.compaction.known_messages import KnownMessages
from blockwise.compaction.messages import (
    CompactedMessages,
    OnOversize,
    Policy,
    compact_messages,
    left_alone,
    send_ahead,
    whole_rounds,
)
from blockwise.compaction.messages_record import Outcome
from blockwise.config.arms import SEQUENTIAL, known_layouts
from blockwise.config.backbones import (
    Architecture,
    Backbone,
    ExternalEngine,
    PathModel,
    RequestDefaults,
)
from blockwise.config.base import ConfigModel, PositiveTokens
from blockwise.config.choices import Boundary, OpenBlock, SummaryFault, VolumeMode
from blockwise.config.prompts import load_prompt
from blockwise.errors import ConfigError, ServerError
from blockwise.models.assumed_renderer import AssumedRenderer
from blockwise.models.renderer import CountedBy, Renderer
from blockwise.serving.api_key import NO_KEY
from blockwise.serving.client import EngineClient
from blockwise.serving.http_json import HttpError, post_json
from blockwise.serving.running_server import Server
from blockwise.serving.served_models import ServedModel, served_models

PROMPTS = Path(__file__).parent / "prompts"  # links into config/prompts, so that a wheel has them
TOKENIZER_FILE = "tokenizer.json"


class ChatSettings(ConfigModel):
    """How a conversation is compacted; the arguments of `ChatCompactor`, checked."""

    layout: str
    block_size: PositiveTokens | None
    boundary: Boundary
    open_block: OpenBlock
    prompt: str | None
    max_tokens: PositiveTokens | None
    volume: PositiveTokens | None
    accept: frozenset[SummaryFault]
    resummarize: bool
    keep_identifiers: int = Field(ge=0)
    on_media: OnMedia
    on_broken_tools: OnBrokenTools
    on_oversize: OnOversize
    max_concurrent_workers: int | None = Field(gt=0)
    max_background_workers: int | None = Field(gt=0)
    tokenizer: str | None
    tokenizer_revision: str | None
    window: PositiveTokens | None
    temperature: float = Field(ge=0)
    timeout: float = Field(gt=0)
    seed: int

    @field_validator("layout")
    @classmethod
    def _is_known(cls, layout: str) -> str:
        known = [SEQUENTIAL, *known_layouts()]
        if layout not in known:
            raise ValueError(f"it is none of {', '.join(known)}")
        return layout

    @model_validator(mode="after")
    def _has_volume(self) -> Self:
        if self.layout != SEQUENTIAL and self.block_size is None:
            raise ValueError(f"layout {self.layout} needs a block_size")
        if not (self.block_size or self.max_tokens or self.volume):
            raise ValueError(f"layout {SEQUENTIAL} needs max_tokens or a volume")
        if self.open_block is OpenBlock.KEEP and self.boundary is not Boundary.TURN:
            raise ValueError("open_block keep needs the boundary turn")
        if self.max_tokens and self.volume:
            raise ValueError("max_tokens is a worker's cap and volume an exact total; give one")
        return self

    def rule(self, keep: int) -> CompactionRule:
        """What the compactor is told, with so many last messages kept."""
        return CompactionRule(
            layout=self.layout,
            block_size_tokens=None if self.layout == SEQUENTIAL else self.block_size,
            boundary=self.boundary,
            open_block=self.open_block,
            prompt=default_prompt() if self.prompt is None else self.prompt,
            volume_mode=VolumeMode.FORCED if self.volume else VolumeMode.NATURAL,
            volume_tokens=self.volume or self.max_tokens or self.block_size or 0,
            last_turns=keep,
            max_concurrent_workers=self.max_concurrent_workers,
            accept=self.accept,
            carries_summaries=not self.resummarize,
            keep_identifiers=self.keep_identifiers,
        )


@dataclass(frozen=True)
class _Offering:
    """What goes with an agent's tools."""

    tools: list[Any]
    engine: EngineClient
    renderer: Renderer
    known: KnownMessages


class ChatCompactor:
    """Compacts the messages of an agent, through an OpenAI-compatible server.

    It may serve any number of conversations, at once too. One conversation alone is counted
    incrementally: a step that leaves it alone costs what the agent appended.
    """

    def __init__(
        self,
        server: str | openai.AsyncOpenAI,
        model: str,
        *,
        layout: str = "suffix_target",
        block_size: int | None = 4096,
        boundary: str = Boundary.TURN,
        open_block: str = OpenBlock.COMPACT,
        prompt: str | None = None,
        max_tokens: int | None = None,
        volume: int | None = None,
        accept: Sequence[str] = (),
        resummarize: bool = False,
        keep_identifiers: int = 0,
        on_media: str = OnMedia.PLACEHOLDER,
        on_broken_tools: str = OnBrokenTools.REFUSE,
        on_oversize: str = OnOversize.REFUSE,
        max_concurrent_workers: int | None = None,
        max_background_workers: int | None = None,
        tokenizer: str | None = None,
        tokenizer_revision: str | None = None,
        window: int | None = None,
        api_key: str = NO_KEY,
        temperature: float = 0.0,
        timeout: float = 600.0,
        seed: int = 0,
    ) -> None:
        """Check what is asked; nothing is sent before the first compaction.

        Args:
            server: URL of the server, up to and including /v1, or a client of it.
            model: the name that the server gives it.
            layout: how a worker is shown its history block; `sequential`: one worker over all.
            block_size: B, tokens of a history block.
            boundary: where history blocks may be cut, `turn` or `token`.
            open_block: `compact` or `keep`: whether the last history block, which is still open, is
                summarised too or stays as it is.
            prompt: what workers are told; None: config/prompts/detailed.md.
            max_tokens: cap of each worker, thinking included; None: the block size, and never more
                than the window leaves.
            volume: exact total of all workers, in place of a cap; the server must honour vLLM's
                min_tokens and ignore_eos.
            accept: faults of a summary that are recorded and kept instead of refused.
            resummarize: summarise an earlier summary with the rest instead of carrying it.
            keep_identifiers: at most so many paths, numbers and codes that summaries lost are
                added to them.
            on_media: `placeholder` or `refuse`, for images and the like that are to be summarised.
            on_broken_tools: `refuse` or `repair`, for results without calls and the reverse.
            on_oversize: `refuse` or `split`, for what the window does not hold.
            max_concurrent_workers: None: all at once.
            max_background_workers: of those that `ahead` sends; None: any number.
            tokenizer: folder or hub id of the model's tokenizer. None: that of a folder which the
                server names; else tokens are counted by length, in proportion to what the server
                counts where it does (the record's `counted_by`).
            tokenizer_revision: commit of a hub id.
            window: context window in tokens; None: what the server says.
            api_key: of the server, where a URL is given.
            temperature: of sampling.
            timeout: seconds that one worker may take.
            seed: workers sample with seeds derived from it.

        Raises:
            ConfigError: an argument is refused.
        """
        try:
            self._settings = ChatSettings(
                layout=layout,
                block_size=block_size,
                boundary=boundary,
                open_block=open_block,
                prompt=prompt,
                max_tokens=max_tokens,
                volume=volume,
                accept=frozenset(accept),
                resummarize=resummarize,
                keep_identifiers=keep_identifiers,
                on_media=on_media,
                on_broken_tools=on_broken_tools,
                on_oversize=on_oversize,
                max_concurrent_workers=max_concurrent_workers,
                max_background_workers=max_background_workers,
                tokenizer=tokenizer,
                tokenizer_revision=tokenizer_revision,
                window=window,
                temperature=temperature,
                timeout=timeout,
                seed=seed,
            )
        except ValidationError as error:
            raise ConfigError("; ".join(map(_in_words, error.errors()))) from error
        self._client = None if isinstance(server, str) else server
        url = server if isinstance(server, str) else str(server.base_url)
        self._base_url = url.rstrip("/")
        self._api_key = api_key if isinstance(server, str) else server.api_key
        self._model = model
        self._engine: EngineClient | None = None
        self._connecting = asyncio.Lock()
        self._offering: _Offering | None = None
        self._server_counts = True  # until it is found that it does not
        self._ahead = AnswersAhead(max_background_workers)

    async def compact(
        self,
        messages: Sequence[Any],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        tau: int | None = None,
        keep: int = 0,
        keep_tokens: int = 0,
        pin: Pin = pins_system_messages,
    ) -> CompactedMessages:
        """Compact a conversation, or find that it needs none.

        A worker that fails for good is a result with the status `failed`, which has the messages as
        they were given; what other workers wrote is kept for the next attempt.

        Args:
            messages: OpenAI chat messages, or objects of the `openai` package; nothing of them is
                changed.
            tools: those of the agent's own requests, in its order: workers are sent the same, so
                that their prompts begin as the agent's do, and are told to call none.
            tau: a conversation of at most so many tokens is left as it is; None compacts any.
            keep: messages at the end that stay as they are, at least. A user's message that waits
                for its answer always stays.
            keep_tokens: the last messages that hold at most so many tokens stay too.
            pin: which messages stay as they are, behind the summaries; by default system and
                developer messages. `pin(place, message)` is asked for each.

        Raises:
            CompactionError: the messages are no conversation, or cannot be compacted so.
            ServerError: there is no such server or model.
            EngineError: the chat template refuses the conversation.
        """
        begin_s = time.perf_counter()
        given = plain_messages(messages)
        offering = self._with_tools(tools, await self._connected())
        engine, renderer, known = offering.engine, offering.renderer, offering.known
        rule = self._settings.rule(keep)
        policy = self._policy(tau, keep_tokens, pin)
        if tau is not None:
            num_tokens = known.count(given)
            if num_tokens is not None and num_tokens <= tau:
                return left_alone(given, num_tokens, rule, policy, known.renderer, begin_s=begin_s)
        if renderer.counted_by is not CountedBy.TOKENIZER:
            renderer = await asyncio.to_thread(self._scaled, renderer, given, tools)
            engine = engine.with_tools(tools, renderer)
            known.renderer = renderer
        result = await compact_messages(
            engine, renderer, given, rule, policy=policy, ahead=self._ahead
        )
        if result.status is Outcome.UNCHANGED and not result.record.repairs:
            known.learn(given)
        return result

    async def ahead(
        self,
        messages: Sequence[Any],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        keep: int = 0,
        keep_tokens: int = 0,
        pin: Pin = pins_system_messages,
    ) -> int:
        """Send the workers of history blocks that are closed, and go on; how many were sent.

        Called after each step with the arguments of the later `compact`, it leaves little to wait
        for: at tau only the open block is summarised. A worker that fails is asked again then.

        Raises:
            CompactionError: the messages are no conversation, or the layout shows what follows.
            ConfigError: there is no tokenizer, so the cuts of now need not be those of later.
            ServerError: there is no such server or model.
        """
        offering = self._with_tools(tools, await self._connected())
        if offering.renderer.counted_by is not CountedBy.TOKENIZER:
            raise ConfigError("to ask ahead needs exact cuts: name the model's tokenizer")
        return await send_ahead(
            offering.engine,
            offering.renderer,
            messages,
            self._settings.rule(keep),
            policy=self._policy(None, keep_tokens, pin),
            ahead=self._ahead,
        )

    def _policy(self, tau: int | None, keep_tokens: int, pin: Pin) -> Policy:
        settings = self._settings
        return Policy(
            tau_tokens=tau,
            keep_tokens=keep_tokens,
            pin=pin,
            on_media=settings.on_media,
            on_broken_tools=settings.on_broken_tools,
            on_oversize=settings.on_oversize,
            seed=settings.seed,
        )

    async def aclose(self) -> None:
        """End what runs ahead, and close connections but for those of a client that was given."""
        self._ahead.settle(())
        if self._engine is not None:
            await self._engine.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _connected(self) -> EngineClient:
        """The client of the server, made when it is first needed."""
        async with self._connecting:
            if self._engine is None:
                served = await asyncio.to_thread(
                    find_model, self._base_url, self._model, self._api_key
                )
                renderer = await asyncio.to_thread(self._renderer, served)
                self._engine = self._made(served, renderer)
            return self._engine

    def _made(self, served: ServedModel | None, renderer: Renderer) -> EngineClient:
        window_tokens = self._settings.window or (served.max_model_len if served else None)
        if window_tokens is None:
            raise ConfigError(
                f"{self._base_url} does not tell the context window of {self._model}; give it "
                "(window, --window TOKENS)"
            )
        server = Server(self._base_url, self._model, uuid.uuid4().hex, 0.0, None, self._api_key)
        backbone = _backbone(self._base_url, self._model, window_tokens, self._settings)
        return EngineClient(server, backbone, renderer, exact_prompts=False, client=self._client)

    def _renderer(self, served: ServedModel | None) -> Renderer:
        """Template and tokenizer: those that are named, those on this machine, or by length."""
        named = self._settings.tokenizer
        if named is not None:
            try:
                return Renderer(named, revision=self._settings.tokenizer_revision)
            except ConfigError as error:
                raise ConfigError(f"tokenizer: {error}") from error
        for folder in (self._model, served.root if served else None):
            if folder and (Path(folder) / TOKENIZER_FILE).is_file():
                return Renderer(folder)
        return AssumedRenderer()

    def _with_tools(self, tools: Sequence[Mapping[str, Any]], engine: EngineClient) -> _Offering:
        """What goes with these tools, kept as long as they are those."""
        if self._offering is None or self._offering.tools != list(tools):
            renderer = engine.renderer.with_tools(tools) if tools else engine.renderer
            offering = engine.with_tools(tools, renderer) if tools else engine
            self._offering = _Offering(list(tools), offering, renderer, KnownMessages(renderer))
        return self._offering

    def _scaled(
        self, renderer: Renderer, messages: list[Any], tools: Sequence[Mapping[str, Any]]
    ) -> Renderer:
        """A renderer that counts by length, in proportion to what the server counts, if it does."""
        messages, _ = whole_rounds(messages, self._settings.on_broken_tools)
        shown = read_history(messages).messages()
        if not self._server_counts or not isinstance(renderer, AssumedRenderer):
            return renderer
        url = f"{self._base_url.removesuffix('/v1')}/tokenize"
        body = {"model": self._model, "messages": shown, "add_generation_prompt": False}
        if tools:
            body["tools"] = list(tools)
        try:
            return renderer.scaled(shown, int(post_json(url, self._api_key, body)["count"]))
        except (HttpError, KeyError, TypeError, ValueError):
            self._server_counts = False
            return renderer


def default_prompt() -> str:
    """The prompt that the study calls `detailed`."""
    return load_prompt(PROMPTS, "detailed").text


def find_model(base_url: str, model: str, api_key: str) -> ServedModel | None:
    """What a server says of a model that it serves; None where it lists none.

    Raises:
        ServerError: it cannot be reached, or does not serve the model.
    """
    try:
        served = served_models(base_url, api_key)
    except HttpError as problem:
        raise ServerError(
            f"no server to use: {problem}. Check that it runs, its URL (it ends in /v1) and the key"
        ) from problem
    if served and model not in served:
        raise ServerError(
            f"{base_url} does not serve {model!r}; it serves {', '.join(served)}. "
            "Give one of these as the model"
        )
    return served.get(model)


def _backbone(base_url: str, model: str, window_tokens: int, settings: ChatSettings) -> Backbone:
    """The served model as a client sees it.

    Architecture, reasoning and size only label tables; no request depends on them.
    """
    return Backbone(
        model=PathModel(source="path", path=settings.tokenizer or model),
        architecture=Architecture.DENSE,
        reasoning=False,
        num_parameters=1.0,
        context_window_tokens=window_tokens,
        engine=ExternalEngine(kind="external", url=base_url, served_model=model, version="unknown"),
        request=RequestDefaults(temperature=settings.temperature, timeout_s=settings.timeout),
    )


def _in_words(error: Mapping[str, Any]) -> str:
    """One refusal: argument, what is wrong, what was given."""
    where = ".".join(map(str, error["loc"]))
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{where} = {error['input']!r}: {message}" if where else message
