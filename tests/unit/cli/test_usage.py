"""What was used, beside what was asked for: `task list --usage`, `task status`, `node health`, `gpu list`."""

from __future__ import annotations

from typing import Any

import pytest

from hakuriver.models.nodes import HealthHistory, NodeInfo, NodeSample, TaskLoad
from hakuriver.models.runner import GpuInfo, GpuProcess
from hakuriver.models.tasks import TaskDetail
from hakuriver.models.usage import TaskUsage
from hakuriver.states import NodeState, TaskState
from hakuriver_cli import usage_views as used
from unit.cli.conftest import Commands, FakeHost
from unit.sdk.wire_samples import START, detail

USAGE = TaskUsage(
    seconds=120,
    cpu_seconds=190,
    peak_memory_bytes=1_200_000_000,
    gpu_percent=63.4,
    peak_gpu_memory_bytes=10_200_000_000,
    gpu_joules=12_240,
)
GPU = GpuInfo(
    gpu_id=0,
    uuid="GPU-a",
    name="A100",
    driver_version="",
    pci_bus_id="",
    gpu_utilization=97,
    processes=[GpuProcess(pid=4711, memory_used_mib=2000, name="python", task_id=11), GpuProcess(pid=7)],
)


def task(usage: TaskUsage | None = USAGE, **changes: Any) -> TaskDetail:
    fields = {"usage": usage, "required_cores": 2, "container_name": "lab", **changes}
    return detail(TaskState.COMPLETED).model_copy(update=fields)


class TestCells:
    def test_the_share_of_what_was_held(self) -> None:
        assert used.cpu(task()) == "79%"
        assert used.peak_memory(task()) == "1.2G (30%)"
        assert used.peak_memory(task(required_memory_bytes=None)) == "1.2G"
        assert (used.gpu_use(task()), used.gpu_memory(task()), used.energy(task())) == (
            "63%",
            "10.2G",
            "3.4Wh",
        )

    @pytest.mark.parametrize("usage", [None, TaskUsage()])
    def test_what_is_not_known(self, usage: TaskUsage | None) -> None:
        cells = (used.cpu, used.peak_memory, used.gpu_use, used.gpu_memory, used.energy)
        lines = (used.cpu_line, used.memory_line, used.gpu_line)
        assert {cell(task(usage)) for cell in (*cells, *lines)} == {"-"}

    def test_a_vps_without_cores_has_no_share(self) -> None:
        assert used.cpu(task(required_cores=0)) == "-"
        assert used.cpu_line(task(required_cores=0)) == "3m10s"

    def test_lines(self) -> None:
        assert used.cpu_line(task()) == "3m10s, 79% of 2 cores for 2m00s"
        assert used.memory_line(task()) == "1.2G at most, 30% of 4.0G"
        assert used.gpu_line(task()) == "63% on average, 10.2G of memory at most, 3.4Wh"
        now = task(USAGE.model_copy(update={"cpu_now": 1.62, "memory_bytes": 900_000_000}), required_cores=1)
        assert used.cpu_line(now) == "3m10s, 158% of 1 core for 2m00s, 1.6 cores now"
        assert used.memory_line(now) == "1.2G at most, 30% of 4.0G, 900M now"

    def test_much_energy(self) -> None:
        assert used.energy(task(TaskUsage(gpu_joules=3.6e7))) == "10.0kWh"


def test_the_history_of_what_was_asked_for_and_used(commands: Commands, host: FakeHost) -> None:
    host.on("GET", "/api/tasks", [task(), task(None)])
    head, first, second = commands("task", "list", "--usage").out.splitlines()
    assert head.split()[:9] == ["TASK", "ID", "NAME", "STATE", "RAN", "CORES", "CPU", "MEMORY", "PEAK"]
    for cell in ("79%", "4.0G", "1.2G (30%)", "63%", "10.2G", "3.4Wh"):
        assert cell in first
        assert cell not in second or cell == "4.0G"
    wide = commands("task", "list", "--tasks", "-o", "wide").out
    assert "1.2G (30%)" in wide
    assert commands("task", "list", "-o", "json").json[0]["usage"]["cpu_seconds"] == 190


def test_status_shows_it_where_it_is_known(commands: Commands, host: FakeHost) -> None:
    host.on("GET", "/api/status/11", task())
    shown = commands("task", "status", "11").out
    assert "3m10s, 79% of 2 cores for 2m00s" in shown
    assert "63% on average" in shown
    host.on("GET", "/api/status/11", task(None))
    assert "used" not in commands("task", "status", "11").out


def test_health_shows_gpus_and_tasks_with_what_they_use(commands: Commands, host: FakeHost) -> None:
    sample = NodeSample(time=START, hostname="n1", status=NodeState.ONLINE, cpu_percent=12.4, gpu_info=[GPU])
    load = TaskLoad(
        task_id=11,
        attempt=1,
        hostname="n1",
        name="train",
        owner="ada",
        status=TaskState.RUNNING,
        required_cores=2,
        required_memory_bytes=4_000_000_000,
        gpus=["GPU-a"],
        usage=USAGE.model_copy(update={"cpu_now": 1.6, "memory_bytes": 900_000_000}),
    )
    other = load.model_copy(
        update={"task_id": 12, "usage": None, "gpus": [], "required_memory_bytes": None, "hostname": "n2"}
    )
    host.on("GET", "/api/health", HealthHistory(nodes=[[sample]], aggregate=[], tasks=[load, other]))
    nodes, gpus, tasks = commands("node", "health").out.split("\n\n")
    assert "12%" in nodes
    (gpu,) = gpus.splitlines()[1:]
    assert gpu.split()[:5] == ["n1", "0", "A100", "11", "97%"]
    assert "python (4711, 2.1G, task 11), ? (7)" in gpu
    first, second = tasks.splitlines()[1:]
    assert first.split()[:8] == ["11", "train", "running", "ada", "n1", "1.6/2", "900M/4.0G", "1.2G"]
    assert second.split()[:8] == ["12", "train", "running", "ada", "n2", "-/2", "-", "-"]
    assert commands("node", "health", "-o", "name").out == "n1\n"
    assert commands("node", "health", "-o", "json").json["tasks"][0]["usage"]["cpu_now"] == 1.6


def test_gpus_show_their_programs_and_the_tasks_behind_them(commands: Commands, host: FakeHost) -> None:
    node = NodeInfo(
        hostname="n1",
        url="",
        status=NodeState.ONLINE,
        schedulable=True,
        version="",
        engines=[],
        total_cores=1,
        cores_in_use=0,
        available_cores=1,
        total_memory_bytes=1,
        memory_in_use_bytes=0,
        available_memory_bytes=1,
        running_tasks=1,
        gpu_info=[GPU],
        gpu_tasks={"GPU-a": 11},
    )
    host.on("GET", "/api/nodes", [node])
    assert "python (4711, 2.1G, task 11)" in commands("gpu", "list").out
