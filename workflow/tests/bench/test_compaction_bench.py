"""The benchmark's arithmetic, and that it measures what it says (not how fast this machine is)."""

import pytest

from blockwise.bench import client, long_chats
from blockwise.bench.compaction import OURS, PAPER, RANDOM_NAME, bench_profile, engine_figures
from blockwise.bench.rounds import figure
from blockwise.compaction.records import TimingBlock
from blockwise.config.arms import SEQUENTIAL
from blockwise.config.choices import Study
from blockwise.errors import ConfigError
from blockwise.models.renderer import Renderer
from record_factory import compaction, record


def block(number, protocol, walls, **changes):
    cells = tuple(
        record(
            arm,
            None if arm == SEQUENTIAL else 1024,
            repeat=number,
            spec={"protocol": protocol},
            wall_s=wall_s,
            client_cpu_s=wall_s / 100,
            compactions=(compaction(wall_s=wall_s, prompt_tokens=9000, cached_tokens=cached),),
            **changes,
        )
        for arm, (wall_s, cached) in walls.items()
    )
    return TimingBlock(id=f"b{number}", engine_card_id="card", cells=cells)


WALLS = {SEQUENTIAL: (8.0, 8900), PAPER: (4.0, 1000), OURS: (2.0, 8000)}


def test_ratios_are_formed_inside_timing_blocks():
    slower = {arm: (10 * wall_s, cached) for arm, (wall_s, cached) in WALLS.items()}
    blocks = [block(0, "single", WALLS), block(1, "single", slower), block(2, "immediate", WALLS)]
    uncached, over_paper, over_sequential, client_share = engine_figures(blocks)
    assert (uncached.median, uncached.is_met) == (1000 / 8000, True)
    assert (min(over_paper.rounds), over_paper.median, max(over_paper.rounds)) == (2.0, 2.0, 2.0)
    assert (over_sequential.median, len(over_sequential.rounds)) == (4.0, 2)
    assert (client_share.median, len(client_share.rounds)) == (pytest.approx(0.01), 3)


def test_an_invalid_cell_ends_the_benchmark_with_its_reason():
    spoilt = block(
        0, "single", WALLS, timing_valid=False, timing_invalid_reasons=("preempted: 2 times",)
    )
    with pytest.raises(ConfigError, match=r"preempted: 2 times; mend this"):
        engine_figures([spoilt])


def test_a_goal_is_a_floor_or_a_ceiling():
    assert figure("x", "s", [1.0, 3.0, 2.0], goal=2.0, at_least=True).is_met
    assert figure("x", "s", [1.0, 3.0, 2.0], goal=2.0, at_least=False).is_met
    assert not figure("x", "s", [1.0, 3.0, 2.0], goal=2.1, at_least=True).is_met


def test_the_profile_asks_for_eight_history_blocks_of_one_backbone(project_folder):
    file = project_folder / "config" / "config.yaml"
    profile = bench_profile([file], RANDOM_NAME, num_rounds=2)
    assert list(profile.backbones) == [RANDOM_NAME]
    layouts = next(e for e in profile.experiments.values() if e.study is Study.LAYOUTS)
    assert layouts.history_tokens[0] == 8 * layouts.block_sizes_tokens[0]
    with pytest.raises(ConfigError, match="no backbone 'nobody'"):
        bench_profile([file], "nobody", num_rounds=2)


def test_the_client_is_measured_with_as_many_workers_as_it_says(tiny_renderer):
    times_s = client.compaction_client_s(tiny_renderer, PAPER, num_repeats=2)
    assert len(times_s) == 2
    assert all(time_s > 0 for time_s in times_s)


def test_a_long_session_keeps_little_beside_its_records(tiny_renderer):
    held = client.session_memory_bytes(tiny_renderer, (100, 200))
    assert set(held) == {100, 200}
    assert held[200] - held[100] < 1e6


def test_long_chats_are_counted_as_ratios(tiny_model, monkeypatch):
    monkeypatch.setattr(long_chats, "FEW", 20)
    monkeypatch.setattr(long_chats, "MANY", 60)
    monkeypatch.setattr(long_chats, "STEP_MESSAGES", 50)
    monkeypatch.setattr(long_chats, "NUM_BLOCKS", 4)
    figures = long_chats.long_chat_figures(lambda: Renderer(tiny_model.tokenizer_path), 2)
    assert [len(one.rounds) for one in figures] == [2, 2, 2, 2]
    assert all(value > 0 for one in figures for value in one.rounds)
    assert [one.unit for one in figures] == ["x", "x", "x", "s"]
