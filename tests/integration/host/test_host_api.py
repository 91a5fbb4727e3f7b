"""The Host's API in full, on every database it serves."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy.exc import OperationalError

from hakuriver.store.layout import manifest_path
from hakuriver.version import __version__
from hakuriver_host import app
from hakuriver_host.db.tables import TokenRow
from hakuriver_host.db.writer import Changes
from hakuriver_host.domain import reactor
from hakuriver_host.domain.model import Now
from hakuriver_host.services import dispatch, tasks, threads
from hakuriver_host.services.access import Access
from hakuriver_host.services.core import clock as core_clock
from hakuriver_host.services.metrics import METRICS
from support.store import layer, write_version

Task = dict[str, Any]
ECHO = {"command": "echo", "arguments": ["hi"], "env_vars": {"SECRET": "s3"}}


async def submit(client: httpx.AsyncClient, key: str | None = None, **changes: Any) -> httpx.Response:
    headers = {"Idempotency-Key": key} if key else {}
    return await client.post("/api/submit", json={**ECHO, **changes}, headers=headers)


async def one(client: httpx.AsyncClient, **changes: Any) -> str:
    answer = await submit(client, **changes)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["task_ids"][0])


async def started(host: Any) -> Task:
    return await asyncio.wait_for(host.runner.starts.get(), 20)


@contextlib.contextmanager
def full_disk(host: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing can be written meanwhile."""

    def full(_group: object) -> None:
        raise OperationalError("INSERT", {}, sqlite3.OperationalError("database or disk is full"))

    with monkeypatch.context() as patch:
        patch.setattr(host.app.parts.core.writer, "_commit", full)
        yield


def ahead(now: Now) -> Now:
    """The clock has jumped by ten years."""
    return now._replace(wall=now.wall + 10 * 365 * 86_400)


class KilledError(Exception):
    pass


async def keep_and_die(access: Access, row: TokenRow) -> None:
    await keep(access, row)
    raise KilledError


keep = Access._keep


