"""A terminal that a person types in, and that outlives its connection: the client's end of `hakuriver.sessions`.

One thread reads the keys and one sends them; the main one shows what comes, and connects anew when the connection is lost.
What is typed meanwhile is sent afterwards, but for Ctrl-C, which gives up.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from hakuriver import models
from hakuriver.closing import error_said
from hakuriver.errors import HakuRiverError, UnreachableError, UsageError
from hakuriver.exchange import EOF, WINDOW, Owed, order_of
from hakuriver.kept import Kept
from hakuriver.sessions import HERE
from hakuriver_cli.errors import report
from hakuriver_cli.sockets import refusal
from hakuriver_cli.window import raw_mode, resizing

if TYPE_CHECKING:
    from hakuriver.models.environments import TerminalStart


LOST = 255
"""Exit code when the connection is lost, as ssh has it."""
HERE_SECONDS = 4.0
SILENT_SECONDS = 12.0
"""A server from which nothing comes for so long is lost: it answers each `here`."""
ATTEMPT_SECONDS = 5.0
_PAUSES = (0.2, 3.0)
"""After the first attempt, and at most, in seconds; each is twice the one before."""
_PIECE = 1 << 15
_CTRL_C = b"\x03"

Connect = Callable[[float | None], ClientConnection]
"""Opens the terminal's door within so many seconds; raises UnreachableError."""


class _LostError(Exception):
    """The connection is lost; the program may be there still."""


