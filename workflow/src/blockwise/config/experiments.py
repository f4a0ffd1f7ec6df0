"""Experiments: which cells a figure or table of the compaction study needs.

Every experiment belongs to a study, which is the table and the figure it feeds, and is a grid
of cells: one arm per (layout, block size) beside sequential, every arm on every session. Four
kinds of cell serve the studies: a session with its questions asked at once (time), one with
its questions asked after a closing compaction (recall), a single compaction of a history of a
given length, and a single compaction on an engine that serves others too.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveInt

from blockwise.config.arms import Reference, eager_layouts, known_strategies
from blockwise.config.base import ConfigModel, Name, PositiveTokens
from blockwise.config.choices import (
    Boundary,
    ContentType,
    OpenBlock,
    Protocol,
    Study,
    SummaryFault,
    Transcript,
)
from blockwise.config.grid import ForcedVolume, Grid, NaturalVolume, Sessions, Volume, VolumeOfEach


class SessionExperiment(Sessions):
    """Whole sessions against the clock."""

    PLAYED: ClassVar[Protocol] = Protocol.IMMEDIATE

    study: Literal[Study.END_TO_END, Study.BLOCKING_SHARE, Study.MATCHED_VOLUME]
    volume: Volume
    transcript: Transcript = Transcript.FIXED

    @property
    def volume_rule(self) -> ForcedVolume | NaturalVolume:
        """As configured."""
        return self.volume

    def _own_problems(self) -> list[str]:
        problems = super()._own_problems()
        if self.study is Study.MATCHED_VOLUME and not (self.sequential and self.layouts):
            problems.append(
                "matched volume compares sequential with parallel arms: set sequential to true and "
                "name a layout"
            )
        return problems


class EagerExperiment(Sessions):
    """Whole sessions against the clock, with compactions that begin before they are due.

    Parallel and eager arms of one layout send the same requests, the eager ones as soon as a
    history block is closed. The agent waits between an answer and the next document, as for a tool.
    """

    protocol: ClassVar[Protocol] = Protocol.IMMEDIATE

    study: Literal[Study.EAGER]
    volume: VolumeOfEach
    eager_layouts: list[str] = Field(
        ["suffix_target"],
        description="Those of `layouts` that are played eagerly too; a layout that shows a worker "
        "what follows its history block cannot be.",
    )
    open_blocks: list[OpenBlock] = Field(
        default_factory=lambda: list(OpenBlock),
        min_length=1,
        description="What becomes of the last, open history block; each adds to all parallel and "
        "eager arms.",
    )
    max_background_workers: list[PositiveInt] = Field(
        default_factory=list,
        description="Adds to each eager arm one that has at most so many workers at once before a "
        "compaction is due.",
    )
    tool_waits_s: list[float] = Field(
        [0.0],
        min_length=1,
        description="Seconds between an answer and the next document, which all arms wait.",
    )

    @property
    def volume_rule(self) -> VolumeOfEach:
        """As configured."""
        return self.volume

    def _most_kept_tokens(self, block_size_tokens: int | None) -> int:
        return (block_size_tokens or 0) if OpenBlock.KEEP in self.open_blocks else 0

    def _own_problems(self) -> list[str]:
        if not self.layouts:
            return ["eager is held against parallel compaction: name a layout in layouts"]
        if not self.block_sizes_tokens:
            return []  # told already
        problems = super()._own_problems()
        if len(self.block_sizes_tokens) > 1:
            problems.append(
                f"block_sizes_tokens {self.block_sizes_tokens}: sequential decodes what all "
                "workers of one B do, so an eager experiment has one; write an experiment for each"
            )
        for name in self.eager_layouts:
            if name not in eager_layouts():
                problems.append(
                    f"eager_layouts: {name!r} shows a worker what follows its history block, so it "
                    f"cannot be sent before the compaction is due; choose of {eager_layouts()}"
                )
            elif name not in self.layouts:
                problems.append(
                    f"eager_layouts: {name!r} is held against parallel of the same layout; name it "
                    f"in layouts {self.layouts} too"
                )
        if OpenBlock.KEEP in self.open_blocks and self.boundary is not Boundary.TURN:
            problems.append(
                f"open_blocks keep needs the boundary turn, it is {self.boundary}: half a message "
                "cannot stay verbatim"
            )
        if any(wait_s < 0 for wait_s in self.tool_waits_s):
            problems.append(f"tool_waits_s {self.tool_waits_s}: a wait is 0 s or more")
        return problems


class RecallExperiment(Sessions):
    """Whole sessions whose questions are asked after a closing compaction of everything."""

    PLAYED: ClassVar[Protocol] = Protocol.DEFERRED

    study: Literal[Study.ACCURACY_VOLUME, Study.BLOCK_PROMPTS]
    volume: NaturalVolume
    references: list[Reference] = Field(
        default_factory=lambda: list(Reference), description="Floors and ceilings on the questions."
    )
    block_prompts: dict[ContentType, Name] = Field(
        default_factory=dict,
        description="Adds to each parallel arm one in which a history block has the prompt of its "
        "content type.",
    )

    @property
    def volume_rule(self) -> NaturalVolume:
        """Recall comes from natural volume only."""
        return self.volume

    def prompt_names(self) -> list[str]:
        """The prompts for all history blocks, and those by content type."""
        return list(dict.fromkeys([*self.prompts, *self.block_prompts.values()]))

    def _own_problems(self) -> list[str]:
        problems = super()._own_problems()
        if self.study is Study.BLOCK_PROMPTS and not (self.block_prompts and self.layouts):
            problems.append(
                "block prompts are compared on parallel arms: name prompts in block_prompts (keys "
                f"{', '.join(ContentType)}) and a layout"
            )
        return problems


class CompactionExperiment(Grid):
    """Single compactions of a history of a given length, cached by the agent's own traffic."""

    PLAYED: ClassVar[Protocol] = Protocol.SINGLE

    study: Literal[Study.LENGTH_INVARIANCE, Study.STABILITY, Study.VOLUME_CONTROL, Study.LAYOUTS]
    history_tokens: list[PositiveTokens] = Field(
        min_length=1, description="Documents are shown until the history holds so many."
    )
    volume: Volume

    @property
    def history_limits_tokens(self) -> list[int]:
        """The lengths asked for."""
        return list(self.history_tokens)

    @property
    def volume_rule(self) -> ForcedVolume | NaturalVolume:
        """As configured."""
        return self.volume

    def _own_problems(self) -> list[str]:
        natural = self.volume.mode == "natural"
        if self.study is Study.LAYOUTS and natural:
            return ["layouts are compared at equal volume: set volume.mode to forced"]
        if self.study is not Study.LAYOUTS and not natural:
            return [f"{self.study} measures the volume itself: set volume.mode to natural"]
        return []


