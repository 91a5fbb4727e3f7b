"""`node …`, `status`, `env list`, `user …`, `token …`, `whoami`, `version`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from hakuriver.client.draining import Draining
from hakuriver.errors import ConflictError, DeniedError
from hakuriver.models.access import TokenCreated, TokenInfo, UserInfo, WhoAmI
from hakuriver.models.nodes import (
    ClusterStatus,
    EnvironmentVersion,
    EnvironmentVersions,
    HealthHistory,
    NodeDuty,
    NodeInfo,
    NodeSample,
)
from hakuriver.models.tasks import Message
from hakuriver.roles import Role
from hakuriver.states import NodeState, TaskState
from hakuriver.version import __version__
from hakuriver_cli.reference import client_app, docker_app
from unit.cli.conftest import Commands, FakeHost
from unit.sdk.wire_samples import START, event, sse_event, stream

NODE = NodeInfo(
    hostname="n1",
    url="http://n1:8001",
    status=NodeState.ONLINE,
    schedulable=False,
    problem="the share is not mounted",
    version="0.3.0",
    engines=["docker"],
    total_cores=8,
    cores_in_use=2,
    available_cores=6,
    total_memory_bytes=16_000_000_000,
    memory_in_use_bytes=4_000_000_000,
    available_memory_bytes=12_000_000_000,
    running_tasks=1,
)
CLUSTER = ClusterStatus(
    version="0.3.1",
    nodes_online=1,
    nodes_total=2,
    cores_total=8,
    cores_in_use=2,
    memory_total_bytes=16_000_000_000,
    memory_in_use_bytes=0,
    tasks={"running": 1, "failed": 2, "lost": 0},
    default_environment="hakuriver-base",
    default_environment_ready=False,
    problems=["n2 is offline"],
)
SAMPLE = NodeSample(time=START, hostname="n1", status=NodeState.ONLINE, cpu_percent=12.4)
TOKEN = TokenInfo(token_id="t1", kind="user", user="bob", created_at=START)


def test_nodes(commands: Commands, host: FakeHost) -> None:
    host.on("GET", "/api/nodes", [NODE])
    shown = commands("nodes", app=client_app()).out
    assert "online (gets no work)" in shown
    assert "2/8" in shown
    assert "the share is not mounted" in shown
    assert commands("node", "list", "-o", "name").out == "n1\n"


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"cordoned": True}, "online (cordoned)"),
        ({"cordoned": True, "draining": True}, "online (draining)"),
        ({"cordoned": True, "draining": True, "running_tasks": 0}, "online (drained)"),
        ({"cordoned": True, "status": NodeState.OFFLINE}, "offline (cordoned)"),
    ],
)
def test_the_list_says_who_is_kept_from_work(
    commands: Commands, host: FakeHost, changes: dict[str, Any], state: str
) -> None:
    host.on("GET", "/api/nodes", [NODE.model_copy(update=changes)])
    assert state in commands("node", "list").out


def test_cordon_and_uncordon_go_through_all_and_give_the_first_failure(
    commands: Commands, host: FakeHost
) -> None:
    for verb in ("cordon", "uncordon"):
        host.on("POST", f"/api/nodes/n1/{verb}", duty("n1"))
        done = commands("node", verb, "n2", "n1", "-o", "name")
        assert (done.code, done.out) == (3, "n1\n")
        assert "there is no /api/nodes/n2" in done.err


def test_remove(commands: Commands, host: FakeHost) -> None:
    host.on("DELETE", "/api/nodes/n1", Message(message="n1 is removed"))
    assert "n1 is removed" in commands("node", "remove", "n1").out
    assert not host.asked[-1].url.params
    assert commands("node", "remove", "n1", "--force").code == 0
    assert host.asked[-1].url.params["force"] == "true"
    host.on("DELETE", "/api/nodes/n1", ConflictError("n1 is online", "stop its Runner"))
    assert commands("node", "remove", "n1").code == 5


def duty(name: str, *held: int, sequence: int = 10) -> NodeDuty:
    return NodeDuty(
        message=f"{name} is told",
        hostname=name,
        cordoned=True,
        draining=True,
        held_tasks=list(held),
        sequence=sequence,
    )


class TestDrain:
    def test_it_says_what_is_held_and_does_not_wait(self, commands: Commands, host: FakeHost) -> None:
        host.on("POST", "/api/nodes/n1/drain", duty("n1", 5))
        done = commands("node", "drain", "n1", "-o", "json")
        assert (done.code, done.json[0]["held_tasks"]) == (0, ["5"])
        assert host.paths() == ["POST /api/nodes/n1/drain"]

    def test_it_waits_by_events_until_all_are_empty(self, commands: Commands, host: FakeHost) -> None:
        host.on("POST", "/api/nodes/n1/drain", duty("n1", 5, 6))
        host.on("POST", "/api/nodes/n2/drain", duty("n2", 7, sequence=13))
        ends = [
            (11, 5, TaskState.COMPLETED),
            (12, 6, TaskState.PENDING),  # Tried again elsewhere.
            (13, 8, TaskState.PENDING),
            (14, 7, TaskState.KILLED),
        ]
        changes = [sse_event(event(number, state, task_id=task)) for number, task, state in ends]
        host.on("GET", "/api/events", stream(*changes))
        done = commands("node", "drain", "n1", "n2", "--wait", "-o", "json")
        assert (done.code, [row["held_tasks"] for row in done.json]) == (0, [[], []])
        assert host.asked[-1].url.params["since"] == "10"

    def test_nodes_that_hold_nothing_are_not_waited_for(self, commands: Commands, host: FakeHost) -> None:
        host.on("POST", "/api/nodes/n1/drain", duty("n1"))
        assert commands("node", "drain", "n1", "--wait").code == 0
        assert len(host.asked) == 1

    def test_what_is_left_after_the_timeout_is_named(self, commands: Commands, host: FakeHost) -> None:
        host.on("POST", "/api/nodes/n1/drain", duty("n1", 5))
        host.on("GET", "/api/events", endless())
        done = commands("node", "drain", "n1", "--timeout", "1s")
        assert done.code == 1
        assert "after 1s there is left: task 5 on n1" in done.err

    def test_it_kills_what_is_left_and_waits_for_the_ends(self, commands: Commands, host: FakeHost) -> None:
        killed: list[str] = []
        host.on("POST", "/api/nodes/n1/drain", duty("n1", 5, 6))
        host.on(
            "POST", "/api/kill/5", lambda request: killed.append(request.url.path) or Message(message="x")
        )
        host.on("POST", "/api/kill/6", ConflictError("it has ended already"))
        ends = [sse_event(event(11 + task, TaskState.KILLED, task_id=task)) for task in (5, 6)]
        host.on("GET", "/api/events", lambda _: stream(*ends) if killed else endless())
        done = commands("node", "drain", "n1", "--timeout", "1s", "--kill", "-o", "json")
        assert (done.code, done.json[0]["held_tasks"]) == (0, [])
        assert "killing task 5 on n1, task 6 on n1" in done.err

    def test_to_kill_it_must_know_when(self, commands: Commands, host: FakeHost) -> None:
        done = commands("node", "drain", "n1", "--kill")
        assert done.code == 2
        assert host.asked == []


def test_what_a_node_takes_up_again_while_it_is_drained_is_waited_for_too() -> None:
    draining = Draining([duty("n1", 11)])
    assert not draining.take(event(12, TaskState.RUNNING, task_id=20))
    assert draining.take(event(9, TaskState.RUNNING, task_id=21)) is False
    assert draining.held == {11: "n1", 20: "n1"}
    assert not draining.take(event(13, TaskState.COMPLETED, task_id=11))
    assert draining.take(event(14, TaskState.LOST, task_id=20))


def endless() -> httpx.Response:
    """A stream of events that says nothing, and does not end."""

    class Silent(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b": keep-alive\n\n"
            await asyncio.Event().wait()

    return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, stream=Silent())


def test_health_shows_now_and_json_the_history(commands: Commands, host: FakeHost) -> None:
    older = SAMPLE.model_copy(update={"cpu_percent": 99.0})
    host.on("GET", "/api/health", HealthHistory(nodes=[[older], [SAMPLE]], aggregate=[]))
    shown = commands("node", "health", "n1").out
    assert "12%" in shown
    assert "99%" not in shown
    assert host.asked[-1].url.params["hostname"] == "n1"
    assert len(commands("node", "health", "-o", "json").json["nodes"]) == 2


def test_status(commands: Commands, host: FakeHost) -> None:
    host.on("GET", "/api/cluster", CLUSTER)
    shown = commands("status").out
    assert "1 online of 2" in shown
    assert "1 running, 2 failed" in shown
    assert "n2 is offline" in shown


def test_environments_list_their_versions_newest_first(commands: Commands, host: FakeHost) -> None:
    versions = [EnvironmentVersion(timestamp=stamp, tarball=f"torch-{stamp}.tar") for stamp in (1, 2)]
    found = EnvironmentVersions(latest_timestamp=2, latest_tarball="torch-2.tar", all_versions=versions)
    host.on("GET", "/api/docker/list", {"torch": found})
    rows: list[dict[str, Any]] = commands("list-tars", "-o", "json", app=docker_app()).json
    assert [(row["timestamp"], row["latest"]) for row in rows] == [(2, True), (1, False)]


def test_users(commands: Commands, host: FakeHost) -> None:
    bob = UserInfo(name="bob", role=Role.VIEWER, uid=1001, created_at=START)
    host.on("POST", "/api/users", bob)
    host.on("GET", "/api/users", [bob])
    host.on("DELETE", "/api/users/bob", Message(message="removed"))
    words = ["user", "create", "bob", "--role", "viewer", "--uid", "1001", "-o", "name"]
    assert commands(*words).out == "bob\n"
    assert host.bodies("/api/users") == [{"name": "bob", "role": "viewer", "uid": 1001}]
    assert "viewer" in commands("user", "list").out
    done = commands("user", "remove", "bob", "eve", "-o", "name")
    assert (done.code, done.out) == (3, "bob\n")


@pytest.mark.parametrize("name", ["Bob", "a b", "x" * 40])
def test_a_name_that_is_none_is_not_sent(commands: Commands, host: FakeHost, name: str) -> None:
    assert commands("user", "create", name).code == 2
    assert host.asked == []


def test_tokens(commands: Commands, host: FakeHost) -> None:
    made = TokenCreated(**TOKEN.model_dump(), token="hkr_secret")
    host.on("POST", "/api/tokens", made)
    host.on("GET", "/api/tokens", [TOKEN])
    host.on("DELETE", "/api/tokens/t1", Message(message="revoked"))
    done = commands("token", "create", "--user", "bob", "--expires", "1d")
    assert done.out == "hkr_secret\n"
    assert host.bodies("/api/tokens") == [{"user": "bob", "expires_in_seconds": 86_400}]
    assert "t1" in commands("token", "list").out
    assert commands("token", "revoke", "t1").code == 0


def test_whoami(commands: Commands, host: FakeHost) -> None:
    host.on("GET", "/api/whoami", WhoAmI(name="ada", role=Role.ADMIN))
    assert commands("whoami", "-o", "json").json == {"name": "ada", "role": "admin"}


def test_version_tells_both_and_needs_no_host(commands: Commands, host: FakeHost) -> None:
    host.on("GET", "/api/cluster", CLUSTER)
    assert commands("version", "-o", "json").json["host"] == "0.3.1"
    host.on("GET", "/api/cluster", DeniedError("no"))
    done = commands("version")
    assert done.code == 0
    assert __version__ in done.out
    assert "not reached" in done.out
    assert "not known: no" in done.err


def test_the_version_flag(commands: Commands) -> None:
    assert commands("--version").out.strip() == __version__
