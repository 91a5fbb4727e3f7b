"""The archive of a backup: a tar.gz with a manifest, and who may be in it.

What is read from one is looked at before it is believed: names that are not ours, links, sums that differ and files
that end too soon are refused, and nothing is written outside the places that the caller gives.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from hakuriver.errors import StorageError, UsageError

MANIFEST = "manifest.json"
SQLITE = "host.db"
POSTGRESQL = "database.pgdump"
KEYS = ("host.key", "admin.token", "join.token")
"""Files of the state directory."""
_NAMES = frozenset({SQLITE, POSTGRESQL, *KEYS})
_FORMAT = 1
_LARGEST_MANIFEST = 1_000_000
_PIECE = 1 << 20


class Sum(BaseModel):
    model_config = ConfigDict(extra="ignore")

    sha256: str
    bytes: int


class Manifest(BaseModel):
    """What the archive says of itself. It is its first member."""

    model_config = ConfigDict(extra="ignore")

    format: Literal[1]
    version: str
    """Of the HakuRiver that made it."""
    revision: str
    """Of the database's schema."""
    made_at: datetime
    database: Literal["sqlite", "postgresql"]
    files: dict[str, Sum]


def pack(target: IO[bytes], manifest: Mapping[str, object], files: Mapping[str, Path]) -> None:
    """Writes the archive; `manifest` lacks the format and the sums, which are made here."""
    sums = {name: _sum(path) for name, path in files.items()}
    described = Manifest.model_validate({**manifest, "format": _FORMAT, "files": sums})
    with tarfile.open(fileobj=target, mode="w:gz", compresslevel=6) as archive:
        text = described.model_dump_json(indent=2).encode()
        archive.addfile(_entry(MANIFEST, len(text)), io.BytesIO(text))
        for name, path in files.items():
            with path.open("rb") as file:
                archive.addfile(_entry(name, sums[name].bytes), file)


def unpack(source: Path, place: Callable[[str], Path]) -> Manifest:
    """Writes the members to where `place` says, readable by their owner alone, and checks all of them.

    Raises:
        UsageError: it is not a backup of HakuRiver.
        StorageError: it is damaged, or cannot be read or written.

    """
    with _told(source), tarfile.open(source, "r:gz") as archive:
        first, *rest = _members(archive, source)
        if first.name != MANIFEST or first.size > _LARGEST_MANIFEST:
            raise foreign(source, "it does not begin with a manifest")
        manifest = _manifest(_content(archive, first).read(), source)
        if unknown := sorted(manifest.files.keys() - _NAMES):
            raise foreign(source, f"its manifest names {unknown[0]!r}")
        if {member.name for member in rest} != manifest.files.keys():
            raise StorageError(f"{source} does not hold what its manifest says", "use another backup")
        for member in rest:
            told = manifest.files[member.name]
            if _copied(_content(archive, member), place(member.name)) != told:
                raise StorageError(
                    f"{member.name} in {source} is not what was put there: its SHA-256 differs",
                    "use another backup",
                )
    return manifest


def foreign(source: Path, why: str) -> UsageError:
    return UsageError(
        f"{source} is not a backup of HakuRiver: {why}", "give a file that `hakuriver state backup` wrote"
    )


def _members(archive: tarfile.TarFile, source: Path) -> list[tarfile.TarInfo]:
    """All of them, before any is read."""
    members = archive.getmembers()
    for member in members:
        if not member.isreg() or member.name not in {MANIFEST, *_NAMES}:
            raise foreign(source, f"it holds {member.name!r}")
    names = [member.name for member in members]
    if not names or len(names) != len(set(names)):
        raise foreign(source, "it holds nothing, or something twice")
    return members


def _manifest(text: bytes, source: Path) -> Manifest:
    try:
        return Manifest.model_validate_json(text)
    except ValidationError:
        raise foreign(source, "its manifest is not one that this version understands") from None


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    content = archive.extractfile(member)
    if content is None:
        raise AssertionError("a regular file has content")
    return content


@contextmanager
def _told(source: Path) -> Iterator[None]:
    """What can go wrong with an archive, in our words."""
    try:
        yield
    except tarfile.ReadError as error:
        if "unexpected end" in str(error):
            raise _damaged(source, error) from None
        raise foreign(source, str(error)) from None
    except (EOFError, zlib.error, tarfile.TarError) as error:
        raise _damaged(source, error) from None
    except OSError as error:
        if error.strerror is None:  # gzip.BadGzipFile: its own sums differ.
            raise _damaged(source, error) from None
        raise StorageError(
            f"cannot restore {error.filename or source}: {error.strerror}",
            "check the path, its permissions and the disk",
        ) from None


def _damaged(source: Path, error: Exception) -> StorageError:
    return StorageError(f"{source} is damaged or ends too soon: {error}", "use another backup")


def _copied(content: IO[bytes], target: Path) -> Sum:
    digest, size = hashlib.sha256(), 0
    target.unlink(missing_ok=True)
    target.touch(mode=0o600)
    with target.open("wb") as file:
        while piece := content.read(_PIECE):
            digest.update(piece)
            size += file.write(piece)
    return Sum(sha256=digest.hexdigest(), bytes=size)


def _sum(path: Path) -> Sum:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    return Sum(sha256=digest.hexdigest(), bytes=path.stat().st_size)


def _entry(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o600
    return entry
