"""The supervisor's promises, over a double of the engine and a real journal."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from hakuriver.errors import ConflictError
from hakuriver.models.runner import AttemptId, Verdict, VerdictAction
from hakuriver.states import TaskState
from hakuriver_agent import supervisor
from hakuriver_agent.engines.fake import FakeEngine
from hakuriver_agent.engines.port import Key
from unit.agent.agent_doubles import Node, eventually, named, node, spec


@pytest.fixture(name="machine")
def _machine(tmp_path: Path) -> Node:
    return node(tmp_path)


async def test_an_attempt_from_start_to_cleaning_up(machine: Node) -> None:
    async with machine.life() as life:
        given = spec("exit", "3")
        (result,) = await life.supervisor.start([given])
        assert result.outcome == "accepted"
        final = await life.post.final(given)
        assert (final.status, final.exit_code) == (TaskState.FAILED, 3)
        assert life.post.states(given) == ["running", "failed"]
        assert [report.sequence for report in life.post.of(given)] == [1, 2]
        assert final.started_at is not None
        assert final.completed_at is not None
        assert life.engine.removed == []
        life.supervisor.acknowledge([given.key])
        await eventually(lambda: life.engine.removed == [given.key], "it is removed")
        assert life.supervisor.reports() == []


async def test_it_is_in_the_journal_before_anything_runs(machine: Node) -> None:
    async with machine.life() as life:
        life.engine.gate("start")
        given = spec()
        await life.supervisor.start([given])
        assert [entry.spec for entry in await life.journal.unacknowledged()] == [given]


async def test_a_repeated_start_is_known_and_runs_once(machine: Node) -> None:
    async with machine.life() as life:
        given = spec()
        await life.supervisor.start([given])
        await life.post.running(given)
        (again,) = await life.supervisor.start([given])
        assert again.outcome == "known"
        assert again.report is not None
        assert again.report.status is TaskState.RUNNING
        assert machine.world.starts == [given.key]


async def test_starts_at_the_same_time_run_once(machine: Node) -> None:
    async with machine.life() as life:
        given = spec()
        results = await asyncio.gather(*(life.supervisor.start([given]) for _ in range(5)))
        assert sorted(result.outcome for (result,) in results) == ["accepted"] + ["known"] * 4
        await life.post.running(given)
        assert machine.world.starts == [given.key]


async def test_no_start_comes_between_a_look_and_the_hosts_answer(machine: Node) -> None:
    async with machine.life() as life:
        before, during = spec(), spec()
        early = asyncio.create_task(life.supervisor.start([before]))
        while not life.supervisor.reports():
            await asyncio.sleep(0)
        await life.supervisor.hold_starts()
        seen = [entry.report.key for entry in await life.journal.unacknowledged()]
        assert seen == [report.key for report in life.supervisor.reports()] == [before.key]
        late = asyncio.create_task(life.supervisor.start([during]))
        await early
        assert [report.key for report in life.supervisor.reports()] == [before.key]
        await life.supervisor.registered([])
        assert (await late)[0].outcome == "accepted"


async def test_a_start_that_is_looked_at_when_a_registration_begins_is_not_taken(
    machine: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with machine.life() as life:
        given = spec()
        looking, looked = asyncio.Event(), asyncio.Event()

        async def refusal(_spec: Any) -> None:
            looking.set()
            await looked.wait()

        monkeypatch.setattr(life.engine, "refusal", refusal)
        starting = asyncio.create_task(life.supervisor.start([given]))
        await looking.wait()
        await life.supervisor.hold_starts()
        looked.set()
        with pytest.raises(ConflictError, match="registering"):
            await starting
        assert life.supervisor.reports() == []


async def test_no_start_is_taken_before_the_first_registration(
    machine: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "HOLD_SECONDS", 0.01)
    async with machine.life() as life:
        again = supervisor.Supervisor({"process": life.engine}, life.journal, life.post, 0.05)
        with pytest.raises(ConflictError, match="registering"):
            await again.start([spec()])


async def test_a_start_without_its_gpus_is_refused_by_their_names(machine: Node) -> None:
    def unusable(uuids: Iterable[str]) -> dict[str, str]:
        return {uuid: f"{uuid} is lost" for uuid in uuids if uuid == "GPU-b"}

    async with machine.life() as life:
        made = supervisor.Supervisor(
            {"process": life.engine}, life.journal, life.post, 0.05, unusable_gpus=unusable
        )
        await made.registered([])
        lost, well = await made.start([spec(gpus=["GPU-a", "GPU-b"]), spec(gpus=["GPU-a"])])
        assert (lost.outcome, lost.reason, lost.unusable_gpus) == ("refused", "GPU-b is lost", ["GPU-b"])
        assert (well.outcome, well.unusable_gpus) == ("accepted", [])
        assert well.report is not None
        assert well.report.gpus == ["GPU-a"]
        await made.close()


async def test_a_late_start_of_an_acknowledged_attempt_is_known(machine: Node) -> None:
    async with machine.life() as life:
        given = spec("exit", "0")
        await life.supervisor.start([given])
        await life.post.final(given)
        life.supervisor.acknowledge([given.key])
        (again,) = await life.supervisor.start([given])
        assert again.outcome == "known"
        assert again.report is not None
        assert again.report.status is TaskState.COMPLETED
        assert machine.world.starts == [given.key]


async def test_what_can_never_run_here_is_refused_and_not_written(machine: Node) -> None:
    async with machine.life() as life:
        wrong_engine, privileged = spec(engine="docker"), spec(privileged=True)
        refused = await life.supervisor.start([wrong_engine, privileged])
        assert [result.outcome for result in refused] == ["refused", "refused"]
        assert all(result.reason for result in refused)
        assert await life.journal.unacknowledged() == []


async def test_a_kill_before_the_start_wins(machine: Node) -> None:
    async with machine.life() as life:
        given = spec()
        (killed,) = await life.supervisor.kill([named(given)])
        assert killed.ok
        (late,) = await life.supervisor.start([given])
        assert late.outcome == "known"
        assert late.report is not None
        assert late.report.status is TaskState.KILLED
        assert (await life.post.final(given)).status is TaskState.KILLED
        assert machine.world.starts == []


async def test_a_kill_before_the_start_outlives_the_runner(machine: Node) -> None:
    given = spec()
    async with machine.life() as life:
        await life.supervisor.kill([named(given)])
    async with machine.life() as life:
        assert (await life.post.final(given)).status is TaskState.KILLED
        (late,) = await life.supervisor.start([given])
        assert late.outcome == "known"


async def test_a_kill_while_it_is_written_wins(machine: Node) -> None:
    async with machine.life() as life:
        given = spec()
        starting = asyncio.create_task(life.supervisor.start([given]))
        await asyncio.sleep(0)
        (killed,) = await life.supervisor.kill([named(given)])
        assert killed.ok
        await starting
        assert (await life.post.final(given)).status is TaskState.KILLED
        assert machine.world.starts == []


async def test_a_kill_that_is_written_late_wins(machine: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    async with machine.life() as life:
        given = spec()
        starting = asyncio.create_task(life.supervisor.start([given]))
        await asyncio.sleep(0)
        write = life.journal.request_kill

        async def write_late(keys: Iterable[Key]) -> None:
            await starting
            for _ in range(100):
                await asyncio.sleep(0)
            await write(keys)

        monkeypatch.setattr(life.journal, "request_kill", write_late)
        assert (await life.supervisor.kill([named(given)]))[0].ok
        assert (await life.post.final(given)).status is TaskState.KILLED
        assert machine.world.starts == []


async def test_a_kill_while_preparing_wins(machine: Node) -> None:
    async with machine.life() as life:
        life.engine.gate("prepare")
        given = spec()
        await life.supervisor.start([given])
        await life.engine.entered["prepare"].wait()
        assert (await life.supervisor.kill([named(given)]))[0].ok
        assert (await life.post.final(given)).status is TaskState.KILLED
        assert machine.world.starts == []


async def test_a_kill_while_starting_wins(machine: Node) -> None:
    async with machine.life() as life:
        gate = life.engine.gate("start")
        given = spec("deaf")
        await life.supervisor.start([given])
        await life.engine.entered["start"].wait()
        assert (await life.supervisor.kill([named(given)]))[0].ok
        gate.set()
        final = await life.post.final(given)
        assert (final.status, final.exit_code) == (TaskState.KILLED, 137)


async def test_a_kill_while_starting_wins_over_a_quick_end(machine: Node) -> None:
    async with machine.life() as life:
        gate = life.engine.gate("start")
        given = spec("exit", "0")
        await life.supervisor.start([given])
        await life.engine.entered["start"].wait()
        await life.supervisor.kill([named(given)])
        gate.set()
        final = await life.post.final(given)
        assert (final.status, final.exit_code) == (TaskState.KILLED, 0)


@pytest.mark.parametrize(("command", "code"), [("wait", 143), ("deaf", 137)])
async def test_a_kill_asks_first_and_then_insists(machine: Node, command: str, code: int) -> None:
    async with machine.life() as life:
        given = spec(command)
        await life.supervisor.start([given])
        await life.post.running(given)
        await life.supervisor.kill([named(given)])
        final = await life.post.final(given)
        assert (final.status, final.exit_code) == (TaskState.KILLED, code)


async def test_a_kill_of_a_paused_one_wins(machine: Node) -> None:
    async with machine.life() as life:
        given = spec("deaf")
        await life.supervisor.start([given])
        await life.post.running(given)
        assert (await life.supervisor.pause([named(given)]))[0].ok
        await life.supervisor.kill([named(given)])
        assert (await life.post.final(given)).status is TaskState.KILLED
        assert life.post.states(given) == ["running", "paused", "killed"]


async def test_a_kill_that_comes_while_pausing_wins(machine: Node) -> None:
    async with machine.life() as life:
        given = spec()
        await life.supervisor.start([given])
        await life.post.running(given)
        gate, terminating = life.engine.gate("pause"), life.engine.gate("terminate")
        pausing = asyncio.create_task(life.supervisor.pause([named(given)]))
        await life.engine.entered["pause"].wait()
        await life.supervisor.kill([named(given)])
        gate.set()
        terminating.set()
        await pausing
        assert (await life.post.final(given)).status is TaskState.KILLED


async def test_a_kill_after_the_end_changes_nothing(machine: Node) -> None:
    async with machine.life() as life:
        given = spec("exit", "0")
        await life.supervisor.start([given])
        await life.post.final(given)
        (late,) = await life.supervisor.kill([named(given)])
        assert not late.ok
        assert late.reason == "it has ended (completed)"
        assert (await life.post.final(given)).status is TaskState.COMPLETED


async def test_a_kill_outlives_the_runner(machine: Node) -> None:
    given = spec("deaf")
    async with machine.life(grace=60) as life:
        await life.supervisor.start([given])
        await life.post.running(given)
        await life.supervisor.kill([named(given)])
    async with machine.life() as life:
        assert (await life.post.final(given)).status is TaskState.KILLED


async def test_pause_and_resume_are_reported_in_order(machine: Node) -> None:
    async with machine.life() as life:
        given = spec()
        await life.supervisor.start([given])
        await life.post.running(given)
        assert (await life.supervisor.pause([named(given)]))[0].ok
        (twice,) = await life.supervisor.pause([named(given)])
        assert not twice.ok
        assert (await life.supervisor.resume([named(given)]))[0].ok
        machine.world.end(given.key, 0)
        await life.post.final(given)
        assert life.post.states(given) == ["running", "paused", "running", "completed"]
        sequences = [report.sequence for report in life.post.of(given)]
        assert sequences == sorted(set(sequences))


async def test_pausing_what_is_not_there_says_so(machine: Node) -> None:
    async with machine.life() as life:
        (result,) = await life.supervisor.pause([AttemptId(task_id=1, attempt=1)])
        assert (result.ok, result.reason) == (False, "it does not run on this node")


async def test_over_its_time_limit_it_fails(machine: Node) -> None:
    async with machine.life() as life:
        given = spec("deaf", time_limit_seconds=1)
        await life.supervisor.start([given])
        final = await life.post.final(given)
        assert (final.status, final.message) == (TaskState.FAILED, "ran over its time limit of 1 s")


async def test_a_time_limit_holds_over_a_restart(machine: Node) -> None:
    given = spec("deaf", time_limit_seconds=1)
    async with machine.life() as life:
        await life.supervisor.start([given])
        await life.post.running(given)
    async with machine.life() as life:
        assert (await life.post.final(given)).message == "ran over its time limit of 1 s"


async def test_a_failed_start_is_the_end(machine: Node) -> None:
    async with machine.life() as life:
        given = spec("no-such-program")
        await life.supervisor.start([given])
        final = await life.post.final(given)
        assert (final.status, final.exit_code) == (TaskState.FAILED, 127)
        assert "no-such-program" in (final.message or "")


async def test_progress_is_reported(machine: Node) -> None:
    async with machine.life() as life:
        gate = life.engine.gate("prepare")
        given = spec("exit", "0")
        await life.supervisor.start([given])
        await eventually(lambda: life.post.of(given))
        assert (life.post.of(given)[0].status, life.post.of(given)[0].message) == (
            TaskState.ASSIGNING,
            "preparing",
        )
        gate.set()
        final = await life.post.final(given)
        assert final.message is None


async def test_an_engine_that_is_away_is_waited_for(machine: Node) -> None:
    async with machine.life() as life:
        machine.world.away = True
        given = spec("exit", "0")
        await life.supervisor.start([given])
        await eventually(lambda: any("waiting" in (report.message or "") for report in life.post.of(given)))
        machine.world.away = False
        assert (await life.post.final(given)).status is TaskState.COMPLETED


async def test_a_kill_ends_the_waiting_for_an_engine(machine: Node) -> None:
    async with machine.life() as life:
        machine.world.away = True
        given = spec()
        await life.supervisor.start([given])
        await eventually(lambda: life.post.of(given))
        await life.supervisor.kill([named(given)])
        assert (await life.post.final(given)).status is TaskState.KILLED


async def test_what_runs_is_taken_up_by_the_next_life(machine: Node) -> None:
    given = spec()
    async with machine.life() as life:
        await life.supervisor.start([given])
        await life.post.running(given)
        last = life.post.of(given)[-1].sequence
    async with machine.life() as life:
        await life.post.running(given)
        assert life.post.of(given)[0].sequence > last
        machine.world.end(given.key, 7)
        final = await life.post.final(given)
        assert (final.status, final.exit_code) == (TaskState.FAILED, 7)
    assert machine.world.starts == [given.key]


async def test_what_ended_between_two_lives_is_told(machine: Node) -> None:
    given = spec()
    async with machine.life() as life:
        await life.supervisor.start([given])
        await life.post.running(given)
    machine.world.end(given.key, 0)
    async with machine.life() as life:
        assert (await life.post.final(given)).status is TaskState.COMPLETED


async def test_a_final_report_is_told_again_with_the_same_content(machine: Node) -> None:
    given = spec("exit", "9")
    async with machine.life() as life:
        await life.supervisor.start([given])
        first = await life.post.final(given)
    async with machine.life() as life:
        assert await life.post.final(given) == first


async def test_what_was_accepted_and_not_started_is_started_by_the_next_life(machine: Node) -> None:
    given = spec("exit", "0")
    async with machine.life() as life:
        life.engine.gate("prepare")
        await life.supervisor.start([given])
        await life.engine.entered["prepare"].wait()
        await life.supervisor.close()
    async with machine.life() as life:
        assert (await life.post.final(given)).status is TaskState.COMPLETED
    assert machine.world.starts == [given.key]


async def test_after_a_reboot_nothing_is_started_again(machine: Node) -> None:
    given = spec("exit", "0")
    async with machine.life() as life:
        life.engine.gate("prepare")
        await life.supervisor.start([given])
        await life.supervisor.close()
    machine.boot = "boot-2"
    async with machine.life() as life:
        final = await life.post.final(given)
    assert final.status is TaskState.FAILED
    assert "restarted" in (final.message or "")
    assert machine.world.starts == []


async def test_what_vanished_is_failed(machine: Node) -> None:
    given = spec()
    async with machine.life() as life:
        await life.supervisor.start([given])
        await life.post.running(given)
    machine.world.units.clear()
    async with machine.life() as life:
        final = await life.post.final(given)
    assert final.status is TaskState.FAILED
    assert machine.world.starts == [given.key]


async def test_units_without_a_journal_are_taken_up_by_their_label(machine: Node, tmp_path: Path) -> None:
    given = spec()
    async with machine.life() as life:
        await life.supervisor.start([given])
        await life.post.running(given)
    for file in tmp_path.glob("journal.db*"):  # noqa: ASYNC240 - a local folder
        file.unlink()
    async with machine.life() as life:
        await life.post.running(given)
        machine.world.end(given.key, 4)
        assert (await life.post.final(given)).exit_code == 4


async def test_a_leftover_of_an_acknowledged_attempt_is_removed(machine: Node) -> None:
    given = spec("exit", "0")
    async with machine.life() as life:
        await life.supervisor.start([given])
        await life.post.final(given)
        machine.world.away = True
        life.supervisor.acknowledge([given.key])
    machine.world.away = False
    assert given.key in machine.world.units
    async with machine.life() as life:
        await eventually(lambda: given.key not in machine.world.units, "it is removed")
        assert life.post.reports == []


async def test_a_unit_is_removed_when_the_engine_is_back(
    machine: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hakuriver_agent.supervisor.REMOVE_AGAIN_SECONDS", 0.01)
    given = spec("exit", "0")
    async with machine.life() as life:
        await life.supervisor.start([given])
        await life.post.final(given)
        machine.world.away = True
        life.supervisor.acknowledge([given.key])
        await asyncio.sleep(0.05)
        assert given.key in machine.world.units
        machine.world.away = False
        await eventually(lambda: given.key not in machine.world.units, "it is removed in the same life")


async def test_a_start_that_is_looked_at_for_long_holds_up_no_other(machine: Node) -> None:
    looked = asyncio.Event()

    class Slow(FakeEngine):
        waiting = 0

        async def refusal(self, given: Any) -> str | None:
            Slow.waiting += 1
            if Slow.waiting == 3:
                looked.set()
            await asyncio.wait_for(looked.wait(), 5)
            return "no" if given.command == "exit" else None

    async with machine.life(engine=Slow(machine.world, "process")) as life:
        results = await life.supervisor.start([spec(), spec("exit", "0"), spec()])
        assert [result.outcome for result in results] == ["accepted", "refused", "accepted"]


async def test_an_engine_that_is_away_at_the_start_is_waited_for(machine: Node) -> None:
    given = spec()
    async with machine.life() as life:
        await life.supervisor.start([given])
        await life.post.running(given)
    machine.world.away = True
    async with machine.life() as life:
        assert life.supervisor.running == [given.key]
        machine.world.end(given.key, 0)
        machine.world.away = False
        assert (await life.post.final(given)).status is TaskState.COMPLETED


@pytest.mark.parametrize("action", [VerdictAction.KILL, VerdictAction.FORGET])
async def test_a_verdict_on_an_ended_attempt_cleans_up(machine: Node, action: VerdictAction) -> None:
    async with machine.life() as life:
        given = spec("exit", "0")
        await life.supervisor.start([given])
        await life.post.final(given)
        await life.supervisor.apply([_verdict(given, action)])
        await eventually(lambda: life.engine.removed == [given.key])
        assert life.post.dropped == [given.key]


async def test_a_verdict_can_kill_what_runs(machine: Node) -> None:
    async with machine.life() as life:
        kept, unwanted = spec(), spec()
        await life.supervisor.start([kept, unwanted])
        await life.post.running(unwanted)
        await life.supervisor.apply(
            [
                _verdict(kept, VerdictAction.KEEP),
                _verdict(unwanted, VerdictAction.KILL),
                _verdict(spec(), VerdictAction.KILL),
            ]
        )
        assert (await life.post.final(unwanted)).status is TaskState.KILLED
        assert life.supervisor.running == [kept.key]


async def test_forgetting_what_runs_does_not_stop_it(machine: Node) -> None:
    async with machine.life() as life:
        given = spec()
        await life.supervisor.start([given])
        await life.post.running(given)
        await life.supervisor.apply([_verdict(given, VerdictAction.FORGET)])
        assert life.supervisor.running == [given.key]


async def test_a_defect_fails_the_attempt_and_nothing_else(machine: Node) -> None:
    class Broken(FakeEngine):
        async def wait(self, key: Any) -> Any:
            raise ZeroDivisionError("surprise")

    async with machine.life(engine=Broken(machine.world, "process")) as life:
        given = spec()
        await life.supervisor.start([given])
        final = await life.post.final(given)
        assert final.status is TaskState.FAILED
        assert "internal error" in (final.message or "")


def _verdict(given: Any, action: VerdictAction) -> Verdict:
    return Verdict(task_id=given.task_id, attempt=given.attempt, action=action)
