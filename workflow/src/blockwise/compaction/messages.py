"""The compactor on its own: OpenAI messages in, OpenAI messages out.

What stays verbatim comes out as the very messages that went in, unknown fields and images
included; a last message of the user's, which nobody has answered, always stays. What is compacted
becomes one message with the summaries, and only if that makes the history shorter. The prefix
cache carries no salt: the agent whose history this is may have filled it. Reading, counting and
cutting a long history takes its time, so it is done beside the event loop.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import takewhile
from typing import Any

from blockwise.compaction.acceptance import summary_of
from blockwise.compaction.ahead import AnswersAhead
from blockwise.compaction.compactor import (
    Compaction,
    CompactionRule,
    Compactor,
    Plan,
    carried_summary,
    replace_by_summaries,
    turns_to_compact,
)
from blockwise.compaction.conversation import (
    USER_ROLE,
    OnBrokenTools,
    OnMedia,
    Pin,
    check_compactable,
    check_messages,
    copied,
    merged_user_runs,
    pinned_in,
    pins_system_messages,
    plain_messages,
    read_history,
    unread_parts,
)
from blockwise.compaction.history import History
from blockwise.compaction.layouts import shows_nothing_later
from blockwise.compaction.messages_record import MessagesRecord, Outcome, volumes_of
from blockwise.compaction.oversize import plan_of_pieces, why_it_does_not_fit, with_room
from blockwise.compaction.tool_repair import repair_tool_rounds
from blockwise.config.choices import OpenBlock, VolumeMode
from blockwise.errors import CompactionError, WorkersError
from blockwise.models.renderer import Message, Renderer
from blockwise.serving.client import EngineClient


class OnOversize(StrEnum):
    """What becomes of a worker's request that the window does not hold."""

    REFUSE = "refuse"  # and say which layouts would fit
    SPLIT = "split"  # the history is cut between tokens into pieces that fit


@dataclass(frozen=True)
class Policy:
    """How a conversation is compacted, beyond the rule of its history blocks."""

    tau_tokens: int | None = None
    """A history of at most so many tokens is left as it is; None compacts any."""
    keep_tokens: int = 0
    """The last messages that hold at most so many tokens stay, where they are more than the rule's
    last turns."""
    pin: Pin = pins_system_messages
    """Which messages stay as they are, in their order, behind the summaries; workers read them with
    the rest."""
    on_media: OnMedia = OnMedia.PLACEHOLDER
    on_broken_tools: OnBrokenTools = OnBrokenTools.REFUSE
    on_oversize: OnOversize = OnOversize.REFUSE
    seed: int = 0  # workers sample with seeds derived from it


@dataclass(frozen=True)
class CompactedMessages:
    """The new conversation and what it took."""

    messages: list[Message]
    record: MessagesRecord
    snapshot: list[Message] = field(repr=False)  # what was given
    takes_user_runs: bool = field(default=True, repr=False)

    @property
    def status(self) -> Outcome:
        """What the call came to."""
        return self.record.outcome

    @property
    def reason(self) -> str:
        """Why the messages are those that were given; empty where they are not."""
        return self.record.reason

    @property
    def tokens_before(self) -> int:
        """Rendered tokens of what was given."""
        return self.record.history_before_tokens

    @property
    def tokens_after(self) -> int:
        """Rendered tokens of what came out."""
        return self.record.history_after_tokens

    def apply(self, current: Sequence[Any]) -> list[Message]:
        """The compacted conversation with what its owner appended while workers ran.

        Args:
            current: the conversation as it is now.

        Raises:
            CompactionError: what was given is not its beginning any more; `current` is what counts.
        """
        now = plain_messages(current)
        if self.status is not Outcome.COMPACTED:
            return now
        for number, message in enumerate(self.snapshot):
            if number >= len(now) or now[number] != message:
                found = "is gone" if number >= len(now) else "is another one"
                raise CompactionError(
                    f"messages[{number}] {found} since the compaction of {len(self.snapshot)} "
                    "messages began, so its result does not fit; go on with the messages as they "
                    "are, and compact them anew"
                )
        joined = [*self.messages, *now[len(self.snapshot) :]]
        return joined if self.takes_user_runs else merged_user_runs(joined)


