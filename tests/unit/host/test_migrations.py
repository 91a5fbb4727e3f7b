"""Migrations: they lead to the tables that the code declares, and what is not a database of ours is told in one line."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic import command, op
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, inspect, text
from sqlmodel import SQLModel

from hakuriver.errors import StorageError
from hakuriver_host.db import migration
from hakuriver_host.db.engine import open_database
from hakuriver_host.db.migration import HEAD, MIGRATIONS, copies, file_revision, run_alembic
from hakuriver_host.db.repository import Repository

FIRST = "0001"
ROWS: dict[str, dict[str, Any]] = {
    "batch": {
        "batch_id": 2**62,
        "owner": "ada",
        "submitted_at": 1,
        "spec": '{"command":"echo"}',
        "environment": None,
        "environment_version": None,
        "default_user": "1:1",
        "failed_targets": "[]",
        "idempotency_key": "k",
        "request_digest": "d",
    },
    "node": {
        "name": "a",
        "nonce": "n",
        "url": "http://a",
        "version": "0.3.0",
        "journal_id": "j",
        "capacity": '{"cores": 4}',
        "engines": "[]",
        "engine_notes": "{}",
        "numa_topology": None,
        "gpu_info": "[]",
        "problem": "Größe 漢",
        "online": True,
        "last_heartbeat": 5,
        "joined_at": 4,
    },
    "meta": {"key": "share_id", "value": "x"},
    "user_account": {"name": "ada", "role": "admin", "uid": None, "gid": None, "created_at": 1},
}
"""Of tables as the first revision has them."""


def go(engine: Engine, revision: str) -> None:
    """Up or down to a revision."""
    order = [script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions()][::-1]
    present = migration.revision(engine)
    up = present is None or (revision in order and order.index(revision) > order.index(present))
    run_alembic(engine, lambda config: (command.upgrade if up else command.downgrade)(config, revision))


def fill(engine: Engine) -> None:
    with engine.begin() as connection:
        for table, row in ROWS.items():
            columns = ", ".join(row)
            values = ", ".join(f":{name}" for name in row)
            connection.execute(text(f"INSERT INTO {table} ({columns}) VALUES ({values})"), row)  # noqa: S608


def filled(engine: Engine) -> dict[str, dict[str, Any]]:
    """What is in the columns of the first revision now."""
    with engine.connect() as connection:
        return {
            table: dict(connection.execute(text(f"SELECT {', '.join(row)} FROM {table}")).one()._mapping)  # noqa: S608
            for table, row in ROWS.items()
        }


def at_first(path: Path) -> str:
    """The URL of a database as the first version of the Host left it, with rows."""
    engine = create_engine(f"sqlite:///{path}")
    go(engine, FIRST)
    fill(engine)
    engine.dispose()
    return f"sqlite:///{path}"


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """An empty database."""
    postgresql = request.param == "postgresql"
    url = request.getfixturevalue("postgresql_url") if postgresql else f"sqlite:///{tmp_path / 'host.db'}"
    made = create_engine(url)
    yield made
    made.dispose()


def test_the_head_is_the_newest_revision() -> None:
    assert ScriptDirectory(str(MIGRATIONS)).get_current_head() == HEAD


def test_migrations_lead_to_the_declared_tables(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'host.db'}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), SQLModel.metadata) == []


@pytest.mark.postgresql
def test_they_do_on_postgresql_too(postgresql_url: str) -> None:
    engine = open_database(postgresql_url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), SQLModel.metadata) == []
    engine.dispose()


def test_sqlite_loses_no_acknowledged_write_with_the_power(tmp_path: Path) -> None:
    with open_database(f"sqlite:///{tmp_path / 'host.db'}").connect() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar_one() == "wal"
        assert connection.execute(text("PRAGMA synchronous")).scalar_one() == 2, "FULL"


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "host.db"
    path.write_text("this is a letter, not a database\n" * 200)
    with pytest.raises(StorageError, match="not a database"):
        open_database(f"sqlite:///{path}")
    assert path.read_text().startswith("this is a letter"), "it is left as it was"


def test_a_database_of_a_newer_version(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'host.db'}"
    with open_database(url).begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StorageError, match="revision 9999, newer than this Host") as caught:
        open_database(url)
    assert caught.value.hint == "install the newer version again, or restore an older backup"
    copy = tmp_path / "host.db.before-9999"
    migration.copy_database(tmp_path / "host.db", copy)
    with closing(sqlite3.connect(copy)) as older, older:
        older.execute("UPDATE alembic_version SET version_num = ?", (HEAD,))
    with pytest.raises(StorageError) as caught:
        open_database(url)
    assert f"`hakuriver state restore --force {copy}`" in caught.value.hint
    with create_engine(url).connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == "9999"
    assert copies(tmp_path / "host.db") == [copy], "what cannot be migrated is not copied"


def test_up_and_down_again_with_data(engine: Engine) -> None:
    go(engine, FIRST)
    fill(engine)
    order = [script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions()][::-1]
    for revision in [*order[1:], *reversed(order[:-1])]:
        go(engine, revision)
        assert (migration.revision(engine), filled(engine)) == (revision, ROWS)
    migration.migrate(engine)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), SQLModel.metadata) == []
    assert filled(engine) == ROWS
    for revision in [*reversed(order[:-1]), "base"]:
        go(engine, revision)
    assert inspect(engine).get_table_names() == ["alembic_version"]


def test_rows_of_an_older_version_are_read(tmp_path: Path) -> None:
    engine = open_database(at_first(tmp_path / "host.db"))
    ((node, record),) = Repository(engine).load().nodes
    assert (node.name, node.cordoned, node.draining, record.nonce) == ("a", False, False, "n")


def test_a_copy_is_laid_beside_before_it_is_migrated(tmp_path: Path) -> None:
    url = at_first(tmp_path / "host.db")
    open_database(url).dispose()
    copy = tmp_path / f"host.db.before-{HEAD}"
    assert copies(tmp_path / "host.db") == [copy]
    assert (file_revision(copy), file_revision(tmp_path / "host.db")) == (FIRST, HEAD)
    assert filled(create_engine(f"sqlite:///{copy}")) == ROWS
    assert copy.stat().st_mode & 0o777 == 0o600
    open_database(url).dispose()
    assert copies(tmp_path / "host.db") == [copy], "a start without migration copies nothing"
    assert {path.name for path in tmp_path.iterdir()} <= {"host.db", "host.db-wal", "host.db-shm", copy.name}


def test_the_last_three_copies_are_kept(tmp_path: Path) -> None:
    made = []
    for _ in range(5):
        (tmp_path / "host.db").unlink(missing_ok=True)
        open_database(at_first(tmp_path / "host.db")).dispose()
        made.append(copies(tmp_path / "host.db")[0])
    assert copies(tmp_path / "host.db") == made[:1:-1]


def test_what_cannot_be_copied_is_not_migrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    url = at_first(tmp_path / "host.db")
    monkeypatch.setattr(migration, "sync", full)
    with pytest.raises(StorageError, match=r"before migrating it: .*No space left"):
        open_database(url)
    assert file_revision(tmp_path / "host.db") == FIRST
    assert copies(tmp_path / "host.db") == []


def test_a_migration_that_breaks_off_changes_nothing(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = op.add_column, []

    def breaks(*args: Any, **options: Any) -> None:
        calls.append(args)
        if len(calls) > 1:
            raise OSError(errno.EIO, "Input/output error")
        real(*args, **options)

    go(engine, FIRST)
    fill(engine)
    monkeypatch.setattr(op, "add_column", breaks)
    with pytest.raises(OSError, match="Input/output"):
        migration.migrate(engine)
    assert (migration.revision(engine), filled(engine)) == (FIRST, ROWS)
    assert "cordoned" not in {column["name"] for column in inspect(engine).get_columns("node")}
    monkeypatch.undo()
    migration.migrate(engine)
    assert migration.revision(engine) == HEAD


@pytest.mark.parametrize(
    "url", ["nonsense", "mysql://x/y", "postgresql+psycopg://user:secret@127.0.0.1:9/none"]
)
def test_a_url_that_leads_nowhere_is_told_without_its_password(url: str) -> None:
    with pytest.raises(StorageError) as caught:
        open_database(url)
    assert "secret" not in caught.value.message + caught.value.hint


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "other.db"
    with closing(sqlite3.connect(file)) as opened, opened:
        opened.execute("CREATE TABLE photos (name TEXT)")
    before = file.read_bytes()
    with pytest.raises(StorageError, match=r"another program.*photos"):
        open_database(f"sqlite:///{file}")
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]
