"""Pieces of work whose time and memory are measured, each in a process of its own.

    python -m load.work NAME ARGUMENT...        prints one line of JSON

Memory is the peak of the process itself (VmHWM): that of `getrusage` also counts its parent's.
"""

import asyncio
import json
import re
import subprocess
import sys
import time
from pathlib import Path

TESTS_FOLDER = Path(__file__).parents[1]
PROJECT_FOLDER = TESTS_FOLDER.parents[1]
PROMPTS = PROJECT_FOLDER / "config" / "prompts"
TOKENIZER = PROJECT_FOLDER / "workflow" / "pocket" / "pocket-4m" / "model"
WINDOW_TOKENS = 16384
ANSWER_TOKENS = 16
NUM_DOCUMENTS = 6


def measured(name: str, *arguments: object, timeout_s: float = 600) -> dict:
    """Do a piece of work in a new process: what it says of itself, seconds and peak memory."""
    done = subprocess.run(
        [sys.executable, "-m", "load.work", name, *map(str, arguments)],
        cwd=TESTS_FOLDER,
        check=False,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def peak_mb() -> float:
    """Most memory that this process has held."""
    status = Path("/proc/self/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found
    return int(found[1]) / 1024


def fill(num_seeds: str, folder: str) -> dict:
    """Make a run up: its store, and the batch that its job writes."""
    from load.made_up_run import fill_store, make_plan, write_batch  # noqa: PLC0415

    plan = make_plan(int(num_seeds), PROMPTS)
    num_cells = fill_store(plan, Path(folder, "cells"))
    write_batch(plan, Path(folder, "cells"), Path(folder, "batch.json"))
    return {"num_cells": num_cells}


def finished_job(num_seeds: str, folder: str) -> dict:
    """Plan a batch and find that nothing of it is missing, as a rerun does."""
    from blockwise.artifacts import write_model  # noqa: PLC0415
    from blockwise.compaction.store import CellStore  # noqa: PLC0415
    from load.made_up_run import make_job, make_plan, make_sessions  # noqa: PLC0415

    begin_s = time.perf_counter()
    plan = make_plan(int(num_seeds), PROMPTS)
    planned_s = time.perf_counter() - begin_s
    job = make_job(plan, CellStore(Path(folder, "cells"), print))
    job.play_missing(None, Path(folder, "server.log"))  # type: ignore[arg-type]  # plays nothing
    write_model(Path(folder, "batch.json"), job.batch(make_sessions(), "made up"))
    return {"planned_s": planned_s, "num_cells": sum(len(unit.cells) for unit in plan.units)}


def tables(folder: str) -> dict:
    """Every table of the compaction study."""
    from blockwise.tables.write import CompactionSources, write_tables  # noqa: PLC0415

    imported_mb = peak_mb()
    sources = CompactionSources([Path(folder, "batch.json")], Path(folder, "cells"))
    write_tables(sources, Path(folder, "tables"))
    with Path(folder, "tables", "compaction_requests.csv").open() as file:
        return {"imported_mb": imported_mb, "num_requests": sum(1 for _ in file) - 1}


def sessions(url: str, num_sessions: str) -> dict:
    """Play sessions side by side through one client, a fixed number of tokens a turn."""
    from blockwise.compaction.agent import Agent, AgentRule  # noqa: PLC0415
    from blockwise.compaction.cell_spec import CellSpec  # noqa: PLC0415
    from blockwise.compaction.protocols import immediate  # noqa: PLC0415
    from blockwise.data.documents import Document, Session  # noqa: PLC0415
    from blockwise.models.renderer import Renderer  # noqa: PLC0415
    from blockwise.serving.client import EngineClient  # noqa: PLC0415
    from blockwise.serving.running_server import Server  # noqa: PLC0415

    renderer = Renderer(str(TOKENIZER))
    text = " ".join(["the harbour of tarvos is old ."] * 40)
    documents = tuple(
        Document(id=f"d{n}", cluster="c", text=text, questions=()) for n in range(NUM_DOCUMENTS)
    )
    session = Session(id="s", documents=documents, num_tokens=1)
    rule = AgentRule("hotpotqa", None, ANSWER_TOKENS, forced_answers=True, seed=0)
    spec = CellSpec.model_construct(transcript="fixed")
    imported_mb, cpu_s = peak_mb(), time.process_time()

    async def play_one(engine: EngineClient) -> list[int]:
        agent = Agent(engine, renderer, rule, None, cache_salt=None, kv_block_tokens=None)
        await immediate.play(agent, session, spec)
        return [request.completion_tokens for request in agent.playback.requests]

    async def play_all() -> list[list[int]]:
        server = Server(url, "m", "id", 0.0, None, "unused")
        async with EngineClient(server, _backbone(url), renderer) as engine:
            return await asyncio.gather(*(play_one(engine) for _ in range(int(num_sessions))))

    played = asyncio.run(play_all())
    assert all(tokens == [ANSWER_TOKENS] * NUM_DOCUMENTS for tokens in played)
    return {
        "imported_mb": imported_mb,
        "num_requests": sum(map(len, played)),
        "client_cpu_s": time.process_time() - cpu_s,
    }


def _backbone(url: str):
    from blockwise.config.backbones import Backbone  # noqa: PLC0415

    return Backbone.model_validate(
        {
            "model": {"source": "path", "path": str(TOKENIZER)},
            "architecture": "dense",
            "reasoning": False,
            "num_parameters": 1,
            "context_window_tokens": WINDOW_TOKENS,
            "engine": {"kind": "external", "url": url, "served_model": "m", "version": "double"},
            "request": {"form": "completion", "timeout_s": 120},
        }
    )


WORK = {"fill": fill, "finished_job": finished_job, "tables": tables, "sessions": sessions}

if __name__ == "__main__":
    begin_s = time.perf_counter()
    said = WORK[sys.argv[1]](*sys.argv[2:])
    took = {"wall_s": time.perf_counter() - begin_s, "cpu_s": time.process_time()}
    print(json.dumps({**said, **took, "peak_mb": peak_mb()}))
