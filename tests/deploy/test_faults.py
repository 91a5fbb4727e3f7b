"""A deployment that is killed again and again goes on from there, and ends in a cluster that works."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import use
from hakuriver_cli.deploy import processes
from support import nodes
from support.nodes import ROOT, Nodes

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(2400)]

KILLS = 10
TASKS = 170
"""About as many does `site` have on one machine from nothing; there is a point in each tenth of them."""
SEED = 20


class Site:
    """Plays `site`, and counts the tasks that it begins.

    A task that was begun in a run before counts once: a run that goes on leaves out what is done already, so that only
    tasks that are new tell how far it has come.
    """

    def __init__(self, machines: Nodes) -> None:
        self._machines = machines
        self._titles: set[str] = set()
        self.output = ""

    @property
    def begun(self) -> int:
        return len(self._titles)

    def until_task(self, number: int, after: float) -> bool:
        """Kills it, with all that it started, some moments after that task began. False when it ended by itself."""
        process = self._start()
        for line in self._lines(process):
            if self.begun >= number:
                try:
                    process.wait(after)
                except subprocess.TimeoutExpired:
                    processes.end([process.pid, *processes.descendants(process.pid)])
                    process.communicate()
                    self.output += f"killed in: {line}"
                    return True
        self._ended(process)
        return False

    def to_its_end(self) -> dict[str, dict[str, int]]:
        """What it counts for each node."""
        process = self._start()
        for _ in self._lines(process):
            pass
        assert self._ended(process) == 0, self.output[-6000:]
        return recap(self.output)

    def _start(self) -> subprocess.Popen[str]:
        self.output = ""
        return subprocess.Popen(
            self._machines.command("site"),
            cwd=ROOT,
            env={**nodes.play_environment(), "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "true"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def _lines(self, process: subprocess.Popen[str]) -> Iterator[str]:
        assert process.stdout is not None
        for line in process.stdout:
            self.output += line
            if line.startswith(("TASK [", "RUNNING HANDLER [")):
                self._titles.add(line)
            yield line

    @staticmethod
    def _ended(process: subprocess.Popen[str]) -> int:
        process.communicate()
        return process.returncode


def recap(output: str) -> dict[str, dict[str, int]]:
    """The counts below `PLAY RECAP`, by node."""
    found = {}
    for line in output.rpartition("PLAY RECAP")[2].splitlines()[1:]:
        name, _, counts = line.partition(" : ")
        if counts:
            pairs = (word.split("=") for word in counts.split())
            found[name.strip()] = {key: int(value) for key, value in pairs}
    return found


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Nodes]:
    machines = Nodes(tmp_path, ["head"])
    with nodes.running(machines, use.VARIABLES):
        yield machines


def test_a_run_that_is_killed_ten_times_ends_in_a_right_cluster(machine: Nodes) -> None:
    chance = random.Random(SEED)
    part = TASKS // KILLS
    points = [number * part + chance.randrange(1, part) for number in range(KILLS)]
    site = Site(machine)
    for point in points:
        assert site.until_task(point, chance.uniform(0.0, 0.6)), (
            f"it ended before task {point}: {site.output[-6000:]}"
        )
    last = site.to_its_end()
    assert site.begun < TASKS * 1.2, "many tasks come after the last point: raise TASKS"
    assert last["head"]["failed"] == 0
    assert use.run_a_task(machine, "head") == "head"
    assert machine.run("head", "hakuriver", "--version")
    versions = machine.run("head", "ls", "-A", "/opt/hakuriver/versions").split()
    assert len(versions) == 1, versions
    assert use.node_states(machine, "head") == {"head": "online"}
    again = site.to_its_end()
    assert (again["head"]["changed"], again["head"]["failed"]) == (0, 0), site.output
