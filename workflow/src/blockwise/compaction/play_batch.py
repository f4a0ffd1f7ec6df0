"""The batch job: every cell of one backbone and dataset, against the backbone's managed servers.

    python -m blockwise.compaction.play_batch --config ... --backbone ... --sessions ...

Finished units come from the cell store; if any is missing, the backbone's server, or each of
its replicas, is started, probed and used, and always stopped. A failed cell does not stop the
others; the job then ends non-zero with the list, and a rerun plays only what is missing.
"""

import argparse
import asyncio
import os
import random
from collections.abc import Sequence
from pathlib import Path

from blockwise.artifacts import write_model
from blockwise.compaction.batch_inputs import add_arguments, read_inputs
from blockwise.compaction.cell_spec import CellSpec
from blockwise.compaction.cells import Unit
from blockwise.compaction.dispatch import run_together
from blockwise.compaction.parts import part_record, plan_of
from blockwise.compaction.plan import BatchPlan
from blockwise.compaction.play import play_cell
from blockwise.compaction.records import (
    Batch,
    CellRecord,
    Environment,
    Failure,
    SelectedCell,
    TimingBlock,
)
from blockwise.compaction.replicas import Replicas, open_replicas
from blockwise.compaction.store import CellStore
from blockwise.config.arms import SEQUENTIAL
from blockwise.config.backbones import Backbone
from blockwise.config.split import Part
from blockwise.data.documents import SessionSet
from blockwise.errors import BlockwiseError, CompactionError, ConfigError, run_command
from blockwise.models.prepared_model import PreparedModel
from blockwise.models.renderer import Renderer
from blockwise.progress import WorkProgress
from blockwise.provenance import (
    code_digest,
    command_line,
    cpu_model,
    cpu_steal_frac,
    git_state,
    host_name,
    package_versions,
    utc_now,
)
from blockwise.serving.engine_card import EngineCard
from blockwise.serving.process_signals import become_subreaper
from blockwise.serving.server import Server, end_with_parent, managed_servers, raise_on_sigterm
from blockwise.serving.watchdog import sweep

MIN_KV_BLOCKS = 4  # a prefix hits in whole KV blocks, so up to one at each end never does


