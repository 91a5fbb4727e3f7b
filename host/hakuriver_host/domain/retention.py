"""What time it is for the removal of old records: a wall clock that jumps ahead must not make all of them old."""

from __future__ import annotations

STEP = 3_600.0
"""By how much time may run ahead of what has passed, at each look."""
STEP_AT_START = 86_400.0
"""The same at a start: for how long the Host was away nobody but the wall clock can tell."""


def believed(wall: float, last: float, passed: float, step: float) -> float:
    """The time to remove by: the wall clock's, but no more than `passed` and a step after the `last` one believed.

    So a jump ahead makes records old by a step at each look and not at once, which leaves time to set the clock right.
    One that is right is caught up with in steps after the Host was away for long; until then records are kept longer.
    """
    return min(wall, last + passed + step)
