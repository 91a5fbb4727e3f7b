"""What this Runner was asked to run and how it ended, durably.

An attempt is written here before it is started, and its end before it is reported. So an attempt runs at most once,
and its end is told with one content, whenever the Runner is killed. One thread owns the SQLite file (WAL,
synchronous=FULL) and commits in groups: everything that waits shares one sync.

Two small tables and a few statements: the standard library's sqlite3 runs them. SQLAlchemy and SQLModel would take
19 MB of the 70 MB that an idle Runner may have.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Generic, TypeVar

from hakuriver.errors import StorageError
from hakuriver.models.runner import AttemptReport, AttemptSpec
from hakuriver.states import FINAL, TaskState
from hakuriver_agent.engines.port import Key

SCHEMA_VERSION = 1
SEQUENCES_PER_LIFE = 1_000_000
"""The reports of an attempt that a life takes up are numbered from its own multiple on, so that reports which an
earlier life sent and had not written stay older."""
NOTE_SECONDS = 0.2
"""How long a note waits for a change to go along with."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS attempt (
    task_id INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    spec TEXT,  -- none for one that was killed before it came
    report TEXT NOT NULL,
    final INTEGER NOT NULL,
    kill_requested INTEGER NOT NULL DEFAULT 0,
    stop_requested INTEGER NOT NULL DEFAULT 0,
    acknowledged_at REAL,  -- seconds since 1970
    tally TEXT,  -- what it had used when that was last noted
    PRIMARY KEY (task_id, attempt)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS attempt_acknowledged ON attempt (acknowledged_at);
