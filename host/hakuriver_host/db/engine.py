"""Opening the database: SQLite in WAL mode by default, PostgreSQL by its URL, migrated at start.

SQLite runs with `synchronous=FULL`: an acknowledged submission survives a power cut. The writer pays it
once for a group of commits.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.pool import ConnectionPoolEntry

from hakuriver.errors import StorageError
from hakuriver_host.db.migration import migrate

_OURS = {"alembic_version", "batch", "task", "event", "node", "meta"}
"""Tables that every revision has."""


def open_database(url: str) -> Engine:
    """The engine of a database whose schema is the newest.

    Raises:
        StorageError: it cannot be opened, is not a database, or is of a newer version.

    """
    try:
        if url.startswith("sqlite:///"):
            _check_ours(Path(url.removeprefix("sqlite:///")))
        engine = _engine(url)
        migrate(engine)
    except (DBAPIError, OSError) as error:
        cause = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise StorageError(f"cannot use the database {_shown(url)}: {cause}", _hint(url, cause)) from None
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise StorageError(
            f"cannot use the database URL {_shown(url)}: {error}",
            "see database.url in the configuration reference",
        ) from None
    return engine


def _check_ours(file: Path) -> None:
    """Refuses another program's database before anything in it is touched."""
    if not file.is_file():
        return
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as opened:
            tables = {
                name for (name,) in opened.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            }
    except sqlite3.Error:
        return  # What is wrong with it shows when it is opened.
    if tables and not tables >= _OURS:
        raise StorageError(
            f"{file} is a database of another program (it holds the table {min(tables)})",
            "name another file in database.db_file",
        )


def _engine(url: str) -> Engine:
    if not url.startswith("sqlite"):
        return create_engine(url, pool_pre_ping=True)
    path = Path(url.removeprefix("sqlite:///"))
    path.parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, connect_args={"timeout": 30})
    event.listen(engine, "connect", _set_pragmas)
    return engine


def _set_pragmas(connection: Any, _record: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "temp_store=MEMORY"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _shown(url: str) -> str:
    """The URL without a password."""
    if url.startswith("sqlite:///"):
        return url.removeprefix("sqlite:///")
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def _hint(url: str, cause: str) -> str:
    if not url.startswith("sqlite"):
        return "see that the server runs and lets this user in; database.url names it"
    if "not a database" in cause:
        return "move the file away, or restore it from a backup; database.db_file names it"
    if "disk" in cause and "full" in cause:
        return "free some space on its disk"
    return "check the path, its permissions and the disk; database.db_file names it"
