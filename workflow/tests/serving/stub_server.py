"""A tiny OpenAI-compatible server whose answers go wrong in chosen ways.

`behaviours` is used up request by request, its last entry for all further ones. Each entry is the
name of a method. `pages` are what a GET of their path gets.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable

DONE = b"data: [DONE]\n\n"


def event(value: object) -> bytes:
    return f"data: {json.dumps(value)}\n\n".encode()


class StubServer:
    """One server; `requests` keeps the bodies that were received."""

    def __init__(self, behaviours: list[str], prompt_tokens: int | Callable[[dict], int]) -> None:
        self.requests: list[dict] = []
        self.pages: dict[str, str] = {}
        self.key = ""  # that the last request carried
        self.prompt_tokens = prompt_tokens
        self.base_url = ""
        self.model = "m"  # what its answers say that they come from
        self._behaviours = behaviours
        self._release = asyncio.Event()

    @contextlib.asynccontextmanager
    async def running(self, port: int = 0) -> AsyncIterator["StubServer"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", port, backlog=1024)
        port = server.sockets[0].getsockname()[1]
        self.base_url = f"http://127.0.0.1:{port}/v1"
        try:
            yield self
        finally:
            self._release.set()
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sent = (await reader.readuntil(b"\r\n\r\n")).decode()
        head = sent.lower()
        self.key = next(
            (line.split()[-1] for line in sent.splitlines() if line.lower().startswith("auth")), ""
        )
        if head.startswith("get "):
            page = self.page(head.split()[1])
            self._send(writer, 404 if page is None else 200, page or "")
            await writer.drain()
            writer.close()
            return
        length = int(head.split("content-length:")[1].split()[0])
        body = json.loads(await reader.readexactly(length))
        body["path"] = head.split()[1]
        number = len(self.requests)
        self.requests.append(body)
        name = self.behaviour(number, body)
        with contextlib.suppress(ConnectionError):
            await getattr(self, f"_{name}")(writer, body)
            await writer.drain()
        writer.close()

    def page(self, path: str) -> str | None:
        return self.pages.get(path)

    def behaviour(self, number: int, body: dict) -> str:
        return self._behaviours[min(number, len(self._behaviours) - 1)]

    def _status(self, writer, code: int, body: object, **headers: str) -> None:
        self._send(writer, code, json.dumps(body), **headers)

    def _send(self, writer, code: int, page: str, **headers: str) -> None:
        text = page.encode()
        writer.write(f"HTTP/1.1 {code} X\r\nContent-Type: application/json\r\n".encode())
        for name, value in headers.items():
            writer.write(f"{name.replace('_', '-')}: {value}\r\n".encode())
        writer.write(f"Content-Length: {len(text)}\r\nConnection: close\r\n\r\n".encode() + text)

    def _stream(self, writer, *parts: bytes) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n")
        writer.write(b"Connection: close\r\n\r\n" + b"".join(parts))

    def _chunk(self, body, text="", finish=None, **delta) -> bytes:
        choice = {"index": 0, "finish_reason": finish}
        if "prompt" in body:
            choice["text"] = text
        else:
            choice["delta"] = {"content": text, **delta}
        return event(self._head(choices=[choice]))

    def _head(self, **values) -> dict:
        return {"id": "1", "object": "x", "created": 0, "model": self.model, **values}

    def _usage(
        self, body, completion_tokens=None, prompt_tokens=None, metrics=None, **details
    ) -> bytes:
        prompt = self._prompt_tokens(body) if prompt_tokens is None else prompt_tokens
        completion = body["max_tokens"] if completion_tokens is None else completion_tokens
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            **details,
        }
        return event(self._head(choices=[], usage=usage, metrics=metrics))

    def _prompt_tokens(self, body) -> int:
        return self.prompt_tokens(body) if callable(self.prompt_tokens) else self.prompt_tokens

    async def _good(self, writer, body) -> None:
        cached = {"prompt_tokens_details": {"cached_tokens": 3}}
        parts = [self._chunk(body, "a {b}"), self._chunk(body, " c", "length")]
        self._stream(writer, *parts, self._usage(body, **cached), DONE)

    async def _timed(self, writer, body) -> None:
        times = {"queue_time_ms": 250.0, "time_to_first_token_ms": 500.0}
        usage = self._usage(body, metrics=times)
        self._stream(writer, self._chunk(body, "a", "length"), usage, DONE)

    async def _thinking(self, writer, body) -> None:
        parts = [
            self._chunk(body, reasoning="let me "),
            self._chunk(body, reasoning_content="see"),
            self._chunk(body, "42", "stop"),
        ]
        self._stream(writer, *parts, self._usage(body), DONE)

    async def _counted_thinking(self, writer, body) -> None:
        details = {"completion_tokens_details": {"reasoning_tokens": 7}}
        parts = [self._chunk(body, "42", "stop", reasoning="hm"), self._usage(body, **details)]
        self._stream(writer, *parts, DONE)

    async def _error_500(self, writer, body) -> None:
        self._status(writer, 500, {"error": {"message": "the engine core is dead"}})

    async def _busy(self, writer, body) -> None:
        self._status(writer, 429, {"error": {"message": "eight at once"}}, retry_after="0")

    async def _error_400(self, writer, body) -> None:
        self._status(writer, 400, {"error": {"message": "the template is unhappy"}})

    async def _error_404(self, writer, body) -> None:
        self._status(writer, 404, {"error": {"message": "The model `m` does not exist."}})

    async def _stall(self, writer, body) -> None:
        self._stream(writer, self._chunk(body, "a"))
        await writer.drain()
        await self._release.wait()

    async def _half(self, writer, body) -> None:
        self._stream(writer, self._chunk(body, "half an ans"))

    async def _half_then_done(self, writer, body) -> None:
        self._stream(writer, self._chunk(body, "half an ans"), self._usage(body), DONE)

    async def _truncated_json(self, writer, body) -> None:
        self._stream(writer, self._chunk(body, "a"), b'data: {"id": "1", "choi\n\n')

    async def _error_event(self, writer, body) -> None:
        error = event({"error": {"message": "EngineCore died", "type": "x", "code": 500}})
        self._stream(writer, self._chunk(body, "a"), error, DONE)

    async def _no_usage(self, writer, body) -> None:
        self._stream(writer, self._chunk(body, "a", "stop"), DONE)

    async def _short(self, writer, body) -> None:
        usage = self._usage(body, completion_tokens=body["max_tokens"] - 1)
        self._stream(writer, self._chunk(body, "a", "length"), usage, DONE)

    async def _other_prompt(self, writer, body) -> None:
        usage = self._usage(body, prompt_tokens=self._prompt_tokens(body) + 5)
        self._stream(writer, self._chunk(body, "a", "stop"), usage, DONE)

    async def _other_model(self, writer, body) -> None:
        own, self.model = self.model, "somebody-elses"
        self._stream(writer, self._chunk(body, "a", "length"), self._usage(body), DONE)
        self.model = own

    async def _echo_500(self, writer, body) -> None:
        self._status(writer, 500, {"error": {"message": f"cannot serve Bearer {self.key}"}})

    async def _echo_401(self, writer, body) -> None:
        self._status(writer, 401, {"error": {"message": f"Bearer {self.key} is refused"}})

    async def _echo_at_the_cut(self, writer, body) -> None:
        self._status(writer, 401, {"error": {"message": "x" * 460 + self.key}})

    async def _echo_event(self, writer, body) -> None:
        error = event({"error": {"message": f"bad key {self.key}", "type": "x", "code": 500}})
        self._stream(writer, self._chunk(body, "a"), error, DONE)

    async def _echo_no_json(self, writer, body) -> None:
        self._stream(writer, self._chunk(body, "a"), f"data: {{{self.key}\n\n".encode(), DONE)

    async def _echo_answer(self, writer, body) -> None:
        halves = self.key[:5], self.key[5:]
        parts = [self._chunk(body, halves[0]), self._chunk(body, halves[1], "stop")]
        self._stream(writer, *parts, self._usage(body), DONE)

    async def _hang_up(self, writer, body) -> None:
        writer.transport.abort()
