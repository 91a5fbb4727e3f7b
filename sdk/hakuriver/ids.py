"""Ids of tasks and batches: 63-bit integers that sort by the time they were made.

The layout is Twitter's Snowflake: milliseconds since `EPOCH` (41 bits), worker (10), counter (12).
In JSON they travel as strings, since JavaScript's numbers hold 53 bits.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from hakuriver.errors import UsageError

EPOCH_MS = 1_735_689_600_000
"""2025-01-01T00:00:00Z."""

_COUNTER_BITS = 12
_WORKER_BITS = 10
_ID = re.compile(r"[0-9]{1,19}")
MAX_ID = 2**63 - 1


class IdGenerator:
    """Gives ids that rise strictly, also over a clock that jumps back and over a restart.

    `now_ms` reads the wall clock in milliseconds since 1970; `last` is the greatest id given so far.
    """

    def __init__(self, now_ms: Callable[[], int], worker: int = 0, last: int = 0) -> None:
        self._now_ms = now_ms
        self._worker = worker & ((1 << _WORKER_BITS) - 1)
        self._tick = (last >> (_COUNTER_BITS + _WORKER_BITS)) << _COUNTER_BITS | last & (
            (1 << _COUNTER_BITS) - 1
        )

    def next(self) -> int:
        """The next id. A counter that overflows borrows from the next millisecond."""
        present = max(0, self._now_ms() - EPOCH_MS) << _COUNTER_BITS
        self._tick = max(present, self._tick + 1)
        milliseconds, counter = self._tick >> _COUNTER_BITS, self._tick & ((1 << _COUNTER_BITS) - 1)
        return (milliseconds << (_WORKER_BITS + _COUNTER_BITS)) | (self._worker << _COUNTER_BITS) | counter


def parse_id(text: str) -> int:
    """The id that a person typed.

    Raises:
        UsageError: it is not one.
    """
    if not _ID.fullmatch(text) or int(text) > MAX_ID:
        raise UsageError(f"{text!r} is not a task id", "give the number that `hakuriver task list` shows")
    return int(text)
