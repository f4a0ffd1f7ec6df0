"""An engine for many sessions at once: the HTTP double in a process of its own.

    python -m load.engine_double       prints its base URL, serves until its input ends

It answers after a moment, so that whoever comes meanwhile waits beside the others, and tells how
many it has held at once.
"""

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator

from serving.stub_server import DONE, StubServer

ANSWER_AFTER_S = 0.2


class BusyServer(StubServer):
    """Counts requests that are open at the same time."""

    def __init__(self) -> None:
        super().__init__(["later"], lambda body: len(body["prompt"]))
        self.num_open = self.most_open = self.num_requests = 0

    def page(self, path: str) -> str | None:
        return json.dumps({"most_open": self.most_open, "num_requests": self.num_requests})

    async def _later(self, writer, body) -> None:
        self.requests.clear()  # the bodies of thousands of requests are not kept
        self.num_requests += 1
        self.num_open += 1
        self.most_open = max(self.most_open, self.num_open)
        await asyncio.sleep(ANSWER_AFTER_S)
        self.num_open -= 1
        self._stream(writer, self._chunk(body, "noted", "length"), self._usage(body), DONE)


@contextlib.contextmanager
def running_double(tests_folder) -> Iterator[str]:
    """Its base URL, while it runs."""
    with subprocess.Popen(
        [sys.executable, "-m", "load.engine_double"],
        cwd=tests_folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()


async def serve() -> None:
    async with BusyServer().running() as server:
        print(server.base_url, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve())
