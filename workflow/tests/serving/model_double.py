"""A whole model server without a model: it answers every request of a job, and goes wrong on order.

The same request gets the same words, the prefix cache is that of a real engine, and two processes
with shared memory hang below it, as EngineCore and Worker do below vLLM's API server. What goes
wrong is ordered by files: `faults/0017-half` in its working directory makes its 17th answer, or
the first after that, behave as `StubServer._half`; the file then moves to `faults/struck`.
"""

import asyncio
import hashlib
import json
import subprocess
import sys
import uuid
from pathlib import Path

from blockwise.models.renderer import Renderer
from serving import process_tree
from serving.stub_server import DONE, StubServer

FAULTS = "faults"
STRUCK = "struck"
TREE = "tree"
STRANGER = "stranger"  # it lists a model that nobody started
KV_BLOCK_TOKENS = 128
ANSWER_S = 0.02  # of every answer, so that a job lasts long enough to be disturbed
MAX_NATURAL_TOKENS = 24
METRICS = f"""\
vllm:num_preemptions_total{{engine="0"}} 0.0
vllm:prefix_cache_queries_total{{engine="0"}} 0.0
vllm:prefix_cache_hits_total{{engine="0"}} 0.0
vllm:cache_config_info{{block_size="{KV_BLOCK_TOKENS}",engine="0",num_gpu_blocks="1000"}} 1.0
"""


class ModelDouble(StubServer):
    """Serves some names of one model."""

    def __init__(self, names: list[str], renderer: Renderer) -> None:
        super().__init__(["answer"], lambda body: len(self._prompt(body)))
        self.model = names[0]
        self._names, self._renderer = names, renderer
        self._num_answers = 0
        self._cached: set[str] = set()

    def page(self, path: str) -> str | None:
        if path == "/v1/models":
            names = ["somebody-elses"] if self._struck(STRANGER) else self._names
            return json.dumps({"data": [{"id": name} for name in names]})
        pages = {"/health": "", "/version": json.dumps({"version": "double"}), "/metrics": METRICS}
        return pages.get(path)

    def behaviour(self, number: int, body: dict) -> str:
        if body["path"] == "/tokenize":
            return "tokenize"
        self._num_answers += 1
        ordered = sorted(Path(FAULTS).glob("*-*"))
        due = [file for file in ordered if int(file.name[:4]) <= self._num_answers]
        for file in due:
            name = file.name[5:]
            if name != STRANGER and self._take(file):
                return name
        return "answer"

    def _struck(self, name: str) -> bool:
        return any(self._take(file) for file in sorted(Path(FAULTS).glob(f"*-{name}"))[:1])

    def _take(self, file: Path) -> bool:
        """Whether this order was ours to carry out; another double may have been faster."""
        done = file.parent / STRUCK
        done.mkdir(exist_ok=True)
        try:
            file.rename(done / f"{file.name}-{uuid.uuid4().hex}")
        except FileNotFoundError:
            return False
        return True

    def _prompt(self, body: dict) -> list[int]:
        return self._renderer.render(body["messages"], True)

    def _cached_tokens(self, salt: str, prompt: list[int]) -> int:
        chain, hit = hashlib.sha256(salt.encode()), 0
        for end in range(KV_BLOCK_TOKENS, len(prompt) + 1, KV_BLOCK_TOKENS):
            chain.update(repr(prompt[end - KV_BLOCK_TOKENS : end]).encode())
            known = chain.hexdigest()
            if hit == end - KV_BLOCK_TOKENS and known in self._cached:
                hit = end
            self._cached.add(known)
        return min(hit, (len(prompt) - 1) // KV_BLOCK_TOKENS * KV_BLOCK_TOKENS)

    async def _tokenize(self, writer, body) -> None:
        self._status(writer, 200, {"tokens": self._prompt(body)})

    async def _answer(self, writer, body) -> None:
        prompt = self._prompt(body)
        seal = hashlib.sha256(repr((prompt, body.get("seed"))).encode()).digest()
        least, most = body.get("min_tokens", 0), body["max_tokens"]
        num_tokens = min(most, max(least, 4 + seal[0] % MAX_NATURAL_TOKENS))
        words = [f"w{seal[index % 32]}" for index in range(num_tokens)]
        cached = {"cached_tokens": self._cached_tokens(body.get("cache_salt", ""), prompt)}
        times = {
            "queue_time_ms": 0.1,
            "time_to_first_token_ms": 1.0,
            "generation_time_ms": 0.1 * num_tokens,
        }
        usage = self._usage(
            body, num_tokens, len(prompt), metrics=times, prompt_tokens_details=cached
        )
        await asyncio.sleep(ANSWER_S)
        finish = "length" if num_tokens == most else "stop"
        self._stream(writer, self._chunk(body, " ".join(words), finish), usage, DONE)

    async def _wrong_count(self, writer, body) -> None:
        forced = body.get("min_tokens") == body["max_tokens"]
        counted = body["max_tokens"] + (-1 if forced else 1)
        usage = self._usage(body, completion_tokens=counted)
        self._stream(writer, self._chunk(body, "a", "length"), usage, DONE)


def play(names: list[str], model: str, port: int) -> None:
    """Serve until a signal comes, above a tree as vLLM's."""

    async def serve() -> None:
        async with ModelDouble(names, Renderer(model)).running(port):
            await asyncio.Event().wait()

    reports = Path(FAULTS) / TREE
    reports.mkdir(parents=True, exist_ok=True)
    below = [sys.executable, process_tree.__file__, str(reports), "1", "obedient"]
    subprocess.Popen(below, start_new_session=True)
    asyncio.run(serve())
