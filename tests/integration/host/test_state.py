"""Backup and restore: what comes back is what was there, and what is not whole changes nothing."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import socket
import sqlite3
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from hakuriver.config import Settings
from hakuriver.errors import ConflictError, HakuRiverError, StorageError
from hakuriver_host import exclusive
from hakuriver_host.db import migration
from hakuriver_host.db.migration import HEAD
from hakuriver_host.state import databases
from hakuriver_host.state.archive import KEYS
from hakuriver_host.state.backup import backup
from hakuriver_host.state.restore import restore
from support.ports import free_port
from support.postgres import programs

said: list[str] = []


def settings_of(folder: Path, url: str | None = None) -> Settings:
    return Settings.model_validate(
        {
            "paths": {"shared_dir": folder / "shared", "state_dir": folder / "state"},
            "database": {"url": url},
            "network": {"host_bind_ip": "127.0.0.1", "host_port": free_port()},
        }
    )


@pytest.fixture
def settings(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Of the Host that `open_host` opens."""
    said.clear()
    if database_url.startswith("postgresql"):
        monkeypatch.setenv("PATH", str(programs()), prepend=":")
    return settings_of(tmp_path, database_url)


@pytest.fixture
async def used(open_host: Any, settings: Settings) -> dict[str, bytes]:
    """Keys and tokens of a Host that has been used, and stopped. It knows the user `before`."""
    async with open_host() as host:
        await host.user("before")
    return keys(settings)


def keys(settings: Settings) -> dict[str, bytes]:
    return {name: (settings.paths.state_dir / name).read_bytes() for name in KEYS}


def users(settings: Settings) -> set[str]:
    engine = create_engine(settings.database_url)
    with engine.connect() as connection:
        found = set(connection.execute(text("SELECT name FROM user_account")).scalars())
    engine.dispose()
    return found


