"""A person at a terminal: the real command on a pseudo-terminal, what it shows, and what is typed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from support.daemons import clean_environment

_BIN = Path(sys.executable).parent


class Terminal:
    """Runs `hakuriver` with arguments; used as a context."""

    def __init__(
        self, environment: Mapping[str, str], *arguments: str, rows: int = 30, columns: int = 90
    ) -> None:
        self.shown = ""
        self._environment = {**clean_environment(), "TERM": "xterm", **environment}
        self._arguments = arguments
        self._size = (rows, columns)

    def __enter__(self) -> Self:
        self.pid, self._master = pty.fork()
        if self.pid == 0:
            program = str(_BIN / "hakuriver")
            # Who runs the tests may ignore it, as nohup does; a person at a terminal does not.
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
            os.execve(program, [program, *self._arguments], self._environment)  # noqa: S606
        self.resize(*self._size)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
        os.close(self._master)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def until(self, text: str, within: float = 30.0) -> str:
        """Reads until it shows the text; gives what came before, and forgets all of it."""
        give_up = time.monotonic() + within
        while text not in self.shown:
            assert time.monotonic() < give_up, f"it does not show {text!r}; it shows {self.shown!r}"
            if select.select([self._master], [], [], 0.2)[0]:
                try:
                    self.shown += os.read(self._master, 65536).decode("utf-8", "replace")
                except OSError:
                    raise AssertionError(
                        f"it ended without showing {text!r}; it showed {self.shown!r}"
                    ) from None
        before, _, self.shown = self.shown.partition(text)
        return before

    def code(self, within: float = 30.0) -> int:
        """Its exit code, when it ends."""
        give_up = time.monotonic() + within
        while True:
            if select.select([self._master], [], [], 0.05)[0]:
                with contextlib.suppress(OSError):
                    self.shown += os.read(self._master, 65536).decode("utf-8", "replace")
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            assert time.monotonic() < give_up, f"it does not end; it shows {self.shown!r}"
