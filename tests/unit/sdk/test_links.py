"""Links, with an SSH connection that keeps what it is told in place of asyncssh's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from hakuriver.links import Link, MessageLink, SocketLink


class Connection:
    """As asyncssh's, to its transport."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.came: list[bytes] = []
        self.ended = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.came.append(data)

    def eof_received(self) -> None:
        self.ended += 1

    def connection_lost(self, error: Exception | None) -> None:
        del error
        self.ended += 1


class Below(asyncio.Transport):
    """A transport that sends when it is let."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.1", 1)})
        self.sent: list[list[bytes]] = []
        self.aborted = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        del high, low

    def writelines(self, list_of_data: Any) -> None:
        self.sent.append(list(list_of_data))

    def abort(self) -> None:
        self.aborted = True


async def listen(*, tunnel: Link, **options: Any) -> None:
    """As asyncssh's, that asks its tunnel for connections."""
    made: Callable[[str, int], Any] = lambda *_: options["made"]  # noqa: E731 - as a factory
    await tunnel.create_server(made, "", 0)


async def over_socket() -> tuple[SocketLink, Connection, Below]:
    link, connection, below = SocketLink(), Connection(), Below()
    assert await link.serve(listen, made=connection) is connection
    link.connection_made(below)
    return link, connection, below


async def over_messages() -> tuple[MessageLink, Connection]:
    link, connection = MessageLink(), Connection()
    await link.serve(listen, made=connection)
    return link, connection


async def test_packets_of_one_round_go_out_at_once() -> None:
    _, connection, below = await over_socket()
    connection.transport.write(b"ignored")
    connection.transport.write(b"data")
    assert below.sent == []
    await asyncio.sleep(0)
    assert below.sent == [[b"ignored", b"data"]]


async def test_last_words_go_out_before_the_end() -> None:
    _, connection, below = await over_socket()
    connection.transport.write(b"farewell")
    connection.transport.abort()
    assert (below.sent, below.aborted) == ([[b"farewell"]], True)
    await asyncio.sleep(0)
    assert below.sent == [[b"farewell"]]


async def test_what_comes_goes_in_by_small_pieces() -> None:
    link, connection, _ = await over_socket()
    link.data_received(bytes(256_000))
    assert sum(map(len, connection.came)) == 256_000
    assert max(map(len, connection.came)) < 35_000


async def test_a_socket_that_takes_nothing_holds_up_who_writes_until_it_is_lost() -> None:
    link, connection, _ = await over_socket()
    assert connection.transport.get_extra_info("link") is link
    assert connection.transport.get_extra_info("peername") == ("192.0.2.1", 1)
    link.pause_writing()
    waiting = asyncio.create_task(link.drained())
    await asyncio.sleep(0)
    assert not waiting.done()
    link.connection_lost(None)
    await waiting
    assert connection.ended == 1
    connection.transport.write(b"to nobody")
    await asyncio.sleep(0)


async def test_messages_carry_all_that_is_written_until_the_end() -> None:
    link, connection = await over_messages()
    link.write(b"one")
    link.write(b"two")
    outgoing = link.outgoing()
    assert await anext(outgoing) == b"onetwo"
    link.write(b"three")
    link.abort()
    link.write(b"too late")
    assert [data async for data in outgoing] == [b"three"]
    link.feed_eof()
    assert connection.ended == 1


async def test_messages_that_nobody_takes_hold_up_who_writes() -> None:
    link, _ = await over_messages()
    written = 0
    while written <= 1 << 20:
        link.write(bytes(1 << 16))
        written += 1 << 16
    waiting = asyncio.create_task(link.drained())
    outgoing = link.outgoing()
    taken = len(await anext(outgoing))
    assert not waiting.done()
    while not waiting.done():
        taken += len(await anext(outgoing))
        await asyncio.sleep(0)
    assert written // 2 <= taken < written


async def test_messages_hold_up_nobody_after_the_end() -> None:
    link, _ = await over_messages()
    link.write(bytes(2 << 20))
    link.abort()
    await link.drained()
