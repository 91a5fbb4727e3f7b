"""What systemd is told: that the Host serves, that its loop turns, that it ends (sd_notify(3)). Without systemd, nothing."""

from __future__ import annotations

import asyncio
import os

import sdnotify  # type: ignore[import-untyped]  # it has no types

_SECONDS = 5.0


def tell(state: str) -> None:
    """`READY=1`, `STOPPING=1` or `WATCHDOG=1`. Whoever listens and does not read holds up nothing for long."""
    notifier = sdnotify.SystemdNotifier()
    if notifier.socket is not None:
        # Of signs of life that one cannot take, the next serves as well.
        notifier.socket.settimeout(0.0 if state == "WATCHDOG=1" else _SECONDS)
    notifier.notify(state)


async def watchdog() -> None:
    """Shows at a third of the unit's `WatchdogSec=` that the loop turns; waits for ever where none is set."""
    seconds = int(os.environ.get("WATCHDOG_USEC", "0")) / 3e6
    if not seconds:
        await asyncio.Event().wait()
    while True:
        tell("WATCHDOG=1")
        await asyncio.sleep(seconds)
