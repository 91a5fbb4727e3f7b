"""What is promised of programs that are run in a container beside its own, with a real engine."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from docker.models.containers import Container

from hakuriver.models.environments import TerminalStart
from hakuriver.terminals import ContainerExecs, Exec, start_exec
from hakuriver_agent.engines.docker_door import in_words
from support import engine
from support.waiting import until

pytestmark = pytest.mark.docker
AT_ONCE = 16
"""The engine learns a program's number after about every other of so many has written already."""


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Container]:
    engine.write_environment(tmp_path)
    client = engine.client()
    if not engine.has_image(tag := f"hakuriver/{engine.ENVIRONMENT}:{engine.VERSION}"):
        client.images.load((tmp_path / f"{engine.ENVIRONMENT}-{engine.VERSION}.tar").read_bytes())
    made = client.containers.run(tag, ["sleep", "600"], detach=True, init=True)
    yield made
    engine.remove_container(made)


def execs(container: Container) -> ContainerExecs:
    return ContainerExecs(lambda: engine.client().api, str(container.id), in_words)


async def begun(container: Container, number: int, user: str | None = None) -> Exec:
    """A program that has written and goes on."""
    wanted = TerminalStart(argv=["sh", "-c", f"echo begun; exec sleep 5432{number:02}"], tty=False, user=user)
    program = await start_exec(execs(container), wanted)
    assert await anext(program.output()) == b"\x01begun\n"
    return program


def programs(container: Container) -> list[str]:
    return [" ".join(line) for line in container.top()["Processes"] if "5432" in " ".join(line)]


async def test_who_hangs_up_as_soon_as_they_begin_leaves_none_behind(container: Container) -> None:
    async def vanish(number: int) -> None:
        await (await begun(container, number)).hang_up()

    await asyncio.gather(*map(vanish, range(AT_ONCE)))
    until(lambda: not programs(container), lambda: f"they end: {programs(container)}")


@pytest.fixture
def somebodys(container: Container) -> Iterator[Container]:
    """As most are: its own user is whom it belongs to, and not root."""
    options: dict[str, Any] = {"detach": True, "init": True, "user": "2001"}
    made = engine.client().containers.run(container.image, ["sleep", "600"], **options)
    yield made
    engine.remove_container(made)


async def test_root_is_hung_up_in_the_container_of_somebody_else(somebodys: Container) -> None:
    program = await begun(somebodys, 1, user="root")
    await program.hang_up()
    until(lambda: not programs(somebodys), lambda: f"it ends: {programs(somebodys)}")


async def test_a_signal_reaches_root_in_the_container_of_somebody_else(somebodys: Container) -> None:
    program = await begun(somebodys, 1, user="root")
    await program.signal("TERM")
    async with asyncio.timeout(60):
        async for _ in program.output():
            continue
        assert await program.exit_code() == 143


async def test_who_vanishes_while_it_is_paused_leaves_none_behind(container: Container) -> None:
    program = await begun(container, 1)
    container.pause()
    await program.hang_up()
    assert programs(container)
    container.unpause()
    # In a thread: what ends it runs here.
    await asyncio.to_thread(until, lambda: not programs(container), "it ends", 60)


async def test_who_vanishes_while_it_starts_leaves_none_behind(container: Container) -> None:
    started = threading.Event()

    class Slow(ContainerExecs):
        def start_exec(self, argv: list[str], **options: Any) -> tuple[str, Any]:
            made = super().start_exec(argv, **options)
            started.set()
            gone.wait()
            return made

    gone = threading.Event()
    slow = Slow(lambda: engine.client().api, str(container.id), in_words)
    wanted = TerminalStart(argv=["sleep", "543201"], tty=False, stdin=False)
    starting = asyncio.create_task(start_exec(slow, wanted))
    await asyncio.to_thread(started.wait)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    await asyncio.to_thread(until, lambda: bool(programs(container)), "it has begun", 60)
    gone.set()
    # In a thread: what ends it runs here.
    await asyncio.to_thread(until, lambda: not programs(container), "it ends", 60)


async def test_a_signal_reaches_those_that_have_just_begun(container: Container) -> None:
    async def end(number: int) -> int | None:
        program = await begun(container, number)
        await program.signal("TERM")
        async for _ in program.output():
            continue
        return await program.exit_code()

    async with asyncio.timeout(60):
        assert await asyncio.gather(*map(end, range(AT_ONCE))) == [143] * AT_ONCE
