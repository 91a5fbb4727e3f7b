"""What a deployment costs: `site` from nothing, and a second time with nothing to do, by the number of nodes.

Nodes are containers with systemd on this machine, so they share its cores with the controller: the times are upper
bounds of what as many real machines take, which the time of processors that each side used tells apart.
"""

from __future__ import annotations

import re
import resource
import time
from dataclasses import dataclass
from pathlib import Path

from bench.report import Figure, at_most, say
from support import nodes
from support.nodes import Nodes, running

NAME = "deploy"
TITLE = "Deployment: `site` from nothing, and again with nothing to do"

_SIZES = (1, 3, 6)
_AIM = 2.0
"""Seconds that each further node may add to a run with nothing to do."""
_CHANGED = re.compile(r"changed=([1-9]\d*)")


@dataclass(frozen=True, slots=True)
class _Run:
    """One play: how long it took, and the time of processors that the controller and all nodes used, in seconds."""

    taken: float
    controller: float
    nodes: float


def measure(folder: Path) -> list[Figure]:
    if reason := nodes.why_not():
        return [Figure("site", "-", note=f"left out: {reason}")]
    runs = {size: _measure(folder, size) for size in _SIZES}
    figures = []
    for size, both in runs.items():
        for run, what in zip(both, ("from nothing", "nothing to do"), strict=True):
            name = f"{size} {'node' if size == 1 else 'nodes'}: {what}, s"
            figures.append(Figure(name, f"{run.taken:.1f}", note=_used(run)))
    small, large = min(_SIZES), max(_SIZES)
    first, second = (
        _growth(few, many, large - small) for few, many in zip(runs[small], runs[large], strict=True)
    )
    figures.append(Figure("from nothing: growth per node, s", f"{first.taken:.2f}", note=_used(first)))
    figures.append(at_most("nothing to do: growth per node, s", second.taken, _AIM, "{:.2f}", _used(second)))
    return figures


def _growth(few: _Run, many: _Run, nodes_more: int) -> _Run:
    return _Run(
        (many.taken - few.taken) / nodes_more,
        (many.controller - few.controller) / nodes_more,
        (many.nodes - few.nodes) / nodes_more,
    )


def _used(run: _Run) -> str:
    return f"controller {run.controller:.1f} s and nodes {run.nodes:.1f} s of a core"


def _measure(folder: Path, size: int) -> tuple[_Run, _Run]:
    say(f"deploying to {size} of {_SIZES[-1]}")
    place = folder / str(size)
    place.mkdir()
    names = [f"node{number}" for number in range(size)]
    with running(Nodes(place, names), {"hakuriver_tls": True}) as machines:
        first, _ = _timed(machines)
        second, again = _timed(machines)
        assert not _CHANGED.search(again), f"the second run changed something:\n{again[-3000:]}"
    return first, second


def _timed(machines: Nodes) -> tuple[_Run, str]:
    # Asked before the clock starts: the engine takes a second or two for each node to tell.
    controller, theirs = _own_cpu_seconds(), machines.cpu_seconds()
    start = time.perf_counter()
    done = machines.play("site")
    taken = time.perf_counter() - start
    assert done.returncode == 0, done.stdout[-5000:]
    return _Run(taken, _own_cpu_seconds() - controller, machines.cpu_seconds() - theirs), done.stdout


def _own_cpu_seconds() -> float:
    """Of the programs that were started here and have ended: the controller, and what it reaches nodes with."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
