"""A server that summarises by script: it lists one model and counts with a renderer."""

import asyncio
import contextlib
import threading

from serving.stub_server import DONE, StubServer


class Summariser(StubServer):
    """Lists its model, counts prompts with the renderer it is given, and summarises."""

    def __init__(self, behaviours, renderer, entry):
        super().__init__(behaviours, prompt_tokens=0)
        self.listed = [{"id": "m", **entry}]
        self._renderer = renderer

    async def _serve(self, reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"GET /v1/models "):
            self._status(writer, 200, {"data": self.listed})
            await writer.drain()
            writer.close()
            return
        whole = asyncio.StreamReader()
        whole.feed_data(head)
        length = int(head.decode().lower().split("content-length:")[1].split()[0])
        whole.feed_data(await reader.readexactly(length))
        await super()._serve(whole, writer)

    async def _summary(self, writer, body):
        renderer = self._renderer.with_tools(body["tools"]) if "tools" in body else self._renderer
        tokens = renderer.count(body["messages"], add_generation_prompt=True)
        done = body.get("min_tokens", 5)
        usage = self._usage(body, completion_tokens=done, prompt_tokens=tokens)
        chunk = self._chunk(body, f"summary {len(self.requests)}", "stop")
        self._stream(writer, chunk, usage, DONE)


@contextlib.contextmanager
def serving(renderer, behaviours=("summary",), **entry):
    """A stub in a thread of its own, because the command runs its own event loop."""
    stub = Summariser(list(behaviours), renderer, {"max_model_len": 8192, **entry})
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    running = stub.running()
    asyncio.run_coroutine_threadsafe(running.__aenter__(), loop).result()
    try:
        yield stub
    finally:
        asyncio.run_coroutine_threadsafe(running.__aexit__(None, None, None), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
