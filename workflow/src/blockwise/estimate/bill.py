"""The bill: a row a stage, what does not fit, and every assumption that it rests on."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

BYSTANDERS = "bystanders"
"""The stage of what bystanders ask while a compaction runs: as much as it leaves time for, so it
stands in no total. Its hours are those of the compactions."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Line(_Part):
    """One stage of one backbone and dataset, or of one training experiment."""

    stage: str  # timing | recall | bystanders | servers | judge | training | measurements
    backbone: str  # MXFP4: the model
    dataset: str  # MXFP4: empty
    experiment: str  # empty: all of them
    num_jobs: int = 0
    num_cells: int = 0  # cells, each counted where it is first needed; MXFP4: runs
    num_requests: int = 0
    num_steps: int = 0  # optimizer steps
    prompt_tokens: int = 0
    uncached_tokens: int = 0  # of the prompts: what is really computed
    decoded_tokens: int = 0
    train_tokens: int = 0
    flops: float = 0.0
    wall_h: float = 0.0  # of the machine that the stage reserves
    gpu_h: float = 0.0
    cpu_h: float = 0.0  # core-hours where no GPU is used
    disk_gb: float = 0.0
    is_estimated: bool = False  # sessions or tokenizer stand in, or speed decides the number


class DiskLine(_Part):
    """Something that stays on disk."""

    what: str
    disk_gb: float
    source: str


class Bill(_Part):
    """Everything that is printed or written."""

    schema_version: Literal[1] = 1
    profile: str
    lines: tuple[Line, ...]
    disk: tuple[DiskLine, ...]
    warnings: tuple[str, ...]
    assumptions: tuple[str, ...]


SUMMED = [name for name, field in Line.model_fields.items() if field.annotation in (int, float)]


def summed(lines: list[Line], **labels: str) -> Line:
    """One line for several; labels that differ are given."""
    values = {name: sum(getattr(line, name) for line in lines) for name in SUMMED}
    is_estimated = any(line.is_estimated for line in lines)
    known = {key: getattr(lines[0], key) for key in ("stage", "backbone", "dataset", "experiment")}
    return Line(**{**known, **labels}, **values, is_estimated=is_estimated)
