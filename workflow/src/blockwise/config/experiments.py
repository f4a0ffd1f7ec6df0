"""Experiments: which cells a figure or table of the compaction study needs."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from blockwise.config.base import ConfigModel, Name, PositiveTokens

SEQUENTIAL = "sequential"
"""The arm that summarises the whole history in one call."""

LAYOUT_PACKAGE = "blockwise.compaction.layouts"
"""Where the layouts are; named, not imported, because a configuration loads no code."""


class QuestionTiming(StrEnum):
    """When a session's questions are asked."""

    IMMEDIATE = "immediate"  # in the turn of their document: end-to-end timing
    DEFERRED = "deferred"  # each in its own branch after a closing compaction: recall


class Transcript(StrEnum):
    """Which assistant turns an immediate session appends to its history."""

    FIXED = "fixed"  # the recorded turn, so every arm does the same work
    FREE = "free"  # what the model said: a labelled variant, never compared for speed


class Boundary(StrEnum):
    """Where history blocks may be cut."""

    TURN = "turn"  # never inside a turn
    TOKEN = "token"  # noqa: S105  the paper's token-wise cut, at a stable character


def known_layouts() -> list[str]:
    """Names of the parallel layouts: the modules of their package."""
    folder = Path(__file__).parents[1].joinpath(*LAYOUT_PACKAGE.split(".")[1:])
    return sorted(
        path.stem for path in folder.glob("*.py") if path.stem not in {"__init__", SEQUENTIAL}
    )


class ForcedVolume(ConfigModel):
    """Every compaction decodes exactly this many tokens, split over its workers."""

    mode: Literal["forced"]
    total_tokens: PositiveTokens


class NaturalVolume(ConfigModel):
    """Every worker stops by itself, below a cap."""

    mode: Literal["natural"]
    sequential_max_tokens: PositiveTokens
    worker_max_tokens: PositiveTokens


Volume = Annotated[ForcedVolume | NaturalVolume, Field(discriminator="mode")]


class Verbatim(ConfigModel):
    """What a compaction leaves as it is. The system prompt always stays."""

    last_turns: int = Field(0, ge=0)


class Experiment(ConfigModel):
    """A grid of cells: one arm per (mode, layout, block size), every arm on every session."""

    question_timing: QuestionTiming
    transcript: Transcript = Transcript.FIXED
    tau_tokens: PositiveTokens = Field(description="Trigger threshold of the rendered request.")
    sequential: bool = Field(True, description="Include the sequential arm.")
    layouts: list[str] = Field(["target_block"], description="Modules of compaction/layouts.")
    block_sizes_tokens: list[PositiveTokens] = Field(min_length=1)
    boundary: Boundary = Boundary.TURN
    prompt: Name = Field("detailed", description="A file of config/prompts, without .md.")
    volume: Volume
    verbatim: Verbatim = Verbatim()
    answer_tokens: PositiveTokens = Field(16, description="Budget of one answer.")
    seeds: list[int] = Field([0], min_length=1)
    num_repeats: int = Field(1, gt=0)
    backbones: list[Name] | None = Field(None, description="Default: all.")
    datasets: list[Name] | None = Field(None, description="Default: all.")

    @model_validator(mode="after")
    def _grid_is_sound(self) -> "Experiment":
        problems = [*self._list_problems(), *self._volume_problems()]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _list_problems(self) -> list[str]:
        problems = []
        for key in ("layouts", "block_sizes_tokens", "seeds", "backbones", "datasets"):
            values = getattr(self, key)
            if values is not None and len(set(values)) != len(values):
                problems.append(f"{key} lists a value twice: {values}; keep each once")
        for layout in self.layouts:
            if layout not in known_layouts():
                problems.append(f"layouts: {layout!r} is unknown; choose of {known_layouts()}")
        if not self.layouts and not self.sequential:
            problems.append("no arm is left: name a layout or set sequential to true")
        return problems

    def _volume_problems(self) -> list[str]:
        problems = []
        too_large = [size for size in self.block_sizes_tokens if size > self.tau_tokens]
        if too_large:
            problems.append(
                f"block_sizes_tokens {too_large} exceed tau_tokens {self.tau_tokens}: a history "
                "never holds such a block; lower B or raise tau"
            )
        if self.question_timing is QuestionTiming.DEFERRED and self.volume.mode != "natural":
            problems.append(
                "recall (question_timing: deferred) comes from natural volume only; "
                "set volume.mode to natural"
            )
        num_workers = self._max_workers()
        if self.volume.mode == "forced" and self.volume.total_tokens < num_workers:
            problems.append(
                f"volume.total_tokens {self.volume.total_tokens} leaves workers without a token: "
                f"tau_tokens {self.tau_tokens} at B={min(self.block_sizes_tokens)} is "
                f"{num_workers} history blocks; give at least {num_workers} tokens or raise B"
            )
        for size in self.arm_block_sizes():
            left = self.max_output_tokens(size) + self.answer_tokens
            if left >= self.tau_tokens:
                arm = "sequential" if size is None else f"B={size}"
                problems.append(
                    f"a compaction cannot shrink ({arm}): up to {left} tokens of summaries and "
                    f"answer remain, tau_tokens is {self.tau_tokens}; lower the volume, raise "
                    "B or raise tau"
                )
        return problems

    def _max_workers(self) -> int:
        """Workers of one compaction at the smallest B; one where no arm is parallel."""
        sizes = [size for size in self.arm_block_sizes() if size is not None]
        return -(-self.tau_tokens // min(sizes)) if sizes else 1

    def arm_block_sizes(self) -> list[int | None]:
        """Block sizes of the arms; None is the sequential one."""
        sizes: list[int | None] = [None] if self.sequential else []
        return sizes + (list(self.block_sizes_tokens) if self.layouts else [])

    def max_output_tokens(self, block_size_tokens: int | None) -> int:
        """Most tokens one compaction may leave behind; `None` is the sequential arm."""
        if self.volume.mode == "forced":
            return self.volume.total_tokens
        if block_size_tokens is None:
            return self.volume.sequential_max_tokens
        num_blocks = -(-self.tau_tokens // block_size_tokens)
        return num_blocks * self.volume.worker_max_tokens

    def max_request_tokens(self) -> int:
        """Most tokens that a single compaction request may decode."""
        if self.volume.mode == "forced":
            return self.volume.total_tokens
        return max(self.volume.sequential_max_tokens, self.volume.worker_max_tokens)
