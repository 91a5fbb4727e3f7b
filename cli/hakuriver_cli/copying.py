"""`env cp` and `cp`: as `docker cp` does it, into a folder that exists, or under the new name."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, closing, suppress
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Protocol

from hakuriver.errors import ConflictError, HakuRiverError, NotFoundError, UsageError
from hakuriver.names import VPS_NAME
from hakuriver.pieces import PieceReader
from hakuriver.references import ENVIRONMENT_NAME
from hakuriver.sizes import format_size
from hakuriver_cli.progress import Progress
from hakuriver_cli.session import Session
from hakuriver_cli.terminal import environment_door, piped, run_quietly, task_door
from hakuriver_cli.transfer import tar_of

if TYPE_CHECKING or sys.version_info >= (3, 11, 4):
    import tarfile
else:  # Debian 12's own Python is older than extraction filters
    from backports import tarfile

_ENVIRONMENT = re.compile(rf"(?P<name>{ENVIRONMENT_NAME.pattern}):(?P<path>/.*)", re.DOTALL)
_TASK = re.compile(rf"(?P<name>[0-9]{{1,19}}|{VPS_NAME.pattern}):(?P<path>/.*)", re.DOTALL)


class Place(Protocol):
    """A container, named by an environment or by a task."""

    name: str

    def is_folder(self, path: str) -> bool:
        """Whether a path in it is a folder; of a container that does not run it is not known."""

    def put(self, folder: str, tar: Iterable[bytes]) -> None: ...

    def get(self, path: str) -> AbstractContextManager[Iterator[bytes]]:
        """A path as a tar."""


class EnvironmentPlace:
    """The Host's engine reads and writes its files, running or not."""

    def __init__(self, session: Session, name: str) -> None:
        self.name = name
        self._session = session

    def is_folder(self, path: str) -> bool:
        with suppress(ConflictError, UsageError):
            return run_quietly(self._session, environment_door(self.name), _folder_test(path)) == 0
        return False

    def put(self, folder: str, tar: Iterable[bytes]) -> None:
        self._session.client.env.put_files(self.name, folder, tar)

    def get(self, path: str) -> AbstractContextManager[Iterator[bytes]]:
        return self._session.client.env.get_files(self.name, path)


class TaskPlace:
    """A `tar` in the container does it, as the task's user: whoever copies may do what the task may, and no more."""

    def __init__(self, session: Session, name: str) -> None:
        self.name = name
        self._session = session
        self._door = task_door(session.task_id(name))

    def is_folder(self, path: str) -> bool:
        return run_quietly(self._session, self._door, _folder_test(path)) == 0

    def put(self, folder: str, tar: Iterable[bytes]) -> None:
        for _ in piped(self._session, self._door, ["tar", "-xof", "-", "-C", folder], tar):
            pass

    def get(self, path: str) -> AbstractContextManager[Iterator[bytes]]:
        whole = PurePosixPath(path)
        argv = ["tar", "-cf", "-", "-C", str(whole.parent), f"./{whole.name}"]
        return closing(piped(self._session, self._door, argv))


def copy_with_environment(session: Session, source: str, target: str) -> None:
    """Raises `UsageError` unless one of the two is `NAME:/PATH`."""
    _copy(session, source, target, _ENVIRONMENT, EnvironmentPlace, "NAME:/PATH in an environment", "env cp")


def copy_with_task(session: Session, source: str, target: str) -> None:
    """Raises `UsageError` unless one of the two is `ID:/PATH`, or `NAME:/PATH` of a VPS."""
    _copy(session, source, target, _TASK, TaskPlace, "ID:/PATH in a running task or VPS", "cp")


def _copy(
    session: Session,
    source: str,
    target: str,
    form: re.Pattern[str],
    place: type[EnvironmentPlace | TaskPlace],
    what: str,
    command: str,
) -> None:
    remote_source, remote_target = form.fullmatch(source), form.fullmatch(target)
    if bool(remote_source) == bool(remote_target):
        example = what.partition(" ")[0].replace("/PATH", "/tmp/data")  # noqa: S108 - in a container
        raise UsageError(
            f"one of the two is a path here, the other {what}",
            f"such as: hakuriver {command} ./data {example}",
        )
    with Progress(session.printer.err) as progress:
        if remote_target:
            done = _send(Path(source), place(session, remote_target["name"]), remote_target["path"], progress)
        elif remote_source:
            done = _fetch(
                place(session, remote_source["name"]), remote_source["path"], Path(target), progress
            )
    session.printer.say(done)


def _send(source: Path, place: Place, path: str, progress: Progress) -> str:
    if not source.exists():
        raise NotFoundError(f"there is no {source} here", "check the path")
    if path.endswith("/") or place.is_folder(path):
        folder, new = path, source.resolve().name
    else:
        folder, new = str(PurePosixPath(path).parent), PurePosixPath(path).name
    place.put(folder, _counted(tar_of(source.resolve(), name=new), progress))
    return f"copied {source} to {place.name}:{PurePosixPath(folder) / new!s}"


def _fetch(place: Place, path: str, target: Path, progress: Progress) -> str:
    with TemporaryDirectory(dir=target.parent if target.parent.is_dir() else None) as scratch:
        with place.get(path) as pieces:
            _unpack(_counted(pieces, progress), Path(scratch))
        found = next(Path(scratch).iterdir(), None)
        if found is None:
            raise NotFoundError(
                f"{place.name}:{path} is nothing that can be copied", "name a file or a folder"
            )
        final = target / found.name if target.is_dir() else target
        if final.is_dir() and not found.is_dir():
            raise ConflictError(f"{final} is a folder", "name another target")
        if final.is_dir():
            _merge(found, final)
        else:
            found.rename(final)
    return f"copied {place.name}:{path} to {final}"


def _counted(pieces: Iterable[bytes], progress: Progress) -> Iterator[bytes]:
    size = 0
    for piece in pieces:
        size += len(piece)
        progress.update(f"{format_size(size)} copied")
        yield piece


def _folder_test(path: str) -> list[str]:
    return ["sh", "-c", 'test -d "$1"', "-", path]


def _unpack(pieces: Iterator[bytes], folder: Path) -> None:
    """Nothing leads out of the folder, and no device or foreign owner is made (PEP 706, the `data` filter)."""
    try:
        with tarfile.open(fileobj=PieceReader(pieces), mode="r|") as tar:  # type: ignore[call-overload]
            tar.extractall(folder, filter="data")
        _finish(pieces)
    except tarfile.TarError as error:
        _finish(pieces)
        raise HakuRiverError(f"what came cannot be unpacked: {error}", "copy less of it") from None


def _finish(pieces: Iterator[bytes]) -> None:
    """Takes what is left: a sender that fails says so at its end."""
    for _ in pieces:
        pass


def _merge(source: Path, target: Path) -> None:
    for child in source.iterdir():
        other = target / child.name
        if child.is_dir() and not child.is_symlink() and other.is_dir():
            _merge(child, other)
        else:
            child.replace(other)
