"""A compaction without a stall, against the others: `make bench-eager`.

    python -m blockwise.bench.eager [--backbone NAME]

One server plays an agent's session of documents in rounds, its arms interleaved in random order:
sequential, parallel, and eager, whose workers are sent as soon as their history block is closed
(blockwise.compaction.ahead), each worker with the same budget and sequential with their sum. Eager
and parallel stand once with the open history block summarised and once with it kept. After each
answer the agent waits as for a tool, in some arms. Ratios are formed inside a round.
"""

import argparse
import asyncio
import random
import statistics
import tempfile
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from blockwise.bench.client import PROMPT
from blockwise.bench.rounds import FEWEST_ROUNDS, Figure, figure, publish
from blockwise.compaction.ahead import AnswersAhead
from blockwise.compaction.compactor import CompactionRule, Compactor
from blockwise.compaction.history import History, Turn
from blockwise.config.arms import SEQUENTIAL
from blockwise.config.backbones import Backbone
from blockwise.config.choices import Boundary, OpenBlock, VolumeMode
from blockwise.config.load import DEFAULT_FILE, load_profile
from blockwise.errors import BlockwiseError, ConfigError, run_command
from blockwise.models.prepare import prepare_model
from blockwise.models.renderer import Renderer
from blockwise.serving.client import ChatRequest, EngineClient
from blockwise.serving.running_server import Server
from blockwise.serving.server import end_with_parent, managed_server, raise_on_sigterm

TAU_TOKENS = 3072
BLOCK_SIZE_TOKENS = 768
WORKER_TOKENS = 48
ANSWER_TOKENS = 16
NUM_DOCUMENTS = 8  # the seventh or so exceeds tau
DOCUMENT_WORDS = 360
LAYOUT = "suffix_target"
WORDS = [
    "town",
    "river",
    "bridge",
    "market",
    "year",
    "council",
    "mill",
    "road",
    "church",
    "school",
    "harbour",
    "field",
    "winter",
]


@dataclass(frozen=True)
class Arm:
    """How a session compacts, and how long its tools take."""

    name: str
    is_eager: bool = False
    is_sequential: bool = False
    open_block: OpenBlock = OpenBlock.COMPACT
    waits: bool = False  # as long as one worker decodes


ARMS = (
    Arm("sequential", is_sequential=True),
    Arm("parallel, open block summarised"),
    Arm("parallel, open block kept", open_block=OpenBlock.KEEP),
    Arm("eager, open block summarised", is_eager=True),
    Arm("eager, open block kept", is_eager=True, open_block=OpenBlock.KEEP),
    Arm("eager, open block kept, tools wait", True, open_block=OpenBlock.KEEP, waits=True),
)


@dataclass
class Played:
    """What a session took."""

    wall_s: float = 0.0  # waits for tools apart
    stalls_s: list[float] = field(default_factory=list)
    ttfts_s: list[float] = field(default_factory=list)
    decodes_s: list[float] = field(default_factory=list)  # of the agent's answers
    num_workers: int = 0
    summaries: list[str] = field(default_factory=list)  # of the first compaction, in order
    wasted_tokens: int = 0


def documents(seed: int) -> list[str]:
    """Texts of one length, each its own."""
    rng = random.Random(seed)
    return [
        f"Document {number}. {' '.join(rng.choices(WORDS, k=DOCUMENT_WORDS))}."
        for number in range(NUM_DOCUMENTS)
    ]


def rule_of(arm: Arm) -> CompactionRule:
    """The arm's rule; sequential writes what the workers of the others would."""
    return CompactionRule(
        layout=SEQUENTIAL if arm.is_sequential else LAYOUT,
        block_size_tokens=None if arm.is_sequential else BLOCK_SIZE_TOKENS,
        boundary=Boundary.TURN,
        prompt=PROMPT,
        volume_mode=VolumeMode.FORCED,
        volume_tokens=WORKER_TOKENS,
        volume_block_size_tokens=BLOCK_SIZE_TOKENS,
        last_turns=0,
        open_block=arm.open_block,
    )


async def play(
    engine: EngineClient, renderer: Renderer, arm: Arm, texts: Sequence[str], wait_s: float
) -> Played:
    """One session of one arm, in a cache of its own."""
    salt = uuid.uuid4().hex
    played = Played()
    ahead = AnswersAhead()
    compactor = Compactor(engine, renderer, rule_of(arm))
    history = History.with_system_prompt("You are brief.")
    waited_s = 0.0
    begin_s = time.perf_counter()
    for text in texts:
        incoming = Turn("user", text)
        messages = history.extended(incoming).messages()
        needed = renderer.count(messages, add_generation_prompt=True) + ANSWER_TOKENS
        if needed > TAU_TOKENS:
            start_s = time.perf_counter()
            done = await compactor.compact(history, cache_salt=salt, seed=0, ahead=ahead)
            history = done.history
            played.stalls_s.append(time.perf_counter() - start_s)
            played.num_workers += len(done.workers)
            played.summaries = played.summaries or [worker.text for worker in done.workers]
            messages = history.extended(incoming).messages()
        answer = await engine.complete(
            ChatRequest(messages, ANSWER_TOKENS, ANSWER_TOKENS, cache_salt=salt)
        )
        played.ttfts_s.append(answer.ttft_s)
        played.decodes_s.append(answer.wall_s - answer.ttft_s)
        history = history.extended(incoming, Turn("assistant", answer.text))
        if arm.is_eager:
            compactor.send_ahead(history, cache_salt=salt, seed=0, ahead=ahead)
        if arm.waits:
            await asyncio.sleep(wait_s)
            waited_s += wait_s
    played.wall_s = time.perf_counter() - begin_s - waited_s
    await ahead.drain()
    played.wasted_tokens = ahead.wasted_tokens
    return played


