"""What a cell leaves behind: one record, complete enough to rebuild every table from it.

Times are seconds of the client's monotonic clock; `start_s` counts from the start of the
cell. Token counts are the server's usage, checked against our own rendering.
"""

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict

from blockwise.compaction.cell_spec import CellSpec
from blockwise.config.backbones import Weights
from blockwise.config.choices import ContentType, Protocol, Study, SummaryFault
from blockwise.serving.engine_card import EngineCard

SCHEMA_VERSION: Literal[7] = 7

BY_CONTENT_TYPE = "by content type"
"""Label of arms in which each content type has a prompt of its own; no prompt can be so named."""


class Record(BaseModel):
    """Base of the records: immutable, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


RequestRole = Literal["agent", "worker", "unused", "question", "bystander"]
"""Who asked; `unused`: a worker that was sent ahead, and whose summary no compaction took."""


class AnswerContext(StrEnum):
    """What a question was asked on."""

    RUNNING = "running"  # the history of an immediate session: not a recall measure
    COMPACTED = "compacted"  # the history after a closing compaction
    CLOSED_BOOK = "closed_book"
    TRUNCATION = "truncation"
    FULL_HISTORY = "full_history"
    STRATEGY = "strategy"  # the history that a strategy left, after one compaction or several


class RequestRecord(Record):
    """One request to the engine."""

    role: RequestRole
    turn_index: int  # the document turn being played; workers: the turn that triggered them
    compaction_index: int | None  # workers: theirs; bystanders: the one that ran meanwhile
    worker_index: int | None  # workers and bystanders: which of them
    num_messages: int
    prompt_tokens: int
    cached_tokens: int | None  # None: the engine does not report it
    completion_tokens: int  # thinking included
    thinking_tokens: int
    max_tokens: int
    start_s: float
    ttft_s: float
    wall_s: float
    queue_s: float | None  # by the engine's clock; None: it does not report it
    decode_s: float | None  # first token to last, by the engine's clock
    finish_reason: str
    summary_fault: SummaryFault | None  # workers of natural volume: accepted by the experiment
    retry_reasons: tuple[str, ...]  # why each earlier attempt failed
    text: str
    thinking_text: str

    @property
    def num_retries(self) -> int:
        """How many attempts failed before the accepted one."""
        return len(self.retry_reasons)


class CompactionRecord(Record):
    """One compaction: the history before, the workers, the history after."""

    index: int
    turn_index: int  # the turn whose next request exceeded tau
    closing: bool  # the one compaction that ends a deferred session
    num_blocks: int  # 1 for sequential
    block_tokens: tuple[int, ...]  # realised history block sizes
    block_content: tuple[ContentType, ...]  # content type of each history block
    history_before_tokens: int  # rendered, generation prompt excluded
    history_after_tokens: int
    input_tokens: int  # tokens of history that the summaries replace
    output_tokens: int  # decoded by all workers, thinking included
    thinking_tokens: int
    prompt_tokens: int  # of all workers
    cached_tokens: int | None
    wall_s: float  # first request sent to last answer complete
    stall_s: float  # the agent's wait: trigger to new history, client work included
    num_length_finishes: int
    num_retried_workers: int
    num_ahead_workers: int  # sent before the compaction was due
    background_s: float  # time of their requests before it was due, added up over workers
    ttft_after_s: float | None  # first-token latency of the next agent request


class AnswerRecord(Record):
    """One answered question: its official scores, and whether it contains the gold."""

    question_id: str
    cluster: str
    document_id: str
    turn_index: int
    context: AnswerContext
    category: str
    question: str
    gold: str
    answer: str
    exact_match: float | None  # None: the official rules define none
    f1: float
    contains_gold: float  # 1: the normalised gold stands in the normalised answer; 0: it does not
    num_evidence_compactions: int  # how often the evidence had been compacted when asked


class Environment(Record):
    """Where and by what a record was made."""

    commit: str | None
    dirty: bool | None
    code_digest: str
    config_digest: str
    packages: dict[str, str]
    host: str
    cpu_model: str
    num_cpus: int
    load_average_1min: float
    cpu_steal_frac: float
    started_at: str  # ISO 8601, UTC
    command: str


class CellRecord(Record):
    """One configured run of one session."""

    schema_version: Literal[7] = SCHEMA_VERSION
    cell_key: str
    spec: CellSpec  # every ingredient of the key, in words
    timing_block_id: str | None  # None: a recall cell
    position_in_block: int | None
    engine_card_id: str
    timing_valid: bool
    timing_invalid_reasons: tuple[str, ...]
    wall_s: float
    waited_s: float  # part of wall_s: waits for tools
    client_cpu_s: float | None  # None: other cells ran meanwhile
    num_turns: int
    num_preemptions: int | None  # None: the engine does not tell, or other cells ran meanwhile
    requests: tuple[RequestRecord, ...]
    compactions: tuple[CompactionRecord, ...]
    answers: tuple[AnswerRecord, ...]
    environment: Environment

    @property
    def protocol(self) -> Protocol:
        """When the agent was asked and what on."""
        return self.spec.protocol

    @property
    def arm(self) -> str:
        """What comparisons are between: `sequential`, a layout, a strategy, or a reference."""
        return self.spec.strategy or self.spec.layout

    @property
    def block_size_tokens(self) -> int | None:
        """B; None for sequential and for a reference."""
        return self.spec.block_size_tokens

    @property
    def session_id(self) -> str:
        """The session that it played."""
        return self.spec.session_id

    @property
    def seed(self) -> int:
        """The experiment's seed."""
        return self.spec.seed

    @property
    def repeat(self) -> int:
        """Which of the cells that differ in nothing else."""
        return self.spec.repeat

    @property
    def server_start(self) -> int:
        """Index of the server start that its times are of; 0 for a recall cell."""
        return self.spec.server_start


class TimingBlock(Record):
    """All arms of one session and seed, in random order, on one server start.

    The unit of every timing comparison; it is stored whole or not at all.
    """

    schema_version: Literal[7] = SCHEMA_VERSION
    id: str
    engine_card_id: str
    cells: tuple[CellRecord, ...]


class Failure(Record):
    """A cell that could not be finished, and why."""

    cell_key: str
    label: str
    error: str


class SelectedCell(Record):
    """A finished cell as one experiment sees it."""

    experiment: str
    study: Study
    prompt: str  # name of the compaction prompt; `by content type` where each type has its own
    target_frac: float | None  # output over input that the prompt asks for, where it says
    cell_key: str
    record_path: str  # relative to the cell store


class OmittedCell(Record):
    """A cell that an experiment asks for and that cannot be played, and why."""

    experiment: str
    study: Study
    arm: str
    session_id: str
    reason: str


class Batch(Record):
    """The finished cells of one backbone and dataset: what the tables read."""

    schema_version: Literal[7] = SCHEMA_VERSION
    backbone: str
    dataset: str
    format: str
    caption: str
    weights: Weights  # what the backbone knows, and so what its answers are worth
    num_parameters: float
    num_skipped_rows: int
    selected: tuple[SelectedCell, ...]
    omitted: tuple[OmittedCell, ...]
    engine_cards: tuple[EngineCard, ...]
