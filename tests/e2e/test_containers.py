"""Tasks in real containers: what a task gets of its environment, and what it cannot reach."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hakuriver.models.tasks import TaskDetail
from hakuriver.states import TaskState
from hakuriver_agent.engines.memory_kills import killed_groups
from support import engine
from support.cluster import Cluster, running
from support.waiting import until

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A Runner that lets tasks mount one folder of the machine."""
    folder = tmp_path_factory.mktemp("boxes")
    allowed = folder / "allowed"
    allowed.mkdir()
    sections = {"runner": {"allowed_mount_roots": [str(allowed)]}}
    with running(Cluster(folder, containers=True, sections=sections)) as started:
        yield started


def ended(cluster: Cluster, command: str, *arguments: str, **fields: Any) -> tuple[TaskDetail, str]:
    """A task's end and its output; one that did not start has none."""
    task = cluster.api.submit_one(command, *arguments, **fields)
    detail = cluster.api.wait_final(task)
    return detail, cluster.api.log(task).decode() if detail.started_at else ""


def test_a_command_runs_in_its_environment_and_ends_with_its_code(boxes: Cluster) -> None:
    detail, output = ended(boxes, "sh", "-c", "busybox | head -n 1; exit 11")
    assert (detail.status, detail.exit_code) == (TaskState.FAILED, 11)
    assert output.startswith("BusyBox")
    assert detail.environment_version == str(engine.VERSION)
    assert (detail.image or "").startswith("sha256:")


def test_argv_reaches_the_container_untouched(boxes: Cluster) -> None:
    words = ["$HOME", "a b", "", "`id`", "*", '"', "é\n"]
    detail, output = ended(boxes, "printf", "%s|", *words)
    assert detail.status == TaskState.COMPLETED
    assert output == "".join(f"{word}|" for word in words)


def test_a_command_that_is_not_in_the_container_fails_with_a_reason(boxes: Cluster) -> None:
    detail, _ = ended(boxes, "no-such-program")
    assert (detail.status, detail.exit_code) == (TaskState.FAILED, 127)
    assert "no-such-program" in (detail.error_message or "")


def test_variables_workdir_and_user(boxes: Cluster) -> None:
    _, output = ended(
        boxes,
        "sh",
        "-c",
        'echo "$A|$(pwd)|$(id -u):$(id -g)"',
        env_vars={"A": "b c"},
        working_dir="/tmp",
        user="1234:99",
    )
    assert output == "b c|/tmp|1234:99\n"


def test_the_share_is_there_and_is_written_through(boxes: Cluster) -> None:
    detail, _ = ended(boxes, "sh", "-c", "echo from inside > /shared/note")
    assert detail.status == TaskState.COMPLETED
    assert [path.read_text() for path in boxes.shared.rglob("note")] == ["from inside\n"]


def test_every_user_can_write_the_share(boxes: Cluster) -> None:
    detail, _ = ended(boxes, "touch", "/shared/of-1234", user="1234:99")
    assert detail.status == TaskState.COMPLETED
    (path,) = boxes.shared.rglob("of-1234")
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 99)


def test_a_task_cannot_reach_logs_or_environments_on_the_share(boxes: Cluster) -> None:
    other, _ = ended(boxes, "echo", "secret")
    detail, output = ended(boxes, "find", "/", "-xdev", "-name", f"*{other.task_id}*")
    assert str(other.task_id) not in output
    detail, output = ended(boxes, "ls", "/shared")
    assert detail.status == TaskState.COMPLETED
    assert "task_outputs" not in output
    assert "hakuriver-containers" not in output


def test_scratch_belongs_to_one_task_and_goes_with_it(boxes: Cluster) -> None:
    first, _ = ended(boxes, "sh", "-c", "touch /local_temp/mine && ls /local_temp")
    assert first.status == TaskState.COMPLETED
    _, output = ended(boxes, "ls", "-A", "/local_temp")
    assert output == ""
    temp = boxes.folder / f"{boxes.node.name}-temp"
    until(lambda: not list(temp.rglob("mine")), "scratch removed")


