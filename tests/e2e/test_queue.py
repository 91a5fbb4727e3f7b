"""Whose turn it is: priorities, holds, times, tasks that run after others, and further attempts after a while."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from hakuriver.states import TaskState
from support.api import Api
from support.cluster import Cluster
from support.waiting import until

USAGE, NOT_FOUND, DENIED, CONFLICT = 2, 3, 4, 5


@pytest.fixture(name="full")
def _full(cluster: Cluster) -> Iterator[Cluster]:
    """Its only node is held by one task until the test ends it."""
    held = cluster.api.submit_one("sleep", "600", required_cores=4, name="full")
    cluster.api.wait_state(held, TaskState.RUNNING)
    yield cluster
    for task in cluster.api.tasks(status=["pending", "running"]):
        cluster.api.kill(task.task_id)
    until(lambda: not cluster.api.tasks(status=["pending", "running"]), lambda: "all have ended")


def free(cluster: Cluster) -> None:
    (task,) = cluster.api.tasks(name="full", status="running")
    cluster.api.kill(task.task_id)


def submit(cluster: Cluster, *words: str) -> int:
    done = cluster.run("task", "submit", *words)
    assert done.code == 0, done.stderr
    return int(done.stdout)


def in_line(cluster: Cluster) -> list[int]:
    rows = cluster.run("queue", "-o", "json").json()
    assert [row["position"] for row in rows if row["position"] is not None] == list(
        range(sum(row["position"] is not None for row in rows))
    )
    return [int(row["task_id"]) for row in rows if row["position"] is not None]


@pytest.fixture(scope="module", name="ada")
def _ada(cluster: Cluster) -> Api:
    cluster.api.json("POST", "/api/users", json={"name": "ada"})
    return cluster.api_as(cluster.api.json("POST", "/api/tokens", json={"user": "ada"})["token"])


class TestPriorities:
    def test_the_higher_runs_first_and_the_list_says_so(self, full: Cluster) -> None:
        low = submit(full, "--cores", "4", "--priority", "-5", "--", "true")
        plain = submit(full, "--cores", "4", "--", "true")
        high = submit(full, "--cores", "4", "--priority", "7", "--", "true")
        assert in_line(full) == [high, plain, low]
        assert f"{plain}" in full.run("queue", "--owner", "admin").stdout
        assert full.api.json("GET", f"/api/explain/{low}")["queue_position"] == 2
        free(full)
        started = [full.api.wait_final(each).started_at for each in (high, plain, low)]
        assert None not in started
        assert started == sorted(started, key=str)

    def test_a_place_can_be_changed_while_it_waits(self, full: Cluster) -> None:
        first, second = (submit(full, "--cores", "4", "--", "true") for _ in range(2))
        assert full.run("task", "reprioritize", str(second), "--priority", "3").code == 0
        assert in_line(full) == [second, first]
        assert full.api.task(second).priority == 3
        assert full.api.task(second).history[-1].cause == "priority 3, given by admin"

    def test_only_an_admin_goes_before_others(self, full: Cluster, ada: Api) -> None:
        answer = ada.call("POST", "/api/submit", json={"command": "true", "priority": 1})
        assert (answer.status_code, answer.json()["error"]) == (403, "denied")
        mine = ada.submit_one("true", priority=-1)
        answer = ada.call("POST", f"/api/priority/{mine}", json={"priority": 1})
        assert answer.status_code == 403
        assert ada.call("POST", f"/api/priority/{mine}", json={"priority": -9}).is_success
        other = full.api.submit_one("true", required_cores=4)
        assert ada.call("POST", f"/api/priority/{other}", json={"priority": -9}).status_code == 403
        assert ada.call("POST", f"/api/command/{other}/hold").status_code == 403

    def test_what_runs_has_no_place(self, full: Cluster) -> None:
        (running,) = full.api.tasks(name="full", status="running")
        for words in (("hold",), ("release",), ("reprioritize", "--priority", "-1")):
            done = full.run("task", words[0], str(running.task_id), *words[1:])
            done.assert_refused(CONFLICT, "is running", "only a task that waits")


class TestHolds:
    def test_held_until_released_also_over_a_restart_of_the_host(self, full: Cluster) -> None:
        held = submit(full, "--cores", "4", "--hold", "--", "true")
        later = submit(full, "--cores", "4", "--", "sleep", "600")
        assert full.run("task", "hold", str(later)).code == 0
        free(full)
        full.host.kill()
        full.start_host()
        full.wait_online()
        task = full.api.task(held)
        assert (task.status, task.held, task.reason) == (
            TaskState.PENDING,
            True,
            "it is held until it is released",
        )
        assert in_line(full) == []
        assert full.api.json("GET", f"/api/explain/{held}")["queue_position"] is None
        assert full.run("task", "release", str(held)).code == 0
        assert full.api.wait_final(held).status is TaskState.COMPLETED
        assert full.api.task(later).status is TaskState.PENDING

    def test_a_held_task_can_be_killed(self, cluster: Cluster) -> None:
        held = submit(cluster, "--hold", "--", "true")
        assert cluster.run("task", "kill", str(held)).code == 0
        assert cluster.api.wait_final(held).status is TaskState.KILLED


class TestTimes:
    def test_not_before(self, cluster: Cluster) -> None:
        when = datetime.now(UTC) + timedelta(seconds=3)
        waits = submit(cluster, "--not-before", when.isoformat(), "--", "true")
        assert "not to run before" in cluster.api.task(waits).reason
        started = cluster.api.wait_final(waits).started_at
        assert started is not None
        assert started >= when

    def test_a_time_that_has_passed_is_no_hindrance(self, cluster: Cluster) -> None:
        task = submit(cluster, "--not-before", "2020-01-01", "--", "true")
        assert cluster.api.wait_final(task).status is TaskState.COMPLETED

    def test_what_is_no_time(self, cluster: Cluster) -> None:
        done = cluster.run("task", "submit", "--not-before", "soon", "--", "true")
        done.assert_refused(USAGE, "'soon' is not a time", "18:00")


class TestAfter:
    def test_each_after_the_one_before_over_a_restart_of_the_host(self, full: Cluster) -> None:
        first = submit(full, "--cores", "4", "--", "true")
        second = submit(full, "--after", str(first), "--", "true")
        third = submit(full, "--after", f"{second}:ok", "--", "true")
        never = submit(full, "--after", f"{first}:failed", "--", "true")
        assert full.api.task(second).reason == f"it waits for task {first} to complete"
        assert full.api.task(third).after == [f"{second}:ok"]
        full.host.kill()
        full.start_host()
        full.wait_online()
        free(full)
        ends = [full.api.wait_final(each) for each in (first, second, third)]
        assert [task.status for task in ends] == [TaskState.COMPLETED] * 3
        assert ends[0].completed_at <= ends[1].started_at  # type: ignore[operator]
        assert ends[1].completed_at <= ends[2].started_at  # type: ignore[operator]
        fallen = full.api.wait_final(never)
        assert fallen.status is TaskState.FAILED
        assert fallen.error_message == f"it was to run once task {first} had failed, which is completed"

    def test_what_can_never_run_falls_with_all_behind_it(self, full: Cluster) -> None:
        first = submit(full, "--cores", "4", "--", "false")
        second = submit(full, "--after", str(first), "--", "true")
        third = submit(full, "--after", str(second), "--", "true")
        mourner = submit(full, "--after", f"{third}:failed", "--", "true")
        free(full)
        for each in (second, third):
            task = full.api.wait_final(each)
            assert (task.status, task.attempt) == (TaskState.FAILED, 0)
        assert full.api.wait_final(mourner).status is TaskState.COMPLETED

    def test_after_a_whole_batch(self, full: Cluster) -> None:
        batch = full.api.submit("true", count=3, required_cores=4)
        last = submit(full, "--after", str(batch.batch_id), "--", "true")
        assert len(full.api.task(last).after) == 3
        free(full)
        ends = [full.api.wait_final(each).completed_at for each in batch.task_ids]
        started = full.api.wait_final(last).started_at
        assert started is not None
        assert all(end is not None and end <= started for end in ends)

    def test_after_one_that_has_ended(self, cluster: Cluster) -> None:
        good, bad = submit(cluster, "--", "true"), submit(cluster, "--", "false")
        for each in (good, bad):
            cluster.api.wait_final(each)
        after = submit(cluster, "--after", str(good), "--after", f"{bad}:any", "--", "true")
        assert cluster.api.wait_final(after).status is TaskState.COMPLETED
        done = cluster.run("task", "submit", "--after", str(bad), "--", "true")
        done.assert_refused(CONFLICT, f"task {bad} is failed", "hakuriver task retry")

    @pytest.mark.parametrize(
        ("text", "code", "words"),
        [
            ("1", NOT_FOUND, "there is no task or batch 1"),
            ("x", USAGE, "'x' is not a task id"),
            ("12:maybe", USAGE, "ID:ok, ID:any or ID:failed"),
        ],
    )
    def test_what_is_no_task(self, cluster: Cluster, text: str, code: int, words: str) -> None:
        cluster.run("task", "submit", "--after", text, "--", "true").assert_refused(code, words)

    def test_anothers(self, full: Cluster, ada: Api) -> None:
        other = full.api.submit_one("true", required_cores=4)
        answer = ada.call("POST", "/api/submit", json={"command": "true", "after": [str(other)]})
        assert (answer.status_code, answer.json()["error"]) == (403, "denied")


class TestBackfill:
    def test_what_is_over_in_time_runs_in_room_that_is_kept(self, cluster: Cluster) -> None:
        runs = submit(cluster, "--cores", "2", "--time-limit", "10m", "--", "sleep", "600")
        cluster.api.wait_state(runs, TaskState.RUNNING)
        first = submit(cluster, "--cores", "4", "--", "true")
        endless, long = submit(cluster, "--", "true"), submit(cluster, "--time-limit", "10m", "--", "true")
        short = submit(cluster, "--time-limit", "1m", "--cores", "2", "--", "true")
        assert cluster.api.wait_final(short).status is TaskState.COMPLETED
        for each in (first, endless, long):
            assert cluster.api.task(each).status is TaskState.PENDING
        assert f"its room is kept for task {first}" in cluster.api.task(long).reason
        rows = {int(row["task_id"]): row for row in cluster.run("queue", "-o", "json").json()}
        began = cluster.api.task(runs).started_at
        assert began is not None
        expected = datetime.fromisoformat(rows[first]["expected_start"])
        assert abs(expected - began - timedelta(minutes=10)) < timedelta(seconds=5)
        assert rows[endless]["expected_start"] is None, "nobody knows when the first one ends"
        told = cluster.run("task", "explain", str(first), "-o", "json").json()
        assert abs(datetime.fromisoformat(told["expected_start"]) - expected) < timedelta(seconds=5)
        cluster.api.kill(runs)
        ends = [cluster.api.wait_final(each) for each in (first, endless, long)]
        assert ends[0].started_at <= min(end.started_at for end in ends[1:])  # type: ignore[type-var, operator]


class TestFurtherAttempts:
    def test_on_an_exit_code_after_a_while_that_doubles(self, cluster: Cluster) -> None:
        task = submit(
            cluster, "--retries", "2", "--retry-on", "75", "--retry-delay", "1s", "--", "sh", "-c", "exit 75"
        )
        ended = cluster.api.wait_final(task)
        assert (ended.status, ended.attempt, ended.exit_code) == (TaskState.FAILED, 3, 75)
        starts = [event.time for event in ended.history if event.state is TaskState.ASSIGNING]
        ends = [event.time for event in ended.history if event.state in {TaskState.PENDING, TaskState.FAILED}]
        first, second = (start - end for start, end in zip(starts[1:], ends[1:-1], strict=True))
        assert first >= timedelta(seconds=0.99)
        assert second >= timedelta(seconds=1.99)
        assert any("retry 1 of 2 in 1s" in event.cause for event in ended.history)

    def test_not_on_another(self, cluster: Cluster) -> None:
        task = submit(cluster, "--retries", "2", "--retry-on", "75", "--", "sh", "-c", "exit 3")
        ended = cluster.api.wait_final(task)
        assert (ended.attempt, ended.exit_code) == (1, 3)

    @pytest.mark.parametrize("what", ["boredom", "0", "256", "-1"])
    def test_what_is_no_cause(self, cluster: Cluster, what: str) -> None:
        done = cluster.run("task", "submit", f"--retry-on={what}", "--", "true")
        done.assert_refused(USAGE, "--retry-on", "an exit code from 1 to 255")


def test_a_new_task_for_one_that_ended_waits_for_nothing(cluster: Cluster) -> None:
    first = submit(cluster, "--", "true")
    cluster.api.wait_final(first)
    once = submit(cluster, "--after", str(first), "--not-before", "1s", "--", "true")
    cluster.api.wait_final(once)
    again = int(cluster.run("task", "retry", str(once)).stdout)
    task = cluster.api.wait_final(again)
    assert (task.status, task.after, task.not_before) == (TaskState.COMPLETED, [], None)
