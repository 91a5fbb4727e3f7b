"""What Host and Runner cost while nothing happens: resident memory, and CPU over a while."""

from __future__ import annotations

import time
from pathlib import Path

import psutil

from bench.report import Figure, at_most, say
from hakuriver.states import TaskState
from support import engine
from support.cluster import Cluster, running
from support.daemons import Daemon
from support.settings import AS_SHIPPED

NAME = "idle"
TITLE = "Idle: a Host and a Runner with nothing to do"

_SECONDS = 30.0


def measure(folder: Path) -> list[Figure]:
    containers = engine.why_not() is None
    with running(Cluster(folder, containers=containers, sections=AS_SHIPPED)) as cluster:
        task = cluster.api.submit_one("true")
        assert cluster.api.wait_final(task).status == TaskState.COMPLETED
        say(f"idle for {_SECONDS:g} seconds")
        return _watch(cluster)


def _watch(cluster: Cluster) -> list[Figure]:
    before = {name: cpu_seconds(daemon) for name, daemon in _daemons(cluster).items()}
    # The measurement is of this very time, in which nothing happens.
    time.sleep(_SECONDS)
    figures = []
    for name, daemon in _daemons(cluster).items():
        aim = 100 if name == "Host" else 70
        figures.append(at_most(f"{name}: resident MB", resident_megabytes(daemon), aim, "{:.0f}"))
        percent = 100 * (cpu_seconds(daemon) - before[name]) / _SECONDS
        figures.append(at_most(f"{name}: percent of a core", percent, 1.0))
    return figures


def _daemons(cluster: Cluster) -> dict[str, Daemon]:
    return {"Host": cluster.host, "Runner": cluster.node.daemon}


def cpu_seconds(daemon: Daemon) -> float:
    """Of the daemon and its living children."""
    return sum(sum(process.cpu_times()[:2]) for process in _family(daemon))


def resident_megabytes(daemon: Daemon) -> float:
    total: int = sum(process.memory_info().rss for process in _family(daemon))
    return total / 1e6


def _family(daemon: Daemon) -> list[psutil.Process]:
    parent = psutil.Process(daemon.pid)
    return [parent, *parent.children(recursive=True)]
