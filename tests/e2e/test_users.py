"""As whom tasks without container run, on a cluster where nobody may be root."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hakuriver.models.tasks import TaskDetail
from hakuriver.states import TaskState
from support.api import Api
from support.cluster import Cluster, running

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only a Runner that is root runs tasks as others")


@pytest.fixture(scope="module", name="strict")
def _strict() -> Iterator[Cluster]:
    # Not pytest's own folder, into which other users may not go.
    with tempfile.TemporaryDirectory(prefix="hakuriver-users-") as folder:
        Path(folder).chmod(0o755)
        strict = Cluster(Path(folder), runner_sections={"runner": {"allow_any_user": False}})
        with running(strict) as cluster:
            yield cluster


@pytest.fixture(scope="module", name="alice")
def _alice(strict: Cluster) -> Api:
    """A user to whom an admin gave a uid."""
    return _person(strict, "alice", uid=12345, gid=23456)


def _person(cluster: Cluster, name: str, **ids: int) -> Api:
    cluster.api.json("POST", "/api/users", json={"name": name, **ids})
    return cluster.api_as(cluster.api.json("POST", "/api/tokens", json={"user": name})["token"])


def _end(api: Api, script: str, **fields: Any) -> TaskDetail:
    return api.wait_final(api.submit_one("sh", "-c", script, **fields))


@pytest.mark.parametrize("user", [None, "0", "12345"])
def test_nobody_without_a_uid_runs_on_the_machine_itself(strict: Cluster, user: str | None) -> None:
    task = _end(strict.api, "touch ran; id -u", user=user)
    assert task.status is TaskState.FAILED
    assert "refused it: without container" in (task.error_message or "")
    assert not list(strict.shared.rglob("ran"))


def test_everybody_can_write_what_tasks_share(strict: Cluster, alice: Api) -> None:
    task = _end(alice, 'echo mine > "$HAKURIVER_SHARED_DIR/of-alice"')
    assert task.status is TaskState.COMPLETED, alice.log(task.task_id, "stderr")
    assert (strict.shared / "shared_data" / "of-alice").stat().st_uid == 12345


def test_a_task_can_read_its_own_log_and_no_other(strict: Cluster, alice: Api) -> None:
    bob = _person(strict, "bob", uid=12346)
    secret = _end(alice, "echo secret")
    log = strict.shared / secret.stdout_path
    assert (log.stat().st_uid, log.stat().st_mode & 0o777) == (12345, 0o640)
    for asker, code in ((alice, 0), (bob, 1)):
        task = _end(asker, f"cat {log}")
        assert task.exit_code == code
        assert (b"secret" in asker.log(task.task_id)) == (asker is alice)


def test_a_task_is_its_owner_and_nobody_else(strict: Cluster, alice: Api) -> None:
    for user in (None, "12345", "12345:23456"):
        task = _end(alice, "id -u; id -g; id -G", user=user)
        assert alice.log(task.task_id) == b"12345\n23456\n23456\n", task
    for user in ("0", "0:0", "12346", "12345:0"):
        task = _end(alice, "id -u", user=user)
        assert task.status is TaskState.FAILED
        assert f"no task of alice as {user}" in (task.error_message or "")
