"""HTTP/1.1 over raw sockets, for load that must not be the bottleneck: a client, and the parser that a server uses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, Self
from urllib.parse import urlsplit

import httptools

from hakuriver.version import VERSION_HEADER, __version__

_CHUNK = 262_144


class Body:
    """Collects what `httptools` parses: the body of one message at a time, and whether it is whole."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.complete = False
        self.url = b""

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_body(self, data: bytes) -> None:
        self.parts.append(data)

    def on_message_complete(self) -> None:
        self.complete = True

    def take(self) -> bytes:
        """The body so far; the next message starts afresh."""
        data = b"".join(self.parts)
        self.parts, self.complete, self.url = [], False, b""
        return data


class Connection:
    """One keep-alive connection; one request at a time."""

    def __init__(self, url: str, token: str) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._head = (
            f"Host: {parts.netloc}\r\nAuthorization: Bearer {token}\r\n{VERSION_HEADER}: {__version__}\r\n"
        )
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._writer:
            self._writer.close()

    async def open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection(*self._address, limit=_CHUNK)

    async def call(self, method: str, path: str, body: bytes = b"", headers: str = "") -> tuple[int, bytes]:
        """Status and body of the answer. A connection that the server closed while it was idle is opened again."""
        if self._reader is None or self._reader.at_eof():
            await self.open()
        try:
            return await self._exchange(method, path, body, headers)
        except ConnectionResetError:
            await self.open()
            return await self._exchange(method, path, body, headers)

    async def _exchange(self, method: str, path: str, body: bytes, headers: str) -> tuple[int, bytes]:
        self._send(method, path, body, headers)
        assert self._reader is not None
        collected = Body()
        parser = httptools.HttpResponseParser(collected)
        while not collected.complete:
            data = await self._reader.read(_CHUNK)
            if not data:
                raise ConnectionResetError("the connection was closed before the answer was whole")
            parser.feed_data(data)
        return parser.get_status_code(), collected.take()

    async def json(self, method: str, path: str, body: Any = None) -> Any:
        status, answer = await self.call(method, path, b"" if body is None else json.dumps(body).encode())
        if status >= 400:
            raise RuntimeError(f"{method} {path}: {status} {answer[:500]!r}")
        return json.loads(answer)

    async def events(self, path: str) -> AsyncIterator[dict[str, Any]]:
        """The data of the events of a stream; the first item, `{}`, comes once the stream is open."""
        self._send("GET", path, b"", "")
        assert self._reader is not None
        collected = Body()
        parser = httptools.HttpResponseParser(collected)
        pending = b""
        opened = False
        while data := await self._reader.read(_CHUNK):
            parser.feed_data(data)
            if not opened:
                opened = True
                yield {}
            *lines, pending = (pending + collected.take()).split(b"\n")
            for line in lines:
                if line.startswith(b"data:"):
                    yield json.loads(line[5:])

    def _send(self, method: str, path: str, body: bytes, headers: str) -> None:
        assert self._writer is not None
        kind = "Content-Type: application/json\r\n" if body else ""
        head = f"{method} {path} HTTP/1.1\r\n{self._head}{headers}{kind}Content-Length: {len(body)}\r\n\r\n"
        self._writer.write(head.encode("ascii") + body)
