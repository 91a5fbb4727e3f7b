"""The two kinds of database, as backup and restore see them: a SQLite file, or PostgreSQL by its own programs."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

from sqlalchemy import URL, create_engine, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from hakuriver.config import Settings
from hakuriver.errors import StorageError
from hakuriver_host.db.migration import copy_database, file_revision, revision

_NO_HOST = "start the Host once, or check database.db_file and database.url"


def sqlite_file(settings: Settings) -> Path | None:
    """The database's file; none with PostgreSQL."""
    try:
        url = make_url(settings.database_url)
    except ArgumentError as error:
        raise StorageError(f"cannot use the database URL: {error}", "see database.url") from None
    return Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None


def copy_sqlite(file: Path, target: Path) -> str:
    """Copies the file as it is at one moment, and gives its revision.

    Raises:
        StorageError: there is no Host's database, it is damaged, or the copy cannot be written.

    """
    if not file.exists():
        raise StorageError(f"there is no database {file}", _NO_HOST)
    try:
        copy_database(file, target)
    except (OSError, sqlite3.Error) as error:
        raise StorageError(
            f"cannot copy the database {file}: {error}", "check the disk and the permissions"
        ) from None
    return check_sqlite(target, shown=file)


def check_sqlite(file: Path, *, shown: Path) -> str:
    """The revision of a file that is whole.

    Raises:
        StorageError: it is damaged, or no Host's.

    """
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as opened:
            ((verdict,), *_) = opened.execute("PRAGMA quick_check(1)").fetchall()
    except sqlite3.Error as error:
        verdict = str(error)
    if verdict != "ok":
        raise StorageError(f"the database {shown} is damaged: {verdict}", "restore an older backup")
    found = file_revision(file)
    if found is None:
        raise StorageError(f"{shown} is not a Host's database", _NO_HOST)
    return found


def postgresql_revision(settings: Settings) -> str | None:
    """None when the database is empty."""
    try:
        engine = create_engine(settings.database_url)
        try:
            return revision(engine)
        finally:
            engine.dispose()
    except (SQLAlchemyError, ModuleNotFoundError) as error:
        cause = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise StorageError(f"cannot use the database: {cause}", "check database.url") from None


def dump_postgresql(settings: Settings, target: Path) -> bool:
    """Dumps the database; False when `pg_dump` is not there."""
    if shutil.which("pg_dump") is None:
        return False
    target.touch(mode=0o600)
    _run(settings, "pg_dump", "--format=custom", f"--file={target}")
    return True


def load_postgresql(settings: Settings, dump: Path) -> None:
    """Replaces what is in the database by a dump, in one transaction.

    Raises:
        StorageError: `pg_restore` is not there, or fails; the database is as it was.

    """
    if shutil.which("pg_restore") is None:
        raise StorageError(
            "the backup holds a PostgreSQL database, and pg_restore is not on PATH",
            "install PostgreSQL's client programs",
        )
    _run(settings, "pg_restore", "--clean", "--if-exists", "--no-owner", "--single-transaction", str(dump))


def _run(settings: Settings, program: str, *arguments: str) -> None:
    """Runs one of PostgreSQL's programs. The password travels in its environment, where others cannot see it."""
    url = make_url(settings.database_url).set(drivername="postgresql")
    environment = {**os.environ, **({"PGPASSWORD": str(url.password)} if url.password else {})}
    shown = URL.create(
        "postgresql", url.username, None, url.host, url.port, url.database, url.query
    ).render_as_string()
    done = subprocess.run(
        [program, f"--dbname={shown}", *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise StorageError(f"{program} failed: {said[:500]}", "mend what it says; nothing was changed")


def is_sqlite(file: Path) -> bool:
    """Whether a file is a SQLite database, by its first bytes (https://www.sqlite.org/fileformat.html)."""
    with file.open("rb") as opened:
        return opened.read(16) == b"SQLite format 3\0"
