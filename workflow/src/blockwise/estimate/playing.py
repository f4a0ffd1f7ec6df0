"""Every planned cell, played by the run's own code on an engine without a model.

Cells that differ only in what no prompt holds (seed, repeat, names of equal texts) are the same
work, and are played once.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from blockwise.artifacts import digest
from blockwise.compaction.agent import Playback
from blockwise.compaction.cells import CellSpec
from blockwise.compaction.plan import BatchPlan
from blockwise.compaction.play import Stage, invalid_reasons, play_cell
from blockwise.compaction.records import CellRecord, CompactionRecord, Environment
from blockwise.config.backbones import Backbone
from blockwise.config.experiments import Protocol
from blockwise.data.documents import Session
from blockwise.errors import BlockwiseError
from blockwise.estimate.dry_engine import DryEngine, NaturalVolume, Pace, Sent
from blockwise.estimate.virtual_time import run_in_virtual_time
from blockwise.serving.engine_card import EngineCard
from blockwise.serving.renderer import Renderer

LABELS = {"model_digest", "engine", "request", "session_id", "session_digest", "code_digest"}
"""Ingredients of a cell that change its record and not its work; seed and repeat beside them."""

MEANWHILE = "bystander meanwhile"  # a role that records tell by the compaction's index

INDENT_FRAC = 1.2  # records are stored with one space of indent a level
BYTES_PER_TOKEN = 4.5  # of the texts that a record keeps


@dataclass(frozen=True)
class Work:
    """Requests and tokens."""

    num_requests: int = 0
    prompt_tokens: int = 0
    uncached_tokens: int = 0
    decoded_tokens: int = 0

    def __add__(self, other: "Work") -> "Work":
        return Work(
            self.num_requests + other.num_requests,
            self.prompt_tokens + other.prompt_tokens,
            self.uncached_tokens + other.uncached_tokens,
            self.decoded_tokens + other.decoded_tokens,
        )


@dataclass(frozen=True)
class Played:
    """One cell's work, by role of its requests, and the order in which it was sent."""

    by_role: Mapping[str, Work]
    sent: tuple[Sent, ...]
    compactions: tuple[CompactionRecord, ...]
    num_answers: int
    record_bytes: int
    failure: str | None  # why it would fail; nothing is counted then

    @property
    def work(self) -> Work:
        """All that the plan decides."""
        return total(work for role, work in self.by_role.items() if role != MEANWHILE)

    @property
    def meanwhile(self) -> Work:
        """What bystanders ask while a compaction runs: as much as it leaves time for."""
        return self.by_role.get(MEANWHILE, Work())


@dataclass(frozen=True)
class Ground:
    """What a cell is played on, beside its plan."""

    backbone: Backbone
    renderer: Renderer
    volume: NaturalVolume  # of cells about which nothing closer is known
    card: EngineCard  # of the server that will be: measured before, or assumed
    pace: Pace = field(default_factory=Pace)


class Player:
    """Plays cells and remembers what they took."""

    def __init__(self) -> None:
        self._known: dict[str, Played] = {}

    def play(
        self, plan: BatchPlan, ground: Ground, volumes: Mapping[str, NaturalVolume]
    ) -> dict[str, Played]:
        """What each cell of a batch takes, by cell key; `volumes` too are by cell key."""
        texts = {
            session.id: digest(
                [
                    [document.text, [[q.text, q.answer] for q in document.questions]]
                    for document in session.documents
                ]
            )
            for session in plan.sessions.values()
        }
        played: dict[str, Played] = {}
        for unit in plan.units:
            for spec in unit.cells:
                played[spec.key] = self._once(
                    spec,
                    plan.sessions[spec.session_id],
                    texts[spec.session_id],
                    replace(ground, volume=volumes.get(spec.key, ground.volume)),
                )
        return played

    def _once(self, spec: CellSpec, session: Session, texts: str, ground: Ground) -> Played:
        work = spec.model_dump(mode="json", exclude=LABELS | {"seed", "repeat"})
        shared = [
            id(ground.renderer),
            ground.backbone.context_window_tokens,
            ground.volume.worker_frac,
            ground.volume.answer_frac,
            ground.card.kv_block_tokens,
            ground.card.cut_history_cached,
            # Only bystanders' requests depend on it; all else is shared by backbones of any speed.
            [ground.pace.request_steps, ground.pace.prefill_token_steps]
            if spec.protocol is Protocol.SHARED
            else None,
        ]
        key = digest([work, texts, shared])
        if key not in self._known:
            self._known[key] = _play(spec, session, ground)
        return self._known[key]


def broken_timing(spec: CellSpec, played: Played, ground: Ground) -> list[str]:
    """Why a timing cell's times could not be used on such a server: the run's own rule."""
    if not spec.is_timing or played.failure is not None:
        return []
    playback = Playback(compactions=list(played.compactions))
    return invalid_reasons(spec, playback, _stage(spec, ground), num_preemptions=0)


def _stage(spec: CellSpec, ground: Ground) -> Stage:
    kv_block_tokens = ground.card.kv_block_tokens or 1
    engine = DryEngine(
        ground.backbone,
        ground.renderer,
        volume=ground.volume,
        pace=ground.pace,
        kv_block_tokens=kv_block_tokens,
        finds_cut_history=ground.card.cut_history_cached,
        spec=spec,
    )
    return Stage(engine, ground.renderer, ground.card, honours_cache_salt=True)


def _play(spec: CellSpec, session: Session, ground: Ground) -> Played:
    stage = _stage(spec, ground)
    assert isinstance(stage.engine, DryEngine)
    place = ("dry", 0) if spec.is_timing else None
    try:
        record = run_in_virtual_time(play_cell(stage, spec, session, NOWHERE, place))
    except BlockwiseError as error:
        return Played({}, (), (), 0, 0, str(error))
    return Played(
        by_role=_by_role(record),
        sent=tuple(stage.engine.sent),
        compactions=record.compactions,
        num_answers=len(record.answers),
        record_bytes=_record_bytes(record),
        failure=None,
    )


def _by_role(record: CellRecord) -> dict[str, Work]:
    by_role: dict[str, Work] = {}
    for request in record.requests:
        is_meanwhile = request.role == "bystander" and request.compaction_index is not None
        role = MEANWHILE if is_meanwhile else request.role
        one = Work(
            1,
            request.prompt_tokens,
            request.prompt_tokens - (request.cached_tokens or 0),
            request.completion_tokens,
        )
        by_role[role] = by_role.get(role, Work()) + one
    return by_role


def _record_bytes(record: CellRecord) -> int:
    answers = [request for request in record.requests if request.role != "worker"]
    texts = sum(request.completion_tokens for request in answers) * BYTES_PER_TOKEN
    return round(INDENT_FRAC * len(record.model_dump_json()) + texts)


def total(works: Iterable[Work]) -> Work:
    """Several works together."""
    return sum(works, start=Work())


NOWHERE = Environment(
    commit=None,
    dirty=None,
    code_digest="",
    config_digest="",
    packages={},
    host="",
    cpu_model="",
    num_cpus=0,
    load_average_1min=0.0,
    cpu_steal_frac=0.0,
    started_at="",
    command="",
)
"""The environment of a cell that is not run."""
