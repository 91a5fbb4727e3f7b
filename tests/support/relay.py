"""A TCP relay between Host and Runner whose link can be cut and mended, in both directions at once.

It runs in a thread of its own, so that tests stay plain functions.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any, Literal, Self

_CHUNK = 65536


class Relay:
    """Listens on `address:port` and passes on to `target`.

    `cut("drop")` is a network that swallows packets: connections stay open and nothing comes through, until
    `mend` lets the waiting bytes flow. `cut("reset")` is a machine that refuses.
    """

    def __init__(self, address: str, port: int, target: tuple[str, int]) -> None:
        self.address = address
        self.port = port
        self._target = target
        self._refusing = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"relay-{port}", daemon=True)
        self._open = asyncio.Event()
        self._server: asyncio.Server | None = None

    def start(self) -> Self:
        self._thread.start()
        self._call(self._listen())
        return self

    def cut(self, how: Literal["drop", "reset"] = "drop") -> None:
        self._call(self._cut(how))

    def mend(self) -> None:
        self._call(self._mend())

    def stop(self) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._loop.close()

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=10)

    async def _listen(self) -> None:
        self._open.set()
        self._server = await asyncio.start_server(self._serve, self.address, self.port)

    async def _cut(self, how: str) -> None:
        self._open.clear()
        self._refusing = how == "reset"
        if self._refusing:
            self._abort_all()

    async def _mend(self) -> None:
        self._refusing = False
        self._open.set()

    async def _close(self) -> None:
        assert self._server is not None
        self._server.close()
        self._open.set()
        self._abort_all()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _abort_all(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        if self._refusing:
            writer.transport.abort()
            return
        await self._open.wait()
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers.add(far_writer)
        await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        self._writers -= {writer, far_writer}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                await self._open.wait()
                writer.write(data)
                await writer.drain()
        with contextlib.suppress(OSError):
            writer.close()
