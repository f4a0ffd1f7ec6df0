"""Several servers of one backbone: which plays what, what is refused, and what a death costs."""

import asyncio
import contextlib
import itertools
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from doubles import CharRenderer
from test_play_batch import CARD, MODEL, PROFILE

from blockwise.compaction import play_batch, replicas
from blockwise.compaction.plan import plan_batch
from blockwise.compaction.play_batch import BatchJob
from blockwise.compaction.store import CellStore
from blockwise.config.profile import Profile
from blockwise.data.documents import Document, Question, Session, SessionSet
from blockwise.errors import ServerError
from blockwise.serving.alike import refuse_unlike_cards, refuse_unlike_endpoints
from blockwise.serving.api_key import NO_KEY
from blockwise.serving.running_server import Server
from serving.stub_server import StubServer

EXPERIMENTS = {
    "timed": {**PROFILE["experiments"]["e"], "tau_tokens": [1000]},
    "recall": {
        "study": "compaction_accuracy_volume",
        "tau_tokens": [1000],
        "block_sizes_tokens": [300],
        "volume": {
            "mode": "natural",
            "sequential_max_tokens": 60,
            "worker_max_tokens": 20,
            "accept": ["length", "empty", "echo", "loop", "refusal"],
        },
        "prompts": ["p"],
        "answer_tokens": 8,
        "references": [],
    },
}
SESSION = re.compile(r"\bs\d\b")


class Replica(StubServer):
    """Answers every request; `order` is shared, and tells which session asked whom and when."""

    def __init__(self, number, order, behaviours):
        super().__init__(behaviours, self.count)
        self.number, self.order, self.num_scrapes = number, order, 0
        self.pages = {"/v1/models": json.dumps({"data": []})}

    def page(self, path):
        """As many preemptions between two scrapes as the replica's number says."""
        if path != "/metrics":
            return super().page(path)
        self.num_scrapes += 1
        return f"vllm:num_preemptions_total {self.number * self.num_scrapes}\n"

    def count(self, body):
        messages = body["messages"]
        text = " ".join(message["content"] for message in messages)
        if (session := SESSION.search(text)) is not None:
            self.order.append((session.group(), self.number, bool(body.get("ignore_eos"))))
        return CharRenderer().count(messages, add_generation_prompt=True)

    async def _otherwise(self, writer, body):
        self._stream(writer, self._chunk(body, "b", "length"), self._usage(body))


def sessions(num_sessions):
    def document(session, n):
        name = f"s{session}d{n}"
        question = Question(
            id=name,
            text=f"what of s{session} ?",
            answer="gold",
            category="bridge",
            evidence=(name,),
        )
        text = f"s{session} " + "x" * 300
        return Document(id=name, cluster=name, text=text, questions=(question,))

    listed = tuple(
        Session(id=f"s{s}", documents=tuple(document(s, n) for n in range(3)), num_tokens=1)
        for s in range(num_sessions)
    )
    return SessionSet(
        dataset="d", format="hotpotqa", backbone="double", content_digest="c",
        num_skipped_rows=0, sessions=listed,
    )  # fmt: skip


class Bench:
    """The batch job on HTTP servers, as many as there are lists of behaviours."""

    def __init__(self, folder, patch):
        self._folder, self._patch = folder, patch
        (folder / "p.md").write_text("Summarise.")
        cards = itertools.count(1)

        async def probe(*_):
            return CARD.model_copy(update={"id": f"start-{next(cards)}", "kv_block_tokens": None})

        patch.setattr(replicas, "probe", probe)
        self.profile = Profile.model_validate({**PROFILE, "experiments": EXPERIMENTS})
        self.store = CellStore(folder / "cells", print)

    def job(self, num_sessions):
        plan = plan_batch(
            self.profile, "double", sessions(num_sessions), MODEL, renderer=CharRenderer(),
            prompts_folder=self._folder,
        )  # fmt: skip
        return BatchJob(plan, self.profile.backbones["double"], MODEL, self.store, "digest")

    def play(self, behaviours=(["good"], ["good"]), processes=(), num_sessions=3):
        """Play what is missing; the requests as (session, replica, is its length forced)."""
        order = []
        stubs = [Replica(number, order, one) for number, one in enumerate(behaviours, start=1)]
        asyncio.run(self._on_servers(stubs, processes, self.job(num_sessions)))
        return order

    async def _on_servers(self, stubs, processes, job):
        async with contextlib.AsyncExitStack() as stack:
            for stub in stubs:
                await stack.enter_async_context(stub.running())
            servers = tuple(
                Server(stub.base_url, "m", "x", 0.0, Path(f"{stub.number}.log"), NO_KEY, process)
                for stub, process in itertools.zip_longest(stubs, processes)
            )
            managed = contextlib.nullcontext(servers)
            self._patch.setattr(play_batch, "managed_servers", lambda *_: managed)
            await asyncio.to_thread(job.play_missing, CharRenderer(), Path("server.log"))

    def batch(self, num_sessions=3):
        return self.job(num_sessions).batch(sessions(num_sessions), "")

    def records(self, num_sessions=3):
        for path in sorted({cell.record_path for cell in self.batch(num_sessions).selected}):
            content = json.loads((self.store.folder / path).read_text())["record"]
            for record in content.get("cells", [content]):
                yield record, self.store.folder / path