"""
_ADDED = {
    "stop_requested": "ALTER TABLE attempt ADD COLUMN stop_requested INTEGER NOT NULL DEFAULT 0",
    "tally": "ALTER TABLE attempt ADD COLUMN tally TEXT",
}
"""For a journal of before there were these. A version that does not know a column reads and writes it all the same."""
_FIND = "SELECT report FROM attempt WHERE task_id = ? AND attempt = ?"
_INSERT = """INSERT INTO attempt (task_id, attempt, spec, report, final, kill_requested) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT DO NOTHING"""
_REPORT = "UPDATE attempt SET report = ?, final = ? WHERE task_id = ? AND attempt = ?"
_KILL = "UPDATE attempt SET kill_requested = 1 WHERE task_id = ? AND attempt = ?"
_STOP = "UPDATE attempt SET stop_requested = 1 WHERE task_id = ? AND attempt = ?"
_STOPPED = "UPDATE attempt SET report = ?, stop_requested = 0 WHERE task_id = ? AND attempt = ?"
_START_AGAIN = "UPDATE attempt SET spec = ?, report = ?, stop_requested = 0 WHERE task_id = ? AND attempt = ?"
_RESPECIFY = "UPDATE attempt SET spec = ? WHERE task_id = ? AND attempt = ?"
_TALLY = "UPDATE attempt SET tally = ? WHERE task_id = ? AND attempt = ?"
_ACKNOWLEDGE = "UPDATE attempt SET acknowledged_at = ? WHERE task_id = ? AND attempt = ?"
_LOAD = (
    "SELECT spec, report, tally, kill_requested, stop_requested FROM attempt WHERE acknowledged_at IS NULL"
)
_PRUNE = "DELETE FROM attempt WHERE acknowledged_at < ?"

T = TypeVar("T")
Connection = sqlite3.Connection
Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Known:
    """What the journal holds of an attempt that is not acknowledged."""

    spec: AttemptSpec | None
    report: AttemptReport
    kill_requested: bool
    stop_requested: bool = False
    tally: str | None = None
    """What it had used, as it was last noted."""


@dataclass(slots=True)
class _Write(Generic[T]):
    """One change, as a function on the open transaction, and whom to tell that it is durable."""

    apply: Callable[[Connection], T]
    done: Callable[[T | None, BaseException | None], None] | None


@dataclass(slots=True)
class _Batch:
    """Changes of rows that need no answer of their own, collected for `executemany`."""

    reports: list[Row] = field(default_factory=list)
    acknowledged: list[Row] = field(default_factory=list)
    tallies: dict[Key, str] = field(default_factory=dict)


class Journal:
    """The journal of one Runner. Its methods are called in the loop's thread, except `open`."""

    def __init__(self, connection: Connection, journal_id: str, life: int, same_boot: bool) -> None:
        self.id = journal_id
        self.first_sequence = life * SEQUENCES_PER_LIFE
        """Above every sequence that an earlier life gave."""
        self.same_boot = same_boot
        """Whether the machine has been up since the journal was last opened."""
        self._connection = connection
        self._queue: queue.SimpleQueue[_Write[Any] | None] = queue.SimpleQueue()
        self._lazy = _Batch()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    @classmethod
    def open(cls, path: Path, boot_id: str) -> Journal:
        """Opens or makes the file.

        Raises:
            StorageError: it is not a journal of this version, or cannot be written.
        """
        try:
            connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            path.chmod(0o600)
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "busy_timeout = 5000"):
                connection.execute(f"PRAGMA {pragma}")
            connection.executescript(_SCHEMA)
            columns = {row[1] for row in connection.execute("PRAGMA table_info(attempt)")}
            for column, add in _ADDED.items():
                if column not in columns:
                    connection.execute(add)
            meta = dict(connection.execute("SELECT name, value FROM meta").fetchall())
            same_boot = meta.get("boot_id", boot_id) == boot_id
            life = int(meta.get("life", 0)) + 1
            fresh = {"schema": str(SCHEMA_VERSION), "journal_id": secrets.token_hex(8)}
            meta = fresh | meta | {"boot_id": boot_id, "life": str(life)}
            connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", meta.items())
        except (sqlite3.Error, OSError) as error:
            raise StorageError(
                f"cannot use the journal {path}: {error}",
                "check the file; a Runner without one forgets its tasks",
            ) from None
        if meta["schema"] != str(SCHEMA_VERSION):
            raise StorageError(
                f"the journal {path} has schema {meta['schema']}, and this version reads {SCHEMA_VERSION}",
                "start the version of HakuRiver that wrote it, let its tasks end, then upgrade",
            )
        return cls(connection, meta["journal_id"], life, same_boot)

    async def unacknowledged(self) -> list[Known]:
        """Everything that runs or whose end the Host may not know."""
        return await self._write(_load)

    async def accept(self, attempts: Iterable[tuple[AttemptSpec, AttemptReport]]) -> dict[Key, AttemptReport]:
        """Writes new attempts; returns those that were known already, with their present report."""
        rows = [_new_row(spec, report) for spec, report in attempts]
        return await self._write(lambda connection: _insert(connection, rows))

    async def tombstone(self, report: AttemptReport) -> AttemptReport | None:
        """Writes an attempt that was killed before it came; returns its report if it was known already."""
        row = _new_row(None, report)
        return (await self._write(lambda connection: _insert(connection, [row]))).get(report.key)

    async def request_kill(self, keys: Iterable[Key]) -> None:
        rows = list(keys)
        await self._write(lambda connection: _many(connection, _KILL, rows))

    async def request_stop(self, key: Key) -> None:
        await self._write(lambda connection: _many(connection, _STOP, [key]))

    async def stopped(self, report: AttemptReport) -> None:
        """Writes that an attempt is at rest, as it was asked to be."""
        row = (report.model_dump_json(), *report.key)
        await self._write(lambda connection: _many(connection, _STOPPED, [row]))

    async def start_again(self, spec: AttemptSpec, report: AttemptReport) -> None:
        """Writes that a stopped attempt is to run again."""
        row = (spec.model_dump_json(), report.model_dump_json(), *report.key)
        await self._write(lambda connection: _many(connection, _START_AGAIN, [row]))

    async def respecify(self, spec: AttemptSpec) -> None:
        """Writes what an attempt is to be from now on."""
        row = (spec.model_dump_json(), *spec.key)
        await self._write(lambda connection: _many(connection, _RESPECIFY, [row]))

    async def finish(self, report: AttemptReport) -> None:
        """Writes the end of an attempt. After this its content never changes."""
        with self._lock:
            self._lazy.reports.append(_report_row(report))
        await self._write(_nothing)

    def note(self, report: AttemptReport) -> None:
        """Writes a report soon, along with a change that must be durable if there is one."""
        with self._lock:
            first = not self._lazy.reports
            self._lazy.reports.append(_report_row(report))
        if first:
            self._queue.put(_NOTED)

    def note_usage(self, tallies: Mapping[Key, str]) -> None:
        """Writes what attempts have used, soon, all at once."""
        if tallies:
            with self._lock:
                self._lazy.tallies.update(tallies)
            self._queue.put(_NOTED)

    def acknowledge(self, keys: Iterable[Key]) -> None:
        """Marks final reports as known to the Host. Lost at a crash, they are told again, which harms nobody."""
        now = datetime.now(UTC).timestamp()
        with self._lock:
            self._lazy.acknowledged.extend((now, *key) for key in keys)
        self._queue.put(_NOTED)

    async def prune(self, older_than: timedelta) -> None:
        """Deletes what was acknowledged longer ago."""
        limit = (datetime.now(UTC) - older_than).timestamp()
        await self._write(lambda connection: _many(connection, _PRUNE, [(limit,)]))

    async def close(self) -> None:
        """Writes what waits, and closes the file."""
        if self._thread.is_alive():
            await self._write(_nothing)
            self._queue.put(None)
            await asyncio.get_running_loop().run_in_executor(None, self._thread.join)

    async def _write(self, apply: Callable[[Connection], T]) -> T:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def settle(result: T | None, error: BaseException | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(result)  # type: ignore[arg-type]  # there is a result where there is no error
            else:
                future.set_exception(error)

        def done(result: T | None, error: BaseException | None) -> None:
            loop.call_soon_threadsafe(settle, result, error)

        self._queue.put(_Write(apply, done))
        return await future

    def _run(self) -> None:
        closing = False
        while not closing:
            waiting = [self._queue.get()]
            if waiting[0] is _NOTED:
                with contextlib.suppress(queue.Empty):
                    waiting.append(self._queue.get(timeout=NOTE_SECONDS))
            while not self._queue.empty():
                waiting.append(self._queue.get())
            closing = None in waiting
            self._commit(self._connection, [write for write in waiting if write])
        self._connection.close()

    def _commit(self, connection: Connection, group: list[_Write[Any]]) -> None:
        with self._lock:
            lazy, self._lazy = self._lazy, _Batch()
        try:
            connection.execute("BEGIN IMMEDIATE")
            _many(connection, _REPORT, lazy.reports)
            _many(connection, _ACKNOWLEDGE, lazy.acknowledged)
            _many(connection, _TALLY, [(tally, *key) for key, tally in lazy.tallies.items()])
            results = [write.apply(connection) for write in group]
            connection.execute("COMMIT")
        except (sqlite3.Error, ValueError) as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            self._put_back(lazy)
            failure = StorageError(
                f"cannot write the Runner's journal: {error}",
                "free space on the disk that holds paths.state_dir",
            )
            for write in group:
                if write.done:
                    write.done(None, failure)
            return
        for write, result in zip(group, results, strict=True):
            if write.done:
                write.done(result, None)

    def _put_back(self, lazy: _Batch) -> None:
        with self._lock:
            self._lazy.reports[:0] = lazy.reports
            self._lazy.acknowledged[:0] = lazy.acknowledged
            self._lazy.tallies = lazy.tallies | self._lazy.tallies


def _nothing(connection: Connection) -> None:
    del connection


_NOTED: _Write[None] = _Write(_nothing, None)


def _many(connection: Connection, statement: str, rows: list[Any]) -> None:
    if rows:
        connection.executemany(statement, rows)


def _insert(connection: Connection, rows: list[Row]) -> dict[Key, AttemptReport]:
    known: dict[Key, AttemptReport] = {}
    for row in rows:
        key = row[:2]
        if found := connection.execute(_FIND, key).fetchone():
            known[key] = AttemptReport.model_validate_json(found[0])
    _many(connection, _INSERT, [row for row in rows if row[:2] not in known])
    return known


def _load(connection: Connection) -> list[Known]:
    known = []
    for spec, report, tally, *requested in connection.execute(_LOAD).fetchall():
        parsed = AttemptSpec.model_validate_json(spec) if spec else None
        killed, stopped = map(bool, requested)
        known.append(Known(parsed, AttemptReport.model_validate_json(report), killed, stopped, tally))
    return known


def _report_row(report: AttemptReport) -> Row:
    return (report.model_dump_json(), report.status in FINAL, *report.key)


def _new_row(spec: AttemptSpec | None, report: AttemptReport) -> Row:
    text = spec.model_dump_json() if spec else None
    killed = report.status is TaskState.KILLED
    return (*report.key, text, report.model_dump_json(), report.status in FINAL, killed)
