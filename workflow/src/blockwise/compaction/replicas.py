"""Sessions over replicas: which server of several plays what, and whether all of them still live.

A session belongs to one replica, whatever is played of it and in whatever order: cells of a
session share its cached history, and the arms of a timing block share a server start. Which one
follows from the session's place in its dataset alone, so a resumed job, a job with a failed
cell and one that gained an experiment send a session where it was before. Every record names the
engine card of its replica, and the card says which of how many it is.

Recall cells use all replicas at once. Timing blocks are played one at a time, as on a single
server, and nothing else runs meanwhile: all clocks but the engine's are those of this one
process, and replicas on one machine share its cores (METHOD, the whole machine).
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from blockwise.compaction.cells import Unit
from blockwise.compaction.play import Stage
from blockwise.config.backbones import Backbone
from blockwise.errors import ServerError
from blockwise.models.prepared_model import PreparedModel
from blockwise.models.renderer import Renderer
from blockwise.serving.alike import refuse_unlike_cards
from blockwise.serving.client import ChatRequest, EngineClient
from blockwise.serving.engine_card import EngineCard
from blockwise.serving.probe import probe
from blockwise.serving.running_server import Server

CONCURRENT_RECALL_CELLS = 16  # nobody times them, and a batched engine decodes more at once
REFERENCE_REQUEST = ChatRequest(
    messages=[{"role": "user", "content": "Tell me about the harbour."}],
    max_tokens=48,  # far enough for other weights to show
    min_tokens=48,
    seed=0,
)


@dataclass(frozen=True)
class Replica:
    """One server of a backbone, ready to play."""

    label: str
    server: Server
    stage: Stage
    gate: asyncio.Semaphore  # recall cells that it plays at once

    def has_ended(self) -> bool:
        """Whether its process is gone; costs nothing and asks nobody."""
        process = self.server.process
        return process is not None and process.poll() is not None


class Replicas:
    """The servers of one backbone.

    Args:
        backbone: its name.
        replicas: its servers.
        session_ids: of the dataset, in its order.
    """

    def __init__(
        self, backbone: str, replicas: Sequence[Replica], session_ids: Iterable[str]
    ) -> None:
        self._backbone = backbone
        self._replicas = tuple(replicas)
        self._of_session = {
            session_id: self._replicas[index % len(self._replicas)]
            for index, session_id in enumerate(session_ids)
        }

    def of(self, unit: Unit) -> Replica:
        """The replica that plays a unit: that of its session."""
        return self._of_session[unit.cells[0].session_id]

    @property
    def cards(self) -> list[EngineCard]:
        """The engine card of each replica."""
        return [replica.stage.card for replica in self._replicas]

    def require_running(self) -> None:
        """Notice a replica that has ended, also one that plays nothing at the moment.

        Raises:
            ServerError: naming it.
        """
        ended = [replica for replica in self._replicas if replica.has_ended()]
        if ended:
            raise ServerError(self._death_of(ended, "between cells"))

    def require_alive(self, failed: str, error: Exception) -> None:
        """After a failed cell, ask every replica whether it can still serve.

        Args:
            failed: the cells that failed, in words.
            error: why the last of them did.

        Raises:
            ServerError: naming those that cannot.
        """
        dead = [replica for replica in self._replicas if not replica.server.is_alive()]
        if dead:
            died = self._death_of(dead, "during a cell")
            raise ServerError(f"{died} Failed: {failed}: {error}") from error

    def _death_of(self, dead: Sequence[Replica], when: str) -> str:
        who = ", ".join(replica.label for replica in dead)
        logs = ", ".join(
            str(replica.server.log_path or "kept by the external server") for replica in dead
        )
        return (
            f"{who} of {self._backbone} died {when} (log: {logs}). Finished timing blocks and "
            "cells are kept; run the same command again to play the rest."
        )


@asynccontextmanager
async def open_replicas(
    name: str,
    backbone: Backbone,
    model: PreparedModel,
    servers: Sequence[Server],
    renderer: Renderer,
    *,
    session_ids: Iterable[str],
) -> AsyncIterator[Replicas]:
    """Connect to every server of a backbone, probe each, and refuse unlike ones.

    They are probed one after the other: a card's speeds are times as any other.

    Raises:
        EngineError: a server does not answer as agreed.
        ServerError: they are not alike.
    """
    engine_config = backbone.engine
    salted = engine_config.kind == "vllm" or engine_config.cache_salt
    async with AsyncExitStack() as stack:
        engines = [
            await stack.enter_async_context(EngineClient(server, backbone, renderer))
            for server in servers
        ]
        cards = [
            await probe(engine, server, name, backbone, model)
            for engine, server in zip(engines, servers, strict=True)
        ]
        if len(servers) > 1:
            refuse_unlike_cards(name, cards)
            if all(card.seeded_output_batch_invariant for card in cards):
                await _refuse_other_weights(name, engines)
            cards = [_numbered(card, number, len(cards)) for number, card in enumerate(cards, 1)]
        yield Replicas(
            name,
            [
                Replica(
                    label=f"replica {number} of {len(servers)}"
                    if len(servers) > 1
                    else "the server",
                    server=server,
                    stage=Stage(engine, renderer, card, honours_cache_salt=salted),
                    gate=asyncio.Semaphore(CONCURRENT_RECALL_CELLS),
                )
                for number, (server, engine, card) in enumerate(
                    zip(servers, engines, cards, strict=True), start=1
                )
            ],
            session_ids,
        )


def _numbered(card: EngineCard, number: int, num_replicas: int) -> EngineCard:
    """The card of one of several, which says so."""
    replica = {"number": number, "of": num_replicas}
    return card.model_copy(update={"arguments": {**card.arguments, "replica": replica}})


async def _refuse_other_weights(name: str, engines: Sequence[EngineClient]) -> None:
    """Refuse replicas that answer one seeded request differently.

    Asked only where no batch changes a seeded answer, so that nothing but the weights, or kernels
    that round otherwise, can.
    """
    answers = [await engine.complete(REFERENCE_REQUEST, max_attempts=2) for engine in engines]
    texts = [(answer.thinking_text, answer.text) for answer in answers]
    other = next((index for index, text in enumerate(texts) if text != texts[0]), None)
    if other is not None:
        raise ServerError(
            f"the replicas of {name} are not alike: replica {other + 1} answers a seeded request "
            "otherwise than replica 1, though each repeats itself in any batch. They serve other "
            "weights or run on other hardware; make them equal, or a backbone of its own"
        )
