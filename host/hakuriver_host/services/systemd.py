"""What systemd is told: that the Host serves, that its loop turns, that it ends (sd_notify(3)). Without systemd, nothing."""

from __future__ import annotations

import asyncio
import os

import sdnotify  # type: ignore[import-untyped]  # it has no types


def tell(state: str) -> None:
    """`READY=1`, `STOPPING=1` or `WATCHDOG=1`."""
    sdnotify.SystemdNotifier().notify(state)


async def watchdog() -> None:
    """Shows at a third of the unit's `WatchdogSec=` that the loop turns; waits for ever where none is set."""
    seconds = int(os.environ.get("WATCHDOG_USEC", "0")) / 3e6
    if not seconds:
        await asyncio.Event().wait()
    while True:
        tell("WATCHDOG=1")
        await asyncio.sleep(seconds)
