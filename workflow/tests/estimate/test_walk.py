"""The bill's arithmetic against the protocols themselves, played on the engine double."""

import asyncio
from collections import Counter
from itertools import accumulate
from pathlib import Path

import pytest

from blockwise.compaction.play import Stage, play_cell
from blockwise.config.choices import Protocol
from blockwise.data.documents import Document, Question, Session
from blockwise.estimate import plans
from blockwise.estimate.bill import BYSTANDERS
from blockwise.estimate.compaction_bill import CompactionBill, Notes
from blockwise.estimate.earlier import load_earlier
from blockwise.estimate.hardware import cpu
from blockwise.estimate.plans import Plans
from blockwise.estimate.sizes import Sizes
from blockwise.estimate.walk import MEANWHILE, Cache, NaturalVolume, walk
from blockwise.run.pipeline import PROMPTS_FOLDER, Pipeline
from cell_specs import cell
from compaction.doubles import HEADER_TOKENS, KV_BLOCK_TOKENS, CachingEngine, CharRenderer
from record_factory import ENVIRONMENT, engine_card

SMALL = Path(__file__).parent / "small.yaml"
CARD = engine_card(kv_block_tokens=KV_BLOCK_TOKENS)
CACHE = Cache(KV_BLOCK_TOKENS, finds_cut_history=True)
WORDS = "The town lies by the river, and its market opens at seven in the morning. " * 40
RECALL = {"protocol": "deferred", "volume_mode": "natural", "volume_tokens": 60,
          "tau_tokens": 1400, "transcript": None, "block_size_tokens": 300}  # fmt: skip
EAGER = {"tau_tokens": 1400, "block_size_tokens": 300, "volume_tokens": 40,
         "volume_block_size_tokens": 300, "layout": "suffix_target", "is_eager": True}  # fmt: skip
STRATEGY = {**RECALL, "accept": ["length", "loop", "echo"], "budget_tokens": 700,
            "ask_after": [1, 2]}  # fmt: skip
SINGLE = {"protocol": "single", "tau_tokens": None, "history_tokens": 1000, "transcript": None,
          "block_size_tokens": 300, "volume_tokens": 90}  # fmt: skip


def make_session():
    """Eight documents of about two hundred characters, a question each."""
    documents = tuple(
        Document(
            id=f"d{n}",
            cluster="c",
            text=f"Document {n}: {WORDS[n : n + 190]}",
            questions=(
                Question(
                    id=f"d{n}/q", text=f"what of {n}?", answer="gold", category="bridge",
                    evidence=(f"d{n}",),
                ),
            ),
        )
        for n in range(8)
    )  # fmt: skip
    return Session(id="s", documents=documents, num_tokens=1600)


class Exhausting(CachingEngine):
    """Takes the whole budget of every answer, as the bill assumes where nothing was measured."""

    def __init__(self):
        super().__init__(lambda request: WORDS[: request.max_tokens])


class Lengths(CharRenderer):
    """The same template by lengths alone: a conversation is never written out."""

    def render(self, messages, add_generation_prompt):
        return range(self.count(messages, add_generation_prompt))

    def count(self, messages, add_generation_prompt):
        texts = sum(len(message["content"]) for message in messages)
        return texts + HEADER_TOKENS * (len(messages) + add_generation_prompt)

    def ends(self, messages):
        return list(accumulate(self.count([message], False) for message in messages))


class Counting(Exhausting):
    """The same without a cache, whose double keeps every prefix of every prompt."""

    def __init__(self):
        super().__init__()
        self.renderer = Lengths()

    async def complete(self, request, *, max_attempts=1):
        await asyncio.sleep(0)  # or bystanders, who ask again at once, let nobody else in
        return await super().complete(request, max_attempts=max_attempts)

    def _cached_tokens(self, salt, prompt):
        return 0


def played(spec, session, engine):
    """Requests of a cell as the protocol sends them; what bystanders ask meanwhile left out."""
    stage = Stage(engine, engine.renderer, CARD, honours_cache_salt=True)
    place = ("block", 0) if spec.is_timing else None
    record = asyncio.run(play_cell(stage, spec, session, ENVIRONMENT, place))
    return [
        one for one in record.requests if one.role != "bystander" or one.compaction_index is None
    ]


