"""A program run in an environment's container, with its input and output as streams of this loop.

The engine's connection is taken over from the SDK once it has been upgraded (ExecStart in the API's reference): its
socket is read and written by asyncio, so that a terminal costs no thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from hakuriver.errors import HakuRiverError, UsageError
from hakuriver.models.environments import TerminalStart
from hakuriver.threads import start_thread
from hakuriver_host.services.environments.engine import EnvContainer, HostEngine

_PIECE = 1 << 16
_HEADER = struct.Struct(">BxxxL")
"""Stream and length before each piece, without a tty: ContainerAttach in the API's reference."""
_SHELL = ["sh", "-c", "command -v bash >/dev/null 2>&1 && exec bash -il || exec sh -il"]
_MAX_SIDE = 10_000
_HANG_UP = "kill -HUP -{pid} {pid} 2>/dev/null; sleep 1; kill -KILL -{pid} {pid} 2>/dev/null"


async def start_exec(engine: HostEngine, container: EnvContainer, wanted: TerminalStart) -> Exec:
    """Starts a program, or the container's shell."""
    argv = wanted.argv or _SHELL

    def work() -> tuple[str, socket.socket, Any]:
        exec_id, connection = engine.start_exec(
            container,
            argv,
            tty=wanted.tty,
            stdin=wanted.stdin,
            environment={**({"TERM": "xterm-256color"} if wanted.tty else {}), **wanted.env_vars},
            working_dir=wanted.working_dir,
            user=wanted.user,
        )
        raw: socket.socket = getattr(connection, "_sock", connection)
        raw.settimeout(None)
        raw.setblocking(False)
        return exec_id, raw, connection

    exec_id, raw, connection = await start_thread(work)
    reader, writer = await asyncio.open_connection(sock=raw)
    running = Exec(engine, container, exec_id, reader, writer, connection, tty=wanted.tty)
    if wanted.tty:
        await running.resize(wanted.rows, wanted.columns)
    return running


class Exec:
    """One running program."""

    def __init__(
        self,
        engine: HostEngine,
        container: EnvContainer,
        exec_id: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        connection: Any,
        *,
        tty: bool,
    ) -> None:
        self._engine = engine
        self._container = container
        self._id = exec_id
        self._reader = reader
        self._writer = writer
        self._connection = connection
        """Kept: the SDK closes the socket with it."""
        self._tty = tty

    async def output(self) -> AsyncIterator[bytes]:
        """What it writes; without a tty each piece begins with 1 (stdout) or 2 (stderr)."""
        if self._tty:
            while data := await self._reader.read(_PIECE):
                yield data
            return
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                stream, length = _HEADER.unpack(await self._reader.readexactly(_HEADER.size))
                while length:
                    data = await self._reader.read(min(length, _PIECE))
                    if not data:
                        return
                    length -= len(data)
                    yield bytes([stream]) + data

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    def write_eof(self) -> None:
        with contextlib.suppress(OSError, NotImplementedError):
            self._writer.write_eof()

    async def resize(self, rows: object, columns: object) -> None:
        if not (isinstance(rows, int) and isinstance(columns, int)):
            raise UsageError("a terminal's size is rows and columns", "send two whole numbers")
        if self._tty and 0 < rows <= _MAX_SIDE and 0 < columns <= _MAX_SIDE:
            with contextlib.suppress(HakuRiverError):  # It may have ended.
                await start_thread(lambda: self._engine.resize_exec(self._id, rows, columns))

    async def exit_code(self) -> int | None:
        """After its output has ended."""
        for _ in range(100):
            state = await start_thread(lambda: self._engine.inspect_exec(self._id))
            if not state["Running"]:
                return None if state["ExitCode"] is None else int(state["ExitCode"])
            # Its output ends a moment before the engine notes its end.
            await asyncio.sleep(0.02)
        return None

    async def hang_up(self) -> None:
        """Ends what still runs, as the line of a terminal that goes dead does: SIGHUP, then SIGKILL."""
        with contextlib.suppress(HakuRiverError):
            state = await start_thread(lambda: self._engine.inspect_exec(self._id))
            if state["Running"] and (pid := _inner_pid(int(state["Pid"]))):
                order = ["sh", "-c", _HANG_UP.format(pid=pid)]
                await start_thread(lambda: self._engine.run(self._container, order))
        await self.close()

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(Exception):
            await self._writer.wait_closed()


def _inner_pid(pid: int) -> int | None:
    """The number that a process has in its own namespace (`NSpid` in /proc/PID/status, proc(5))."""
    try:
        status = Path(f"/proc/{pid}/status").read_text("ascii", "replace")
    except OSError:
        return None
    for line in status.splitlines():
        if line.startswith("NSpid:"):
            return int(line.split()[-1])
    return None