class Bystanders(ConfigModel):
    """Sessions that use the engine while another one compacts."""

    context_tokens: PositiveTokens = Field(512, description="Cached history of each.")
    answer_tokens: int = Field(
        9, ge=2, description="Tokens of each answer; its gaps are the inter-token latency."
    )
    num_alone_requests: PositiveInt = Field(
        4, description="Requests of each before the compaction starts: the undisturbed case."
    )


class LoadExperiment(Grid):
    """Single compactions on an engine that others use at the same time."""

    PLAYED: ClassVar[Protocol] = Protocol.SHARED

    study: Literal[Study.UNDER_LOAD]
    history_tokens: PositiveTokens
    volume: ForcedVolume
    num_bystanders: list[PositiveInt] = Field(min_length=1)
    max_concurrent_workers: list[PositiveInt] = Field(
        default_factory=list,
        description="Adds to each parallel arm one that sends at most so many workers at once.",
    )
    background_workers: list[PositiveInt] = Field(
        default_factory=list,
        description="Adds to each parallel arm one whose closed history blocks are summarised "
        "before the compaction is due, at most so many at once; its layout must allow it.",
    )
    worker_priorities: list[PositiveInt] = Field(
        default_factory=list,
        description="Plays each arm again with this priority of its workers; bystanders have 0, "
        "which is served first. The engine must schedule by priority.",
    )
    bystanders: Bystanders = Bystanders()

    @property
    def history_limits_tokens(self) -> list[int]:
        """The one length."""
        return [self.history_tokens]

    @property
    def volume_rule(self) -> ForcedVolume:
        """Load is compared at equal volume."""
        return self.volume

    def _own_problems(self) -> list[str]:
        if not self.background_workers:
            return []
        return [
            f"layouts: {name!r} shows a worker what follows its history block, and "
            f"background_workers sends workers before that is there; choose of {eager_layouts()}"
            for name in self.layouts
            if name not in eager_layouts()
        ]


