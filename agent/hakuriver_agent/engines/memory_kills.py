"""Whether the kernel ended a container for want of memory, where the engine's flag says no.

The flag comes from notices of the kernel that the engine's shim subscribes to after the container has started. One
that arrives after the end is told as an event alone, and one of before the subscription is lost. On two busy cores that
happens to about one container in a hundred that runs out of memory at once. The kernel's own count of such kills,
`oom_kill` of /proc/vmstat, is of the whole machine, but it misses nothing: while it stands still nobody was killed.
When it has moved, the kernel's log says whose process it was: two lines for each kill, of which it leaves out the
first when there are many at once (the kernel's mm/oom_kill.c).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from pathlib import Path

SIGKILLED = 137
UNWATCHED = timedelta(seconds=5)
"""After so long the engine's shim surely has its subscription."""

_LONGEST_RECORD = 8192
"""Bytes; no record of /dev/kmsg has more (the kernel's Documentation/ABI/testing/dev-kmsg, kernel/printk)."""
_CHOSEN = re.compile(r"oom-kill:.*\btask_memcg=([^,]*),.*\bpid=(\d+)")
_KILLED = re.compile(r"\bKilled process (\d+) ")


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


def killed_groups(path: Path = Path("/dev/kmsg")) -> list[str | None]:
    """The control groups of the processes that the kernel killed for want of memory, by what its log still has.

    The oldest first; none for one whose group the log does not name. Empty where this process may not read the log.
    """
    try:
        return _groups(_records(path))
    except OSError:
        return []


def engine_missed(exit_code: int, lived: timedelta, ours: bool | None, event: Callable[[], bool]) -> bool:
    """Whether a container that the engine does not call out of memory was so.

    `ours` is what the kernel says of it, see `kernel_killed`. `event` asks the engine for its late notice, which takes
    a moment, so it is asked only when the kernel does not say.
    """
    if ours is not None:
        return ours
    return event() or (exit_code == SIGKILLED and lived < UNWATCHED)


def kernel_killed(
    container: str, before: int | None, vmstat: Path = Path("/proc/vmstat"), kmsg: Path = Path("/dev/kmsg")
) -> bool | None:
    """Whether the kernel killed a process of this container since its count was `before`; none when it does not say."""
    if kernel_kills(vmstat) == before:
        return False
    # The log before the count: what is killed between the two makes the log say nothing, rather than too much.
    groups, now = killed_groups(kmsg), kernel_kills(vmstat)
    return None if now is None or before is None else names(groups, container, now - before)


def names(groups: list[str | None], container: str, kills: int) -> bool | None:
    """Whether the last `kills`, at least one, of the log's `groups` have one of this container; none when they do not say."""
    last = groups[-kills:]
    if any(group is not None and container in group for group in last):
        return True
    return None if None in last or len(last) < kills else False


def _groups(records: Iterable[str]) -> list[str | None]:
    groups: list[str | None] = []
    chosen: dict[str, str] = {}
    for record in records:
        if found := _CHOSEN.search(record):
            chosen[found[2]] = found[1]
        elif found := _KILLED.search(record):
            groups.append(chosen.pop(found[1], None))
    return groups


def _records(path: Path) -> Iterator[str]:
    """The lines of each record that the kernel's log has now."""
    log = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        while True:
            try:
                record = os.read(log, _LONGEST_RECORD)
            except BlockingIOError:
                return
            except BrokenPipeError:
                # The log has overtaken this reader; the next read goes on with the oldest record that there is.
                continue
            if not record:
                return
            yield from record.decode("utf-8", "replace").splitlines()
    finally:
        os.close(log)
