"""What the experiments of all studies share: arms, volume, repetition, and what is refused."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveInt, model_validator

from blockwise.config.arms import SEQUENTIAL, known_layouts
from blockwise.config.base import ConfigModel, Name, PositiveTokens
from blockwise.config.choices import Boundary, Protocol, SummaryFault


class ForcedVolume(ConfigModel):
    """Every compaction decodes exactly this many tokens, split over its workers."""

    mode: Literal["forced"]
    total_tokens: PositiveTokens


class VolumeOfEach(ConfigModel):
    """Every worker decodes exactly this many tokens, and sequential as many as all of them.

    A total that is split over the workers is not known before all of them are, so no worker could
    be sent ahead of its compaction.
    """

    mode: Literal["forced"]
    worker_tokens: PositiveTokens


class NaturalVolume(ConfigModel):
    """Every worker stops by itself, below a cap."""

    mode: Literal["natural"]
    sequential_max_tokens: PositiveTokens
    worker_max_tokens: PositiveTokens
    accept: list[SummaryFault] = Field(
        default_factory=list,
        description="Faults of a summary that are recorded and kept; any other ends the job.",
    )


Volume = Annotated[ForcedVolume | NaturalVolume, Field(discriminator="mode")]


class Verbatim(ConfigModel):
    """What a compaction leaves as it is. The system prompt always stays."""

    last_turns: int = Field(0, ge=0)


class Grid(ConfigModel):
    """What the experiments of all studies have in common: arms, prompts, repetition."""

    PLAYED: ClassVar[Protocol]

    sequential: bool = Field(True, description="Include the sequential arm.")
    layouts: list[str] = Field(["target_block"], description="Modules of compaction/layouts.")
    block_sizes_tokens: list[PositiveTokens] = Field(
        default_factory=list,
        description="B. An arm whose B exceeds the history it would cut is left out.",
    )
    boundary: Boundary = Boundary.TURN
    prompts: list[Name] = Field(
        ["detailed"], min_length=1, description="Files of config/prompts, without .md."
    )
    verbatim: Verbatim = Verbatim()
    seeds: list[int] = Field([0], min_length=1)
    num_repeats: PositiveInt = 1
    num_server_starts: PositiveInt = Field(
        1,
        description="Timed cells are played again on so many starts of the server, each in a job "
        "of its own; times cluster by start.",
    )
    num_sessions: PositiveInt | None = Field(None, description="The first so many; default: all.")
    backbones: list[Name] | None = Field(None, description="Default: all.")
    datasets: list[Name] | None = Field(None, description="Default: all.")

    @property
    def protocol(self) -> Protocol:
        """How its cells are played."""
        return self.PLAYED

    @property
    def history_limits_tokens(self) -> list[int]:
        """Lengths at which this experiment compacts: tau, or the history's own."""
        raise NotImplementedError

    @property
    def volume_rule(self) -> "ForcedVolume | VolumeOfEach | NaturalVolume":
        """The volume of its compactions."""
        raise NotImplementedError

    @property
    def is_timed(self) -> bool:
        """Whether its cells live in timing blocks; every cell of an experiment agrees."""
        if self.protocol is Protocol.SINGLE:
            return self.volume_rule.mode == "forced"
        return self.protocol is not Protocol.DEFERRED

    def arms(self, history_tokens: int) -> list[tuple[str, int | None]]:
        """Layout and block size of each arm at one history length, the sequential one first."""
        arms: list[tuple[str, int | None]] = [(SEQUENTIAL, None)] if self.sequential else []
        return arms + [
            (layout, size)
            for layout in self.layouts
            for size in self.block_sizes_tokens
            if size <= history_tokens
        ]

    def prompt_names(self) -> list[str]:
        """Every compaction prompt that some arm uses."""
        return list(self.prompts)

    def max_output_tokens(self, block_size_tokens: int | None, history_tokens: int) -> int:
        """Most tokens one compaction may decode; `None` is the sequential arm."""
        volume = self.volume_rule
        if isinstance(volume, ForcedVolume):
            return volume.total_tokens
        if isinstance(volume, NaturalVolume) and block_size_tokens is None:
            return volume.sequential_max_tokens
        size = block_size_tokens or min(self.block_sizes_tokens)
        most = volume.worker_tokens if volume.mode == "forced" else volume.worker_max_tokens
        return -(-history_tokens // size) * most

    def max_request_tokens(self) -> int:
        """Most tokens that a single compaction request may decode."""
        volume = self.volume_rule
        if isinstance(volume, NaturalVolume):
            return max(volume.sequential_max_tokens, volume.worker_max_tokens)
        return self.max_output_tokens(None, max(self.history_limits_tokens))

    @model_validator(mode="after")
    def _grid_is_sound(self) -> "Grid":
        problems = [*self._list_problems(), *self._volume_problems(), *self._own_problems()]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _list_problems(self) -> list[str]:
        problems = []
        for key in type(self).model_fields:
            values = getattr(self, key)
            if isinstance(values, list) and len(set(values)) != len(values):
                problems.append(f"{key} lists a value twice: {values}; keep each once")
        for layout in self.layouts:
            if layout not in known_layouts():
                problems.append(f"layouts: {layout!r} is unknown; choose of {known_layouts()}")
        if not self.layouts and not self.sequential:
            problems.append("no arm is left: name a layout or set sequential to true")
        if self.layouts and not self.block_sizes_tokens:
            problems.append("block_sizes_tokens is empty: parallel layouts need at least one B")
        if self.num_server_starts > 1 and not self.is_timed:
            problems.append(
                f"num_server_starts is {self.num_server_starts}, and no {self.protocol} cell of "
                f"{self.volume_rule.mode} volume is timed; leave it out"
            )
        return problems

    def _volume_problems(self) -> list[str]:
        problems = []
        longest = max(self.history_limits_tokens)
        too_large = [size for size in self.block_sizes_tokens if size > longest]
        if too_large:
            problems.append(
                f"block_sizes_tokens {too_large} exceed {longest}, the longest history that is "
                "compacted: it never holds such a history block; lower B or raise the length"
            )
        volume = self.volume_rule
        if isinstance(volume, ForcedVolume) and self.layouts and self.block_sizes_tokens:
            num_workers = -(-longest // min(self.block_sizes_tokens))
            if volume.total_tokens < num_workers:
                problems.append(
                    f"volume.total_tokens {volume.total_tokens} leaves workers without a token: "
                    f"{longest} tokens at B={min(self.block_sizes_tokens)} are {num_workers} "
                    f"history blocks; give at least {num_workers} tokens or raise B"
                )
        return problems

    def _own_problems(self) -> list[str]:
        """What one kind of experiment refuses beside the rest."""
        return []


class Sessions(Grid):
    """Experiments that play whole sessions and compact whenever tau is exceeded."""

    tau_tokens: list[PositiveTokens] = Field(
        min_length=1, description="Trigger thresholds of the rendered request."
    )
    answer_tokens: PositiveTokens = Field(16, description="Budget of one answer.")

    @property
    def history_limits_tokens(self) -> list[int]:
        """A history is compacted at tau."""
        return list(self.tau_tokens)

    def _own_problems(self) -> list[str]:
        problems = []
        for tau_tokens in self.tau_tokens:
            for layout, size in self.arms(tau_tokens):
                left = self.max_output_tokens(size, tau_tokens) + self.answer_tokens
                left += self._most_kept_tokens(size)
                if left >= tau_tokens:
                    arm = layout if size is None else f"{layout} B={size}"
                    problems.append(
                        f"a compaction cannot shrink ({arm}): up to {left} tokens of summaries, "
                        f"answer and open history block remain, tau_tokens is {tau_tokens}; lower "
                        "the volume, change B or raise tau"
                    )
        return list(dict.fromkeys(problems))

    def _most_kept_tokens(self, block_size_tokens: int | None) -> int:
        """Of the open history block that stays verbatim; nothing of it does by default."""
        return 0