def tree(folder: Path) -> dict[str, bytes]:
    """All that is in a folder, less the lock."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "host.lock"}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class TestThereAndBack:
    async def test_a_backup_of_a_running_host_is_restored_over_what_came_later(
        self, open_host: Any, settings: Settings, tmp_path: Path
    ) -> None:
        archive = tmp_path / "backup.tar.gz"
        async with open_host() as host:
            await host.user("before")
            backup(settings, archive, said.append)
            before = keys(settings)
            await host.user("after")
        assert archive.stat().st_mode & 0o777 == 0o600
        assert [name for name in names(tmp_path) if "backup" in name] == ["backup.tar.gz"]
        (settings.paths.state_dir / "host.key").write_text("another\n")
        with pytest.raises(ConflictError, match="there is a database already"):
            restore(settings, archive, said.append, force=False)
        assert "after" in users(settings)
        restore(settings, archive, said.append, force=True)
        assert (users(settings), keys(settings)) == ({"admin", "before"}, before)
        kept = [data for name, data in tree(settings.paths.state_dir).items() if ".replaced-" in name]
        assert b"another\n" in kept, "what was there is kept"
        async with open_host() as host:
            assert (await host.admin.get("/api/whoami")).json()["name"] == "admin"
            assert {user["name"] for user in (await host.admin.get("/api/users")).json()} == {
                "admin",
                "before",
            }

    async def test_a_token_that_the_backup_does_not_know_does_not_stay(
        self, used: dict[str, bytes], settings: Settings, tmp_path: Path
    ) -> None:
        (settings.paths.state_dir / "join.token").unlink()
        backup(settings, tmp_path / "b.tar.gz", said.append)
        (settings.paths.state_dir / "join.token").write_bytes(used["join.token"])
        restore(settings, tmp_path / "b.tar.gz", said.append, force=True)
        assert not (settings.paths.state_dir / "join.token").exists()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
class TestSqlite:
    @pytest.fixture
    def archive(self, used: dict[str, bytes], settings: Settings, tmp_path: Path) -> Path:
        backup(settings, tmp_path / "backup.tar.gz", said.append)
        return tmp_path / "backup.tar.gz"

    def test_on_a_new_machine(self, archive: Path, used: dict[str, bytes], tmp_path: Path) -> None:
        new = settings_of(tmp_path / "new")
        restore(new, archive, said.append, force=False)
        assert (users(new), keys(new)) == ({"admin", "before"}, used)
        assert names(new.paths.state_dir) == sorted(["host.db", "host.lock", *KEYS])
        modes = {path.stat().st_mode & 0o777 for path in new.paths.state_dir.iterdir()}
        assert modes == {0o600}

    def test_the_old_database_is_kept_with_its_log(self, archive: Path, settings: Settings) -> None:
        file = Path(settings.database_url.removeprefix("sqlite:///"))
        # As a Host leaves it that the power has ended: the last changes are in the log alone.
        opened = sqlite3.connect(file)
        opened.execute("PRAGMA journal_mode=WAL")
        opened.execute("PRAGMA wal_autocheckpoint=0")
        opened.execute("UPDATE user_account SET name = 'late' WHERE name = 'before'")
        opened.commit()
        log = file.with_name(f"{file.name}-wal").read_bytes()
        restore(settings, archive, said.append, force=True)
        opened.close()
        (kept,) = file.parent.glob(f"{file.name}.replaced-*Z-wal")
        assert kept.read_bytes() == log
        assert users(settings) == {"admin", "before"}

    def test_the_copy_that_a_migration_left(self, archive: Path, settings: Settings, tmp_path: Path) -> None:
        del archive
        file = Path(settings.database_url.removeprefix("sqlite:///"))
        copy = migration.keep_copy(file)
        with closing(sqlite3.connect(file)) as opened, opened:
            opened.execute("UPDATE alembic_version SET version_num = '9999'")
        before = keys(settings)
        restore(settings, copy, said.append, force=True)
        assert (users(settings), keys(settings)) == ({"admin", "before"}, before)
        assert copy.exists()
        (kept,) = file.parent.glob(f"{file.name}.replaced-*")
        assert kept not in migration.copies(file), "it is not one of those of which the last three are kept"

    @pytest.mark.parametrize("force", [False, True])
    def test_not_while_a_host_runs(self, archive: Path, settings: Settings, force: bool) -> None:
        before = tree(settings.paths.state_dir)
        with (
            exclusive.state_dir(settings.paths.state_dir),
            pytest.raises(ConflictError, match="in use"),
        ):
            restore(settings, archive, said.append, force=force)
        with socket.socket() as other:
            other.bind(("127.0.0.1", settings.network.host_port))
            other.listen()
            with pytest.raises(ConflictError, match="cannot listen"):
                restore(settings, archive, said.append, force=force)
        assert tree(settings.paths.state_dir) == before

    def test_a_backup_is_not_written_over(self, archive: Path, settings: Settings) -> None:
        with pytest.raises(ConflictError, match="there is a file"):
            backup(settings, archive, said.append)

    def test_a_state_that_is_none(self, database_url: str, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match="there is no Host's state"):
            backup(settings_of(tmp_path / "none"), tmp_path / "b.tar.gz", said.append)
        assert not (tmp_path / "b.tar.gz").exists()

    def test_a_database_that_is_damaged_is_not_backed_up(
        self, archive: Path, settings: Settings, tmp_path: Path
    ) -> None:
        del archive
        file = Path(settings.database_url.removeprefix("sqlite:///"))
        with closing(sqlite3.connect(file)) as connection:
            # What is in the write-ahead log still would hide the damage.
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        data = bytearray(file.read_bytes())
        data[4096 * 2 : 4096 * 6] = b"\xff" * (4096 * 4)
        file.write_bytes(data)
        with pytest.raises(StorageError, match=r"damaged|malformed"):
            backup(settings, tmp_path / "b.tar.gz", said.append)
        assert not (tmp_path / "b.tar.gz").exists()

    @pytest.mark.parametrize("part", [0.0, 0.02, 0.5, 0.99])
    def test_an_archive_that_ends_too_soon(self, archive: Path, tmp_path: Path, part: float) -> None:
        data = archive.read_bytes()
        archive.write_bytes(data[: int(len(data) * part)])
        refused(archive, tmp_path)

    def test_an_archive_with_a_changed_byte(self, archive: Path, tmp_path: Path) -> None:
        change(archive, lambda name, data: data[:-1] + b"\x00" if name == "host.key" else data)
        assert "its SHA-256 differs" in refused(archive, tmp_path)

    def test_an_archive_that_lacks_a_file(self, archive: Path, tmp_path: Path) -> None:
        change(archive, lambda name, data: None if name == "host.key" else data)
        assert "does not hold what its manifest says" in refused(archive, tmp_path)

    def test_an_archive_of_a_newer_version(self, archive: Path, tmp_path: Path) -> None:
        change_manifest(archive, revision="9999", version="9.0.0")
        assert "newer HakuRiver (9.0.0, revision 9999; this one is" in refused(archive, tmp_path)

    def test_a_database_that_is_another_than_the_manifest_says(self, archive: Path, tmp_path: Path) -> None:
        change_manifest(archive, revision="0001")
        assert HEAD != "0001"
        assert "do not agree" in refused(archive, tmp_path)

    def test_a_backup_of_the_other_kind_of_database(self, archive: Path, tmp_path: Path) -> None:
        change_manifest(archive, database="postgresql")
        assert "is of a Host with postgresql" in refused(archive, tmp_path)

    @pytest.mark.parametrize(
        "name", ["../escaped", "/tmp/escaped", "host.db/../../escaped", "other", "host.db-wal"]
    )
    def test_members_that_are_none_of_ours(self, archive: Path, tmp_path: Path, name: str) -> None:
        add(archive, tarfile.TarInfo(name))
        assert f"it holds {name!r}" in refused(archive, tmp_path)
        assert not list(tmp_path.rglob("escaped"))

    @pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
    def test_members_that_are_no_files(self, archive: Path, tmp_path: Path, kind: bytes) -> None:
        change(archive, lambda name, data: None if name == "host.key" else data)
        member = tarfile.TarInfo("host.key")
        member.type, member.linkname = kind, "/etc/passwd"
        add(archive, member)
        assert "it holds 'host.key'" in refused(archive, tmp_path)

    def test_something_twice(self, archive: Path, tmp_path: Path) -> None:
        add(archive, tarfile.TarInfo("host.key"))
        assert "twice" in refused(archive, tmp_path)

    @pytest.mark.parametrize(
        "content",
        [b"", b"a letter\n" * 100, gzip.compress(b"a letter\n" * 100)],
        ids=["empty", "text", "compressed text"],
    )
    def test_what_is_no_archive(self, database_url: str, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "letter").write_bytes(content)
        refused(tmp_path / "letter", tmp_path)

    def test_another_programs_archive(self, database_url: str, tmp_path: Path) -> None:
        with tarfile.open(tmp_path / "other.tar.gz", "w:gz") as other:
            other.add(__file__, "host.key")
        assert "does not begin with a manifest" in refused(tmp_path / "other.tar.gz", tmp_path)

    def test_a_restore_that_breaks_off_is_told_of_and_done_again(
        self, archive: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = Path.rename

        def breaks(self: Path, target: Path) -> Path:
            if Path(target).name == "host.key":
                raise OSError(5, "Input/output error")
            return real(self, target)

        state_dir = settings.paths.state_dir
        exclusive.check_whole(state_dir)
        monkeypatch.setattr(Path, "rename", breaks)
        with pytest.raises(OSError, match="Input/output"):
            restore(settings, archive, said.append, force=True)
        monkeypatch.undo()
        with pytest.raises(StorageError, match="was broken off"):
            exclusive.check_whole(state_dir)
        restore(settings, archive, said.append, force=True)
        exclusive.check_whole(state_dir)
        assert users(settings) == {"admin", "before"}


@pytest.mark.postgresql
@pytest.mark.parametrize("database_url", [pytest.param("postgresql")], indirect=True)
class TestPostgresql:
    async def test_without_pg_dump_keys_are_saved_and_it_says_so(
        self, used: dict[str, bytes], settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(shutil, "which", lambda _name: None)
        backup(settings, tmp_path / "b.tar.gz", said.append)
        assert "pg_dump is not on PATH" in said[-1]
        with tarfile.open(tmp_path / "b.tar.gz") as archive:
            assert archive.getnames() == ["manifest.json", *KEYS]
        (settings.paths.state_dir / "host.key").write_text("another\n")
        restore(settings, tmp_path / "b.tar.gz", said.append, force=True)
        assert keys(settings) == used
        assert any("holds no database" in line for line in said)

    async def test_a_load_that_fails_leaves_all_as_it_was(
        self, used: dict[str, bytes], settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        del used
        backup(settings, tmp_path / "b.tar.gz", said.append)
        (settings.paths.state_dir / "host.key").write_text("another\n")

        def fails(*_: Any) -> None:
            raise StorageError("pg_restore failed: no", "mend it")

        monkeypatch.setattr(databases, "load_postgresql", fails)
        with pytest.raises(StorageError, match="pg_restore failed"):
            restore(settings, tmp_path / "b.tar.gz", said.append, force=True)
        assert (settings.paths.state_dir / "host.key").read_text() == "another\n"
        exclusive.check_whole(settings.paths.state_dir)


def refused(archive: Path, tmp_path: Path) -> str:
    """What is said; a Host's state is as it was, and a new machine gets nothing."""
    new = settings_of(tmp_path / "new")
    new.paths.state_dir.mkdir(parents=True)
    with pytest.raises(HakuRiverError) as caught:
        restore(new, archive, said.append, force=True)
    assert caught.value.hint
    assert tree(new.paths.state_dir) == {}
    return caught.value.message


