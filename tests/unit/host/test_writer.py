"""The writer: groups, what a full disk does to whom, and that order is kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.event import listen
from sqlalchemy.pool import StaticPool
from sqlmodel import create_engine

from hakuriver.errors import ConflictError, InternalError, StorageError
from hakuriver_host.db.migration import migrate
from hakuriver_host.db.repository import Repository
from hakuriver_host.db.writer import Changes, Writer


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    """One connection for all, so that a test can take its room away."""
    made = create_engine(
        f"sqlite:///{tmp_path / 'host.db'}", poolclass=StaticPool, connect_args={"check_same_thread": False}
    )
    migrate(made)
    return made


@pytest.fixture
async def writer(engine: Engine) -> AsyncIterator[Writer]:
    made = Writer(engine)
    yield made
    await made.close()


def event(sequence: int, cause: str = "") -> Changes:
    return Changes(
        events=[
            {
                "sequence": sequence,
                "time": 0,
                "task_id": 1,
                "batch_id": 1,
                "attempt": 0,
                "state": "pending",
                "node": None,
                "cause": cause,
                "exit_code": None,
            }
        ]
    )


def set_room(engine: Engine, pages: int | None) -> None:
    """Lets the database grow by that many pages, or without limit."""
    with engine.connect() as connection:
        present = connection.execute(text("PRAGMA page_count")).scalar_one()
        connection.execute(text(f"PRAGMA max_page_count={2**30 if pages is None else present + pages}"))


async def test_many_writes_are_durable_when_they_return(engine: Engine, writer: Writer) -> None:
    await asyncio.gather(*(writer.write(event(number)) for number in range(1, 301)))
    assert [row["sequence"] for row in Repository(engine).events(0)] == list(range(1, 301))


async def test_what_one_turn_of_the_loop_writes_is_one_commit(engine: Engine, writer: Writer) -> None:
    commits: list[Connection] = []
    listen(engine, "commit", commits.append)
    await asyncio.gather(*(writer.write(event(number)) for number in range(1, 9)))
    assert len(commits) == 1


async def test_one_of_a_group_that_breaks_a_constraint_fails_alone(engine: Engine, writer: Writer) -> None:
    outcomes = await asyncio.gather(
        *(writer.write(event(number), firm=False) for number in (1, 2, 1, 3)), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [type(None), type(None), ConflictError, type(None)]
    assert [row["sequence"] for row in Repository(engine).events(0)] == [1, 2, 3]


async def test_what_can_never_be_written_fails_alone(engine: Engine, writer: Writer) -> None:
    def breaks(_connection: Connection) -> None:
        raise ValueError("no database can hold that")

    def too_large(connection: Connection) -> None:
        connection.execute(text("INSERT INTO meta VALUES ('key', :value)"), {"value": 2**70})

    changes = [event(1), Changes(actions=[breaks]), event(2), Changes(actions=[too_large]), event(3)]
    outcomes = await asyncio.gather(*(writer.write(change) for change in changes), return_exceptions=True)
    kinds = [type(outcome) for outcome in outcomes]
    assert kinds == [type(None), InternalError, type(None), InternalError, type(None)]
    await writer.write(event(4))
    assert [row["sequence"] for row in Repository(engine).events(0)] == [1, 2, 3, 4]


async def test_a_full_disk_refuses_submissions_and_delays_decisions(engine: Engine, writer: Writer) -> None:
    set_room(engine, 0)
    large = "x" * 100_000
    firm = asyncio.ensure_future(writer.write(event(1, large)))
    with pytest.raises(StorageError, match="full"):
        await writer.write(event(2, large), firm=False)
    assert "full" in writer.problem
    assert not firm.done()
    set_room(engine, None)
    await asyncio.wait_for(firm, 20)
    await writer.write(event(3))
    assert [row["sequence"] for row in Repository(engine).events(0)] == [1, 3], (
        "what was refused is not there"
    )
    assert not writer.problem


async def test_closing_writes_what_waits(engine: Engine) -> None:
    writer = Writer(engine)
    waiting = [asyncio.ensure_future(writer.write(event(number))) for number in range(1, 51)]
    await asyncio.sleep(0)
    await writer.close()
    await asyncio.gather(*waiting)
    assert len(Repository(engine).events(0)) == 50
