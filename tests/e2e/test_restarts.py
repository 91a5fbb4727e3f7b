"""A Runner that restarts under load: what came to it meanwhile is neither lost nor run twice."""

from __future__ import annotations

import threading
from pathlib import Path

from hakuriver.states import TaskState
from support.cluster import Cluster, running
from support.waiting import until

LIVES = 4


def registrations(cluster: Cluster) -> int:
    return cluster.host.output().count("node registered")


def test_a_runner_that_restarts_while_starts_come_in(tmp_path: Path) -> None:
    """Starts reach each new life before, while and after it registers."""
    with running(Cluster(tmp_path, cores=500)) as cluster:
        enough = threading.Event()
        tasks: list[int] = []

        def submit() -> None:
            while not enough.wait(0.005):
                tasks.append(cluster.api.submit_one("true"))

        submitting = threading.Thread(target=submit)
        submitting.start()
        try:
            for _ in range(LIVES):
                cluster.node.daemon.kill()
                before = registrations(cluster)
                cluster.node.daemon.start()
                until(lambda before=before: registrations(cluster) > before, "it registers")  # type: ignore[misc]
        finally:
            enough.set()
            submitting.join()
        histories = [cluster.api.wait_final(task, within=60).history for task in tasks]
        lost = [event.cause for history in histories for event in history if event.state is TaskState.LOST]
        assert not lost
