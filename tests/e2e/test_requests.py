"""What tasks ask of nodes beside amounts: cores of their own, a node for themselves, labels; and who makes room."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hakuriver.cores import parse_list
from hakuriver.states import TaskState
from support.cluster import Cluster, running
from support.waiting import until

pytestmark = pytest.mark.docker

CORES = sorted(os.sched_getaffinity(0))
ALLOWED = "grep -h -E '^(Cpus|Mems)_allowed_list' /proc/self/status; grep -c bind /proc/self/numa_maps"


@pytest.fixture(scope="module")
def pinned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One node that offers the cores that it has."""
    assert len(CORES) > 1, "these tests need two cores"
    folder = tmp_path_factory.mktemp("pinned")
    labels = {"runner": {"labels": {"disk": "ssd"}}}
    with running(Cluster(folder, containers=True, cores=len(CORES), runner_sections=labels)) as started:
        yield started


@pytest.fixture(autouse=True)
def _nothing_left(pinned: Cluster) -> Iterator[None]:
    yield
    live = pinned.api.tasks(status=["pending", "assigning", "running"])
    for task in live:
        pinned.api.kill(task.task_id)
    for task in live:
        pinned.api.wait_final(task.task_id)
    pinned.assert_clean()


@dataclass(frozen=True)
class Seen:
    """What a task may use, as it sees it itself."""

    cores: list[int]
    memory: list[int]
    """NUMA nodes."""
    bound: bool
    """Its memory is to come from some NUMA nodes alone."""


def seen(cluster: Cluster, *options: str) -> Seen:
    done = cluster.run("task", "run", *options, "--", "sh", "-c", f"{ALLOWED}; true")
    assert done.code == 0, done
    cores, memory, bound = done.stdout.splitlines()
    return Seen(parse_list(cores.split()[1]), parse_list(memory.split()[1]), int(bound) > 0)


def sleeper(cluster: Cluster, **fields: object) -> int:
    task = cluster.api.submit_one("sleep", "600", **fields)
    cluster.api.wait_state(task, TaskState.RUNNING)
    return task


@pytest.mark.parametrize("options", [(), ("--container", "NULL")], ids=["container", "process"])
class TestCores:
    def test_a_task_has_cores_of_its_own_and_no_others(
        self, pinned: Cluster, options: tuple[str, ...]
    ) -> None:
        where = {"container_name": options[1]} if options else {}
        holder = sleeper(pinned, required_cores=1, **where)
        taken = pinned.api.task(holder).assigned_cores
        assert len(taken) == 1
        own = seen(pinned, "--cores", str(len(CORES) - 1), *options).cores
        assert sorted([*own, *taken]) == CORES
        assert f"1 ({taken[0]})" in pinned.run("task", "status", str(holder)).stdout

    def test_a_numa_node(self, pinned: Cluster, options: tuple[str, ...]) -> None:
        topology = pinned.api.nodes()[pinned.node.name].numa_topology
        assert topology is not None
        number, numa = next(iter(topology.items()))
        found = seen(pinned, "--target", f"{pinned.node.name}:{number}", *options)
        assert len(found.cores) == 1
        assert set(found.cores) <= set(numa.cores)
        if options:
            assert found.bound, "numactl says it of processes"
        else:
            assert found.memory == [int(number)], "and the control group of containers"

    def test_a_node_for_itself(self, pinned: Cluster, options: tuple[str, ...]) -> None:
        assert seen(pinned, "--exclusive", *options).cores == CORES


def test_cores_outlive_both_daemons(pinned: Cluster) -> None:
    holder = sleeper(pinned, required_cores=1)
    before = pinned.api.task(holder).assigned_cores
    pinned.node.daemon.kill()
    pinned.host.kill()
    pinned.start_host()
    pinned.node.daemon.start()
    pinned.wait_online()
    assert pinned.api.task(holder).assigned_cores == before
    assert not set(seen(pinned, "--cores", str(len(CORES) - 1)).cores) & set(before)


def test_one_that_is_to_be_alone_waits_and_lets_nobody_in(pinned: Cluster) -> None:
    holder = sleeper(pinned)
    alone = pinned.api.submit_one("sleep", "600", exclusive=True)
    assert "1 task there, and it is to be the only one" in pinned.run("task", "explain", str(alone)).stdout
    other = pinned.api.submit_one("true")
    pinned.api.kill(holder)
    pinned.api.wait_state(alone, TaskState.RUNNING)
    node = pinned.api.nodes()[pinned.node.name]
    assert node.available_cores == 0
    assert f"task {alone} has it for itself" in pinned.run("task", "explain", str(other)).stdout
    pinned.api.kill(alone)
    assert pinned.api.wait_final(other).exit_code == 0


