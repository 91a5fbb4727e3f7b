"""Opening the database: SQLite in WAL mode by default, PostgreSQL by its URL, migrated at start.

SQLite runs with `synchronous=FULL`: an acknowledged submission survives a power cut. The writer pays it
once for a group of commits.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event, inspect, text
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.pool import ConnectionPoolEntry

from hakuriver.errors import StorageError

MIGRATIONS = Path(__file__).parent / "migrations"
HEAD = "0002"
"""The newest revision; a test holds it against the migrations."""


def open_database(url: str) -> Engine:
    """The engine of a database whose schema is the newest.

    Raises:
        StorageError: it cannot be opened, is not a database, or is of a newer version.

    """
    try:
        engine = _engine(url)
        migrate(engine)
    except (DBAPIError, OSError) as error:
        cause = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise StorageError(f"cannot use the database {_shown(url)}: {cause}", _hint(cause)) from None
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise StorageError(
            f"cannot use the database URL {_shown(url)}: {error}",
            "see database.url in the configuration reference",
        ) from None
    return engine


def migrate(engine: Engine) -> None:
    """Brings the schema to the newest version.

    Alembic is loaded only where there is something to do: it costs a restart half a second and 10 MB.
    """
    if _revision(engine) == HEAD:
        return
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415
    from alembic.util import CommandError  # noqa: PLC0415

    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise StorageError(
                f"the database is of another version of HakuRiver: {error}",
                "start the newer Host again, or restore a backup",
            ) from None


def _revision(engine: Engine) -> str | None:
    """Where the schema stands; none where there is no schema yet."""
    with engine.connect() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


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


def _hint(cause: str) -> str:
    if "not a database" in cause:
        return "move the file away, or restore it from a backup; database.db_file names it"
    if "disk" in cause and "full" in cause:
        return "free some space on its disk"
    return "check the path, its permissions and the disk; database.db_file or database.url names it"
