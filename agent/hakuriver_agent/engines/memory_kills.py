"""Whether the kernel ended a container for want of memory, where the engine's flag says no.

The flag comes from notices of the kernel that the engine's shim subscribes to after the container has started. One
that arrives after the end is told as an event alone, and one of before the subscription is lost. On two busy cores that
happens to about one container in a hundred that runs out of memory at once. The kernel's own count of such kills,
`oom_kill` of /proc/vmstat, is of the whole machine, but it misses nothing: while it stands still nobody was killed.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

SIGKILLED = 137
UNWATCHED = timedelta(seconds=5)
"""After so long the engine's shim surely has its subscription."""


def kernel_kills(vmstat: Path = Path("/proc/vmstat")) -> int | None:
    """How many processes the kernel has killed for want of memory since it booted; none where it does not count."""
    try:
        lines = vmstat.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition(" ")
        if name == "oom_kill":
            return int(value)
    return None


def engine_missed(
    exit_code: int, lived: timedelta, before: int | None, now: int | None, event: Callable[[], bool]
) -> bool:
    """Whether a container that the engine does not call out of memory was so.

    `before` and `now` are the kernel's counts of before its start and after its end. `event` asks the engine for its
    late notice, which takes a moment, so it is asked only when the kernel has killed something meanwhile.
    """
    if before == now:
        return False
    return event() or (exit_code == SIGKILLED and lived < UNWATCHED)
