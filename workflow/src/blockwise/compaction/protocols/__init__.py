"""Protocols: what an agent is shown and asked in a cell, and when.

A protocol is one module of this package, named as its member of `config.choices.Protocol`,
with one function

    async play(agent: Agent, session: Session, spec: CellSpec) -> None

that drives the agent through one session; the agent keeps the history and the record.
"""

import importlib
from collections.abc import Awaitable, Callable
from typing import cast

from blockwise.compaction.agent import Agent
from blockwise.compaction.cell_spec import CellSpec
from blockwise.config.choices import PROTOCOL_PACKAGE, Protocol
from blockwise.data.documents import Session

Play = Callable[[Agent, Session, CellSpec], Awaitable[None]]


def load_protocol(protocol: Protocol) -> Play:
    """How the cells of a protocol are played."""
    module = importlib.import_module(f"{PROTOCOL_PACKAGE}.{protocol}")
    return cast(Play, module.play)
