"""Disks that are full, shares that are wrong, ports that are taken: said in one line, and healed without a restart."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import httpx
import pytest

from hakuriver.states import TaskState
from support.cluster import Cluster, running
from support.disks import small_disk
from support.waiting import until


def refused_start(cluster: Cluster, *words: str, code: int) -> None:
    """The Host ends at once, with one line that names what is wrong and one of what to do."""
    cluster.host.start()
    assert cluster.host.wait(within=30) == code
    said = cluster.host.output()
    assert "Traceback" not in said, said
    for word in words:
        assert word in said, said


def test_a_port_in_use(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    cluster.shared.mkdir()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", cluster.port))
        taken.listen()
        refused_start(cluster, str(cluster.port), code=5)


def test_a_database_file_that_is_none(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    cluster.shared.mkdir()
    cluster.state_dir.mkdir()
    database = cluster.state_dir / "host.db"
    database.write_bytes(b"this is no database, but it is somebody's file\n" * 100)
    before = database.read_bytes()
    refused_start(cluster, str(database), code=1)
    assert database.read_bytes() == before


def test_a_key_that_cannot_be_read_ends_the_start_with_the_reason(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    cluster.shared.mkdir()
    (cluster.state_dir / "host.key").mkdir(parents=True)
    refused_start(cluster, "error: cannot read the Host's key", "hint: ", code=1)


@pytest.mark.parametrize("broken", ["cert_file", "ca_file"])
def test_certificates_that_are_none(tmp_path: Path, broken: str) -> None:
    garbage, key = tmp_path / "garbage.pem", tmp_path / "key.pem"
    garbage.write_text("no certificate\n")
    key.write_text("no key\n")
    tls = {"cert_file": garbage, "key_file": key} if broken == "cert_file" else {"ca_file": garbage}
    cluster = Cluster(tmp_path, sections={"tls": tls})
    cluster.shared.mkdir()
    refused_start(cluster, "error: cannot use the certificate", "hint: ", code=2)


def test_a_shared_directory_that_the_host_does_not_have(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, sections={"paths": {"shared_dir": "/proc/no-such-share"}})
    refused_start(cluster, "/proc/no-such-share", code=1)


def problem_of(cluster: Cluster) -> str:
    """What the node's record says is not well; empty when all is."""
    node = cluster.api.nodes().get(cluster.node.name)
    return node.problem if node else ""


def start_without_waiting(cluster: Cluster) -> None:
    cluster.shared.mkdir()
    cluster.start_host()
    cluster.node.daemon.start()


@pytest.mark.parametrize("other", ["missing", "different"])
def test_a_shared_directory_that_is_not_the_hosts(tmp_path: Path, other: str) -> None:
    """The node gets no work and says why; once its share is right it gets work, without a restart."""
    elsewhere = tmp_path / "elsewhere"
    if other == "different":
        elsewhere.mkdir()
        (elsewhere / ".hakuriver-share").write_text("another share\n")
    cluster = Cluster(tmp_path, runner_sections={"paths": {"shared_dir": elsewhere}})
    try:
        start_without_waiting(cluster)
        assert "shar" in until(lambda: problem_of(cluster), "the node says what is wrong").lower()
        task = cluster.api.submit_one("true")
        assert cluster.api.task(task).status == TaskState.PENDING
        assert "shar" in cluster.run("task", "explain", str(task)).stdout.lower()
        if elsewhere.exists():
            elsewhere.rename(tmp_path / "away")
        elsewhere.symlink_to(cluster.shared)
        assert cluster.api.wait_final(task).status == TaskState.COMPLETED
    finally:
        cluster.stop()


def test_a_share_that_goes_away_under_a_runner(tmp_path: Path) -> None:
    """The node gets no work and nothing is written where the share was; what waits goes on when it is back."""
    view, mounted = tmp_path / "view", tmp_path / "shared"
    view.symlink_to(mounted)
    cluster = Cluster(tmp_path, runner_sections={"paths": {"shared_dir": view}})
    with running(cluster):
        before = cluster.api.submit_one(
            "sh", "-c", f"until [ -e {tmp_path}/go ]; do sleep 0.05; done; echo on"
        )
        cluster.api.wait_state(before, TaskState.RUNNING)
        # As `umount --lazy` would leave it: an empty folder, while open files stay open.
        view.unlink()
        view.mkdir()
        until(lambda: not cluster.api.nodes()[cluster.node.name].schedulable, "the node gets no work")
        assert "shar" in problem_of(cluster)
        task = cluster.api.submit_one("true")
        (tmp_path / "go").touch()
        assert cluster.api.wait_final(before).status == TaskState.COMPLETED
        assert cluster.api.log(before) == b"on\n"
        assert cluster.api.task(task).status == TaskState.PENDING
        assert list(view.iterdir()) == []
        view.rmdir()
        view.symlink_to(mounted)
        assert cluster.api.wait_final(task).status == TaskState.COMPLETED
        cluster.assert_clean()