@pytest.fixture
def small(monkeypatch, tmp_path, project_folder):
    """The small configuration's pipeline and plans, a character a token."""
    monkeypatch.chdir(project_folder)
    monkeypatch.setattr(plans.Renderers, "of", lambda *_: Lengths())
    pipeline = Pipeline([SMALL], {})
    return pipeline, Plans(pipeline.profile, tmp_path, PROMPTS_FOLDER)


def test_the_bill_of_a_small_configuration_is_what_playing_it_sends(small, tmp_path):
    pipeline, known = small
    notes = Notes()
    devices = {False: cpu()}
    bill = CompactionBill(pipeline, known, load_earlier(tmp_path), devices, notes)
    for backbone, dataset in pipeline.batches():
        plan = known.of(backbone, dataset).plan
        cells, requests, tokens = Counter(), Counter(), Counter()
        first = {}
        for one in plan.selected:
            first.setdefault(one.spec.key, one)
        for one in first.values():
            sent = played(one.spec, plan.sessions[one.spec.session_id], Counting())
            cells[one.experiment] += 1
            requests[one.experiment] += len(sent)
            tokens[one.experiment] += sum(request.prompt_tokens for request in sent)
        lines = [line for line in bill.lines(backbone, dataset) if line.experiment]
        counted = {line.experiment: line for line in lines if line.stage != BYSTANDERS}
        assert {name: line.num_cells for name, line in counted.items()} == cells
        for name, line in counted.items():
            assert line.num_requests == pytest.approx(requests[name], rel=0.02), name
            assert line.prompt_tokens == pytest.approx(tokens[name], rel=0.1), name
            assert line.wall_h > 0
        assert sum(line.num_requests for line in lines if line.stage == BYSTANDERS) > 0
        assert {line.experiment for line in lines} == set(pipeline.profile.experiments)
    assert notes.warnings == []


@pytest.mark.parametrize(
    "changes",
    [
        {"tau_tokens": 1400, "block_size_tokens": 300, "volume_tokens": 60},
        {"tau_tokens": 1400, "layout": "sequential", "block_size_tokens": None},
        *(
            {**SINGLE, "layout": layout}
            for layout in ("suffix_target", "full_marked", "independent")
        ),
        {**RECALL, "asks_truncated": True},
        EAGER,
        {**EAGER, "open_block": "keep"},
        {**EAGER, "is_eager": False, "open_block": "keep"},
        {**EAGER, "is_eager": False, "layout": "sequential", "block_size_tokens": None},
    ],
)
def test_what_is_computed_is_what_a_prefix_cache_does_not_hold(changes):
    spec, session = cell(answer_tokens=20, **{"boundary": "turn", **changes}), make_session()
    sent = played(spec, session, Exhausting())
    waves = walk(spec, session, Sizes(CharRenderer()), NaturalVolume(), CACHE).waves
    assert sum(wave.num_requests for wave in waves) == len(sent)
    prompt_tokens = sum(one.prompt_tokens for one in sent)
    assert sum(wave.prompt_tokens for wave in waves) == pytest.approx(prompt_tokens, rel=0.02)
    assert sum(wave.decoded_tokens for wave in waves) == sum(one.completion_tokens for one in sent)
    computed = sum(one.prompt_tokens - one.cached_tokens for one in sent)
    # Marks and quotations are shared to the character there, and to the history block here.
    apart = 2 * KV_BLOCK_TOKENS * len(sent)
    assert sum(wave.uncached_tokens for wave in waves) == pytest.approx(
        computed, rel=0.2, abs=apart
    )


