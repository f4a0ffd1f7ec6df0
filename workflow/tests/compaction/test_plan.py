"""From experiments to cells: the arms, the settings, what is shared and what is left out."""

import pytest
from doubles import CharRenderer
from test_play_batch import MODEL, PROFILE, make_sessions

from blockwise.compaction.fit import check_sessions_fit
from blockwise.compaction.plan import BY_CONTENT_TYPE, plan_batch
from blockwise.config.profile import Profile
from blockwise.errors import ConfigError

NATURAL = {"mode": "natural", "sequential_max_tokens": 60, "worker_max_tokens": 20}
RECALL = {
    "study": "compaction_accuracy_volume",
    "tau_tokens": [1400],
    "block_sizes_tokens": [300],
    "prompts": ["p"],
    "volume": NATURAL,
}


@pytest.fixture
def plan(tmp_path):
    (tmp_path / "p.md").write_text("---\ntarget_frac: 0.2\n---\nSummarise.")
    (tmp_path / "q.md").write_text("Summarise the evidence.")

    def make(*experiments, num_sessions=1, **sizes):
        named = {f"e{index}": experiment for index, experiment in enumerate(experiments)}
        profile = Profile.model_validate({**PROFILE, "experiments": named})
        sessions = make_sessions(num_sessions, **sizes)
        return plan_batch(
            profile, "double", sessions, MODEL, renderer=CharRenderer(), prompts_folder=tmp_path
        )

    return make


def arms(plan):
    return [(cell.spec.layout, cell.spec.block_size_tokens) for cell in plan.selected]


def test_a_ladder_of_lengths_leaves_out_block_sizes_that_it_cannot_hold(plan):
    ladder = {
        "study": "compaction_stability",
        "history_tokens": [400, 900],
        "block_sizes_tokens": [300, 600],
        "prompts": ["p"],
        "volume": NATURAL,
        "num_repeats": 2,
    }
    done = plan(ladder)
    short = [cell for cell in done.selected if cell.spec.history_tokens == 400]
    assert {cell.spec.block_size_tokens for cell in short} == {None, 300}
    assert len(done.selected) == 2 * (2 + 3)
    assert {cell.target_frac for cell in done.selected} == {0.2}
    assert not any(cell.spec.is_timing for cell in done.selected)


def test_floors_and_ceilings_are_cells_of_their_own_and_shared_over_tau(plan):
    done = plan({**RECALL, "tau_tokens": [1000, 1400]})
    assert arms(done).count(("closed_book", None)) == arms(done).count(("full_history", None)) == 1
    assert all(cell.spec.asks_truncated for cell in done.selected if not cell.spec.is_reference)
    without = plan({**RECALL, "references": []})
    assert set(arms(without)) == {("sequential", None), ("target_block", 300)}
    assert not any(cell.spec.asks_truncated for cell in without.selected)


def test_a_full_history_beyond_the_window_is_left_out_with_the_reason(plan):
    done = plan(RECALL, length=1290)
    assert ("full_history", None) not in arms(done)
    (omitted,) = done.omitted
    assert (omitted.arm, omitted.session_id) == ("full_history", "s0")
    assert "the window holds 8192" in omitted.reason


def test_a_prompt_per_content_type_is_an_arm_beside_the_one_prompt(plan):
    done = plan({**RECALL, "study": "compaction_block_prompts", "block_prompts": {"evidence": "q"}})
    labels = [(cell.spec.layout, cell.prompt) for cell in done.selected]
    assert ("target_block", "p") in labels
    assert ("target_block", BY_CONTENT_TYPE) in labels
    assert ("sequential", BY_CONTENT_TYPE) not in labels
    own = next(cell.spec for cell in done.selected if cell.prompt == BY_CONTENT_TYPE)
    assert own.block_prompts == {"evidence": "Summarise the evidence."}
    assert own.prompt == "Summarise."


