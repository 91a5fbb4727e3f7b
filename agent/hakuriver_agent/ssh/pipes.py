"""Input and output of a program in a VPS by named pipes: from the Runner to the program, and nobody between.

What goes through the engine is copied three times more, in two processes, and is framed in pieces as small as the
program writes them: of a file transfer that was the largest part. So a program without a terminal is started by a shell
that takes the two pipes in place of the engine's, and says first on the engine's output whether it could. Its stderr
stays with the engine, as does everything where it could not.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Self

from hakuriver.terminals import Exec
from hakuriver_agent.engines.docker_request import VPS_SOCKETS
from hakuriver_agent.ssh import given

_TAKEN, _NOT_TAKEN = b"+\n", b"-\n"
_SCRIPT = (
    "if (: <{input} >{output}) 2>/dev/null; then exec 3>&1 <{input} >{output}; echo + >&3; exec 3>&-; "
    "else echo -; fi; "
)
_STDOUT = 1
_CAPACITY = 1 << 18
_PIECE = (1 << 15) - 80
"""Read at once: with what SSH puts around it, a packet of the gateway's, around it."""
_AT_ONCE = 7
"""Pieces that are read before the loop looks after others; so many go on together (`hakuriver.gathering`)."""
_LOOK_SECONDS = 0.5


class Pipes:
    """The pipes of one program. What starts it begins with `script`."""

    def __init__(self, folder: Path, uid: int | None) -> None:
        """Makes them in the folder of a VPS's sockets, for a user of it.

        Raises:
            OSError: they cannot be made.
        """
        name = f"pipe-{secrets.token_hex(6)}"
        self._paths = [folder / f"{name}-in", folder / f"{name}-out"]
        self._open = set[int]()
        self._readable = asyncio.Event()
        self._over = False
        try:
            self._far_input, self._input = self._make(self._paths[0], uid)
            self._output, self._far_output = self._make(self._paths[1], uid)
        except OSError:
            self.close()
            raise
        read, write = (f"{VPS_SOCKETS}/{path.name}" for path in self._paths)
        self.script = _SCRIPT.format(input=read, output=write)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def taken(self) -> None:
        """The program has its ends; nobody else needs to find them."""
        self._unlink()
        self._shut(self._far_input)
        self._shut(self._far_output)

    async def output(self) -> AsyncIterator[bytes]:
        """What comes, until nobody holds the far end any more."""
        read = 0
        while data := await self._read():
            yield data
            read += 1
            if read % _AT_ONCE == 0:
                await asyncio.sleep(0)

    def end(self) -> None:
        """The program has ended: of the output only what is in the pipe is its own."""
        self._over = True
        self._readable.set()

    async def write(self, data: bytes) -> None:
        """What a program that has ended, or reads no more, does not take is no error."""
        rest = memoryview(data)
        while rest and self._input in self._open:
            try:
                rest = rest[os.write(self._input, rest) :]
            except BlockingIOError:
                await self._until_writable()
            except OSError:
                return

    def write_eof(self) -> None:
        self._shut(self._input)

    def close(self) -> None:
        self._unlink()
        for descriptor in tuple(self._open):
            self._shut(descriptor)

    async def _read(self) -> bytes:
        loop = asyncio.get_running_loop()
        while True:
            try:
                return os.read(self._output, _PIECE)
            except BlockingIOError:
                if self._over:
                    return b""
            self._readable.clear()
            loop.add_reader(self._output, self._readable.set)
            try:
                await self._readable.wait()
            finally:
                loop.remove_reader(self._output)

    async def _until_writable(self) -> None:
        loop, writable = asyncio.get_running_loop(), asyncio.Event()
        loop.add_writer(self._input, writable.set)
        try:
            await writable.wait()
        finally:
            loop.remove_writer(self._input)

    def _make(self, path: Path, uid: int | None) -> tuple[int, int]:
        ends = given.pipe(path.parent, path.name, uid)
        self._open.update(ends)
        with contextlib.suppress(OSError):  # More than is left of what a user may have (pipe(7)).
            fcntl.fcntl(ends[0], fcntl.F_SETPIPE_SZ, _CAPACITY)
        return ends

    def _shut(self, descriptor: int) -> None:
        if descriptor in self._open:
            self._open.remove(descriptor)
            os.close(descriptor)

    def _unlink(self) -> None:
        for path in self._paths:
            with contextlib.suppress(OSError):
                path.unlink()


class Piped:
    """A program that was started with pipes, whether it has taken them or not."""

    def __init__(self, program: Exec, pipes: Pipes) -> None:
        self._program, self._pipes = program, pipes
        self._has_pipes = False
        self._begun = asyncio.Event()

    async def output(self, write: Callable[[int, bytes], Awaitable[None]]) -> None:
        """Hands on what it says on stdout (1) and stderr (2), until it has said all or has ended."""
        said = self._program.output()
        await self._begin(said, write)
        engines = asyncio.create_task(_hand_on(said, write))
        pending = {engines}
        if self._has_pipes:
            pending.add(asyncio.create_task(self._hand_on_piped(write)))
        carrying = frozenset(pending)
        try:
            while pending:
                # Its stderr may have ended before it; or it has ended, and what it leaves behind holds its stdout.
                done, pending = await asyncio.wait(
                    pending,
                    timeout=_LOOK_SECONDS if engines.done() else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for task in done:
                    task.result()
                if not done and not await self._program.runs():
                    self._pipes.end()
        finally:
            for task in carrying:
                task.cancel()
            await asyncio.gather(*carrying, return_exceptions=True)

    async def write(self, data: bytes) -> None:
        await self._begun.wait()
        await (self._pipes if self._has_pipes else self._program).write(data)

    async def write_eof(self) -> None:
        await self._begun.wait()
        (self._pipes if self._has_pipes else self._program).write_eof()

    async def _begin(
        self, said: AsyncIterator[bytes], write: Callable[[int, bytes], Awaitable[None]]
    ) -> None:
        """Until it is known which way its input and output go."""
        async for data in said:
            if data[0] != _STDOUT:
                await write(data[0], data[1:])
                continue
            self._has_pipes = data[1:] == _TAKEN
            if not self._has_pipes:
                # The engine says there, too, why it can start no shell.
                await write(_STDOUT, data[1:].removeprefix(_NOT_TAKEN))
            break
        if self._has_pipes:
            self._pipes.taken()
        self._begun.set()

    async def _hand_on_piped(self, write: Callable[[int, bytes], Awaitable[None]]) -> None:
        async for data in self._pipes.output():
            await write(_STDOUT, data)


async def _hand_on(said: AsyncIterator[bytes], write: Callable[[int, bytes], Awaitable[None]]) -> None:
    async for data in said:
        await write(data[0], data[1:])
