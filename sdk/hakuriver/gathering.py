"""Bytes that come in small pieces and go on in large ones, without waiting for more than has come."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

_MOST = 7 << 15
"""Bytes that go on together, where no piece is longer: seven packets of SSH, and less than uvloop reads at once (256 000)."""


class Gathering:
    """From those who add to the one who iterates."""

    def __init__(self) -> None:
        self._waiting = deque[bytes]()
        self._news = asyncio.Event()
        self._ended = False

    def add(self, data: bytes) -> None:
        if not self._ended:
            self._waiting.append(data)
            self._news.set()

    def end(self) -> None:
        """Nothing more is added: who iterates gets what has been, and no more."""
        self._ended = True
        self._news.set()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            await self._news.wait()
            if self._waiting:
                yield self._take()
            elif self._ended:
                return
            else:
                self._news.clear()

    def _take(self) -> bytes:
        taken = [self._waiting.popleft()]
        room = _MOST - len(taken[0])
        while self._waiting and len(self._waiting[0]) <= room:
            taken.append(self._waiting.popleft())
            room -= len(taken[-1])
        return taken[0] if len(taken) == 1 else b"".join(taken)
