"""The compaction study's part of the bill: the run's own plan, played without a server."""

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from blockwise.compaction.fit import check_sessions_fit
from blockwise.compaction.judge_probe import PROBE
from blockwise.compaction.plan import BatchPlan, plan_batch
from blockwise.compaction.replicas import CONCURRENT_RECALL_CELLS
from blockwise.config.experiments import Protocol
from blockwise.config.profile import Profile
from blockwise.errors import BlockwiseError
from blockwise.estimate import renderers
from blockwise.estimate.bill import BYSTANDERS, Line
from blockwise.estimate.clock import Speed, pace_of, playback_s
from blockwise.estimate.earlier import EarlierRun
from blockwise.estimate.hardware import (
    Device,
    kv_capacity_tokens,
    memory_problems,
    model_size,
)
from blockwise.estimate.playing import Ground, Played, Player, broken_timing, total
from blockwise.estimate.sessions import Datasets
from blockwise.estimate.speeds import expected_card, speed_of
from blockwise.serving.prepared_model import PreparedModel

HOUR_S = 3600.0
GB = 1e9
JUDGE_TOKENS = 300  # prompt of a verdict: the judge's instructions and three short texts
RECALL, TIMING, SERVERS, JUDGE = "recall", "timing", "servers", "judge"


@dataclass
class Notes:
    """What the reader must know beside the figures; each once, in order."""

    warnings: list[str] = field(default_factory=list)
    assumptions: list[str] = field(default_factory=list)

    def warn(self, text: str) -> None:
        """Note something that does not fit."""
        if text not in self.warnings:
            self.warnings.append(text)

    def assume(self, text: str) -> None:
        """Note something that nobody measured."""
        if text not in self.assumptions:
            self.assumptions.append(text)


class CompactionBill:
    """Plays every batch of a profile.

    Args:
        profile: the configuration.
        datasets: its documents.
        earlier: what was measured before.
        devices: by whether a backbone takes GPUs.
        prompts_folder: compaction prompts.
        notes: filled on the way.
    """

    def __init__(
        self,
        profile: Profile,
        datasets: Datasets,
        earlier: EarlierRun,
        devices: dict[bool, Device],
        *,
        prompts_folder: Path,
        notes: Notes,
    ) -> None:
        self._profile = profile
        self._datasets = datasets
        self._earlier = earlier
        self._devices = devices
        self._prompts = prompts_folder
        self._notes = notes
        self._renderers = renderers.Renderers()
        self._player = Player()

    def lines(self, backbone: str, dataset: str) -> list[Line]:
        """The batch of one backbone and dataset, a line for each experiment and kind of cell."""
        entry = self._profile.backbones[backbone]
        size = model_size(entry)
        device = self._devices[entry.gpus > 0]
        capacity = kv_capacity_tokens(entry, size, device)
        speed = speed_of(backbone, entry, size, device, self._earlier)
        ground = Ground(
            entry,
            self._renderers.of(entry),
            self._earlier.volume(backbone),
            expected_card(backbone, entry, capacity, self._earlier),
            pace_of(speed),
        )
        self._note_backbone(backbone, ground, speed)
        for problem in memory_problems(backbone, entry, size, device):
            self._notes.warn(problem)
        try:
            plan = self._plan(backbone, dataset, ground)
        except BlockwiseError as error:
            self._notes.warn(f"{backbone} on {dataset} cannot be planned: {error}")
            return []
        played = self._player.play(plan, ground, self._earlier.volumes(plan))
        self._note_problems(plan, played, ground)
        return self._priced(plan, played, ground, speed)

    def _plan(self, backbone: str, dataset: str, ground: Ground) -> BatchPlan:
        sessions = self._datasets.sessions(dataset, backbone, ground.renderer)
        if self._datasets.documents(dataset) is None:
            self._notes.assume(
                f"dataset {dataset} is not on this machine: documents of the published average "
                "size, chained to target_tokens (assumed)"
            )
        plan = plan_batch(
            self._profile,
            backbone,
            sessions,
            _no_model(backbone),
            renderer=ground.renderer,
            prompts_folder=self._prompts,
        )
        try:
            cells = ((cell.experiment, cell.spec) for cell in plan.selected)
            check_sessions_fit(cells, plan.sessions, ground.renderer)
        except BlockwiseError as error:
            self._notes.warn(f"{backbone} on {dataset}: {error}")
        return plan

    def _priced(
        self, plan: BatchPlan, played: dict[str, Played], ground: Ground, speed: Speed
    ) -> list[Line]:
        gpus = ground.backbone.num_gpus
        is_assumed = (
            renderers.is_assumed(ground.renderer) or self._datasets.documents(plan.dataset) is None
        )

        def line(stage: str, experiment: str = "", *, hours: float = 0.0, **values: Any) -> Line:
            batch = {"backbone": plan.backbone, "dataset": plan.dataset, "experiment": experiment}
            return Line(stage=stage, **batch, **hours_of(hours, gpus), **values)

        lines = []
        timed = _timed(plan, played, speed, ground.backbone.engine.num_replicas)
        for (stage, experiment), cells in timed.items():
            lines.append(
                line(
                    stage,
                    experiment,
                    num_cells=len(cells),
                    hours=sum(seconds for _, seconds in cells) / HOUR_S,
                    disk_gb=sum(one.record_bytes for one, _ in cells) / GB,
                    is_estimated=is_assumed,
                    **asdict(total(one.work for one, _ in cells)),
                )
            )
            meanwhile = total(one.meanwhile for one, _ in cells)
            if meanwhile.num_requests:
                lines.append(line(BYSTANDERS, experiment, is_estimated=True, **asdict(meanwhile)))
        if ground.backbone.engine.kind == "vllm":
            lines.append(line(SERVERS, num_jobs=1, hours=speed.startup_s / HOUR_S))
        if self._profile.judge is not None:
            recall = {c.spec.key for c in plan.selected if c.spec.protocol is Protocol.DEFERRED}
            verdicts = sum(played[key].num_answers for key in recall) + len(PROBE)
            tokens = verdicts * JUDGE_TOKENS
            lines.append(line(JUDGE, num_jobs=1, num_requests=verdicts, prompt_tokens=tokens))
        return lines

    def _note_backbone(self, backbone: str, ground: Ground, speed: Speed) -> None:
        self._notes.assume(f"{backbone}: speed from {speed.source}")
        if renderers.is_assumed(ground.renderer):
            self._notes.assume(
                f"{backbone}: its tokenizer is not on this machine: four characters a token, "
                "five tokens a message (assumed)"
            )
        known = ground.volume
        self._notes.assume(
            f"{backbone}: natural summaries decode {known.worker_frac:.0%} of their budget, "
            f"answers {known.answer_frac:.0%} "
            + (
                f"(mean of {self._earlier.name}; each prompt and arm its own where it was played)"
                if self._earlier.card(backbone) is not None
                else "(the budget: an upper bound)"
            )
        )

    def _note_problems(self, plan: BatchPlan, played: dict[str, Played], ground: Ground) -> None:
        where = f"{plan.backbone} on {plan.dataset}"
        found: dict[str, list[str]] = {}
        for cell in {cell.spec.key: cell for cell in plan.selected}.values():
            one = played[cell.spec.key]
            arm = f"{cell.experiment}, {cell.spec.layout} B={cell.spec.block_size_tokens}"
            if one.failure is not None:
                found.setdefault(f"{where}: cells of {arm} would fail", []).append(one.failure)
            for reason in broken_timing(cell.spec, one, ground):
                text = f"{where}: times of {arm} would not count"
                found.setdefault(text, []).append(reason)
        for text, reasons in found.items():
            self._notes.warn(f"{text} ({len(reasons)} cells): {max(reasons)}")
        for omitted in sorted({(one.experiment, one.arm, one.reason) for one in plan.omitted}):
            self._notes.warn(f"{where}: {omitted[0]} leaves out {omitted[1]}: {omitted[2]}")
        if any(cell.spec.protocol is Protocol.SHARED for cell in plan.selected):
            self._notes.assume(
                "bystanders ask during a compaction as often as it leaves time for: estimated at "
                "the server's pace, in lines of their own; all other requests follow from the plan"
            )


