"""Terminals: a program run in a container, and its talk with a person over a WebSocket, raw bytes both ways.

The Host serves them of environments, the Runner of tasks; what differs is the client of the engine.

The first message of a terminal is a `TerminalStart` (JSON); then binary messages are input, and text messages are
`{"type": "resize", "rows": R, "columns": C}` and those of `hakuriver.exchange`. What comes back is binary output
(without a tty each message begins with 1 for stdout or 2 for stderr), then `{"type": "exit", "code": N}` as text.

A terminal ends with its connection. One with a tty whose `TerminalStart` says `resumable` goes on over a lost one: see
`hakuriver.sessions`. That field is sent only where it is true: a daemon that does not know it refuses the message before it
starts anything, and a client asks anew without it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hakuriver.errors import HakuRiverError, NotFoundError, UsageError
from hakuriver.exchange import Exchange, Talker, order_of
from hakuriver.models.environments import TerminalResume, TerminalStart
from hakuriver.sessions import Place
from hakuriver.threads import start_thread

START_SECONDS = 30.0
"""For the first message to come."""

_PIECE = 1 << 18
_HEADER = struct.Struct(">BxxxL")
"""Stream and length before each piece, without a tty: ContainerAttach in the engine API's reference."""
_SHELL = ["sh", "-c", "command -v bash >/dev/null 2>&1 && exec bash -il || exec sh -il"]
_MAX_SIDE = 10_000
_LOOK_SECONDS = 0.02
_END_LOOKS = 100
_PID_LOOKS = 1500
_FIRST_DELAY, _LONGEST_DELAY = 0.5, 30.0
"""Seconds between the tries to end a program in a container that takes no orders now."""
_background: set[asyncio.Task[None]] = set()
"""What is done for those who are gone; asyncio itself does not keep hold of tasks."""
_SIGNAL = "kill -s {name} -- -{pid} 2>/dev/null || kill -s {name} {pid}"
_HANG_UP = "kill -HUP -{pid} {pid} 2>/dev/null; sleep 1; kill -KILL -{pid} {pid} 2>/dev/null"


class ContainerExecs:
    """One container, in which programs can be run. Every method blocks, and raises HakuRiverError in words.

    `client` gives the API client of the Docker SDK, untyped as most of its methods are. `words` turns the SDK's errors
    into ours; it is told what is being done.
    """

    def __init__(
        self,
        client: Callable[[], Any],
        container: str,
        words: Callable[[str], contextlib.AbstractContextManager[None]],
    ) -> None:
        self._client, self._container, self._words = client, container, words

    def start_exec(
        self,
        argv: list[str],
        *,
        tty: bool,
        stdin: bool,
        environment: dict[str, str],
        working_dir: str | None,
        user: str | None,
    ) -> tuple[str, Any]:
        """Starts a program; its id, and the SDK's connection that is its input and output."""
        with self._words(f"running {argv[0]}"):
            client = self._client()
            made = client.exec_create(
                self._container,
                argv,
                tty=tty,
                stdin=stdin,
                environment=environment,
                workdir=working_dir,
                user=user or "",
            )["Id"]
            return made, client.exec_start(made, tty=tty, socket=True)

    def inspect_exec(self, exec_id: str) -> dict[str, Any]:
        with self._words("looking at a program"):
            state: dict[str, Any] = self._client().exec_inspect(exec_id)
            return state

    def resize_exec(self, exec_id: str, rows: int, columns: int) -> None:
        with self._words("resizing a terminal"):
            self._client().exec_resize(exec_id, height=rows, width=columns)

    def run(self, argv: list[str], user: str | None = None) -> tuple[int, bytes]:
        """Runs a short command, as the container's own user unless one is named; its exit code and stdout."""
        with self._words(f"running {argv[0]}"):
            client = self._client()
            made = client.exec_create(self._container, argv, stderr=False, user=user or "")["Id"]
            output: bytes = client.exec_start(made)
            return int(client.exec_inspect(made)["ExitCode"]), output


