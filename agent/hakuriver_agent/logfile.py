"""One stream of one attempt, as a file on the share.

The file's size is the durable offset: after a restart the writer goes on where the file ends. A file holds at most
`limit` bytes and one line that says so; the rest is dropped. A full or failing disk delays the bytes, it does not
lose them. Standard library only, since the shim of the process engine uses it too.
"""

# Plain os calls: the shim starts without pathlib.
# ruff: noqa: PTH116
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

    def __init__(
        self, path: str, limit: int, owner: tuple[int, int] | None = None, marker: str | None = None
    ) -> None:
        self.path = path
        self._limit = limit
        self._owner = owner
        self._marker = marker
        """A file of the Host's on the share, without which nothing is written."""
        self._descriptor = -1
        self._size = 0

    def open(self) -> int:
        """Opens or makes the file; returns its size.

        Raises:
            OSError: the share does not let it.
        """
        if self._descriptor < 0:
            # Its folder is not made: where it is missing, the share is not mounted. The same says a missing marker.
            readers = os.stat(self._marker).st_gid if self._marker else None
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._descriptor = os.open(self.path, flags, 0o644)
            self._belong(readers)
            self._size = os.fstat(self._descriptor).st_size
        return self._size

    def _belong(self, readers: int | None) -> None:
        """Gives the file to its owner, and lets the Host read it, by the group of its marker, and nobody else.

        A share on which we are no root lets nobody give files away: there everybody may read, or the Host could not.
        """
        uid, gid = self._owner or (-1, -1)
        with contextlib.suppress(OSError):
            os.fchown(self._descriptor, uid, gid if readers is None else readers)
            if readers is not None and os.geteuid() == 0:
                os.fchmod(self._descriptor, 0o640)

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
