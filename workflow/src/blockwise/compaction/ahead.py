"""Answers ahead of their compaction: what workers wrote, or still write, before it is due.

A history block that is closed stays as it is while the conversation grows (`partition`), and a
layout that shows nothing behind it asks for its summary in the same words, whenever it is asked. So
a worker can be sent as soon as its block is closed; at tau its answer is there, and the compaction
takes it because its request is the same. In the same way what was finished of a compaction that
failed is not paid again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from blockwise.compaction.acceptance import Answer
from blockwise.errors import BlockwiseError
from blockwise.serving.client import ChatRequest

Ask = Callable[[int, ChatRequest], Awaitable[Answer]]
"""Sends the request of a worker, by its number."""


@dataclass
class _Running:
    request: ChatRequest
    task: asyncio.Task[Answer]


@dataclass
class AnswersAhead:
    """Answers by their whole request; equality is cheap where the texts are the same objects."""

    max_running: int | None = None  # workers that are sent ahead at once; None: any number
    on_unused: Callable[[ChatRequest, Answer], None] | None = None  # told of each nobody took
    wasted_tokens: int = 0  # decoded by answers that nobody took
    num_failed: int = 0  # workers that failed ahead of their compaction
    _finished: list[tuple[ChatRequest, Answer]] = field(default_factory=list)
    _running: list[_Running] = field(default_factory=list)
    _failed: list[ChatRequest] = field(default_factory=list)  # sent again when they are due

    @property
    def num_running(self) -> int:
        """Workers that were sent ahead and have not answered."""
        return sum(not one.task.done() for one in self._running)

    def send(self, requests: Sequence[ChatRequest], ask: Ask) -> int:
        """Send what was not sent before, as far as the limit goes; how many were."""
        self._collect()
        known = [request for request, _ in self._finished]
        known += [*self._failed, *(one.request for one in self._running)]
        new = [pair for pair in enumerate(requests) if pair[1] not in known]
        if self.max_running is not None:
            new = new[: max(0, self.max_running - self.num_running)]
        for number, request in new:
            task = asyncio.ensure_future(ask(number, request))
            self._running.append(_Running(request, task))
        return len(new)

    def keep(self, request: ChatRequest, answer: Answer) -> None:
        """Keep an answer until its compaction succeeds."""
        self._finished.append((request, answer))

    def settle(self, requests: Sequence[ChatRequest]) -> None:
        """Drop what is for none of these requests: the conversation has become another one."""
        self._collect()
        for request, answer in self._finished:
            if request not in requests:
                self.wasted_tokens += _decoded(answer)
                if self.on_unused is not None:
                    self.on_unused(request, answer)
        self._finished = [pair for pair in self._finished if pair[0] in requests]
        self._failed = [request for request in self._failed if request in requests]
        for one in self._running:
            if one.request not in requests:
                one.task.cancel()
        self._running = [one for one in self._running if one.request in requests]

    async def take(self, request: ChatRequest) -> Answer | None:
        """The answer to a request, waited for if it is under way; None: it has to be sent."""
        for one in list(self._running):
            if one.request == request:
                await asyncio.wait([one.task])
        self._collect()
        return next((answer for asked, answer in self._finished if asked == request), None)

    def done(self) -> None:
        """A compaction took what it needed."""
        self._finished.clear()
        self._failed.clear()

    async def wait_for_one(self) -> None:
        """Wait until one of those that run has answered."""
        if self._running:
            tasks = [one.task for one in self._running]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            self._collect()

    async def drain(self) -> None:
        """Wait until nothing runs any more; nothing of it was needed."""
        if self._running:
            await asyncio.wait([one.task for one in self._running])
        self.settle(())

    def _collect(self) -> None:
        """Move what has answered; a worker that failed ahead is sent again when it is due."""
        for one in [one for one in self._running if one.task.done()]:
            self._running.remove(one)
            if one.task.cancelled():
                continue
            error = one.task.exception()
            if error is None:
                self._finished.append((one.request, one.task.result()))
            elif isinstance(error, BlockwiseError):
                self._failed.append(one.request)
                self.num_failed += 1
            else:
                raise error


def _decoded(answer: Answer) -> int:
    refused = sum(one.completion_tokens for one in answer.refused)
    return answer.completion.completion_tokens + refused
