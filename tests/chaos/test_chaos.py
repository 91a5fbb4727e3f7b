"""Host and Runner are killed, cut off and starved of disk while they work, and nothing is lost or done twice.

Afterwards every acknowledged task has ended exactly once, with its right exit code and after having run exactly
once for each attempt; no container or process is left, and no resource is held.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from hakuriver.states import NodeState
from support import engine
from support.cluster import Cluster, running
from support.disks import small_disk
from support.load import Load
from support.waiting import until

pytestmark = pytest.mark.chaos

OFFLINE_SOON = {"timing": {"heartbeat_interval": 0.3, "heartbeat_timeout_factor": 5, "lost_after": 3600}}
"""A node is offline after 1.5 seconds."""

SUBMIT_EVERY = 0.05


@contextmanager
def trouble(make: Callable[[threading.Event], None]) -> Iterator[None]:
    """Runs `make` beside the test until its event is set; what it raises fails the test."""
    enough = threading.Event()
    raised: list[BaseException] = []

    def work() -> None:
        try:
            make(enough)
        except BaseException as error:  # noqa: BLE001 - handed on below
            raised.append(error)

    thread = threading.Thread(target=work, name="trouble")
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()
    if raised:
        raise raised[0]


def finish(load: Load) -> None:
    load.wait_all()
    load.assert_each_ended_once()
    load.cluster.wait_online()
    load.cluster.assert_clean(within=60)


def submit_all(load: Load, count: int, enough: Callable[[], bool] = lambda: True) -> None:
    """Submits them a few milliseconds apart, so that there is trouble before, between and after them.

    Goes on with more until there was `enough` trouble: how much fits into a given number of tasks is the machine's speed.
    """
    load.prepare()
    submitted = 0
    while submitted < count or not enough():
        assert submitted < 10 * count, "too little trouble to prove anything"
        load.submit()
        submitted += 1
        time.sleep(load.chance.uniform(0, 2 * SUBMIT_EVERY))


def _all_work(cluster: Cluster) -> bool:
    try:
        return all(node.schedulable for node in cluster.api.nodes().values())
    except httpx.TransportError:
        return False


@pytest.mark.docker
def test_daemons_are_killed_again_and_again(tmp_path: Path, chance: random.Random, task_count: int) -> None:
    """Tasks in containers and without; Host and both Runners get SIGKILL, one or two at a time, for as long as it lasts."""
    sections = {**OFFLINE_SOON, "timing": {**OFFLINE_SOON["timing"], "heartbeat_timeout_factor": 10}}
    kills = random.Random(chance.random())
    with running(Cluster(tmp_path, runners=2, cores=8, containers=True, sections=sections)) as cluster:
        killed = 0

        def kill(enough: threading.Event) -> None:
            nonlocal killed
            daemons = [cluster.host, *(node.daemon for node in cluster.nodes)]
            while not enough.wait(kills.uniform(0.2, 2.0)):
                if kills.random() < 0.2:
                    # On a slow machine nobody would otherwise live long enough for any work.
                    until(lambda: enough.is_set() or _all_work(cluster), "all daemons have come back", 120)
                victims = kills.sample(daemons, kills.choice((1, 1, 2)))
                for victim in victims:
                    victim.kill()
                    killed += 1
                enough.wait(kills.uniform(0.0, 0.5))
                for victim in victims:
                    victim.start()

        load = Load(cluster, chance, containers=True)
        with trouble(kill):
            submit_all(load, task_count, lambda: killed >= task_count // 10)
            load.wait_all()
        cluster.wait_host()
        finish(load)


@pytest.mark.parametrize("how", ["drop", "reset"])
def test_the_link_is_cut_for_longer_than_the_offline_limit(
    tmp_path: Path, chance: random.Random, task_count: int, how: str
) -> None:
    containers = engine.why_not() is None
    cuts = random.Random(chance.random())
    with running(
        Cluster(tmp_path, cores=8, containers=containers, relays=True, sections=OFFLINE_SOON)
    ) as cluster:
        cut_off = 0

        def cut(enough: threading.Event) -> None:
            nonlocal cut_off
            while not enough.wait(cuts.uniform(0.3, 1.5)):
                cut_off += 1
                cluster.cut("drop" if how == "drop" else "reset")
                try:
                    cluster.wait_node(NodeState.OFFLINE)
                    enough.wait(cuts.uniform(0.0, 1.0))
                finally:
                    cluster.mend()
                cluster.wait_node(NodeState.ONLINE)

        load = Load(cluster, chance, containers)
        with trouble(cut):
            submit_all(load, task_count // 2, lambda: cut_off >= 3)
            load.wait_all()
        finish(load)


def test_the_link_is_cut_until_attempts_are_given_up(
    tmp_path: Path, chance: random.Random, task_count: int
) -> None:
    """Again and again for longer than `lost_after`: what was given up is corrected by the Runner that comes back."""
    cuts = random.Random(chance.random())
    soon = {"timing": {**OFFLINE_SOON["timing"], "lost_after": 1.0}}
    with running(Cluster(tmp_path, cores=8, relays=True, sections=soon)) as cluster:
        lost = 0

        def cut(enough: threading.Event) -> None:
            nonlocal lost
            while not enough.wait(cuts.uniform(0.3, 1.0)):
                cluster.cut(cuts.choice(("drop", "reset")))
                try:
                    cluster.wait_node(NodeState.OFFLINE)
                    held = cluster.api.nodes()[cluster.node.name].running_tasks
                    until(
                        lambda: not cluster.api.nodes()[cluster.node.name].running_tasks,
                        "what the node holds is given up",
                    )
                    lost += bool(held)
                finally:
                    cluster.mend()
                cluster.wait_node(NodeState.ONLINE)

        load = Load(cluster, chance, containers=False, losses=True)
        with trouble(cut):
            submit_all(load, task_count // 2, lambda: lost >= 3)
        cluster.wait_online()
        load.wait_corrected()
        finish(load)


@pytest.mark.small_disk
def test_the_hosts_disk_is_full_for_a_while(tmp_path: Path, chance: random.Random, task_count: int) -> None:
    """Submissions are refused meanwhile, ends are kept by the Runner, and all is well once there is room."""
    containers = engine.why_not() is None
    fills = random.Random(chance.random())
    with (
        small_disk(tmp_path / "state", 48) as disk,
        running(Cluster(tmp_path, cores=8, containers=containers, state_dir=disk.path / "host")) as cluster,
    ):

        def fill(enough: threading.Event) -> None:
            while not enough.wait(fills.uniform(0.5, 2.0)):
                disk.fill()
                enough.wait(fills.uniform(0.5, 3.0))
                disk.free()

        load = Load(cluster, chance, containers)
        with trouble(fill):
            submit_all(load, task_count, lambda: bool(load.refused))
        finish(load)


@pytest.mark.small_disk
def test_the_host_is_killed_while_its_disk_is_full(
    tmp_path: Path, chance: random.Random, task_count: int
) -> None:
    fills = random.Random(chance.random())
    with (
        small_disk(tmp_path / "state", 48) as disk,
        running(Cluster(tmp_path, cores=8, state_dir=disk.path / "host")) as cluster,
    ):

        def fill_and_kill(enough: threading.Event) -> None:
            while not enough.wait(fills.uniform(0.5, 1.5)):
                if fills.random() < 0.3:
                    # On a slow machine the Host would otherwise never live long enough to take anything.
                    until(lambda: enough.is_set() or cluster.host_answers(), "the Host has come back", 120)
                disk.fill()
                enough.wait(fills.uniform(0.0, 1.0))
                cluster.host.kill()
                disk.free()
                cluster.host.start()

        load = Load(cluster, chance, containers=False)
        with trouble(fill_and_kill):
            submit_all(load, task_count // 4)
        cluster.wait_host()
        finish(load)