async def start_exec(engine: ContainerExecs, wanted: TerminalStart) -> Exec:
    """Starts a program, or the container's shell.

    The engine's connection is taken over from the SDK once it has been upgraded (ExecStart in the API's reference):
    its socket is read and written by asyncio, so that a terminal costs no thread.
    """
    argv = wanted.argv or _SHELL

    def work() -> tuple[str, socket.socket, bytes, Any]:
        exec_id, connection = engine.start_exec(
            argv,
            tty=wanted.tty,
            stdin=wanted.stdin,
            environment={**({"TERM": "xterm-256color"} if wanted.tty else {}), **wanted.env_vars},
            working_dir=wanted.working_dir,
            user=wanted.user,
        )
        raw: socket.socket = getattr(connection, "_sock", connection)
        raw.setblocking(False)
        return exec_id, raw, _read_ahead(connection), connection

    def let_go(started: asyncio.Future[tuple[str, socket.socket, bytes, Any]]) -> None:
        if not started.cancelled() and started.exception() is None:
            exec_id, raw, _, _ = started.result()
            raw.close()
            _in_background(_Program(engine, exec_id, wanted.user).hang_up())

    starting = asyncio.ensure_future(start_thread(work))
    try:
        exec_id, raw, begun, connection = await asyncio.shield(starting)
    except asyncio.CancelledError:
        # It starts all the same: then it is ended.
        starting.add_done_callback(let_go)
        raise
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=_PIECE)
    reader.feed_data(begun)
    protocol = asyncio.StreamReaderProtocol(reader)
    transport, _ = await loop.create_connection(lambda: protocol, sock=raw)
    writer = asyncio.StreamWriter(transport, protocol, reader, loop)
    program = _Program(engine, exec_id, wanted.user)
    running = Exec(program, reader, writer, connection, tty=wanted.tty)
    if wanted.tty:
        try:
            await running.resize(wanted.rows, wanted.columns)
        except BaseException:
            await asyncio.shield(running.hang_up())
            raise
    return running


class _Program:
    """A program that was started in a container, as the engine knows it.

    Orders to it go out as the user that it runs as: the container's own may be another, who may not send it signals.
    """

    def __init__(self, engine: ContainerExecs, exec_id: str, user: str | None) -> None:
        self._engine, self._id, self._user = engine, exec_id, user

    async def state(self) -> dict[str, Any]:
        return await start_thread(lambda: self._engine.inspect_exec(self._id))

    async def resize(self, rows: int, columns: int) -> None:
        await start_thread(lambda: self._engine.resize_exec(self._id, rows, columns))

    async def order(self, script: str, **values: str) -> None:
        """Runs a script beside it, in which `{pid}` stands for its number; not where it has ended."""
        if pid := await self._pid():
            await self._run(script.format(pid=pid, **values))

    async def hang_up(self) -> None:
        """Ends it; where its container is paused, once that goes on."""
        if not await self._hung_up():
            _in_background(self._hang_up_later())

    async def _hang_up_later(self) -> None:
        delay = _FIRST_DELAY
        while not await self._hung_up():
            await asyncio.sleep(delay)
            delay = min(2 * delay, _LONGEST_DELAY)

    async def _hung_up(self) -> bool:
        """Whether nothing is left to do: it was ended, has ended by itself, or the engine knows nothing of it any more."""
        try:
            pid = await self._pid()
        except HakuRiverError:
            return True
        if pid is None:
            return True
        try:
            await self._run(_HANG_UP.format(pid=pid))
        except HakuRiverError:
            return False
        return True

    async def _run(self, script: str) -> None:
        await start_thread(lambda: self._engine.run(["sh", "-c", script], self._user))

    async def _pid(self) -> int | None:
        """Its number in the container; none once it has ended.

        The engine learns the number a moment after it says that the program runs, which may have written by then.
        """
        for _ in range(_PID_LOOKS):
            state = await self.state()
            if not state["Running"]:
                return None
            if state["Pid"]:
                return _inner_pid(int(state["Pid"]))
            await asyncio.sleep(_LOOK_SECONDS)
        return None


class Frames:
    """What a program without a tty writes, as the engine frames it (see `_HEADER`), in as few pieces as may be.

    The engine makes a frame of each piece that it reads from the program, however small; all that has come by now of one
    stream goes on as one.
    """

    def __init__(self) -> None:
        self._begun = b""
        """A header that has not come whole."""
        self._stream = self._left = 0
        """Of the frame that is being read: whose it is, and how much of it is to come."""

    def feed(self, data: bytes) -> list[bytes]:
        """The pieces in it, each beginning with its stream."""
        data, place, pieces = self._begun + data, 0, list[list[bytes]]()
        self._begun, last = b"", 0
        while place < len(data):
            if not self._left:
                header = data[place : place + _HEADER.size]
                if len(header) < _HEADER.size:
                    self._begun = header
                    break
                self._stream, self._left = _HEADER.unpack(header)
                place += _HEADER.size
                continue
            part = data[place : place + self._left]
            place, self._left = place + len(part), self._left - len(part)
            if self._stream != last or not pieces:
                last = self._stream
                pieces.append([bytes([last])])
            pieces[-1].append(part)
        return [b"".join(parts) for parts in pieces]


