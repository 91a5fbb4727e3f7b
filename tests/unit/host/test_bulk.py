"""Lists of rows in one statement: few and many, written, changed and read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, select
from sqlmodel import SQLModel

from hakuriver.models.submission import SubmitRequest
from hakuriver_host.db.bulk import Row, insert_rows, select_rows, update_rows
from hakuriver_host.db.engine import open_database
from hakuriver_host.db.rows import batch_row, new_task_row, request_of
from hakuriver_host.domain.model import Batch, Task

_BATCH, _TASK = (SQLModel.metadata.tables[name] for name in ("batch", "task"))
_TEXTS = ["", "plain", 'it\'s "quoted"', "{rows} ? :name %s", "two\nlines", "水 🎈", "[1, null]"]


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    with open_database(f"sqlite:///{tmp_path / 'host.db'}").begin() as opened:
        yield opened


def rows(count: int) -> list[Row]:
    """Tasks of one batch; each has other values, also none."""
    batch = Batch(1, "ada", 0.0, SubmitRequest(command="x"), None, None)
    made = []
    for number in range(count):
        task = Task(number + 1, batch, number, None, request_of(batch.spec, None))
        task.reason, task.held = _TEXTS[number % len(_TEXTS)], number % 2 == 0
        task.exit_code = None if number % 3 == 0 else -number
        task.started_at = None if number % 5 == 0 else number + 0.001
        made.append(new_task_row(task))
    return made


@pytest.mark.parametrize("count", [1, 2, 31, 32, 33, 1000])
def test_rows_are_read_as_they_were_written_and_changed(connection: Connection, count: int) -> None:
    batch = Batch(1, "ada", 0.0, SubmitRequest(command="x"), None, None)
    insert_rows(
        connection, _BATCH, [batch_row(batch, failed_targets="[]", idempotency_key=None, request_digest="")]
    )
    written = rows(count)
    insert_rows(connection, _TASK, written)
    read = select(_TASK).order_by(_TASK.c.task_id)
    assert [
        {name: row[name] for name in written[0]} for row in select_rows(connection, _TASK, read)
    ] == written

    changes: dict[int, Row] = {
        row["task_id"]: {"reason": row["reason"] + "!", "held": not row["held"], "exit_code": row["attempt"]}
        for row in written[::2]
    }
    update_rows(connection, _TASK, "task_id", changes)
    wanted = [row | changes.get(row["task_id"], {}) for row in written]
    assert [
        {name: row[name] for name in written[0]} for row in select_rows(connection, _TASK, read)
    ] == wanted
