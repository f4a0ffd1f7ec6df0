"""The specification of a cell: everything that can change its record, and the key that follows.

Names are labels, and measured speeds, figure code or the number of other cells never enter it. The
plan builds specifications, records hold them, and tables read them there.
"""

from collections.abc import Collection
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from blockwise.artifacts import digest
from blockwise.compaction.compactor import CompactionRule
from blockwise.config.arms import SEQUENTIAL, Mode, Reference, is_reference, known_layouts
from blockwise.config.backbones import ArgumentValue, RequestSettings
from blockwise.config.choices import (
    Boundary,
    ContentType,
    OpenBlock,
    Protocol,
    SummaryFault,
    Transcript,
    VolumeMode,
)
from blockwise.config.datasets import FormatName
from blockwise.config.experiments import Bystanders


class _Ingredient(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _EngineIdentity(_Ingredient):
    """What answers, apart from the model: no URL and no key."""

    packages: dict[str, str]  # version by name, of those that can change a record
    context_window_tokens: int
    gpus: int


class VllmIdentity(_EngineIdentity):
    """A server that the job starts."""

    kind: Literal["vllm"] = "vllm"
    flags: dict[str, ArgumentValue]  # as they are in effect
    environment: dict[str, str]


class ExternalIdentity(_EngineIdentity):
    """An endpoint that somebody else runs."""

    kind: Literal["external"] = "external"
    version: str  # in the words of whoever runs it
    served_model: str


EngineIdentity = VllmIdentity | ExternalIdentity


def _later(default: Any) -> Any:
    """An ingredient that came later: where it is at its default, keys are what they were."""
    return Field(default, exclude_if=lambda value: value == default)


class CellSettings(_Ingredient):
    """What a cell was told to do, whatever session it plays in whichever arm.

    An ingredient that a protocol does not have is what it is where nothing is said.
    """

    request: RequestSettings
    protocol: Protocol
    boundary: Boundary
    last_turns: int
    tau_tokens: int | None = None  # None: no session, or a reference
    history_tokens: int | None = None  # None: a session
    transcript: Transcript | None = None  # None: no answer enters a history
    volume_mode: VolumeMode
    volume_tokens: int  # forced: total; natural: cap of each worker
    volume_block_size_tokens: int | None = None  # forced: volume_tokens for each of such blocks
    accept: tuple[SummaryFault, ...] = ()  # faults that a summary of natural volume may have
    answer_tokens: int = 1  # 1 where nothing is asked
    asks_truncated: bool = False  # deferred: also ask on the last tokens instead of the summaries
    max_concurrent_workers: int | None = None  # None: all at once
    is_eager: bool = False  # workers are sent as soon as their history block is closed
    max_background_workers: int | None = None  # eager: before a compaction is due; None: all
    worker_priority: int = 0
    open_block: OpenBlock = OpenBlock.COMPACT
    tool_wait_s: float = 0.0  # between an answer and the next document
    num_bystanders: int = 0
    bystanders: Bystanders | None = None  # what they do; None: there are none
    budget_tokens: int | None = _later(None)  # what a strategy may leave; None: no strategy
    ask_after: tuple[int, ...] = _later(())  # compactions after which questions are asked
    code_digest: str


ARM_INGREDIENTS = frozenset(
    {
        "layout",
        "strategy",
        "block_size_tokens",
        "max_concurrent_workers",
        "is_eager",
        "max_background_workers",
        "worker_priority",
        "open_block",
        "code_digest",
    }
)
"""What differs between the arms of one timing block."""


class CellSpec(CellSettings):
    """Every ingredient of a cell's record."""

    model_digest: str
    engine: Annotated[EngineIdentity, Field(discriminator="kind")]
    dataset_format: FormatName
    session_id: str
    session_digest: str
    layout: str  # `sequential`, a parallel layout, or a reference without any compaction
    strategy: str | None = _later(None)  # under a budget; `layout` is that of its workers
    keep_identifiers: int = _later(0)  # of those that a strategy lost, at most so many are added
    block_size_tokens: int | None  # None: sequential, or a reference
    prompt: str
    block_prompts: dict[ContentType, str]  # by content type; empty: `prompt` for all
    seed: int
    repeat: int
    server_start: int  # index of the server start on which it is timed; 0: it is not timed

    @field_validator("layout")
    @classmethod
    def _layout_is_known(cls, value: str) -> str:
        known = (SEQUENTIAL, *known_layouts(), *Reference)
        if value not in known:
            raise ValueError(f"{value!r} is no layout and no reference; known: {', '.join(known)}")
        return value

    @property
    def settings(self) -> CellSettings:
        """The part that all arms and sessions of a comparison share."""
        return CellSettings(**{name: getattr(self, name) for name in CellSettings.model_fields})

    @property
    def key(self) -> str:
        """Content hash of all ingredients."""
        return self.digest_without(())

    def digest_without(self, names: Collection[str]) -> str:
        """Content hash of all ingredients but some: what cells share that differ in these alone."""
        unknown = {*names} - {*CellSpec.model_fields}
        assert not unknown, f"{sorted(unknown)} are no ingredients of a cell"
        return digest(self.model_dump(mode="json", exclude={*names}))

    @property
    def label(self) -> str:
        """Short name for progress lines and error lists."""
        parts = [self.session_id, self.protocol.value, *([self.strategy] if self.strategy else [])]
        parts.append(self.layout)
        for name, value in (
            ("B", self.block_size_tokens),
            ("tau", self.tau_tokens),
            ("history", self.history_tokens),
            ("bystanders", self.num_bystanders or None),
            ("at_once", self.max_concurrent_workers),
            ("mode", Mode.EAGER if self.is_eager else None),
            ("background", self.max_background_workers),
            ("priority", self.worker_priority or None),
            ("open", None if self.open_block is OpenBlock.COMPACT else self.open_block.value),
            ("tool_wait", self.tool_wait_s or None),
            ("identifiers", self.keep_identifiers or None),
        ):
            parts += [] if value is None else [f"{name}={value}"]
        parts.append(f"seed={self.seed}.{self.repeat}")
        return " ".join([*parts, *([f"start={self.server_start}"] if self.server_start else [])])

    @property
    def frame(self) -> str:
        """Digest of everything but the arm: cells of one frame form one timing block."""
        arm = {*ARM_INGREDIENTS}
        if self.volume_mode is VolumeMode.NATURAL:  # the cap of a worker differs from arm to arm
            arm.add("volume_tokens")
        return self.digest_without(arm)

    @property
    def mode(self) -> Mode | None:
        """When summaries are asked for, and in how many calls; None for a reference."""
        if self.is_reference:
            return None
        if self.layout == SEQUENTIAL:
            return Mode.SEQUENTIAL
        return Mode.EAGER if self.is_eager else Mode.PARALLEL

    @property
    def is_timing(self) -> bool:
        """Whether this cell's times count, so that it lives in a timing block."""
        if self.protocol is Protocol.SINGLE:
            return self.volume_mode is VolumeMode.FORCED
        return self.protocol is not Protocol.DEFERRED

    @property
    def is_reference(self) -> bool:
        """Whether nothing is compacted: a floor or a ceiling of recall."""
        return is_reference(self.layout)

    def compaction_rule(self) -> CompactionRule | None:
        """The part that the compactor needs; None for a reference."""
        if self.is_reference:
            return None
        return CompactionRule(
            layout=self.layout,
            block_size_tokens=self.block_size_tokens,
            boundary=self.boundary,
            prompt=self.prompt,
            block_prompts=self.block_prompts,
            volume_mode=self.volume_mode,
            volume_tokens=self.volume_tokens,
            volume_block_size_tokens=self.volume_block_size_tokens,
            open_block=self.open_block,
            last_turns=self.last_turns,
            max_concurrent_workers=self.max_concurrent_workers,
            worker_priority=self.worker_priority,
            accept=frozenset(self.accept),
            carries_summaries=False,
            max_answers=1,  # a cell measures the first answer
            keep_identifiers=self.keep_identifiers,
            strategy=self.strategy,
            budget_tokens=self.budget_tokens,
        )
