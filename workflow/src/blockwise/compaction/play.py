"""Play one cell: its agent, its cache salt, and whether its times may be used.

Every attempt of a timing cell gets a fresh cache salt, so no arm inherits another's prefill. A time
counts only if the engine kept what it was given: a preemption, an evicted prefix, a retried
worker or a KV cache too small for the work makes the cell's timing invalid, and its record
says why.
"""

import time
import uuid
from dataclasses import dataclass

from blockwise.compaction.agent import Agent, AgentRule, Playback
from blockwise.compaction.cell_spec import CellSpec
from blockwise.compaction.compactor import derive_seed
from blockwise.compaction.protocols import load_protocol
from blockwise.compaction.records import CellRecord, Environment
from blockwise.config.choices import Protocol, Transcript
from blockwise.data.documents import Session
from blockwise.models.renderer import Renderer
from blockwise.serving.client import EngineClient
from blockwise.serving.engine_card import EngineCard


@dataclass(frozen=True)
class Stage:
    """The running server that plays cells: its client, template and card."""

    engine: EngineClient
    renderer: Renderer
    card: EngineCard
    honours_cache_salt: bool


async def play_cell(
    stage: Stage,
    spec: CellSpec,
    session: Session,
    environment: Environment,
    block_position: tuple[str, int] | None,
) -> CellRecord:
    """Run one cell and return its record.

    Args:
        stage: the server.
        spec: the cell.
        session: the session it plays.
        environment: where and by what it is run.
        block_position: id of its timing block and its position in it; None for a recall cell,
            which may run beside others: nothing is observed that they could disturb.

    Raises:
        BlockwiseError: the cell failed; nothing of it is kept.
    """
    is_alone = block_position is not None
    agent = Agent(
        stage.engine,
        stage.renderer,
        _agent_rule(spec),
        spec.compaction_rule(),
        cache_salt=uuid.uuid4().hex if is_alone and stage.honours_cache_salt else None,
        kv_block_tokens=stage.card.kv_block_tokens if stage.card.prefix_stable else None,
        finds_cut_history=stage.card.cut_history_cached,
    )
    before = await stage.engine.metrics() if is_alone else None
    cpu_begin_s = time.process_time()
    agent.begin()
    try:
        await load_protocol(spec.protocol)(agent, session, spec)
        agent.end()
    finally:
        await agent.drain()
    client_cpu_s = time.process_time() - cpu_begin_s
    after = await stage.engine.metrics() if is_alone else None
    num_preemptions = after.num_preemptions - before.num_preemptions if before and after else None
    playback = agent.playback
    reasons = invalid_reasons(spec, playback, stage, num_preemptions) if is_alone else []
    return CellRecord(
        cell_key=spec.key,
        spec=spec,
        timing_block_id=block_position[0] if block_position else None,
        position_in_block=block_position[1] if block_position else None,
        engine_card_id=stage.card.id,
        timing_valid=is_alone and not reasons,
        timing_invalid_reasons=tuple(reasons),
        wall_s=playback.wall_s,
        waited_s=playback.waited_s,
        client_cpu_s=client_cpu_s if is_alone else None,
        num_turns=playback.num_turns,
        num_preemptions=num_preemptions,
        requests=tuple(playback.requests),
        compactions=tuple(playback.compactions),
        answers=tuple(playback.answers),
        environment=environment,
    )


def invalid_reasons(
    spec: CellSpec, playback: Playback, stage: Stage, num_preemptions: int | None
) -> list[str]:
    """Why the times of a playback may not be used; empty if they may.

    On a shared engine preemptions and evictions are what is measured, and no reason.
    """
    reasons = _unobservable(playback, stage, num_preemptions)
    if spec.protocol is not Protocol.SHARED:
        reasons += _disturbed(playback, stage, num_preemptions)
    retried = [record for record in playback.requests if record.num_retries]
    if playback.num_failed_ahead:
        reasons.append(
            f"failed ahead: {playback.num_failed_ahead} workers, sent again when they were due"
        )
    if retried:
        why = "; ".join(retried[0].retry_reasons)
        reasons.append(f"retried: {len(retried)} requests ({why})")
    if not stage.honours_cache_salt:
        reasons.append("cache not isolated: the engine takes no cache salt")
    return reasons


def _unobservable(playback: Playback, stage: Stage, num_preemptions: int | None) -> list[str]:
    reasons = []
    if num_preemptions is None:
        reasons.append("preemptions not observable: the engine shows no /metrics")
    if any(request.cached_tokens is None for request in playback.requests):
        reasons.append("evictions not observable: the engine reports no cached tokens")
    elif not stage.card.prefix_stable:
        reasons.append(f"evictions not observable: {stage.card.prefix_break}")
    return reasons


def _disturbed(playback: Playback, stage: Stage, num_preemptions: int | None) -> list[str]:
    reasons = []
    if num_preemptions:
        reasons.append(f"preempted: {num_preemptions} times")
    if playback.cache_broken_turns:
        turns = ", ".join(str(turn) for turn in playback.cache_broken_turns)
        reasons.append(f"evicted: the cached history was lost before turn {turns}")
    capacity = stage.card.kv_cache_tokens
    needed = _kv_tokens_needed(playback)
    if capacity is not None and needed > capacity:
        reasons.append(f"KV cache too small: {needed} tokens needed, {capacity} available")
    return reasons


def _kv_tokens_needed(playback: Playback) -> int:
    """Most KV tokens alive at once: the history, the workers' private tokens, their output.

    The agent's own answer counts where it answers while workers run.
    """
    unused = [request for request in playback.requests if request.role == "unused"]
    is_ahead = unused or any(record.num_ahead_workers for record in playback.compactions)
    answers = [one.completion_tokens for one in playback.requests if one.role == "agent"]
    alive = [
        record.history_before_tokens
        + record.prompt_tokens
        - (record.cached_tokens or 0)
        + record.output_tokens
        for record in playback.compactions
    ]
    if unused:  # they ran beside the last turns of the agent
        last = max(request.prompt_tokens for request in playback.requests)
        private = sum(request.prompt_tokens - (request.cached_tokens or 0) for request in unused)
        alive.append(last + private + sum(request.completion_tokens for request in unused))
    return max(alive, default=0) + (max(answers, default=0) if is_ahead else 0)


def _agent_rule(spec: CellSpec) -> AgentRule:
    return AgentRule(
        dataset_format=spec.dataset_format,
        tau_tokens=spec.tau_tokens,
        answer_tokens=spec.answer_tokens,
        forced_answers=spec.transcript == Transcript.FIXED,
        seed=derive_seed(spec.seed, spec.repeat),
        is_eager=spec.is_eager,
        max_background_workers=spec.max_background_workers,
        tool_wait_s=spec.tool_wait_s,
    )
