"""`hakuriver up`, and the demo that a newcomer runs first: a whole cluster on one machine with one command."""

from __future__ import annotations

import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import psutil
import pytest

from support import engine, settings
from support.commands import Commands
from support.daemons import clean_environment
from support.leaks import task_processes
from support.ports import free_port
from support.waiting import until

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def up(folder: Path, *options: str) -> Iterator[Commands]:
    """Runs `hakuriver up` in the folder until the block ends; then Ctrl-C."""
    if not (folder / "config.toml").exists():
        settings.write(folder / "config.toml", _configuration(folder))
    commands = Commands({"HAKURIVER_CONFIG": str(folder / "config.toml"), "DOCKER_HOST": "unix:///none"})
    process = commands.start("up", "--dir", str(folder), *options, stdout=subprocess.DEVNULL)
    assert process.stderr is not None
    said = []
    try:
        for line in process.stderr:
            said.append(line.decode())
            if "Ctrl-C ends" in said[-1]:
                break
        assert "Ctrl-C ends" in said[-1], "".join(said)
        yield commands
    finally:
        process.send_signal(signal.SIGINT)
        (folder / "said").write_bytes(process.stderr.read())
        assert process.wait(timeout=60) in {0, 130}


def _configuration(folder: Path) -> settings.Sections:
    """As `up` would write it, on ports that no other test takes."""
    local = dict.fromkeys(
        ("host_bind_ip", "runner_bind_ip", "host_reachable_address", "runner_address"), "127.0.0.1"
    )
    return {
        "network": {**local, "host_port": free_port(), "runner_port": free_port()},
        "paths": {
            "shared_dir": folder / "shared",
            "local_temp_dir": folder / "temp",
            "state_dir": folder / "state",
        },
        "runner": {"join_token_file": folder / "state" / "join.token", "allow_any_user": True},
        "client": {"token_file": folder / "state" / "admin.token"},
    }


def test_up_starts_all_and_says_plainly_that_there_are_no_containers(tmp_path: Path) -> None:
    with up(tmp_path, "--runners", "2") as run:
        assert len(run("node", "list", "-o", "name").stdout.split()) == 2
        assert run("task", "run", "--", "echo", "hello").stdout == "hello\n"
        assert run("up", "--dir", str(tmp_path)).code == 5


def test_its_tokens_are_for_their_owner_alone(tmp_path: Path) -> None:
    with up(tmp_path):
        tokens = list(tmp_path.rglob("*.token"))
        assert tokens
        assert {stat.S_IMODE(token.stat().st_mode) for token in tokens} == {0o600}


def runs_again(above: psutil.Process, module: str, before: int) -> bool:
    with suppress(psutil.NoSuchProcess):  # one that is ending while it is looked at
        return any(module in child.cmdline() and child.pid != before for child in above.children())
    return False


def test_a_daemon_that_ends_is_started_again(tmp_path: Path) -> None:
    with up(tmp_path) as run:
        (above,) = [
            process
            for process in psutil.Process().children()
            if str(tmp_path) in process.cmdline() and "up" in process.cmdline()
        ]
        for module in ("hakuriver_agent", "hakuriver_host"):
            (daemon,) = [child for child in above.children() if module in child.cmdline()]
            daemon.kill()
            until(partial(runs_again, above, module, daemon.pid), f"{module} runs again")
        until(
            lambda: run("task", "run", "--", "echo", "again").stdout == "again\n",
            "all works again",
            within=60,
        )
    said = (tmp_path / "said").read_text("utf-8")
    for name in ("runner-1", "host"):
        assert (
            f"the {name} ended by signal 9; its log is {tmp_path}/logs/{name}.log; it is started again in"
            in said
        )


def test_tasks_outlive_it_and_the_next_one_takes_them_up(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with up(tmp_path) as run:
        text = f"until [ -e {gate} ]; do sleep 0.05; done; exit 17"
        task = run("task", "submit", "-o", "name", "--", "sh", "-c", text).stdout.strip()
        until(lambda: "running" in run("task", "status", task, "-o", "json").stdout, "it runs")
    assert task_processes({int(task)}), "the task goes on without the daemons"
    gate.touch()
    with up(tmp_path) as run:
        assert run("task", "wait", task).code == 17


@pytest.mark.docker
def test_the_demo_runs_real_tasks_and_tells_how_to_go_on(tmp_path: Path) -> None:
    try:
        done = subprocess.run(
            [sys.executable, ROOT / "scripts" / "demo"],
            cwd=tmp_path,
            env={**clean_environment(), "COLUMNS": "200"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        for words in (
            "step 3 of task",
            "part 2: 200",
            "the task's own: 3",
            "completed",
            "online",
            "hakuriver up",
        ):
            assert words in done.stdout
    finally:
        for archive in tmp_path.rglob("hakuriver-base-*.tar"):
            name, _, version = archive.stem.rpartition("-")
            engine.remove_image(name, int(version))


def test_the_demo_works_without_an_engine(tmp_path: Path) -> None:
    environment = {**clean_environment(), "DOCKER_HOST": f"unix://{tmp_path}/none", "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "demo"],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "without containers" in done.stdout
