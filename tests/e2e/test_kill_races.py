"""Kill wins every race: whatever the task is about to do, it ends `killed` and leaves nothing."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hakuriver.states import TaskState
from support import engine
from support.cluster import Cluster, running

BIG = "test-big"
BIG_VERSION = 1_700_000_001
BIG_BYTES = 250_000_000


@pytest.fixture(scope="module")
def linked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster whose link between Host and Runner can be cut."""
    sections = {"timing": {"heartbeat_timeout_factor": 600}}
    with running(Cluster(tmp_path_factory.mktemp("linked"), relays=True, sections=sections)) as started:
        yield started


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Cores for all tasks of a test at once."""
    with running(Cluster(tmp_path_factory.mktemp("cluster"), cores=40)) as started:
        yield started


@pytest.fixture(scope="module")
def container_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running(Cluster(tmp_path_factory.mktemp("containers"), cores=40, containers=True)) as started:
        yield started


def assert_killed(cluster: Cluster, task: int) -> None:
    ended = cluster.api.wait_final(task)
    assert ended.status == TaskState.KILLED, ended
    finals = [event for event in ended.history if event.state == TaskState.KILLED]
    assert len(finals) == 1
    cluster.assert_clean([task])


def test_killed_while_pending(cluster: Cluster) -> None:
    task = cluster.api.submit_one(
        "touch", str(cluster.shared / "pending-ran"), targets=["none"], hold_for_node=True
    )
    assert cluster.api.kill(task).status_code == 202
    ended = cluster.api.wait_final(task)
    assert (ended.status, ended.attempt) == (TaskState.KILLED, 0)


def test_killed_while_assigning(linked: Cluster) -> None:
    """The Host has decided on a node, and the node does not hear of it before the kill."""
    mark = linked.shared / "assigning-ran"
    linked.cut("reset")
    try:
        task = linked.api.submit_one("touch", str(mark))
        linked.api.wait_state(task, TaskState.ASSIGNING)
        assert linked.api.kill(task).status_code == 202
    finally:
        linked.mend()
    assert_killed(linked, task)
    assert not mark.exists()


def test_killed_while_paused(cluster: Cluster) -> None:
    task = cluster.api.submit_one("sleep", "600")
    cluster.api.wait_state(task, TaskState.RUNNING)
    assert cluster.api.call("POST", f"/api/command/{task}/pause").is_success
    cluster.api.wait_state(task, TaskState.PAUSED)
    assert cluster.api.kill(task).status_code == 202
    assert_killed(cluster, task)


@pytest.mark.parametrize("kind", ["process", "container"])
def test_killed_at_any_moment_of_the_start(request: pytest.FixtureRequest, kind: str) -> None:
    """Kills that come from nothing to a third of a second after the submission hit every step of the start."""
    if kind == "container" and (reason := engine.why_not()):
        pytest.skip(reason)
    cluster: Cluster = request.getfixturevalue("cluster" if kind == "process" else "container_cluster")
    chance = random.Random(2)
    tasks, timers = [], []
    for _ in range(30):
        task = cluster.api.submit_one("sleep", "600")
        timers.append(threading.Timer(chance.random() / 3, cluster.api.kill, [task]))
        timers[-1].start()
        tasks.append(task)
    for timer in timers:
        timer.join()
    for task in tasks:
        assert cluster.api.wait_final(task, within=60).status == TaskState.KILLED
    cluster.assert_clean(tasks, within=60)


@pytest.mark.docker
def test_killed_while_the_environment_is_loaded(container_cluster: Cluster) -> None:
    cluster = container_cluster
    engine.write_environment(cluster.shared / "hakuriver-containers", BIG, BIG_VERSION, BIG_BYTES)
    engine.remove_image(BIG, BIG_VERSION)
    mark = "/shared/loaded-ran"
    try:
        task = cluster.api.submit_one("touch", mark, container_name=BIG)
        cluster.api.wait_state(task, TaskState.ASSIGNING)
        assert cluster.api.kill(task).status_code == 202
        assert_killed(cluster, task)
        assert not any(path.name == "loaded-ran" for path in cluster.shared.rglob("*"))
        # The environment is none the worse for it: the next task runs in it.
        again = cluster.api.submit_one("true", container_name=BIG)
        assert cluster.api.wait_final(again, within=120).status == TaskState.COMPLETED
    finally:
        engine.remove_image(BIG, BIG_VERSION)


def test_killed_while_the_runner_is_away(linked: Cluster) -> None:
    """The kill is kept for the Runner, and is done when it comes back."""
    task = linked.api.submit_one("sleep", "600")
    linked.api.wait_state(task, TaskState.RUNNING)
    linked.node.daemon.kill()
    assert linked.api.kill(task).status_code == 202
    linked.node.daemon.start()
    assert_killed(linked, task)


def test_two_kills_are_one(cluster: Cluster) -> None:
    task = cluster.api.submit_one("sh", "-c", "trap '' TERM; while :; do sleep 0.1; done")
    cluster.api.wait_state(task, TaskState.RUNNING)
    assert cluster.api.kill(task).status_code == 202
    assert cluster.api.kill(task).status_code in {202, 409}
    assert_killed(cluster, task)


def test_a_task_that_has_ended_stays_as_it_ended(cluster: Cluster, tmp_path: Path) -> None:
    task = cluster.api.submit_one("sh", "-c", "exit 3")
    cluster.api.wait_final(task)
    assert cluster.api.kill(task).status_code == 409
    ended = cluster.api.task(task)
    assert (ended.status, ended.exit_code) == (TaskState.FAILED, 3)