def test_mounts_under_an_allowed_root(boxes: Cluster) -> None:
    source = boxes.folder / "allowed"
    (source / "file").write_text("read me\n")
    detail, output = ended(
        boxes, "sh", "-c", "cat /data/file; touch /data/new", additional_mounts=[f"{source}:/data:ro"]
    )
    assert (detail.status, output) == (TaskState.FAILED, "read me\n")
    assert not (source / "new").exists()
    detail, _ = ended(boxes, "touch", "/data/new", additional_mounts=[f"{source}:/data"])
    assert detail.status == TaskState.COMPLETED
    assert (source / "new").exists()


@pytest.mark.parametrize("source", ["/etc", "/", "/var/run/docker.sock"])
def test_a_mount_outside_the_allowed_roots_is_refused(boxes: Cluster, source: str) -> None:
    assert_refused(boxes, f"{source} is not under a folder", additional_mounts=[f"{source}:/data"])


def test_a_mount_that_leaves_its_root_by_a_link_fails(boxes: Cluster) -> None:
    link = boxes.folder / "allowed" / "escape"
    link.symlink_to("/etc")
    detail, _ = ended(boxes, "true", additional_mounts=[f"{link}:/data"])
    assert (detail.status, detail.started_at) == (TaskState.FAILED, None)


def test_privileged_is_refused_where_it_is_not_allowed(boxes: Cluster) -> None:
    assert_refused(boxes, "privileged tasks are not allowed", privileged=True)


def assert_refused(boxes: Cluster, words: str, **fields: object) -> None:
    """No node can ever run it, so nothing is queued."""
    before = len(boxes.api.tasks())
    answer = boxes.api.call("POST", "/api/submit", json={"command": "true", **fields})
    assert (answer.status_code, answer.json()["error"]) == (409, "impossible")
    assert words in answer.json()["message"]
    assert len(boxes.api.tasks()) == before


@pytest.mark.parametrize(("network", "links"), [("none", {"lo"}), ("bridge", {"lo", "eth0"})])
def test_networks(boxes: Cluster, network: str, links: set[str]) -> None:
    _, output = ended(boxes, "ls", "/sys/class/net", network=network)
    assert links <= set(output.split())
    assert network != "none" or "eth0" not in output


def test_shared_memory_has_the_size_that_was_asked_for(boxes: Cluster) -> None:
    _, output = ended(boxes, "sh", "-c", "df -k /dev/shm | tail -n 1", shm_size_bytes=32 * 2**20)
    assert "32768" in output


def run_out_of_memory(boxes: Cluster) -> None:
    detail, _ = ended(boxes, "tail", "/dev/zero", required_memory_bytes=32 * 2**20)
    assert detail.status == TaskState.KILLED_OOM, detail


def test_memory_above_the_limit_is_killed_oom_by_the_engines_own_flag(boxes: Cluster) -> None:
    run_out_of_memory(boxes)


def test_exit_code_137_alone_is_no_oom(boxes: Cluster) -> None:
    detail, _ = ended(boxes, "sh", "-c", "exit 137")
    assert (detail.status, detail.exit_code) == (TaskState.FAILED, 137)


def test_exit_code_137_is_no_oom_while_another_container_runs_out_of_memory(boxes: Cluster) -> None:
    """Where the Runner may not read the kernel's log, it may take it for one that the engine missed."""
    task = boxes.api.submit_one(
        "sh",
        "-c",
        "until test -e /shared/another-is-out-of-memory; do sleep 0.05; done; exit 137",
        required_memory_bytes=32 * 2**20,
    )
    boxes.api.wait_state(task, TaskState.RUNNING)
    run_out_of_memory(boxes)
    (boxes.shared / "shared_data" / "another-is-out-of-memory").touch()
    detail = boxes.api.wait_final(task)
    assert detail.status == TaskState.FAILED or not killed_groups(), detail


