"""What a deployment costs: `site` from nothing, and a second time with nothing to do, by the number of nodes.

Nodes are containers with systemd on this machine, so they share its cores with the controller: the figures are upper
bounds of what as many real machines take.
"""

from __future__ import annotations

import re
import time
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


def measure(folder: Path) -> list[Figure]:
    if reason := nodes.why_not():
        return [Figure("site", "-", note=f"left out: {reason}")]
    times = {size: _measure(folder, size) for size in _SIZES}
    figures = []
    for size, (first, second) in times.items():
        nodes_word = "node" if size == 1 else "nodes"
        figures.append(Figure(f"{size} {nodes_word}: from nothing, s", f"{first:.1f}"))
        figures.append(Figure(f"{size} {nodes_word}: nothing to do, s", f"{second:.1f}"))
    small, large = min(_SIZES), max(_SIZES)
    first_growth, second_growth = (
        (times[large][which] - times[small][which]) / (large - small) for which in (0, 1)
    )
    figures.append(Figure("from nothing: growth per node, s", f"{first_growth:.2f}"))
    figures.append(at_most("nothing to do: growth per node, s", second_growth, _AIM))
    return figures


def _measure(folder: Path, size: int) -> tuple[float, float]:
    say(f"deploying to {size} of {_SIZES[-1]}")
    place = folder / str(size)
    place.mkdir()
    names = [f"node{number}" for number in range(size)]
    with running(Nodes(place, names), {"hakuriver_tls": True}) as machines:
        first, _ = _timed(machines)
        second, again = _timed(machines)
        assert not _CHANGED.search(again), f"the second run changed something:\n{again[-3000:]}"
    return first, second


def _timed(machines: Nodes) -> tuple[float, str]:
    start = time.perf_counter()
    done = machines.play("site")
    assert done.returncode == 0, done.stdout[-5000:]
    return time.perf_counter() - start, done.stdout
