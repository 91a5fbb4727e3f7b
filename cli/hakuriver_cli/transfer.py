"""Files on their way: tars made of folders here, archives sent and saved."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, cast

from hakuriver.errors import HakuRiverError, NotFoundError, UsageError
from hakuriver.pieces import pieces_of
from hakuriver.references import ENVIRONMENT_NAME

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
    rename = [] if name is None or name == folder.name else [_renaming(folder.name, name)]
    # GNU tar reads escapes in the names that it is told; other tars do not, and know no such option.
    literal = ["--no-unquote"] if "\\" in what else []
    return _tar(folder, [*rename, *literal, "-C", str(where), "-c", "--", what])


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


def _renaming(old: str, new: str) -> str:
    """Of members, and of what hard links name, but not of what symbolic links say. No name holds the `/` between the two."""
    pattern = re.sub(r"([.*\[\]^$\\])", r"\\\1", old)
    replacement = re.sub(r"([&\\])", r"\\\1", new)
    return f"--transform=s/^{pattern}/{replacement}/rSh"


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


def _unreadable(path: Path, error: OSError) -> HakuRiverError:
    kind = NotFoundError if isinstance(error, FileNotFoundError) else UsageError
    return cast("HakuRiverError", kind(f"cannot read {path}: {error.strerror}", "check the path"))
