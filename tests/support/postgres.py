"""A PostgreSQL server of the tests' own, in a temporary folder, reached by a Unix socket.

The server refuses to run as root: as root it runs as the user `postgres`, or `nobody`.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from support.waiting import until

_USER = "postgres"
_SETTINGS = ("fsync=off", "max_connections=60", "shared_buffers=16MB")
_numbers = itertools.count(1)


def why_not() -> str | None:
    """Why no server can run here, or None when one can."""
    return None if programs() else "the PostgreSQL server programs (initdb, postgres) are not here"


class Server:
    """A running server; `new_database` makes an empty database and returns its SQLAlchemy URL."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def new_database(self) -> str:
        name = f"t{os.getpid()}_{next(_numbers)}"
        with self._connect() as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return f"postgresql+psycopg://{_USER}@/{name}?host={self._folder}"

    def drop_database(self, url: str) -> None:
        name = url.partition("@/")[2].partition("?")[0]
        with self._connect() as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())

    def answers(self) -> bool:
        try:
            self._connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def _connect(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(host=str(self._folder), user=_USER, dbname="postgres", autocommit=True)


@contextmanager
def server() -> Iterator[Server]:
    """Starts a server, and ends it and its data afterwards."""
    found = programs()
    assert found is not None
    # A short path: a Unix socket's is limited to 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="hk-pg-"))
    prefix = _as_other_user(folder)
    data, log = folder / "data", folder / "log"
    initdb: list[str | Path] = [
        *prefix,
        found / "initdb",
        "--pgdata",
        data,
        "--username",
        _USER,
        "--auth",
        "trust",
        "--no-sync",
    ]
    subprocess.run(initdb, check=True, capture_output=True)
    options = itertools.chain.from_iterable(("-c", setting) for setting in _SETTINGS)
    command: list[str | Path] = [*prefix, found / "postgres", "-D", data, "-k", folder, "-h", "", *options]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=folder)
    running = Server(folder)
    try:
        until(running.answers, lambda: f"PostgreSQL answers; it says {log.read_text()}")
        yield running
    finally:
        process.terminate()
        process.wait(timeout=30)
        shutil.rmtree(folder)


def programs() -> Path | None:
    """The folder with `initdb` and `postgres`: Debian keeps them off PATH, one folder for each version."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next(
        (folder for folder in folders if (folder / "postgres").exists() and (folder / "initdb").exists()),
        None,
    )


def _as_other_user(folder: Path) -> list[str]:
    if os.geteuid() != 0:
        return []
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    user = names.get(_USER) or names["nobody"]
    os.chown(folder, user.pw_uid, user.pw_gid)
    return ["setpriv", "--reuid", str(user.pw_uid), "--regid", str(user.pw_gid), "--clear-groups"]
