"""The batch job: what a failure costs, what a rerun plays, what is refused before a server."""

import contextlib
import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from doubles import KV_BLOCK_TOKENS, CachingEngine, CharRenderer

from blockwise import artifacts
from blockwise.compaction import play_batch, replicas
from blockwise.compaction.batch_inputs import BatchInputs
from blockwise.compaction.fit import check_sessions_fit
from blockwise.compaction.parts import plan_of
from blockwise.compaction.plan import plan_batch
from blockwise.compaction.play_batch import BatchJob
from blockwise.compaction.store import CellStore
from blockwise.config.profile import Profile
from blockwise.config.split import Part
from blockwise.data.documents import Document, Question, Session, SessionSet
from blockwise.errors import ArtifactError, CompactionError, ConfigError, EngineError, ServerError
from blockwise.models.prepared_model import (
    GgufOrigin,
    GgufProof,
    GreedyTokens,
    PreparedModel,
)
from blockwise.serving.engine_card import EngineCard

PROFILE = {
    "profile": "t",
    "backbones": {
        "double": {
            "model": {"source": "random"},
            "architecture": "dense",
            "reasoning": False,
            "num_parameters": 1,
            "context_window_tokens": 8192,
            "engine": {"kind": "vllm", "arguments": {"scheduling-policy": "priority"}},
        }
    },
    "datasets": {
        "d": {
            "format": "hotpotqa",
            "source": {"kind": "synthetic"},
            "sessions": {"num_sessions": 3, "target_tokens": 1000},
        }
    },
    "experiments": {
        "e": {
            "study": "compaction_end_to_end",
            "tau_tokens": [1400],
            "block_sizes_tokens": [300],
            "volume": {"mode": "forced", "total_tokens": 60},
            "prompts": ["p"],
        }
    },
}
MODEL = PreparedModel(
    backbone="double", source="random", path="x", revision=None, tokenizer_path="x",
    digest="m", num_parameters=1,
)  # fmt: skip
CARD = EngineCard(
    id="start-1", backbone="double", engine="double 1", model_digest="m",
    context_window_tokens=8192, kv_cache_tokens=100_000, kv_block_tokens=KV_BLOCK_TOKENS,
    prefix_caching=True, prefix_stable=True, prefix_break=None, request_form="chat",
    decode_1_tokens_per_s=1.0, decode_8_tokens_per_s=1.0, seeded_output_batch_invariant=True,
    startup_s=0.0, arguments={},
)  # fmt: skip


ORIGIN = GgufOrigin(
    file="Little-Instruct.Q4_1.gguf", sha256="b179c9523d0e" + "0" * 52, num_bytes=1, origin="here",
    architecture="llama", format="Q4_1", license=None,
    proof=GgufProof(
        num_vocabulary_tokens=1, num_respelled_tokens=0,
        greedy=GreedyTokens(system="s", prompt="p", dtype="bfloat16", token_ids=(1,)),
    ),
)  # fmt: skip


@pytest.mark.parametrize("warning", ["", "smallest of its kind"])
def test_captions_name_a_published_model_by_name_format_and_digest(warning):
    profile = Profile.model_validate(PROFILE)
    profile.backbones["double"] = profile.backbones["double"].model_copy(
        update={"caption": warning}
    )
    plan = SimpleNamespace(backbone="double")
    sessions = SimpleNamespace(dataset=next(iter(profile.datasets)))
    captions = [
        BatchInputs(profile, None, sessions, model, None, plan).caption
        for model in (MODEL, MODEL.model_copy(update={"gguf": ORIGIN}))
    ]
    words = "Little-Instruct, Q4_1 dequantized, sha256 b179c9523d0e"
    assert captions == [warning, f"{words}; {warning}" if warning else words]


