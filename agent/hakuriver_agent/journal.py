"""What this Runner was asked to run and how it ended, durably.

An attempt is written here before it is started, and its end before it is reported. So an attempt runs at most once,
and its end is told with one content, whenever the Runner is killed. One thread owns the SQLite file (WAL,
synchronous=FULL) and commits in groups: everything that waits shares one sync.
"""

from __future__ import annotations

import asyncio
import queue
import secrets
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Generic, TypeVar

from sqlalchemy import (
    BigInteger,
    Connection,
    Engine,
    bindparam,
    create_engine,
    delete,
    event,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Column, Field, SQLModel

from hakuriver.errors import StorageError
from hakuriver.models.runner import AttemptReport, AttemptSpec
from hakuriver.states import FINAL, TaskState
from hakuriver_agent.engines.port import Key

SCHEMA_VERSION = 1
SEQUENCE_STEP = 1_000_000
"""Added to every unfinished attempt's sequence at a start: reports that were sent and not written stay older."""

T = TypeVar("T")


class MetaRow(SQLModel, table=True):
    __tablename__ = "meta"

    name: str = Field(primary_key=True)
    value: str


class AttemptRow(SQLModel, table=True):
    """One attempt. `spec` is none for one that was killed before it came."""

    __tablename__ = "attempt"

    task_id: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    attempt: int = Field(primary_key=True)
    spec: str | None
    report: str
    final: bool = Field(index=True)
    kill_requested: bool = False
    acknowledged_at: datetime | None = Field(default=None, index=True)


_attempts = AttemptRow.__table__  # type: ignore[attr-defined]  # SQLModel does not declare it
_meta = MetaRow.__table__  # type: ignore[attr-defined]

_INSERT = insert(_attempts).on_conflict_do_nothing()
_IS_KEY = (_attempts.c.task_id == bindparam("key_task")) & (_attempts.c.attempt == bindparam("key_attempt"))
_REPORT = (
    update(_attempts).where(_IS_KEY).values(report=bindparam("new_report"), final=bindparam("new_final"))
)
_KILL = update(_attempts).where(_IS_KEY).values(kill_requested=True)
_ACKNOWLEDGE = update(_attempts).where(_IS_KEY).values(acknowledged_at=bindparam("now"))


@dataclass(frozen=True, slots=True)
class Known:
    """What the journal holds of an attempt that is not acknowledged."""

    spec: AttemptSpec | None
    report: AttemptReport
    kill_requested: bool


@dataclass(slots=True)
class _Write(Generic[T]):
    """One change, as a function on the open transaction, and whom to tell that it is durable."""

    apply: Callable[[Connection], T]
    done: Callable[[T | None, BaseException | None], None] | None


@dataclass(slots=True)
class _Batch:
    """Changes of rows that need no answer of their own, collected for `executemany`."""

    reports: list[dict[str, Any]] = field(default_factory=list)
    acknowledged: list[dict[str, Any]] = field(default_factory=list)


class Journal:
    """The journal of one Runner. Its methods are called in the loop's thread, except `open`."""

    def __init__(self, engine: Engine, journal_id: str, same_boot: bool) -> None:
        self.id = journal_id
        self.same_boot = same_boot
        """Whether the machine has been up since the journal was last opened."""
        self._engine = engine
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
        engine = create_engine(f"sqlite:///{path}", connect_args={"check_same_thread": False})
        event.listen(engine, "connect", _set_pragmas)
        event.listen(engine, "begin", _begin)
        try:
            with engine.begin() as connection:
                SQLModel.metadata.create_all(connection, tables=[_attempts, _meta])
                meta = {row.name: row.value for row in connection.execute(select(_meta))}
                fresh = {"schema": str(SCHEMA_VERSION), "journal_id": secrets.token_hex(8)}
                meta = fresh | {"boot_id": boot_id} | meta
                same_boot, meta["boot_id"] = meta["boot_id"] == boot_id, boot_id
                connection.execute(delete(_meta))
                connection.execute(_meta.insert(), [{"name": k, "value": v} for k, v in meta.items()])
            path.chmod(0o600)
        except (SQLAlchemyError, OSError) as error:
            reason = getattr(error, "orig", None) or error
            raise StorageError(
                f"cannot use the journal {path}: {reason}",
                "check the file; a Runner without one forgets its tasks",
            ) from None
        if meta["schema"] != str(SCHEMA_VERSION):
            raise StorageError(
                f"the journal {path} has schema {meta['schema']}, and this version reads {SCHEMA_VERSION}",
                "start the version of HakuRiver that wrote it, let its tasks end, then upgrade",
            )
        return cls(engine, meta["journal_id"], same_boot)

    async def unacknowledged(self) -> list[Known]:
        """Everything that runs or whose end the Host may not know. Raises the sequences of what runs."""
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
        rows = [_key_row(key) for key in keys]
        await self._write(lambda connection: _many(connection, _KILL, rows))

    async def finish(self, report: AttemptReport) -> None:
        """Writes the end of an attempt. After this its content never changes."""
        with self._lock:
            self._lazy.reports.append(_report_row(report))
        await self._write(_nothing)

    def note(self, report: AttemptReport) -> None:
        """Writes a report along with the next change that must be durable."""
        with self._lock:
            self._lazy.reports.append(_report_row(report))

    def acknowledge(self, keys: Iterable[Key]) -> None:
        """Marks final reports as known to the Host. Lost at a crash, they are told again, which harms nobody."""
        now = datetime.now(UTC)
        with self._lock:
            self._lazy.acknowledged.extend(_key_row(key) | {"now": now} for key in keys)
        self._queue.put(_Write(_nothing, None))

    async def prune(self, older_than: timedelta) -> None:
        """Deletes what was acknowledged longer ago."""
        limit = datetime.now(UTC) - older_than
        await self._write(lambda connection: _prune(connection, limit))

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
        with self._engine.connect() as connection:
            closing = False
            while not closing:
                waiting = [self._queue.get()]
                while not self._queue.empty():
                    waiting.append(self._queue.get())
                closing = None in waiting
                self._commit(connection, [write for write in waiting if write])
        self._engine.dispose()

    def _commit(self, connection: Connection, group: list[_Write[Any]]) -> None:
        with self._lock:
            lazy, self._lazy = self._lazy, _Batch()
        try:
            with connection.begin():
                results = [write.apply(connection) for write in group]
                _many(connection, _REPORT, lazy.reports)
                _many(connection, _ACKNOWLEDGE, lazy.acknowledged)
        except SQLAlchemyError as error:
            self._put_back(lazy)
            failure = StorageError(
                f"cannot write the Runner's journal: {getattr(error, 'orig', error)}",
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


def _set_pragmas(connection: Any, record: object) -> None:
    del record
    connection.isolation_level = None
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "busy_timeout = 5000"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _nothing(connection: Connection) -> None:
    del connection


def _many(connection: Connection, statement: Any, rows: list[dict[str, Any]]) -> None:
    if rows:
        connection.execute(statement, rows)


def _insert(connection: Connection, rows: list[dict[str, Any]]) -> dict[Key, AttemptReport]:
    keys = [(row["task_id"], row["attempt"]) for row in rows]
    known: dict[Key, AttemptReport] = {}
    for start in range(0, len(keys), 400):
        chunk = keys[start : start + 400]
        found = select(_attempts.c.report).where(tuple_(_attempts.c.task_id, _attempts.c.attempt).in_(chunk))
        reports = map(AttemptReport.model_validate_json, connection.scalars(found))
        known |= {report.key: report for report in reports}
    _many(connection, _INSERT, [row for row, key in zip(rows, keys, strict=True) if key not in known])
    return known


def _load(connection: Connection) -> list[Known]:
    rows = connection.execute(select(_attempts).where(_attempts.c.acknowledged_at.is_(None))).all()
    known = [
        Known(
            AttemptSpec.model_validate_json(row.spec) if row.spec else None,
            AttemptReport.model_validate_json(row.report),
            row.kill_requested,
        )
        for row in rows
    ]
    running = [entry.report for entry, row in zip(known, rows, strict=True) if not row.final]
    for report in running:
        report.sequence += SEQUENCE_STEP
    _many(connection, _REPORT, [_report_row(report) for report in running])
    return known


def _prune(connection: Connection, limit: datetime) -> None:
    connection.execute(delete(_attempts).where(_attempts.c.acknowledged_at < limit))


def _key_row(key: Key) -> dict[str, Any]:
    return {"key_task": key[0], "key_attempt": key[1]}


def _report_row(report: AttemptReport) -> dict[str, Any]:
    final = report.status in FINAL
    return _key_row(report.key) | {"new_report": report.model_dump_json(), "new_final": final}


def _new_row(spec: AttemptSpec | None, report: AttemptReport) -> dict[str, Any]:
    return {
        "task_id": report.task_id,
        "attempt": report.attempt,
        "spec": spec.model_dump_json() if spec else None,
        "report": report.model_dump_json(),
        "final": report.status in FINAL,
        "kill_requested": report.status is TaskState.KILLED,
    }
