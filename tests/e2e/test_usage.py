"""What tasks used, from end to end: real containers and processes; the GPUs' driver is the test's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hakuriver.models.tasks import TaskDetail
from hakuriver.models.usage import TaskUsage
from hakuriver.states import TaskState
from support.cluster import Cluster, running
from support.nvml import FakeDriver, device_files
from support.waiting import until

pytestmark = [pytest.mark.docker, pytest.mark.gpus, pytest.mark.control_groups]
GPU = "gpu GPU-aaa NVIDIA_A100-SXM4-40GB 40960 0"
HELD = 100_000_000
WORK = (
    "i=0; while [ $i -lt 400000 ]; do i=$((i+1)); done;"
    f" x=$(head -c {HELD} /dev/zero | tr '\\0' x); times; until [ -e $0 ]; do sleep 0.05; done"
)
"""More than half a second of processor time on any machine, and memory; then it waits for a file."""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeDriver]:
    made = FakeDriver(tmp_path_factory.mktemp("driver"))
    made.says(GPU)
    with device_files(1):
        yield made


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, driver: FakeDriver) -> Iterator[Cluster]:
    made = Cluster(
        tmp_path_factory.mktemp("lab"),
        containers=True,
        runner_sections={"runner": {"gpu_access": "devices"}, "timing": {"heartbeat_interval": 0.5}},
        runner_environment=driver.environment,
    )
    with running(made) as cluster:
        yield cluster


@pytest.fixture(params=["docker", "process"])
def worker(request: pytest.FixtureRequest, lab: Cluster) -> Iterator[int]:
    """A task that has done its work, and waits."""
    where = {} if request.param == "docker" else {"container_name": "NULL"}
    task = lab.api.submit_one(
        "sh", "-c", WORK, f"go-{request.param}", required_memory_bytes=4 * HELD, name="worker", **where
    )
    until(lambda: b"s\n" in lab.api.log(task) if started(lab, task) else b"", "it has worked")
    yield task
    lab.api.kill(task)
    lab.api.wait_final(task)


def started(lab: Cluster, task: int) -> bool:
    return lab.api.task(task).started_at is not None


def worked(lab: Cluster, task: int) -> float:
    """Seconds of processor time, by its own account."""
    words = lab.api.log(task).decode().replace("s", "").split()
    return sum(60 * int(minutes) + float(seconds) for minutes, seconds in (word.split("m") for word in words))


def used(lab: Cluster, task: int, least: float) -> TaskUsage:
    """What the Host tells, once that is at least so much processor time and memory."""

    def probe() -> TaskUsage | None:
        usage = lab.api.task(task).usage
        enough = usage and (usage.cpu_seconds or 0) >= least and (usage.peak_memory_bytes or 0) >= HELD
        return usage if enough else None

    return until(probe, lambda: f"it has used {least} s; the Host says {lab.api.task(task).usage!r}")


def finish(lab: Cluster, task: int, kind: str) -> TaskDetail:
    (lab.shared / "shared_data" / f"go-{kind}").touch()
    return lab.api.wait_final(task)


def test_what_it_uses_is_shown_while_it_runs_and_after_its_end(lab: Cluster, worker: int) -> None:
    least = worked(lab, worker) - 0.1
    now = used(lab, worker, least)
    assert now.memory_bytes
    assert now.cpu_now is not None
    shown = lab.run("task", "status", str(worker)).stdout
    assert "of 1 core for" in shown
    assert "% of 400M" in shown
    health = lab.run("node", "health").stdout
    assert "worker" in health
    (load,) = lab.run("node", "health", "-o", "json").json()["tasks"]
    assert int(load["task_id"]) == worker
    assert load["usage"]["peak_memory_bytes"] >= HELD

    # The Runner dies, and what it has seen is read anew.
    lab.node.daemon.kill()
    lab.node.daemon.start()
    lab.wait_online()
    used(lab, worker, least)
    kind = "process" if lab.api.task(worker).container_name == "NULL" else "docker"
    ended = finish(lab, worker, kind)
    assert ended.status is TaskState.COMPLETED
    usage = ended.usage
    assert usage is not None
    assert least <= (usage.cpu_seconds or 0) <= 2 * least + 1
    assert HELD <= (usage.peak_memory_bytes or 0) <= 4 * HELD
    assert (usage.cpu_now, usage.memory_bytes) == (None, None), "it uses nothing any more"
    assert usage.gpu_percent is None, "it had no GPU"

    # What is on the record outlives the Host.
    lab.host.kill()
    lab.start_host()
    lab.wait_online()
    assert lab.api.task(worker).usage == usage
    listed = lab.run("task", "list", "--usage", "--name", "worker").stdout
    assert "%" in listed.splitlines()[1]


def test_what_its_gpus_took(lab: Cluster, driver: FakeDriver) -> None:
    driver.says(GPU, "energy 0 10000", "use 0 60")
    task = lab.api.submit_one("sleep", "600", gpus=1)
    lab.api.wait_state(task, TaskState.RUNNING)

    def told() -> TaskUsage | None:
        usage = lab.api.task(task).usage
        return usage if usage and usage.gpu_percent is not None else None

    until(told, "its GPU was looked at")
    driver.says(GPU, "energy 0 5010000", "use 0 60")
    until(lambda: ((lab.api.task(task).usage or TaskUsage()).gpu_joules or 0) >= 5000, "the counter went on")
    (row,) = lab.run("gpu", "list", "-o", "json").json()
    assert int(row["task_id"]) == task
    lab.api.kill(task)
    usage = lab.api.wait_final(task).usage
    assert usage is not None
    assert usage.gpu_percent == 60
    assert usage.peak_gpu_memory_bytes == 10240 << 20
    # By the counter, and the few seconds at both ends by its power of 60 W.
    assert 5000 <= (usage.gpu_joules or 0) <= 5000 + 60 * 20
    assert "1.4Wh" in lab.run("task", "status", str(task)).stdout


def test_a_retry_begins_anew(lab: Cluster) -> None:
    script = "if [ $HAKURIVER_ATTEMPT = 1 ]; then x=$(head -c 100000000 /dev/zero | tr '\\0' x); exit 1; fi"
    task = lab.api.submit_one(
        "sh", "-c", script, container_name="NULL", max_retries=1, required_memory_bytes=800_000_000
    )
    ended = lab.api.wait_final(task)
    assert (ended.attempt, ended.status) == (2, TaskState.COMPLETED)
    assert ended.usage is not None
    assert (ended.usage.peak_memory_bytes or 0) < HELD
