"""The one writer: every change goes through its thread, and is committed in groups.

While one group is being written and synced, the next gathers, so the cost of a sync is shared by all that
wait for it. Two kinds of writes: a *tentative* one (a submission) fails when the disk does, and its sender is
told; a *firm* one (a decision already taken) is tried again until the disk takes it, in order.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import structlog
from sqlalchemy import Connection, Engine, delete
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlmodel import SQLModel

from hakuriver.errors import ConflictError, HakuRiverError, InternalError, StorageError
from hakuriver_host.db.bulk import Row, insert_rows, update_rows
from hakuriver_host.db.tables import BatchRow, EventRow, NodeRow, TaskRow

log = structlog.get_logger(__name__)

_GROUP = 1024
_RETRY_SECONDS = 0.5


_BATCH, _TASK, _EVENT, _NODE = (
    SQLModel.metadata.tables[str(model.__tablename__)] for model in (BatchRow, TaskRow, EventRow, NodeRow)
)


@dataclass(slots=True)
class Changes:
    """What one caller wants written, all or nothing."""

    batches: list[Row] = field(default_factory=list)
    new_tasks: list[Row] = field(default_factory=list)
    tasks: dict[int, Row] = field(default_factory=dict)
    """By id: the columns of `rows.task_changes`."""
    events: list[Row] = field(default_factory=list)
    nodes: dict[str, Row | None] = field(default_factory=dict)
    """By name: whole rows, inserted or replaced; none strikes the node from the record."""
    actions: list[Callable[[Connection], None]] = field(default_factory=list)
    """For what is rare: users, tokens, retention."""

    @property
    def wanted(self) -> bool:
        """Whether there is anything to write."""
        return bool(self.batches or self.new_tasks or self.tasks or self.events or self.nodes or self.actions)


@dataclass(slots=True)
class _Item:
    changes: Changes
    firm: bool
    done: asyncio.Future[None]


class Writer:
    """Owns the thread. `problem` says why nothing can be written now, if so."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._queue: queue.SimpleQueue[list[_Item] | None] = queue.SimpleQueue()
        self._handed: list[_Item] = []
        """What came in this turn of the loop."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self.problem = ""
        self._unsettled = 0
        self._thread.start()

    async def write(self, changes: Changes, *, firm: bool = True) -> None:
        """Returns when the changes are durable.

        Raises:
            StorageError: a tentative write that the disk did not take.
            ConflictError: a row of that key is there already.
            InternalError: the database can never hold it.

        """
        done: asyncio.Future[None] = self._loop.create_future()
        self._unsettled += 1
        done.add_done_callback(self._one_settled)
        self._handed.append(_Item(changes, firm, done))
        if len(self._handed) == 1:
            self._loop.call_soon(self._hand_over)
        await asyncio.shield(done)

    @property
    def behind(self) -> bool:
        """Whether something handed in is not durable yet."""
        return self._unsettled > 0

    def _hand_over(self) -> None:
        """Wakes the thread once for all that one turn of the loop has to write, which it then takes as one group."""
        if self._handed:
            self._queue.put(self._handed)
            self._handed = []

    def _one_settled(self, _done: asyncio.Future[None]) -> None:
        self._unsettled -= 1

    async def close(self) -> None:
        """Writes what is waiting, then ends the thread."""
        self._hand_over()
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join, 30)

    def _run(self) -> None:
        kept: list[_Item] = []
        open_ = True
        while open_ or kept:
            items, open_ = self._gather(kept) if open_ else (kept, False)
            kept = self._write_group(items)
            if kept and not open_:
                break

    def _gather(self, kept: list[_Item]) -> tuple[list[_Item], bool]:
        """The next group, after what an earlier one had to keep. False when the writer is being closed."""
        items = list(kept)
        try:
            handed = self._queue.get(timeout=_RETRY_SECONDS) if kept else self._queue.get()
            while handed is not None:
                items += handed
                if len(items) >= _GROUP:
                    return items, True
                handed = self._queue.get_nowait()
        except queue.Empty:
            return items, True
        return items, False

    def _write_group(self, items: list[_Item]) -> list[_Item]:
        """Writes a group; gives back the firm ones that must be tried again."""
        if not items:
            return []
        try:
            self._commit([item.changes for item in items])
        except (IntegrityError, DataError) as error:
            return self._write_singly(items, error)
        except DBAPIError as error:
            return self._failed(items, error)
        except Exception as error:  # noqa: BLE001 - the thread must outlive what only one of them is to blame for
            return self._write_singly(items, error)
        self._succeeded(items)
        return []

    def _write_singly(self, items: list[_Item], error: Exception) -> list[_Item]:
        """One of the group can never be written: each is written by itself, in order, so that only that one fails."""
        if len(items) == 1:
            known = isinstance(error, IntegrityError)
            if items[0].firm or not known:
                log.error("a change could not be written", error=str(getattr(error, "orig", error)))
            self._settle(
                items,
                ConflictError("it is there already", "choose another name")
                if known
                else InternalError(
                    "the database cannot hold this change", "see the Host's log, and report it"
                ),
            )
            return []
        for index, item in enumerate(items):
            if kept := self._write_group([item]):
                return kept + items[index + 1 :]
        return []

    def _failed(self, items: list[_Item], error: DBAPIError) -> list[_Item]:
        cause = str(error.orig).strip().splitlines()[0]
        if not self.problem:
            log.error("the database cannot be written; trying again until it can", cause=cause)
        self.problem = f"the Host's database cannot be written: {cause}"
        tentative = [item for item in items if not item.firm]
        self._settle(
            tentative,
            StorageError(self.problem, "free some space on the Host's disk; what was acknowledged is safe"),
        )
        return [item for item in items if item.firm]

    def _succeeded(self, items: list[_Item]) -> None:
        if self.problem:
            log.info("the database can be written again")
            self.problem = ""
        self._settle(items, None)

    def _commit(self, group: list[Changes]) -> None:
        nodes = {name: row for changes in group for name, row in changes.nodes.items()}
        with self._engine.begin() as connection:
            insert_rows(connection, _BATCH, [row for changes in group for row in changes.batches])
            insert_rows(connection, _TASK, [row for changes in group for row in changes.new_tasks])
            latest = {task_id: row for changes in group for task_id, row in changes.tasks.items()}
            update_rows(connection, _TASK, "task_id", latest)
            insert_rows(connection, _EVENT, [row for changes in group for row in changes.events])
            if nodes:
                connection.execute(delete(_NODE).where(_NODE.c.name.in_(list(nodes))))
                insert_rows(connection, _NODE, [row for row in nodes.values() if row is not None])
            for action in [action for changes in group for action in changes.actions]:
                action(connection)

    def _settle(self, items: Iterable[_Item], error: HakuRiverError | None) -> None:
        futures = [item.done for item in items]
        if futures and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_resolve, futures, error)


def _resolve(futures: list[asyncio.Future[None]], error: HakuRiverError | None) -> None:
    for future in futures:
        if future.done():
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)


__all__ = ["Changes", "Writer"]
