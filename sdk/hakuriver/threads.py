"""Blocking work in threads that never hold up the end of the process.

asyncio's own pool is joined at exit, so that one call on a hanging share would keep a daemon from ending, and a few
would keep all others out of the pool. These are daemon threads, one for each call: for calls that are rare or long.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def start_thread(function: Callable[[], T], name: str = "work") -> asyncio.Future[T]:
    """Calls `function` in a thread of its own, which nobody has to wait for. Needs a running loop."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)  # type: ignore[arg-type]  # there is a result where there is no error
        else:
            future.set_exception(error)

    def work() -> None:
        result, failure = None, None
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 - handed to the caller
            failure = error
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=work, name=name, daemon=True).start()
    return future


async def in_thread(function: Callable[[], T], timeout: float | None = None, name: str = "work") -> T:
    """Calls `function` in a thread.

    Raises:
        TimeoutError: it took longer; the thread is left to itself.
    """
    return await asyncio.wait_for(start_thread(function, name), timeout)


def call_within(function: Callable[[], T], seconds: float) -> T:
    """Calls `function` in a thread of its own; gives what it gives.

    Raises:
        TimeoutError: it has not come back by then. Its thread stays, and holds up nothing.
    """
    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(function())
        except BaseException as error:  # noqa: BLE001 - raised to the caller
            future.set_exception(error)

    threading.Thread(target=work, name="work", daemon=True).start()
    return future.result(seconds)
