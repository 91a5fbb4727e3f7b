"""Restore: puts a backup in the place of what a Host keeps. What was there is kept aside."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from hakuriver.config import Settings
from hakuriver.errors import ConflictError, StorageError
from hakuriver.version import __version__
from hakuriver_host import exclusive
from hakuriver_host.db.migration import HEAD, copy_database, known_revisions, sync
from hakuriver_host.state import databases
from hakuriver_host.state.archive import KEYS, POSTGRESQL, SQLITE, foreign, unpack


def restore(settings: Settings, source: Path, say: Callable[[str], None], *, force: bool) -> None:
    """Restores an archive, or the copy of a SQLite database that a migration has left.

    Everything is checked before anything is changed.

    Raises:
        UsageError: the file is no backup, or something listens on the Host's port.
        ConflictError: a Host runs here, or there is a database and it is not forced away.
        StorageError: the backup is damaged or too new, or something cannot be written.

    """
    network = settings.network
    # Both are held to the end, so that no Host starts meanwhile; an older one knows of the port alone.
    with (
        exclusive.state_dir(settings.paths.state_dir),
        closing(exclusive.listen(network.host_bind_ip, network.host_port)),
    ):
        _Restoration(settings, source, say, force=force).run()


class _Restoration:
    def __init__(self, settings: Settings, source: Path, say: Callable[[str], None], *, force: bool) -> None:
        self._settings = settings
        self._state_dir = settings.paths.state_dir
        self._source = source
        self._say = say
        self._force = force
        self._file = databases.sqlite_file(settings)
        self._stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")

    def run(self) -> None:
        with self._from_copy() if databases.is_sqlite(self._source) else self._from_archive() as files:
            self._check_room()
            with exclusive.restoring(self._state_dir):
                self._put_in_place(files)
        self._say("restored; start the Host")

    @contextmanager
    def _from_copy(self) -> Iterator[dict[str, Path]]:
        """The database alone: keys and tokens stay."""
        if self._file is None:
            raise foreign(self._source, "it is a SQLite database, and this Host's is PostgreSQL")
        with self._removed_after({SQLITE: self._staged(SQLITE)}) as files:
            found = databases.check_sqlite(self._source, shown=self._source)
            self._check_revision(found, "another version")
            self._make_parents()
            copy_database(self._source, files[SQLITE])
            yield files

    @contextmanager
    def _from_archive(self) -> Iterator[dict[str, Path]]:
        places: dict[str, Path] = {}

        def place(name: str) -> Path:
            places[name] = self._staged(name)
            return places[name]

        with self._removed_after(places):
            self._make_parents()
            manifest = unpack(self._source, place)
            self._check_revision(manifest.revision, manifest.version)
            mine = "postgresql" if self._file is None else "sqlite"
            if manifest.database != mine:
                raise ConflictError(
                    f"the backup is of a Host with {manifest.database}, and this one has {mine}",
                    "set database.url or database.db_file to the kind that the backup holds",
                )
            if SQLITE in places:
                found = databases.check_sqlite(places[SQLITE], shown=self._source)
                if found != manifest.revision:
                    raise foreign(self._source, "database and manifest do not agree")
            elif POSTGRESQL not in places:
                self._say(
                    "the backup holds no database: restore yours with pg_restore, from where you keep it"
                )
            yield places

    @contextmanager
    def _removed_after(self, places: dict[str, Path]) -> Iterator[dict[str, Path]]:
        try:
            yield places
        finally:
            for path in places.values():
                path.unlink(missing_ok=True)

    def _check_revision(self, revision: str, version: str) -> None:
        if revision not in known_revisions():
            raise StorageError(
                f"the backup is of a newer HakuRiver ({version}, revision {revision};"
                f" this one is {__version__} and knows up to {HEAD})",
                "install that version, and restore with it",
            )

    def _check_room(self) -> None:
        if self._force:
            return
        there = (
            self._file.exists() if self._file else databases.postgresql_revision(self._settings) is not None
        )
        if there:
            raise ConflictError(
                f"there is a database already: {self._file or 'in PostgreSQL'}",
                "--force puts it aside and restores the backup",
            )

    def _put_in_place(self, files: dict[str, Path]) -> None:
        if POSTGRESQL in files:
            self._load_postgresql(files[POSTGRESQL])
        for name in (SQLITE, *KEYS) if "host.key" in files else (SQLITE,):
            if name in files:
                self._own(files[name])
                sync(files[name])
            if name in files or name != SQLITE:
                self._put_aside(self._target(name))
            if name in files:
                files[name].rename(self._target(name))
            sync(self._target(name).parent)

    def _put_aside(self, target: Path) -> None:
        """Under names that keep a database and its log together."""
        for end in ("", "-wal", "-shm"):
            old = target.with_name(target.name + end)
            if old.exists():
                old.rename(target.with_name(f"{target.name}.replaced-{self._stamp}{end}"))
                self._say(f"the old {old.name} is kept as {target.name}.replaced-{self._stamp}{end}")

    def _load_postgresql(self, dump: Path) -> None:
        aside = self._state_dir / f"{POSTGRESQL}.replaced-{self._stamp}"
        if databases.postgresql_revision(self._settings) is not None:
            if not databases.dump_postgresql(self._settings, aside):
                raise StorageError(
                    "pg_dump is not on PATH, so what is in the database cannot be kept",
                    "install PostgreSQL's client programs",
                )
            self._own(aside)
            self._say(f"the old database is kept as {aside}")
        databases.load_postgresql(self._settings, dump)

    def _target(self, name: str) -> Path:
        return self._file if name == SQLITE and self._file else self._state_dir / name

    def _staged(self, name: str) -> Path:
        """Beside its target, so that it takes its place by a rename."""
        target = self._target(name)
        return target.with_name(f".{target.name}.restored")

    def _make_parents(self) -> None:
        if self._file is not None:
            self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)

    def _own(self, path: Path) -> None:
        """Files that root restores are the Host's user's, who owns the state directory."""
        if os.geteuid() == 0:
            owner = self._state_dir.stat()
            os.chown(path, owner.st_uid, owner.st_gid)