async def compact_messages(
    engine: EngineClient,
    renderer: Renderer,
    messages: Sequence[Any],
    rule: CompactionRule,
    *,
    policy: Policy | None = None,
    ahead: AnswersAhead | None = None,
) -> CompactedMessages:
    """Replace everything but the verbatim part of a conversation by summaries of it.

    Args:
        engine: the client of the server that summarises. One that offers the agent's own tools
            (`with_tools`), in its order, finds the agent's prefix in the cache.
        renderer: template and tokenizer of the model that it serves, with the same tools.
        messages: OpenAI chat messages, or objects of the `openai` package; neither the list nor a
            message is changed.
        rule: layout, block size, volume, prompt, verbatim turns.
        policy: everything else; None: the defaults.
        ahead: answers that are there already, or under way; those of this call are kept in it if it
            fails.

    Raises:
        CompactionError: the messages are no conversation, nothing is left to compact, what is
            to be compacted holds unanswered tool calls, or media that are refused, or does not fit
            the window. A worker that fails is a result, `Outcome.FAILED`.
        EngineError: the chat template refuses the conversation.
    """
    begin_s = time.perf_counter()
    policy = policy or Policy()
    given = await asyncio.to_thread(_given, plain_messages(messages), rule, policy, renderer)
    reason = given.reason_to_leave()
    if reason is not None:
        return given.left(reason, begin_s)
    compactor = Compactor(engine, renderer, given.rule)
    plan = await asyncio.to_thread(given.plan, compactor, engine)
    try:
        answers = await compactor.ask(plan.requests, ahead)
    except WorkersError as error:
        return given.failed(str(error), begin_s)

    def finished() -> CompactedMessages:
        return given.finish(plan, compactor.merge(plan, answers, begin_s), begin_s)

    return await asyncio.to_thread(finished)


async def send_ahead(
    engine: EngineClient,
    renderer: Renderer,
    messages: Sequence[Any],
    rule: CompactionRule,
    *,
    policy: Policy,
    ahead: AnswersAhead,
) -> int:
    """Send the workers of history blocks that are closed; how many were sent.

    Arguments as of `compact_messages`, which takes their answers. A conversation that cannot be
    compacted as it stands (a tool's result is still to come) sends none.

    Raises:
        CompactionError: the layout shows what follows a history block.
    """
    if not shows_nothing_later(rule.layout):
        raise CompactionError(
            f"the layout {rule.layout} shows a worker what follows its history block, so nothing "
            "can be asked ahead; use suffix_target, target_block or independent"
        )
    if rule.volume_mode is VolumeMode.FORCED and rule.volume_block_size_tokens is None:
        raise CompactionError(
            f"a volume of {rule.volume_tokens} tokens is split over all workers, and how many "
            "there will be is not known yet; give a cap (max_tokens) instead"
        )
    rule = replace(rule, open_block=OpenBlock.COMPACT)  # what is not closed is not sent
    given = await asyncio.to_thread(_given, plain_messages(messages), rule, policy, renderer)
    compactor = Compactor(engine, renderer, given.rule)
    try:
        plan = await asyncio.to_thread(given.plan, compactor, engine)
    except CompactionError:
        return 0
    return 0 if plan.is_split else ahead.send(plan.closed_requests, compactor.ask_one)


def left_alone(
    messages: list[Message],
    num_tokens: int,
    rule: CompactionRule,
    policy: Policy,
    renderer: Renderer,
    *,
    begin_s: float,
) -> CompactedMessages:
    """The result for a conversation whose tokens are known and do not exceed tau."""
    given = _Given(
        snapshot=messages,
        messages=messages,
        repairs=(),
        history=History(),
        num_tokens=num_tokens,
        turn_range=(0, 0),
        rule=rule,
        policy=policy,
        renderer=renderer,
    )
    return given.left(str(given.reason_to_leave()), begin_s)


def whole_rounds(
    messages: list[Message], on_broken_tools: OnBrokenTools
) -> tuple[list[Message], tuple[str, ...]]:
    """The messages with broken tool rounds repaired, where that is asked for, and what was done.

    Raises:
        CompactionError: they are no messages.
    """
    if on_broken_tools is not OnBrokenTools.REPAIR:
        return messages, ()
    check_messages(messages)
    repaired = repair_tool_rounds(messages)
    return repaired.messages, repaired.repairs


