"""Reads of the database. Each opens a short session of its own, and is called in a thread."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, TypeVar, cast

from sqlalchemy import Engine, Select, case, func
from sqlalchemy import select as alchemy_select
from sqlmodel import Session, SQLModel, col, select

from hakuriver.states import FINAL, TaskState
from hakuriver_host.db import rows
from hakuriver_host.db.bulk import Row, select_rows
from hakuriver_host.db.tables import (
    BatchRow,
    EventRow,
    MetaRow,
    NodeRow,
    PublicKeyRow,
    ShareRow,
    TaskRow,
    TokenRow,
    UserRow,
)
from hakuriver_host.domain.model import Batch, Node, Task

_RowModel = TypeVar("_RowModel", TaskRow, BatchRow)

SHARES_KEY = "shares"
"""Of what is noted of users' shares: the time, and the shares by user, as JSON."""
_CACHED_BATCHES = 2_000
_CHUNK = 500


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """Which tasks to list; all that is set must hold."""

    states: Sequence[TaskState] = ()
    node: str | None = None
    owner: str | None = None
    batch_id: int | None = None
    name: str | None = None
    task_type: str | None = None
    before: int | None = None
    """Ids below this one: the page after it."""
    limit: int = 50


@dataclass(frozen=True, slots=True)
class Tally:
    """How the tasks of a batch are, of those that were asked for."""

    batch_id: int
    counts: dict[TaskState, int]
    first: int
    """The lowest id among them."""
    started_at: float | None
    """When the first started, in Unix seconds."""
    completed_at: float | None
    """When the last of those that have ended did."""


@dataclass(slots=True)
class LoadedState:
    """What the Host takes up at its start."""

    nodes: list[tuple[Node, rows.NodeRecord]] = field(default_factory=list)
    pending_nodes: dict[str, rows.NodeRecord] = field(default_factory=dict)
    """Joined, and never registered."""
    tasks: list[Task] = field(default_factory=list)
    outcomes: dict[int, TaskState] = field(default_factory=dict)
    """How those ended that some of the tasks are to run after."""
    held: dict[str, float] = field(default_factory=dict)
    """What users had held of the cluster, as means over the past."""
    held_at: float = 0.0
    """When that was noted, in Unix seconds."""
    last_event: int = 0
    last_id: int = 0
    users: list[UserRow] = field(default_factory=list)
    tokens: list[TokenRow] = field(default_factory=list)
    keys: list[PublicKeyRow] = field(default_factory=list)
    shares: list[ShareRow] = field(default_factory=list)


