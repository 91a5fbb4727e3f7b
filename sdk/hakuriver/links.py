"""What an SSH connection runs over, where asyncio's transports would cost more than its encryption.

asyncssh hands its transport one packet at a time, with one of a few bytes before each (RFC 4251, 9.3.1), and asyncio's
loop makes a system call of each; of what came it copies all that is left whenever it takes a packet from it. A link goes
between: out go all packets of one round of the loop together, and in go pieces of about a packet.

It is what asyncssh takes for a tunnel to listen over, through which one connection comes: so a base class is enough, and
the client, which has no SSH of its own, need not install it.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

from hakuriver.gathering import Gathering

_HELD = 1 << 20
"""Bytes that wait to be sent before those who write are held up."""
_PACKET = (1 << 15) + 512
"""Of data, as OpenSSH makes the largest, and what is around it."""


class Link(ABC):
    """One connection's. To asyncssh it is an `asyncio.Transport`, and says itself as its extra info `link`."""

    def __init__(self) -> None:
        self._connection: Any = None
        self._drained = asyncio.Event()
        self._drained.set()

    async def serve(self, listen: Callable[..., Awaitable[Any]], **options: Any) -> Any:
        """A server's connection over this; `listen` is asyncssh's, and the options are its too."""
        await listen(tunnel=self, **options)
        return self._connection

    async def create_server(self, make: Callable[[str, int], Any], host: str, port: int) -> Link:
        """The way in which asyncssh asks a tunnel for connections."""
        self._connection = make(host, port)
        return self

    async def drained(self) -> None:
        """Until little waits to be sent, or the link is gone."""
        await self._drained.wait()

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Sends it soon."""

    @abstractmethod
    def abort(self) -> None:
        """Ends it, once what is written is sent as far as it can be at once."""

    @abstractmethod
    def get_extra_info(self, name: str, default: Any = None) -> Any: ...

    def feed(self, data: bytes) -> None:
        """Gives asyncssh what came."""
        for start in range(0, len(data), _PACKET):
            self._connection.data_received(data[start : start + _PACKET])


class SocketLink(Link, asyncio.Protocol):
    """Over a transport of asyncio's, whose protocol it is."""

    def __init__(self) -> None:
        super().__init__()
        self._below: asyncio.Transport | None = None
        self._unsent = list[bytes]()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._below = cast("asyncio.Transport", transport)  # uvloop's is none by its class.
        self._below.set_write_buffer_limits(_HELD)
        self._connection.connection_made(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._below = None
        self._drained.set()
        self._connection.connection_lost(error)

    def data_received(self, data: bytes) -> None:
        self.feed(data)

    def eof_received(self) -> None:
        self._connection.eof_received()

    def pause_writing(self) -> None:
        self._drained.clear()

    def resume_writing(self) -> None:
        self._drained.set()

    def write(self, data: bytes) -> None:
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self._send)
        self._unsent.append(data)

    def abort(self) -> None:
        self._send()
        if self._below is not None:
            self._below.abort()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "link":
            return self
        return default if self._below is None else self._below.get_extra_info(name, default)

    def _send(self) -> None:
        unsent, self._unsent = self._unsent, []
        if self._below is not None and unsent:
            self._below.writelines(unsent)


class MessageLink(Link):
    """Over whatever sends `outgoing`, and feeds what comes."""

    def __init__(self) -> None:
        super().__init__()
        self._unsent = Gathering()
        self._size = 0
        self._ended = False

    async def serve(self, listen: Callable[..., Awaitable[Any]], **options: Any) -> Any:
        connection = await super().serve(listen, **options)
        connection.connection_made(self)
        return connection

    async def outgoing(self) -> AsyncIterator[bytes]:
        """What is to be sent, until the connection has ended."""
        async for data in self._unsent:
            yield data
            self._size -= len(data)
            if self._size <= _HELD // 2:
                self._drained.set()

    def feed_eof(self) -> None:
        """Nothing more comes."""
        self._connection.eof_received()

    def write(self, data: bytes) -> None:
        if self._ended:
            return
        self._unsent.add(data)
        self._size += len(data)
        if self._size > _HELD:
            self._drained.clear()

    def abort(self) -> None:
        self._ended = True
        self._unsent.end()
        self._drained.set()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self if name == "link" else default