def _given(
    messages: list[Message], rule: CompactionRule, policy: Policy, renderer: Renderer
) -> "_Given":
    """Read what is given; raises as `compact_messages`."""
    snapshot = copied(messages)
    messages, repairs = whole_rounds(messages, policy.on_broken_tools)
    history = read_history(messages)
    waits = int(messages[-1]["role"] == USER_ROLE)
    tail = 0
    if policy.keep_tokens:
        tail = _num_last(renderer.ends(history.messages()), policy.keep_tokens)
    rule = replace(rule, last_turns=max(rule.last_turns, waits, tail))
    return _Given(
        snapshot=snapshot,
        messages=messages,
        repairs=repairs,
        history=history,
        num_tokens=renderer.count(history.messages(), add_generation_prompt=False),
        turn_range=turns_to_compact(history, rule, renderer),
        rule=rule,
        policy=policy,
        renderer=renderer,
    )


def _num_last(ends: Sequence[int], keep_tokens: int) -> int:
    """How many of the last messages hold at most so many tokens."""
    starts = reversed([0, *ends[:-1]])
    return sum(1 for _ in takewhile(lambda start: ends[-1] - start <= keep_tokens, starts))


@dataclass(frozen=True)
class _Given:
    """A conversation that is to be compacted, and how."""

    snapshot: list[Message]  # as it was given
    messages: list[Message]  # its tool rounds whole
    repairs: tuple[str, ...]
    history: History
    num_tokens: int  # rendered, generation prompt excluded
    turn_range: tuple[int, int]  # messages that the summaries replace, but for those pinned
    rule: CompactionRule
    policy: Policy
    renderer: Renderer

    def reason_to_leave(self) -> str | None:
        """Why nothing needs to be sent: it is short enough, or nothing can make it so."""
        tau_tokens = self.policy.tau_tokens
        if tau_tokens is None:
            return None
        if self.num_tokens <= tau_tokens:
            return f"a history of {self.num_tokens} tokens does not exceed tau, {tau_tokens}"
        start, stop = self.turn_range
        if start >= stop and self.rule.open_block is OpenBlock.KEEP:
            return "no history block is closed yet; lower the block size or raise tau"
        if start >= stop:
            return None  # the compactor says so
        carries = self.rule.carries_summaries
        carried = carried_summary(self.history, self.turn_range) if carries else None
        least_tokens = self._tokens_with([carried or ""])
        if self.rule.volume_mode is VolumeMode.FORCED:
            least_tokens += self.rule.volume_tokens
        if least_tokens <= tau_tokens:
            return None
        return (
            f"what stays verbatim and the marks around summaries take {least_tokens} tokens, tau "
            f"is {tau_tokens}; raise tau or keep fewer messages verbatim"
        )

    def plan(self, compactor: Compactor, engine: EngineClient) -> Plan:
        """What will be asked, once all is known to fit and what comes out to render.

        Raises:
            CompactionError: it cannot be compacted so.
            EngineError: the chat template refuses what would come out.
        """
        check_compactable(self.messages, self.turn_range, self.policy.on_media)
        self._tokens_with(["words"])
        plan = compactor.plan(self.history, None, self.policy.seed, turn_range=self.turn_range)
        requests = with_room(plan.requests, engine.window_tokens, self.renderer)
        if requests is not None:
            return replace(plan, requests=tuple(requests))
        if self.policy.on_oversize is OnOversize.SPLIT:
            return plan_of_pieces(plan, self.rule, engine, self.renderer)
        raise CompactionError(
            why_it_does_not_fit(plan, self.rule, engine, self.renderer, self.policy.seed)
        )

    def finish(self, plan: Plan, compaction: Compaction, begin_s: float) -> CompactedMessages:
        """The result of answered workers, of a call that began at that time.

        Raises:
            CompactionError: a worker of forced volume wrote nothing.
        """
        _refuse_blanks(compaction)
        volumes = volumes_of(self.history, compaction, self.renderer)
        compacted = self._replaced(compaction.history)
        after_tokens = self._tokens_of(compacted)
        volumes |= {"is_split": plan.is_split, "stall_s": time.perf_counter() - begin_s}
        if after_tokens < self.num_tokens:
            return self._result(Outcome.COMPACTED, "", compacted, after_tokens, volumes)
        reason = (
            f"summaries would make {after_tokens} tokens of {self.num_tokens}; lower the volume, "
            "ask for less or compact a longer history"
        )
        return self._result(Outcome.CANNOT_SHRINK, reason, self.messages, self.num_tokens, volumes)

    def left(self, reason: str, begin_s: float) -> CompactedMessages:
        """The result where nothing was sent."""
        fits = self.num_tokens <= (self.policy.tau_tokens or 0)
        outcome = Outcome.UNCHANGED if fits else Outcome.CANNOT_SHRINK
        spent = {"stall_s": time.perf_counter() - begin_s}
        return self._result(outcome, reason, self.messages, self.num_tokens, spent)

    def failed(self, reason: str, begin_s: float) -> CompactedMessages:
        """The result where workers failed."""
        spent = {"stall_s": time.perf_counter() - begin_s}
        return self._result(Outcome.FAILED, reason, self.messages, self.num_tokens, spent)

    def _replaced(self, shorter: History) -> list[Message]:
        """The messages with the wrapper of a shorter history, and what is pinned behind it."""
        start, stop = self.turn_range
        pinned = pinned_in(self.messages, self.turn_range, self.policy.pin)
        wrapper = shorter.turns[start].message()
        replaced = [*self.messages[:start], wrapper, *pinned, *self.messages[stop:]]
        return replaced if self.renderer.takes_user_runs else merged_user_runs(replaced)

    def _tokens_of(self, messages: Sequence[Message]) -> int:
        """Rendered tokens of what comes out.

        Raises:
            EngineError: the chat template refuses it.
        """
        shown = read_history(messages).messages()
        return self.renderer.count(shown, add_generation_prompt=False)

    def _tokens_with(self, summaries: Sequence[str]) -> int:
        """The same if these were the summaries."""
        shorter = replace_by_summaries(self.history, self.turn_range, summaries)
        return self._tokens_of(self._replaced(shorter))

    def _result(
        self,
        outcome: Outcome,
        reason: str,
        messages: list[Message],
        num_tokens: int,
        volumes: Mapping[str, Any],
    ) -> CompactedMessages:
        rule, tau_tokens = self.rule, self.policy.tau_tokens
        record = MessagesRecord(
            outcome=outcome,
            reason=reason,
            counted_by=self.renderer.counted_by,
            layout=rule.layout,
            block_size_tokens=rule.block_size_tokens,
            boundary=rule.boundary,
            volume_mode=rule.volume_mode,
            volume_tokens=rule.volume_tokens,
            last_turns=rule.last_turns,
            max_concurrent_workers=rule.max_concurrent_workers,
            tau_tokens=tau_tokens,
            num_messages_before=len(self.messages),
            num_messages_after=len(messages),
            num_unread_parts=_num_unread(messages),
            repairs=self.repairs,
            num_placeholders=_num_unread(self.messages) - _num_unread(messages),
            history_before_tokens=self.num_tokens,
            history_after_tokens=num_tokens,
            exceeds_tau=tau_tokens is not None and num_tokens > tau_tokens,
            **volumes,
        )
        runs = self.renderer.takes_user_runs
        return CompactedMessages(list(messages), record, self.snapshot, runs)


def _num_unread(messages: Sequence[Message]) -> int:
    return sum(len(unread_parts(message)) for message in messages)


def _refuse_blanks(compaction: Compaction) -> None:
    """Refuse a worker of forced volume that wrote nothing: its history block would vanish.

    Raises:
        CompactionError: there is one.
    """
    answered = zip(compaction.workers, compaction.faults, strict=True)
    for number, (worker, fault) in enumerate(answered):
        if fault is None and not summary_of(worker):
            raise CompactionError(
                f"worker {number} of {len(compaction.workers)} wrote no summary "
                f"({worker.completion_tokens} tokens, {worker.thinking_tokens} of them thinking, "
                f"finish reason {worker.finish_reason}); raise the volume or change the prompt"
            )