Change = Callable[[str, bytes], bytes | None]


def members(archive: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(archive) as opened:
        for member in opened.getmembers():
            content = opened.extractfile(member)
            assert content is not None
            yield member.name, content.read()


def change(archive: Path, how: Change) -> None:
    """Writes the archive anew, with members changed or, where `how` gives none, left out."""
    found = [(name, how(name, data)) for name, data in members(archive)]
    with tarfile.open(archive, "w:gz") as made:
        for name, data in found:
            if data is not None:
                put(made, tarfile.TarInfo(name), data)


def change_manifest(archive: Path, **fields: Any) -> None:
    def changed(name: str, data: bytes) -> bytes:
        return json.dumps({**json.loads(data), **fields}).encode() if name == "manifest.json" else data

    change(archive, changed)


def add(archive: Path, member: tarfile.TarInfo) -> None:
    found = list(members(archive))
    with tarfile.open(archive, "w:gz") as made:
        for name, data in found:
            put(made, tarfile.TarInfo(name), data)
        put(made, member, b"")


def put(archive: tarfile.TarFile, member: tarfile.TarInfo, data: bytes) -> None:
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def test_the_manifest_tells_what_is_in_it(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (state / "host.key").write_bytes(b"key\n")
    settings = settings_of(tmp_path)
    migration.migrate(create_engine(settings.database_url))
    backup(settings, tmp_path / "b.tar.gz", said.append)
    found = dict(members(tmp_path / "b.tar.gz"))
    manifest = json.loads(found["manifest.json"])
    assert (manifest["format"], manifest["revision"], manifest["database"]) == (1, HEAD, "sqlite")
    assert manifest["files"]["host.key"] == {"sha256": hashlib.sha256(b"key\n").hexdigest(), "bytes": 4}
    assert sorted(manifest["files"]) == ["host.db", "host.key"]
