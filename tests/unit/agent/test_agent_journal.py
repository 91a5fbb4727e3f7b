"""The journal keeps what it promised over lives, errors and other versions."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest

from hakuriver.errors import StorageError
from hakuriver.states import TaskState
from hakuriver_agent.attempts import accepted
from hakuriver_agent.journal import SEQUENCES_PER_LIFE, Journal
from unit.agent.agent_doubles import eventually, spec


async def test_what_is_accepted_is_there_in_the_next_life(tmp_path: Path) -> None:
    given = spec("echo", "hi", env_vars={"A": "ä"})
    journal = Journal.open(tmp_path / "j.db", "boot")
    assert await journal.accept([(given, accepted(given))]) == {}
    identity = journal.id
    await journal.close()
    again = Journal.open(tmp_path / "j.db", "boot")
    (known,) = await again.unacknowledged()
    assert (known.spec, known.kill_requested, again.id, again.same_boot) == (given, False, identity, True)
    assert known.report == accepted(given)
    assert again.first_sequence == 2 * SEQUENCES_PER_LIFE
    await again.close()


async def test_accepting_again_tells_the_present_report(tmp_path: Path) -> None:
    given, other = spec(), spec()
    journal = Journal.open(tmp_path / "j.db", "boot")
    await journal.accept([(given, accepted(given))])
    final = accepted(given).model_copy(update={"sequence": 2, "status": TaskState.FAILED, "exit_code": 1})
    await journal.finish(final)
    assert await journal.accept([(given, accepted(given)), (other, accepted(other))]) == {given.key: final}
    await journal.close()


async def test_a_final_report_never_changes_over_lives(tmp_path: Path) -> None:
    given = spec()
    final = accepted(given).model_copy(update={"sequence": 5, "status": TaskState.COMPLETED, "exit_code": 0})
    journal = Journal.open(tmp_path / "j.db", "boot")
    await journal.accept([(given, accepted(given))])
    await journal.finish(final)
    await journal.close()
    for _ in range(3):
        journal = Journal.open(tmp_path / "j.db", "boot")
        assert [entry.report for entry in await journal.unacknowledged()] == [final]
        await journal.close()


async def test_what_is_acknowledged_stays_known_until_it_is_pruned(tmp_path: Path) -> None:
    given = spec()
    journal = Journal.open(tmp_path / "j.db", "boot")
    await journal.accept([(given, accepted(given))])
    journal.acknowledge([given.key])
    assert await journal.unacknowledged() == []
    await journal.prune(timedelta(days=1))
    assert given.key in await journal.accept([(given, accepted(given))])
    await journal.prune(timedelta(seconds=-1))
    assert await journal.accept([(given, accepted(given))]) == {}
    await journal.close()


async def test_writes_that_wait_share_a_commit_and_keep_their_order(tmp_path: Path) -> None:
    specs = [spec() for _ in range(200)]
    journal = Journal.open(tmp_path / "j.db", "boot")
    await asyncio.gather(*(journal.accept([(given, accepted(given))]) for given in specs))
    for given in specs:
        journal.note(accepted(given).model_copy(update={"sequence": 1, "status": TaskState.RUNNING}))
    finals = [
        accepted(given).model_copy(update={"sequence": 2, "status": TaskState.COMPLETED}) for given in specs
    ]
    await asyncio.gather(*(journal.finish(report) for report in finals))
    assert {entry.report.status for entry in await journal.unacknowledged()} == {TaskState.COMPLETED}
    await journal.close()


async def test_another_boot_is_noticed_once(tmp_path: Path) -> None:
    same = []
    for boot in ("a", "a", "b", "b"):
        journal = Journal.open(tmp_path / "j.db", boot)
        same.append(journal.same_boot)
        await journal.close()
    assert same == [True, True, False, True]


def test_what_is_no_journal_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "j.db").write_bytes(b"not a database" * 100)
    with pytest.raises(StorageError, match="cannot use the journal"):
        Journal.open(tmp_path / "j.db", "boot")


async def test_a_journal_of_another_version_is_refused(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "j.db", "boot")
    await journal.close()
    with sqlite3.connect(tmp_path / "j.db") as connection:
        connection.execute("UPDATE meta SET value = '99' WHERE name = 'schema'")
    connection.close()
    with pytest.raises(StorageError, match="schema 99"):
        Journal.open(tmp_path / "j.db", "boot")


async def test_only_its_user_reads_it(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "j.db", "boot")
    assert (tmp_path / "j.db").stat().st_mode & 0o777 == 0o600
    await journal.close()


async def test_a_failed_write_is_told_and_later_ones_work(tmp_path: Path) -> None:
    given = spec()
    journal = Journal.open(tmp_path / "j.db", "boot")
    await journal.accept([(given, accepted(given))])
    final = accepted(given).model_copy(update={"sequence": 1, "status": TaskState.COMPLETED})
    with sqlite3.connect(tmp_path / "j.db") as other:
        other.execute(
            "CREATE TRIGGER full BEFORE UPDATE ON attempt BEGIN SELECT RAISE(ABORT, 'disk is full'); END"
        )
    with pytest.raises(StorageError, match="disk is full"):
        await journal.finish(final)
    with sqlite3.connect(tmp_path / "j.db") as other:
        other.execute("DROP TRIGGER full")
    other.close()
    await journal.finish(final)
    assert [entry.report for entry in await journal.unacknowledged()] == [final]
    await journal.close()


async def test_notes_are_written_with_the_next_change(tmp_path: Path) -> None:
    given, other = spec(), spec()
    journal = Journal.open(tmp_path / "j.db", "boot")
    await journal.accept([(given, accepted(given))])
    journal.note(accepted(given).model_copy(update={"sequence": 1, "status": TaskState.RUNNING}))
    await journal.accept([(other, accepted(other))])
    states = {entry.report.key: entry.report.status for entry in await journal.unacknowledged()}
    assert states == {given.key: TaskState.RUNNING, other.key: TaskState.ASSIGNING}
    await journal.close()


async def test_a_note_is_written_soon_without_any_other_change(tmp_path: Path) -> None:
    given = spec()
    journal = Journal.open(tmp_path / "j.db", "boot")
    await journal.accept([(given, accepted(given))])
    journal.note(accepted(given).model_copy(update={"sequence": 1, "status": TaskState.RUNNING}))

    def written() -> bool:
        with sqlite3.connect(tmp_path / "j.db") as other:
            (text,) = other.execute("SELECT report FROM attempt").fetchone()
        other.close()
        return "running" in text

    await eventually(written)
    await journal.close()


async def test_what_was_used_is_kept_and_the_last_word_stands(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "journal.db", "boot")
    first, second = spec(), spec()
    await journal.accept([(given, accepted(given)) for given in (first, second)])
    journal.note_usage({first.key: "{1}", second.key: "{2}"})
    journal.note_usage({first.key: "{3}"})
    await journal.close()
    journal = Journal.open(tmp_path / "journal.db", "boot")
    known = {entry.report.key: entry.tally for entry in await journal.unacknowledged()}
    await journal.close()
    assert known == {first.key: "{3}", second.key: "{2}"}


async def test_a_journal_of_before_use_was_noted_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal, given = Journal.open(path, "boot"), spec()
    await journal.accept([(given, accepted(given))])
    await journal.close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("ALTER TABLE attempt DROP COLUMN tally")
    journal = Journal.open(path, "boot")
    (entry,) = await journal.unacknowledged()
    assert (entry.report.key, entry.tally) == (given.key, None)
    journal.note_usage({given.key: "{}"})
    await journal.close()
