"""The terminal's end here: raw bytes over a WebSocket, the window's size, and the exit code.

While a terminal is open every key goes to the program, Ctrl-C too. The protocol is that of `hakuriver.terminals`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect

from hakuriver.client import wire
from hakuriver.closing import error_said, error_told
from hakuriver.errors import HakuRiverError, UnreachableError, UsageError
from hakuriver.models.environments import TerminalStart
from hakuriver.version import VERSION_HEADER, __version__

if TYPE_CHECKING:
    from hakuriver_cli.session import Session

_PIECE = 1 << 15
_STDERR = 2
_LOST = 255
"""Exit code when the connection is lost, as ssh has it."""
_NO_WINDOW = (80, 24)
"""Columns and rows, when a script asks for a terminal and has none itself."""


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
    columns, rows = _size()
    wanted = TerminalStart(
        argv=argv,
        tty=tty,
        stdin=stdin,
        rows=rows,
        columns=columns,
        user=user,
        working_dir=working_dir,
        env_vars=dict(env_vars or {}),
    )
    with _opened(session, door) as socket:
        _begin(socket, wanted)
        with (
            _raw_mode() if raw else contextlib.nullcontext(),
            _resizing(socket) if tty else contextlib.nullcontext(),
        ):
            if stdin:
                threading.Thread(target=_send_input, args=(socket,), daemon=True).start()
            return _receive(socket, _writer(tty=tty))


def run_quietly(session: Session, door: str, argv: list[str]) -> int:
    """Runs a command without input and output."""
    with _opened(session, door) as socket:
        _begin(socket, TerminalStart(argv=argv, tty=False, stdin=False))
        return _receive(socket, lambda _: None)


def environment_door(name: str) -> str:
    return f"environments/{quote(name, safe='')}/terminal"


def task_door(task_id: int) -> str:
    return f"tasks/{task_id}/terminal"


def options_of(address: wire.Address) -> dict[str, Any]:
    """How both kinds of the library's `connect` reach the Host."""
    headers = {VERSION_HEADER: __version__}
    if address.token:
        headers["Authorization"] = f"Bearer {address.token}"
    secure = address.url.startswith("https:")
    return {
        "additional_headers": headers,
        "ssl": wire.tls_context(address.url, address.ca_file) if secure else None,
        "compression": None,
        "open_timeout": address.timeout,
        "max_size": None,
        "proxy": None,
    }


@contextlib.contextmanager
def _opened(session: Session, door: str) -> Iterator[ClientConnection]:
    address = wire.address_of(session.settings, session.common.config)
    try:
        socket = connect(f"{address.web_socket_url}/api/{door}", **options_of(address))
    except FAILURES as error:
        raise unopened(address, error) from None
    try:
        with socket:
            yield socket
    except ConnectionClosed as error:
        raise refusal(error) from None


FAILURES = (OSError, InvalidHandshake, WebSocketException)
"""What opening a WebSocket raises."""


def unopened(address: wire.Address, error: Exception) -> UnreachableError:
    if isinstance(error, InvalidStatus):
        return UnreachableError(
            f"the Host at {address.url} opens no terminals ({error.response.status_code})",
            "see that it is of this version: `hakuriver version`",
        )
    return UnreachableError(
        f"no Host answers at {address.url} ({getattr(error, 'strerror', None) or error})",
        "start one with `hakuriver up` or `hakuriver host`, or set client.url to where it runs",
    )


def _begin(socket: ClientConnection, wanted: TerminalStart) -> None:
    # A socket that is closed already says why to who reads it.
    with contextlib.suppress(ConnectionClosed):
        socket.send(wanted.model_dump_json())


def _receive(socket: ClientConnection, write: Callable[[bytes], None]) -> int:
    """Until the program ends."""
    while True:
        message = socket.recv()
        if isinstance(message, bytes):
            write(message)
            continue
        told: dict[str, Any] = json.loads(message)
        if error := error_said(told):
            raise error
        if told.get("type") == "exit":
            return int(told["code"]) if told.get("code") is not None else _LOST


def refusal(error: ConnectionClosed) -> HakuRiverError:
    close = error.rcvd
    return (close and error_told(close.code, close.reason)) or UnreachableError(
        f"the connection to the Host was lost{f' ({close.reason})' if close and close.reason else ''}",
        "see whether it still runs: `hakuriver status`",
    )


def _writer(*, tty: bool) -> Callable[[bytes], None]:
    def write(data: bytes) -> None:
        if tty:
            os.write(1, data)
            return
        file = sys.stderr.buffer if data[0] == _STDERR else sys.stdout.buffer
        file.write(data[1:])
        file.flush()

    return write


def _send_input(socket: ClientConnection) -> None:
    with contextlib.suppress(ConnectionClosed, OSError):
        while data := os.read(0, _PIECE):
            socket.send(data)
        socket.send(json.dumps({"type": "eof"}))


def _size() -> tuple[int, int]:
    """Columns and rows of the window itself, whatever COLUMNS and LINES say: those stay as they were when it changes."""
    for descriptor in (0, 1, 2):
        with contextlib.suppress(OSError):
            return os.get_terminal_size(descriptor)
    return _NO_WINDOW


@contextlib.contextmanager
def _raw_mode() -> Iterator[None]:
    import termios  # noqa: PLC0415 - of terminals alone
    import tty  # noqa: PLC0415

    before = termios.tcgetattr(0)
    tty.setraw(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _resizing(socket: ClientConnection) -> Iterator[None]:
    """Tells the program how large the window is, at first and whenever that changes."""
    changed = threading.Event()
    # It may have changed since the size was read, while the connection was made.
    changed.set()
    over = threading.Event()

    def tell() -> None:
        while changed.wait() and not over.is_set():
            changed.clear()
            columns, rows = _size()
            with contextlib.suppress(ConnectionClosed):
                socket.send(json.dumps({"type": "resize", "rows": rows, "columns": columns}))

    before = signal.signal(signal.SIGWINCH, lambda *_: changed.set())
    threading.Thread(target=tell, daemon=True).start()
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
        over.set()
        changed.set()