class TestLabels:
    def test_a_task_goes_where_they_are(self, pinned: Cluster) -> None:
        name = pinned.node.name
        assert pinned.run("node", "label", name).stdout.split()[-2:] == [name, "disk=ssd"]
        assert pinned.run("task", "run", "--node-label", "disk=ssd", "--", "true").code == 0
        refused = pinned.run("task", "submit", "--node-label", "room=2", "--", "true")
        refused.assert_refused(5, "its labels are not as asked for: room=2 (it has disk=ssd)")
        waits = pinned.api.submit_one("true", node_labels=["room=2"], hold_for_node=True)
        assert "room=2" in pinned.run("task", "explain", str(waits)).stdout
        changed = pinned.run("node", "label", name, "room=2", "disk-")
        assert changed.stdout.split()[-2:] == [name, "room=2"]
        assert pinned.api.wait_final(waits).exit_code == 0
        pinned.host.kill()
        pinned.start_host()
        pinned.wait_online()
        assert pinned.api.nodes()[name].labels == {"room": "2"}, "what an admin says stays"
        pinned.run("node", "label", name, "disk=ssd", "room-")

    def test_what_is_no_label(self, pinned: Cluster) -> None:
        pinned.run("node", "label", pinned.node.name, "a b=c").assert_refused(2, "is not a label's key")
        pinned.run("node", "label", pinned.node.name, "disk").assert_refused(2, "changes no label")
        pinned.run("node", "label", "nosuch", "disk=ssd").assert_refused(3, "no node nosuch")
        pinned.run("task", "submit", "--node-label", "=x", "--", "true").assert_refused(
            2, "is not a label's key"
        )


class TestPreemption:
    def test_it_gives_way_is_told_before_and_runs_again(self, pinned: Cluster) -> None:
        marks = pinned.shared / "marks"
        text = f"trap 'echo told >>{marks}; exit 1' TERM; echo began >>{marks}; sleep 600 & wait"
        options = ["--preemptible", "--cores", str(len(CORES)), "--container", "NULL"]
        done = pinned.run("task", "submit", *options, "-o", "name", "--", "sh", "-c", text)
        small = int(done.stdout)
        until(lambda: marks.exists() and marks.read_text() == "began\n", "it runs")
        wants = sleeper(pinned, required_cores=1)
        assert marks.read_text() == "began\ntold\n"
        waits = pinned.api.task(small)
        assert (waits.status, waits.attempt) == (TaskState.PENDING, 1)
        history = [event.cause for event in waits.history]
        assert f"ended to make room for task {wants}" in history
        pinned.api.kill(wants)
        until(lambda: marks.read_text() == "began\ntold\nbegan\n", "it runs again")
        assert pinned.api.task(small).attempt == 2

    def test_one_that_was_told_is_told_again_after_a_restart_of_the_host(self, pinned: Cluster) -> None:
        small = sleeper(pinned, required_cores=len(CORES), preemptible=True)
        pinned.node.daemon.kill()
        wants = pinned.api.submit_one("true")
        until(lambda: "make room" in pinned.api.task(small).reason, "it is to give way")
        pinned.host.kill()
        pinned.start_host()
        pinned.node.daemon.start()
        pinned.wait_online()
        assert pinned.api.wait_final(wants).exit_code == 0
        assert pinned.api.task(small).status is not TaskState.KILLED

    def test_a_vps_does_not(self, pinned: Cluster) -> None:
        answer = pinned.api.call(
            "POST", "/api/submit", json={"task_type": "vps", "command": "-", "preemptible": True}
        )
        assert answer.status_code == 400
        assert "does not make room" in answer.text


def test_tasks_are_spread_and_use_any_core_where_that_is_configured(tmp_path: Path) -> None:
    sections: dict[str, dict[str, object]] = {"scheduling": {"placement": "spread", "pin_cores": False}}
    with running(Cluster(tmp_path, runners=2, cores=len(CORES), sections=sections)) as lab:
        tasks = [lab.api.submit_one("sleep", "600") for _ in range(2)]
        found = [lab.api.wait_state(task, TaskState.RUNNING) for task in tasks]
        assert {task.assigned_node for task in found} == {node.name for node in lab.nodes}
        assert [task.assigned_cores for task in found] == [[], []]
        assert seen(lab).cores == CORES
        for task in tasks:
            lab.api.kill(task)
            lab.api.wait_final(task)
