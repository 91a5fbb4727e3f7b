"""A program with named pipes: real pipes and a real shell, and the engine's stream in a double."""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import subprocess
import termios
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import cast

import pytest

from hakuriver.terminals import Exec
from hakuriver_agent.engines.docker_request import VPS_SOCKETS
from hakuriver_agent.ssh import given
from hakuriver_agent.ssh.pipes import Piped, Pipes

OUT, ERR = 1, 2
MUCH = 3_000_000


class Program:
    """One that a shell runs on this machine, with its streams as an engine frames them."""

    def __init__(self, pipes: Pipes, folder: Path, command: str, *, there: bool = True) -> None:
        script = pipes.script.replace(VPS_SOCKETS, str(folder if there else folder / "nowhere"))
        self.words = ["/bin/sh", "-c", script + 'exec sh -c "$0"', command]
        self.process: asyncio.subprocess.Process | None = None
        self.looks = 0

    async def start(self) -> None:
        pipe = subprocess.PIPE
        self.process = await asyncio.create_subprocess_exec(*self.words, stdin=pipe, stdout=pipe, stderr=pipe)

    async def output(self) -> AsyncIterator[bytes]:
        assert self.process is not None
        said = asyncio.Queue[bytes]()

        async def read(stream: int, reader: asyncio.StreamReader | None) -> None:
            assert reader is not None
            while data := await reader.read(1 << 16):
                said.put_nowait(bytes([stream]) + data)
            said.put_nowait(b"")

        readers = [
            asyncio.create_task(read(OUT, self.process.stdout)),
            asyncio.create_task(read(ERR, self.process.stderr)),
        ]
        ended = 0
        while ended < len(readers):
            if data := await said.get():
                yield data
            else:
                ended += 1

    async def runs(self) -> bool:
        self.looks += 1
        return self.process is not None and self.process.returncode is None

    async def write(self, data: bytes) -> None:
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.write(data)

    def write_eof(self) -> None:
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.write_eof()


class Said:
    """What a program said, by stream."""

    def __init__(self) -> None:
        self.streams = {OUT: b"", ERR: b""}

    async def take(self, stream: int, data: bytes) -> None:
        self.streams[stream] += data


async def begun(folder: Path, pipes: Pipes, command: str, *, there: bool = True) -> tuple[Piped, Program]:
    program = Program(pipes, folder, command, there=there)
    await program.start()
    return Piped(cast("Exec", program), pipes), program


async def ended(program: Program) -> int:
    assert program.process is not None
    return await program.process.wait()


@pytest.fixture
def made(tmp_path: Path) -> Callable[[], Pipes]:
    return lambda: Pipes(tmp_path, os.getuid())


async def test_input_and_output_go_by_the_pipes(tmp_path: Path, made: Callable[[], Pipes]) -> None:
    data, said = os.urandom(MUCH), Said()
    with made() as pipes:
        piped, program = await begun(tmp_path, pipes, "cat; echo all >&2; exit 7")
        hearing = asyncio.create_task(piped.output(said.take))
        await piped.write(data)
        assert _names(tmp_path) == []
        await piped.write_eof()
        await hearing
        assert said.streams == {OUT: data, ERR: b"all\n"}
        assert await ended(program) == 7
        assert program.looks == 0


async def test_a_shell_that_cannot_open_them_leaves_them(tmp_path: Path, made: Callable[[], Pipes]) -> None:
    said = Said()
    with made() as pipes:
        piped, program = await begun(tmp_path, pipes, "cat; echo err >&2", there=False)
        hearing = asyncio.create_task(piped.output(said.take))
        await piped.write(b"by the engine")
        await piped.write_eof()
        await hearing
        assert said.streams == {OUT: b"by the engine", ERR: b"err\n"}
        assert await ended(program) == 0
    assert _names(tmp_path) == []


