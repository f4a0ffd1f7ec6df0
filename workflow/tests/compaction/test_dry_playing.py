"""A cell played without a server sends what a run would send, and says what would not fit."""

import asyncio
from dataclasses import replace
from types import MappingProxyType, SimpleNamespace

import pytest
from cell_specs import cell
from doubles import KV_BLOCK_TOKENS, CachingEngine, CharRenderer
from test_agent import make_session
from test_run import CARD, MODEL, PROFILE, make_sessions

from blockwise.compaction.plan import plan_batch
from blockwise.compaction.play import Stage, play_cell
from blockwise.config.backbones import Backbone
from blockwise.config.profile import Profile
from blockwise.estimate import playing
from blockwise.estimate.dry_engine import FILLER, NaturalVolume, Pace
from blockwise.estimate.playing import MEANWHILE, NOWHERE, Ground, Player, broken_timing
from blockwise.estimate.virtual_time import run_in_virtual_time

WINDOW = CachingEngine.window_tokens
BACKBONE = Backbone.model_validate(
    {**PROFILE["backbones"]["double"], "context_window_tokens": WINDOW}
)
GROUND = Ground(BACKBONE, CharRenderer(), NaturalVolume(), CARD)
RECALL = {"protocol": "deferred", "volume_mode": "natural", "volume_tokens": 60,
          "tau_tokens": 1400, "transcript": None, "block_size_tokens": 300}  # fmt: skip
SINGLE = {"protocol": "single", "tau_tokens": None, "history_tokens": 1000, "transcript": None,
          "block_size_tokens": 300, "volume_tokens": 90}  # fmt: skip
SHARED = {**SINGLE, "protocol": "shared", "num_bystanders": 2, "max_concurrent_workers": 1,
          "bystanders": {"context_tokens": 400, "answer_tokens": 5, "num_alone_requests": 2},
          }  # fmt: skip


def dry(spec, ground=GROUND, volumes=MappingProxyType({})):
    plan = SimpleNamespace(
        sessions={spec.session_id: make_session().model_copy(update={"id": spec.session_id})},
        units=[SimpleNamespace(cells=[spec])],
    )
    (played,) = Player().play(plan, ground, volumes).values()
    return played


def test_time_passes_only_while_everybody_waits():
    async def work():
        await asyncio.gather(*(asyncio.sleep(hours * 3600) for hours in (1, 3, 2)))
        await asyncio.sleep(60)
        return asyncio.get_running_loop().time()

    assert run_in_virtual_time(work()) == pytest.approx(3 * 3600 + 60)


@pytest.mark.parametrize(
    "changes",
    [
        {"tau_tokens": 1400, "block_size_tokens": 300, "volume_tokens": 60},
        {**SINGLE, "layout": "suffix_target"},
        {**SINGLE, "layout": "full_marked"},
        {**RECALL, "asks_truncated": True},
    ],
)
def test_what_is_counted_is_what_an_engine_would_be_sent(changes):
    spec = cell(answer_tokens=20, **{"boundary": "turn", **changes})
    engine = CachingEngine(lambda request: (FILLER * 9)[: request.max_tokens])
    stage = Stage(engine, CharRenderer(), CARD, honours_cache_salt=True)
    place = ("block", 0) if spec.is_timing else None
    record = asyncio.run(play_cell(stage, spec, make_session(), NOWHERE, place))
    work = dry(spec).work
    assert work.num_requests == len(record.requests)
    assert work.prompt_tokens == sum(one.prompt_tokens for one in record.requests)
    assert work.decoded_tokens == sum(one.completion_tokens for one in record.requests)
    cached = work.prompt_tokens - work.uncached_tokens
    known = sum(one.cached_tokens for one in record.requests)
    # The double caches tokens, we messages: apart by at most one KV block a request.
    assert abs(cached - known) <= KV_BLOCK_TOKENS * work.num_requests


def test_bystanders_go_on_until_the_compaction_ends_and_are_counted_apart():
    played = dry(cell(**SHARED))
    others, workers = played.meanwhile, played.by_role["worker"]
    assert played.by_role["bystander"].num_requests == 4
    assert played.work.num_requests == sum(
        work.num_requests for role, work in played.by_role.items() if role != MEANWHILE
    )
    # One worker after the other decodes a token a step; a bystander's turn lasts a few more.
    rounds = workers.decoded_tokens / (5 + Pace().request_steps)
    assert others.num_requests == pytest.approx(2 * rounds, rel=0.5)
    slow = dry(cell(**SHARED), replace(GROUND, pace=Pace(request_steps=20.0)))
    assert slow.meanwhile.num_requests < others.num_requests / 2
    assert slow.work == played.work


def test_a_natural_volume_is_the_budget_or_the_share_that_was_measured():
    upper = dry(cell(**RECALL))
    half = dry(cell(**RECALL), Ground(BACKBONE, CharRenderer(), NaturalVolume(0.5, 0.25), CARD))
    assert upper.by_role["question"].decoded_tokens == 8 * 16
    assert half.by_role["question"].decoded_tokens == 8 * 4
    assert half.by_role["worker"].decoded_tokens == 30 * half.by_role["worker"].num_requests
    assert half.compactions[0].output_tokens < upper.compactions[0].output_tokens
    spec = cell(**RECALL)
    assert dry(spec, volumes={spec.key: NaturalVolume(0.5, 0.25)}).work == half.work
    assert dry(spec, volumes={"another": NaturalVolume(0.5, 0.25)}).work == upper.work


def test_seeds_and_repeats_are_played_once_and_counted_each(monkeypatch, tmp_path):
    (tmp_path / "p.md").write_text("Summarise.")
    entry = {**PROFILE["experiments"]["e"], "seeds": [0, 1, 2], "num_repeats": 2}
    profile = Profile.model_validate({**PROFILE, "experiments": {"e": entry}})
    plan = plan_batch(profile, "double", make_sessions(1), MODEL, renderer=CharRenderer(),
                      prompts_folder=tmp_path)  # fmt: skip
    calls = []
    monkeypatch.setattr(playing, "_play", lambda *given: calls.append(given))
    assert len(Player().play(plan, GROUND, {})) == 2 * 3 * 2
    assert len(calls) == 2


def test_a_cell_that_would_fail_is_named_and_one_whose_cache_is_too_small_too():
    small = BACKBONE.model_copy(update={"context_window_tokens": 900})
    failed = dry(cell(**SINGLE), Ground(small, CharRenderer(), NaturalVolume(), CARD))
    assert "exceed the window of 900" in failed.failure
    assert failed.work.num_requests == 0
    spec = cell(**SINGLE)
    card = CARD.model_copy(update={"kv_cache_tokens": 1000})
    ground = Ground(BACKBONE, CharRenderer(), NaturalVolume(), card)
    (reason,) = broken_timing(spec, dry(spec), ground)
    assert "KV cache too small" in reason
    assert broken_timing(spec, dry(spec), GROUND) == []
