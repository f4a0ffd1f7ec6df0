"""Preflight: one minute that says whether a backbone will run here, and what to change.

    blockwise preflight --backbone smollm2-135m

Checks the machine (memory, disk, shared memory), starts the backbone's server, looks at the
window and at the prefix stability of its chat template, and plays one compaction of each mode.
"""

import asyncio
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import click
import psutil
from rich.console import Console
from rich.table import Table

from blockwise.command_line import config_files, run
from blockwise.compaction.compactor import CompactionRule, Compactor
from blockwise.compaction.history import History, Turn
from blockwise.config.arms import SEQUENTIAL, known_layouts
from blockwise.config.choices import Boundary, VolumeMode
from blockwise.config.load import DEFAULT_FILE, load_profile
from blockwise.config.profile import Profile
from blockwise.errors import BlockwiseError, ConfigError
from blockwise.models.prepare import prepare_model
from blockwise.models.prepared_model import PreparedModel
from blockwise.models.renderer import Renderer
from blockwise.serving.client import EngineClient
from blockwise.serving.engine_card import EngineCard
from blockwise.serving.probe import probe
from blockwise.serving.server import Server, end_with_parent, managed_server, raise_on_sigterm

GIB = 2**30
MIN_MEMORY_GIB = 6.0  # a vLLM server on the CPU with a 2 GiB KV cache takes about 4
MIN_DISK_GIB = 2.0  # records, models and logs of the default profile stay far below
MIN_SHARED_MEMORY_GIB = 0.5  # vLLM's processes share about 0.42 GiB there
NUM_TURNS = 8
HISTORY_TOKENS = 2048  # of the made-up history; half of a smaller window
BLOCK_SIZE_TOKENS = 512
VOLUME_TOKENS = 64


@dataclass(frozen=True)
class Check:
    """One line of the report."""

    name: str
    found: str
    passed: bool
    remedy: str = ""


def machine_checks(folder: Path) -> list[Check]:
    """Memory, disk and shared memory against what the default profile needs."""
    memory = psutil.virtual_memory().available / GIB
    disk = shutil.disk_usage(folder).free / GIB
    checks = [
        Check("free memory", f"{memory:.1f} GiB", memory >= MIN_MEMORY_GIB,
              f"free {MIN_MEMORY_GIB:.0f} GiB, or lower VLLM_CPU_KVCACHE_SPACE"),
        Check("free disk", f"{disk:.1f} GiB", disk >= MIN_DISK_GIB,
              f"free {MIN_DISK_GIB:.0f} GiB where the project lies"),
    ]  # fmt: skip
    shared_memory = Path("/dev/shm")  # noqa: S108  the kernel's name, nothing is written
    if shared_memory.is_dir():
        free = shutil.disk_usage(shared_memory).free / GIB
        remedy = f"enlarge /dev/shm to {MIN_SHARED_MEMORY_GIB} GiB (containers: --shm-size 1g)"
        checks.append(
            Check(str(shared_memory), f"{free:.1f} GiB", free >= MIN_SHARED_MEMORY_GIB, remedy)
        )
    return checks


def engine_checks(card: EngineCard) -> list[Check]:
    """What the probe found, as checks."""
    return [
        Check("server start", f"{card.engine}, {card.startup_s:.0f} s", True),
        Check("window", f"{card.context_window_tokens} tokens", True),
        Check("KV cache", f"{card.kv_cache_tokens} tokens",
              card.kv_cache_tokens is None or card.kv_cache_tokens >= card.context_window_tokens,
              "enlarge the KV cache: it must hold at least one window"),
        Check("prefix caching", str(card.prefix_caching), card.prefix_caching,
              "switch prefix caching on; without it no cached-token count means anything"),
        Check("template prefix stability", card.prefix_break or "stable", card.prefix_stable,
              "pin dates in request.chat_template_arguments, or use a template that only appends"),
        Check("decode speed", f"{card.decode_1_tokens_per_s:.0f} tokens/s alone, "
              f"{card.decode_8_tokens_per_s:.0f} for eight", True),
    ]  # fmt: skip