async def until(probe: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not probe():
            await asyncio.sleep(0.01)


def report(attempt: Task, sequence: int, status: str, **changes: Any) -> Task:
    return {
        "task_id": attempt["task_id"],
        "attempt": attempt["attempt"],
        "sequence": sequence,
        "status": status,
        **changes,
    }


async def tell(node: httpx.AsyncClient, *reports: Task) -> Task:
    answer = await node.post("/api/update", json={"hostname": "node-1", "reports": list(reports)})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


class TestLife:
    async def test_a_task_from_submission_to_its_end(self, host: Any) -> None:
        node = await host.node()
        task_id = await one(host.admin, required_cores=2, required_memory_bytes=10**9, time_limit_seconds=60)
        attempt = await started(host)
        assert attempt["task_id"] == task_id
        assert (attempt["command"], attempt["arguments"], attempt["env_vars"]) == (
            "echo",
            ["hi"],
            {"SECRET": "s3"},
        )
        assert (attempt["cores"], attempt["memory_bytes"], attempt["time_limit_seconds"]) == (2, 10**9, 60)
        assert attempt["stdout_path"] == f"task_outputs/{task_id}.out"
        nodes = (await host.admin.get("/api/nodes")).json()
        assert (nodes[0]["cores_in_use"], nodes[0]["available_memory_bytes"]) == (2, 7 * 10**9)
        await tell(node, report(attempt, 1, "running", started_at="2026-01-02T03:04:05Z"))
        assert (await host.admin.get(f"/api/status/{task_id}")).json()["status"] == "running"
        answer = await tell(
            node, report(attempt, 2, "completed", exit_code=0, completed_at="2026-01-02T03:04:06Z")
        )
        assert answer["verdicts"] == [{"task_id": task_id, "attempt": 1, "action": "forget"}]
        detail = (await host.admin.get(f"/api/status/{task_id}")).json()
        assert (detail["status"], detail["exit_code"], detail["assigned_node"]) == ("completed", 0, "node-1")
        assert detail["started_at"] == "2026-01-02T03:04:05Z"
        assert [event["state"] for event in detail["history"]] == [
            "pending",
            "assigning",
            "running",
            "completed",
        ]
        assert (await host.admin.get("/api/nodes")).json()[0]["cores_in_use"] == 0

    async def test_what_does_not_fit_waits_with_a_reason(self, host: Any) -> None:
        await host.node()
        await one(host.admin, required_cores=4)
        await started(host)
        waiting = await one(host.admin, required_cores=3)
        detail = (await host.admin.get(f"/api/status/{waiting}")).json()
        assert (detail["status"], detail["reason"]) == (
            "pending",
            "node-1: 0 cores of 4 cores free, 3 cores asked for",
        )
        explanation = (await host.admin.get(f"/api/explain/{waiting}")).json()
        assert explanation["queue_position"] == 0
        assert explanation["nodes"][0]["can_ever_fit"]

    async def test_a_kill_of_what_waits_and_of_what_runs(self, host: Any) -> None:
        node = await host.node()
        running = await one(host.admin, required_cores=4)
        attempt = await started(host)
        waiting = await one(host.admin)
        assert (await host.admin.post(f"/api/kill/{waiting}")).status_code == 202
        assert (await host.admin.get(f"/api/status/{waiting}")).json()["status"] == "killed"
        assert (await host.admin.post(f"/api/kill/{running}")).status_code == 202
        name, told = await asyncio.wait_for(host.runner.acts.get(), 20)
        assert (name, told["task_id"]) == ("kill", running)
        await tell(node, report(attempt, 1, "killed", exit_code=137))
        again = await host.admin.post(f"/api/kill/{running}")
        assert (again.status_code, again.json()["error"]) == (409, "conflict")

    async def test_a_kill_does_not_wait_for_a_disk_that_is_full(
        self, host: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await host.node()
        task_id = await one(host.admin)
        await started(host)
        monkeypatch.setattr(tasks, "RECORD_SECONDS", 0.2)
        with full_disk(host, monkeypatch):
            answer = await host.admin.post(f"/api/kill/{task_id}")
            assert answer.status_code == 202
            assert "not on the record yet" in answer.json()["message"]
            assert "disk is full" in answer.json()["message"]
            name, told = await asyncio.wait_for(host.runner.acts.get(), 20)
            assert (name, told["task_id"]) == ("kill", task_id)
        await until(lambda: host.app.parts.core.writer.problem == "")
        assert (await host.admin.get(f"/api/status/{task_id}")).json()["kill_requested"]

    async def test_a_defect_in_placement_ends_the_host(
        self, host: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What is in memory may be half decided: a new start takes up what is on the record."""
        stopped = asyncio.Event()
        host.app.stop = stopped.set

        def fails(*_: object) -> None:
            raise AssertionError("a defect")

        monkeypatch.setattr(reactor, "on_schedule", fails)
        await one(host.admin, hold_for_node=True, targets=["none"])
        await asyncio.wait_for(stopped.wait(), 20)
        assert "schedule" in host.app.failure.message

    async def test_another_loop_begins_again(self, host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(app, "_BEGIN_AGAIN_SECONDS", 0.01)
        rounds = 0

        async def loop() -> None:
            nonlocal rounds
            rounds += 1
            if rounds < 3:
                raise OSError(116, "Stale file handle")

        await asyncio.wait_for(app._watched("retention", loop, host.app._fail), 20)
        assert (rounds, host.app.failure) == (3, None)

    async def test_pause_and_resume(self, host: Any) -> None:
        node = await host.node()
        task_id = await one(host.admin)
        attempt = await started(host)
        early = await host.admin.post(f"/api/command/{task_id}/pause")
        assert early.status_code == 409
        await tell(node, report(attempt, 1, "running"))
        assert (await host.admin.post(f"/api/command/{task_id}/pause")).status_code == 200
        assert (await host.runner.acts.get())[0] == "pause"
        assert (await host.admin.post(f"/api/command/{task_id}/stop")).status_code == 400

    async def test_retry_of_a_final_task_is_a_new_one(self, host: Any) -> None:
        node = await host.node()
        task_id = await one(host.admin)
        attempt = await started(host)
        assert (await host.admin.post(f"/api/retry/{task_id}")).status_code == 409
        await tell(node, report(attempt, 1, "failed", exit_code=1))
        again = (await host.admin.post(f"/api/retry/{task_id}")).json()["task_ids"]
        assert again != [task_id]
        assert (await started(host))["arguments"] == ["hi"]

    async def test_a_batch_shares_its_id_and_numbers_its_tasks(self, host: Any) -> None:
        await host.node()
        answer = (await submit(host.admin, count=3, name="sweep")).json()
        found = (await host.admin.get("/api/tasks", params={"batch_id": answer["batch_id"]})).json()
        assert [task["task_id"] for task in found] == sorted(answer["task_ids"], key=int, reverse=True)
        assert sorted([(await started(host))["index"] for _ in range(3)]) == [0, 1, 2]


class TestDurability:
    async def test_a_restarted_host_knows_everything(self, open_host: Any) -> None:
        async with open_host() as host:
            node = await host.node()
            running = await one(host.admin, required_cores=4)
            attempt = await started(host)
            await tell(node, report(attempt, 1, "running"))
            waiting = await one(host.admin, required_cores=4)
        async with open_host() as host:
            assert (await host.admin.get(f"/api/status/{running}")).json()["status"] == "running"
            assert (await host.admin.get(f"/api/status/{waiting}")).json()["status"] == "pending"
            assert (await host.admin.get("/api/nodes")).json()[0]["cores_in_use"] == 4
            beat = await node_client(host, node).put("/api/heartbeat/node-1", json={})
            assert beat.status_code == 404, "it has to register with this Host first"
            again = report(attempt, 1, "running")
            registered = await node_client(host, node).post(
                "/api/register", json=host.registration(attempts=[again])
            )
            assert registered.status_code == 200, registered.text
            await tell(node_client(host, node), report(attempt, 2, "completed", exit_code=0))
            assert (await started(host))["task_id"] == waiting

    async def test_a_start_that_did_not_arrive_is_sent_again(self, open_host: Any) -> None:
        async with open_host() as host:
            node = await host.node()
            task_id = await one(host.admin)
            await started(host)
        async with open_host() as host:
            await node_client(host, node).post("/api/register", json=host.registration())
            assert (await started(host))["task_id"] == task_id

    async def test_ids_rise_over_a_restart(self, open_host: Any) -> None:
        async with open_host() as host:
            first = int(await one(host.admin))
        async with open_host() as host:
            assert int(await one(host.admin)) > first


def node_client(host: Any, before: httpx.AsyncClient) -> httpx.AsyncClient:
    """The same node, speaking to the restarted Host."""
    return host.client(before.headers["authorization"].removeprefix("Bearer "))  # type: ignore[no-any-return]


class TestCordonAndRemove:
    async def test_a_cordoned_node_gets_nothing_and_says_so_over_a_restart(self, open_host: Any) -> None:
        async with open_host() as host:
            node = await host.node()
            told = (await host.admin.post("/api/nodes/node-1/cordon")).json()
            assert (told["cordoned"], told["draining"], told["held_tasks"]) == (True, False, [])
            waiting = await one(host.admin, targets=["node-1"])
            detail = (await host.admin.get(f"/api/status/{waiting}")).json()
            assert (detail["status"], "cordoned" in detail["reason"]) == ("pending", True)
        async with open_host() as host:
            await node_client(host, node).post("/api/register", json=host.registration())
            (listed,) = (await host.admin.get("/api/nodes")).json()
            assert (listed["status"], listed["schedulable"], listed["cordoned"]) == ("online", False, True)
            explained = (await host.admin.get(f"/api/explain/{waiting}")).json()
            assert "cordoned" in explained["nodes"][0]["reason"]
            assert (await host.admin.post("/api/nodes/node-1/uncordon")).json()["cordoned"] is False
            assert (await started(host))["task_id"] == waiting

    async def test_a_drain_tells_what_is_held_and_from_where_to_follow(self, host: Any) -> None:
        node = await host.node()
        task_id = await one(host.admin)
        attempt = await started(host)
        await tell(node, report(attempt, 1, "running"))
        told = (await host.admin.post("/api/nodes/node-1/drain")).json()
        assert (told["held_tasks"], told["draining"]) == ([task_id], True)
        history = (await host.admin.get(f"/api/status/{task_id}")).json()["history"]
        assert told["sequence"] == history[-1]["sequence"]
        await tell(node, report(attempt, 2, "completed", exit_code=0))
        assert (await host.admin.post("/api/nodes/node-1/drain")).json()["held_tasks"] == []

    async def test_removing_a_node_ends_its_tokens_and_what_it_holds(self, open_host: Any) -> None:
        async with open_host() as host:
            node = await host.node()
            task_id = await one(host.admin)
            attempt = await started(host)
            await tell(node, report(attempt, 1, "running"))
            refused = await host.admin.delete("/api/nodes/node-1")
            assert (refused.status_code, refused.json()["error"]) == (409, "conflict")
            assert task_id in refused.json()["message"]
            done = await host.admin.delete("/api/nodes/node-1", params={"force": "true"})
            assert done.json()["message"] == "node-1 is removed; 1 of its attempts are given up"
            assert (await host.admin.get("/api/nodes")).json() == []
            detail = (await host.admin.get(f"/api/status/{task_id}")).json()
            assert (detail["status"], detail["history"][-1]["cause"]) == ("lost", "node-1 was removed")
            beat = await node.put("/api/heartbeat/node-1", json={})
            assert beat.status_code == 401, "it must join again"
        async with open_host() as host:
            assert (await host.admin.get("/api/nodes")).json() == []
            assert (await node_client(host, node).put("/api/heartbeat/node-1", json={})).status_code == 401
            again = await host.node(attempts=[report(attempt, 1, "running")])
            detail = (await host.admin.get(f"/api/status/{task_id}")).json()
            assert (detail["status"], detail["assigned_node"]) == ("running", "node-1")
            await tell(again, report(attempt, 2, "completed", exit_code=0))

    async def test_a_node_that_joined_and_never_registered_can_be_removed(self, host: Any) -> None:
        await host.joiner.post("/api/join", json={"hostname": "node-9", "runner_url": "http://n9:1"})
        assert (await host.admin.delete("/api/nodes/node-9")).status_code == 200
        assert (await host.admin.delete("/api/nodes/node-9")).status_code == 404

    async def test_a_node_that_joins_again_while_it_is_removed_stays(self, open_host: Any) -> None:
        async with open_host() as host:
            await host.node()
            removed, joined = await asyncio.gather(
                host.admin.delete("/api/nodes/node-1", params={"force": "true"}),
                host.joiner.post("/api/join", json={"hostname": "node-1", "runner_url": host.runner.url}),
            )
            assert removed.status_code == 200
        async with open_host() as host:
            if joined.status_code == 200:
                speaker = host.client(joined.json()["node_token"])
                assert (await speaker.post("/api/register", json=host.registration())).status_code == 200

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("POST", "/api/nodes/node-1/cordon"),
            ("POST", "/api/nodes/node-1/uncordon"),
            ("POST", "/api/nodes/node-1/drain"),
            ("DELETE", "/api/nodes/node-1"),
        ],
    )
    async def test_only_admins_may(self, host: Any, method: str, path: str) -> None:
        await host.node()
        bob = await host.user("bob")
        assert (await bob.request(method, path)).status_code == 403
        unknown = await host.admin.request(method, path.replace("node-1", "no-such"))
        assert (unknown.status_code, unknown.json()["error"]) == (404, "not_found")


class TestDispatch:
    async def test_starts_that_a_runner_leaves_unanswered_are_sent_again_with_pauses(
        self, host: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pauses: list[float] = []
        real = asyncio.sleep

        async def noted(seconds: float, *result: Any) -> Any:
            if seconds >= 0.2 and asyncio.current_task().get_name() == "start node-1":  # type: ignore[union-attr]
                pauses.append(seconds)
                seconds = 0
            return await real(seconds, *result)

        await host.node()
        await host.admin.post("/api/nodes/node-1/cordon")
        answered, unanswered = await one(host.admin), await one(host.admin)
        host.runner.ignored.add(unanswered)
        monkeypatch.setattr(dispatch.asyncio, "sleep", noted)
        await host.admin.post("/api/nodes/node-1/uncordon")
        sent = [(await started(host))["task_id"] for _ in range(6)]
        assert sent == [answered, *[unanswered] * 5], "what was answered for is sent once"
        assert pauses[:4] == [0.2, 0.4, 0.8, 1.6]
        host.runner.ignored.clear()
        while host.app.parts.core.cluster.nodes["node-1"].to_start:
            await real(0.01)
        assert len(pauses) <= host.runner.calls

    async def test_a_runner_is_told_the_owners_uid_beside_the_user_that_is_asked_for(self, host: Any) -> None:
        await host.node()
        alice = await host.user("alice", uid=1001, gid=100)
        told = []
        for asker, fields in ((alice, {}), (alice, {"user": "0"}), (host.admin, {})):
            task = await one(asker, **fields)
            sent = await started(host)
            assert sent["task_id"] == task
            told.append((sent["user"], sent["owner_uid"]))
        assert told == [(None, "1001:100"), ("0", "1001:100"), (None, None)]


class TestSubmission:
    @pytest.mark.parametrize("name", ["HAKURIVER_TASK_ID", "HAKURIVER_SHARED_DIR"])
    async def test_what_the_runner_tells_cannot_be_set(self, host: Any, name: str) -> None:
        refused = await submit(host.admin, env_vars={name: "forged", "A": "1"})
        assert (refused.status_code, refused.json()["error"]) == (400, "usage")
        assert name in refused.json()["message"]

    async def test_variables_for_commands_inside_a_task_can_be(self, host: Any) -> None:
        assert (await submit(host.admin, env_vars={"HAKURIVER_TOKEN": "t"})).status_code == 202

    @pytest.mark.parametrize("state", ["killed-oom", "killed_oom"])
    async def test_states_may_be_written_with_a_dash(self, host: Any, state: str) -> None:
        found = await host.admin.get("/api/tasks", params={"status": ["failed", state]})
        assert (found.status_code, found.json()) == (200, [])


class TestMetrics:
    async def test_they_follow_what_happens(self, host: Any) -> None:
        node = await host.node()
        running, _ = await one(host.admin, required_cores=3, required_memory_bytes=10**9), await started(host)
        waiting = await one(host.admin, required_cores=4)
        found = await metrics(host.admin)
        assert found["hakuriver_tasks", "pending"] == found["hakuriver_tasks", "assigning"] == 1
        assert (found["hakuriver_nodes", "online"], found["hakuriver_nodes", "offline"]) == (1, 0)
        assert (found["hakuriver_node_up", "node-1"], found["hakuriver_node_schedulable", "node-1"]) == (1, 1)
        assert (found["hakuriver_node_cores", "node-1"], found["hakuriver_node_cores_held", "node-1"]) == (
            4,
            3,
        )
        assert found["hakuriver_node_memory_bytes", "node-1"] == 8 * 10**9
        assert found["hakuriver_node_memory_held_bytes", "node-1"] == 10**9
        assert found["hakuriver_node_tasks", "node-1"] == 1
        assert found["hakuriver_storage_ok", "database"] == found["hakuriver_storage_ok", "share"] == 1
        assert found["hakuriver_build_info", __version__] == 1
        assert 0 < found["hakuriver_queue_oldest_seconds", ""] < 60
        assert found["hakuriver_tasks_ended_total", "killed"] == 0
        await host.admin.post(f"/api/kill/{waiting}")
        await tell(
            node, {"task_id": running, "attempt": 1, "sequence": 1, "status": "failed", "exit_code": 1}
        )
        await host.admin.post("/api/nodes/node-1/cordon")
        found = await metrics(host.admin)
        assert found["hakuriver_tasks_ended_total", "killed"] == 1
        assert found["hakuriver_tasks_ended_total", "failed"] == 1
        assert (found["hakuriver_node_up", "node-1"], found["hakuriver_node_schedulable", "node-1"]) == (1, 0)
        assert found["hakuriver_queue_oldest_seconds", ""] == 0

    async def test_a_viewer_may_see_them_and_nobody_without_a_token(self, host: Any) -> None:
        viewer = await host.user("grafana", role="viewer")
        assert {name for name, _ in await metrics(viewer)} == {
            metric.name for metric in METRICS if not metric.name.startswith("hakuriver_node_")
        }
        assert (await host.client(None).get("/metrics")).status_code == 401
        assert (await host.joiner.get("/metrics")).status_code == 403


def test_a_host_that_nobody_watches_does_not_load_the_library() -> None:
    program = "import sys, hakuriver_host.main; sys.exit('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


async def metrics(client: httpx.AsyncClient) -> dict[tuple[str, str], float]:
    """Values by name and label, as Prometheus reads them."""
    answer = await client.get("/metrics")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, "".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


class TestRetention:
    async def test_old_tasks_and_their_logs_go(self, open_host: Any) -> None:
        async with open_host() as host:
            node = await host.node()
            ended, alive = await one(host.admin), await one(host.admin)
            attempt = await started(host)
            assert attempt["task_id"] == ended
            log = host.settings.paths.shared_dir / attempt["stdout_path"]
            log.write_bytes(b"old")
            await tell(
                node, report(attempt, 1, "completed", exit_code=0, completed_at="2020-01-01T00:00:00Z")
            )
        async with open_host(host={"final_task_days": 365}) as host:
            async with asyncio.timeout(20):
                while (await host.admin.get(f"/api/status/{ended}")).status_code != 404:
                    await asyncio.sleep(0.05)
            assert not log.exists()
            assert (await host.admin.get(f"/api/status/{alive}")).status_code == 200

    async def test_a_batch_goes_with_its_last_task_and_its_key_with_it(self, open_host: Any) -> None:
        async with open_host() as host:
            core, node = host.app.parts.core, await host.node()
            answers = [
                (await submit(host.admin, f"old-{number}", required_cores=2)).json() for number in (1, 2)
            ]
            for _ in range(2):
                await tell(node, report(await started(host), 1, "completed", exit_code=0))
            alive = (await submit(host.admin, "alive")).json()
            monitor = host.app.parts.monitor
            await monitor._remove_old(core.now().wall + 91 * 86_400)
            found = {
                key: await asyncio.to_thread(core.repository.batch_by_key, "admin", key)
                for key in ("old-1", "old-2", "alive")
            }
            assert [key for key, row in found.items() if row] == ["alive"]
            assert found["alive"].batch_id == int(alive["batch_id"])
            again = (await submit(host.admin, "old-1", required_cores=2)).json()["task_ids"]
            assert len(again) == 1
            assert again != answers[0]["task_ids"]

    async def test_a_clock_that_jumps_ahead_removes_nothing(self, open_host: Any) -> None:
        """While the Host runs, and at its start."""
        async with open_host() as host:
            node = await host.node()
            ended = await one(host.admin)
            await tell(node, report(await started(host), 1, "completed", exit_code=0))
            core, monitor = host.app.parts.core, host.app.parts.monitor
            await monitor._believed_time()
            core.now = lambda: ahead(core_clock())
            await monitor._remove_old(await monitor._believed_time())
            assert (await host.admin.get(f"/api/status/{ended}")).status_code == 200
            monitor._believed = None
            await monitor._remove_old(await monitor._believed_time())
            assert (await host.admin.get(f"/api/status/{ended}")).status_code == 200


class TestIdempotency:
    async def test_a_repeated_key_gives_the_first_answer(self, host: Any) -> None:
        first = await submit(host.admin, "k1", count=2)
        again = await submit(host.admin, "k1", count=2)
        assert again.json() == first.json()
        assert len((await host.admin.get("/api/tasks")).json()) == 2

    async def test_at_the_same_time_too(self, host: Any) -> None:
        answers = await asyncio.gather(*(submit(host.admin, "k2") for _ in range(20)))
        assert len({answer.text for answer in answers}) == 1
        assert len((await host.admin.get("/api/tasks")).json()) == 1

    async def test_another_submission_at_the_same_time_is_refused(self, host: Any) -> None:
        answers = await asyncio.gather(
            submit(host.admin, "k6"), submit(host.admin, "k6", arguments=["other"]), submit(host.admin, "k6")
        )
        assert sorted(answer.status_code for answer in answers) == [202, 202, 409]

    async def test_a_retry_takes_a_key(self, host: Any) -> None:
        node = await host.node()
        task_id = await one(host.admin)
        await tell(node, report(await started(host), 1, "failed", exit_code=1))
        headers = {"Idempotency-Key": "k7"}
        path = f"/api/retry/{task_id}"
        answers = [(await host.admin.post(path, headers=headers)).json()["task_ids"] for _ in range(2)]
        assert answers[0] == answers[1] != [task_id]

    async def test_over_a_restart(self, open_host: Any) -> None:
        async with open_host() as host:
            first = await submit(host.admin, "k3")
        async with open_host() as host:
            again = await submit(host.admin, "k3")
        assert again.json()["task_ids"] == first.json()["task_ids"]

    async def test_also_when_it_could_not_be_made_again(self, open_host: Any) -> None:
        async with open_host() as host:
            node = await host.node()
            first = await submit(host.admin, "k4", required_cores=4)
            await node.post("/api/register", json=host.registration(total_cores=1))
            again = await submit(host.admin, "k4", required_cores=4)
            assert again.json()["task_ids"] == first.json()["task_ids"]

    async def test_a_key_is_one_submissions_and_one_users(self, host: Any) -> None:
        await submit(host.admin, "k5")
        other = await submit(host.admin, "k5", arguments=["other"])
        assert (other.status_code, other.json()["error"]) == (409, "conflict")
        assert (await submit(await host.user("bob"), "k5")).status_code == 202


class TestRefusal:
    @pytest.mark.parametrize(
        ("changes", "status", "words"),
        [
            ({"targets": ["node-1:x"]}, 400, "is not a target"),
            ({"targets": ["nowhere"]}, 404, "no node is named nowhere"),
            ({"required_cores": 99}, 409, "it has 4 cores, 99 cores asked for"),
            ({"required_cores": -1}, 400, "required_cores"),
            ({"required_cores": 0}, 400, "at least 1 core"),
            ({"required_cores": 10**9}, 400, "required_cores"),
            ({"required_memory_bytes": 0}, 400, "required_memory_bytes"),
            ({"targets": ["node-1::0"]}, 409, "it has no GPU 0"),
            ({"targets": ["node-1:7"]}, 409, "it has no NUMA node 7"),
            ({"container_name": "absent"}, 404, "there is no environment 'absent'"),
            ({"container_name": "../etc"}, 400, "is not an environment's name"),
            ({"env_vars": {"A=B": "1"}}, 400, "is not an environment variable's name"),
            ({"additional_mounts": ["/a/../b:/c"]}, 400, "without '..'"),
            ({"arguments": ["x" * 200_000]}, 400, "longer than the kernel's limit"),
            ({"arguments": ["a\0b"]}, 400, "NUL"),
            ({"arguments": ["x" * 100_000] * 20}, 400, "the kernel takes about 2 MB"),
            ({"command": ""}, 400, "command"),
            ({"task_type": "vps"}, 400, "VPS"),
            ({"count": 0}, 400, "count"),
            ({"surprise": 1}, 400, "surprise"),
            ({"user": "root"}, 400, "UID"),
            ({"working_dir": "here"}, 400, "absolute path"),
        ],
    )
    async def test_one_line_says_why_and_nothing_changes(
        self, host: Any, changes: Task, status: int, words: str
    ) -> None:
        await host.node()
        answer = await submit(host.admin, **changes)
        body = answer.json()
        assert (answer.status_code, words in body["message"]) == (status, True), body
        assert "\n" not in body["message"]
        assert body["hint"]
        assert (await host.admin.get("/api/tasks")).json() == []

    async def test_some_targets_can_and_some_never_can(self, host: Any) -> None:
        await host.node()
        answer = (await submit(host.admin, targets=["node-1", "nowhere"])).json()
        assert len(answer["task_ids"]) == 1
        assert answer["failed_targets"] == [{"target": "nowhere", "reason": "no node is named nowhere"}]

    async def test_held_for_a_node_that_is_yet_to_come(self, host: Any) -> None:
        task_id = await one(host.admin, targets=["node-1"], required_cores=3, hold_for_node=True)
        assert (await host.admin.get(f"/api/status/{task_id}")).json()[
            "reason"
        ] == "no node named node-1 has joined yet"
        await host.node()
        assert (await started(host))["task_id"] == task_id

    @pytest.mark.parametrize("body", [b"{", b"[]", b"\xff", b"", b"null"])
    async def test_a_body_that_is_not_one(self, host: Any, body: bytes) -> None:
        answer = await host.admin.post("/api/submit", content=body)
        assert (answer.status_code, answer.json()["error"]) == (400, "usage")

    async def test_a_body_that_is_too_large(self, host: Any) -> None:
        async def stream() -> Any:
            for _ in range(100):
                yield b"x" * 100_000

        for body in (b"x" * 10_000_000, stream()):
            answer = await host.admin.post("/api/submit", content=body)
            assert (answer.status_code, answer.json()["error"]) == (413, "too_large")

    @pytest.mark.parametrize("task_id", ["x", "-1", "1.5", "99999999999999999999", "%00"])
    async def test_an_id_that_is_not_one(self, host: Any, task_id: str) -> None:
        for path in (f"/api/status/{task_id}", f"/api/task/{task_id}/stdout", f"/api/explain/{task_id}"):
            assert (await host.admin.get(path)).status_code == 400

    async def test_what_is_not_there(self, host: Any) -> None:
        assert (await host.admin.get("/api/status/5")).status_code == 404
        assert (await host.admin.post("/api/kill/5")).status_code == 404
        assert (await host.admin.get("/api/nothing")).status_code == 404
        assert (await host.admin.get("/api/health", params={"hostname": "x"})).status_code == 404
        wrong = await host.admin.put("/api/tasks")
        assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET")


class TestAccess:
    async def test_every_endpoint_denies_by_default(self, host: Any) -> None:
        described = (await host.admin.get("/api/openapi.json")).json()
        operations = [(method, path) for path, methods in described["paths"].items() for method in methods]
        assert len(operations) > 20
        for method, path in operations:
            for client in (host.client(None), host.client("hkr_user_wrong")):
                answer = await client.request(method, path.replace("{", "").replace("}", ""))
                assert answer.status_code == 401, (method, path)
                assert answer.json()["error"] == "unauthenticated"

    async def test_roles(self, host: Any) -> None:
        viewer, user, node = await host.user("vi", "viewer"), await host.user("bob"), await host.node()
        assert (await viewer.get("/api/tasks")).status_code == 200
        assert (await submit(viewer)).status_code == 403
        assert (await user.get("/api/users")).status_code == 403
        assert (await user.post("/api/tokens", json={"kind": "join"})).status_code == 403
        assert (await user.post("/api/tokens", json={"user": "admin"})).status_code == 403
        assert (await node.get("/api/tasks")).status_code == 403
        assert (await user.post("/api/update", json={"hostname": "node-1", "reports": []})).status_code == 403
        assert (await host.joiner.get("/api/nodes")).status_code == 403

    async def test_tasks_have_owners(self, host: Any) -> None:
        ada, bob = await host.user("ada"), await host.user("bob")
        task_id = await one(ada)
        for path in (f"/api/kill/{task_id}", f"/api/command/{task_id}/pause", f"/api/retry/{task_id}"):
            assert (await bob.post(path)).status_code == 403
        assert (await bob.get(f"/api/task/{task_id}/stdout")).status_code == 403
        seen = (await bob.get(f"/api/status/{task_id}")).json()
        assert (seen["owner"], seen["env_vars"], seen["arguments"]) == ("ada", {}, [])
        assert (await ada.get(f"/api/status/{task_id}")).json()["env_vars"] == {"SECRET": "s3"}
        assert (await host.admin.post(f"/api/kill/{task_id}")).status_code == 202

    async def test_a_node_speaks_for_itself_alone(self, host: Any) -> None:
        node = await host.node()
        assert (await node.put("/api/heartbeat/other", json={})).status_code == 403
        assert (await node.post("/api/update", json={"hostname": "other", "reports": []})).status_code == 403

    async def test_tokens_end(self, host: Any) -> None:
        bob = await host.user("bob")
        mine = (await bob.get("/api/tokens")).json()
        assert [token["user"] for token in mine] == ["bob"]
        assert (await bob.delete(f"/api/tokens/{mine[0]['token_id']}")).status_code == 200
        assert (await bob.get("/api/whoami")).status_code == 401
        short = (
            await host.admin.post("/api/tokens", json={"user": "bob", "expires_in_seconds": 3600})
        ).json()
        assert short["expires_at"]
        assert (await host.admin.delete("/api/users/bob")).status_code == 200
        assert (await host.client(short["token"]).get("/api/whoami")).status_code == 401
        assert (await host.admin.delete("/api/users/admin")).status_code == 409

    async def test_nobody_inherits_snapshots(self, host: Any) -> None:
        store, admin = host.settings.container_dir, host.admin
        for name, version, author in (
            ("vps-1", 1, "ada"),
            ("vps-1", 2, "ada"),
            ("vps-2", 3, "ada"),
            ("vps-3", 4, "bob"),
        ):
            write_version(store, name, version, [layer("a")], author=author)
        write_version(store, "base", 5, [layer("a")], author="ada")
        await host.user("eve")
        assert (await admin.delete("/api/users/eve")).json()["message"] == "user eve is removed"
        refused = await admin.post("/api/users", json={"name": "ada"})
        assert refused.status_code == 409
        assert "a removed user ada still has 3 snapshots of VPS" in refused.json()["message"]
        assert "`hakuriver env delete vps-1 vps-2 --versions`" in refused.json()["hint"]
        for name in ("vps-1", "vps-2"):
            deleted = await admin.delete(f"/api/environments/{name}", params={"versions": True})
            assert deleted.status_code == 200, deleted.text
        await host.user("ada")
        write_version(store, "vps-9", 6, [layer("a")], author="ada")
        assert (await admin.post("/api/users", json={"name": "ada"})).json()["message"] == (
            "there is a user ada already"
        )
        told = (await admin.delete("/api/users/ada")).json()["message"]
        assert told == "user ada is removed; 1 snapshot of VPS of theirs in the store: `hakuriver env list`"

    @pytest.mark.parametrize("broken", ["away", "damaged", "hangs"])
    async def test_no_name_is_given_anew_while_the_store_cannot_be_read(
        self, host: Any, monkeypatch: pytest.MonkeyPatch, broken: str
    ) -> None:
        store = host.settings.container_dir
        await host.user("bob")
        manifest = manifest_path(store, "vps-1", 1)
        write_version(store, "vps-1", 1, [layer("a")], author="ada")
        if broken == "away":
            store.rename(store.with_name("elsewhere"))
        elif broken == "damaged":
            manifest.write_text("{")
        else:
            monkeypatch.setattr(threads, "SECONDS", 0.2)
            manifest.unlink()
            os.mkfifo(manifest)  # Opening it waits for one who writes.
        words = {"away": "is not there", "damaged": "is damaged", "hangs": "does not answer"}[broken]
        refused = await host.admin.post("/api/users", json={"name": "ada"})
        assert (refused.status_code, words in refused.json()["message"]) == (507, True), refused.text
        removed = await host.admin.delete("/api/users/bob")
        assert removed.status_code == 200
        assert words in removed.json()["message"]
        assert "bob" not in {user["name"] for user in (await host.admin.get("/api/users")).json()}

    async def test_what_the_disk_did_not_take_has_changed_nothing(
        self, host: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        node = await host.node()
        admin = host.admin
        token = (await admin.post("/api/tokens", json={})).json()
        holder = host.client(token["token"])
        await host.user("ada")
        with full_disk(host, monkeypatch):
            refused = [
                await admin.post("/api/users", json={"name": "ben"}),
                await admin.delete("/api/users/ada"),
                await admin.delete(f"/api/tokens/{token['token_id']}"),
            ]
            monkeypatch.setattr(host.app.parts.core.cluster.nodes["node-1"], "problem", "so that it may join")
            refused.append(
                await host.joiner.post("/api/join", json={"hostname": "node-1", "runner_url": "http://other"})
            )
            assert [answer.status_code for answer in refused] == [507] * 4
        assert {user["name"] for user in (await admin.get("/api/users")).json()} == {"admin", "ada"}
        assert (await holder.get("/api/whoami")).status_code == 200
        assert (await node.post("/api/register", json=host.registration())).status_code == 200
        assert (await admin.post("/api/users", json={"name": "ben"})).status_code == 201

    async def test_a_first_start_that_was_broken_off_is_taken_up(
        self, open_host: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Killed when the token was on the record, and its file had no name yet."""
        with monkeypatch.context() as patch:
            patch.setattr(Access, "_keep", keep_and_die)
            with pytest.raises(KilledError):
                async with open_host():
                    pass
        async with open_host() as host:
            assert (await host.admin.get("/api/whoami")).json()["name"] == "admin"
            assert not list(host.settings.paths.state_dir.glob("*.made"))

    async def test_a_label_that_postgresql_cannot_hold_is_refused(self, host: Any) -> None:
        assert (await host.admin.post("/api/tokens", json={"label": "a\0b"})).status_code == 400

    async def test_tokens_outlive_the_host_and_stand_nowhere(self, open_host: Any) -> None:
        async with open_host() as host:
            bob = await host.user("bob")
        token = bob.headers["authorization"].removeprefix("Bearer ")
        async with open_host() as host:
            assert (await host.client(token).get("/api/whoami")).json() == {"name": "bob", "role": "user"}
        stored = [
            path.read_bytes() for path in host.settings.paths.state_dir.iterdir() if path.suffix != ".token"
        ]
        assert not any(token.encode() in content for content in stored)
        modes = {
            path.name: path.stat().st_mode & 0o777 for path in host.settings.paths.state_dir.glob("*.token")
        }
        assert modes == {"admin.token": 0o600, "join.token": 0o600}

    async def test_a_version_too_far_away_is_told(self, host: Any) -> None:
        for version, status in (("0.4.9", 200), ("0.2.0", 200), ("0.5.0", 426), ("1.3.0", 426), ("x", 426)):
            answer = await host.admin.get("/api/whoami", headers={"X-HakuRiver-Version": version})
            assert answer.status_code == status, version
            assert answer.headers["X-HakuRiver-Version"]


class TestNodes:
    async def test_the_host_proves_itself_to_the_runner(self, host: Any) -> None:
        joined = (
            await host.joiner.post("/api/join", json={"hostname": "node-1", "runner_url": host.runner.url})
        ).json()
        speaker = host.client(joined["node_token"])
        await speaker.post("/api/register", json=host.registration())
        assert host.runner.authorizations == {f"Bearer {joined['control_token']}"}

    async def test_a_runner_that_cannot_be_called_back_gets_no_work(self, host: Any) -> None:
        answer = await (await host.node()).post(
            "/api/register", json=host.registration(runner_url="http://127.0.0.1:9")
        )
        body = answer.json()
        assert not body["reachable"]
        assert "http://127.0.0.1:9" in body["problem"]
        task_id = await one(host.admin)
        assert "http://127.0.0.1:9" in (await host.admin.get(f"/api/status/{task_id}")).json()["reason"]

    async def test_another_runner_at_that_address(self, host: Any) -> None:
        answer = await (await host.node()).post("/api/register", json=host.registration(journal_id="another"))
        assert "another Runner answers" in answer.json()["problem"]

    @pytest.mark.parametrize(("shared_id", "words"), [(None, "cannot read"), ("else", "is not the Host's")])
    async def test_a_share_that_differs(self, host: Any, shared_id: str | None, words: str) -> None:
        answer = await (await host.node()).post("/api/register", json=host.registration(shared_id=shared_id))
        assert words in answer.json()["problem"]

    async def test_one_name_is_one_node(self, host: Any) -> None:
        await host.node()
        again = await host.joiner.post(
            "/api/join", json={"hostname": "node-1", "runner_url": "http://elsewhere"}
        )
        assert (again.status_code, again.json()["error"]) == (409, "conflict")

    async def test_health_has_a_sample_a_second(self, host: Any) -> None:
        node = await host.node()
        await node.put("/api/heartbeat/node-1", json={"cpu_percent": 12.5, "memory_percent": 50.0})
        async with asyncio.timeout(20):
            while not (found := (await host.admin.get("/api/health", params={"hostname": "node-1"})).json())[
                "aggregate"
            ]:
                await asyncio.sleep(0.1)
        assert found["nodes"][-1][0]["cpu_percent"] == 12.5
        assert found["aggregate"][-1]["avgCpuPercent"] == 12.5, "a node without sensors is fine"

    async def test_the_cluster_at_a_glance(self, host: Any) -> None:
        await host.node()
        await one(host.admin, required_cores=4)
        await started(host)
        found = (await host.admin.get("/api/cluster")).json()
        assert (
            found["nodes_online"],
            found["cores_total"],
            found["cores_in_use"],
            found["tasks"]["assigning"],
        ) == (1, 4, 4, 1)


class TestOutage:
    async def test_a_database_that_cannot_be_read_is_said(
        self, host: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fails(*_: object) -> None:
            raise OperationalError("SELECT", {}, Exception("server closed the connection unexpectedly"))

        monkeypatch.setattr(host.app.parts.core.repository, "tasks", fails)
        answer = await host.admin.get("/api/tasks")
        assert (answer.status_code, answer.json()["error"]) == (507, "storage")
        assert "server closed the connection" in answer.json()["message"]


class TestLists:
    async def test_pages(self, host: Any) -> None:
        ids = (await submit(host.admin, count=25)).json()["task_ids"]
        seen: list[str] = []
        cursor: dict[str, str] = {}
        while True:
            page = await host.admin.get("/api/tasks", params={"limit": "10", **cursor})
            seen += [task["task_id"] for task in page.json()]
            if "x-next-cursor" not in page.headers:
                break
            cursor = {"cursor": page.headers["x-next-cursor"]}
        assert seen == ids[::-1]

    async def test_filters(self, host: Any) -> None:
        bob = await host.user("bob")
        first, second = await one(bob, name="train"), await one(host.admin)
        await host.admin.post(f"/api/kill/{second}")

        async def found(**params: Any) -> list[str]:
            return [task["task_id"] for task in (await host.admin.get("/api/tasks", params=params)).json()]

        assert await found(owner="bob") == [first]
        assert await found(name="train") == [first]
        assert await found(status="killed") == [second]
        assert await found(status=["killed", "pending"]) == [second, first]
        assert await found(node="node-1") == []
        assert (await host.admin.get("/api/tasks", params={"status": "odd"})).status_code == 400
        assert (await host.admin.get("/api/tasks", params={"limit": "0"})).status_code == 400
        assert (await host.admin.get("/api/tasks", params={"colour": "red"})).status_code == 400

    async def test_environments_on_the_share(self, host: Any) -> None:
        folder = host.settings.container_dir
        for name in (
            "base-100.tar",
            "base-200.tar",
            "other-env-7.tar",
            ".base-300.tar.55",
            "junk.tar",
            "base-x.tar",
        ):
            (folder / name).touch()
        found = (await host.admin.get("/api/docker/list")).json()
        assert found["base"]["latest_timestamp"] == 200
        assert [version["tarball"] for version in found["base"]["all_versions"]] == [
            "base-200.tar",
            "base-100.tar",
        ]
        assert set(found) == {"base", "other-env"}

    async def test_a_submission_runs_what_the_answer_before_it_has_said(self, host: Any) -> None:
        """Of the current version and of tags, however soon the one follows the other."""
        for version in (100, 200, 300):
            (host.settings.container_dir / f"base-{version}.tar").touch()

        async def runs(reference: str) -> str:
            task_id = await one(host.admin, container_name=reference)
            shown = await host.admin.get(f"/api/status/{task_id}")
            return str(shown.json()["environment_version"])

        async def change(what: str, **body: Any) -> None:
            changed = await host.admin.post(f"/api/environments/base/{what}", json=body)
            assert changed.status_code == 200, changed.text

        assert await runs("base") == "300"
        for version in (200, 100, 300, 200):
            await change("rollback", version=version)
            assert await runs("base") == str(version)
            await change("tag", tag="paper", version=version)
            assert await runs("base:paper") == str(version)
        await change("tag", tag="paper", remove=True)
        assert (await submit(host.admin, container_name="base:paper")).status_code == 404

    async def test_an_upload_ends_with_its_token(self, host: Any) -> None:
        made = (await host.admin.post("/api/tokens", json={"user": "admin"})).json()

        async def archive() -> AsyncIterator[bytes]:
            yield bytes(1000)
            await host.admin.delete(f"/api/tokens/{made['token_id']}")
            yield bytes(1000)

        answer = await host.client(made["token"]).post("/api/environments/base/import", content=archive())
        assert answer.status_code == 401, answer.text
        assert not list(host.settings.container_dir.rglob("*base*"))

    async def test_logs_by_offset(self, host: Any) -> None:
        task_id = await one(host.admin)
        path = f"/api/task/{task_id}/stdout"
        assert (await host.admin.get(path)).status_code == 404
        (host.settings.paths.shared_dir / "task_outputs" / f"{task_id}.out").write_bytes(b"0123\xff6789")
        answer = await host.admin.get(path, params={"offset": 2, "limit": 3})
        assert (answer.content, answer.headers["x-next-offset"]) == (b"23\xff", "5")
        assert (await host.admin.get(path, params={"offset": -4})).content == b"6789"
        assert (await host.admin.get(path, params={"offset": 100})).content == b""
        assert (await host.admin.get(f"/api/task/{task_id}/stdin")).status_code == 404


async def test_a_repeated_report_is_not_acknowledged_before_the_first_is_durable(open_host: Any) -> None:
    """The Runner forgets what was acknowledged, so a Host that dies then must have it on the record."""
    async with open_host() as host:
        node = await host.node()
        await one(host.admin)
        ended = report(await started(host), 1, "completed", exit_code=0)
        writer = host.app.parts.core.writer
        gate, entered = threading.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        def hold(_connection: object) -> None:
            loop.call_soon_threadsafe(entered.set)
            gate.wait(20)

        holding = asyncio.ensure_future(writer.write(Changes(actions=[hold])))
        await entered.wait()
        first, again = (asyncio.ensure_future(tell(node, ended)) for _ in range(2))
        done, _ = await asyncio.wait([first, again], timeout=0.5, return_when=asyncio.FIRST_COMPLETED)
        assert not done
        gate.set()
        await asyncio.gather(holding, first, again)