@pytest.fixture
def bench(tmp_path, monkeypatch):
    return Bench(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        bench = Bench(tmp_path_factory.mktemp("finished"), patch)
        yield bench, bench.play()


def test_a_session_stays_on_one_replica_and_its_records_say_which(finished):
    bench, order = finished
    expected = {"s0": 1, "s1": 2, "s2": 1}
    assert {(session, replica) for session, replica, _ in order} == set(expected.items())
    replica_of = {card.id: card.arguments["replica"] for card in bench.batch().engine_cards}
    assert {place["of"] for place in replica_of.values()} == {2}
    records = [record for record, _ in bench.records()]
    assert len(records) == 3 * (2 + 2)  # sessions; timed and recall cells
    for record in records:
        place = replica_of[record["engine_card_id"]]
        assert place["number"] == expected[record["spec"]["session_id"]]
        if record["timing_block_id"]:
            assert record["num_preemptions"] == place["number"], "scraped where it was played"


def test_recall_uses_all_replicas_at_once_and_timing_blocks_have_all_to_themselves(finished):
    _, order = finished
    recall = [session for session, _, forced in order if not forced]
    timed = [session for session, _, forced in order if forced]
    assert len(list(itertools.groupby(recall))) > 3
    assert len(list(itertools.groupby(timed))) == 3, "one after the other"
    assert all(not forced for _, _, forced in order[: len(recall)]), "recall is over by then"


def test_what_is_missing_is_played_where_its_session_was(bench):
    bench.play(num_sessions=2)
    for record, path in list(bench.records(2)):
        if record["spec"]["session_id"] == "s1":
            path.unlink(missing_ok=True)
    assert {(session, replica) for session, replica, _ in bench.play(num_sessions=2)} == {("s1", 2)}


def test_a_replica_that_dies_ends_the_job_and_a_rerun_finishes_it(bench):
    process = SimpleNamespace(poll=lambda: None)  # alive, but its engine is not: no /health
    with pytest.raises(ServerError, match=r"replica 2 of 2 of double died during a cell .*2\.log"):
        bench.play([["good"], ["good", "hang_up"]], (None, process), num_sessions=2)
    bench.play(num_sessions=2)
    assert len(bench.batch(2).selected) == 2 * (2 + 2)


def test_the_death_of_a_replica_that_plays_nothing_is_noticed(bench):
    ended = SimpleNamespace(poll=lambda: -9)
    with pytest.raises(ServerError, match="replica 2 of 2 of double died between cells"):
        bench.play(processes=(None, ended), num_sessions=1)


def test_replicas_that_answer_a_seeded_request_differently_are_refused(bench):
    with pytest.raises(ServerError, match=r"replica 2 answers a seeded request otherwise.*weights"):
        bench.play([["good"], ["otherwise"]])


@pytest.mark.parametrize(
    ("field", "value"), [("engine", "double 2"), ("kv_block_tokens", 128), ("arguments", {"a": 1})]
)
def test_replicas_that_the_probe_finds_different_are_refused(field, value):
    roomier = CARD.model_copy(update={"kv_cache_tokens": 90_000, "startup_s": 3.0})
    refuse_unlike_cards("double", [CARD, roomier])
    other = CARD.model_copy(update={field: value})
    with pytest.raises(
        ServerError, match=f"{field} is .* at replica 1 and .* at replica 3; ?|mend"
    ):
        refuse_unlike_cards("double", [CARD, roomier, other])


def test_endpoints_that_call_themselves_different_things_are_refused():
    async def refuse(**changes):
        async with contextlib.AsyncExitStack() as stack:
            stubs = [StubServer(["good"], 1) for _ in range(2)]
            servers = []
            for stub, change in zip(stubs, ({}, changes), strict=True):
                entry = {"id": "m", "root": "/models/m", "max_model_len": 4096, **change}
                stub.pages = {"/v1/models": json.dumps({"data": [entry]})}
                stub.pages["/version"] = json.dumps({"version": entry.pop("version", "1")})
                await stack.enter_async_context(stub.running())
                servers.append(Server(stub.base_url, "m", "x", 0.0, None, NO_KEY))
            await asyncio.to_thread(refuse_unlike_endpoints, "big", servers)

    asyncio.run(refuse(permission=[7]))  # says nothing about what is served
    for key, value in (("root", "/models/n"), ("max_model_len", 8192), ("version", "2")):
        with pytest.raises(ServerError, match=rf"of big are not alike: {key} is .*'?{value}'? at"):
            asyncio.run(refuse(**{key: value}))
