"""Commands begin and end quickly: what they do not need is not loaded, and what was loaded is not taken apart."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hakuriver.version import __version__
from support.daemons import clean_environment

_PARSER = {"cyclopts"}
_MODELS = {"pydantic", "pydantic_core", "hakuriver.config"}
_HTTP = {"httpx", "httpcore", "h11"}
_HEAVY = {
    # Of other parts of HakuRiver, and of other commands.
    "alembic",
    "ansible_runner",
    "docker",
    "sqlalchemy",
    "sqlmodel",
    "starlette",
    "uvicorn",
    "yaml",
    # Of what a request does without.
    "asyncio",
    "click",
    "pydantic_settings",
    "pygments",
    "rich",
    "tomlkit",
    "websockets",
    # Models and views of what is not asked for.
    "hakuriver.models.environments",
    "hakuriver.models.nodes",
    "hakuriver.models.runner",
}
_NOTHING_LISTENS = '[client]\nurl = "http://127.0.0.1:1"\n'
_LOADED = """
import os, sys
from hakuriver_cli import main

def leave(code, now=os._exit):
    print("LOADED", *sys.modules, file=sys.stderr, flush=True)
    now(code)

os._exit = leave
sys.argv[0] = "hakuriver"
main.main()
leave(0)
"""


def _run(folder: Path, program: str, *words: str) -> subprocess.CompletedProcess[str]:
    config = folder / "config.toml"
    config.write_text(_NOTHING_LISTENS, "utf-8")
    return subprocess.run(
        [sys.executable, "-c", program, *words],
        env={**clean_environment(), "HAKURIVER_CONFIG": str(config), "HOME": str(folder), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def _loaded(folder: Path, *words: str, code: int) -> set[str]:
    done = _run(folder, _LOADED, *words)
    assert done.returncode == code, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("LOADED ")]
    return set(line.split())


def test_its_version_takes_no_parser(tmp_path: Path) -> None:
    loaded = _loaded(tmp_path, "--version", code=0)
    assert "hakuriver_cli.main" in loaded
    assert not sorted(loaded & (_PARSER | _MODELS | _HTTP | _HEAVY))


@pytest.mark.parametrize("words", ["--help", "task --help", "task submit --help", "vps create --help"])
def test_help_loads_neither_models_nor_clients(tmp_path: Path, words: str) -> None:
    loaded = _loaded(tmp_path, *words.split(), code=0)
    assert loaded >= _PARSER
    assert not sorted(loaded & (_MODELS | _HTTP | _HEAVY - {"rich"}))


@pytest.mark.parametrize(
    "words", ["task list --limit x", "task submit --cores x -- true", "vps create --cores x", "env list --x"]
)
def test_a_command_line_is_read_without_models(tmp_path: Path, words: str) -> None:
    """Else the parser would make a validator for each option of the command."""
    loaded = _loaded(tmp_path, *words.split(), code=2)
    assert loaded >= _PARSER
    assert not sorted(loaded & (_MODELS | _HTTP | _HEAVY - {"rich"}))


@pytest.mark.parametrize(
    "words",
    [
        "task list",
        "task status 1",
        "task kill 1",
        "task submit -- true",
        "task logs 1",
        "batch list",
        "queue",
        "vps list",
        "vps kill box",
        "vps create --wait --public-key-string KEY",
        "whoami",
    ],
)
def test_a_request_loads_only_what_it_is_made_of(tmp_path: Path, words: str) -> None:
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEsNDL0RlDjPFMxVvUFjgWzwYwWt9mQvpYnyXkq0MLLI"
    loaded = _loaded(tmp_path, *[key if word == "KEY" else word for word in words.split()], code=6)
    assert loaded >= _PARSER | _MODELS | _HTTP
    assert not sorted(loaded & _HEAVY)


def test_waiting_for_ssh_loads_no_second_client(tmp_path: Path) -> None:
    program = "import sys, hakuriver_cli.vps_waiting, hakuriver_cli.sockets\nprint(*sys.modules)"
    loaded = set(_run(tmp_path, program).stdout.split())
    assert "websockets" in loaded
    assert not sorted(loaded & {"asyncio", "hakuriver.client.aio"})


def test_pydantic_looks_for_no_plugins_and_finds_all_else(tmp_path: Path) -> None:
    assert "importlib.metadata" not in _loaded(tmp_path, "whoami", code=6)
    program = """
from hakuriver_cli.main import run_and_exit

def run():
    from pydantic.plugin._loader import get_plugins
    print(list(get_plugins()))
    from pydantic.plugin._loader import PYDANTIC_ENTRY_POINT_GROUP
    print(PYDANTIC_ENTRY_POINT_GROUP)
    return 0

run_and_exit(run)
"""
    assert _run(tmp_path, program).stdout == "[]\npydantic\n"


def test_variables_take_what_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the others can be told not to load it."""
    words = ["config", "show", "-o", "json"]
    assert "pydantic_settings" not in _loaded(tmp_path, *words, code=0)
    program = f"import os\nos.environ['HAKURIVER__CLIENT__TIMEOUT'] = '3'\n{_LOADED}"
    assert "pydantic_settings" in _run(tmp_path, program, *words).stderr


_ENDING = """
import atexit, os, sys, threading
from hakuriver_cli.main import run_and_exit

class Kept:
    def __del__(self):
        print("taken apart")

kept = Kept()

def work():
    threading.main_thread().join()
    print("a thread ends")

def run():
    threading.Thread(target=work).start()
    atexit.register(print, "what is to be done at the end")
    print("done")
    {end}

run_and_exit(run)
"""


def test_it_ends_when_all_is_done_and_takes_nothing_apart(tmp_path: Path) -> None:
    done = _run(tmp_path, _ENDING.format(end="return 7"))
    assert (done.returncode, done.stderr) == (7, "")
    assert done.stdout.splitlines() == ["done", "a thread ends", "what is to be done at the end"]


def test_a_defect_ends_it_as_python_does(tmp_path: Path) -> None:
    done = _run(tmp_path, _ENDING.format(end="raise RuntimeError('a defect')"))
    assert done.returncode == 1
    assert "RuntimeError: a defect" in done.stderr
    assert "what is to be done at the end" in done.stdout


@pytest.mark.parametrize("words", ["--version", "--help"])
def test_output_that_cannot_be_written_is_told_of(tmp_path: Path, words: str) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [Path(sys.executable).parent / "hakuriver", words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env={**clean_environment(), "HOME": str(tmp_path)},
            check=False,
        )
    assert done.returncode != 0
    assert os.strerror(28) in done.stderr


def test_its_version_is_told(tmp_path: Path) -> None:
    assert _run(tmp_path, _LOADED, "--version").stdout == f"{__version__}\n"
