"""What is written down about a pocket backbone: how it was trained, and what it can do."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from blockwise.config.pocket import PocketRecipe


class Record(BaseModel):
    """Base of the records here: strict, unchanging."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SummaryLengths(Record):
    """Lengths of the summaries that were taught, by layout and verbosity, in tokens."""

    layout: str
    level: int
    num_summaries: int
    mean_tokens: float
    median_tokens: float
    p90_tokens: float


class CurvePoint(Record):
    """How far training was after some steps."""

    step: int
    num_tokens: int
    max_facts: int
    loss: float  # nats a token, skills weighted alike; mean since the point before
    accuracy: dict[str, float]  # moving average of token accuracy, by kind of reply


class PocketTraining(Record):
    """How a pocket backbone was trained."""

    schema_version: Literal[1] = 1
    name: str
    recipe: PocketRecipe
    recipe_digest: str  # of everything that decides the weights but the machine
    num_parameters: int
    vocab_size: int
    num_tokens: int  # read in training
    num_resumes: int
    train_s: float
    curve: list[CurvePoint]
    summary_lengths: list[SummaryLengths]  # of a sample of the last lessons
    packages: dict[str, str]
    cpu: str
    commit: str | None
    finished_at: str  # ISO 8601, UTC


class SkillResult(Record):
    """One skill in one setting: how often it succeeded, on held-out scenes through vLLM."""

    skill: Literal["answer", "compact"]
    kind: str  # of the question, or the layout
    context: str  # raw documents | summaries | one history block | whole history
    num_facts: int  # that the context states, about
    num_right: int
    num: int
    low_frac: float | None  # 95% interval of the share over scenes; None: too little for one
    high_frac: float | None
    num_spurious: int = 0  # sentences of summaries that the text does not state


class PocketSkills(Record):
    """What a pocket backbone can do, on names and facts that it never saw."""

    schema_version: Literal[1] = 1
    name: str
    model_digest: str
    results: list[SkillResult]
    examined_at: str
