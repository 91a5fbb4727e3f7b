"""Bytes that are gathered: in order, in large pieces, and none later than it must."""

from __future__ import annotations

import asyncio
import os

from hakuriver.gathering import Gathering


async def test_what_has_come_goes_on_together() -> None:
    gathering = Gathering()
    for piece in (b"a", b"b", b"c"):
        gathering.add(piece)
    assert await anext(aiter(gathering)) == b"abc"


async def test_pieces_grow_to_a_limit_and_keep_their_order() -> None:
    gathering = Gathering()
    pieces = [os.urandom(size) for size in (32_768,) * 20 + (1, 500_000, 7)]
    for piece in pieces:
        gathering.add(piece)
    gathering.end()
    taken = [data async for data in gathering]
    assert b"".join(taken) == b"".join(pieces)
    assert [len(data) for data in taken] == [7 * 32_768, 7 * 32_768, 6 * 32_768 + 1, 500_000, 7]


async def test_who_waits_gets_what_comes_and_then_the_end() -> None:
    gathering = Gathering()
    taking = asyncio.create_task(_all(gathering))
    await asyncio.sleep(0)
    gathering.add(b"first")
    await asyncio.sleep(0)
    gathering.add(b"second")
    await asyncio.sleep(0)
    gathering.end()
    gathering.add(b"too late")
    assert await taking == [b"first", b"second"]


async def _all(gathering: Gathering) -> list[bytes]:
    return [data async for data in gathering]
