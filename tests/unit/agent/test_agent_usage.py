"""Control groups in both versions, and how a container's is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hakuriver_agent.engines.container_usage import ContainerUsage
from hakuriver_agent.engines.port import Used
from hakuriver_agent.shim import usage

ID = "ade8ce5da48c12c5bc11c8030fa3d7008cc7eacd01dbadcce8d1bd3c096b2259"
KEY = (7, 1)


def files(folder: Path, **texts: str) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name.replace("__", ".")).write_text(text)
    return str(folder)


def test_version_two(tmp_path: Path) -> None:
    unified = files(
        tmp_path,
        cpu__stat="usage_usec 1500000\nuser_usec 1\n",
        memory__current="300\n",
        memory__peak="500\n",
    )
    assert usage.read({"unified": unified}) == {"cpu": 1.5, "now": 300, "peak": 500}


def test_a_kernel_without_peak(tmp_path: Path) -> None:
    unified = files(tmp_path, cpu__stat="usage_usec 1500000\n", memory__current="300\n")
    assert usage.read({"unified": unified}) == {"cpu": 1.5, "now": 300}


def test_version_one(tmp_path: Path) -> None:
    folders = {
        "cpuacct": files(tmp_path / "cpuacct", cpuacct__usage="2500000000\n"),
        "memory": files(
            tmp_path / "memory", memory__usage_in_bytes="300\n", memory__max_usage_in_bytes="500\n"
        ),
        "unified": files(tmp_path / "unified", cpu__stat="usage_usec 9\n"),
    }
    assert usage.read(folders) == {"cpu": 2.5, "now": 300, "peak": 500}


@pytest.mark.parametrize("text", ["", "max\n", "-1\n", "x"])
def test_what_cannot_be_read_is_unknown(tmp_path: Path, text: str) -> None:
    folders = {"unified": files(tmp_path, memory__current=text, cpu__stat=text)}
    assert usage.read(folders) == {}
    assert usage.read({"unified": str(tmp_path / "gone")}) == {}


class Machine:
    """One container of an engine, and the files that its kernel has of it."""

    def __init__(self, folder: Path) -> None:
        self.proc, self.mount = folder / "proc", folder / "cgroup"
        self.pid = 41
        self.inspected = 0
        self.stats: dict[str, Any] = {}
        self.usage = ContainerUsage(
            self._inspect, lambda _: self.stats, self.proc, lambda: {"unified": str(self.mount)}
        )

    def _inspect(self, name: str) -> dict[str, Any] | None:
        assert name == "hakuriver-task-7-1"
        self.inspected += 1
        return {"Id": ID, "State": {"Pid": self.pid}} if self.pid >= 0 else None

    def runs(self, path: str, cpu: str, process_in: str | None = None) -> Path:
        files(self.proc / str(self.pid), cgroup=f"0::{process_in or path}\n")
        folder = self.mount / path.lstrip("/")
        files(folder, cpu__stat=f"usage_usec {cpu}\n", memory__current="300\n", memory__peak="500\n")
        return folder


@pytest.fixture(name="machine")
def _machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize(
    ("path", "process_in"),
    [
        (f"/docker/{ID}", None),
        (f"/system.slice/docker-{ID}.scope", None),
        (f"/lab.slice/docker-{ID}.scope", f"/lab.slice/docker-{ID}.scope/init.scope"),
    ],
)
def test_a_container_is_found_once(machine: Machine, path: str, process_in: str | None) -> None:
    folder = machine.runs(path, "1500000", process_in)
    assert machine.usage.read(KEY) == Used(1.5, 300, 500, 41)
    files(folder, cpu__stat="usage_usec 2500000\n")
    assert machine.usage.read(KEY) == Used(2.5, 300, 500, 41)
    assert machine.inspected == 1
    assert not machine.usage.asks(KEY)


def test_one_that_was_started_again_is_found_anew(machine: Machine) -> None:
    folder = machine.runs(f"/docker/{ID}", "1500000")
    assert machine.usage.read(KEY) is not None
    for file in folder.iterdir():
        file.unlink()
    assert machine.usage.read(KEY) is None, "it has ended"
    machine.pid = 0
    assert machine.usage.read(KEY) is None
    machine.pid = 42
    machine.runs(f"/docker/{ID}", "500000")
    assert machine.usage.read(KEY) == Used(0.5, 300, 500, 42)


def test_one_that_is_gone(machine: Machine) -> None:
    machine.pid = -1
    assert machine.usage.read(KEY) is None


@pytest.mark.parametrize("process_in", [None, "/user.slice/of-another"])
def test_the_engine_is_asked_where_the_process_is_not_the_containers(
    machine: Machine, process_in: str | None
) -> None:
    if process_in:
        machine.runs(process_in, "99000000")
    machine.stats = {
        "cpu_stats": {"cpu_usage": {"total_usage": 3_000_000_000}},
        "memory_stats": {"usage": 30, "max_usage": 50},
    }
    assert machine.usage.read(KEY) == Used(3.0, 30, 50, 41)
    assert machine.usage.asks(KEY)
    machine.stats = {"cpu_stats": {"cpu_usage": {"total_usage": 0}}, "memory_stats": {}}
    assert machine.usage.read(KEY) is None, "as an engine tells of one that has ended"
    assert not machine.usage.asks(KEY)
