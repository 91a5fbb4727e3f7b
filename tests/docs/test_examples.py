"""The examples of every page, run against a real cluster that `hakuriver up` starts."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from docs_pages import PRINTS, Block, blocks, pages
from docs_session import Shell, agrees, steps

from hakuriver.config import load
from hakuriver.states import FINAL, TaskState
from support import engine
from support.commands import Commands
from support.daemons import clean_environment
from support.waiting import until

_BIN = Path(sys.executable).parent
_NODE = {
    "HAKURIVER__RUNNER__NAME": "node-1",
    "HAKURIVER__RUNNER__CORES": "2",
    "HAKURIVER__RUNNER__MEMORY_BYTES": "16000000000",
    "HAKURIVER__RUNNER__KILL_GRACE_SECONDS": "1",
}
"""The node that the pages show."""

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("docs")]


def _runnable(page: Path) -> list[Block]:
    languages = {"console", "sh", "python"}
    return [block for block in blocks(page) if block.language in languages and block.not_run is None]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a person whose cluster runs, in a home of its own."""
    folder = tmp_path_factory.mktemp("home")
    environment = {name: value for name, value in clean_environment().items() if not name.startswith("XDG_")}
    environment |= {
        "HOME": str(folder),
        "PATH": f"{_BIN}:{environment['PATH']}",
        "NO_COLOR": "1",
        "COLUMNS": "200",
    }
    run = Commands(environment)
    with _one_at_a_time(), (folder / "up.log").open("wb") as log:
        up = subprocess.Popen(
            [_BIN / "hakuriver", "up"], env=environment | _NODE, stderr=log, start_new_session=True
        )
        try:
            until(
                lambda: _ready(run, up), lambda: f"the cluster is up\n{(folder / 'up.log').read_text()}", 240
            )
        except BaseException:
            _stop(up)
            raise
    try:
        yield environment
        _end_tasks(run)
        versions = [row["version"] for row in run("env", "versions", "hakuriver-base", "-o", "json").json()]
    finally:
        _stop(up)
    for version in versions:
        engine.remove_image("hakuriver-base", version)


def _stop(up: subprocess.Popen[bytes]) -> None:
    up.send_signal(signal.SIGINT)
    try:
        up.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(up.pid, signal.SIGKILL)
        up.wait()


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Processes of the tests that start a cluster at the same moment would find the same ports free."""
    with (Path(tempfile.gettempdir()) / "hakuriver-docs-tests.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _ready(run: Commands, up: subprocess.Popen[bytes]) -> bool:
    assert up.poll() is None, "`hakuriver up` ended"
    asked = run("status", "-o", "json")
    if asked.code != 0:
        return False
    status: dict[str, Any] = asked.json()
    return bool(status["nodes_online"]) and bool(status["default_environment_ready"])


def _end_tasks(run: Commands) -> None:
    live = [f"--status={state}" for state in TaskState if state not in FINAL]
    ids = run("task", "list", "--limit", "0", "-o", "name", *live).stdout.split()
    if ids:
        run("task", "kill", *ids)
        run("task", "wait", *ids)


@pytest.fixture
def shell(home: dict[str, str], tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Shell]:
    """A shell in a folder of its own. After a failure it tells what the cluster holds and what its daemons said."""
    failed = request.session.testsfailed
    yield Shell(tmp_path, home)
    if request.session.testsfailed > failed:
        sys.stderr.write(Commands(home)("task", "list", "-o", "wide").stdout)
        for log in sorted((Path(home["HOME"]) / ".hakuriver" / "logs").glob("*.log")):
            last = log.read_text("utf-8", "replace").splitlines()[-15:]
            sys.stderr.write("\n".join([f"--- {log.name}", *last, ""]))


@pytest.mark.parametrize("page", [page for page in pages() if _runnable(page)], ids=lambda page: page.stem)
def test_the_examples_do_what_the_page_shows(page: Path, shell: Shell) -> None:
    everything = list(blocks(page))
    for index, block in enumerate(everything):
        if block.not_run is not None:
            continue
        if block.language == "console":
            _run_session(block, shell)
        elif block.language == "sh":
            done = shell.run(block.text)
            assert done.code == 0, f"{block} ended with {done.code}:\n{done.output}"
        elif block.language == "python":
            following = everything[index + 1] if index + 1 < len(everything) else None
            shown = following.text if following and following.before == PRINTS else None
            _run_program(block, shown, shell)


def _run_session(block: Block, shell: Shell) -> None:
    planned = steps(block)
    for step, following in zip(planned, [*planned[1:], None], strict=True):
        done = shell.run(step.command)
        told = f"{block}\n$ {step.command}\nended with {done.code} and printed\n{done.output}"
        assert agrees(step.expected, done.output), f"{told}\nthe page shows\n" + "\n".join(step.expected)
        announced = any(line.startswith("error: ") for line in step.expected)
        asked = following is not None and following.command == "echo $?"
        assert done.code == 0 or announced or asked, told


def _run_program(block: Block, shown: str | None, shell: Shell) -> None:
    done = shell.python(block.text)
    assert done.code == 0, f"{block} ended with {done.code}:\n{done.output}"
    if shown is not None:
        assert agrees(shown.splitlines(), done.output), (
            f"{block} printed\n{done.output}\nthe page shows\n{shown}"
        )


def test_the_served_api_is_the_documented_one(home: dict[str, str], shell: Shell) -> None:
    import docs_api

    program = (
        "from hakuriver import Client\nfrom hakuriver.config import load\n"
        "import httpx\nfrom hakuriver.client.wire import find_token\n"
        "settings = load()\nhead = {'Authorization': f'Bearer {find_token(settings)}'}\n"
        "print(httpx.get(settings.host_url + '/api/openapi.json', headers=head).text)"
    )
    done = shell.python(program)
    assert done.code == 0, done.output
    assert json.loads(done.output) == docs_api.host_document()


_CONFIGURATIONS = [block for page in pages() for block in blocks(page) if block.language == "toml"]


@pytest.mark.parametrize("block", _CONFIGURATIONS, ids=str)
def test_a_configuration_in_the_documentation_loads(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(block.text, "utf-8")
    load(path)
