"""The children of `hakuriver up`: how they start, end, and are told of."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from hakuriver_cli import processes
from hakuriver_cli.processes import Child
from hakuriver_cli.up_plan import Daemon

MODULES = {
    "polite": "import os, sys\nprint('ready', os.environ['GREETING'], sys.argv[1:], flush=True)\nsys.stdin.read()\n"
    "import signal\nsignal.pause()\n",
    "stubborn": "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('ready', flush=True)\n"
    "signal.pause()\n",
    "failing": "print('one')\nprint('two')\nraise SystemExit(3)\n",
}


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text, "utf-8")
    return tmp_path


async def start(modules: Path, module: str) -> Child:
    environment = {"PYTHONPATH": str(modules), "GREETING": "hello"}
    return await Child.start(Daemon("host", module, Path("/c"), environment), modules)


async def ready(child: Child) -> None:
    async with asyncio.timeout(20):
        while not any(line.startswith("ready") for line in child.last_lines()):
            await asyncio.sleep(0.01)


async def test_it_gets_its_environment_and_logs_to_its_file(modules: Path) -> None:
    child = await start(modules, "polite")
    await ready(child)
    assert child.last_lines() == ["ready hello ['--config', '/c']"]
    await child.stop()
    assert await child.ended == -signal.SIGTERM
    assert child.log == modules / "host.log"


async def test_one_that_does_not_end_is_ended(modules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_TERM_SECONDS", 0.05)
    child = await start(modules, "stubborn")
    await ready(child)
    await child.stop()
    assert await child.ended == -signal.SIGKILL
    assert "by signal 9" in child.failure().message


async def test_one_that_ends_by_itself_is_told_of_with_its_last_words(modules: Path) -> None:
    child = await start(modules, "failing")
    assert await child.ended == 3
    error = child.failure()
    assert error.message == "the host ended with exit code 3"
    assert str(child.log) in error.hint
    assert child.last_lines() == ["one", "two"]
    await child.stop()
