"""The Runner as a real process, killed and started again, with a Host of a few lines."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from hakuriver.models.runner import AttemptSpec
from hakuriver.states import TaskState
from integration.agent.stand_in import RealRunner, StandInHost, stand_in
from support import disks, engine, shares
from support.waiting import until

ENGINES = ["process", pytest.param("docker", marks=pytest.mark.docker)]
Pair = tuple[StandInHost, RealRunner]


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with stand_in(tmp_path) as (host, runner):
        if engine.why_not() is None:
            engine.write_environment(runner.shared / "hakuriver-containers")
        runner.start()
        yield host, runner


@pytest.mark.parametrize("kind", ENGINES)
def test_a_task_runs_and_is_cleaned_up(pair: Pair, kind: str) -> None:
    host, runner = pair
    spec = runner.spec("sh", "-c", "echo out; echo err >&2; exit 3", engine=kind)
    assert runner.run([spec]).results[0].outcome == "accepted"
    final = host.final(spec)
    assert (final.status, final.exit_code) == (TaskState.FAILED, 3)
    assert runner.out(spec) == b"out\n"
    assert (runner.shared / spec.stderr_path).read_bytes() == b"err\n"
    until(lambda: not list((runner.folder / "temp").iterdir()), "its scratch is gone")
    if kind == "docker":
        until(lambda: not engine.containers_of(runner.name), "its container is gone")


@pytest.mark.parametrize("kind", ENGINES)
def test_a_task_outlives_the_runner(pair: Pair, kind: str) -> None:
    host, runner = pair
    script = "echo begin; while [ ! -e go ]; do sleep 0.02; done; echo end; exit 7"
    spec = runner.spec("sh", "-c", script, engine=kind)
    runner.run([spec])
    host.running(spec)
    runner.restart()
    assert [report.key for report in host.registrations[-1].attempts] == [spec.key]
    (runner.shared / "shared_data" / "go").touch()
    assert host.final(spec).exit_code == 7
    assert runner.out(spec) == b"begin\nend\n"


@pytest.mark.parametrize("kind", ENGINES)
def test_an_end_while_the_runner_is_gone_is_told(pair: Pair, kind: str) -> None:
    host, runner = pair
    spec = runner.spec("sh", "-c", "while [ ! -e go ]; do sleep 0.02; done; touch done; exit 5", engine=kind)
    runner.run([spec])
    host.running(spec)
    runner.daemon.kill()
    (runner.shared / "shared_data" / "go").touch()
    until((runner.shared / "shared_data" / "done").exists, "it has ended")
    runner.start()
    assert host.final(spec).exit_code == 5


@pytest.mark.parametrize("kind", ENGINES)
def test_killed_again_and_again_every_task_ends_once(pair: Pair, kind: str) -> None:
    host, runner = pair
    count = 24 if kind == "process" else 6
    script = (
        "echo x >> ran-$HAKURIVER_TASK_ID; sleep 0.$((HAKURIVER_TASK_INDEX % 7)); exit $HAKURIVER_TASK_INDEX"
    )
    specs = [runner.spec("sh", "-c", script, engine=kind, index=number) for number in range(count)]
    for turn in range(4):
        part = specs[turn::4]
        runner.run(part)
        runner.restart()
        assert {result.outcome for result in runner.run(part).results} == {"known"}
    for number, spec in enumerate(specs):
        final = host.final(spec)
        assert final.exit_code == number
        assert (runner.shared / "shared_data" / f"ran-{spec.task_id}").read_text() == "x\n"
    until(lambda: runner.get("/api/attempts").json()["attempts"] == [], "nothing is left to tell")


@pytest.mark.parametrize("kind", ENGINES)
def test_a_kill_holds_over_a_restart(pair: Pair, kind: str) -> None:
    host, runner = pair
    spec = runner.spec("sh", "-c", "trap '' TERM; while :; do sleep 0.02; done", engine=kind)
    runner.run([spec])
    host.running(spec)
    assert runner.order("kill", spec).results[0].ok
    runner.restart()
    assert host.final(spec).status is TaskState.KILLED


@pytest.mark.parametrize("kind", ENGINES)
def test_a_paused_task_stays_so_over_a_restart(pair: Pair, kind: str) -> None:
    host, runner = pair
    spec = runner.spec("sleep", "1000", engine=kind)
    runner.run([spec])
    host.running(spec)
    assert runner.order("pause", spec).results[0].ok
    runner.restart()
    assert [report.status for report in host.registrations[-1].attempts] == [TaskState.PAUSED]
    assert runner.order("resume", spec).results[0].ok
    assert runner.order("kill", spec).results[0].ok
    assert host.final(spec).status is TaskState.KILLED


def test_reports_wait_for_a_host_that_cannot_write(pair: Pair) -> None:
    host, runner = pair
    host.refusing = True
    spec = runner.spec("sh", "-c", "exit 4")
    runner.run([spec])
    runner.restart()
    assert host.of(spec) == []
    host.refusing = False
    assert host.final(spec).exit_code == 4


def test_a_lost_shim_fails_what_it_ran_and_is_replaced(pair: Pair) -> None:
    host, runner = pair
    spec = runner.spec("sleep", "1000")
    runner.run([spec])
    host.running(spec)
    shim, task = _shim(runner), _process_of(spec.task_id)
    os.kill(shim.pid, signal.SIGKILL)
    final = host.final(spec)
    assert (final.status, final.exit_code) == (TaskState.FAILED, None)
    assert "shim" in (final.message or "")
    until(lambda: not task.is_running(), "what survived it is ended")
    after = runner.spec("sh", "-c", "exit 6")
    runner.run([after])
    assert host.final(after).exit_code == 6


def test_the_shim_is_told_by_the_next_runner_what_ended_with_it(pair: Pair) -> None:
    host, runner = pair
    spec = runner.spec("sleep", "1000")
    runner.run([spec])
    host.running(spec)
    shim = _shim(runner)
    runner.daemon.kill()
    os.kill(shim.pid, signal.SIGKILL)
    runner.start()
    assert host.final(spec).status is TaskState.FAILED


def test_the_shim_ends_with_an_idle_runner(pair: Pair) -> None:
    host, runner = pair
    spec = runner.spec("true")
    runner.run([spec])
    host.final(spec)
    until(lambda: runner.get("/api/attempts").json()["attempts"] == [], "all is acknowledged")
    shim = _shim(runner)
    runner.daemon.stop()
    until(lambda: not shim.is_running(), "the shim ends")


def test_a_task_goes_on_when_the_runner_is_stopped_in_order(pair: Pair) -> None:
    host, runner = pair
    spec = runner.spec("sh", "-c", "while [ ! -e go ]; do sleep 0.02; done; exit 9")
    runner.run([spec])
    host.running(spec)
    runner.daemon.stop()
    runner.start()
    (runner.shared / "shared_data" / "go").touch()
    assert host.final(spec).exit_code == 9


@pytest.mark.small_disk
@pytest.mark.parametrize("kind", ENGINES)
def test_a_full_share_delays_output_and_loses_none(tmp_path: Path, kind: str) -> None:
    with stand_in(tmp_path) as (host, runner), disks.small_disk(runner.shared, 8) as disk:
        shares.make(runner.shared)
        if kind == "docker":
            engine.write_environment(runner.shared / "hakuriver-containers")
        runner.start()
        script = "echo first; while [ ! -e go ]; do sleep 0.02; done; head -c 300000 /dev/zero; echo last"
        spec = runner.spec("sh", "-c", script, engine=kind)
        runner.run([spec])
        until(lambda: runner.out(spec) == b"first\n", "it prints")
        (runner.shared / "shared_data" / "go").touch()
        disk.fill()
        until(lambda: not _grows(runner, spec), "its output waits")
        disk.free()
        final = host.final(spec)
        assert (final.status, final.message) == (TaskState.COMPLETED, None)
        assert runner.out(spec) == b"first\n" + bytes(300_000) + b"last\n"


@pytest.mark.small_disk
def test_a_share_that_stays_full_cuts_output_and_says_so(tmp_path: Path) -> None:
    with stand_in(tmp_path) as (host, runner), disks.small_disk(runner.shared, 2) as disk:
        shares.make(runner.shared)
        runner.start()
        spec = runner.spec(
            "sh", "-c", "echo first; while [ ! -e go ]; do sleep 0.02; done; echo last; exit 2"
        )
        runner.run([spec])
        until(lambda: runner.out(spec) == b"first\n", "it prints")
        (runner.shared / "shared_data" / "go").touch()
        disk.fill()
        final = host.final(spec)
        assert final.exit_code == 2
        if runner.out(spec) == b"first\n":
            assert "output was cut" in (final.message or "")


@pytest.mark.docker
def test_without_docker_the_process_engine_serves_and_docker_is_found_later(tmp_path: Path) -> None:
    socket = tmp_path / "docker.sock"
    with stand_in(tmp_path, {"docker": {"socket": f"unix://{socket}"}}) as (host, runner):
        runner.start()
        first = host.registrations[-1]
        assert first.engines == ["process"]
        assert "socket is missing" in first.engine_notes["docker"]
        socket.symlink_to("/var/run/docker.sock")
        host.wait(lambda: "docker" in host.registrations[-1].engines, "it registers again with docker")


def test_a_missing_environment_fails_with_its_name(pair: Pair) -> None:
    host, runner = pair
    if engine.why_not():
        pytest.skip(str(engine.why_not()))
    spec = runner.spec("true", engine="docker", environment="nowhere", environment_version="1")
    runner.run([spec])
    final = host.final(spec)
    assert final.status is TaskState.FAILED
    assert "no version 1 of the environment nowhere" in (final.message or "")


def test_the_marker_of_the_share_is_told(pair: Pair) -> None:
    """Whenever it is another than before; and without it nothing starts."""
    host, runner = pair
    assert host.registrations[-1].shared_id == "a share of the tests"
    marker, away = runner.shared / ".hakuriver-share", runner.shared / "away"
    marker.rename(away)
    host.wait(lambda: host.registrations[-1].shared_id is None, "it tells that the share is gone")
    spec = runner.spec("true")
    runner.run([spec])
    host.wait(lambda: [r for r in host.of(spec) if "waiting for the share" in (r.message or "")], "it waits")
    away.rename(marker)
    assert host.final(spec).status is TaskState.COMPLETED
    host.wait(lambda: host.registrations[-1].shared_id == "a share of the tests", "it tells that it is back")


def test_a_second_runner_on_the_same_state_is_refused(pair: Pair) -> None:
    _, runner = pair
    from support.daemons import Daemon

    second = Daemon("hakuriver_agent", runner.daemon.config, runner.folder / "second.log")
    second.start()
    assert second.wait() == 5
    assert second.output().count("\n") == 2
    assert "another Runner" in second.output()


def _grows(runner: RealRunner, spec: AttemptSpec) -> bool:
    """Whether output still arrives; the share is full when it does not."""
    before = len(runner.out(spec))
    return any(len(runner.out(spec)) != before for _ in range(50))


def _shim(runner: RealRunner) -> psutil.Process:
    state = str(runner.folder / "state")

    def find() -> psutil.Process | None:
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            if "-S" in words and any(word.startswith(state) for word in words):
                return process
        return None

    return until(find, "there is a shim")


def _process_of(task_id: int) -> psutil.Process:
    def find() -> psutil.Process | None:
        for process in psutil.process_iter():
            try:
                if process.environ().get("HAKURIVER_TASK_ID") == str(task_id):
                    return process
            except psutil.Error:
                continue
        return None

    return until(find, "the task has a process")
