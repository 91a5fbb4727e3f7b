"""What only one Host at a time may have: its state directory and its port."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hakuriver.errors import ConflictError, HakuRiverError, StorageError, UsageError

_BACKLOG = 2048
_RESTORING = "host.restoring"


@contextmanager
def state_dir(path: Path) -> Iterator[None]:
    """Makes the state directory, and holds its lock; the kernel gives it back however this process ends.

    Raises:
        StorageError: it cannot be made or written.
        ConflictError: another Host, or a restore, has it.

    """
    _make(path)
    with _opened(path / "host.lock", like=path) as descriptor:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
            raise ConflictError(
                f"a Host has {path} in use (process {owner or 'not known'})",
                "stop it first, or name another folder in paths.state_dir",
            ) from None
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield


def listen(address: str, port: int) -> socket.socket:
    """Takes the port.

    Raises:
        ConflictError: it is taken.
        UsageError: the address is not this machine's, or the port is not this user's to take.

    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address, port))
    except OSError as error:
        listener.close()
        problem = f"cannot listen on {address}:{port}: {error.strerror}"
        if error.errno == errno.EADDRINUSE:
            raise ConflictError(problem, "end what uses it, or change network.host_port") from None
        raise UsageError(problem, "check network.host_bind_ip and network.host_port") from None
    listener.listen(_BACKLOG)
    listener.set_inheritable(True)
    return listener


@contextmanager
def restoring(path: Path) -> Iterator[None]:
    """Marks the state as half restored, until the block has ended, or has said why it changed nothing."""
    marker = path / _RESTORING
    marker.touch()
    try:
        yield
    except HakuRiverError:
        marker.unlink()
        raise
    marker.unlink()


def check_whole(path: Path) -> None:
    """Refuses a state that a restore has left half done.

    Raises:
        StorageError: it has.

    """
    if (path / _RESTORING).exists():
        raise StorageError(
            f"a restore of {path} was broken off, so its files do not belong together",
            "run `hakuriver state restore --force` again",
        )


def _make(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        probe = path / ".probe"
        probe.write_bytes(b"probe\n")
        probe.unlink()
    except OSError as error:
        raise StorageError(
            f"cannot write the state directory {path}: {error.strerror}",
            "check paths.state_dir, its permissions and its disk",
        ) from None


@contextmanager
def _opened(path: Path, like: Path) -> Iterator[int]:
    """The file, made if it is missing; root makes it for the owner of the folder."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StorageError(
            f"cannot open {path}: {error.strerror}", "check its owner and permissions"
        ) from None
    try:
        if os.geteuid() == 0:
            owner = like.stat()
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        yield descriptor
    finally:
        os.close(descriptor)
