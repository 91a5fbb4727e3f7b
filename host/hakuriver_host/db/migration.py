"""Bringing a database to the newest schema, with a way back.

Before a SQLite database is migrated, a copy of it is laid beside it; with PostgreSQL a failed migration is undone by
the database, and a way back is the administrator's own backup. A database that is newer than this Host is left alone.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import Engine, inspect, text

from hakuriver.errors import StorageError
from hakuriver.version import __version__

if TYPE_CHECKING:
    from alembic.config import Config

log = structlog.get_logger(__name__)

MIGRATIONS = Path(__file__).parent / "migrations"
HEAD = "0007"
"""The newest revision; a test holds it against the migrations."""
COPIES_KEPT = 3


def migrate(engine: Engine) -> None:
    """Brings the schema to the newest version.

    Alembic is loaded only where there is something to do: it costs a restart half a second and 10 MB.

    Raises:
        StorageError: it is of a newer version, or no copy of it can be made first; it is as it was.

    """
    present = revision(engine)
    if present == HEAD:
        return
    file = Path(engine.url.database) if engine.dialect.name == "sqlite" and engine.url.database else None
    if present is None:
        _upgrade(engine)
        return
    if present not in known_revisions():
        raise _too_new(present, file)
    copy = None if file is None else keep_copy(file)
    log.info("migrating the database", before=present, after=HEAD, copy=copy and str(copy))
    _upgrade(engine)


def revision(engine: Engine) -> str | None:
    """Where the schema stands; none where there is no schema yet."""
    with engine.connect() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


def known_revisions() -> set[str]:
    """What this version can migrate from; files of migrations begin with their revision."""
    return {path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*.py")}


def keep_copy(file: Path) -> Path:
    """Lays a copy of the database beside it, named after the revision that it is about to get; keeps the last few.

    Raises:
        StorageError: it cannot be made.

    """
    copy = _free_name(file.with_name(f"{file.name}.before-{HEAD}"))
    try:
        copy_database(file, copy)
    except (OSError, sqlite3.Error) as error:
        raise StorageError(
            f"cannot copy the database {file} before migrating it: {error}",
            "free some space on its disk and start again; the database is as it was",
        ) from None
    for old in copies(file)[COPIES_KEPT:]:
        old.unlink(missing_ok=True)
    return copy


def copies(file: Path) -> list[Path]:
    """The copies beside a database, newest first."""
    found = [path for path in file.parent.glob(f"{file.name}.before-*") if path.suffix != ".new"]
    return sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True)


def copy_database(source: Path, target: Path) -> None:
    """Copies a SQLite database as it is at one moment, also while it is written to; whole or not at all."""
    temporary = target.with_name(f"{target.name}.new")
    try:
        temporary.unlink(missing_ok=True)
        temporary.touch(mode=0o600)
        with closing(sqlite3.connect(source)) as opened, closing(sqlite3.connect(temporary)) as made:
            opened.backup(made)
            # The copy is one file, without the log that a database in WAL mode has beside it.
            made.execute("PRAGMA journal_mode=DELETE")
        sync(temporary)
        temporary.rename(target)
        sync(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Waits until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_revision(file: Path) -> str | None:
    """The revision of a SQLite file; none when it is not a Host's database."""
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as opened:
            row = opened.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.Error:
        return None
    return None if row is None else str(row[0])


def _upgrade(engine: Engine) -> None:
    from alembic import command  # noqa: PLC0415

    run_alembic(engine, lambda config: command.upgrade(config, "head"))


def run_alembic(engine: Engine, action: Callable[[Config], None]) -> None:
    """Runs an action of Alembic's in one transaction: it is done in full or not at all."""
    from alembic.config import Config  # noqa: PLC0415

    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            # By itself Python's driver begins no transaction for changes of the schema.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        action(config)


def _too_new(present: str, file: Path | None) -> StorageError:
    usable = [copy for copy in copies(file) if file_revision(copy) in known_revisions()] if file else []
    back = (
        f"go back with `hakuriver state restore --force {usable[0]}` (what came after it is lost)"
        if usable
        else "restore an older backup"
    )
    return StorageError(
        f"the database is of revision {present}, newer than this Host ({__version__} knows up to {HEAD})",
        f"install the newer version again, or {back}",
    )


def _free_name(wanted: Path) -> Path:
    """The name itself, or with a number behind it: an older copy is never written over."""
    path, number = wanted, 1
    while path.exists():
        number += 1
        path = wanted.with_name(f"{wanted.name}.{number}")
    return path