class Repository:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._batches: dict[int, Batch] = {}

    def load(self) -> LoadedState:
        """Everything that is not final, tasks that are lost, all nodes, users and tokens."""
        state = LoadedState()
        live = [state.value for state in TaskState if state not in FINAL or state is TaskState.LOST]
        with Session(self._engine, expire_on_commit=False) as session:
            found = session.exec(
                select(TaskRow).where(col(TaskRow.state).in_(live)).order_by(col(TaskRow.task_id))
            ).all()
            state.last_event = session.exec(select(func.max(EventRow.sequence))).one() or 0
            newest = [
                session.exec(select(func.max(column))).one() or 0
                for column in (TaskRow.task_id, BatchRow.batch_id)
            ]
            state.last_id = max(newest)
            state.users = list(session.exec(select(UserRow)).all())
            state.tokens = list(session.exec(select(TokenRow)).all())
            state.keys = list(session.exec(select(PublicKeyRow)).all())
            state.shares = list(session.exec(select(ShareRow)).all())
            nodes = session.exec(select(NodeRow).order_by(col(NodeRow.name))).all()
        for row in nodes:
            node, record = rows.node_of(row)
            if row.journal_id:
                state.nodes.append((node, record))
            else:
                state.pending_nodes[row.name] = record
        batches = self.batches({row.batch_id for row in found})
        state.tasks = [rows.task_of(row, batches[row.batch_id]) for row in found]
        if noted := self.meta(SHARES_KEY):
            state.held_at, state.held = json.loads(noted)
        state.outcomes = self.outcomes({each.task_id for task in state.tasks for each in task.batch.after})
        return state

    def outcomes(self, ids: Collection[int]) -> dict[int, TaskState]:
        """How those of the tasks ended that have."""
        found: dict[int, TaskState] = {}
        for some in _chunks(ids):
            query = select(TaskRow.task_id, TaskRow.state).where(
                col(TaskRow.task_id).in_(some), col(TaskRow.state).in_([state.value for state in FINAL])
            )
            with Session(self._engine) as session:
                found |= {task_id: TaskState(state) for task_id, state in session.exec(query)}
        return found

    def tasks_of(self, ids: Sequence[int]) -> list[tuple[TaskRow, Batch]]:
        """Those of the tasks that are on the record, in this order."""
        found: dict[int, TaskRow] = {}
        for some in _chunks(ids):
            query = select(TaskRow).where(col(TaskRow.task_id).in_(some))
            found |= {row.task_id: row for row in self._all(TaskRow, query)}
        batches = self.batches({row.batch_id for row in found.values()})
        return [(found[task_id], batches[found[task_id].batch_id]) for task_id in ids if task_id in found]

    def tasks(self, wanted: TaskFilter) -> list[tuple[TaskRow, Batch]]:
        """Newest first."""
        query = _matching(select(TaskRow), wanted).order_by(col(TaskRow.task_id).desc()).limit(wanted.limit)
        if wanted.before is not None:
            query = query.where(col(TaskRow.task_id) < wanted.before)
        return self._with_batches(self._all(TaskRow, query))

    def tallies(self, wanted: TaskFilter, at_least: int = 1) -> list[Tally]:
        """By batch, newest first, how those of its tasks are that match; batches of which so many do. `wanted.before` is
        of batches here.

        One statement, which walks the index of batches and stops when it has enough of them.
        """
        batch_id, state = col(TaskRow.batch_id), col(TaskRow.state)
        columns: list[Any] = [
            batch_id,
            func.min(TaskRow.task_id),
            func.min(TaskRow.started_at),
            func.max(TaskRow.completed_at),
            *(func.sum(case((state == each.value, 1), else_=0)) for each in TaskState),
        ]
        query = _matching(alchemy_select(*columns), wanted).group_by(batch_id).order_by(batch_id.desc())
        if wanted.before is not None:
            query = query.where(batch_id < wanted.before)
        if at_least > 1:
            query = query.having(func.count() >= at_least)
        with self._engine.connect() as connection:
            found = connection.execute(query.limit(wanted.limit)).all()
        return [
            Tally(
                batch_id=row[0],
                counts={
                    state: int(number) for state, number in zip(TaskState, row[4:], strict=True) if number
                },
                first=row[1],
                started_at=rows.seconds(row[2]),
                completed_at=rows.seconds(row[3]),
            )
            for row in found
        ]

    def failures(self, batch_id: int, limit: int) -> list[tuple[TaskRow, Batch]]:
        """The first tasks of a batch that have ended and not completed."""
        query = select(TaskRow).where(*_failed(batch_id)).order_by(col(TaskRow.task_id)).limit(limit)
        return self._with_batches(self._all(TaskRow, query))

    def failed_places(self, batch_id: int) -> list[tuple[int, str | None]]:
        """Number and target of all tasks of a batch that have ended and not completed, by number."""
        query = select(TaskRow.index, TaskRow.target).where(*_failed(batch_id)).order_by(col(TaskRow.index))
        with Session(self._engine) as session:
            return [(index, target) for index, target in session.exec(query)]

    def _with_batches(self, found: Sequence[TaskRow]) -> list[tuple[TaskRow, Batch]]:
        batches = self.batches({row.batch_id for row in found})
        return [(row, batches[row.batch_id]) for row in found]

    def task(self, task_id: int) -> tuple[TaskRow, Batch] | None:
        with Session(self._engine) as session:
            row = session.get(TaskRow, task_id)
        return None if row is None else (row, self.batches({row.batch_id})[row.batch_id])

    def batches(self, ids: set[int]) -> dict[int, Batch]:
        """Batches by id. But for VPS, which may be extended and restored, they never change: the ones read last are kept."""
        kept = self._batches
        missing = sorted(ids - kept.keys())
        found = {batch_id: kept[batch_id] for batch_id in ids if batch_id in kept}
        for some in _chunks(missing):
            query = select(BatchRow).where(col(BatchRow.batch_id).in_(some))
            found |= {row.batch_id: rows.batch_of(row) for row in self._all(BatchRow, query)}
        # Replaced, never changed: other threads read it meanwhile.
        room = {} if len(kept) + len(missing) > _CACHED_BATCHES else kept
        lasting = [batch_id for batch_id in missing if found[batch_id].spec.task_type != "vps"]
        self._batches = {**room, **{batch_id: found[batch_id] for batch_id in lasting[:_CACHED_BATCHES]}}
        return found

    def batch(self, batch_id: int) -> Batch | None:
        with Session(self._engine) as session:
            row = session.get(BatchRow, batch_id)
        return None if row is None else rows.batch_of(row)

    def batch_by_key(self, owner: str, key: str) -> BatchRow | None:
        with Session(self._engine) as session:
            return session.exec(
                select(BatchRow).where(BatchRow.owner == owner, BatchRow.idempotency_key == key)
            ).first()

    def task_ids(self, batch_id: int) -> list[int]:
        with Session(self._engine) as session:
            return list(
                session.exec(
                    select(TaskRow.task_id).where(TaskRow.batch_id == batch_id).order_by(col(TaskRow.task_id))
                ).all()
            )

    def events(
        self, since: int, *, task_id: int | None = None, batch_id: int | None = None, limit: int = 1_000
    ) -> list[Row]:
        """Events after `since`, oldest first: their columns by name."""
        query = (
            select(EventRow).where(EventRow.sequence > since).order_by(col(EventRow.sequence)).limit(limit)
        )
        if task_id is not None:
            query = query.where(EventRow.task_id == task_id)
        if batch_id is not None:
            query = query.where(EventRow.batch_id == batch_id)
        return self._rows(EventRow, query)

    def last_event(self) -> int:
        """Number of the last event on the record; 0 before the first."""
        with Session(self._engine) as session:
            return session.exec(select(func.max(EventRow.sequence))).one() or 0

    def final_counts(self, since_id: int) -> dict[str, int]:
        """Final tasks by state, of those with ids from `since_id` on."""
        query = (
            select(TaskRow.state, func.count())
            .where(col(TaskRow.state).in_([state.value for state in FINAL]), TaskRow.task_id >= since_id)
            .group_by(TaskRow.state)
        )
        with Session(self._engine) as session:
            return dict(session.exec(query).all())

    def newest(self) -> float | None:
        """When the last event was, on the wall clock; none before the first."""
        with Session(self._engine) as session:
            found = session.exec(
                select(EventRow.time).order_by(col(EventRow.sequence).desc()).limit(1)
            ).first()
        return rows.seconds(found)

    def finished_before(self, millis: int, limit: int) -> list[TaskRow]:
        """Final tasks that ended before that time, for retention."""
        final = [state.value for state in FINAL]
        query = (
            select(TaskRow)
            .where(col(TaskRow.state).in_(final), col(TaskRow.completed_at) < millis)
            .limit(limit)
        )
        with Session(self._engine, expire_on_commit=False) as session:
            return list(session.exec(query).all())

    def _all(self, model: type[_RowModel], query: Any) -> list[_RowModel]:
        """Whole rows, to be read only: with the columns as attributes, but not made as the model is.

        Making a hundred of those took longer than reading them.
        """
        return [cast("_RowModel", SimpleNamespace(**row)) for row in self._rows(model, query)]

    def _rows(self, model: type[SQLModel], query: Any) -> list[Row]:
        """Whole rows, in one step."""
        table = SQLModel.metadata.tables[str(model.__tablename__)]
        with self._engine.connect() as connection:
            return select_rows(connection, table, query)

    def meta(self, key: str) -> str | None:
        with Session(self._engine) as session:
            row = session.get(MetaRow, key)
        return row.value if row else None


def _matching(query: Select[Any], wanted: TaskFilter) -> Select[Any]:
    """The query, of tasks that match; `before` and `limit` are for the caller."""
    if wanted.states:
        query = query.where(col(TaskRow.state).in_([state.value for state in wanted.states]))
    for column, value in (
        (TaskRow.node, wanted.node),
        (TaskRow.owner, wanted.owner),
        (TaskRow.batch_id, wanted.batch_id),
        (TaskRow.name, wanted.name),
        (TaskRow.task_type, wanted.task_type),
    ):
        if value is not None:
            query = query.where(col(column) == value)
    return query


def _failed(batch_id: int) -> tuple[Any, Any]:
    ends = [state.value for state in FINAL if state is not TaskState.COMPLETED]
    return col(TaskRow.batch_id) == batch_id, col(TaskRow.state).in_(ends)


def _chunks(ids: Collection[int]) -> Iterator[Sequence[int]]:
    """As many at a time as one statement takes well."""
    ordered = list(ids)
    return (ordered[start : start + _CHUNK] for start in range(0, len(ordered), _CHUNK))
