"""Where things lie in the store, and how a file appears there: whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from hakuriver.errors import StorageError

BLOBS, VERSIONS, HEADS, TEMPORARY = "blobs/sha256", "versions", "heads", "tmp"
LIFE = secrets.token_hex(8)
"""Names this life of the process."""


def blob_path(root: Path, diff_id: str) -> Path:
    return root / BLOBS / f"{diff_id.removeprefix('sha256:')}.tar.zst"


def manifest_path(root: Path, name: str, version: int) -> Path:
    return root / VERSIONS / name / f"{version}.json"


def head_path(root: Path, name: str) -> Path:
    return root / HEADS / f"{name}.json"


def archive_path(root: Path, name: str, version: int) -> Path:
    return root / f"{name}-{version}.tar"


@contextlib.contextmanager
def appearing(root: Path, final: Path) -> Iterator[IO[bytes]]:
    """A file to write; it appears as `final` when the block ends well, synced, and leaves nothing otherwise.

    Raises:
        StorageError: the share does not take it.
    """
    temporary = temporary_path(root)
    try:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        appear(temporary, final)
    except OSError as error:
        raise cannot_write(root, error) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def temporary_path(root: Path) -> Path:
    """A name that nobody else uses; this process's begin with `LIFE`, so that an earlier one's are known."""
    return root / TEMPORARY / f"{LIFE}-{secrets.token_hex(8)}"


def appear(temporary: Path, final: Path) -> None:
    """Renames a synced file into place, durably."""
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary.rename(final)
    folder = os.open(final.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def cannot_write(root: Path, error: OSError) -> StorageError:
    return StorageError(
        f"cannot write to the share's {root.name}: {error.strerror or error}",
        "free some space there (`hakuriver env gc`), or check its mount and permissions; nothing was changed",
    )