class Exec:
    """One running program."""

    def __init__(
        self,
        program: _Program,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        connection: Any,
        *,
        tty: bool,
    ) -> None:
        self._program = program
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
        frames = Frames()
        while data := await self._reader.read(_PIECE):
            for piece in frames.feed(data):
                yield piece

    async def write(self, data: bytes) -> None:
        """What a program that has ended, or reads no more, does not take is no error."""
        with contextlib.suppress(OSError, RuntimeError):
            self._writer.write(data)
            await self._writer.drain()

    def write_eof(self) -> None:
        with contextlib.suppress(OSError, RuntimeError, NotImplementedError):
            self._writer.write_eof()

    async def resize(self, rows: object, columns: object) -> None:
        if not (isinstance(rows, int) and isinstance(columns, int)):
            raise UsageError("a terminal's size is rows and columns", "send two whole numbers")
        if self._tty and 0 < rows <= _MAX_SIDE and 0 < columns <= _MAX_SIDE:
            with contextlib.suppress(HakuRiverError):  # It may have ended.
                await self._program.resize(rows, columns)

    async def exit_code(self) -> int | None:
        """After its output has ended."""
        for _ in range(_END_LOOKS):
            state = await self._program.state()
            if not state["Running"]:
                return None if state["ExitCode"] is None else int(state["ExitCode"])
            # Its output ends a moment before the engine notes its end.
            await asyncio.sleep(_LOOK_SECONDS)
        return None

    async def runs(self) -> bool:
        state = await self._program.state()
        return bool(state["Running"])

    async def signal(self, name: str) -> None:
        """Sends it a signal, named without SIG, and what it started in its process group."""
        with contextlib.suppress(HakuRiverError):
            await self._program.order(_SIGNAL, name=name)

    async def hang_up(self) -> None:
        """Ends what still runs, as the line of a terminal that goes dead does: SIGHUP, then SIGKILL.

        The connection is closed first: the engine keeps a container's events in order, and does not get past the end of
        a program whose output nobody takes.
        """
        self.close()
        await self._program.hang_up()

    def close(self) -> None:
        """At once, whatever is not written yet."""
        self._writer.transport.abort()


async def serve_terminal(
    talker: Talker,
    start: Callable[[TerminalStart], Awaitable[Exec]],
    asked: TerminalStart | None = None,
    *,
    windowed: bool = True,
    place: Place | None = None,
) -> None:
    """A terminal from its first message to the exit code. A person who goes away ends the program.

    With a `place` it may be resumable, and one that was begun there may be resumed.

    Raises:
        UsageError: it does not begin with what to run, or is not as agreed later.
        NotFoundError: what is to be resumed is over.
        ConflictError: another connection resumes it.
        GoneError: the person went away.
    """
    first = asked or await _first_message(talker)
    if isinstance(first, TerminalResume):
        if place is None:
            raise NotFoundError("no terminal is resumed here", "open a new one")
        await place.sessions.resume(talker, place, first)
        return
    running = await start(first)
    if place is not None and place.sessions.seconds and first.resumable and first.tty:
        await place.sessions.begin(talker, place, running)
        return

    async def take(order: dict[str, Any]) -> None:
        if order.get("type") == "resize":
            await running.resize(order.get("rows"), order.get("columns"))

    try:
        await Exchange(talker, windowed=windowed).run(
            running.output(), running.write, running.write_eof, take, both=False
        )
        code = await running.exit_code()
    except BaseException:
        await asyncio.shield(running.hang_up())
        raise
    finally:
        running.close()
    await talker.send_text(json.dumps({"type": "exit", "code": code}))


async def _first_message(talker: Talker) -> TerminalStart | TerminalResume:
    try:
        async with asyncio.timeout(START_SECONDS):
            text = await talker.receive_text()
        kind = TerminalResume if "session" in order_of(text) else TerminalStart
        return kind.model_validate_json(text)
    except (ValidationError, KeyError, TimeoutError):
        raise UsageError("a terminal begins with what to run", "send a TerminalStart as JSON") from None


def _in_background(work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.create_task(work)
    _background.add(task)
    task.add_done_callback(_background.discard)


def _read_ahead(connection: Any) -> bytes:
    """What the SDK has read with the answer's headers: the program may have written before they were looked at."""
    try:
        buffered = connection._response.raw._fp.fp  # noqa: SLF001 - the SDK keeps the answer there, and offers no other way
    except AttributeError:
        return b""
    return bytes(buffered.read1(len(waiting))) if (waiting := buffered.peek()) else b""


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
