"""Waiting for something to become true, with a deadline: tests never wait for a time to pass."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

_FIRST_PAUSE = 0.005
_LONGEST_PAUSE = 0.1


def until(
    probe: Callable[[], Result | bool | None],
    what: str | Callable[[], str],
    within: float = 30.0,
) -> Result:
    """The first true answer of `probe`, asked again and again; `what` names what was waited for.

    Raises:
        TimeoutError: none came within that many seconds.
    """
    give_up = time.monotonic() + within
    pause = _FIRST_PAUSE
    while True:
        answer = probe()
        if answer:
            return answer  # type: ignore[return-value]
        if time.monotonic() > give_up:
            raise TimeoutError(f"after {within:g} s still not: {what if isinstance(what, str) else what()}")
        time.sleep(pause)
        pause = min(_LONGEST_PAUSE, pause * 1.5)
