"""Backup: one archive of all that a Host needs to go on elsewhere. The Host may run meanwhile."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from hakuriver.config import Settings
from hakuriver.errors import ConflictError, StorageError
from hakuriver.version import __version__
from hakuriver_host.db.migration import sync
from hakuriver_host.state.archive import KEYS, POSTGRESQL, SQLITE, pack
from hakuriver_host.state.databases import copy_sqlite, dump_postgresql, postgresql_revision, sqlite_file


def backup(settings: Settings, target: Path, say: Callable[[str], None]) -> None:
    """Writes the archive, readable by its owner alone, whole or not at all.

    Raises:
        ConflictError: there is a file of that name.
        StorageError: there is no Host's state, or something cannot be read or written.

    """
    target = target.expanduser().absolute()
    if target.exists():
        raise ConflictError(f"there is a file {target}", "give another name; no backup is written over")
    state_dir = settings.paths.state_dir
    if not (state_dir / "host.key").exists():
        raise StorageError(f"there is no Host's state in {state_dir}", "check paths.state_dir")
    try:
        # Beside the target: what is gathered is as large as the archive at least, and as secret.
        scratch = Path(tempfile.mkdtemp(prefix=".hakuriver-backup-", dir=target.parent))
        try:
            _write(settings, target, scratch, say)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise StorageError(
            f"cannot write the backup {target}: {error.strerror or error}",
            "check the path, its permissions and the disk",
        ) from None


def _write(settings: Settings, target: Path, scratch: Path, say: Callable[[str], None]) -> None:
    manifest, files = _database(settings, scratch, say)
    for name in KEYS:
        path = settings.paths.state_dir / name
        if path.exists():
            files[name] = path
    made = scratch / "archive"
    made.touch(mode=0o600)
    with made.open("wb") as archive:
        pack(archive, {**manifest, "version": __version__, "made_at": datetime.now(UTC)}, files)
    sync(made)
    made.rename(target)
    sync(target.parent)


def _database(
    settings: Settings, scratch: Path, say: Callable[[str], None]
) -> tuple[dict[str, object], dict[str, Path]]:
    """What the manifest says of the database, and the file that holds it."""
    file = sqlite_file(settings)
    if file is not None:
        copy = scratch / SQLITE
        return {"database": "sqlite", "revision": copy_sqlite(file, copy)}, {SQLITE: copy}
    revision = postgresql_revision(settings)
    if revision is None:
        raise StorageError("the database is empty", "start the Host once, or check database.url")
    manifest: dict[str, object] = {"database": "postgresql", "revision": revision}
    dump = scratch / POSTGRESQL
    if dump_postgresql(settings, dump):
        return manifest, {POSTGRESQL: dump}
    say("pg_dump is not on PATH: the backup holds keys and tokens alone. Dump the database with pg_dump too.")
    return manifest, {}