class _OverError(Exception):
    """It is lost for good, and the program with it."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.why = UnreachableError(message, hint)


@dataclass(frozen=True, slots=True)
class _Found:
    """A new connection with the program, which has so many bytes of what was typed."""

    connection: ClientConnection
    received: int


class LastingTerminal:
    """Standard input is a terminal, and `wanted` is resumable."""

    def __init__(self, connect: Connect, wanted: TerminalStart) -> None:
        self._connect, self._wanted = connect, wanted
        self._session: str | None = None
        """Its id, where the server can resume it."""
        self._seconds = 0.0
        """For so long the program goes on without connection."""
        self._shown = 0
        """Bytes of output."""
        self._changed = threading.Condition()
        """Guards all that follows."""
        self._connection: ClientConnection | None = None
        self._away = False
        self._typed = Kept()
        self._sent = 0
        """The place up to which that was sent by this connection."""
        self._has_typed_all = self._has_said_all = False
        self._orders: list[str] = []
        self._news: queue.SimpleQueue[_Found | HakuRiverError | None] = queue.SimpleQueue()
        """How attempts to connect went; none is the person's giving up."""

    def run(self) -> int:
        """The program's exit code; `LOST`, with words, when the connection was lost and could not be made again in time.

        Raises:
            HakuRiverError: the program cannot be run, or its end is not known.
        """
        try:
            return self._run()
        except _OverError as over:
            report(over.why)
            return LOST

    def _run(self) -> int:
        self._begin()
        with raw_mode(), resizing(self._order) as send_size, self._leaving():
            for work in (self._read_keys, self._send):
                threading.Thread(target=work, daemon=True).start()
            while True:
                try:
                    return self._show()
                except UsageError:
                    # From an earlier version that knows no resuming, unless it says so of all the rest too.
                    if not self._wanted.resumable or self._session:
                        raise
                    self._wanted = self._wanted.model_copy(update={"resumable": False})
                    self._drop()
                    self._begin()
                except _LostError:
                    self._take_up()
                send_size()

    def _begin(self) -> None:
        connection = self._connect(None)
        left_out = None if self._wanted.resumable else {"resumable"}
        with contextlib.suppress(ConnectionClosed):  # Why it is closed is read later.
            connection.send(self._wanted.model_dump_json(exclude=left_out))
        with self._changed:
            self._connection, self._away, self._sent = connection, False, 0
            self._changed.notify_all()

    @contextlib.contextmanager
    def _leaving(self) -> Iterator[None]:
        """Closes the connection whatever happens, so that the program ends too; as when the window is closed (SIGHUP)."""

        def end(number: int, _: object) -> NoReturn:
            raise SystemExit(128 + number)

        # What is ignored stays so, as with nohup.
        heeded = [n for n in (signal.SIGHUP, signal.SIGTERM) if signal.getsignal(n) is not signal.SIG_IGN]
        before = [(number, signal.signal(number, end)) for number in heeded]
        try:
            yield
        finally:
            for number, handler in before:
                signal.signal(number, handler)
            if self._connection is not None:
                self._connection.close()

    def _show(self) -> int:
        """Until the program ends; its exit code."""
        connection, owed = self._connection, Owed()
        assert connection is not None  # noqa: S101 - there is one whenever this is called
        while True:
            try:
                message = connection.recv(timeout=SILENT_SECONDS if self._session else None)
            except TimeoutError:
                raise _LostError from None
            except ConnectionClosed as error:
                raise self._meant(refusal(error)) from None
            if isinstance(message, str):
                if (code := self._take(message)) is not None:
                    return code
                continue
            _write(1, message)
            self._shown += len(message)
            if told := owed.add(len(message)):
                self._order(told)

    def _take(self, message: str) -> int | None:
        """The exit code, when it comes."""
        told = order_of(message)
        if error := error_said(told):
            raise self._meant(error)
        match told:
            case {"type": "exit", "code": code}:
                return LOST if code is None else int(code)
            case {"type": "session", "session": str(name), "seconds": int() | float() as seconds}:
                self._session, self._seconds = name, seconds
            case {"type": "more", "bytes": int(size)}:
                with self._changed:
                    self._typed.drop(self._typed.start + size)
                    self._changed.notify_all()
        return None

    def _meant(self, error: HakuRiverError) -> Exception:
        """What is not reached now may be reached again."""
        return _LostError() if self._session and isinstance(error, UnreachableError) else error

    def _take_up(self) -> None:
        """Goes on over another connection.

        Raises:
            _OverError: that cannot be.
        """
        self._drop()
        _say("connection lost; reconnecting ... (Ctrl-C gives up)")
        found = self._found()
        with self._changed:
            self._connection, self._away = found.connection, False
            self._typed.drop(found.received)
            self._sent, self._has_said_all = found.received, False
            self._changed.notify_all()
        _say("connected again")

    def _drop(self) -> None:
        with self._changed:
            lost, self._connection, self._away = self._connection, None, True
            self._orders.clear()
            self._changed.notify_all()
        if lost is not None:
            _abort(lost)

    def _found(self) -> _Found:
        give_up_at, pause = time.monotonic() + self._seconds, _PAUSES[0]
        threading.Thread(target=self._attempt, daemon=True).start()
        while True:
            try:
                news = self._news.get(timeout=max(0.0, give_up_at - time.monotonic()))
            except queue.Empty:
                raise _OverError(
                    f"the connection was lost, and could not be made again within {self._seconds:g} s",
                    "the program has been ended; see whether the Host runs: `hakuriver status`",
                ) from None
            if isinstance(news, _Found):
                return news
            if news is None:
                raise _OverError(
                    "the connection was lost, and is given up", "the program is ended soon; open a new one"
                )
            if not isinstance(news, UnreachableError):
                raise _OverError(f"the connection was lost: {news.message}", news.hint)
            timer = threading.Timer(pause, self._attempt)
            timer.daemon = True
            timer.start()
            pause = min(2 * pause, _PAUSES[1])

    def _attempt(self) -> None:
        try:
            self._news.put(self._resumed())
        except HakuRiverError as error:
            self._news.put(error)

    def _resumed(self) -> _Found:
        connection = self._connect(ATTEMPT_SECONDS)
        try:
            asked = models.environments.TerminalResume(session=str(self._session), received=self._shown)
            connection.send(asked.model_dump_json())
            told = order_of(str(connection.recv(timeout=ATTEMPT_SECONDS)))
            if error := error_said(told):
                raise error
            return _Found(connection, int(told["received"]))
        except ConnectionClosed as error:
            raise refusal(error) from None
        except (TimeoutError, KeyError):
            _abort(connection)
            raise UnreachableError("the Host does not answer", "try again") from None

    def _read_keys(self) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(0, _PIECE):
                with self._changed:
                    if self._away and _CTRL_C in data:
                        self._news.put(None)
                    self._typed.add(data)
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._away or not self._typed.full)
        with self._changed:
            self._has_typed_all = True
            self._changed.notify_all()

    def _order(self, message: str) -> None:
        with self._changed:
            if not self._away:
                self._orders.append(message)
                self._changed.notify_all()

    def _send(self) -> None:
        while True:
            connection, messages = self._due()
            # What is not sent over this one is sent over the next.
            with contextlib.suppress(ConnectionClosed, OSError):
                for message in messages:
                    connection.send(message)

    def _due(self) -> tuple[ClientConnection, list[str | bytes]]:
        """What is to be sent next, once there is something: a sign of life, if nothing else."""
        with self._changed:
            while True:
                if self._connection is not None and (messages := self._unsent()):
                    return self._connection, messages
                is_late = not self._changed.wait(HERE_SECONDS)
                if is_late and self._connection is not None and self._session:
                    return self._connection, [HERE]

    def _unsent(self) -> list[str | bytes]:
        messages: list[str | bytes] = [*self._orders]
        self._orders.clear()
        if self._sent - self._typed.start < WINDOW and (data := self._typed.after(self._sent, _PIECE)):
            messages.append(data)
            self._sent += len(data)
        if self._has_typed_all and not self._has_said_all and self._sent == self._typed.end:
            messages.append(EOF)
            self._has_said_all = True
        return messages


def _abort(connection: ClientConnection) -> None:
    """Without a word: there may be nobody to hear it, and then that would wait."""
    with contextlib.suppress(OSError):
        connection.socket.shutdown(socket.SHUT_RDWR)


def _say(text: str) -> None:
    _write(2, f"\r\n[{text}]\r\n".encode())


def _write(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]
