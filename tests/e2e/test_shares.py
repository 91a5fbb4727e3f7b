"""Several users on one small cluster: who goes first, and what one user may hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from hakuriver.states import TaskState
from support.api import Api
from support.cluster import Cluster, running
from support.waiting import until


@dataclass(frozen=True)
class Lab:
    cluster: Cluster
    ada: Api
    bob: Api


@pytest.fixture(scope="module", name="lab")
def _lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    sections: dict[str, dict[str, object]] = {
        "scheduling": {
            "max_cores_per_user": 3,
            "max_running_per_user": 2,
            "max_waiting_per_user": 5,
            "user_limits": {"eve": {"cores": 4}},
            "group_limits": {"students": {"members": ["cyd", "dan"], "cores": 2, "waiting": 1}},
        }
    }
    with running(Cluster(tmp_path_factory.mktemp("shares"), sections=sections)) as cluster:
        yield Lab(cluster, person(cluster, "ada"), person(cluster, "bob"))


def person(cluster: Cluster, name: str) -> Api:
    cluster.api.json("POST", "/api/users", json={"name": name})
    return cluster.api_as(cluster.api.json("POST", "/api/tokens", json={"user": name})["token"])


@pytest.fixture(autouse=True)
def _nothing_left(lab: Lab) -> Iterator[None]:
    yield
    for task in lab.cluster.api.tasks(status=["pending", "assigning", "running"]):
        lab.cluster.api.kill(task.task_id)
    until(
        lambda: not lab.cluster.api.tasks(status=["pending", "assigning", "running"]),
        lambda: "all have ended",
    )


def begun(api: Api, **fields: int) -> int:
    task = api.submit_one("sleep", "600", **fields)
    api.wait_state(task, TaskState.RUNNING)
    return task


def test_who_had_less_goes_first_also_after_a_restart_of_the_host(lab: Lab) -> None:
    cluster = lab.cluster
    last = begun(lab.ada, required_cores=2)
    others = [begun(cluster.api, required_cores=1, priority=priority) for priority in (0, 1)]
    first, second = (api.submit_one("sleep", "600", required_cores=3) for api in (lab.ada, lab.bob))

    def line() -> list[int]:
        return [int(task["task_id"]) for task in lab.ada.json("GET", "/api/queue")]

    assert line() == [second, first], "ada, who came first, holds half of the cluster"
    assert lab.ada.json("GET", f"/api/explain/{first}")["queue_position"] == 1
    lab.ada.kill(last)
    lab.ada.wait_final(last)
    assert line() == [second, first], "and held it"
    cluster.host.stop()
    cluster.start_host()
    cluster.wait_online()
    assert line() == [second, first]
    cluster.api.kill(others[0])
    lab.bob.wait_state(second, TaskState.RUNNING)


def test_a_user_at_the_limit_waits_with_the_reason_and_holds_nobody_up(lab: Lab) -> None:
    begun(lab.ada, required_cores=2)
    waits = lab.ada.submit_one("true", required_cores=2)
    told = "one user may hold 3 cores, 2 cores of them in use, 2 cores asked for"
    assert lab.ada.task(waits).reason == told
    assert lab.ada.json("GET", f"/api/explain/{waits}")["summary"] == told
    other = lab.bob.submit_one("true", required_cores=2)
    assert lab.bob.wait_final(other).status is TaskState.COMPLETED
    begun(lab.ada)
    third = lab.ada.submit_one("true")
    assert lab.ada.task(third).reason.startswith("one user may hold 3 cores, 3 cores of them in use")
    for task in lab.ada.tasks(status="running"):
        lab.ada.kill(task.task_id)
    for task_id in (waits, third):
        assert lab.ada.wait_final(task_id).status is TaskState.COMPLETED


def test_so_many_tasks_at_a_time(lab: Lab) -> None:
    begun(lab.ada)
    last = begun(lab.ada)
    waits = lab.ada.submit_one("true")
    assert lab.ada.task(waits).reason == "one user may hold 2 tasks, 2 tasks of them in use, 1 task asked for"
    lab.ada.kill(last)
    assert lab.ada.wait_final(waits).status is TaskState.COMPLETED


@pytest.mark.parametrize("hold", [False, True])
def test_what_is_beyond_the_limit_is_refused(lab: Lab, hold: bool) -> None:
    body = {"command": "true", "required_cores": 4, "hold_for_node": hold}
    answer = lab.ada.call("POST", "/api/submit", json=body)
    assert (answer.status_code, answer.json()["error"]) == (409, "impossible")
    assert answer.json()["message"] == "one user may hold 3 cores, 4 cores asked for"


def test_so_many_may_wait(lab: Lab) -> None:
    held = lab.ada.submit("true", count=5, hold=True)
    answer = lab.ada.call("POST", "/api/submit", json={"command": "true"})
    assert (answer.status_code, answer.json()["error"]) == (409, "conflict")
    assert answer.json()["message"] == "5 tasks of one user may wait: 5 do, 1 more are submitted"
    assert lab.bob.wait_final(lab.bob.submit_one("true")).status is TaskState.COMPLETED
    lab.ada.kill(held.task_ids[0])
    lab.ada.submit_one("true")


def test_groups_and_single_users_have_limits_of_their_own(lab: Lab) -> None:
    cyd, dan, eve = (person(lab.cluster, name) for name in ("cyd", "dan", "eve"))
    begun(cyd)
    waits = dan.submit_one("true", required_cores=2)
    told = "the group students may hold 2 cores, 1 core of them in use, 2 cores asked for"
    assert dan.task(waits).reason == told
    answer = cyd.call("POST", "/api/submit", json={"command": "true"})
    assert answer.json()["message"] == "1 task of the group students may wait: 1 do, 1 more are submitted"
    large = eve.submit_one("true", required_cores=4)
    assert "one user" not in eve.task(large).reason, "eve may have four cores"
    for task in cyd.tasks(status="running"):
        cyd.kill(task.task_id)
    assert dan.wait_final(waits).status is TaskState.COMPLETED
    assert eve.wait_final(large).status is TaskState.COMPLETED