@pytest.mark.parametrize(
    ("name", "layout", "size"),
    [
        ("sequential", "sequential", None),
        ("parallel", "suffix_target", 300),
        ("rolling", "sequential", 300),
        ("hierarchical", "suffix_target", 300),
        ("truncate", "sequential", None),
        ("mask", "sequential", None),
    ],
)
def test_a_strategy_sends_what_it_says_and_computes_no_more(name, layout, size):
    own = {"strategy": name, "layout": layout, "block_size_tokens": size}
    spec, session = cell(**{**STRATEGY, **own, "answer_tokens": 20}), make_session()
    sent = played(spec, session, Exhausting())
    waves = walk(spec, session, Sizes(CharRenderer()), NaturalVolume(), CACHE).waves
    assert sum(wave.num_requests for wave in waves) == len(sent)
    assert sum(wave.decoded_tokens for wave in waves) == sum(one.completion_tokens for one in sent)
    prompt_tokens = sum(one.prompt_tokens for one in sent)
    billed = sum(wave.prompt_tokens for wave in waves)
    assert prompt_tokens * 0.98 <= billed <= prompt_tokens * 1.25
    # The double writes one text again and again, so what it finds in the cache is more.
    computed = sum(one.prompt_tokens - one.cached_tokens for one in sent)
    assert sum(wave.uncached_tokens for wave in waves) >= computed - 2 * KV_BLOCK_TOKENS * len(sent)


def test_a_natural_volume_is_the_budget_or_the_share_that_was_measured():
    spec, sizes = cell(**RECALL), Sizes(CharRenderer())
    shares = (NaturalVolume(), NaturalVolume(0.5, 0.25), NaturalVolume(1.0, 1.0, 0.5))
    upper, half, thinking = (walk(spec, make_session(), sizes, share, CACHE) for share in shares)
    assert upper.waves[-1].decoded_tokens == 8 * 16
    assert half.waves[-1].decoded_tokens == 8 * 4
    workers = [wave for wave in half.waves if wave.role == "worker"]
    assert [wave.decoded_tokens for wave in workers] == [30 * wave.num_requests for wave in workers]
    # What was only thought is no part of the history on which questions are asked.
    assert thinking.waves[-1].decoded_tokens == upper.waves[-1].decoded_tokens
    assert thinking.waves[-1].prompt_tokens < upper.waves[-1].prompt_tokens


def test_an_engine_that_finds_whole_conversations_only_computes_cut_ones_again():
    spec, session, sizes = cell(**SINGLE), make_session(), Sizes(CharRenderer())
    whole = Cache(KV_BLOCK_TOKENS, finds_cut_history=False)
    parts, cut = (walk(spec, session, sizes, NaturalVolume(), one) for one in (CACHE, whole))
    assert cut.waves[-1].prompt_tokens == parts.waves[-1].prompt_tokens
    assert cut.waves[-1].uncached_tokens == cut.waves[-1].prompt_tokens
    sequential = spec.model_copy(update={"layout": "sequential", "block_size_tokens": None})
    (_, worker) = walk(sequential, session, sizes, NaturalVolume(), whole).waves
    assert worker.uncached_tokens < worker.prompt_tokens / 2


def test_a_cell_that_would_fail_says_why_and_counts_what_comes_before():
    spec = cell(tau_tokens=900, block_size_tokens=300, volume_tokens=700)
    walked = walk(spec, make_session(), Sizes(CharRenderer()), NaturalVolume(), CACHE)
    assert "tau is 900" in walked.failure
    assert 0 < len(walked.waves) < 8
    few = cell(**{**SINGLE, "volume_tokens": 1})
    walked = walk(few, make_session(), Sizes(CharRenderer()), NaturalVolume(), CACHE)
    assert "cannot be split over" in walked.failure


def test_waits_for_tools_are_between_documents():
    spec = cell(**EAGER, tool_wait_s=0.5)
    walked = walk(spec, make_session(), Sizes(CharRenderer()), NaturalVolume(), CACHE)
    assert walked.waited_s == 0.5 * 7


def test_bystanders_ask_alone_and_once_more_for_the_bill_to_repeat():
    rule = {"context_tokens": 400, "answer_tokens": 5, "num_alone_requests": 2}
    spec = cell(**{**SINGLE, "protocol": "shared", "num_bystanders": 2, "bystanders": rule})
    assert spec.protocol is Protocol.SHARED
    waves = walk(spec, make_session(), Sizes(CharRenderer()), NaturalVolume(), CACHE).waves
    assert [(wave.role, wave.num_requests) for wave in waves if wave.num_requests < 5] == [
        ("agent", 1), ("bystander", 4), (MEANWHILE, 2), ("worker", 3),
    ]  # fmt: skip