def make_sessions(num_sessions=3, length=200):
    def document(session, n):
        name = f"s{session}d{n}"
        question = Question(
            id=name, text="what?", answer="gold", category="bridge", evidence=(name,)
        )
        return Document(id=name, cluster=name, text="x" * length, questions=(question,))

    sessions = tuple(
        Session(id=f"s{s}", documents=tuple(document(s, n) for n in range(7)), num_tokens=1)
        for s in range(num_sessions)
    )
    return SessionSet(dataset="d", format="hotpotqa", backbone="double", content_digest="c",
                      num_skipped_rows=0, sessions=sessions)  # fmt: skip


class FailingEngine(CachingEngine):
    """Fails the requests whose running number is listed, and may take the server with it."""

    def __init__(self, fail_at=(), server=None):
        super().__init__()
        self._fail_at, self._server = set(fail_at), server

    async def complete(self, request, *, max_attempts=1):
        if len(self.requests) in self._fail_at:
            self.requests.append(request)
            if self._server is not None:
                self._server.alive = False
            raise EngineError("the connection failed")
        return await super().complete(request, max_attempts=max_attempts)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        return None


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """Runs the batch job with doubles for server, probe and client."""
    (tmp_path / "p.md").write_text("Summarise.")
    starts = []

    def play(engine, sessions=None, experiments=None, server=None, part=None):
        server = server or SimpleNamespace(alive=True)
        server.is_alive = lambda: server.alive
        server.log_path, server.process = Path("server.log"), None

        @contextlib.contextmanager
        def managed_servers(*_):
            starts.append(server)
            yield (server,)

        async def probe(*_):
            return CARD.model_copy(update={"id": f"start-{len(starts)}"})

        monkeypatch.setattr(play_batch, "managed_servers", managed_servers)
        monkeypatch.setattr(replicas, "probe", probe)
        monkeypatch.setattr(replicas, "EngineClient", lambda *_: engine)
        profile = Profile.model_validate(
            {**PROFILE, "experiments": experiments or PROFILE["experiments"]}
        )
        sessions = sessions or make_sessions()
        plan = plan_batch(
            profile, "double", sessions, MODEL, renderer=CharRenderer(), prompts_folder=tmp_path
        )
        plan = plan_of(plan, Part.parse(part)) if part else plan
        store = CellStore(tmp_path / "cells", print)
        job = BatchJob(plan, profile.backbones["double"], MODEL, store, "digest")
        job.play_missing(CharRenderer(), Path("server.log"))
        return job.batch(sessions, "a caption")

    play.starts = starts
    play.units = lambda: sorted(
        path.name for path in (tmp_path / "cells" / "timing_blocks").rglob("*.json")
    )
    return play


def test_every_arm_of_a_timing_block_runs_on_one_start(bench):
    batch = bench(FailingEngine())
    assert len(batch.selected) == 6
    assert len({cell.record_path for cell in batch.selected}) == 3
    assert [card.id for card in batch.engine_cards] == ["start-1"]


def test_a_finished_batch_starts_no_server(bench):
    first = bench(FailingEngine())
    again = bench(FailingEngine(fail_at=[0]))
    assert len(bench.starts) == 1
    assert again == first


def test_a_failed_cell_does_not_stop_the_others_and_is_listed(bench):
    with pytest.raises(CompactionError, match=r"(?s)1 of 6 cells failed on double.*s\d .*failed"):
        bench(FailingEngine(fail_at=[3]))
    kept = bench.units()
    assert len(kept) == 2
    resumed = FailingEngine()
    bench(resumed)
    assert set(kept) < set(bench.units())
    assert len(bench.units()) == 3
    assert (
        len(
            {
                message["content"]
                for r in resumed.requests
                for message in r.messages
                if message["role"] == "system"
            }
        )
        == 1
    )


