"""The deployment lock: one deployment of a cluster at a time, and a name to ask when it is taken.

A file beside the inventory says who holds it. On the machine that took it, a holder that no longer lives is noticed and
its lock taken over; of another machine's holder nothing can be known, so a person has to decide. That several commands
of this machine look at the same moment is settled by a kernel lock on a second file.
"""

from __future__ import annotations

import fcntl
import getpass
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ValidationError

from hakuriver.errors import ConflictError
from hakuriver_cli.deploy import processes

NAME = "deploy.lock"


class Holder(BaseModel):
    """Who holds it."""

    user: str
    machine: str
    pid: int
    since: datetime
    what: str
    boot: str = ""
    started: str = ""
    """Tells this process from a later one with the same number."""

    def __str__(self) -> str:
        since = f"{self.since.astimezone():%Y-%m-%d %H:%M:%S}"
        return f"{self.user} on {self.machine} (process {self.pid}, `cluster {self.what}`, since {since})"


def ourselves(what: str) -> Holder:
    pid = os.getpid()
    return Holder(
        user=_user(),
        machine=socket.gethostname(),
        pid=pid,
        since=datetime.now(UTC),
        what=what,
        boot=processes.boot(),
        started=processes.started(pid) or "",
    )


def is_stale(holder: Holder, machine: str, boot: str, started: Callable[[int], str | None]) -> bool:
    """Whether the holder certainly lives no more. That can be said of this machine's processes alone."""
    if holder.machine != machine:
        return False
    if holder.boot and boot and holder.boot != boot:
        return True
    found = started(holder.pid)
    return found is None or (bool(holder.started) and found != holder.started)


def holder(folder: Path) -> Holder | None:
    """Who holds it now; None when nobody does, or nobody that lives."""
    found = _read(folder / NAME)
    return None if found is None or _is_stale(found) else found


@contextmanager
def held(folder: Path, what: str, say: Callable[[str], None]) -> Iterator[Holder]:
    """Holds the lock. Raises ConflictError when somebody else does; tells when a dead holder's is taken over."""
    path = folder / NAME
    own = ourselves(what)
    with _guard(folder):
        if (other := _read(path)) is not None:
            if not _is_stale(other):
                raise ConflictError(
                    f"another deployment of this cluster goes on: {other}",
                    f"wait for it; if you are sure that it has ended, remove {path}",
                )
            say(f"the last deployment was broken off: {other}; going on from where it stopped")
        _write(path, own)
    try:
        yield own
    finally:
        with _guard(folder):
            if _read(path) == own:
                path.unlink(missing_ok=True)


@contextmanager
def _guard(folder: Path) -> Iterator[None]:
    with (folder / f"{NAME}.guard").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _is_stale(found: Holder) -> bool:
    return is_stale(found, socket.gethostname(), processes.boot(), processes.started)


def _read(path: Path) -> Holder | None:
    try:
        return Holder.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError:
        raise ConflictError(
            f"{path} is no lock of ours", "look at it, and remove it if nobody deploys"
        ) from None


def _write(path: Path, own: Holder) -> None:
    temporary = path.with_name(f"{NAME}.{own.pid}")
    temporary.write_text(own.model_dump_json(indent=2) + "\n", "utf-8")
    temporary.replace(path)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return str(os.getuid())
