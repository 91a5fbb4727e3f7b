"""`node …`, `status`, `env list`, `user …`, `token …`, `whoami`, `version`."""

from __future__ import annotations

from typing import Any

import pytest

from hakuriver.errors import DeniedError
from hakuriver.models.access import Role, TokenCreated, TokenInfo, UserInfo, WhoAmI
from hakuriver.models.nodes import (
    ClusterStatus,
    EnvironmentVersion,
    EnvironmentVersions,
    HealthHistory,
    NodeInfo,
    NodeSample,
)
from hakuriver.models.tasks import Message
from hakuriver.states import NodeState
from hakuriver.version import __version__
from hakuriver_cli.reference import client_app, docker_app
from unit.cli.conftest import Commands, FakeHost
from unit.sdk.wire_samples import START

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
    for words, app in ((("env", "list"), None), (("list-tars",), docker_app())):
        rows: list[dict[str, Any]] = commands(*words, "-o", "json", app=app).json
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