def _timed(
    plan: BatchPlan, played: dict[str, Played], speed: Speed, num_replicas: int
) -> dict[tuple[str, str], list[tuple[Played, float]]]:
    """Every cell and its seconds, by stage and by the experiment that needs it first.

    Replicas share the sessions of recall cells out; a timed cell has all of them to itself.
    """
    first_of: dict[str, str] = {}
    for cell in plan.selected:
        first_of.setdefault(cell.spec.key, cell.experiment)
    specs = [spec for unit in plan.units for spec in unit.cells]
    recall = [spec for spec in specs if not spec.is_timing]
    replicas = min(num_replicas, len({spec.session_id for spec in recall}) or 1)
    beside = min(CONCURRENT_RECALL_CELLS, -(-len(recall) // replicas))
    groups: dict[tuple[str, str], list[tuple[Played, float]]] = {}
    known_s: dict[tuple[int, bool], float] = {}  # equal work is priced once
    for spec in specs:
        one = played[spec.key]
        side_by_side = 1 if spec.is_timing else beside
        work = (id(one), spec.is_timing)
        if work not in known_s:
            at_once = 1 if spec.is_timing else beside * replicas
            known_s[work] = playback_s(one.sent, speed, side_by_side) / at_once
        stage = TIMING if spec.is_timing else RECALL
        groups.setdefault((stage, first_of[spec.key]), []).append((one, known_s[work]))
    return groups


def hours_of(wall_h: float, gpus: int) -> dict[str, float]:
    """The hours that a stage is charged with: of its GPUs, or of the whole machine's cores."""
    cores = os.cpu_count() or 1
    return {
        "wall_h": wall_h,
        "gpu_h": wall_h * gpus,
        "cpu_h": 0.0 if gpus else wall_h * cores,
    }


def _no_model(backbone: str) -> PreparedModel:
    """The plan asks for a digest, which only tells records apart."""
    return PreparedModel(
        backbone=backbone,
        source="none",
        path="",
        revision=None,
        tokenizer_path="",
        digest="",
        num_parameters=None,
    )
