"""Units of cells, the code behind a cell, and the store that keeps both."""

import json

import pytest

from blockwise import provenance
from blockwise.compaction.cells import Unit, cell_code_digest, group_units
from blockwise.compaction.records import TimingBlock
from blockwise.compaction.store import CellStore
from blockwise.config.choices import Protocol
from cell_specs import SPEC, cell


def test_arms_of_one_session_and_seed_share_a_timing_block():
    arms = [
        SPEC,
        cell(block_size_tokens=1024),
        cell(layout="sequential", block_size_tokens=None),
        cell(max_concurrent_workers=2),
    ]
    other_seed = cell(seed=1)
    units = group_units([*arms, other_seed, SPEC])
    assert [len(unit.cells) for unit in units] == [4, 1]
    assert all(unit.is_timing_block for unit in units)


def test_another_server_start_is_another_timing_block_of_the_same_arms():
    arms = [cell(block_size_tokens=size, server_start=n) for n in (0, 1) for size in (512, 1024)]
    units = group_units(arms)
    assert [(unit.server_start, len(unit.cells)) for unit in units] == [(0, 2), (1, 2)]
    assert [unit.cells[0].label.endswith("start=1") for unit in units] == [False, True]


def test_a_timing_block_that_gains_an_arm_is_a_new_unit():
    arm = cell(block_size_tokens=1024)
    (alone,) = group_units([SPEC])
    (both,) = group_units([SPEC, arm])
    (swapped,) = group_units([arm, SPEC])
    assert alone.key != both.key == swapped.key


def test_recall_cells_stay_individual():
    cells = [cell(protocol="deferred", block_size_tokens=size) for size in (512, 1024)]
    units = group_units(cells)
    assert [unit.key for unit in units] == [cell.key for cell in cells]


def test_natural_caps_may_differ_between_arms_of_a_timing_block():
    worker = cell(volume_mode="natural", volume_tokens=64)
    whole = cell(
        volume_mode="natural", volume_tokens=512, layout="sequential", block_size_tokens=None
    )
    assert len(group_units([worker, whole])) == 1


def stored(tmp_path):
    (unit,) = group_units([SPEC])
    block = TimingBlock(id=unit.key, engine_card_id="e", cells=())
    said = []
    store = CellStore(tmp_path, said.append)
    assert store.load(unit) is None
    store.save(unit, block)
    return store, unit, block, said, tmp_path / store.relative_path(unit)


def test_the_store_gives_back_what_it_keeps(tmp_path):
    store, unit, block, said, path = stored(tmp_path)
    assert store.load(unit) == block
    assert not said
    assert [item.name for item in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "version", "garbage"])
def test_a_damaged_unit_is_set_aside_and_named(tmp_path, damage):
    store, unit, _, said, path = stored(tmp_path)
    text = path.read_text()
    sealed = json.loads(text)
    if damage == "flip":
        sealed["record"]["engine_card_id"] = "f"
        text = json.dumps(sealed)
    elif damage == "version":
        sealed["record"]["schema_version"] = 99
        text = json.dumps(sealed)
    else:
        text = {"cut": text[: len(text) // 2], "empty": "", "garbage": "\x00\x01"}[damage]
    path.write_text(text)
    assert store.load(unit) is None
    assert path.name in said[0]
    assert path.with_suffix(".damaged").read_text() == text
    assert store.load(unit) is None  # absent now, and silent
    assert len(said) == 1


@pytest.fixture
def source_tree(tmp_path, monkeypatch):
    folder = tmp_path / "blockwise"
    folder.mkdir()
    (folder / "__init__.py").write_text('"""Package."""\n')
    (folder / "play.py").write_text("from blockwise import engine\nx = 1\n")
    (folder / "engine.py").write_text('"""Doc."""\nimport os\nfrom blockwise.deep.leaf import y\n')
    (folder / "figures.py").write_text("z = 3\n")
    (folder / "deep").mkdir()
    (folder / "deep" / "__init__.py").write_text("")
    (folder / "deep" / "leaf.py").write_text("y = 2\n")
    monkeypatch.setattr(provenance, "SOURCE_FOLDER", folder)
    provenance.code_digest.cache_clear()
    yield folder
    provenance.code_digest.cache_clear()


def fresh_digest():
    provenance.code_digest.cache_clear()
    return provenance.code_digest("blockwise.play")


def test_the_code_digest_covers_the_import_path_and_only_that(source_tree):
    before = fresh_digest()
    (source_tree / "figures.py").write_text("z = 4\n")
    assert fresh_digest() == before
    (source_tree / "engine.py").write_text(
        '"""Other words."""\n# a comment\nimport os\n\nfrom blockwise.deep.leaf import y\n'
    )
    assert fresh_digest() == before
    (source_tree / "deep" / "leaf.py").write_text("y = 20\n")
    assert fresh_digest() != before


def test_an_unknown_module_is_an_error(source_tree):
    with pytest.raises(ModuleNotFoundError, match=r"blockwise\.absent"):
        provenance.code_digest("blockwise.absent")


def test_one_layout_protocol_or_format_does_not_invalidate_another():
    digests = {
        cell_code_digest(protocol, layout, dataset_format)
        for protocol in Protocol
        for layout in (None, "sequential", "target_block")
        for dataset_format in ("hotpotqa", "locomo")
    }
    assert len(digests) == 2 * 3 * len(Protocol)


@pytest.mark.parametrize(
    ("changes", "is_timing"),
    [
        ({"protocol": "immediate"}, True),
        ({"protocol": "deferred"}, False),
        ({"protocol": "single", "volume_mode": "forced"}, True),
        ({"protocol": "single", "volume_mode": "natural"}, False),
        ({"protocol": "shared"}, True),
    ],
)
def test_cells_whose_times_count_live_in_timing_blocks(changes, is_timing):
    assert Unit((cell(**changes),)).is_timing_block == is_timing


def test_units_have_a_stable_place_in_the_store(tmp_path):
    recall = Unit((cell(protocol="deferred"),))
    store = CellStore(tmp_path, print)
    assert store.relative_path(recall).startswith("cells/")
    assert store.relative_path(Unit((SPEC,))).startswith("timing_blocks/")
