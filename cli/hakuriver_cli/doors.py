"""The way into running tasks: `hakuriver task shell | exec`, `hakuriver connect`, `hakuriver forward`."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import re
import signal
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, TextIO

from cyclopts import Parameter
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from hakuriver.client import wire
from hakuriver.closing import DONE
from hakuriver.errors import ConflictError, DeniedError, HakuRiverError, UsageError
from hakuriver.exchange import GoneError
from hakuriver.forwards import carry
from hakuriver.roles import Role
from hakuriver.states import TaskState
from hakuriver_cli.copying import copy_with_task
from hakuriver_cli.errors import report
from hakuriver_cli.options import (
    COMMON,
    Common,
    Interactive,
    TaskIdOption,
    TaskOrVps,
    Tty,
    Variables,
    Workdir,
)
from hakuriver_cli.session import Session
from hakuriver_cli.sockets import FAILURES, options_of, refusal, unopened
from hakuriver_cli.submitting import variables
from hakuriver_cli.tasks import ending
from hakuriver_cli.terminal import run_terminal, task_door

_PORTS = re.compile(r"(?:(?P<local>[0-9]{1,5}):)?(?P<remote>[0-9]{1,5})")
_HIGHEST = 65_535
INTERRUPTED = 130


def shell(reference: TaskOrVps, /, *, common: Common = COMMON) -> int:
    """Open a shell in the container of a running task or VPS, as the task's user; ends with the shell's exit code.

    It goes on over a lost connection for a while, and ends with the task.
    """
    session = Session(common)
    return run_terminal(session, task_door(session.task_id(reference)), [], tty=True, stdin=True)


def execute(
    task_id: TaskIdOption,
    /,
    *command_line: Annotated[
        str, Parameter(name="COMMAND", help="The command and its arguments.", allow_leading_hyphen=True)
    ],
    interactive: Interactive = False,
    tty: Tty = False,
    workdir: Workdir = None,
    env: Variables = (),
    common: Common = COMMON,
) -> int:
    """Run a command in the container of a running task, as the task's user; ends with its exit code."""
    words = command_line[1:] if command_line[:1] == ("--",) else command_line
    if not words:
        raise UsageError("no command is given", f"such as: hakuriver task exec {task_id} -- ps aux")
    return run_terminal(
        Session(common),
        task_door(task_id),
        [*words],
        tty=tty,
        stdin=interactive,
        working_dir=workdir,
        env_vars=variables(env, ()),
    )


def forward(
    reference: TaskOrVps,
    /,
    *ports: Annotated[
        str,
        Parameter(
            name="[LOCAL:]PORT", help="Port in the task; LOCAL is the port here (0: any that is free)."
        ),
    ],
    address: Annotated[str, Parameter(help="Where to listen here.")] = "127.0.0.1",
    common: Common = COMMON,
) -> int:
    """Reach ports of a running task from this machine, until Ctrl-C or the end of the task.

    A port of the task's own loopback is reached too. Each line on stdout names where one listens here.
    """
    if not ports:
        raise UsageError("no port is given", f"such as: hakuriver forward {reference} 8888")
    wanted = [_parsed(text) for text in ports]
    session = Session(common)
    task_id = session.task_id(reference)
    task = session.client.task(task_id)
    me = session.client.whoami()
    shared = session.client.vps(str(task_id)).shared_with if task.task_type == "vps" else []
    if me.name not in {task.owner, *shared} and me.role is not Role.ADMIN:
        raise DeniedError(f"task {task_id} belongs to {task.owner}", "ask its owner or an admin")
    if task.status is not TaskState.RUNNING:
        why = f": {task.error_message}" if task.error_message else ""
        raise ConflictError(
            f"task {task_id} is {task.status}{why}", f"see `hakuriver task explain {task_id}`"
        )
    return asyncio.run(_Forward(session, task_id, address).serve(wanted))


