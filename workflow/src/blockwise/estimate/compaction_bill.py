"""The compaction study's part of the bill: the run's own plan, its requests by arithmetic."""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from blockwise.compaction.judge_probe import PROBE
from blockwise.compaction.plan import PlannedCell
from blockwise.compaction.replicas import CONCURRENT_RECALL_CELLS
from blockwise.config.choices import Protocol
from blockwise.errors import BlockwiseError
from blockwise.estimate.bill import BYSTANDERS, Line
from blockwise.estimate.earlier import EarlierRun
from blockwise.estimate.hardware import Device, kv_capacity_tokens, memory_problems, model_size
from blockwise.estimate.plans import KnownBatch, Plans
from blockwise.estimate.sizes import Sizes
from blockwise.estimate.speeds import Speed, cache_of, speed_of
from blockwise.estimate.walk import MEANWHILE, NaturalVolume, Walked, Wave, walk
from blockwise.run.pipeline import Pipeline

HOUR_S = 3600.0
GB = 1e9
JUDGE_TOKENS = 300  # prompt of a verdict: the judge's instructions and three short texts
CELL_BYTES, REQUEST_BYTES, BYTES_PER_TOKEN = 6000, 800, 4.5
"""Of a record: its specification and environment, a request, and the texts that it keeps.
Rounded up by eye from a handful of records, as disk is no constraint of these runs."""
COUNTED = ("num_requests", "prompt_tokens", "uncached_tokens", "decoded_tokens")
RECALL, TIMING, SERVERS, JUDGE = "recall", "timing", "servers", "judge"
NO_WORK = {"seed", "repeat", "model_digest", "engine", "request", "session_digest", "code_digest"}
"""Ingredients of a cell that change its record and not its requests."""


@dataclass
class Notes:
    """What the reader must know beside the figures; each once, in order."""

    warnings: list[str] = field(default_factory=list)
    assumptions: list[str] = field(default_factory=list)

    def warn(self, *texts: str) -> None:
        """Note what does not fit."""
        self.warnings += [text for text in texts if text not in self.warnings]

    def assume(self, *texts: str) -> None:
        """Note what nobody measured."""
        self.assumptions += [text for text in texts if text not in self.assumptions]


@dataclass(frozen=True)
class _Cell:
    """A cell where it is first needed, its requests and its seconds."""

    planned: PlannedCell
    walked: Walked
    seconds: float


