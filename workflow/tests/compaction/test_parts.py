"""Parts of a split batch: every unit in exactly one of them, and a joined batch like an unsplit."""

import re

import pytest
from doubles import CharRenderer
from test_play_batch import MODEL, PROFILE, FailingEngine, bench, make_sessions  # noqa: F401  a fixture

from blockwise.compaction.parts import check_parts, part_record, plan_of, units_of
from blockwise.compaction.plan import plan_batch
from blockwise.compaction.store import CellStore
from blockwise.config.experiments import Experiment
from blockwise.config.profile import Profile
from blockwise.config.split import PART_PATTERN, BatchSplit, Part, Phase
from blockwise.errors import ArtifactError

NATURAL = {"mode": "natural", "sequential_max_tokens": 60, "worker_max_tokens": 20}
TIMED = PROFILE["experiments"]["e"]
RECALL = {**TIMED, "study": "compaction_accuracy_volume", "volume": NATURAL}
SINGLE = {
    "study": "compaction_stability",
    "history_tokens": [400],
    "block_sizes_tokens": [300],
    "prompts": ["p"],
    "volume": NATURAL,
}
LAYOUTS = {**SINGLE, "study": "compaction_layouts", "volume": TIMED["volume"]}
ALL = {
    "timed": {**TIMED, "num_server_starts": 2},
    "recall": RECALL,
    "single": SINGLE,
    "layouts": LAYOUTS,
}
SPLIT = BatchSplit(timing=4, recall=2)


@pytest.fixture
def profile():
    return Profile.model_validate({**PROFILE, "experiments": ALL})


@pytest.fixture
def plan(profile, tmp_path):
    (tmp_path / "p.md").write_text("Summarise.")
    return plan_batch(
        profile, "double", make_sessions(), MODEL, renderer=CharRenderer(), prompts_folder=tmp_path
    )


def parts_of(profile) -> list[Part]:
    return SPLIT.parts(profile.experiments.values())


def test_parts_deal_every_unit_exactly_once_and_in_like_numbers(profile, plan):
    dealt = {part: units_of(plan.units, part) for part in parts_of(profile)}
    keys = [unit.key for units in dealt.values() for unit in units]
    assert sorted(keys) == sorted(unit.key for unit in plan.units)
    assert len(set(keys)) == len(keys)
    for phase, start, number in (("timing", 0, 4), ("timing", 1, 4), ("recall", 0, 2)):
        shares = [part for part in dealt if (part.phase, part.server_start) == (phase, start)]
        sizes = [len(dealt[part]) for part in shares]
        assert len(sizes) == number
        assert max(sizes) - min(sizes) <= 1
    for part, units in dealt.items():
        kinds = {(unit.is_timing_block, unit.server_start) for unit in units}
        assert kinds <= {(part.phase is Phase.TIMING, part.server_start)}
        cells = {spec.key for unit in units for spec in unit.cells}
        assert {cell.spec.key for cell in plan_of(plan, part).selected} == cells


def test_a_phase_without_experiments_has_no_parts(profile):
    experiments: list[Experiment] = [profile.experiments["timed"]]
    assert [part.name for part in SPLIT.parts(experiments)] == [
        f"timing-start{start}-{shard}of4" for start in range(2) for shard in range(1, 5)
    ]
    assert [part.name for part in SPLIT.parts([profile.experiments["recall"]])] == [
        "recall-1of2",
        "recall-2of2",
    ]


def test_an_experiment_is_timed_where_its_cells_are(profile, plan):
    for cell in plan.selected:
        assert cell.spec.is_timing == profile.experiments[cell.experiment].is_timed


@pytest.mark.parametrize(
    "name",
    [
        "timing",
        "timing-1of4",
        "timing-start0-0of4",
        "timing-start0-5of4",
        "recall-start0-1of2",
        "speed-1of2",
        "x/../y",
    ],
)
def test_a_name_of_no_part_is_refused(name):
    with pytest.raises(ValueError, match="is no part of a batch"):
        Part.parse(name)
    assert Part.parse("recall-2of3") == Part(Phase.RECALL, 2, 3)
    assert Part.parse("timing-start12-2of3") == Part(Phase.TIMING, 2, 3, server_start=12)


@pytest.mark.parametrize("name", ["recall-2of3", "timing-start0-1of1", "timing-start12-2of3"])
def test_a_part_is_called_what_it_is_parsed_from(name):
    assert Part.parse(name).name == name
    assert re.fullmatch(PART_PATTERN, name)


@pytest.fixture
def played(profile, plan, tmp_path, bench):  # noqa: F811
    """A store that holds every unit, and the files of the parts that played them."""
    store = CellStore(tmp_path / "cells", print)
    files = []
    for part in parts_of(profile):
        bench(FailingEngine(), experiments=ALL, part=part.name)
        file = tmp_path / "parts" / f"{part.name}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(part_record(plan_of(plan, part), part, store).model_dump_json())
        files.append(file)
    return store, files


def test_a_part_that_lost_a_unit_is_played_again(plan, played):
    store, files = played
    check_parts(plan, files, store)
    lost = next(unit for unit in plan.units if unit.is_timing_block)
    (store.folder / store.relative_path(lost)).unlink()
    with pytest.raises(
        ArtifactError, match=r"(?s)1 units of timing-start0-1of4.*same command again"
    ):
        check_parts(plan, files, store)
    assert [file.stem for file in files if not file.exists()] == ["timing-start0-1of4"]


def test_parts_that_are_not_the_whole_batch_are_not_joined(plan, played):
    store, files = played
    with pytest.raises(ArtifactError, match="each once"):
        check_parts(plan, files[1:], store)
