"""VPS that are stopped and started again, over a double of the engine and a real journal."""

from __future__ import annotations

import asyncio
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hakuriver.errors import StorageError
from hakuriver.models.runner import AttemptLimit, AttemptSpec
from hakuriver.states import TaskState
from hakuriver_agent.journal import Journal
from unit.agent.agent_doubles import Life, Node, eventually, named, node, spec


@pytest.fixture(name="machine")
def _machine(tmp_path: Path) -> Node:
    return node(tmp_path)


def vps(**changes: Any) -> AttemptSpec:
    return spec(task_type="vps", **changes)


async def at_rest(life: Life, given: AttemptSpec) -> None:
    await life.supervisor.start([given])
    await life.post.running(given)
    (stopped,) = await life.supervisor.stop([named(given)])
    assert stopped.ok, stopped.reason
    await eventually(lambda: life.post.states(given)[-1] == "stopped", "it is stopped")


def again(given: AttemptSpec, run: int = 1) -> AttemptSpec:
    return given.model_copy(update={"run": run})


async def test_it_is_stopped_and_starts_again(machine: Node) -> None:
    async with machine.life() as life:
        given = vps()
        await at_rest(life, given)
        assert life.supervisor.running == []
        (known,) = await life.supervisor.start([given])
        assert known.outcome == "known", "the start from before is no new one"
        (result,) = await life.supervisor.start([again(given)])
        assert result.outcome == "accepted"
        await eventually(lambda: life.post.states(given)[-1] == "running", "it runs again")
        assert machine.world.starts == [given.key, given.key]
        assert [report.run for report in life.post.of(given)] == [0, 0, 1]
        assert life.engine.removed == []
        sequences = [report.sequence for report in life.post.of(given)]
        assert sequences == sorted(set(sequences))


async def test_a_person_who_waits_for_it_is_told_at_once(machine: Node) -> None:
    async with machine.life() as life:
        command, given = spec(), vps()
        await life.supervisor.start([command])
        await life.post.running(command)
        await at_rest(life, given)
        await life.supervisor.start([again(given)])
        await eventually(lambda: life.post.states(given)[-1] == "running", "it runs again")
        told = [(report.key, str(report.status)) for report in life.post.urgent]
        assert told == [(given.key, "running"), (given.key, "stopped"), (given.key, "running")]


async def test_a_start_that_comes_twice_starts_it_once(machine: Node) -> None:
    async with machine.life() as life:
        given = vps()
        await at_rest(life, given)
        results = await asyncio.gather(*(life.supervisor.start([again(given)]) for _ in range(5)))
        assert sorted(result.outcome for (result,) in results) == ["accepted"] + ["known"] * 4
        await eventually(lambda: life.post.states(given)[-1] == "running", "it runs again")
        assert machine.world.starts == [given.key, given.key]


async def test_a_stopped_one_is_killed_and_removed(machine: Node) -> None:
    async with machine.life() as life:
        given = vps()
        await at_rest(life, given)
        await life.supervisor.kill([named(given)])
        assert (await life.post.final(given)).status is TaskState.KILLED
        life.supervisor.acknowledge([given.key])
        await eventually(lambda: life.engine.removed == [given.key], "it is removed")


async def test_a_kill_wins_over_a_stop_under_way(machine: Node) -> None:
    async with machine.life() as life:
        given = vps()
        await life.supervisor.start([given])
        await life.post.running(given)
        gate = life.engine.gate("terminate")
        await life.supervisor.stop([named(given)])
        await life.engine.entered["terminate"].wait()
        await life.supervisor.kill([named(given)])
        gate.set()
        assert (await life.post.final(given)).status is TaskState.KILLED
        assert "stopped" not in life.post.states(given)


async def test_a_kill_wins_over_a_start_under_way(machine: Node) -> None:
    async with machine.life() as life:
        given = vps()
        await at_rest(life, given)
        life.engine.gate("prepare")
        await life.supervisor.start([again(given)])
        await life.engine.entered["prepare"].wait()
        await life.supervisor.kill([named(given)])
        assert (await life.post.final(given)).status is TaskState.KILLED
        assert machine.world.starts == [given.key]


async def test_it_stays_stopped_over_a_restart_of_the_runner(machine: Node) -> None:
    given = vps()
    async with machine.life() as life:
        await at_rest(life, given)
    machine.boot = "boot-2"
    async with machine.life() as life:
        (report,) = life.supervisor.reports()
        assert report.status is TaskState.STOPPED
        await life.supervisor.settled(5)
        assert life.post.states(given) == []
        await life.supervisor.start([again(given)])
        await life.post.running(given)


async def test_a_stop_that_was_asked_for_is_done_by_the_next_life(machine: Node) -> None:
    given = vps()
    async with machine.life() as life:
        await life.supervisor.start([given])
        await life.post.running(given)
        life.engine.gate("terminate")
        await life.supervisor.stop([named(given)])
        await life.engine.entered["terminate"].wait()
        machine.world.away = True
    machine.world.away = False
    async with machine.life() as life:
        await eventually(lambda: life.post.states(given)[-1:] == ["stopped"], "it is stopped")


async def test_what_cannot_start_again_stays_stopped(machine: Node) -> None:
    async with machine.life() as life:
        given = vps()
        await at_rest(life, given)
        unit = machine.world.units.pop(given.key)
        await life.supervisor.start([again(given)])
        why = "cannot start: it is gone"
        await eventually(lambda: life.post.of(given)[-1].message == why, "it is stopped, and says why")
        assert life.post.states(given)[-1] == "stopped"
        machine.world.units[given.key] = unit
        await life.supervisor.start([again(given, 2)])
        await eventually(lambda: life.post.states(given)[-1] == "running", "it runs again")


