"""Experiments of strategies: what they refuse, and which cells they ask for."""

import pytest
from doubles import CharRenderer
from pydantic import ValidationError
from test_agent import make_session

from blockwise.compaction.plan import plan_batch
from blockwise.config.arms import known_strategies
from blockwise.config.choices import Protocol
from blockwise.config.experiments import StrategiesExperiment
from blockwise.config.load import load_profile
from blockwise.data.documents import SessionSet
from blockwise.models.prepared_model import PreparedModel
from blockwise.run.pipeline import PROMPTS_FOLDER

SOUND = {
    "study": "compaction_strategies",
    "tau_tokens": 1400,
    "budget_tokens": 700,
    "worker_max_tokens": 200,
    "block_sizes_tokens": [300],
}
MODEL = PreparedModel(
    backbone="double",
    source="none",
    path="",
    revision=None,
    tokenizer_path="",
    digest="d",
    num_parameters=None,
)


def experiment(**changes):
    return StrategiesExperiment.model_validate({**SOUND, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strategies": ["fold"]}, r"strategies: .fold. is unknown; choose of \[.eager."),
        ({"budget_tokens": 1390}, "a compaction cannot shrink: budget_tokens 1390"),
        ({"references": ["truncation"]}, "the last tokens are the strategy `truncate`"),
        ({"timed": True, "keep_identifiers": [0, 20]}, "identifiers are added without a request"),
        ({"sequential": True}, "sequential"),
        ({"ask_after": [2, 2]}, "ask_after lists a value twice"),
        ({"ask_after": []}, "ask_after"),
        ({"num_server_starts": 6}, "num_server_starts is 6, and no deferred cell"),
        ({"block_sizes_tokens": [2000]}, "exceed 1400"),
    ],
)
def test_what_cannot_be_played_is_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        experiment(**changes)


def test_recall_and_times_are_of_different_cells():
    assert experiment().protocol is Protocol.DEFERRED
    assert not experiment().is_timed
    timed = experiment(timed=True, num_server_starts=6)
    assert timed.protocol is Protocol.IMMEDIATE
    assert timed.is_timed
    assert experiment().strategies == known_strategies()


def planned(project_folder, changes):
    profile = load_profile([project_folder / "workflow/tests/estimate/small.yaml"])
    entry = {**SOUND, "layouts": ["suffix_target", "independent"], **changes}
    own = {"strategies": StrategiesExperiment.model_validate(entry)}
    profile = profile.model_copy(update={"experiments": own})
    sessions = _sessions()
    return plan_batch(
        profile,
        "double",
        sessions,
        MODEL,
        renderer=CharRenderer(),
        prompts_folder=PROMPTS_FOLDER,
    )


def _sessions():
    return SessionSet(
        backbone="double",
        dataset="rows",
        format="hotpotqa",
        content_digest="d",
        num_skipped_rows=0,
        sessions=(make_session(),),
    )


def test_each_strategy_has_the_arms_that_it_takes(project_folder, monkeypatch):
    monkeypatch.chdir(project_folder)
    plan = planned(project_folder, {"keep_identifiers": [0, 20], "ask_after": [4, 1]})
    arms = {}
    for one in plan.selected:
        spec = one.spec
        arms.setdefault(spec.strategy or spec.layout, []).append(
            (spec.layout, spec.block_size_tokens, spec.keep_identifiers)
        )
        assert spec.is_reference or spec.ask_after == (1, 4)
    both = [("suffix_target", 300), ("independent", 300)]
    expected = [(layout, size, kept) for layout, size in both for kept in (0, 20)]
    assert arms["parallel"] == arms["hierarchical"] == expected
    assert arms["rolling"] == [("sequential", 300, 0), ("sequential", 300, 20)]
    assert arms["mask"] == arms["truncate"] == arms["sequential"]
    assert arms["mask"] == [("sequential", None, 0), ("sequential", None, 20)]
    assert {"closed_book", "full_history"} < set(arms)
    assert len({one.spec.key for one in plan.selected}) == len(plan.selected)


def test_timed_strategies_share_a_timing_block(project_folder, monkeypatch):
    monkeypatch.chdir(project_folder)
    plan = planned(project_folder, {"timed": True, "layouts": ["suffix_target"]})
    (unit,) = plan.units
    assert unit.is_timing_block
    assert {spec.strategy for spec in unit.cells} == set(known_strategies())