@pytest.mark.small_disk
def test_a_shared_directory_that_cannot_be_written(tmp_path: Path) -> None:
    """The node says so, for as long as it lasts; tasks wait with their output, and end well."""
    with small_disk(tmp_path / "shared", 64) as disk, running(Cluster(tmp_path)) as cluster:
        remount(disk.path, "ro")
        assert "write" in until(lambda: problem_of(cluster), "the node says what is wrong")
        remount(disk.path, "rw")
        until(lambda: not problem_of(cluster), "the node is well again")
        task = cluster.api.submit_one("true")
        assert cluster.api.wait_final(task).status == TaskState.COMPLETED


def test_a_share_that_hangs_holds_up_nothing_else(tmp_path: Path) -> None:
    """Whoever reads from it is told; the record answers, tasks can be submitted and killed, and the Host ends when told to."""
    with running(Cluster(tmp_path)) as cluster:
        ended = cluster.api.submit_one("true")
        log = cluster.shared / cluster.api.wait_final(ended).stdout_path
        log.unlink(missing_ok=True)
        os.mkfifo(log)  # Opening it waits for one who writes.
        with httpx.Client(headers=cluster.api.client.headers, timeout=0.5) as impatient:
            for _ in range(2 * os.cpu_count() + 20):  # type: ignore[operator]
                with pytest.raises(httpx.TimeoutException):
                    impatient.get(f"{cluster.url}/api/task/{ended}/stdout")
        assert [task.task_id for task in cluster.api.tasks()] == [ended]
        again = cluster.api.submit_one("sleep", "600")
        cluster.api.wait_state(again, TaskState.RUNNING)
        cluster.api.kill(again)
        assert cluster.api.wait_final(again).status == TaskState.KILLED
        answer = cluster.api.call("GET", f"/api/task/{ended}/stdout")
        assert (answer.status_code, answer.json()["error"]) == (507, "storage")
        assert "does not answer" in answer.json()["message"]
        cluster.host.stop()


@pytest.mark.small_disk
def test_a_full_disk_refuses_submissions_and_changes_nothing(tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "state", 24) as disk,
        running(Cluster(tmp_path, state_dir=disk.path / "host")) as cluster,
    ):
        running_task = cluster.api.submit_one(
            "sh", "-c", f"until [ -e {tmp_path}/go ]; do sleep 0.05; done; exit 4"
        )
        cluster.api.wait_state(running_task, TaskState.RUNNING)
        disk.fill()
        # What is left in the write-ahead log may still take a few.
        answer = until(lambda: _refusal(cluster), "a refusal")
        assert answer == 507
        before = len(cluster.api.tasks())
        cluster.run("task", "submit", "--env", f"PAD={'x' * 100_000}", "--", "true").assert_refused(1)
        assert len(cluster.api.tasks()) == before
        (tmp_path / "go").touch()
        disk.free()
        ended = cluster.api.wait_final(running_task)
        assert (ended.status, ended.exit_code) == (TaskState.FAILED, 4)
        after = cluster.api.submit_one("true")
        assert cluster.api.wait_final(after).status == TaskState.COMPLETED
        for task in cluster.api.tasks():
            cluster.api.wait_final(task.task_id)
        cluster.assert_clean()


@pytest.mark.small_disk
def test_a_full_share_delays_output_and_loses_none(tmp_path: Path) -> None:
    """The task waits with its output, can be killed all the same, and goes on once there is room."""
    with small_disk(tmp_path / "shared", 16) as disk, running(Cluster(tmp_path)) as cluster:
        disk.fill()
        tasks = [cluster.api.submit_one("sh", "-c", "head -c 5000000 /dev/zero; exit 3") for _ in range(2)]
        for task in tasks:
            cluster.api.wait_state(task, TaskState.RUNNING)
        cluster.api.kill(tasks[0])
        assert cluster.api.wait_final(tasks[0]).status == TaskState.KILLED
        disk.free()
        ended = cluster.api.wait_final(tasks[1])
        assert (ended.status, ended.exit_code) == (TaskState.FAILED, 3)
        assert (disk.path / ended.stdout_path).read_bytes() == bytes(5_000_000)


def _refusal(cluster: Cluster) -> int | None:
    body = {"command": "true", "env_vars": {"PAD": "x" * 100_000}}
    answer = cluster.api.call("POST", "/api/submit", json=body)
    return None if answer.is_success else answer.status_code


def remount(path: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", str(path)], check=True)
