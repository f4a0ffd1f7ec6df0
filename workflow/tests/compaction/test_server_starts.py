"""Server starts: a job of its own for each, and one value of each in a table."""

import pytest
from test_play_batch import PROFILE, FailingEngine, bench, make_sessions  # noqa: F401  a fixture

from blockwise.artifacts import write_model
from blockwise.compaction.play_batch import BatchJob
from blockwise.config.profile import Profile
from blockwise.errors import CompactionError, ConfigError
from blockwise.serving.endpoint_metrics import EngineMetrics
from blockwise.tables.compaction import compaction_cells, compaction_end_to_end
from blockwise.tables.compaction.parts.load import load_batches
from blockwise.tables.inputs import TableInputs


class ObservedEngine(FailingEngine):
    """Shows its counters, so that times count."""

    async def metrics(self):
        return EngineMetrics(0, 0, 0, kv_cache_tokens=100_000, kv_block_tokens=None)


TIMED = PROFILE["experiments"]["e"]
TWICE = {"e": {**TIMED, "num_server_starts": 2}}
BOTH = ("timing-start0-1of1", "timing-start1-1of1")


@pytest.fixture
def joined(bench, monkeypatch, tmp_path):  # noqa: F811
    """The cells of the whole batch, of what its parts have left in the store."""

    def join():
        with monkeypatch.context() as patched:
            patched.setattr(BatchJob, "play_missing", lambda *_: None)
            write_model(tmp_path / "batch.json", bench(ObservedEngine(), experiments=TWICE))
        return TableInputs(load_batches([tmp_path / "batch.json"], tmp_path / "cells"))

    return join


def test_two_starts_are_played_by_two_jobs_and_give_two_clusters(bench, joined):  # noqa: F811
    for part in BOTH:
        bench(ObservedEngine(), experiments=TWICE, part=part)
    assert len(bench.starts) == 2
    cells = compaction_cells.build(joined())
    played = cells[["server_start", "engine_card_id"]].drop_duplicates()
    assert played.values.tolist() == [[0, "start-1"], [1, "start-2"]]
    table = compaction_end_to_end.build(joined())
    assert list(table.num_timing_blocks) == [6, 6]
    assert list(table.num_server_starts) == list(table.wall_num_clusters) == [2, 2]
    assert list(table.gate) == ["too_few_starts"] * 2


def test_a_start_that_is_resumed_on_another_server_stays_one_value(bench, joined):  # noqa: F811
    bench(ObservedEngine(), experiments=TWICE, part=BOTH[0])
    with pytest.raises(CompactionError, match="1 of 6 cells failed"):
        bench(ObservedEngine(fail_at=[3]), experiments=TWICE, part=BOTH[1])
    bench(ObservedEngine(), experiments=TWICE, part=BOTH[1])
    cells = compaction_cells.build(joined())
    cards = cells.groupby("server_start")["engine_card_id"].unique().map(set).to_dict()
    assert cards == {0: {"start-1"}, 1: {"start-2", "start-3"}}
    table = compaction_end_to_end.build(joined())
    assert list(table.num_timing_blocks) == [6, 6]
    assert list(table.num_server_starts) == list(table.wall_num_clusters) == [2, 2]


def test_one_server_never_plays_two_starts(bench):  # noqa: F811
    with pytest.raises(ConfigError, match=r"on 2 server starts, .*--part timing-start0-1of1"):
        bench(ObservedEngine(), experiments=TWICE)
    assert not bench.starts
    assert not bench.units()


def test_a_further_start_plays_only_its_own_timing_blocks(bench):  # noqa: F811
    first = bench(ObservedEngine(), experiments={"e": TIMED})
    again = bench(ObservedEngine(), experiments=TWICE, part=BOTH[0])
    assert len(bench.starts) == 1
    assert again.selected == first.selected
    bench(ObservedEngine(), experiments=TWICE, part=BOTH[1])
    assert len(bench.units()) == 2 * len(make_sessions().sessions)


RECALL = {
    **TIMED,
    "study": "compaction_accuracy_volume",
    "volume": {"mode": "natural", "sequential_max_tokens": 60, "worker_max_tokens": 20},
}


def profile_of(experiments, **backbone):
    own = {**PROFILE["backbones"]["double"], **backbone}
    return Profile.model_validate(
        {**PROFILE, "experiments": experiments, "backbones": {"double": own}}
    )


def parts_of(profile):
    return [part.name for part in profile.parts_of("double", "d")]


def test_a_batch_is_one_job_until_it_is_timed_on_several_starts():
    assert parts_of(profile_of({"e": TIMED, "recall": RECALL})) == []
    assert parts_of(profile_of(TWICE)) == [*BOTH]
    assert parts_of(profile_of({**TWICE, "recall": RECALL})) == [*BOTH, "recall-1of1"]
    thrice = {**TWICE, "more": {**TIMED, "seeds": [1], "num_server_starts": 3}}
    assert parts_of(profile_of(thrice, split={"timing": 2})) == [
        f"timing-start{start}-{shard}of2" for start in range(3) for shard in (1, 2)
    ]


def test_starts_of_what_is_not_timed_are_refused():
    with pytest.raises(ValueError, match="no deferred cell of natural volume is timed"):
        profile_of({"recall": {**RECALL, "num_server_starts": 2}})


def test_starts_of_an_external_server_are_refused():
    engine = {"kind": "external", "url": "http://x/v1", "served_model": "m", "version": "1"}
    served = {"model": {"source": "hub", "id": "a/b", "revision": "c" * 40}, "engine": engine}
    assert not profile_of({"e": TIMED}, **served).is_split("double")
    with pytest.raises(ValueError, match="server of double is external, so no job starts it anew"):
        profile_of(TWICE, **served)
