"""Sweeps and other batches on the cluster: submitted, listed, waited for, killed, made anew, and their logs."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from hakuriver.client import Client
from hakuriver.states import FINAL, TaskState
from support.api import Api
from support.cluster import Cluster, running
from support.waiting import until

USAGE, NOT_FOUND, DENIED, CONFLICT = 2, 3, 4, 5
NUMBERS = 'echo "$0 $1 $HAKURIVER_TASK_INDEX $HAKURIVER_SWEEP_INDEX/$HAKURIVER_SWEEP_COUNT $SEED"'


@pytest.fixture(autouse=True)
def _nothing_left(cluster: Cluster) -> Iterator[None]:
    yield
    live = [state for state in TaskState if state not in FINAL]
    for task in cluster.api.tasks(status=live):
        cluster.api.kill(task.task_id)
    until(lambda: not cluster.api.tasks(status=live), "all have ended")


@pytest.fixture(scope="module", name="ada")
def _ada(cluster: Cluster) -> Api:
    cluster.api.json("POST", "/api/users", json={"name": "ada"})
    return cluster.api_as(cluster.api.json("POST", "/api/tokens", json={"user": "ada"})["token"])


def sweep(cluster: Cluster, *words: str) -> str:
    """The id of the batch."""
    done = cluster.run("task", "submit", "--sweep", *words)
    assert done.code == 0, done.stderr
    return done.stdout.strip()


def gated(cluster: Cluster, name: str, code: str = "0") -> tuple[Path, tuple[str, ...]]:
    """A file, and a command that runs until it is there."""
    gate = cluster.shared / name
    return gate, ("--", "sh", "-c", f"until [ -e {gate} ]; do sleep 0.05; done; exit {code}", "span:{1..6}")


def states(cluster: Cluster, batch: str) -> list[TaskState]:
    """Of its tasks, by number."""
    tasks = cluster.api.tasks(batch_id=batch)
    return [task.status for task in sorted(tasks, key=lambda task: task.index)]


def in_use(cluster: Cluster, batch: str) -> int:
    return sum(state in {TaskState.ASSIGNING, TaskState.RUNNING} for state in states(cluster, batch))


class TestSubmission:
    def test_each_combination_is_a_task_that_knows_which_it_is(self, cluster: Cluster) -> None:
        words = (
            "--env",
            "SEED=span:[7,8]",
            "--",
            "sh",
            "-c",
            NUMBERS,
            "lr=span:{0.1..0.3..0.1}",
            "span:[a,b]",
        )
        batch = sweep(cluster, "--name", "combined", *words)
        assert cluster.run("batch", "wait", batch).code == 0
        done = cluster.run("batch", "logs", batch)
        assert done.stdout.splitlines() == [
            f"[{index}] lr={lr} {letter} {index} {index}/12 {seed}"
            for index, (lr, letter, seed) in enumerate(
                (lr, letter, seed) for lr in ("0.1", "0.2", "0.3") for letter in "ab" for seed in "78"
            )
        ]
        task = next(task for task in cluster.api.tasks(batch_id=batch) if task.index == 7)
        assert task.arguments[-2:] == ["lr=0.2", "b"]
        detail = cluster.api.task(task.task_id)
        assert (detail.env_vars, detail.sweep_values) == ({"SEED": "8"}, ["0.2", "b", "8"])
        shown = cluster.run("task", "status", str(task.task_id), "-o", "wide").stdout
        assert "lr=0.2 b" in shown

    def test_run_stays_with_all_of_them(self, cluster: Cluster) -> None:
        done = cluster.run("task", "run", "--sweep", "--", "sh", "-c", "echo $0; exit $0", "span:[0,3]")
        assert sorted(done.stdout.splitlines()) == ["[0] 0", "[1] 3"]
        assert done.code == 3

    def test_a_program_does_the_same(self, cluster: Cluster) -> None:
        token = (cluster.state_dir / "admin.token").read_text("utf-8").strip()
        with Client(cluster.url, token) as client:
            made = client.submit(command="echo", arguments=["span:{1..3}"], sweep=True, max_running=2)
            batch = client.wait_batch(made.batch_id)
            assert (batch.counts, batch.failures) == ({TaskState.COMPLETED: 3}, [])
            assert [client.stdout(task_id) for task_id in made.task_ids] == [b"1\n", b"2\n", b"3\n"]
            assert next(found.batch_id for found in client.iter_batches(min_tasks=3)) == made.batch_id

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (("--", "echo", "1"), "there is no span"),
            (("--", "echo", "span:[]"), "span:[] has no values"),
            (("--", "echo", "span:{}"), "is not a span of numbers"),
            (("--", "echo", "span:[a"), "is not a span"),
            (("--", "echo", "span:{1..1000000}"), "the sweep has 1,000,000 runs"),
            (("--", "echo", "span:{1..1000001}"), "has 1,000,001 values"),
            (("--", "echo", *["span:{1..1000000}"] * 4), "that makes more than"),
            (("--count", "2", "--", "echo", "span:{1..2}"), "leave the count out"),
            (("--max-running", "0", "--", "echo", "span:{1..2}"), "--max-running 0"),
            (("-e", "HAKURIVER_SWEEP_INDEX=1", "--", "echo", "span:{1..2}"), "cannot be set"),
        ],
    )
    def test_what_is_refused(self, cluster: Cluster, words: tuple[str, ...], said: str) -> None:
        cluster.run("task", "submit", "--sweep", *words).assert_refused(USAGE, said, "hint:")

    def test_to_several_targets(self, cluster: Cluster) -> None:
        target = ("--target", cluster.node.name)
        words = ("--", "echo", "span:{1..2}")
        cluster.run("task", "submit", "--sweep", *target, *target, *words).assert_refused(
            USAGE, "one target at most"
        )
        assert cluster.run("batch", "wait", sweep(cluster, *target, *words)).code == 0

    def test_a_vps_is_none(self, cluster: Cluster) -> None:
        for field in ({"sweep": True}, {"max_running": 1}):
            body = {
                "task_type": "vps",
                "command": "-",
                "required_cores": 0,
                "container_name": "base",
                **field,
            }
            answer = cluster.api.call("POST", "/api/submit", json=body)
            assert (answer.status_code, answer.json()["message"]) == (400, "a VPS is one task alone")


class TestMaxRunning:
    def test_so_many_at_a_time_over_a_restart_of_the_host(self, cluster: Cluster) -> None:
        gate, command = gated(cluster, "restart")
        batch = sweep(cluster, "--max-running", "2", *command)
        until(lambda: states(cluster, batch).count(TaskState.RUNNING) == 2, "two run")
        other = cluster.api.submit_one("true")
        assert cluster.api.wait_final(other).status is TaskState.COMPLETED, "it holds up nobody"
        waits = [task for task in cluster.api.tasks(batch_id=batch) if task.status is TaskState.PENDING]
        assert waits[0].reason == "2 of its batch run, and no more than 2 may at a time"
        told = cluster.api.json("GET", f"/api/explain/{waits[0].task_id}")
        assert told["nodes"][0]["reason"].startswith("has room, but 2 of its batch run")
        cluster.host.kill()
        cluster.start_host()
        cluster.wait_online()
        another = cluster.api.submit_one("true")
        assert cluster.api.wait_final(another).status is TaskState.COMPLETED
        assert in_use(cluster, batch) == 2
        gate.touch()
        assert cluster.run("batch", "wait", batch).code == 0
        events = [
            event
            for task in cluster.api.tasks(batch_id=batch)
            for event in cluster.api.task(task.task_id).history
        ]
        most = holding = 0
        for event in sorted(events, key=lambda event: event.sequence):
            holding += (event.state is TaskState.ASSIGNING) - (event.state in FINAL)
            most = max(most, holding)
        assert most == 2

    def test_of_a_count_too(self, cluster: Cluster) -> None:
        made = cluster.api.submit("true", count=3, max_running=1)
        for task_id in made.task_ids:
            assert cluster.api.wait_final(task_id).status is TaskState.COMPLETED
        starts = [cluster.api.task(task_id) for task_id in made.task_ids]
        for first, then in itertools.pairwise(starts):
            assert first.history[-1].sequence < then.history[1].sequence


class TestLists:
    def test_a_batch_is_one_line_of_the_list(self, cluster: Cluster) -> None:
        alone = cluster.api.submit_one("true", name="listed")
        cluster.api.wait_final(alone)
        batch = sweep(cluster, "--name", "listed", "--", "sh", "-c", "exit $0", "span:[0,0,1]")
        assert cluster.run("task", "wait", batch).code == 1
        rows = cluster.run("task", "list", "--name", "listed").stdout.splitlines()
        assert len(rows) == 3
        assert rows[1].split()[:6] == [batch, "listed", "2", "completed,", "1", "failed"]
        assert "span:[0,0,1]" in rows[1]
        assert rows[2].split()[:3] == [str(alone), "listed", "completed"]
        assert len(cluster.run("task", "list", "--name", "listed", "--tasks").stdout.splitlines()) == 5
        assert len(cluster.run("task", "list", "--batch", batch).stdout.splitlines()) == 4
        assert len(cluster.run("task", "list", "--name", "listed", "-o", "name").stdout.splitlines()) == 4
        found = cluster.run("task", "list", "--name", "listed", "-o", "json").json()
        assert sorted(task["index"] for task in found) == [0, 0, 1, 2]
        (failed,) = cluster.run("task", "list", "--name", "listed", "--status", "failed").stdout.splitlines()[
            1:
        ]
        assert failed.split()[:3] == [
            str(next(task["task_id"] for task in found if task["status"] == "failed")),
            "listed",
            "failed",
        ]

    def test_batches_of_several(self, cluster: Cluster) -> None:
        alone = cluster.api.submit("true", name="several")
        cluster.api.wait_final(alone.task_ids[0])
        batches = [sweep(cluster, "--name", "several", "--", "true", "span:{1..2}") for _ in range(3)]
        assert cluster.run("batch", "wait", *batches).code == 0
        words = ("batch", "list", "--name", "several", "-o", "name")
        assert cluster.run(*words).stdout.split() == batches[::-1]
        assert cluster.run(*words, "--limit", "2").stdout.split() == batches[:0:-1]
        assert cluster.run(*words, "--all").stdout.split() == [*batches[::-1], str(alone.batch_id)]
        shown = cluster.run("batch", "list", "--name", "several").stdout
        assert "2 of 2" in shown
        assert "2 completed" in shown
        answer = cluster.api.call("GET", "/api/batches", params={"name": "several", "limit": 3})
        assert [found["batch_id"] for found in answer.json()] == batches[::-1]
        assert answer.json()[0]["counts"] == {"completed": 2}
        cursor = answer.headers["X-Next-Cursor"]
        (last,) = cluster.api.json("GET", "/api/batches", params={"name": "several", "cursor": cursor})
        assert last["task"]["task_id"] == str(alone.task_ids[0])

    def test_others_see_no_arguments(self, cluster: Cluster, ada: Api) -> None:
        batch = sweep(cluster, "--env", "KEY=secret", "--", "true", "span:[secret,b]")
        shown = ada.json("GET", f"/api/batches/{batch}")
        assert "secret" not in json.dumps(shown)
        assert "secret" not in json.dumps(ada.json("GET", "/api/batches"))
        assert cluster.api.json("GET", f"/api/batches/{batch}")["arguments"] == ["span:[secret,b]"]

    def test_what_is_no_batch(self, cluster: Cluster) -> None:
        cluster.run("batch", "status", "1").assert_refused(NOT_FOUND, "there is no batch 1", "batch list")
        made = cluster.api.submit("true")
        cluster.run("batch", "wait", str(made.task_ids[0])).assert_refused(
            NOT_FOUND, f"it is a task of batch {made.batch_id}"
        )
        cluster.run("task", "status", str(made.batch_id)).assert_refused(
            NOT_FOUND, f"hakuriver batch status {made.batch_id}"
        )


class TestControl:
    def test_waiting_tells_of_what_failed(self, cluster: Cluster) -> None:
        batch = sweep(cluster, "--", "sh", "-c", "exit $0", "span:[0,7,0,3]")
        done = cluster.run("batch", "wait", batch)
        assert done.code == 7
        lines = done.stderr.splitlines()
        assert "(index 1) failed with exit code 7" in lines[0]
        assert "(index 3) failed with exit code 3" in lines[1]
        assert lines[2] == f"2 of 4 tasks have not completed; `hakuriver batch retry {batch}` makes them anew"
        shown = cluster.run("batch", "status", batch, "-o", "json").json()
        assert shown["counts"] == {"completed": 2, "failed": 2}
        assert [task["index"] for task in shown["failures"]] == [1, 3]
        both = cluster.run("task", "submit", "--sweep", "--wait", "--", "sh", "-c", "exit $0", "span:[0,4]")
        assert both.code == 4

    def test_waiting_ends_with_the_last(self, cluster: Cluster) -> None:
        gate, command = gated(cluster, "waited")
        batch = sweep(cluster, *command)
        waiting = cluster.run.start("batch", "wait", batch, "-o", "json")
        until(lambda: TaskState.RUNNING in states(cluster, batch), "one runs")
        assert waiting.poll() is None
        gate.touch()
        out, _ = waiting.communicate(timeout=60)
        assert waiting.returncode == 0
        assert json.loads(out)[0]["counts"] == {"completed": 6}

    @pytest.mark.parametrize("noun", ["batch", "task"])
    def test_one_request_kills_all(self, cluster: Cluster, noun: str) -> None:
        _, command = gated(cluster, "never")
        batch = sweep(cluster, "--max-running", "2", *command)
        until(lambda: states(cluster, batch).count(TaskState.RUNNING) == 2, "two run")
        done = cluster.run(noun, "kill", batch)
        assert "4 tasks that waited are killed, 2 tasks that did not wait are being killed" in done.stdout
        assert states(cluster, batch).count(TaskState.KILLED) >= 4
        assert cluster.run("batch", "wait", batch).code in {1, 137, 143}
        assert states(cluster, batch) == [TaskState.KILLED] * 6
        cluster.run(noun, "kill", batch).assert_refused(CONFLICT, "have ended")

    def test_only_what_failed_is_made_anew_with_its_number(self, cluster: Cluster) -> None:
        mark = cluster.shared / "second"
        text = f"[ -e {mark} ] || [ $0 != 3 -a $0 != 5 ] || exit $0; echo run $0 $HAKURIVER_SWEEP_INDEX"
        batch = sweep(cluster, "--max-running", "3", "--", "sh", "-c", text, "span:{1..6}")
        assert cluster.run("batch", "wait", batch).code == 3
        mark.touch()
        again = cluster.run("batch", "retry", batch).stdout.strip()
        assert cluster.run("batch", "wait", again).code == 0
        assert cluster.run("batch", "logs", again).stdout.splitlines() == ["[2] run 3 2", "[4] run 5 4"]
        assert cluster.api.json("GET", f"/api/batches/{again}")["max_running"] == 3
        cluster.run("batch", "retry", again).assert_refused(CONFLICT, "no task of batch")
        (one, two) = sorted(task.task_id for task in cluster.api.tasks(batch_id=again))
        (third,) = cluster.run("task", "retry", str(two)).stdout.split()
        assert cluster.api.wait_final(int(third)).index == 4
        assert cluster.api.log(int(third)) == b"run 5 4\n"
        assert cluster.api.log(one) == b"run 3 2\n"

    def test_a_retry_that_is_sent_again_is_one(self, cluster: Cluster) -> None:
        batch = sweep(cluster, "--", "sh", "-c", "exit $0", "span:[1,2]")
        cluster.run("batch", "wait", batch)
        headers = {"Idempotency-Key": f"again-{batch}"}
        made = [
            cluster.api.json("POST", f"/api/batches/{batch}/retry", headers=headers)["batch_id"]
            for _ in range(2)
        ]
        assert made[0] == made[1]

    @pytest.mark.parametrize("noun", ["batch", "task"])
    def test_held_released_and_brought_forward(self, cluster: Cluster, noun: str) -> None:
        gate, command = gated(cluster, f"held-{noun}")
        batch = sweep(cluster, "--max-running", "1", *command)
        until(lambda: TaskState.RUNNING in states(cluster, batch), "one runs")
        assert "5 tasks that waited are held" in cluster.run(noun, "hold", batch).stdout
        assert sum(task.held for task in cluster.api.tasks(batch_id=batch)) == 5
        assert cluster.run(noun, "reprioritize", batch, "--priority", "5").code == 0
        assert sorted(task.priority for task in cluster.api.tasks(batch_id=batch)) == [0, 5, 5, 5, 5, 5]
        assert "5 tasks that waited are released" in cluster.run(noun, "release", batch).stdout
        gate.touch()
        assert cluster.run(noun, "wait", batch).code == 0
        cluster.run(noun, "hold", batch).assert_refused(CONFLICT, "waits")

    def test_anothers(self, cluster: Cluster, ada: Api) -> None:
        _, command = gated(cluster, "foreign")
        batch = sweep(cluster, *command)
        for what in ("kill", "hold", "release", "retry"):
            answer = ada.call("POST", f"/api/batches/{batch}/{what}")
            assert (answer.status_code, answer.json()["error"]) == (403, "denied"), what
        answer = ada.call("POST", f"/api/batches/{batch}/priority", json={"priority": -1})
        assert answer.status_code == 403
        assert cluster.run("batch", "kill", batch).code == 0


class TestLogs:
    def test_followed_to_the_end(self, cluster: Cluster) -> None:
        gate = cluster.shared / "followed"
        text = f"echo began $0; until [ -e {gate} ]; do sleep 0.05; done; echo done $0; echo bad >&2"
        batch = sweep(cluster, "--max-running", "2", "--", "sh", "-c", text, "span:{1..4}")
        following = cluster.run.start("batch", "logs", batch, "--follow")
        assert following.stdout is not None
        assert following.stdout.readline().startswith(b"[")
        gate.touch()
        out, err = following.communicate(timeout=60)
        assert following.returncode == 0
        lines = sorted([*out.decode().splitlines()])
        assert {f"[{index}] done {index + 1}" for index in range(4)} <= set(lines)
        assert sorted(err.decode().splitlines()) == [f"[{index}] bad" for index in range(4)]
        again = cluster.run("task", "logs", batch, "--follow", "--stdout")
        assert again.stdout.splitlines() == [
            f"[{index}] {word} {index + 1}" for index in range(4) for word in ("began", "done")
        ]

    def test_of_some_and_as_json(self, cluster: Cluster) -> None:
        text = "echo first; printf last-$0; exit $0"
        batch = sweep(cluster, "--", "sh", "-c", text, "span:[0,1]")
        cluster.run("batch", "wait", batch)
        assert cluster.run("batch", "logs", batch, "--status", "failed").stdout == "[1] first\n[1] last-1\n"
        assert cluster.run("batch", "logs", batch, "--tail", "1").stdout == "[0] last-0\n[1] last-1\n"
        lines = [
            json.loads(line) for line in cluster.run("batch", "logs", batch, "-o", "json").stdout.splitlines()
        ]
        assert [(line["index"], line["text"]) for line in lines][2:] == [(1, "first"), (1, "last-1")]


@pytest.mark.postgresql
def test_on_postgresql(tmp_path: Path, postgresql_url: str) -> None:
    with running(Cluster(tmp_path, sections={"database": {"url": postgresql_url}})) as cluster:
        batch = sweep(
            cluster, "--name", "pg", "--max-running", "2", "--", "sh", "-c", "exit $0", "span:[0,0,5]"
        )
        assert cluster.run("batch", "wait", batch).code == 5
        (row,) = cluster.run("task", "list").stdout.splitlines()[1:]
        assert row.split()[:6] == [batch, "pg", "2", "completed,", "1", "failed"]
        again = cluster.run("batch", "retry", batch).stdout.strip()
        assert cluster.run("batch", "wait", again).code == 5
        cluster.run("batch", "kill", again).assert_refused(CONFLICT, "have ended")
        assert [found["batch_id"] for found in cluster.api.json("GET", "/api/batches")] == [again, batch]
