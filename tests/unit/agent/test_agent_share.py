"""What a Runner thinks of its share, and that it makes nothing in one that is not there."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from hakuriver.models.runner import SHARED_MARKER
from hakuriver.states import TaskState
from hakuriver_agent import share as module
from hakuriver_agent.logfile import LogFile
from hakuriver_agent.share import Share, ShareAwayError
from support import shares
from unit.agent.agent_doubles import eventually, named, node, spec


@pytest.fixture(name="root")
def _root(tmp_path: Path) -> Path:
    shares.make(tmp_path / "shared")
    return tmp_path / "shared"


async def test_a_share_that_is_well(root: Path) -> None:
    share = Share(root, "n1")
    assert await share.identity() == "a share of the tests"
    share.accept("a share of the tests")
    assert await share.problem() is None
    await share.check()
    assert not list((root / "task_outputs").iterdir()), "the probe leaves nothing"


def _paths(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


@pytest.mark.parametrize("there", ["an empty mount point", "nothing", "a marker that is empty"])
async def test_nothing_is_made_where_the_share_is_not(tmp_path: Path, there: str) -> None:
    root = tmp_path / "mount"
    if there != "nothing":
        root.mkdir()
    if there == "a marker that is empty":
        (root / SHARED_MARKER).touch()
    before = _paths(tmp_path)
    share = Share(root, "n1")
    assert await share.identity() is None
    assert "not mounted" in (await share.problem() or "")
    with pytest.raises(ShareAwayError, match="not mounted"):
        await share.check()
    gave_up = threading.Event()
    threading.Timer(0.1, gave_up.set).start()
    assert not LogFile(str(root / "task_outputs" / "1.out"), 100).write(b"x", gave_up)
    assert _paths(tmp_path) == before


def test_no_log_is_written_below_a_missing_marker(root: Path) -> None:
    path, marker = root / "task_outputs" / "1.out", root / SHARED_MARKER
    marker.unlink()
    gave_up = threading.Event()
    threading.Timer(0.1, gave_up.set).start()
    assert not LogFile(str(path), 100, marker=str(marker)).write(b"x", gave_up)
    assert not path.exists()
    marker.touch()
    assert LogFile(str(path), 100, marker=str(marker)).write(b"x", threading.Event())
    assert path.read_bytes() == b"x"


async def test_a_share_that_cannot_be_written_is_a_problem_and_no_reason_to_wait(root: Path) -> None:
    (root / "task_outputs").rmdir()
    share = Share(root, "n1")
    assert "cannot write" in (await share.problem() or "")
    await share.check()


async def test_another_share_than_the_hosts_is_not_used(root: Path) -> None:
    share = Share(root, "n1")
    share.accept(await share.identity())
    (root / SHARED_MARKER).write_text("another\n")
    assert "another share" in (await share.problem() or "")
    with pytest.raises(ShareAwayError, match="another share"):
        await share.check()
    assert share.found == "another"


async def test_a_share_that_hangs_takes_one_thread(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", 0.05)
    go, calls = threading.Event(), []
    share = Share(root, "n1")

    def hang() -> None:
        calls.append(1)
        go.wait(10)

    monkeypatch.setattr(share._reading, "_function", hang)
    assert await share.identity() is None
    assert "does not answer" in (await share.problem() or "")
    with pytest.raises(ShareAwayError, match="does not answer"):
        await share.check()
    assert len(calls) == 1
    go.set()


async def test_an_attempt_waits_for_the_share_and_can_be_killed_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hakuriver_agent.driver.RETRY_SECONDS", 0.02)
    away = True

    async def ready() -> None:
        if away:
            raise ShareAwayError("it is not mounted")

    machine = node(tmp_path)
    async with machine.life(ready=ready) as life:
        waits, killed = spec("exit", "0"), spec("exit", "0")
        await life.supervisor.start([waits, killed])
        await eventually(
            lambda: "waiting for the share: it is not mounted" in [r.message for r in life.post.of(waits)],
            "it says why it waits",
        )
        await life.supervisor.kill([named(killed)])
        assert (await life.post.final(killed)).status is TaskState.KILLED
        assert await life.engine.units() == []
        away = False
        assert (await life.post.final(waits)).status is TaskState.COMPLETED