async def play_rounds(
    server: Server, backbone: Backbone, renderer: Renderer, num_rounds: int
) -> list[dict[str, Played]]:
    """Every arm in every round, in an order drawn for it, after a session that warms up."""
    rng = random.Random(0)
    rounds = []
    async with EngineClient(server, backbone, renderer) as engine:
        alone = ChatRequest([{"role": "user", "content": "x"}], WORKER_TOKENS, WORKER_TOKENS)
        wait_s = (await engine.complete(alone)).wall_s
        await play(engine, renderer, ARMS[1], documents(num_rounds), wait_s)
        for number in range(num_rounds):
            texts = documents(number)
            played = {}
            for arm in rng.sample(ARMS, len(ARMS)):
                played[arm.name] = await play(engine, renderer, arm, texts, wait_s)
                print(f"round {number}: {arm.name}: {played[arm.name]}", flush=True)
            rounds.append(played)
    return rounds


def figures_of(rounds: Sequence[dict[str, Played]]) -> list[Figure]:
    """Ratios to sequential's stall and parallel's wall, and what the agent pays."""
    sequential, parallel = ARMS[0].name, ARMS[1].name

    def ratios(arm: Arm, value: str, to: str, goal: float) -> Figure:
        words = f"{WORDS_OF[value]}, {arm.name} over {to.partition(',')[0]}"
        values = [_value(one[arm.name], value) / _value(one[to], value) for one in rounds]
        return figure(words, "x", values, goal=goal, at_least=False)

    figures = [ratios(arm, "stall", sequential, 0.05) for arm in ARMS[1:]]
    figures += [ratios(arm, "wall", parallel, 1.05) for arm in ARMS[2:]]
    figures += [ratios(arm, "ttft", parallel, 1.5) for arm in ARMS[3:]]
    figures += [ratios(arm, "decode", parallel, 1.5) for arm in ARMS[3:]]
    for eager, alike in ((ARMS[3], ARMS[1]), (ARMS[4], ARMS[2])):
        words = f"first summaries unlike parallel's, {eager.name}"
        values = [_unlike_frac(one[eager.name], one[alike.name]) for one in rounds]
        figures.append(figure(words, "", values, goal=1.0, at_least=False))
    wasted = [float(one[ARMS[3].name].wasted_tokens) for one in rounds]
    return [*figures, figure("wasted tokens a session", "", wasted, goal=200.0, at_least=False)]


WORDS_OF = {
    "stall": "stall",
    "wall": "session wall, tool waits apart",
    "ttft": "the agent's own time to first token",
    "decode": "the agent's own decoding",
}


def _unlike_frac(played: Played, other: Played) -> float:
    """Share of summaries of the same requests that differ: of the first compaction of a session."""
    pairs = list(zip(played.summaries, other.summaries, strict=True))
    return sum(one != another for one, another in pairs) / len(pairs)


def _value(played: Played, value: str) -> float:
    return {
        "stall": statistics.median(played.stalls_s) if played.stalls_s else 0.0,
        "wall": played.wall_s,
        "ttft": statistics.median(played.ttfts_s),
        "decode": statistics.median(played.decodes_s),
    }[value]


def main() -> None:
    """Command line of the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--configfile", type=Path, nargs="+", default=[DEFAULT_FILE])
    parser.add_argument("--backbone", default="smollm2-135m", help="one of the profile")
    parser.add_argument("--rounds", type=int, default=FEWEST_ROUNDS)
    parser.add_argument("--output", type=Path, default=Path("results/bench/eager.json"))
    arguments = parser.parse_args()
    raise_on_sigterm()
    end_with_parent()
    if arguments.rounds < 1:
        raise BlockwiseError(f"--rounds {arguments.rounds}: give at least 1")
    name = arguments.backbone
    backbones = load_profile(arguments.configfile).backbones
    if name not in backbones:
        raise ConfigError(f"no backbone {name!r}; choose of {', '.join(backbones)}")
    backbone = backbones[name]
    with tempfile.TemporaryDirectory() as scratch:
        model = prepare_model(name, backbone, Path(scratch) / name)
        renderer = Renderer(model.tokenizer_path, backbone.request.chat_template_arguments)
        log_path = Path(f"logs/bench/{name}-eager.log")
        log_path.parent.mkdir(parents=True, exist_ok=True)
        with managed_server(name, backbone, model, log_path, print) as server:
            rounds = asyncio.run(play_rounds(server, backbone, renderer, arguments.rounds))
    publish(arguments.output, "eager", name, figures_of(rounds))


if __name__ == "__main__":
    run_command(main)
