"""Bytes both ways over a WebSocket, so that neither end ever stops reading.

Each end may send as long as it has credit: `WINDOW` bytes at first, then as many more as the other end says it has
dealt with (`{"type": "more", "bytes": N}`). A message may be as long as it is once any credit is left. So a program that
reads slowly holds up its sender and nothing else: orders, pings and the other end's going away are seen at once. An end
that has said all says `{"type": "eof"}`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from hakuriver.errors import UsageError

WINDOW = 1 << 20
EOF = json.dumps({"type": "eof"})
LONGEST = 1 << 20
"""Bytes of one message at most, as the daemons have it."""
WORTH_TELLING = WINDOW // 2
"""Bytes that are dealt with before the other end is told."""


class GoneError(Exception):
    """The other end went away."""


class Talker(Protocol):
    """This end of a WebSocket, with messages as ASGI has them."""

    async def receive(self) -> MutableMapping[str, Any]: ...

    async def receive_text(self) -> str: ...

    async def send_bytes(self, data: bytes) -> None: ...

    async def send_text(self, data: str) -> None: ...


class Owed:
    """What has been dealt with, and is not told yet."""

    def __init__(self) -> None:
        self._bytes = 0

    def add(self, size: int) -> str | None:
        """The message that tells it, once it is worth one."""
        self._bytes += size
        if self._bytes < WORTH_TELLING:
            return None
        told, self._bytes = self._bytes, 0
        return json.dumps({"type": "more", "bytes": told})


class Exchange:
    """One exchange. Without `windowed`, for clients that know of no credit, nothing limits what is sent."""

    def __init__(self, talker: Talker, *, windowed: bool = True) -> None:
        self._talker = talker
        self._windowed = windowed
        self._credit = WINDOW
        self._more = asyncio.Event()
        self._waiting: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._held = 0
        self._said_all = False

    async def run(
        self,
        output: AsyncIterator[bytes],
        write: Callable[[bytes], Awaitable[None]],
        write_eof: Callable[[], None],
        take: Callable[[dict[str, Any]], Awaitable[None]],
        *,
        both: bool,
        patient: bool = False,
    ) -> None:
        """Sends `output`, and writes what comes, until the output ends; with `both`, until both ways have ended.

        Orders that are not the exchange's own go to `take`. `patient` writes what has come also when the other end
        has said all and gone away.

        Raises:
            GoneError: the other end went away before.
            UsageError: it sent more than it was allowed to.
        """
        sending = asyncio.create_task(self._send(output, tell=both))
        writing = asyncio.create_task(self._write(write, write_eof))
        listening = asyncio.create_task(self._listen(take))
        pending = {sending, writing, listening}
        try:
            while not (sending.done() and (writing.done() or not both)):
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
                if listening in done:
                    if not (patient and self._said_all):
                        raise GoneError
                    await writing
                    return
        finally:
            for task in (sending, writing, listening):
                task.cancel()
            await asyncio.gather(sending, writing, listening, return_exceptions=True)

    async def _send(self, output: AsyncIterator[bytes], *, tell: bool) -> None:
        async for data in output:
            while self._credit <= 0 and self._windowed:
                self._more.clear()
                await self._more.wait()
            self._credit -= len(data)
            await self._talker.send_bytes(data)
        if tell:
            await self._talker.send_text(EOF)

    async def _write(self, write: Callable[[bytes], Awaitable[None]], write_eof: Callable[[], None]) -> None:
        owed = Owed()
        while (data := await self._waiting.get()) is not None:
            await write(data)
            self._held -= len(data)
            if self._windowed and (message := owed.add(len(data))):
                await self._talker.send_text(message)
        write_eof()

    async def _listen(self, take: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
        """Until the other end goes away."""
        while (message := await self._talker.receive())["type"] != "websocket.disconnect":
            data = message.get("bytes")
            if data is not None:
                self._keep(data)
                continue
            text = message.get("text")
            order = order_of(text)
            if order.get("type") == "more":
                # Whatever is said to be dealt with: never is more on its way than the window.
                self._credit = min(WINDOW, self._credit + credit_of(text))
                self._more.set()
            elif order.get("type") == "eof":
                self._keep(None)
            else:
                await take(order)

    def _keep(self, data: bytes | None) -> None:
        if self._said_all:
            return
        self._said_all = data is None
        self._held += len(data or b"")
        if self._windowed and self._held > WINDOW + LONGEST:
            raise UsageError("more was sent than was asked for", "wait for `more` before sending on")
        self._waiting.put_nowait(data)


def credit_of(text: str | None) -> int:
    """How many bytes a text message says are dealt with; none, when it says nothing of it, or what cannot be."""
    order = order_of(text)
    size = order.get("bytes") if order.get("type") == "more" else 0
    return size if type(size) is int and size > 0 else 0


def order_of(text: str | None) -> dict[str, Any]:
    """What a text message says; nothing, when it is not an object."""
    try:
        order = json.loads(text or "")
    except ValueError:
        return {}
    return order if isinstance(order, dict) else {}