class CompactionBill:
    """Counts and prices every batch of a profile.

    Args:
        pipeline: the profile and the jobs of its batches.
        plans: what each batch plays.
        earlier: what was measured before.
        devices: by whether a backbone takes GPUs.
        notes: filled on the way.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        plans: Plans,
        earlier: EarlierRun,
        devices: dict[bool, Device],
        notes: Notes,
    ) -> None:
        self._pipeline, self._plans = pipeline, plans
        self._earlier, self._devices, self._notes = earlier, devices, notes

    def lines(self, backbone: str, dataset: str) -> list[Line]:
        """The batch of one backbone and dataset, a line for each experiment and kind of cell."""
        entry = self._pipeline.profile.backbones[backbone]
        size, device = model_size(entry), self._devices[entry.gpus > 0]
        speed = speed_of(backbone, entry, size, device, self._earlier)
        self._notes.assume(f"{backbone}: speed from {speed.source}")
        self._notes.warn(*memory_problems(backbone, entry, size, device))
        try:
            batch = self._plans.of(backbone, dataset)
        except BlockwiseError as error:
            self._notes.warn(f"{backbone} on {dataset} cannot be planned: {error}")
            return []
        self._notes.assume(*batch.stands_in)
        cells = self._cells(batch, speed)
        measured = self._earlier.card(backbone).get("kv_cache_tokens")
        capacity = int(measured) if measured else kv_capacity_tokens(entry, size, device)
        self._note_problems(batch, cells, capacity)
        return self._priced(batch, cells, speed)

    def _cells(self, batch: KnownBatch, speed: Speed) -> list[_Cell]:
        """Every cell of a batch once. Cells that differ in what no prompt holds are walked once.

        Replicas share the sessions of recall cells out; a timed cell has all of them to itself.
        """
        plan = batch.plan
        backbone = self._pipeline.profile.backbones[plan.backbone]
        sizes, volumes = Sizes(batch.renderer), self._earlier.volumes(plan.backbone)
        cache = cache_of(plan.backbone, backbone, self._earlier)
        self._note_volume(plan.backbone)
        first = {cell.spec.key: cell for cell in reversed(plan.selected)}
        recall = [cell.spec for cell in first.values() if not cell.spec.is_timing]
        num_sessions = len({spec.session_id for spec in recall}) or 1
        replicas = min(backbone.engine.num_replicas, num_sessions)
        beside = min(CONCURRENT_RECALL_CELLS, -(-len(recall) // replicas))
        known: dict[tuple[str, NaturalVolume], tuple[Walked, float]] = {}
        cells = []
        for cell in reversed(first.values()):
            volume = volumes.of(plan.dataset, cell)
            work = cell.spec.digest_without(NO_WORK), volume
            if work not in known:
                session = plan.sessions[cell.spec.session_id]
                walked = walk(cell.spec, session, sizes, volume, cache)
                at_once = 1 if cell.spec.is_timing else beside
                walked, seconds = _priced_walk(walked, speed, at_once)
                known[work] = (walked, seconds / (1 if cell.spec.is_timing else beside * replicas))
            cells.append(_Cell(cell, *known[work]))
        return cells

    def _priced(self, batch: KnownBatch, cells: list[_Cell], speed: Speed) -> list[Line]:
        plan, profile = batch.plan, self._pipeline.profile
        backbone = profile.backbones[plan.backbone]

        def line(stage: str, experiment: str = "", *, hours: float = 0.0, **values: Any) -> Line:
            where = {"backbone": plan.backbone, "dataset": plan.dataset, "experiment": experiment}
            return Line(stage=stage, **where, **hours_of(hours, backbone.num_gpus), **values)

        groups: dict[tuple[str, str], list[_Cell]] = {}
        for cell in cells:
            stage = TIMING if cell.planned.spec.is_timing else RECALL
            groups.setdefault((stage, cell.planned.experiment), []).append(cell)
        lines = []
        for (stage, experiment), own in groups.items():
            waves = [wave for cell in own for wave in cell.walked.waves]
            work = _work(wave for wave in waves if wave.role != MEANWHILE)
            texts = BYTES_PER_TOKEN * work["decoded_tokens"] + REQUEST_BYTES * work["num_requests"]
            lines.append(
                line(
                    stage,
                    experiment,
                    num_cells=len(own),
                    hours=sum(cell.seconds for cell in own) / HOUR_S,
                    disk_gb=(CELL_BYTES * len(own) + texts) / GB,
                    is_estimated=bool(batch.stands_in),
                    **work,
                )
            )
            meanwhile = _work(wave for wave in waves if wave.role == MEANWHILE)
            if meanwhile["num_requests"]:
                lines.append(line(BYSTANDERS, experiment, is_estimated=True, **meanwhile))
        if backbone.engine.kind == "vllm":
            num_jobs = max(1, len(self._pipeline.parts(plan.backbone, plan.dataset)))
            hours = num_jobs * speed.startup_s / HOUR_S
            lines.append(line(SERVERS, num_jobs=num_jobs, hours=hours))
        if profile.judge is not None:
            asked = [cell for cell in cells if cell.planned.spec.protocol is Protocol.DEFERRED]
            verdicts = sum(cell.walked.num_answers for cell in asked) + len(PROBE)
            tokens = verdicts * JUDGE_TOKENS
            lines.append(line(JUDGE, num_jobs=1, num_requests=verdicts, prompt_tokens=tokens))
        return lines

    def _note_volume(self, backbone: str) -> None:
        known = self._earlier.volumes(backbone)
        source = "the budget: an upper bound"
        if known.by_kind:
            source = (
                f"mean of {self._earlier.name}; each prompt and arm its own where it was played"
            )
        self._notes.assume(
            f"{backbone}: natural summaries decode {known.mean.worker_frac:.0%} of their budget, "
            f"answers {known.mean.answer_frac:.0%} ({source})"
        )

    def _note_problems(self, batch: KnownBatch, cells: list[_Cell], capacity: int | None) -> None:
        plan = batch.plan
        where = f"{plan.backbone} on {plan.dataset}"
        problem = batch.problem()
        if problem is not None:
            self._notes.warn(f"{where}: {problem}")
        window = self._pipeline.profile.backbones[plan.backbone].context_window_tokens
        found: dict[str, list[str]] = {}
        for cell in cells:
            spec, walked = cell.planned.spec, cell.walked
            arm = f"{cell.planned.experiment}, {spec.layout} B={spec.block_size_tokens}"
            why = walked.failure
            if why is None and walked.most_request_tokens > window:
                why = f"{walked.most_request_tokens} tokens exceed the window of {window}"
            if why is not None:
                found.setdefault(f"{where}: cells of {arm} would fail", []).append(why)
            alive = walked.most_kv_tokens
            if spec.is_timing and capacity is not None and alive > capacity:
                text = f"KV cache too small: {alive} tokens needed, {capacity} available"
                found.setdefault(f"{where}: times of {arm} would not count", []).append(text)
        for text, reasons in found.items():
            self._notes.warn(f"{text} ({len(reasons)} cells): {max(reasons)}")
        for omitted in sorted({(one.experiment, one.arm, one.reason) for one in plan.omitted}):
            self._notes.warn(f"{where}: {omitted[0]} leaves out {omitted[1]}: {omitted[2]}")
        if any(cell.planned.spec.protocol is Protocol.SHARED for cell in cells):
            self._notes.assume(
                "bystanders ask during a compaction as often as it leaves time for: estimated at "
                "the server's pace, in lines of their own; all other requests follow from the plan"
            )


def _priced_walk(walked: Walked, speed: Speed, beside: int) -> tuple[Walked, float]:
    """A cell's requests and its seconds.

    Bystanders ask again while its compaction lasts. Their decode steps are the compaction's own,
    each a little longer; their prefills lengthen it.
    """
    seconds = {wave: speed.wave_s(wave, beside) for wave in walked.waves}
    waves = list(walked.waves)
    for index, (asked, compaction) in enumerate(pairwise(walked.waves)):
        if asked.role == MEANWHILE and asked.num_requests:
            round_s = speed.wave_s(asked, others=compaction.at_once)
            free_frac = 1 - speed.prefill_s(asked) / round_s
            compaction_s = speed.wave_s(compaction, others=asked.at_once) / free_frac
            waves[index] = _times(asked, max(1, round(compaction_s / round_s)))
            seconds |= {asked: 0.0, compaction: compaction_s}
    working_s = sum(seconds[wave] for wave in walked.waves)
    return replace(walked, waves=tuple(waves)), working_s + walked.waited_s


def _times(wave: Wave, number: int) -> Wave:
    counted = {name: number * getattr(wave, name) for name in COUNTED}
    return replace(wave, **counted)


def _work(waves: Iterable[Wave]) -> Counter[str]:
    """Requests and tokens of several waves."""
    total = Counter(dict.fromkeys(COUNTED, 0))
    for wave in waves:
        total.update({name: getattr(wave, name) for name in COUNTED})
    return total


def hours_of(wall_h: float, gpus: int) -> dict[str, float]:
    """The hours that a stage is charged with: of its GPUs, or of the whole machine's cores."""
    cores = os.cpu_count() or 1
    return {
        "wall_h": wall_h,
        "gpu_h": wall_h * gpus,
        "cpu_h": 0.0 if gpus else wall_h * cores,
    }