def made_up_history(renderer: Renderer, num_tokens: int) -> History:
    """Turns of about so many tokens of this backbone, in whose language a word may be many."""
    tokens_a_word = renderer.count_text("word " * 100) / 100
    text = "word " * round(num_tokens / NUM_TURNS / tokens_a_word)
    turns = (
        Turn("user" if index % 2 == 0 else "assistant", f"turn {index}: {text}")
        for index in range(NUM_TURNS)
    )
    return History.with_system_prompt("You are brief.").extended(*turns)


async def compaction_check(
    engine: EngineClient, renderer: Renderer, layout: str, window_tokens: int
) -> Check:
    """One forced compaction of a made-up history."""
    history = made_up_history(renderer, min(HISTORY_TOKENS, window_tokens // 2))
    rule = CompactionRule(
        layout=layout,
        block_size_tokens=None if layout == SEQUENTIAL else BLOCK_SIZE_TOKENS,
        boundary=Boundary.TURN,
        prompt="Summarise.",
        volume_mode=VolumeMode.FORCED,
        volume_tokens=VOLUME_TOKENS,
        last_turns=0,
    )
    try:
        done = await Compactor(engine, renderer, rule).compact(history, cache_salt=None, seed=0)
    except BlockwiseError as error:
        return Check(f"compaction, {layout}", str(error), False, "see the server log")
    found = f"{len(done.workers)} worker(s), {done.wall_s:.2f} s"
    return Check(f"compaction, {layout}", found, True)


def serve_checks(
    profile: Profile, backbone_name: str, model: PreparedModel, log: Path, console: Console
) -> list[Check]:
    """Start the server, probe it, compact once in each mode."""
    backbone = profile.backbones[backbone_name]
    renderer = Renderer(model.tokenizer_path, backbone.request.chat_template_arguments)

    async def ask(server: Server) -> list[Check]:
        async with EngineClient(server, backbone, renderer) as engine:
            card = await probe(engine, server, backbone_name, backbone, model)
            compactions = [
                await compaction_check(engine, renderer, layout, card.context_window_tokens)
                for layout in [SEQUENTIAL, *known_layouts()]
            ]
            return [*engine_checks(card), *compactions]

    with managed_server(backbone_name, backbone, model, log, console.print) as server:
        return asyncio.run(ask(server))


def print_report(checks: list[Check], console: Console) -> None:
    """A line a check, with the remedy where one failed."""
    table = Table("check", "found", "", "what to change")
    for check in checks:
        remedy = "" if check.passed else check.remedy
        table.add_row(check.name, check.found, "ok" if check.passed else "FAILED", remedy)
    console.print(table)


@click.command("preflight")
@config_files
@click.option("--backbone", help="Its name.  [default: the first of the profile]")
def command(config: tuple[Path, ...], backbone: str | None) -> None:
    """Say in a minute whether a backbone will run here, and what to change.

    CONFIG are configuration files in order; none means config/config.yaml.
    """
    raise_on_sigterm()
    end_with_parent()
    profile = load_profile(config or [DEFAULT_FILE])
    name = backbone or next(iter(profile.backbones))
    if name not in profile.backbones:
        raise ConfigError(f"no backbone {name!r}; choose of {', '.join(profile.backbones)}")
    console = Console()
    log = Path(f"logs/preflight/{name}.log")
    checks = machine_checks(Path.cwd())
    try:
        with tempfile.TemporaryDirectory() as scratch:
            model = prepare_model(name, profile.backbones[name], Path(scratch) / name)
            checks += serve_checks(profile, name, model, log, console)
    except BlockwiseError as error:
        checks.append(Check("server", str(error), False, f"read {log}"))
    print_report(checks, console)
    failed = [check.name for check in checks if not check.passed]
    if failed:
        raise ConfigError(f"{name} will not run well here: {', '.join(failed)}")


if __name__ == "__main__":
    run(command)
