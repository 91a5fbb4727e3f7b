"""Calls on the share, which may never end.

Reads of the database are short, and use asyncio's own threads. A call on a share that hangs keeps its thread for as
long as the share does; among those threads it would keep everybody from the database, and the process from ending.
So these are daemon threads, one for each call, with a limit on their number and on the time that a caller waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from hakuriver.errors import StorageError
from hakuriver.threads import start_thread

SECONDS = 10.0
AT_ONCE = 8

_Result = TypeVar("_Result")


class ShareCalls:
    """Calls on the share. Those that hang are left to themselves; where all of them hang, the next gets no thread."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._under_way: set[asyncio.Future[object]] = set()

    async def call(self, function: Callable[[], _Result]) -> _Result:
        """What it returns, or raises.

        Raises:
            StorageError: the share does not answer in time.

        """
        give_up = asyncio.get_running_loop().time() + SECONDS
        while len(self._under_way) >= AT_ONCE:
            await self._until(self._under_way, give_up)
        future = start_thread(function)
        self._under_way.add(future)  # type: ignore[arg-type]  # only waited for
        future.add_done_callback(self._ended)
        await self._until({future}, give_up)
        return future.result()

    def _ended(self, future: asyncio.Future[_Result]) -> None:
        self._under_way.discard(future)
        future.exception()  # Of one that nobody waits for any more it would be told as an oversight.

    async def _until(self, one_of: set[asyncio.Future[_Result]], give_up: float) -> None:
        left = give_up - asyncio.get_running_loop().time()
        done, _ = await asyncio.wait(one_of, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            raise StorageError(
                f"the shared directory {self._root} does not answer", "check its mount on the Host"
            )
