"""Programs in containers, run from here: raw bytes over a WebSocket, and the exit code.

While a terminal is open every key goes to the program, Ctrl-C too; `hakuriver_cli.lasting` has those that a person types in.
The protocol is that of `hakuriver.terminals`.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pydantic import ValidationError
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from hakuriver import models
from hakuriver.client import wire
from hakuriver.closing import error_said
from hakuriver.errors import HakuRiverError, NotFoundError, UsageError
from hakuriver.exchange import EOF, WINDOW, Owed, order_of
from hakuriver.problems import said
from hakuriver_cli.lasting import LOST, LastingTerminal
from hakuriver_cli.sockets import opened, refusal
from hakuriver_cli.window import NO_WINDOW, raw_mode, resizing, size_of_window

if TYPE_CHECKING:
    from hakuriver.models.environments import TerminalStart
    from hakuriver_cli.session import Session

_PIECE = 1 << 15
_MESSAGE = 1 << 18
"""Bytes of a message; daemons take 1 MiB."""
_STDERR = 2
_NOT_RUN = {126, 127}
"""Exit codes of programs that are not there, or cannot be run."""


def run_terminal(
    session: Session,
    door: str,
    argv: list[str],
    *,
    tty: bool,
    stdin: bool,
    user: str | None = None,
    working_dir: str | None = None,
    env_vars: Mapping[str, str] | None = None,
) -> int:
    """Runs a command (the shell, when none is given) with this process's input and output; gives its exit code.

    `door` is the path of the terminal: `environment_door` or `task_door`.
    """
    raw = tty and sys.stdin.isatty()
    if tty and stdin and not raw:
        raise UsageError(
            "standard input is no terminal", "in a script name a command, which needs none: `… -i -- COMMAND`"
        )
    columns, rows = size_of_window() if tty else NO_WINDOW
    wanted = _wanted(
        argv=argv,
        tty=tty,
        stdin=stdin,
        rows=rows,
        columns=columns,
        user=user,
        working_dir=working_dir,
        env_vars=dict(env_vars or {}),
        resumable=raw and stdin,
    )
    if wanted.resumable:
        address = wire.address_of(session.settings, session.common.config)
        return LastingTerminal(partial(opened, address, door), wanted).run()
    with _opened(session, door) as socket:
        _begin(socket, wanted)
        with (
            raw_mode() if raw else contextlib.nullcontext(),
            resizing(partial(_quietly, socket)) if tty else contextlib.nullcontext(),
        ):
            credit = Credit()
            if stdin:
                threading.Thread(target=_send_input, args=(socket, credit), daemon=True).start()
            return _receive(socket, _writer(tty=tty), credit)


def run_quietly(session: Session, door: str, argv: list[str]) -> int:
    """Runs a command without input and output."""
    with _opened(session, door) as socket:
        _begin(socket, models.environments.TerminalStart(argv=argv, tty=False, stdin=False))
        return _receive(socket, lambda _: None, Credit())


def environment_door(name: str) -> str:
    return f"environments/{quote(name, safe='')}/terminal"


def task_door(task_id: int) -> str:
    return f"tasks/{task_id}/terminal"


def piped(session: Session, door: str, argv: list[str], given: Iterable[bytes] = ()) -> Generator[bytes]:
    """Runs a program on what is given; gives what it writes to stdout, piece by piece.

    Raises:
        NotFoundError: it says that there is no such file.
        HakuRiverError: it fails, or is not there.
    """
    wanted = _wanted(argv=argv, tty=False, stdin=True, env_vars={"LC_ALL": "C"})
    problems: list[HakuRiverError] = []
    said, credit, owed = bytearray(), Credit(), Owed()
    with _opened(session, door) as socket:

        def send() -> None:
            with contextlib.suppress(ConnectionClosed):
                try:
                    for piece in given:
                        for start in range(0, len(piece), _MESSAGE):
                            credit.send(socket, piece[start : start + _MESSAGE])
                    socket.send(EOF)
                except HakuRiverError as error:
                    problems.append(error)
                    socket.close()

        _begin(socket, wanted)
        sending = threading.Thread(target=send, daemon=True)
        sending.start()
        try:
            while (code := _code(message := socket.recv(), credit)) is None:
                if not isinstance(message, bytes):
                    continue
                if message[0] == _STDERR:
                    said += message[1:]
                else:
                    yield message[1:]
                _tell(socket, owed, len(message))
        except ConnectionClosed:
            sending.join()
            if problems:
                raise problems[0] from None
            raise
    if code != 0:
        raise _failure(argv[0], code, said.decode("utf-8", "replace").strip())


def _failure(program: str, code: int, said: str) -> HakuRiverError:
    if code in _NOT_RUN:
        return HakuRiverError(
            f"there is no {program} in the task's environment", "install it there, and submit anew"
        )
    line = said.splitlines()[0] if said else f"{program} ended with exit code {code}"
    if "No such file" in said:
        return NotFoundError(line, "check the path")
    return HakuRiverError(line, "check the path and its permissions")


@contextlib.contextmanager
def _opened(session: Session, door: str) -> Iterator[ClientConnection]:
    address = wire.address_of(session.settings, session.common.config)
    socket = opened(address, door)
    try:
        with socket:
            yield socket
    except ConnectionClosed as error:
        raise refusal(error) from None


def _begin(socket: ClientConnection, wanted: TerminalStart) -> None:
    _quietly(socket, wanted.model_dump_json(exclude={"resumable"}))


def _quietly(socket: ClientConnection, message: str) -> None:
    # A socket that is closed already says why to who reads it.
    with contextlib.suppress(ConnectionClosed):
        socket.send(message)


def _receive(socket: ClientConnection, write: Callable[[bytes], None], credit: Credit) -> int:
    """Until the program ends."""
    owed = Owed()
    while (code := _code(message := socket.recv(), credit)) is None:
        if isinstance(message, bytes):
            write(message)
            _tell(socket, owed, len(message))
    return code


def _code(message: str | bytes, credit: Credit) -> int | None:
    """The exit code, when it comes. Raises what a message says to be wrong; what is not known is left aside."""
    if isinstance(message, bytes):
        return None
    told = order_of(message)
    if error := error_said(told):
        raise error
    if told.get("type") == "more":
        credit.add(int(told["bytes"]))
    if told.get("type") == "exit":
        return int(told["code"]) if told.get("code") is not None else LOST
    return None


def _tell(socket: ClientConnection, owed: Owed, size: int) -> None:
    if message := owed.add(size):
        _quietly(socket, message)


class Credit:
    """How much may be sent: see `hakuriver.exchange`."""

    def __init__(self) -> None:
        self._bytes = WINDOW
        self._changed = threading.Condition()

    def add(self, size: int) -> None:
        with self._changed:
            self._bytes += size
            self._changed.notify()

    def send(self, socket: ClientConnection, data: bytes) -> None:
        """Sends it, once any credit is left."""
        with self._changed:
            self._changed.wait_for(lambda: self._bytes > 0)
            self._bytes -= len(data)
        socket.send(data)


def _wanted(**fields: Any) -> TerminalStart:
    try:
        return models.environments.TerminalStart(**fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UsageError(f"{first['loc'][0]}: {said(first)}", "see the command's --help") from None


def _writer(*, tty: bool) -> Callable[[bytes], None]:
    def write(data: bytes) -> None:
        if tty:
            left = memoryview(data)
            while left:
                left = left[os.write(1, left) :]
            return
        file = sys.stderr.buffer if data[0] == _STDERR else sys.stdout.buffer
        file.write(data[1:])
        file.flush()

    return write


def _send_input(socket: ClientConnection, credit: Credit) -> None:
    with contextlib.suppress(ConnectionClosed, OSError):
        while data := os.read(0, _PIECE):
            credit.send(socket, data)
        socket.send(EOF)
