"""`env cp` and `cp`: as `docker cp` does it, into a folder that exists, or under the new name."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Protocol

from hakuriver.errors import ConflictError, HakuRiverError, NotFoundError, StorageError, UsageError
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
_MOST_NAMES = 3
"""Of those that are left out."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


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
            said = _send(Path(source), place(session, remote_target["name"]), remote_target["path"], progress)
        elif remote_source:
            said = _fetch(
                place(session, remote_source["name"]), remote_source["path"], Path(target), progress
            )
    for line in said:
        session.printer.say(line)


def _send(source: Path, place: Place, path: str, progress: Progress) -> list[str]:
    if not source.exists():
        raise NotFoundError(f"there is no {source} here", "check the path")
    if path.endswith("/") or place.is_folder(path):
        folder, new = path, source.resolve().name
    else:
        folder, new = str(PurePosixPath(path).parent), PurePosixPath(path).name
    place.put(folder, _counted(tar_of(source.resolve(), name=new), progress))
    return [f"copied {source} to {place.name}:{PurePosixPath(folder) / new!s}"]


def _fetch(place: Place, path: str, target: Path, progress: Progress) -> list[str]:
    name = PurePosixPath(path).name
    if name in {"", ".."}:
        raise UsageError(f"{place.name}:{path} is not copied as a whole", "name a file or a folder in it")
    with _scratch(_folder_beside(target, name)) as scratch:
        with place.get(path) as pieces:
            left_out = _unpack(_counted(pieces, progress), scratch)
        found = next(scratch.iterdir(), None)
        if found is None:
            raise NotFoundError(
                f"{place.name}:{path} is nothing that can be copied", "name a file or a folder"
            )
        final = target / found.name if target.is_dir() else target
        _move(found, final)
    return [f"copied {place.name}:{path} to {final}", *_told(left_out)]


def _folder_beside(target: Path, name: str) -> Path:
    """Where what comes lies until it is whole: on the file system where it goes, and where whoever copies may write."""
    if target.is_dir():
        merged = target / name
        return merged if _is_folder(merged) else target
    if not target.parent.is_dir():
        raise NotFoundError(f"there is no folder {target.parent} here", "make it, or name another target")
    return target.parent


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """A folder within, which is gone after, whatever ends it."""
    listened = [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, _interrupt) for number in listened}
    try:
        with _made_within(folder) as scratch:
            try:
                yield Path(scratch)
            finally:
                # Another Ctrl-C must not leave half of it behind.
                for number in listened:
                    signal.signal(number, signal.SIG_IGN)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _made_within(folder: Path) -> TemporaryDirectory[str]:
    try:
        return TemporaryDirectory(prefix=".hakuriver-", dir=folder)
    except OSError as error:
        raise _unwritable(folder, error) from None


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _unwritable(path: Path, error: OSError) -> StorageError:
    return StorageError(
        f"cannot write {path}: {error.strerror}", "check who may write there, or name another target"
    )


def _told(left_out: list[str]) -> list[str]:
    if not left_out:
        return []
    names = ", ".join(left_out[:_MOST_NAMES]) + (", …" if len(left_out) > _MOST_NAMES else "")
    return [f"left out {len(left_out)} (links that lead elsewhere, or devices): {names}"]


def _counted(pieces: Iterable[bytes], progress: Progress) -> Iterator[bytes]:
    size = 0
    for piece in pieces:
        size += len(piece)
        progress.update(f"{format_size(size)} copied")
        yield piece


def _folder_test(path: str) -> list[str]:
    return ["sh", "-c", 'test -d "$1"', "-", path]


def _unpack(pieces: Iterator[bytes], folder: Path) -> list[str]:
    """Nothing leads out of the folder, and no device or foreign owner is made (PEP 706, the `data` filter).

    Gives the names of what was left out for that.
    """
    left_out: list[str] = []

    def keep(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo | None:
        kept = _usable(member, folder)
        if kept is None:
            left_out.append(str(PurePosixPath(member.name)))
        return kept

    try:
        with tarfile.open(fileobj=PieceReader(pieces), mode="r|") as tar:  # type: ignore[call-overload]
            tar.extractall(folder, filter=keep)  # noqa: S202 - the `data` filter is in it
        _finish(pieces)
    except tarfile.TarError as error:
        _finish(pieces)
        raise HakuRiverError(f"what came cannot be unpacked: {error}", "copy less of it") from None
    return left_out


def _usable(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo | None:
    """As the `data` filter has it; nothing for the links and devices which that refuses, and for hard links to those."""
    try:
        usable = tarfile.data_filter(member, folder)
        if not usable.islnk():
            return usable
        first = Path(folder, usable.linkname)
        if first.is_symlink():
            # Elsewhere it may lead out of the folder, where the first does not.
            link = usable.replace(linkname=str(first.readlink()), deep=False)
            link.type = tarfile.SYMTYPE
            return tarfile.data_filter(link, folder)
        return usable if first.is_file() else None
    except (tarfile.AbsoluteLinkError, tarfile.LinkOutsideDestinationError, tarfile.SpecialFileError):
        return None


def _finish(pieces: Iterator[bytes]) -> None:
    """Takes what is left: a sender that fails says so at its end."""
    for _ in pieces:
        pass


def _move(source: Path, target: Path) -> None:
    """Folders become one. No link is followed: what came once must not lead what comes next to another place."""
    if _is_folder(source) and _is_folder(target):
        for child in source.iterdir():
            _move(child, target / child.name)
    elif _is_folder(target):
        raise ConflictError(f"{target} is a folder", "name another target")
    elif _is_folder(source) and os.path.lexists(target):
        what = "a link" if target.is_symlink() else "a file"
        raise ConflictError(f"{target} is {what}, not a folder", "name another target")
    else:
        try:
            source.replace(target)
        except OSError as error:
            raise _unwritable(target, error) from None


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