class StrategiesExperiment(Grid):
    """Strategies beside each other, each allowed to leave as many tokens as the others."""

    PLAYED: ClassVar[Protocol] = Protocol.DEFERRED

    study: Literal[Study.STRATEGIES]
    sequential: Literal[False] = False  # it is a strategy here
    strategies: list[str] = Field(
        default_factory=known_strategies,
        min_length=1,
        description="Modules of compaction/strategies; default: all.",
    )
    layouts: list[str] = Field(
        ["suffix_target"], description="Of the strategies whose workers have one."
    )
    budget_tokens: PositiveTokens = Field(
        description="Most that a compacted history holds, system prompt included, what stays "
        "verbatim apart."
    )
    worker_max_tokens: PositiveTokens = Field(
        description="Most that the worker of a history block writes; whatever a strategy keeps is "
        "held to the budget besides."
    )
    accept: list[SummaryFault] = Field(
        default_factory=list,
        description="Faults of a summary that are recorded and kept; any other ends the job.",
    )
    keep_identifiers: list[Annotated[int, Field(ge=0)]] = Field(
        [0],
        min_length=1,
        description="At most so many identifiers that a strategy lost are added; 0: none.",
    )
    tau_tokens: PositiveTokens = Field(
        description="Against the clock the trigger threshold; else the most that a history may "
        "hold before a compaction, which is checked before the run."
    )
    answer_tokens: PositiveTokens = Field(16, description="Budget of one answer.")
    timed: bool = Field(
        False, description="Whole sessions against the clock, instead of questions after them."
    )
    ask_after: list[PositiveInt] = Field(
        [1],
        min_length=1,
        description="A session is cut into as many parts as the largest of these, and compacted "
        "after each. The questions of the first part are asked after so many compactions, all "
        "others after the last.",
    )
    references: list[Reference] = Field(
        default_factory=lambda: [Reference.CLOSED_BOOK, Reference.FULL_HISTORY],
        description="Floors and ceilings on the questions.",
    )

    @property
    def protocol(self) -> Protocol:
        """Recall and time are of different cells."""
        return Protocol.IMMEDIATE if self.timed else self.PLAYED

    @property
    def history_limits_tokens(self) -> list[int]:
        """A history is compacted at tau, or before."""
        return [self.tau_tokens]

    @property
    def volume_rule(self) -> NaturalVolume:
        """How long a strategy's texts are is its own, below the caps."""
        return NaturalVolume(
            mode="natural",
            sequential_max_tokens=self.budget_tokens,
            worker_max_tokens=self.worker_max_tokens,
            accept=self.accept,
        )

    def _own_problems(self) -> list[str]:
        problems = [
            f"strategies: {name!r} is unknown; choose of {known_strategies()}"
            for name in self.strategies
            if name not in known_strategies()
        ]
        if self.budget_tokens + self.answer_tokens >= self.tau_tokens:
            problems.append(
                f"a compaction cannot shrink: budget_tokens {self.budget_tokens} and an answer of "
                f"{self.answer_tokens} remain, tau_tokens is {self.tau_tokens}; lower the budget "
                "or raise tau"
            )
        if Reference.TRUNCATION in self.references:
            problems.append(
                "references: the last tokens are the strategy `truncate` here; name it there"
            )
        if self.timed and self.keep_identifiers != [0]:
            problems.append(
                f"keep_identifiers {self.keep_identifiers}: identifiers are added without a "
                "request, so sessions against the clock play [0]"
            )
        return problems


Experiment = Annotated[
    SessionExperiment
    | EagerExperiment
    | RecallExperiment
    | CompactionExperiment
    | LoadExperiment
    | StrategiesExperiment,
    Field(discriminator="study"),
]
