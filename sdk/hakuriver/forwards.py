"""One TCP connection over a WebSocket: bytes both ways as binary messages, and the end of each way by itself.

A side that sends no more says so by the text message `{"type": "eof"}`; the connection is over when both have, or when
either end closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json

from hakuriver.terminals import Talker, order_of

EOF = json.dumps({"type": "eof"})
PIECE = 1 << 16


async def serve_forward(talker: Talker, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carries the connection until it is over, then closes it."""
    inward = asyncio.create_task(_inward(talker, writer))
    outward = asyncio.create_task(_outward(talker, reader))
    try:
        # Who asked may go away at any time; what it asked for ends when it has said all.
        await asyncio.wait({inward, outward}, return_when=asyncio.FIRST_COMPLETED)
        if inward.done() and not inward.result():
            return
        await asyncio.wait({inward, outward})
    finally:
        for task in (inward, outward):
            task.cancel()
        await asyncio.gather(inward, outward, return_exceptions=True)
        writer.close()
        with contextlib.suppress(Exception):
            await writer.wait_closed()


async def _inward(talker: Talker, writer: asyncio.StreamWriter) -> bool:
    """False when the person is gone, or the connection takes no more."""
    with contextlib.suppress(ConnectionError):
        while (message := await talker.receive())["type"] != "websocket.disconnect":
            if message.get("bytes") is not None:
                writer.write(message["bytes"])
                await writer.drain()
            elif order_of(message.get("text")).get("type") == "eof":
                writer.write_eof()
                return True
    return False


async def _outward(talker: Talker, reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(PIECE):
            await talker.send_bytes(data)
        await talker.send_text(EOF)