def cp(
    source: Annotated[
        str,
        Parameter(name="SOURCE", help="A path here, or ID:/PATH in a running task, or NAME:/PATH in a VPS."),
    ],
    target: Annotated[str, Parameter(name="TARGET", help="The other of the two.")],
    /,
    *,
    common: Common = COMMON,
) -> None:
    """Copy files and folders into a running task or out of it, as the task's user.

    Links that lead out of what is copied, and devices, do not come out with the rest: they are named.
    """
    copy_with_task(Session(common), source, target)


@dataclass(frozen=True, slots=True)
class _Ports:
    local: int
    remote: int


def _parsed(text: str) -> _Ports:
    found = _PORTS.fullmatch(text)
    ports = _Ports(int(found["local"] or found["remote"]), int(found["remote"])) if found else _Ports(-1, -1)
    if not (0 <= ports.local <= _HIGHEST and 1 <= ports.remote <= _HIGHEST):
        raise UsageError(f"{text!r} is not PORT or LOCAL:PORT", "ports are 1 to 65535, such as 8888:80")
    return ports


class _Forward:
    """Listens here, and carries each connection over a WebSocket of its own."""

    def __init__(self, session: Session, task_id: int, address: str) -> None:
        self._session, self._task_id, self._listen_on = session, task_id, address
        self._host = wire.address_of(session.settings, session.common.config)

    async def serve(self, wanted: list[_Ports]) -> int:
        async with contextlib.AsyncExitStack() as stack:
            for ports in wanted:
                server = await self._server(ports)
                # Not entered: its end would wait for connections, which may be there for ever.
                stack.callback(server.close)
                where = server.sockets[0].getsockname()
                _tell(
                    self._session.printer.out,
                    f"{where[0]}:{where[1]} is port {ports.remote} of task {self._task_id}",
                )
            return await self._until_over()

    async def _until_over(self) -> int:
        """The exit code: at the end of the task, or when the person ends it."""
        told = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, told.set)
        async with self._session.async_client() as client:
            waiting = asyncio.create_task(client.wait([self._task_id]))
            stopping = asyncio.create_task(told.wait())
            await asyncio.wait({waiting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)
                return INTERRUPTED
            stopping.cancel()
            self._session.printer.say(ending(waiting.result()[self._task_id]))
            return 0

    async def _server(self, ports: _Ports) -> asyncio.Server:
        try:
            return await asyncio.start_server(
                partial(self._carry, ports.remote), self._listen_on, ports.local
            )
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ConflictError(
                    f"port {ports.local} is in use here", f"take another: 0:{ports.remote} finds one"
                ) from None
            raise ConflictError(
                f"cannot listen on {self._listen_on}:{ports.local} ({error.strerror})",
                "check --address and the port",
            ) from None

    async def _carry(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            url = f"{self._host.web_socket_url}/api/tasks/{self._task_id}/forward/{port}"
            try:
                socket = await connect(url, **options_of(self._host))
            except FAILURES as error:
                raise unopened(self._host, error) from None
            async with socket:
                await carry(_Talker(socket), reader, writer, patient=True)
        except GoneError:
            return
        except HakuRiverError as error:
            report(error, self._session.printer.err)
        finally:
            writer.close()


class _Talker:
    """The client's end of a WebSocket, as ASGI has the server's."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    async def receive(self) -> dict[str, Any]:
        try:
            message = await self._socket.recv()
        except ConnectionClosed as error:
            if error.rcvd is not None and error.rcvd.code == DONE:
                return {"type": "websocket.disconnect"}
            raise refusal(error) from None
        return {"type": "websocket.receive", "bytes" if isinstance(message, bytes) else "text": message}

    async def receive_text(self) -> str:
        return str((await self.receive())["text"])

    async def send_bytes(self, data: bytes) -> None:
        await self._send(data)

    async def send_text(self, data: str) -> None:
        await self._send(data)

    async def _send(self, data: str | bytes) -> None:
        # Why it is closed is for who receives.
        with contextlib.suppress(ConnectionClosed):
            await self._socket.send(data)


def _tell(out: TextIO, line: str) -> None:
    out.write(f"{line}\n")
    out.flush()