async def test_what_was_in_it_is_asked_for_where_it_never_was(machine: Node) -> None:
    async with machine.life() as life:
        (result,) = await life.supervisor.start([again(vps())])
        assert (result.outcome, result.reason) == ("refused", "what was in it is here no more")


async def test_its_time_passes_while_it_is_stopped(machine: Node) -> None:
    given = vps(time_limit_seconds=3600)
    async with machine.life() as life:
        await at_rest(life, given)
    async with machine.life() as life:
        life.supervisor.reports()[0].started_at = datetime.now(UTC) - timedelta(seconds=3600)
        (known,) = await life.journal.unacknowledged()
        known.report.started_at = datetime.now(UTC) - timedelta(seconds=3600)
        await life.journal.stopped(known.report)
    async with machine.life() as life:
        final = await life.post.final(given)
        assert (final.status, final.message) == (TaskState.FAILED, "ran over its time limit of 3600 s")


async def test_a_command_is_not_stopped(machine: Node) -> None:
    async with machine.life() as life:
        given = spec()
        await life.supervisor.start([given])
        await life.post.running(given)
        (result,) = await life.supervisor.stop([named(given)])
        assert (result.ok, result.reason) == (False, "it is no VPS")


async def test_a_paused_one_is_stopped(machine: Node) -> None:
    async with machine.life() as life:
        given = vps()
        await life.supervisor.start([given])
        await life.post.running(given)
        await life.supervisor.pause([named(given)])
        await life.supervisor.stop([named(given)])
        await eventually(lambda: life.post.states(given)[-1] == "stopped", "it is stopped")


async def test_a_journal_that_cannot_be_written_stops_nothing(
    machine: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with machine.life() as life:
        given = vps()
        await life.supervisor.start([given])
        await life.post.running(given)

        async def full(_key: object) -> None:
            raise StorageError("the disk is full", "free some space")

        monkeypatch.setattr(life.journal, "request_stop", full)
        (result,) = await life.supervisor.stop([named(given)])
        assert (result.ok, result.reason) == (False, "the disk is full")
        assert life.post.states(given)[-1] == "running"


async def test_a_journal_of_before_is_read(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = Journal.open(path, "boot-1")
    await journal.close()
    with sqlite3.connect(path) as connection:
        connection.execute("ALTER TABLE attempt DROP COLUMN stop_requested")
    journal = Journal.open(path, "boot-1")
    assert await journal.unacknowledged() == []
    await journal.close()


async def test_a_time_limit_is_set_anew(machine: Node) -> None:
    given = vps(time_limit_seconds=3600)
    async with machine.life() as life:
        await life.supervisor.start([given])
        await life.post.running(given)
        less = AttemptLimit(**named(given).model_dump(), time_limit_seconds=7200)
        (result,) = await life.supervisor.limit([less])
        assert result.ok, result.reason
    async with machine.life() as life:
        known = life.supervisor.spec(given.key)
        assert known is not None
        assert known.time_limit_seconds == 7200
        await life.post.running(given)
        at_once = AttemptLimit(**named(given).model_dump(), time_limit_seconds=1)
        await life.supervisor.limit([at_once])
        final = await life.post.final(given)
        assert (final.status, final.message) == (TaskState.FAILED, "ran over its time limit of 1 s")
        (result,) = await life.supervisor.limit([at_once])
        assert (result.ok, result.reason) == (False, "it does not run on this node")


async def test_what_stops_it_is_over_before_it_runs_again(machine: Node) -> None:
    """Its engine is still busy with the signal when the unit has ended."""
    async with machine.life() as life:
        given = vps()
        await life.supervisor.start([given])
        await life.post.running(given)
        gate = life.engine.gate("terminate")
        await life.supervisor.stop([named(given)])
        await life.engine.entered["terminate"].wait()
        machine.world.end(given.key, 143)
        for _ in range(50):
            await asyncio.sleep(0.005)
            assert life.post.states(given)[-1] == "running", "it is not stopped before that is over"
        gate.set()
        await eventually(lambda: life.post.states(given)[-1] == "stopped", "it is stopped")
        del life.engine.gates["terminate"]
        kills = life.engine.gate("kill")
        await life.supervisor.start([again(given)])
        await eventually(lambda: life.post.states(given)[-1] == "running", "it runs again")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):  # Several times the grace.
                await life.engine.entered["kill"].wait()
        kills.set()


async def test_it_is_not_paused_while_it_stops(machine: Node) -> None:
    async with machine.life() as life:
        given = vps()
        await life.supervisor.start([given])
        await life.post.running(given)
        gate = life.engine.gate("terminate")
        await life.supervisor.stop([named(given)])
        await life.engine.entered["terminate"].wait()
        (paused,) = await life.supervisor.pause([named(given)])
        assert (paused.ok, paused.reason) == (False, "it is being stopped, not running")
        gate.set()
        await eventually(lambda: life.post.states(given)[-1] == "stopped", "it is stopped")


async def test_it_is_not_paused_where_it_has_stopped_meanwhile(machine: Node) -> None:
    async with machine.life() as life:
        given = vps()
        await life.supervisor.start([given])
        await life.post.running(given)
        gate = life.engine.gate("pause")
        pausing = asyncio.create_task(life.supervisor.pause([named(given)]))
        await life.engine.entered["pause"].wait()
        machine.world.end(given.key, 0)
        gate.set()
        (paused,) = await pausing
        assert not paused.ok
        assert "paused" not in life.post.states(given)
