"""What the compactor itself costs on an agent's long conversation: `make bench-compaction`.

An engine that answers at once leaves the client's own work: reading, counting, cutting, building
requests and records. Each round uses a renderer that has read nothing yet, as a command does.
"""

import asyncio
import json
import time
from collections.abc import Callable, Sequence

from blockwise.bench.client import InstantEngine
from blockwise.bench.rounds import Figure, figure
from blockwise.compaction.compactor import CompactionRule
from blockwise.compaction.conversation import read_history
from blockwise.compaction.known_messages import KnownMessages
from blockwise.compaction.messages import Policy, compact_messages
from blockwise.compaction.messages_record import Outcome
from blockwise.config.arms import SEQUENTIAL
from blockwise.config.choices import Boundary, SummaryFault, VolumeMode
from blockwise.models.renderer import Message, Renderer

FEW, MANY = 1000, 10_000  # messages
STEP_MESSAGES = 5000  # of the agent that asks at every step whether it exceeds tau
NUM_BLOCKS = 100
OURS = "suffix_target"


def plain_chat(num_messages: int) -> list[Message]:
    """A user and an assistant in turn."""
    turns = [
        {"role": role, "content": f"{role} says in message {number} what has to be done. " * 4}
        for number in range(num_messages // 2)
        for role in ("user", "assistant")
    ]
    return [{"role": "system", "content": "You are a careful engineer."}, *turns]


def tool_chat(num_messages: int) -> list[Message]:
    """An agent with four tool rounds an exchange."""
    messages: list[Message] = [{"role": "system", "content": "You are a careful engineer."}]
    while len(messages) < num_messages:
        number = len(messages)
        messages.append({"role": "user", "content": f"Please look at step {number} of it."})
        for place in range(4):
            arguments = json.dumps({"path": f"src/{number}/{place}.py"})
            function = {"name": "read_file", "arguments": arguments}
            call = {"id": f"call-{number}-{place}", "type": "function", "function": function}
            messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
            text = f"line {number} {place} of the file. " * 6
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": text})
        messages.append({"role": "assistant", "content": f"Step {number} is done."})
    return messages


def compaction_cpu_s(
    make_renderer: Callable[[], Renderer], messages: Sequence[Message], layout: str
) -> float:
    """CPU seconds of one compaction whose workers answer at once."""
    renderer = make_renderer()
    engine = InstantEngine(renderer)
    size = None
    if layout != SEQUENTIAL:
        total = make_renderer().count(read_history(messages).messages(), False)
        size = total // NUM_BLOCKS
    rule = CompactionRule(
        layout=layout,
        block_size_tokens=size,
        boundary=Boundary.TURN,
        prompt="Summarise.",
        volume_mode=VolumeMode.NATURAL,
        volume_tokens=512,
        last_turns=0,
        accept=frozenset({SummaryFault.LENGTH}),
    )
    begin_s = time.process_time()
    done = asyncio.run(compact_messages(engine, renderer, messages, rule, policy=Policy()))
    assert done.status is Outcome.COMPACTED, done.reason
    return time.process_time() - begin_s


def step_s(renderer: Renderer, num_steps: int) -> list[float]:
    """Seconds of steps below tau, each of which appended one exchange."""
    known = KnownMessages(renderer)
    messages = plain_chat(STEP_MESSAGES)
    known.learn(messages)
    times = []
    for exchange in range(num_steps + 1):
        messages += plain_chat(2)[1:]
        begin_s = time.perf_counter()
        assert known.count(messages) is not None, exchange
        times.append(time.perf_counter() - begin_s)
    return times[1:]


def long_chat_figures(make_renderer: Callable[[], Renderer], num_rounds: int) -> list[Figure]:
    """Ratios of CPU time, each formed inside a round; and the seconds of a step."""
    rounds = [_one_round(make_renderer) for _ in range(num_rounds)]
    many = f"{MANY:,} messages"
    goals = {
        f"CPU of {many}, {OURS} over {SEQUENTIAL}": 2.0,
        f"CPU of {many} over {FEW:,}, {OURS}": 1.5 * MANY / FEW,
        f"CPU of {many} over {FEW:,}, {OURS}, with tool rounds": 1.5 * MANY / FEW,
    }
    figures = [
        figure(name, "x", [one[place] for one in rounds], goal=goal, at_least=False)
        for place, (name, goal) in enumerate(goals.items())
    ]
    step = f"a step below tau at {STEP_MESSAGES:,} messages"
    times = step_s(make_renderer(), num_rounds)
    return [*figures, figure(step, "s", times, goal=0.005, at_least=False)]


def _one_round(make_renderer: Callable[[], Renderer]) -> tuple[float, float, float]:
    plain = plain_chat(MANY)
    sequential_s = compaction_cpu_s(make_renderer, plain, SEQUENTIAL)
    ours_s = compaction_cpu_s(make_renderer, plain, OURS)
    few_s = compaction_cpu_s(make_renderer, plain_chat(FEW), OURS)
    tools_s, few_tools_s = (
        compaction_cpu_s(make_renderer, tool_chat(number), OURS) for number in (MANY, FEW)
    )
    return ours_s / sequential_s, ours_s / few_s, tools_s / few_tools_s
