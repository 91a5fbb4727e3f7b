"""What the Host must refuse: each with the documented status, one line of what is wrong and one of what to do.

No refusal changes anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from hakuriver.models.submission import MAX_ARGUMENT_BYTES, MAX_ARGV_BYTES
from support.cluster import Cluster

SUBMISSIONS: dict[str, tuple[dict[str, Any], int]] = {
    "no command": ({"command": ""}, 400),
    "command that is no text": ({"command": 5}, 400),
    "target without node": ({"targets": ["::0"]}, 400),
    "target with a space": ({"targets": ["a b"]}, 400),
    "target with three colons": ({"targets": ["node:::1"]}, 400),
    "target with a GPU that is no number": ({"targets": ["node::x"]}, 400),
    "target with a GPU twice": ({"targets": ["node::1,1"]}, 400),
    "unknown node": ({"targets": ["no-such-node"]}, 404),
    "negative cores": ({"required_cores": -1}, 400),
    "absurd cores": ({"required_cores": 10**9}, 400),
    "more cores than any node has": ({"required_cores": 99_999}, 409),
    "cores that are no number": ({"required_cores": "many"}, 400),
    "no memory": ({"required_memory_bytes": 0}, 400),
    "absurd memory": ({"required_memory_bytes": 2**63}, 400),
    "more memory than any node has": ({"required_memory_bytes": 2**61}, 409),
    "memory with a unit": ({"required_memory_bytes": "4Q"}, 400),
    "unknown environment": ({"container_name": "no-such-environment"}, 404),
    "environment with a path": ({"container_name": "../etc"}, 400),
    "variable without a name": ({"env_vars": {"": "x"}}, 400),
    "variable with a sign in its name": ({"env_vars": {"A=B": "x"}}, 400),
    "relative mount": ({"additional_mounts": ["data:/data"]}, 400),
    "mount that climbs": ({"additional_mounts": ["/mnt/../etc:/etc"]}, 400),
    "mount with an unknown option": ({"additional_mounts": ["/mnt:/mnt:rwx"]}, 400),
    "argument of 10 MB": ({"arguments": ["x" * 10_000_000]}, 413),
    "argument above the kernel's limit": ({"arguments": ["x" * (MAX_ARGUMENT_BYTES + 1)]}, 400),
    "arguments above the kernel's limit together": (
        {"arguments": ["x" * MAX_ARGUMENT_BYTES] * (MAX_ARGV_BYTES // MAX_ARGUMENT_BYTES + 1)},
        400,
    ),
    "argument with a NUL byte": ({"arguments": ["a\0b"]}, 400),
    "unknown field": ({"colour": "blue"}, 400),
    "no tasks": ({"count": 0}, 400),
    "too many tasks": ({"count": 10**6}, 400),
    "a day that never ends": ({"time_limit_seconds": 10**12}, 400),
}


@pytest.fixture(autouse=True)
def nothing_changes(cluster: Cluster) -> Iterator[None]:
    """No request in this file may add, change or start anything."""
    before = cluster.api.tasks()
    yield
    assert cluster.api.tasks() == before
    assert cluster.host.is_running


@pytest.mark.parametrize("name", SUBMISSIONS)
def test_a_bad_submission_is_refused_with_a_reason_and_a_hint(cluster: Cluster, name: str) -> None:
    fields, status = SUBMISSIONS[name]
    answer = cluster.api.call("POST", "/api/submit", json={"command": "true", **fields})
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert set(body) == {"error", "message", "hint"}
    assert body["message"]
    assert body["hint"]
    assert "\n" not in body["message"] + body["hint"]
    assert len(body["message"]) < 500


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"text"', b"\xff\xfe", b"null"])
def test_a_body_that_is_not_a_json_object_is_refused(cluster: Cluster, body: bytes) -> None:
    answer = cluster.api.call(
        "POST", "/api/submit", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"] == "usage"


@pytest.mark.parametrize(
    "path", ["/api/status/{}", "/api/explain/{}", "/api/task/{}/stdout", "/api/task/{}/stderr"]
)
@pytest.mark.parametrize(("task_id", "status"), [("12x", 400), ("-1", 400), ("9" * 25, 400), ("5", 404)])
def test_an_id_that_is_none_or_unknown_is_refused(
    cluster: Cluster, path: str, task_id: str, status: int
) -> None:
    answer = cluster.api.call("GET", path.format(task_id))
    assert answer.status_code == status, answer.text
    assert answer.json()["hint"]


@pytest.mark.parametrize(
    "path", ["/api/kill/{}", "/api/command/{}/pause", "/api/command/{}/resume", "/api/retry/{}"]
)
@pytest.mark.parametrize(("task_id", "status"), [("12x", 400), ("5", 404)])
def test_actions_on_an_id_that_is_none_or_unknown(
    cluster: Cluster, path: str, task_id: str, status: int
) -> None:
    assert cluster.api.call("POST", path.format(task_id)).status_code == status


@pytest.mark.parametrize(
    "query",
    [
        {"status": "sleeping"},
        {"limit": "0"},
        {"limit": "x"},
        {"limit": "1000000"},
        {"cursor": "?"},
        {"batch_id": "x"},
    ],
)
def test_filters_that_make_no_sense_are_refused(cluster: Cluster, query: dict[str, str]) -> None:
    assert cluster.api.call("GET", "/api/tasks", params=query).status_code == 400


PATHS = [
    ("GET", "/api/nodes"),
    ("GET", "/api/cluster"),
    ("GET", "/api/tasks"),
    ("GET", "/api/status/5"),
    ("GET", "/api/events"),
    ("GET", "/api/health"),
    ("GET", "/api/docker/list"),
    ("GET", "/api/task/5/stdout"),
    ("POST", "/api/submit"),
    ("POST", "/api/kill/5"),
    ("POST", "/api/join"),
    ("POST", "/api/register"),
    ("POST", "/api/update"),
    ("PUT", "/api/heartbeat/somebody"),
    ("GET", "/api/users"),
    ("POST", "/api/tokens"),
]


@pytest.mark.parametrize("token", ["", "wrong", "x" * 10_000])
@pytest.mark.parametrize(("method", "path"), PATHS)
def test_every_endpoint_denies_without_a_known_token(
    cluster: Cluster, method: str, path: str, token: str
) -> None:
    headers = {"Authorization": f"Bearer {token}"} if token else {"Authorization": ""}
    answer = cluster.api.call(method, path, headers=headers)
    assert answer.status_code == 401, answer.text
    assert answer.json()["error"] == "unauthenticated"


def test_a_nodes_token_is_no_persons_token(cluster: Cluster) -> None:
    join = cluster.api_as((cluster.state_dir / "join.token").read_text("utf-8").strip())
    assert join.call("GET", "/api/nodes").status_code in {401, 403}
    assert join.call("POST", "/api/submit", json={"command": "true"}).status_code in {401, 403}


def test_the_runner_denies_everybody_but_its_host(cluster: Cluster) -> None:
    url = cluster.api.nodes()[cluster.node.name].url
    stranger = cluster.api_as("wrong")
    stranger.client.base_url = url
    requests = [
        ("GET", "/api/attempts"),
        ("GET", "/api/health"),
        ("POST", "/api/start"),
        ("POST", "/api/kill"),
    ]
    assert {stranger.call(method, path).status_code for method, path in requests} == {401}


def test_a_peer_two_versions_away_is_told_so(cluster: Cluster) -> None:
    answer = cluster.api.call("GET", "/api/nodes", headers={"X-HakuRiver-Version": "0.9.0"})
    assert answer.status_code == 426
    assert "0.9" in answer.json()["message"]


def test_an_unknown_path_is_not_found_in_the_same_form(cluster: Cluster) -> None:
    answer = cluster.api.call("GET", "/api/no-such-thing")
    assert (answer.status_code, answer.json()["error"]) == (404, "not_found")
