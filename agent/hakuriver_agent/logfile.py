"""One stream of one attempt, as a file on the share.

The file's size is the durable offset: after a restart the writer goes on where the file ends. A file holds at most
`limit` bytes and one line that says so; the rest is dropped. A full or failing disk delays the bytes, it does not
lose them. Standard library only, since the shim of the process engine uses it too.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading

RETRY_SECONDS = 0.5

PASSING = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ENOENT, errno.EROFS, errno.EAGAIN}
)
"""Errors of a share that can mend: full, over quota, unmounted, served by a machine that restarts."""


class LogFile:
    """Appends to one file. Every method may block for as long as the share does."""

    def __init__(self, path: str, limit: int, owner: tuple[int, int] | None = None) -> None:
        self.path = path
        self._limit = limit
        self._owner = owner
        self._descriptor = -1
        self._size = 0

    def open(self) -> int:
        """Opens or makes the file; returns its size.

        Raises:
            OSError: the share does not let it.
        """
        if self._descriptor < 0:
            # Its folder is not made: where it is missing, the share is not mounted.
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._descriptor = os.open(self.path, flags, 0o644)
            if self._owner is not None:
                with contextlib.suppress(PermissionError):
                    os.fchown(self._descriptor, *self._owner)
            self._size = os.fstat(self._descriptor).st_size
        return self._size

    @property
    def size(self) -> int:
        return self._size

    def consume(self, data: bytes | memoryview) -> int:
        """Writes or drops some of `data`, at least one byte; returns how many.

        Raises:
            OSError: the share does not take it now.
        """
        self.open()
        room = self._limit - self._size
        try:
            if room > 0:
                written = os.write(self._descriptor, data[:room])
                self._size += written
                return written
            if room == 0:
                note = f"\n[hakuriver: output beyond {self._limit} bytes was dropped]\n"
                self._size += os.write(self._descriptor, note.encode())
        except OSError as error:
            if error.errno in {errno.ESTALE, errno.EIO}:
                self.close()
            raise
        return len(data)

    def write(self, data: bytes, give_up: threading.Event) -> bool:
        """Writes or drops all of `data`, trying again while the share cannot take it; False when given up."""
        view = memoryview(data)
        while view and not give_up.is_set():
            try:
                view = view[self.consume(view) :]
            except OSError as error:
                if error.errno not in PASSING:
                    return False
                give_up.wait(RETRY_SECONDS)
        return not view

    def close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            with contextlib.suppress(OSError):
                os.close(descriptor)