def test_load_arms_differ_in_workers_at_once_and_share_a_timing_block(plan):
    done = plan(
        {
            "study": "compaction_under_load",
            "history_tokens": 900,
            "block_sizes_tokens": [300],
            "prompts": ["p"],
            "volume": {"mode": "forced", "total_tokens": 60},
            "num_bystanders": [1, 3],
            "layouts": ["suffix_target"],
            "max_concurrent_workers": [2],
            "background_workers": [1],
            "worker_priorities": [5],
        }
    )
    assert [len(unit.cells) for unit in done.units] == [8, 8]
    arms = [
        (
            spec.layout,
            spec.max_concurrent_workers,
            spec.max_background_workers,
            spec.worker_priority,
        )
        for spec in done.units[0].cells
    ]
    parallel = [("suffix_target", 2, None, 0), ("suffix_target", None, 1, 0)]
    plain = [("sequential", None, None, 0), ("suffix_target", None, None, 0)]
    assert set(arms) == {(*arm[:3], one) for arm in plain + parallel for one in (0, 5)}
    assert {spec.num_bystanders for spec in done.units[1].cells} == {3}


def test_eager_arms_share_a_timing_block_and_waits_part_it(plan):
    done = plan(
        {
            "study": "compaction_eager",
            "tau_tokens": [1400],
            "layouts": ["target_block", "suffix_target"],
            "block_sizes_tokens": [300],
            "volume": {"mode": "forced", "worker_tokens": 30},
            "max_background_workers": [1],
            "tool_waits_s": [0.0, 0.5],
            "prompts": ["p"],
        }
    )
    assert len(done.units) == 2
    for unit, wait_s in zip(done.units, (0.0, 0.5), strict=True):
        assert {cell.tool_wait_s for cell in unit.cells} == {wait_s}
        assert {cell.volume_block_size_tokens for cell in unit.cells} == {300}
        arms = [
            (cell.layout, cell.mode, cell.open_block, cell.max_background_workers)
            for cell in unit.cells
        ]
        assert arms == [
            ("sequential", "sequential", "compact", None),
            ("target_block", "parallel", "compact", None),
            ("target_block", "parallel", "keep", None),
            ("suffix_target", "parallel", "compact", None),
            ("suffix_target", "parallel", "keep", None),
            ("suffix_target", "eager", "compact", None),
            ("suffix_target", "eager", "compact", 1),
            ("suffix_target", "eager", "keep", None),
            ("suffix_target", "eager", "keep", 1),
        ]


def test_an_open_block_that_is_kept_counts_before_anything_is_played(plan):
    eager = {
        "study": "compaction_eager",
        "tau_tokens": [1400],
        "layouts": ["suffix_target"],
        "block_sizes_tokens": [900],
        "volume": {"mode": "forced", "worker_tokens": 30},
        "prompts": ["p"],
    }

    def check(**changes):
        done = plan({**eager, **changes})
        cells = [(cell.experiment, cell.spec) for cell in done.selected]
        check_sessions_fit(cells, done.sessions, CharRenderer())

    check(open_blocks=["compact"])
    with pytest.raises(ConfigError, match=r"cannot follow a compaction.*kept verbatim"):
        check()


def test_only_the_first_sessions_are_played_where_so_many_are_asked_for(plan):
    done = plan({**RECALL, "num_sessions": 2}, num_sessions=3)
    assert {cell.spec.session_id for cell in done.selected} == {"s0", "s1"}


@pytest.mark.parametrize(
    ("length", "message"),
    [
        (150, r"e0: the first document of session s0 .* is 150; raise it"),
        (5000, r"e0: session s0 makes a history of \d+ tokens at most, .*target_tokens"),
    ],
)
def test_a_session_that_cannot_make_the_history_is_refused(plan, length, message):
    done = plan(
        {
            "study": "compaction_length_invariance",
            "history_tokens": [length],
            "layouts": [],
            "prompts": ["p"],
            "volume": NATURAL,
        }
    )
    cells = [(cell.experiment, cell.spec) for cell in done.selected]
    with pytest.raises(ConfigError, match=message):
        check_sessions_fit(cells, done.sessions, CharRenderer())
