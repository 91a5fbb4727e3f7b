"""Files on their way: tars made of folders here, archives sent and saved, and `env cp`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO, TYPE_CHECKING, cast

from hakuriver.errors import ConflictError, HakuRiverError, NotFoundError, UsageError
from hakuriver.models.environments import ENVIRONMENT_NAME
from hakuriver.pieces import PieceReader, pieces_of
from hakuriver_cli.session import Session

if TYPE_CHECKING or sys.version_info >= (3, 11, 4):
    import tarfile
else:  # Debian 12's own Python is older than extraction filters
    from backports import tarfile

_PLACE = re.compile(rf"(?P<name>{ENVIRONMENT_NAME.pattern}):(?P<path>/.*)", re.DOTALL)
_ARCHIVE = re.compile(rf"(?P<name>{ENVIRONMENT_NAME.pattern})-[0-9]{{1,12}}\.tar")


def pieces_of_file(path: Path) -> Iterator[bytes]:
    """A file, piece by piece; it is opened at once, so that a wrong path is told before anything is sent."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise _unreadable(path, error) from None

    def pieces() -> Iterator[bytes]:
        with file:
            yield from pieces_of(file)

    return pieces()


def tar_of(folder: Path, *, name: str | None = None) -> Iterator[bytes]:
    """A folder's content as a tar, owners by number; with `name`, a file or folder itself under that name."""
    _check_readable(folder)
    where, what = (folder, ".") if name is None else (folder.parent, folder.name)
    rename = [] if name in {None, folder.name} else [f"--transform=s,^{_escaped(folder.name)},{name},rSH"]
    return _tar(folder, [*rename, "-C", str(where), "-c", "--", what])


def context_of(folder: Path) -> Iterator[bytes]:
    """What a Dockerfile is built from: the folder without what its .dockerignore names."""
    from docker.utils.build import exclude_paths  # noqa: PLC0415  (takes 0.2 s to load)

    _check_readable(folder)
    try:
        lines = (folder / ".dockerignore").read_text("utf-8").splitlines()
    except FileNotFoundError:
        return tar_of(folder)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {folder / '.dockerignore'}: {error}", "check the file") from None
    patterns = [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]
    with TemporaryFile() as names:
        names.write(b"\0".join(map(os.fsencode, sorted(exclude_paths(str(folder), patterns)))))
        names.seek(0)
        return _tar(folder, ["-C", str(folder), "--no-recursion", "--null", "-T", "-", "-c"], names)


def _check_readable(folder: Path) -> None:
    if not os.access(folder, os.R_OK):
        raise UsageError(f"cannot read {folder}", "check the path and its permissions")


def _tar(folder: Path, arguments: list[str], stdin: IO[bytes] | None = None) -> Iterator[bytes]:
    argv = ["tar", "--numeric-owner", *arguments]
    process = subprocess.Popen(argv, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def pieces() -> Iterator[bytes]:
        with process:
            assert process.stdout is not None  # noqa: S101 - a pipe was asked for
            yield from pieces_of(process.stdout)
            said = process.stderr.read().decode("utf-8", "replace").strip() if process.stderr else ""
        if process.returncode != 0:
            raise HakuRiverError(
                f"{folder} cannot be read whole: {said.splitlines()[0] if said else 'tar failed'}",
                "read it as root, or leave out what cannot be read",
            )

    return pieces()


def save(pieces: Iterable[bytes], target: Path) -> None:
    """Writes a file that appears only when it is whole."""
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as file:
            for piece in pieces:
                file.write(piece)
        partial.rename(target)
    finally:
        partial.unlink(missing_ok=True)


def name_of(file: Path) -> str:
    """The environment that a file's name tells: `NAME-VERSION.tar`."""
    match = _ARCHIVE.fullmatch(file.name)
    if match is None:
        raise UsageError(
            f"{file.name} does not tell an environment's name", f"name it: hakuriver env import {file} NAME"
        )
    return match["name"]


def copy(session: Session, source: str, target: str) -> None:
    """`env cp`: as `docker cp` does it, into a folder that exists, or under the new name."""
    remote_source, remote_target = _PLACE.fullmatch(source), _PLACE.fullmatch(target)
    if bool(remote_source) == bool(remote_target):
        raise UsageError(
            "one of the two is a path here, the other NAME:/PATH in an environment",
            "such as: hakuriver env cp ./data my-env:/opt/data",
        )
    if remote_target:
        _send(session, Path(source), remote_target["name"], remote_target["path"])
    elif remote_source:
        _fetch(session, remote_source["name"], remote_source["path"], Path(target))


def _send(session: Session, source: Path, name: str, path: str) -> None:
    if not source.exists():
        raise NotFoundError(f"there is no {source} here", "check the path")
    if path.endswith("/") or _is_folder(session, name, path):
        folder, new = path, source.resolve().name
    else:
        folder, new = str(PurePosixPath(path).parent), PurePosixPath(path).name
    session.client.env.put_files(name, folder, tar_of(source.resolve(), name=new))
    session.printer.say(f"copied {source} to {name}:{PurePosixPath(folder) / new!s}")


def _is_folder(session: Session, name: str, path: str) -> bool:
    """Whether a path in the container is a folder; of one that does not run it is not known."""
    from hakuriver_cli.terminal import environment_door, run_quietly  # noqa: PLC0415

    with suppress(ConflictError, UsageError):
        return run_quietly(session, environment_door(name), ["sh", "-c", 'test -d "$1"', "-", path]) == 0
    return False


def _fetch(session: Session, name: str, path: str, target: Path) -> None:
    with TemporaryDirectory(dir=target.parent if target.parent.is_dir() else None) as scratch:
        with session.client.env.get_files(name, path) as pieces:
            _unpack(pieces, Path(scratch))
        found = next(Path(scratch).iterdir(), None)
        if found is None:
            raise NotFoundError(f"{name}:{path} is nothing that can be copied", "name a file or a folder")
        final = target / found.name if target.is_dir() else target
        if final.is_dir() and not found.is_dir():
            raise ConflictError(f"{final} is a folder", "name another target")
        if final.is_dir():
            _merge(found, final)
        else:
            found.rename(final)
    session.printer.say(f"copied {name}:{path} to {final}")


def _unpack(pieces: Iterator[bytes], folder: Path) -> None:
    """Nothing leads out of the folder, and no device or foreign owner is made (PEP 706, the `data` filter)."""
    try:
        with tarfile.open(fileobj=PieceReader(pieces), mode="r|") as tar:  # type: ignore[call-overload]
            tar.extractall(folder, filter="data")
    except tarfile.TarError as error:
        raise HakuRiverError(f"what came cannot be unpacked: {error}", "copy less of it") from None


def _merge(source: Path, target: Path) -> None:
    for child in source.iterdir():
        other = target / child.name
        if child.is_dir() and not child.is_symlink() and other.is_dir():
            _merge(child, other)
        else:
            child.replace(other)


def _escaped(name: str) -> str:
    return re.sub(r"([.*\[\]^$,\\])", r"\\\1", name)


def _unreadable(path: Path, error: OSError) -> HakuRiverError:
    kind = NotFoundError if isinstance(error, FileNotFoundError) else UsageError
    return cast("HakuRiverError", kind(f"cannot read {path}: {error.strerror}", "check the path"))
