"""What the Runner makes for a program of a VPS in the folder of its sockets, which the VPS sees read-only.

It belongs to one user of the VPS where the Runner may give it away, else it is everybody's there. Links are never
followed: somebody in a privileged VPS may have put one there. The folder is named by a number, since a socket's whole
path has 107 bytes at most (unix(7)).
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path


def can_give() -> bool:
    """Whether what is made can be one user's alone."""
    return os.geteuid() == 0


def listener(folder: Path, name: str, uid: int | None) -> socket.socket:
    """A socket that listens there.

    Raises:
        OSError: it cannot be made.
    """
    made = socket.socket(socket.AF_UNIX)
    try:
        with _opened(folder) as descriptor:
            made.bind(f"/proc/self/fd/{descriptor}/{name}")
            os.close(_given(descriptor, name, stat.S_IFSOCK, uid))
    except OSError:
        made.close()
        raise
    return made


def pipe(folder: Path, name: str, uid: int | None) -> tuple[int, int]:
    """A pipe with that name there: its ends to read and to write, neither of which waits.

    Raises:
        OSError: it cannot be made.
    """
    with _opened(folder) as descriptor:
        os.mkfifo(name, 0o600, dir_fd=descriptor)
        found = _given(descriptor, name, stat.S_IFIFO, uid)
    try:
        # Each end can be opened once the other is there (fifo(7)).
        reading = os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return reading, os.open(f"/proc/self/fd/{found}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            os.close(reading)
            raise
    finally:
        os.close(found)


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _given(folder: int, name: str, kind: int, uid: int | None) -> int:
    """Gives it to the user; it, as O_PATH has it."""
    found = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        if stat.S_IFMT(os.fstat(found).st_mode) != kind:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
        path = f"/proc/self/fd/{found}"
        alone = uid is not None and can_give()
        Path(path).chmod(0o600 if alone else 0o666)
        if alone:
            os.chown(path, uid or 0, -1)
    except OSError:
        os.close(found)
        raise
    return found