def test_cores_limit_the_container(boxes: Cluster) -> None:
    task = boxes.api.submit_one("sleep", "600", required_cores=1, required_memory_bytes=10**8)
    boxes.api.wait_state(task, TaskState.RUNNING)
    (container,) = engine.containers_of(boxes.node.name)
    limits = container.attrs["HostConfig"]
    quota = limits["NanoCpus"] or limits["CpuQuota"] * 10**9 // (limits["CpuPeriod"] or 100_000)
    assert quota == 10**9 or limits["CpusetCpus"], limits
    assert limits["Memory"] == 10**8
    assert limits["Privileged"] is False
    boxes.api.kill(task)
    boxes.assert_clean([task])


def test_pause_freezes_the_container(boxes: Cluster) -> None:
    task = boxes.api.submit_one("sleep", "600")
    boxes.api.wait_state(task, TaskState.RUNNING)
    assert boxes.api.call("POST", f"/api/command/{task}/pause").is_success
    boxes.api.wait_state(task, TaskState.PAUSED)
    (container,) = engine.containers_of(boxes.node.name)
    assert container.status == "paused"
    assert boxes.api.call("POST", f"/api/command/{task}/resume").is_success
    boxes.api.wait_state(task, TaskState.RUNNING)
    boxes.api.kill(task)
    assert boxes.api.wait_final(task).status == TaskState.KILLED
    boxes.assert_clean([task])


def test_a_new_version_of_an_environment_is_used_within_seconds(boxes: Cluster) -> None:
    archives = boxes.shared / "hakuriver-containers"
    name, old, new = "test-versions", 1_700_000_010, 1_700_000_020
    try:
        engine.write_environment(archives, name, old)
        first, _ = ended(boxes, "true", container_name=name)
        engine.write_environment(archives, name, new)
        assert first.environment_version == str(old)
        until(
            lambda: ended(boxes, "true", container_name=name)[0].environment_version == str(new),
            "the new one",
        )
    finally:
        for version in (old, new):
            engine.remove_image(name, version)


def test_an_archive_that_is_damaged_fails_the_task_with_a_reason(boxes: Cluster) -> None:
    archive = boxes.shared / "hakuriver-containers" / "test-damaged-1700000030.tar"
    archive.write_bytes(os.urandom(5000))
    detail, _ = ended(boxes, "true", container_name="test-damaged")
    assert (detail.status, detail.started_at) == (TaskState.FAILED, None)
    assert "test-damaged" in (detail.error_message or "")


def test_a_task_outlives_its_runner_and_ends_with_its_own_code(boxes: Cluster) -> None:
    task = boxes.api.submit_one(
        "sh", "-c", "until [ -e /shared/go ]; do sleep 0.05; done; echo done; exit 21"
    )
    boxes.api.wait_state(task, TaskState.RUNNING)
    boxes.node.daemon.kill()
    _release(boxes, "go")
    (container,) = engine.containers_of(boxes.node.name)
    container.wait(timeout=30)
    boxes.node.daemon.start()
    detail = boxes.api.wait_final(task)
    assert (detail.status, detail.exit_code, detail.attempt) == (TaskState.FAILED, 21, 1)
    assert boxes.api.log(task) == b"done\n"
    boxes.assert_clean([task])


def test_a_task_outlives_its_host(boxes: Cluster) -> None:
    task = boxes.api.submit_one("sh", "-c", "until [ -e /shared/on ]; do sleep 0.05; done; exit 22")
    boxes.api.wait_state(task, TaskState.RUNNING)
    boxes.host.kill()
    _release(boxes, "on")
    (container,) = engine.containers_of(boxes.node.name)
    container.wait(timeout=30)
    boxes.start_host()
    detail = boxes.api.wait_final(task)
    assert (detail.exit_code, detail.attempt) == (22, 1)
    boxes.wait_online()
    boxes.assert_clean([task])


def _release(cluster: Cluster, name: str) -> None:
    """Makes the file that a task waits for, in the folder that tasks see as /shared."""
    (_shared_data(cluster) / name).write_text(str(time.time()))


def _shared_data(cluster: Cluster) -> Path:
    return cluster.shared / "shared_data"
