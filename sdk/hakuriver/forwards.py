"""One TCP connection over a WebSocket, as `hakuriver.exchange` carries bytes; both ends of it run the same."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from typing import Any

from hakuriver.closing import error_said
from hakuriver.errors import ConflictError
from hakuriver.exchange import Exchange, Talker

_PIECE = 1 << 18
_AT_ONCE = struct.pack("ii", 1, 0)
_BROKEN = (OSError, RuntimeError)
"""What writing to a connection that is broken raises, with asyncio's own loop and with uvloop."""


async def carry(
    talker: Talker, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, patient: bool = False
) -> None:
    """Carries the connection until both ways have ended, then closes it; a broken one is broken off at once.

    `patient` as in `Exchange.run`: for the end that has to deliver what came last.

    Raises:
        GoneError: the other end of the WebSocket went away before.
        ConflictError: the connection was broken off.
        HakuRiverError: the other end says that something is wrong.
    """

    async def output() -> AsyncIterator[bytes]:
        with _told():
            while data := await reader.read(_PIECE):
                yield data

    async def write(data: bytes) -> None:
        with _told():
            writer.write(data)
            await writer.drain()

    def write_eof() -> None:
        with _told():
            writer.write_eof()

    async def take(order: dict[str, Any]) -> None:
        if error := error_said(order):
            raise error

    try:
        await Exchange(talker).run(output(), write, write_eof, take, both=True, patient=patient)
    except BaseException:
        # As a reset: what is not delivered yet is not lingered over, and the other end learns that it was not all.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        writer.transport.abort()
        raise
    writer.close()


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except _BROKEN:
        raise ConflictError("the connection was broken off", "see whether the program still runs") from None
