import json

import pytest

from blockwise.artifacts import read_json, write_json
from blockwise.config.choices import Study
from blockwise.errors import ArtifactError
from blockwise.tables.compaction.parts.load import load_batches, load_engine_cards, load_omitted
from record_factory import comparison, engine_card, loaded, omission, record, store_batch


def test_cells_come_back_from_timing_blocks_and_single_records(tmp_path):
    recall = loaded(record(cell_key="recall", spec={"protocol": "deferred"}))
    cells = [*comparison(num_sessions=2), recall]
    batch, store = store_batch(tmp_path, cells)
    back = load_batches([batch], store)
    assert sorted(cell.record.cell_key for cell in back) == sorted(
        cell.record.cell_key for cell in cells
    )
    assert {cell.caption for cell in back} == {"pocket-scale, random weights: timing only"}


def test_order_is_backbones_by_size_then_sequential_then_block_size(tmp_path):
    small, _ = store_batch(tmp_path, comparison(1, backbone="a", num_parameters=2e6), "a")
    big, store = store_batch(tmp_path, comparison(1, backbone="0", num_parameters=9e9), "b")
    cells = load_batches([big, small], store)
    assert [cell.backbone for cell in cells] == ["a"] * 3 + ["0"] * 3
    assert [cell.record.block_size_tokens for cell in cells[:3]] == [None, 512, 1024]
    assert load_batches([small, big], store) == cells


def test_order_is_lengths_and_load_before_arms_and_prompts_last(tmp_path):
    cells = [
        loaded(record(cell_key="a", spec={"tau_tokens": 8192})),
        loaded(record("target_block", 512, cell_key="b"), prompt="detailed"),
        loaded(record("target_block", 512, cell_key="c"), prompt="concise"),
        loaded(record(cell_key="d")),
    ]
    batch, store = store_batch(tmp_path, cells)
    assert [cell.record.cell_key for cell in load_batches([batch], store)] == ["d", "c", "b", "a"]


def test_a_cell_carries_the_labels_of_its_experiment(tmp_path):
    labelled = loaded(study=Study.STABILITY, prompt="concise", target_frac=0.25)
    batch, store = store_batch(tmp_path, [labelled])
    assert load_batches([batch], store) == [labelled]


def test_omitted_cells_come_back_with_the_labels_of_their_batch(tmp_path):
    late, early = omission(session_id="s1"), omission(session_id="s0")
    first, _ = store_batch(tmp_path, [loaded()], "first", omitted=[late, early])
    second, _ = store_batch(tmp_path, [loaded()], "second")
    assert load_omitted([second, first]) == [early, late]


def test_a_cell_listed_twice_by_one_experiment_is_refused(tmp_path):
    batch, store = store_batch(tmp_path, [loaded(), loaded()])
    with pytest.raises(ArtifactError, match="more than once"):
        load_batches([batch], store)


def test_two_experiments_may_share_a_cell(tmp_path):
    batch, store = store_batch(tmp_path, [loaded(), loaded(experiment="other")])
    assert [cell.experiment for cell in load_batches([batch], store)] == ["end_to_end", "other"]


def test_a_missing_record_is_named(tmp_path):
    batch, store = store_batch(tmp_path, [loaded()])
    path = next(store.rglob("*.json"))
    path.unlink()
    with pytest.raises(ArtifactError, match=path.name):
        load_batches([batch], store)


def test_a_damaged_record_is_named(tmp_path):
    batch, store = store_batch(tmp_path, [loaded()])
    path = next(store.rglob("*.json"))
    path.write_text(path.read_text().replace('"wall_s": 10.0', '"wall_s": 1.0'))
    with pytest.raises(ArtifactError, match=f"{path.name} is damaged"):
        load_batches([batch], store)


@pytest.mark.parametrize("content", [[], 3, {"record": None}, {"cells": []}])
def test_a_file_that_is_no_record_is_refused(tmp_path, content):
    batch, store = store_batch(tmp_path, [loaded()])
    next(store.rglob("*.json")).write_text(json.dumps(content))
    with pytest.raises(ArtifactError):
        load_batches([batch], store)


def test_a_timing_block_without_the_selected_cell_is_refused(tmp_path):
    batch, store = store_batch(tmp_path, [loaded()])
    content = read_json(batch)
    content["selected"][0]["cell_key"] = "absent"
    write_json(batch, content)
    with pytest.raises(ArtifactError, match="0 records of cell absent"):
        load_batches([batch], store)


def test_engine_cards_are_listed_once_and_must_agree(tmp_path):
    first, _ = store_batch(tmp_path, [loaded()], "first")
    second, _ = store_batch(tmp_path, [loaded()], "second")
    assert load_engine_cards([first, second]) == [engine_card()]
    content = read_json(second)
    content["engine_cards"][0]["engine"] = "another"
    write_json(second, content)
    with pytest.raises(ArtifactError, match="card differs"):
        load_engine_cards([first, second])
