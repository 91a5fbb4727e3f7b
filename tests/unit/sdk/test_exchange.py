"""Bytes both ways: all of them, in order, however slowly either end deals with them; and nobody ever stops listening."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hakuriver.errors import UsageError
from hakuriver.exchange import WINDOW, Exchange, GoneError, credit_of, order_of


class End:
    """One end of a WebSocket in memory."""

    def __init__(self, mine: asyncio.Queue[dict[str, Any]], theirs: asyncio.Queue[dict[str, Any]]) -> None:
        self._mine, self._theirs = mine, theirs
        self.on_the_way = 0

    async def receive(self) -> dict[str, Any]:
        return await self._mine.get()

    async def receive_text(self) -> str:
        return str((await self.receive())["text"])

    async def send_bytes(self, data: bytes) -> None:
        self.on_the_way = max(
            self.on_the_way, len(data) + sum(len(m.get("bytes", b"")) for m in _in(self._theirs))
        )
        self._theirs.put_nowait({"type": "websocket.receive", "bytes": data})

    async def send_text(self, data: str) -> None:
        self._theirs.put_nowait({"type": "websocket.receive", "text": data})

    def leave(self) -> None:
        self._theirs.put_nowait({"type": "websocket.disconnect"})


def _in(queue: asyncio.Queue[dict[str, Any]]) -> list[dict[str, Any]]:
    return list(queue._queue)  # type: ignore[attr-defined]


def ends() -> tuple[End, End]:
    there, back = asyncio.Queue[dict[str, Any]](), asyncio.Queue[dict[str, Any]]()
    return End(there, back), End(back, there)


class Program:
    """What is at an end: it writes `pieces`, and takes a turn of the loop or more for each piece that it reads."""

    def __init__(self, pieces: list[bytes], turns: int = 0) -> None:
        self.got = bytearray()
        self.ended = False
        self.orders: list[dict[str, Any]] = []
        self._pieces, self._turns = pieces, turns

    async def output(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            await asyncio.sleep(0)
            yield piece

    async def write(self, data: bytes) -> None:
        for _ in range(self._turns):
            await asyncio.sleep(0)
        self.got += data

    def write_eof(self) -> None:
        self.ended = True

    async def take(self, order: dict[str, Any]) -> None:
        self.orders.append(order)

    async def run(self, end: End, *, both: bool = True, patient: bool = False) -> None:
        exchange = Exchange(end)
        await exchange.run(self.output(), self.write, self.write_eof, self.take, both=both, patient=patient)


class Stuck(Program):
    """It reads nothing."""

    async def write(self, data: bytes) -> None:
        del data
        await asyncio.Event().wait()


_PIECES = st.lists(st.integers(1, 300_000).map(bytes), max_size=25)


@given(_PIECES, _PIECES, st.integers(0, 5), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_all_of_it_comes_both_ways(
    left: list[bytes], right: list[bytes], left_turns: int, right_turns: int
) -> None:
    async def play() -> None:
        one, other = ends()
        first, second = Program(left, left_turns), Program(right, right_turns)
        async with asyncio.timeout(60):
            await asyncio.gather(first.run(one), second.run(other))
        assert (bytes(second.got), bytes(first.got)) == (b"".join(left), b"".join(right))
        assert first.ended
        assert second.ended

    asyncio.run(play())


async def test_two_that_write_before_they_read_do_not_wait_for_each_other() -> None:
    one, other = ends()
    first, second = Program([bytes(1 << 16)] * 100, 3), Program([bytes(1 << 16)] * 100, 3)
    async with asyncio.timeout(60):
        await asyncio.gather(first.run(one), second.run(other))
    assert len(first.got) == len(second.got) == 100 << 16


async def settled() -> None:
    """Until those who wait for nothing but each other have come to their ends: all is in memory, and nothing waits for time."""
    for _ in range(1000):
        await asyncio.sleep(0)


async def test_no_more_is_on_its_way_than_the_window() -> None:
    one, other = ends()
    sender, reader = Program([bytes(1 << 16)] * 100), Stuck([])
    running = asyncio.gather(sender.run(one), reader.run(other))
    await settled()
    assert one.on_the_way <= WINDOW + (1 << 16)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_nor_by_who_says_that_it_reads() -> None:
    one, other = ends()
    sender = asyncio.create_task(Program([bytes(1 << 16)] * 100).run(one))
    await other.send_text(json.dumps({"type": "more", "bytes": 10**15}))
    await settled()
    assert one.on_the_way
    assert one.on_the_way <= WINDOW + (1 << 16)
    sender.cancel()
    await asyncio.gather(sender, return_exceptions=True)


@pytest.mark.parametrize("size", [1, WINDOW, 10**15])
def test_what_a_credit_is(size: int) -> None:
    assert credit_of(json.dumps({"type": "more", "bytes": size})) == size


@pytest.mark.parametrize(
    "text",
    [None, "x", '{"type": "eof", "bytes": 3}', '{"type": "more"}']
    + [f'{{"type": "more", "bytes": {each}}}' for each in ("-3", "true", "1.5", '"9"', "null")],
)
def test_what_is_none(text: str | None) -> None:
    assert credit_of(text) == 0


@pytest.mark.parametrize("said_all", [False, True])
async def test_who_goes_away_is_missed_although_nothing_is_read(said_all: bool) -> None:
    one, other = ends()
    for _ in range(3):
        await one.send_bytes(bytes(1000))
    if said_all:
        await one.send_text('{"type": "eof"}')
    one.leave()
    program = Stuck([])
    with pytest.raises(GoneError):
        async with asyncio.timeout(5):
            await program.run(other)


async def test_orders_come_through_although_nothing_is_read() -> None:
    one, other = ends()
    await one.send_bytes(bytes(1000))
    await one.send_text('{"type": "resize", "rows": 3}')
    one.leave()
    program = Stuck([])
    with pytest.raises(GoneError):
        await program.run(other)
    assert program.orders == [{"type": "resize", "rows": 3}]


async def test_what_came_last_is_delivered_by_who_is_patient() -> None:
    one, other = ends()
    await one.send_bytes(b"the last words")
    await one.send_text('{"type": "eof"}')
    one.leave()
    program = Program([], turns=50)
    await program.run(other, patient=True)
    assert (program.got, program.ended) == (b"the last words", True)


async def test_the_end_of_the_output_is_the_end_of_a_terminal() -> None:
    one, other = ends()
    await one.send_bytes(bytes(10))
    async with asyncio.timeout(5):
        await Stuck([b"done"]).run(other, both=False)
    assert await one.receive() == {"type": "websocket.receive", "bytes": b"done"}


async def test_who_sends_more_than_allowed_is_refused() -> None:
    one, other = ends()
    for _ in range(3):
        await one.send_bytes(bytes(WINDOW))
    with pytest.raises(UsageError, match="more was sent"):
        await Stuck([]).run(other)


@pytest.mark.parametrize("text", [None, "", "x", "[]", "3", '"more"'])
def test_what_is_no_order(text: str | None) -> None:
    assert order_of(text) == {}


async def test_strange_credit_changes_nothing() -> None:
    one, other = ends()
    for value in ("9", None, 1.5):
        await one.send_text(json.dumps({"type": "more", "bytes": value}))
    one.leave()
    with pytest.raises(GoneError):
        await Stuck([]).run(other)
