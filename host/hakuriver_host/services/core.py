"""The Host's core: the cluster in memory, and the one way in which a decision takes effect.

A decision changes the cluster at once, so that the next one sees it; it is written; and only when it is
durable are followers and Runners told.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, bindparam, update
from sqlmodel import SQLModel

from hakuriver.config import Settings
from hakuriver.ids import IdGenerator
from hakuriver.models.tasks import TaskEvent
from hakuriver.states import FINAL, TaskState
from hakuriver_host.db import rows
from hakuriver_host.db.repository import Repository
from hakuriver_host.db.tables import BatchRow
from hakuriver_host.db.writer import Changes, Writer
from hakuriver_host.domain.model import Effects, Event, Now, Task
from hakuriver_host.domain.reactor import Cluster
from hakuriver_host.services.bus import Bus, Notice
from hakuriver_host.services.threads import ShareCalls

_BATCHES = SQLModel.metadata.tables[str(BatchRow.__tablename__)]
_NOTE_WAITS = update(_BATCHES).where(_BATCHES.c.batch_id == bindparam("id")).values(awaits=bindparam("waits"))


def _noting(waits: list[dict[str, Any]]) -> Callable[[Connection], None]:
    def note(connection: Connection) -> None:
        connection.execute(_NOTE_WAITS, waits)

    return note


RECORD_SECONDS = 5.0
"""How long a kill waits until it is on the record; the writer goes on trying."""


def clock() -> Now:
    return Now(time.time(), time.monotonic())


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def optional_moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else moment(seconds)


@dataclass
class Core:
    """What all services share. Built once in `app`."""

    settings: Settings
    cluster: Cluster
    repository: Repository
    writer: Writer
    ids: IdGenerator
    last_event: int
    records: dict[str, rows.NodeRecord]
    share: ShareCalls
    share_problem: Callable[[], str]
    now: Callable[[], Now] = clock
    bus: Bus = field(default_factory=Bus)
    ends: Counter[TaskState] = field(default_factory=Counter)
    """Tasks that became final since the Host started."""
    began: float = field(default_factory=time.time)
    schedule_wanted: asyncio.Event = field(default_factory=asyncio.Event)
    wake_node: Callable[[str], None] = lambda _name: None
    """Set by the dispatcher."""
    _writing: set[asyncio.Future[None]] = field(default_factory=set)
    """What was begun, and nobody else may hold on to."""

    async def apply(
        self, effects: Effects, *actions: Callable[[Connection], None], urgent: bool = False
    ) -> None:
        """Writes what was decided, then tells of it. Returns when it is durable. `actions` are written with it.

        Of what is `urgent` Runners are told at once: a kill must not wait for the room that it makes.
        """
        changes = self._record(effects)
        changes.actions.extend(actions)
        if urgent:
            self._wake(effects)
        # A report that is known already may rest on a decision that is not durable yet: that one is waited for.
        if changes.wanted or self.writer.behind:
            await self.writer.write(changes)
        # Only now is it looked who follows: one who came during the write has read the record without it.
        self.tell(effects, self._notices(effects, changes))

    def begin(self, effects: Effects, *, urgent: bool) -> asyncio.Future[None]:
        """As `apply`, without waiting; it goes on whoever has asked for it goes away."""
        writing = asyncio.ensure_future(self.apply(effects, urgent=urgent))
        self._writing.add(writing)
        writing.add_done_callback(self._writing.discard)
        return writing

    @property
    def why_unwritten(self) -> str:
        """What keeps something from the record that is not there in time."""
        return f"not on the record yet: {self.writer.problem or 'the database is slow'}"

    def _record(self, effects: Effects) -> Changes:
        """The rows of what was decided, as it is now: later decisions must not show in them."""
        changes = Changes()
        for task_id, task in effects.tasks.items():
            changes.tasks[task_id] = rows.task_changes(task)
        for event in effects.events:
            changes.events.append(rows.event_row(event, self.next_event()))
            if event.state in FINAL:
                self.ends[event.state] += 1
        if effects.batches:
            waits = [{"id": i, "waits": rows.awaits(batch)} for i, batch in effects.batches.items()]
            changes.actions.append(_noting(waits))
        for name, node in effects.nodes.items():
            changes.nodes[name] = rows.node_row(node, self.records[name])
        for name in effects.removed:
            changes.nodes[name] = None
            del self.records[name]
        return changes

    def next_event(self) -> int:
        self.last_event += 1
        return self.last_event

    def tell(self, effects: Effects, notices: list[Notice]) -> None:
        if notices:
            self.bus.publish(notices)
        if effects.schedule:
            self.schedule_wanted.set()
        self._wake(effects)

    def _wake(self, effects: Effects) -> None:
        for name in effects.wake:
            self.wake_node(name)

    def _notices(self, effects: Effects, changes: Changes) -> list[Notice]:
        if self.bus.idle:
            return []
        notices = [Notice(event_of_row(row)) for row in changes.events]
        notices += [Notice(self._progress(task), transient=True) for task in effects.progress if task.reason]
        return notices

    def _progress(self, task: Task) -> TaskEvent:
        event = Event(self.now().wall, task, task.attempt, task.state, task.node, task.reason, None)
        return event_of_row(rows.event_row(event, self.last_event))


def event_of_row(row: dict[str, Any]) -> TaskEvent:
    return TaskEvent(
        sequence=row["sequence"],
        time=moment(row["time"] / 1000),
        task_id=row["task_id"],
        batch_id=row["batch_id"],
        attempt=row["attempt"],
        state=TaskState(row["state"]),
        node=row["node"],
        cause=row["cause"],
        exit_code=row["exit_code"],
    )
