"""One deployment at a time; who holds the lock is told; a holder that died is followed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hakuriver.errors import ConflictError
from hakuriver_cli.deploy import lock, processes
from hakuriver_cli.deploy.lock import Holder

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def holder(**more: object) -> Holder:
    return Holder.model_validate(
        {
            "user": "ada",
            "machine": "here",
            "pid": 7,
            "since": NOW,
            "what": "deploy",
            "boot": "b",
            "started": "5",
            **more,
        }
    )


@pytest.mark.parametrize(
    ("found", "started", "stale"),
    [
        (holder(), "5", False),
        (holder(), None, True),
        (holder(), "6", True),
        (holder(boot="older"), "5", True),
        (holder(boot="", started=""), "6", False),
        (holder(machine="elsewhere"), None, False),
    ],
)
def test_a_holder_is_stale_only_when_that_is_certain(found: Holder, started: str | None, stale: bool) -> None:
    assert lock.is_stale(found, "here", "b", lambda _: started) is stale


def test_it_says_who_holds_it(tmp_path: Path) -> None:
    with lock.held(tmp_path, "deploy", print) as own:
        assert lock.holder(tmp_path) == own
        with pytest.raises(ConflictError) as error, lock.held(tmp_path, "upgrade", print):
            pass
        assert f"process {os.getpid()}" in error.value.message
        assert "cluster deploy" in error.value.message
        assert lock.NAME in error.value.hint
    assert lock.holder(tmp_path) is None
    assert not (tmp_path / lock.NAME).exists()


def test_it_is_given_back_after_a_failure(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), lock.held(tmp_path, "deploy", print):
        raise RuntimeError
    assert lock.holder(tmp_path) is None


_TAKE = "import sys; from pathlib import Path; from hakuriver_cli.deploy import lock\n"
_HOLD = "with lock.held(Path(sys.argv[1]), 'deploy', print): print('held', flush=True); sys.stdin.read()"


def test_a_killed_holder_is_followed_and_told(tmp_path: Path) -> None:
    held = subprocess.Popen(
        [sys.executable, "-c", _TAKE + _HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert held.stdout is not None
    assert held.stdout.readline() == b"held\n"
    with pytest.raises(ConflictError), lock.held(tmp_path, "deploy", print):
        pass
    held.send_signal(signal.SIGKILL)
    held.communicate()
    assert lock.holder(tmp_path) is None
    said: list[str] = []
    with lock.held(tmp_path, "deploy", said.append):
        assert lock.holder(tmp_path) is not None
    assert f"process {held.pid}" in said[0]
    assert "broken off" in said[0]


def test_a_holder_elsewhere_is_believed(tmp_path: Path) -> None:
    (tmp_path / lock.NAME).write_text(holder(machine="elsewhere").model_dump_json())
    with pytest.raises(ConflictError, match="ada on elsewhere"), lock.held(tmp_path, "deploy", print):
        pass


def test_a_file_that_is_no_lock_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / lock.NAME).write_text("mine")
    with pytest.raises(ConflictError, match="no lock of ours"), lock.held(tmp_path, "deploy", print):
        pass
    assert (tmp_path / lock.NAME).read_text() == "mine"


def test_of_many_at_once_one_gets_it(tmp_path: Path) -> None:
    program = _TAKE + (
        "from hakuriver.errors import ConflictError\n"
        "try:\n with lock.held(Path(sys.argv[1]), 'x', print): print('won', flush=True); sys.stdin.read()\n"
        "except ConflictError: print('lost', flush=True)"
    )
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    said = [racer.stdout.readline() for racer in racers if racer.stdout]
    for racer in racers:
        racer.communicate()
    assert sorted(said) == ["lost\n"] * 3 + ["won\n"]


def test_what_was_started_is_found_wherever_it_went() -> None:
    program = "import subprocess, sys; p = subprocess.Popen(['sleep', '60'], start_new_session=True); print(p.pid, flush=True); sys.stdin.read()"
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert child in processes.descendants(parent.pid)
    processes.end([parent.pid, child])
    parent.communicate()
    assert processes.started(parent.pid) is None