class BatchJob:
    """Plays the missing units of a plan and writes down what each experiment selects.

    Args:
        plan: the cells.
        backbone: the backbone's configuration.
        model: its prepared files.
        store: where finished units are kept.
        config_digest: of the profile, for provenance.
    """

    def __init__(
        self,
        plan: BatchPlan,
        backbone: Backbone,
        model: PreparedModel,
        store: CellStore,
        config_digest: str,
    ) -> None:
        self._plan = plan
        self._backbone = backbone
        self._model = model
        self._store = store
        self._config_digest = config_digest
        self._failures: list[Failure] = []
        self._card_of: dict[str, str] = {}  # engine card of each unit that was read, by its key

    def play_missing(self, renderer: Renderer, server_log: Path) -> None:
        """Play every unit that the store does not hold.

        Raises:
            ConfigError: the plan holds timing blocks of several server starts.
            ServerError: the server did not start or went away.
            CompactionError: cells failed; the message lists them.
        """
        self._refuse_several_starts()
        missing = [unit for unit in self._plan.units if not self._is_finished(unit)]
        total = sum(len(unit.cells) for unit in self._plan.units)
        waiting = sum(len(unit.cells) for unit in missing)
        title = f"{self._plan.backbone} on {self._plan.dataset}"
        with WorkProgress(title, total, done=total - waiting) as progress:
            if missing:
                with managed_servers(
                    self._plan.backbone, self._backbone, self._model, server_log, progress.say
                ) as servers:
                    asyncio.run(self._play(missing, servers, renderer, progress))
        if self._failures:
            raise CompactionError(self._failure_list(total, server_log))

    async def _play(
        self,
        missing: list[Unit],
        servers: Sequence[Server],
        renderer: Renderer,
        progress: WorkProgress,
    ) -> None:
        async with open_replicas(
            self._plan.backbone,
            self._backbone,
            self._model,
            servers,
            renderer,
            session_ids=self._plan.sessions,
        ) as replicas:
            for card in replicas.cards:
                self._store.save_engine_card(card)
                self._refuse_small_blocks(card)

            async def play_beside_others(unit: Unit) -> None:
                async with replicas.of(unit).gate:
                    await self._play_unit(replicas, unit, progress)

            recall = [unit for unit in missing if not unit.is_timing_block]
            recall.sort(key=lambda unit: unit.cells[0].layout != SEQUENTIAL)  # the longest first
            await run_together(play_beside_others(unit) for unit in recall)
            for unit in missing:
                if unit.is_timing_block:
                    await self._play_unit(replicas, unit, progress)

    async def _play_unit(self, replicas: Replicas, unit: Unit, progress: WorkProgress) -> None:
        """Play all cells of a unit and keep it if every one of them finished."""
        replicas.require_running()
        stage = replicas.of(unit).stage
        order = list(unit.cells)
        random.Random(unit.key).shuffle(order)
        records = []
        for position, spec in enumerate(order):
            block_position = (unit.key, position) if unit.is_timing_block else None
            session = self._plan.sessions[spec.session_id]
            try:
                record = await play_cell(stage, spec, session, self._environment(), block_position)
            except BlockwiseError as error:
                self._note_failure(spec, error, replicas, progress)
                continue
            records.append(record)
            progress.advance(_num_tokens(record))
        if len(records) == len(order):
            self._store.save(unit, _stored(unit, records, stage.card.id))

    def _note_failure(
        self, spec: CellSpec, error: BlockwiseError, replicas: Replicas, progress: WorkProgress
    ) -> None:
        """List a failed cell; end the job where a server is gone."""
        progress.say(f"failed: {spec.label}: {error}")
        self._failures.append(Failure(cell_key=spec.key, label=spec.label, error=str(error)))
        replicas.require_alive("; ".join(failure.label for failure in self._failures), error)

    def _refuse_several_starts(self) -> None:
        """METHOD, Gates: times of one server process are of one start, whatever they are called."""
        starts = sorted({unit.server_start for unit in self._plan.units if unit.is_timing_block})
        if len(starts) > 1:
            raise ConfigError(
                f"{self._plan.backbone} on {self._plan.dataset} is timed on {len(starts)} server "
                "starts, and one job has one; run the workflow, which gives each a job of its "
                f"own, or name one of them (--part timing-start{starts[0]}-1of1)"
            )

    def _refuse_small_blocks(self, card: EngineCard) -> None:
        """METHOD: cache use is reported only for B of at least four KV blocks."""
        if card.kv_block_tokens is None:
            return
        smallest = MIN_KV_BLOCKS * card.kv_block_tokens
        timed = (cell.spec for cell in self._plan.selected if cell.spec.is_timing)
        sizes = {spec.block_size_tokens for spec in timed}
        too_small = sorted(size for size in sizes if size is not None and size < smallest)
        if too_small:
            raise ConfigError(
                f"block_sizes_tokens {too_small}: the engine caches {card.kv_block_tokens} tokens "
                f"at a time, and below {smallest} (four times that) its cache use says nothing "
                "about a layout; raise B"
            )

    def _environment(self) -> Environment:
        commit, dirty = git_state()
        return Environment(
            commit=commit,
            dirty=dirty,
            code_digest=code_digest("blockwise.compaction.play_batch"),
            config_digest=self._config_digest,
            packages=package_versions(),
            host=host_name(),
            cpu_model=cpu_model(),
            num_cpus=os.cpu_count() or 1,
            load_average_1min=os.getloadavg()[0],
            cpu_steal_frac=cpu_steal_frac(),
            started_at=utc_now(),
            command=command_line(),
        )

    def _failure_list(self, total: int, server_log: Path) -> str:
        lines = [f"  - {failure.label}: {failure.error}" for failure in self._failures]
        return "\n".join(
            [
                f"{len(self._failures)} of {total} cells failed on {self._plan.backbone} with "
                f"{self._plan.dataset} (server log: {server_log}). Finished units are kept; a "
                "rerun plays the failed cells, and timing cells with their whole block:",
                *lines,
            ]
        )

    def batch(self, sessions: SessionSet, caption: str) -> Batch:
        """What the tables read: every selected cell and the engine cards behind them."""
        unit_of = {spec.key: unit for unit in self._plan.units for spec in unit.cells}
        for unit in self._plan.units:
            if unit.key not in self._card_of and not self._is_finished(unit):
                raise CompactionError(f"{unit.cells[0].label} is missing from the cell store")
        cards = [self._engine_card(card_id) for card_id in sorted({*self._card_of.values()})]
        return Batch(
            backbone=self._plan.backbone,
            dataset=self._plan.dataset,
            format=sessions.format,
            caption=caption,
            weights=self._backbone.weights,
            num_parameters=self._backbone.num_parameters,
            num_skipped_rows=sessions.num_skipped_rows,
            selected=tuple(
                SelectedCell(
                    experiment=cell.experiment,
                    study=cell.study,
                    prompt=cell.prompt,
                    target_frac=cell.target_frac,
                    cell_key=cell.spec.key,
                    record_path=self._store.relative_path(unit_of[cell.spec.key]),
                )
                for cell in self._plan.selected
            ),
            omitted=self._plan.omitted,
            engine_cards=tuple(cards),
        )

    def _is_finished(self, unit: Unit) -> bool:
        """Whether the store holds a unit; twenty thousand are read once, not twice."""
        stored = self._store.load(unit)
        if stored is not None:
            self._card_of[unit.key] = stored.engine_card_id
        return stored is not None

    def _engine_card(self, card_id: str) -> EngineCard:
        card = self._store.load_engine_card(card_id)
        if card is None:
            raise CompactionError(
                f"the engine card {card_id} is missing from {self._store.folder}; restore it, or "
                "delete the cells that name it and rerun"
            )
        return card


def _stored(unit: Unit, records: list[CellRecord], card_id: str) -> CellRecord | TimingBlock:
    if not unit.is_timing_block:
        return records[0]
    return TimingBlock(id=unit.key, engine_card_id=card_id, cells=tuple(records))


def _num_tokens(record: CellRecord) -> int:
    return sum(request.prompt_tokens + request.completion_tokens for request in record.requests)


def main() -> None:
    """Command line of the batch job, or of one part of a split batch."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--server-log", type=Path, required=True)
    parser.add_argument("--part", type=Part.parse, help="only this part, `timing-start0-1of4`")
    arguments = parser.parse_args()
    raise_on_sigterm()
    end_with_parent()
    become_subreaper()
    inputs = read_inputs(arguments)
    part: Part | None = arguments.part
    plan = plan_of(inputs.plan, part) if part else inputs.plan
    store = CellStore(arguments.store, print)
    job = BatchJob(plan, inputs.backbone, inputs.model, store, inputs.config_digest)
    try:
        job.play_missing(inputs.renderer, arguments.server_log)
    finally:
        sweep()  # what a killed watchdog no longer could
    if part:
        write_model(arguments.output, part_record(plan, part, store))
    else:
        write_model(arguments.output, job.batch(inputs.sessions, inputs.caption))


if __name__ == "__main__":
    run_command(main)
