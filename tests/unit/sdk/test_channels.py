"""The bytes of a channel: held up by their reader alone, and none lost."""

from __future__ import annotations

import asyncio

import pytest

from hakuriver.channels import ChannelBytes
from hakuriver.exchange import GoneError


class Channel:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.reading = True
        self.written: list[tuple[bytes, int | None]] = []

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def get_extra_info(self, name: str) -> None:
        """There is no connection below it."""

    def write(self, data: bytes, datatype: int | None) -> None:
        self.written.append((data, datatype))


def opened() -> tuple[ChannelBytes, Channel]:
    session, channel = ChannelBytes(), Channel()
    session.connection_made(channel)
    return session, channel


async def test_a_reader_that_is_slow_holds_up_the_peer_until_it_has_read_half() -> None:
    session, channel = opened()
    sent = 0
    while channel.reading:
        session.data_received(b"x" * 65536, None)
        sent += 65536
    incoming = session.incoming()
    read = 0
    while not channel.reading:
        read += len(await anext(incoming))
    assert sent // 2 <= read <= sent
    session.eof_received()
    assert sum([len(data) async for data in incoming]) == sent - read


async def test_a_peer_that_takes_nothing_holds_up_the_writer() -> None:
    session, channel = opened()
    session.pause_writing()
    writing = asyncio.create_task(session.write(b"later", 1))
    await asyncio.sleep(0)
    assert channel.written == []
    session.resume_writing()
    await writing
    assert channel.written == [(b"later", 1)]


async def test_a_channel_that_is_lost_ends_both_ways() -> None:
    session, _ = opened()
    session.pause_writing()
    writing = asyncio.create_task(session.write(b"never"))
    await asyncio.sleep(0)
    session.data_received(b"last", None)
    session.connection_lost(None)
    assert [data async for data in session.incoming()] == [b"last"]
    with pytest.raises(GoneError):
        await writing
