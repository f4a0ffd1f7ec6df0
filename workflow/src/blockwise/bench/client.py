"""What the client itself costs, against an engine that answers at once.

An engine without a model leaves nothing but our own work: rendering, counting, cutting,
building requests and records. Three numbers tell whether it stays small: the client time of
one compaction with many workers, and the CPU time and memory of a session of many turns.
"""

import asyncio
import gc
import time
import tracemalloc
from collections.abc import Sequence

from blockwise.compaction.agent import Agent, AgentRule
from blockwise.compaction.compactor import CompactionRule, Compactor
from blockwise.compaction.history import History, Turn
from blockwise.config.choices import Boundary, VolumeMode
from blockwise.models.renderer import Renderer
from blockwise.serving.client import ChatRequest, Completion, EngineClient

NUM_WORKERS = 64
NUM_TURNS = 1000
WORDS_PER_TURN = 80
BLOCK_SIZE_TOKENS = 128  # the history below then has about NUM_WORKERS history blocks
PROMPT = "Summarise."


class InstantEngine(EngineClient):
    """Answers every request at once; counts it as the real client does."""

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer

    @property
    def window_tokens(self) -> int:
        """No window is in the way."""
        return 10**9

    async def complete(self, request: ChatRequest, *, max_attempts: int = 1) -> Completion:
        """An answer of the length asked for."""
        del max_attempts
        prompt_tokens = self._renderer.count(request.messages, add_generation_prompt=True)
        return Completion(
            text="summary",
            thinking_text="",
            finish_reason="length",
            prompt_tokens=prompt_tokens,
            cached_tokens=None,
            completion_tokens=request.max_tokens,
            thinking_tokens=0,
            started_at_s=time.perf_counter(),
            ttft_s=0.0,
            wall_s=0.0,
            retry_reasons=(),
        )


def _document(number: int) -> str:
    return f"Document {number}. " + "the town lies by the river " * (WORDS_PER_TURN // 6)


def compaction_client_s(renderer: Renderer, layout: str, num_repeats: int) -> list[float]:
    """Wall time of compactions with `NUM_WORKERS` workers that are answered at once.

    Units: seconds, one value a repeat; the first, which fills the token cache, is left out.
    """
    history = History.with_system_prompt("You are brief.")
    for number in range(NUM_WORKERS):
        history = history.extended(Turn("user", _document(number)), Turn("assistant", "Noted."))
    total = renderer.count(history.messages(), add_generation_prompt=False)
    rule = CompactionRule(
        layout=layout,
        block_size_tokens=total // NUM_WORKERS,
        boundary=Boundary.TURN,
        prompt=PROMPT,
        volume_mode=VolumeMode.FORCED,
        volume_tokens=NUM_WORKERS,
        last_turns=0,
    )
    compactor = Compactor(InstantEngine(renderer), renderer, rule)

    async def once() -> float:
        compaction = await compactor.compact(history, cache_salt=None, seed=0)
        assert len(compaction.workers) >= NUM_WORKERS, len(compaction.workers)
        return compaction.stall_s

    return [asyncio.run(once()) for _ in range(num_repeats + 1)][1:]


def session_memory_bytes(renderer: Renderer, marks: Sequence[int]) -> dict[int, int]:
    """Python memory of a session after so many turns, records of its requests apart.

    The records grow with the session by design: they are its result. Everything else must not.
    """
    compaction = CompactionRule(
        layout="target_block",
        block_size_tokens=512,
        boundary=Boundary.TURN,
        prompt=PROMPT,
        volume_mode=VolumeMode.FORCED,
        volume_tokens=64,
        last_turns=0,
        carries_summaries=False,  # as a cell does
    )
    rule = AgentRule("hotpotqa", 4096, answer_tokens=8, forced_answers=True, seed=0)
    agent = Agent(
        InstantEngine(renderer), renderer, rule, compaction, cache_salt=None, kv_block_tokens=None
    )
    found = {}

    async def play() -> None:
        for number in range(max(marks)):
            incoming = Turn("user", _document(number))
            await agent.make_room(number, incoming)
            await agent.ask(number, incoming)
            agent.append(None, incoming, "Noted.")
            agent.playback.requests.clear()
            agent.playback.compactions.clear()
            if number + 1 in marks:
                gc.collect()
                found[number + 1] = tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        asyncio.run(play())
    finally:
        tracemalloc.stop()
    return found