async def test_words_of_an_engine_that_starts_no_shell(made: Callable[[], Pipes]) -> None:
    class Refusing(Program):
        async def output(self) -> AsyncIterator[bytes]:
            yield b"\x01exec failed: no /bin/sh"

    said = Said()
    with made() as pipes:
        await Piped(cast("Exec", Refusing(pipes, Path(), "")), pipes).output(said.take)
    assert said.streams[OUT] == b"exec failed: no /bin/sh"


async def test_output_goes_on_after_stderr_is_closed(tmp_path: Path, made: Callable[[], Pipes]) -> None:
    said = Said()
    with made() as pipes:
        piped, program = await begun(tmp_path, pipes, "exec 2>&-; echo begun; read line; echo $line")
        hearing = asyncio.create_task(piped.output(said.take))
        while not program.looks:
            await asyncio.sleep(0.01)
        await piped.write(b"goes on\n")
        await hearing
        assert said.streams[OUT] == b"begun\ngoes on\n"
        assert await ended(program) == 0


async def test_what_a_program_leaves_behind_does_not_hold_its_end(
    tmp_path: Path, made: Callable[[], Pipes]
) -> None:
    said = Said()
    with made() as pipes:
        piped, program = await begun(
            tmp_path, pipes, "exec 2>&-; sleep 60 & echo $!; head -c 100000 /dev/zero; exit 3"
        )
        await asyncio.wait_for(piped.output(said.take), 30)
        number, _, zeros = said.streams[OUT].partition(b"\n")
        assert zeros == bytes(100_000)
        os.kill(int(number), 9)
        assert await ended(program) == 3


async def test_a_slow_reader_holds_up_the_program(tmp_path: Path, made: Callable[[], Pipes]) -> None:
    said, go_on = Said(), asyncio.Event()

    async def take(stream: int, data: bytes) -> None:
        if stream == OUT:
            await go_on.wait()
        await said.take(stream, data)

    with made() as pipes:
        piped, program = await begun(tmp_path, pipes, "head -c 1000000 /dev/zero; echo all >&2")
        hearing = asyncio.create_task(piped.output(take))
        while not _is_full(pipes):
            await asyncio.sleep(0.01)
        assert said.streams[ERR] == b""
        go_on.set()
        await hearing
        assert said.streams == {OUT: bytes(1_000_000), ERR: b"all\n"}
        assert await ended(program) == 0


async def test_a_program_that_reads_no_more_loses_what_is_written(
    tmp_path: Path, made: Callable[[], Pipes]
) -> None:
    said = Said()
    with made() as pipes:
        piped, program = await begun(tmp_path, pipes, "exec <&-; echo closed; sleep 0.2")
        hearing = asyncio.create_task(piped.output(said.take))
        await piped.write(bytes(MUCH))
        await hearing
        assert await ended(program) == 0


async def test_none_is_left_open(tmp_path: Path, made: Callable[[], Pipes]) -> None:
    before = len(_names(Path("/proc/self/fd")))
    with made():
        assert len(_names(tmp_path)) == 2
    assert _names(tmp_path) == []
    assert len(_names(Path("/proc/self/fd"))) == before


def test_no_link_is_followed_and_nothing_else_is_given(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("mine", "utf-8")
    (tmp_path / "secret").chmod(0o600)
    (tmp_path / "taken").symlink_to(tmp_path / "secret")
    with pytest.raises(FileExistsError):
        given.pipe(tmp_path, "taken", os.getuid())
    with pytest.raises(OSError, match="in use"):
        given.listener(tmp_path, "taken", None)
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


def _is_full(pipes: Pipes) -> bool:
    """Whether the program can write no more, but for what a page or two of a pipe leave empty."""
    (waiting,) = struct.unpack("i", fcntl.ioctl(pipes._output, termios.FIONREAD, bytes(4)))
    return bool(waiting > fcntl.fcntl(pipes._output, fcntl.F_GETPIPE_SZ) - (1 << 14))


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]
