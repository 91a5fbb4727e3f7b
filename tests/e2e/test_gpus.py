"""GPUs from end to end: real daemons and containers; the driver's library and the device files are the test's own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hakuriver.models.runner import GpuInfo
from hakuriver.states import TaskState
from support.cluster import Cluster, running
from support.nvml import FakeDriver, device_files
from support.waiting import until

pytestmark = [pytest.mark.docker, pytest.mark.gpus]
TWO = ("gpu GPU-aaa NVIDIA_A100-SXM4-40GB 40960 0", "gpu GPU-bbb Tesla_T4 15360 0")
SEES = 'ls /dev | grep "^nvidia[0-9]" | tr "\\n" " "; echo "$HAKURIVER_GPUS $NVIDIA_VISIBLE_DEVICES"'


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeDriver]:
    made = FakeDriver(tmp_path_factory.mktemp("driver"))
    made.says(*TWO)
    with device_files(2):
        yield made


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, driver: FakeDriver) -> Iterator[Cluster]:
    made = Cluster(
        tmp_path_factory.mktemp("lab"),
        containers=True,
        runner_sections={"runner": {"gpu_access": "devices", "tasks_per_gpu": 2}},
        runner_environment=driver.environment,
    )
    with running(made) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def as_before(lab: Cluster, driver: FakeDriver) -> Iterator[None]:
    yield
    driver.says(*TWO)
    until(lambda: not any(gpu.problem for gpu in gpus(lab)), "both GPUs are well")
    lab.assert_clean()


def gpus(lab: Cluster) -> list[GpuInfo]:
    return lab.api.nodes()[lab.node.name].gpu_info


def sleeper(lab: Cluster, **wanted: object) -> int:
    task = lab.api.submit_one("sleep", "600", **wanted)
    lab.api.wait_state(task, TaskState.RUNNING)
    return task


def end(lab: Cluster, *tasks: int) -> None:
    for task in tasks:
        lab.api.kill(task)
    for task in tasks:
        lab.api.wait_final(task)


def seen(lab: Cluster, *options: str) -> list[str]:
    done = lab.run("task", "run", *options, "--", "sh", "-c", SEES)
    assert done.code == 0, done
    return done.stdout.split()


def test_a_task_sees_the_gpus_that_it_was_given_and_no_others(lab: Cluster) -> None:
    assert seen(lab) == ["void"], "who asks for none sees none"
    assert seen(lab, "--gpus", "1") == ["nvidia41", "GPU-bbb", "void"], "the smaller one"
    assert seen(lab, "--gpus", "2") == ["nvidia40", "nvidia41", "GPU-aaa,GPU-bbb", "void"]
    assert seen(lab, "--gpus", "1", "--gpu-model", "a100") == ["nvidia40", "GPU-aaa", "void"]
    assert seen(lab, "--gpus", "1", "--gpu-memory", "30G") == ["nvidia40", "GPU-aaa", "void"]
    assert seen(lab, "--target", f"{lab.node.name}::0") == ["nvidia40", "GPU-aaa", "void"]
    assert seen(lab, "--target", f"{lab.node.name}::GPU-bbb") == ["nvidia41", "GPU-bbb", "void"]


def test_tasks_that_share_have_one_gpu_together_and_nobody_else_has_it(lab: Cluster) -> None:
    first, second = (sleeper(lab, gpus=1, share_gpus=True) for _ in range(2))
    given = [lab.api.task(task).assigned_gpus[0].uuid for task in (first, second)]
    assert given == ["GPU-bbb", "GPU-bbb"]
    assert seen(lab, "--gpus", "1") == ["nvidia40", "GPU-aaa", "void"], "who does not share has one alone"
    third = sleeper(lab, gpus=1, share_gpus=True)
    assert lab.api.task(third).assigned_gpus[0].uuid == "GPU-aaa", "more than two may not have it here"
    alone = lab.api.submit_one("true", gpus=1)
    assert "0 of 2 GPUs free" in lab.run("task", "explain", str(alone)).stdout
    node = lab.api.nodes()[lab.node.name]
    assert node.gpu_sharers == {"GPU-bbb": [first, second]}
    listed = lab.run("gpu", "list").stdout
    assert f"{first} {second}" in listed
    end(lab, first, second, third)
    assert lab.api.wait_final(alone).exit_code == 0
    lab.run("task", "submit", "--share-gpus", "--", "true").assert_refused(2, "none is asked for")


def test_without_container_cuda_shows_the_gpus_that_it_was_given(lab: Cluster) -> None:
    text = 'echo "[$CUDA_VISIBLE_DEVICES]"'
    for options, expected in (([], "[]"), (["--gpus", "1"], "[GPU-bbb]")):
        done = lab.run("task", "run", "--container", "NULL", *options, "--", "sh", "-c", text)
        assert done.stdout.strip() == expected, done


def test_two_tasks_never_have_one_gpu(lab: Cluster) -> None:
    first, second = sleeper(lab, gpus=1), sleeper(lab, gpus=1)
    third = lab.api.submit_one("true", gpus=1)
    given = [lab.api.task(task).assigned_gpus[0].uuid for task in (first, second)]
    assert sorted(given) == ["GPU-aaa", "GPU-bbb"]
    told = lab.run("task", "explain", str(third)).stdout
    assert "0 of 2 GPUs free, 1 GPU asked for" in told
    assert lab.api.wait_final(lab.api.submit_one("true")).exit_code == 0, "who needs none does not wait"
    listed = lab.run("gpu", "list", "-o", "json").json()
    assert {row["gpu"]["uuid"]: int(row["task_id"]) for row in listed} == dict(
        zip(given, (first, second), strict=True)
    )
    assert "2/2" in lab.run("node", "list").stdout
    lab.node.daemon.kill()
    lab.host.kill()
    lab.start_host()
    lab.node.daemon.start()
    lab.wait_online()
    assert lab.api.task(third).status is TaskState.PENDING, "who holds what outlives both daemons"
    end(lab, first)
    assert lab.api.wait_final(third).assigned_gpus[0].uuid == given[0]
    end(lab, second)


def test_a_paused_task_keeps_its_gpu(lab: Cluster) -> None:
    holder = sleeper(lab, targets=[f"{lab.node.name}::1"])
    assert lab.run("task", "pause", str(holder)).code == 0
    lab.api.wait_state(holder, TaskState.PAUSED)
    waits = lab.api.submit_one("true", targets=[f"{lab.node.name}::1"])
    told = lab.run("task", "explain", str(waits)).stdout
    assert f"in use: GPU 1 by task {holder}" in " ".join(told.split())
    end(lab, holder)
    lab.api.wait_final(waits)


def test_a_vps_has_its_gpu_again_after_a_stop(lab: Cluster, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    key = str(tmp_path / "key.pub")
    made = lab.run("vps", "create", "--gpus", "1", "--name", "box", "--wait", "--public-key-file", key)
    assert made.code == 0, made
    vps = int(made.stdout)
    assert [gpu.uuid for gpu in lab.api.task(vps).assigned_gpus] == ["GPU-bbb"]
    assert lab.run("vps", "stop", "box").code == 0
    lab.api.wait_state(vps, TaskState.STOPPED)
    other = sleeper(lab, gpus=1)
    assert [gpu.uuid for gpu in lab.api.task(other).assigned_gpus] == ["GPU-bbb"]
    assert lab.run("vps", "start", "box").code == 0
    assert lab.api.task(vps).status is TaskState.PENDING, "its container has that one, and no other"
    end(lab, other)
    lab.api.wait_state(vps, TaskState.RUNNING)
    assert [gpu.uuid for gpu in lab.api.task(vps).assigned_gpus] == ["GPU-bbb"]
    end(lab, vps)


def test_a_gpu_that_breaks_gets_no_work_until_it_is_well(lab: Cluster, driver: FakeDriver) -> None:
    driver.says(*TWO, "lost 1")
    until(lambda: gpus(lab)[1].problem, "the loss is told of")
    assert seen(lab, "--gpus", "1") == ["nvidia40", "GPU-aaa", "void"]
    waits = lab.api.submit_one("true", targets=[f"{lab.node.name}::1"])
    told = " ".join(lab.run("task", "explain", str(waits)).stdout.split())
    assert "GPU 1 is out of service: it does not answer: GPU is lost" in told
    assert "GPU is lost" in lab.run("gpu", "list").stdout
    driver.says(*TWO)
    assert lab.api.wait_final(waits).exit_code == 0


def test_a_driver_that_stops_answering_harms_no_other_task(lab: Cluster, driver: FakeDriver) -> None:
    holder = sleeper(lab, gpus=1)
    driver.says("init 999", *TWO)
    until(lambda: all(gpu.problem for gpu in gpus(lab)), "the driver's trouble is told of")
    assert "the NVIDIA driver does not work" in lab.run("node", "list", "-o", "wide").stdout
    assert lab.api.wait_final(lab.api.submit_one("true")).exit_code == 0
    assert lab.api.task(holder).status is TaskState.RUNNING
    end(lab, holder)


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (
            ["--gpus", "3"],
            5,
            "it has 2 such GPUs, 3 GPUs asked for (it has 0: NVIDIA A100-SXM4-40GB, 1: Tesla T4)",
        ),
        (["--gpus", "1", "--gpu-model", "H100"], 5, "it has no such GPUs, 1 GPU (h100) asked for"),
        (["--gpus", "1", "--gpu-memory", "80G"], 5, "it has no such GPUs, 1 GPU (80.00G) asked for"),
        (["--target", "NODE::7"], 5, "it has no GPU 7"),
        (["--target", "NODE::GPU-nosuch"], 5, "it has no GPU GPU-nosuch"),
        (["--target", "NODE::0,GPU-aaa"], 5, "two of these are the same GPU"),
        (["--target", "NODE::0", "--gpus", "1"], 2, "names its GPUs, and 1 are asked for beside"),
        (["--gpu-model", "T4"], 2, "a GPU's model or memory is asked for, and no GPU is"),
        (["--target", "NODE::x"], 2, "is not a list of GPU numbers or UUIDs"),
        (["--gpus", "-1"], 2, "--gpus"),
        (["--env", "NVIDIA_VISIBLE_DEVICES=all"], 2, "NVIDIA_VISIBLE_DEVICES cannot be set"),
    ],
)
def test_what_cannot_be(lab: Cluster, options: list[str], code: int, said: str) -> None:
    words = [word.replace("NODE", lab.node.name) for word in options]
    done = lab.run("task", "submit", *words, "--", "true")
    assert (done.code, said in " ".join(done.stderr.split())) == (code, True), done
    assert len(done.stderr.strip().splitlines()) == 2, "what is wrong, and what to do"


def test_a_node_that_cannot_give_gpus_to_containers_says_so(tmp_path: Path, driver: FakeDriver) -> None:
    with running(Cluster(tmp_path, containers=True, runner_environment=driver.environment)) as plain:
        waits = plain.api.submit_one("true", gpus=1)
        told = " ".join(plain.run("task", "explain", str(waits)).stdout.split())
        assert "its containers can be given no GPU: install the NVIDIA Container Toolkit" in told
        assert (
            plain.api.wait_final(plain.api.submit_one("true", gpus=1, container_name="NULL")).exit_code == 0
        )
        end(plain, waits)
