"""The gate of an answer: that of its arm, over all experiments that played it.

Claims about recall are formed answer by answer, so each answer must say whether a verdict may rest
on it. The rules are those of the tables of recall; arms are compared that agree in backbone,
dataset, prompt and tau.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from blockwise.compaction.records import AnswerContext
from blockwise.config.arms import Reference
from blockwise.config.choices import Protocol
from blockwise.tables.compaction.parts import natural_volume
from blockwise.tables.compaction.parts.gates import Gate, gate_of
from blockwise.tables.compaction.parts.load import distinct_cells
from blockwise.tables.compaction.parts.recall import Asked, asked_in, groups_of_categories
from blockwise.tables.compaction.parts.standing import (
    NOTHING_PLAYED,
    Standing,
    TaskKey,
    standings_of,
)
from blockwise.tables.inputs import LoadedCell

Comparison = tuple[str, str, str, int | None]
Arm = tuple[Comparison, str, int | None]
UNCOMPACTED = {*Reference, AnswerContext.TRUNCATION}
"""What a question is asked on beside what an arm made."""


@dataclass(frozen=True)
class AnswerGates:
    """The gates of the answers of a run; `of` makes it."""

    standings: Mapping[TaskKey, Standing]
    shown: frozenset[tuple[Comparison, str]]  # with the categories
    by_arm: Mapping[Arm, frozenset[Gate]]

    @classmethod
    def of(cls, cells: Iterable[LoadedCell]) -> "AnswerGates":
        """The gates that the recall cells of a run show."""
        recall = [cell for cell in cells if cell.record.protocol is Protocol.DEFERRED]
        arms = _grouped(distinct_cells(recall))
        standings = standings_of(recall)
        comparisons: dict[Comparison, list[list[LoadedCell]]] = {}
        for (comparison, *_), own in arms.items():
            comparisons.setdefault(comparison, []).append(own)
        shown = {
            (comparison, categories)
            for comparison, compared in comparisons.items()
            for categories in groups_of_categories(cell for own in compared for cell in own)
            if standings.get((*comparison[:2], categories), NOTHING_PLAYED).is_shown(
                _compacted(own, categories) for own in compared
            )
        }
        twins = _twins(recall)
        by_arm = {arm: _gates(own, is_twin=arm in twins) for arm, own in arms.items()}
        return cls(standings, frozenset(shown), by_arm)

    def gate(self, cell: LoadedCell, one: Asked) -> Gate:
        """The gate of an answer of a cell."""
        arm = _arm(cell)
        if one.answer.context in UNCOMPACTED:
            task = (*arm[0][:2], one.categories)
            can_do = self.standings.get(task, NOTHING_PLAYED).can_do
            return Gate.OK if can_do else Gate.CANNOT_DO_TASK
        found = self.by_arm[arm]
        is_shown = (arm[0], one.categories) in self.shown
        return gate_of(found if is_shown else found | {Gate.CANNOT_DO_TASK})


def _arm(cell: LoadedCell) -> Arm:
    record = cell.record
    comparison = (cell.backbone, cell.dataset, cell.prompt, record.spec.tau_tokens)
    return comparison, record.arm, record.block_size_tokens


def _grouped(cells: Iterable[LoadedCell]) -> dict[Arm, list[LoadedCell]]:
    """Cells of the arms that compact, by arm."""
    arms: dict[Arm, list[LoadedCell]] = {}
    for cell in cells:
        if cell.record.arm not in set(Reference):
            arms.setdefault(_arm(cell), []).append(cell)
    return arms


def _compacted(cells: Sequence[LoadedCell], categories: str) -> list[Asked]:
    """Answers on what an arm made, to questions whose evidence it had compacted."""
    return [
        one
        for cell in cells
        for one in asked_in(cell)
        if one.answer.context not in UNCOMPACTED
        and one.answer.num_evidence_compactions > 0
        and one.categories == categories
    ]


def _gates(cells: Sequence[LoadedCell], *, is_twin: bool) -> frozenset[Gate]:
    shares = natural_volume.column_values([cell.record for cell in cells], None)
    found = natural_volume.gates_of(shares)
    return frozenset(found | {Gate.SAME_BLOCKS_AS} if is_twin else found)


def _twins(cells: Iterable[LoadedCell]) -> set[Arm]:
    """Arms that realise the history blocks of another one in some experiment."""
    experiments: dict[str, list[LoadedCell]] = {}
    for cell in cells:
        experiments.setdefault(cell.experiment, []).append(cell)
    found = set()
    for own in experiments.values():
        arms = _grouped(own)
        first_sequential = sorted(arms, key=_order)
        twins = natural_volume.same_blocks([arms[arm] for arm in first_sequential])
        found |= {arm for arm, twin in zip(first_sequential, twins, strict=True) if twin}
    return found


def _order(arm: Arm) -> tuple[str, int, str]:
    """Sequential first, then every layout by its block size: the later of two is the twin."""
    comparison, name, size = arm
    return name if size else "", size or 0, str(comparison)