def test_a_dead_server_ends_the_job_and_keeps_what_is_finished(bench):
    one_unit = FailingEngine()
    bench(one_unit, sessions=make_sessions(1))
    per_unit = len(one_unit.requests)
    server = SimpleNamespace(alive=True)
    with pytest.raises(ServerError, match=r"died during a cell.* are kept.*Failed: s"):
        bench(FailingEngine(fail_at=[per_unit + 2], server=server), server=server)
    assert len(bench.units()) == 2
    resumed = FailingEngine()
    bench(resumed)
    assert len(bench.units()) == 3
    assert len(resumed.requests) == per_unit


def test_a_full_disk_ends_the_job_in_words_and_loses_nothing(bench, monkeypatch):
    bench(FailingEngine(), sessions=make_sessions(1))
    kept = bench.units()
    real = os.fsync

    def no_space(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(artifacts.os, "fsync", no_space)
    with pytest.raises((ArtifactError, CompactionError), match="No space left on device"):
        bench(FailingEngine())
    assert bench.units() == kept
    monkeypatch.setattr(artifacts.os, "fsync", real)
    bench(FailingEngine())
    assert len(bench.units()) == 3


def test_the_other_arms_of_a_failed_timing_block_are_still_tried(bench):
    with pytest.raises(CompactionError, match=r"(?s)2 of 4 cells failed.*s0 .*s0 "):
        bench(FailingEngine(fail_at=[0, 5]), sessions=make_sessions(2))
    assert len(bench.units()) == 1


def test_block_sizes_below_four_kv_blocks_are_refused(bench):
    small = {**PROFILE["experiments"]["e"], "block_sizes_tokens": [KV_BLOCK_TOKENS * 4 - 1]}
    with pytest.raises(ConfigError, match=r"\[63\].*caches 16 tokens at a time.*raise B"):
        bench(FailingEngine(), experiments={"e": small})


def test_experiments_share_cells(bench):
    same = {"e": PROFILE["experiments"]["e"], "f": PROFILE["experiments"]["e"]}
    batch = bench(FailingEngine(), experiments=same)
    assert len(batch.selected) == 12
    assert len({cell.cell_key for cell in batch.selected}) == 6
    assert len(bench.units()) == 3


def test_gaining_an_arm_re_runs_the_timing_block_whole(bench):
    bench(FailingEngine())
    before = bench.units()
    wider = {"e": {**PROFILE["experiments"]["e"], "block_sizes_tokens": [300, 600]}}
    batch = bench(FailingEngine(), experiments=wider)
    assert len(batch.selected) == 9
    fresh = {Path(cell.record_path).name for cell in batch.selected}
    assert len(fresh) == 3
    assert not fresh & set(before)


def test_a_session_that_could_never_end_below_tau_is_refused_before_any_server(tmp_path):
    (tmp_path / "p.md").write_text("Summarise.")
    profile = Profile.model_validate(PROFILE)
    sessions = make_sessions(1, length=1300)
    plan = plan_batch(
        profile, "double", sessions, MODEL, renderer=CharRenderer(), prompts_folder=tmp_path
    )
    cells = [(cell.experiment, cell.spec) for cell in plan.selected]
    with pytest.raises(ConfigError, match=r"document s0d0 of session s0.*raise tau_tokens"):
        check_sessions_fit(cells, plan.sessions, CharRenderer())


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / "a" / "b.json"
    artifacts.write_json(file, {"x": 1})

    def no_space(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(artifacts.os, "fsync", no_space)
    with pytest.raises(ArtifactError, match=r"cannot write .*b\.json: No space left.*free space"):
        artifacts.write_json(file, {"x": 2})
    assert artifacts.read_json(file) == {"x": 1}
    assert [path.name for path in file.parent.iterdir()] == ["b.json"]


@pytest.mark.parametrize("text", ["{", "NaN", '{"a": Infinity}', ""])
def test_json_that_is_not_strict_is_refused(tmp_path, text):
    file = tmp_path / "x.json"
    file.write_text(text)
    with pytest.raises(ArtifactError, match="is not valid JSON"):
        artifacts.read_json(file)
