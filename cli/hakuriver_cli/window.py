"""The window that a terminal is shown in: its size, and every key as it is typed."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial

NO_WINDOW = (80, 24)
"""Columns and rows, when a script asks for a terminal and has none itself."""


def size_of_window() -> tuple[int, int]:
    """Columns and rows of the window itself, whatever COLUMNS and LINES say: those stay as they were when it changes."""
    for descriptor in (0, 1, 2):
        with contextlib.suppress(OSError):
            size = os.get_terminal_size(descriptor)
            if all(size):  # A new pseudo-terminal has none yet.
                return size
    return NO_WINDOW


@contextlib.contextmanager
def raw_mode() -> Iterator[None]:
    import termios  # noqa: PLC0415 - of terminals alone
    import tty  # noqa: PLC0415

    before = termios.tcgetattr(0)
    tty.setraw(0)
    try:
        yield
    finally:
        # The window may be closed.
        with contextlib.suppress(termios.error):
            termios.tcsetattr(0, termios.TCSADRAIN, before)


@contextlib.contextmanager
def resizing(send: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Sends how large the window is, at first, whenever that changes, and when what it gives is called."""
    # Unlike an event's `set`, `put` may be interrupted by itself, as signals do.
    wanted: queue.SimpleQueue[bool] = queue.SimpleQueue()
    # It may have changed since the size was read, while the connection was made.
    wanted.put(True)

    def tell() -> None:
        while wanted.get():
            columns, rows = size_of_window()
            send(json.dumps({"type": "resize", "rows": rows, "columns": columns}))

    before = signal.signal(signal.SIGWINCH, lambda *_: wanted.put(True))
    threading.Thread(target=tell, daemon=True).start()
    try:
        yield partial(wanted.put, True)
    finally:
        signal.signal(signal.SIGWINCH, before)
        wanted.put(False)
