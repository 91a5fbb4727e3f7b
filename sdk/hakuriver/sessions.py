"""Terminals that outlive their connection: the program goes on for a while, and whoever began it may take it up again.

A `TerminalStart` that is `resumable` is answered by `{"type": "session", "session": ID, "seconds": S}`. Whoever is lost,
rather than gone for good (see `hakuriver.closing`), may come back to the same door within S seconds. The first message is
a `TerminalResume` then: ID, and how many bytes of output have come. The answer is `{"type": "resumed", "received": N}`,
with N bytes of input taken; both ends send what the other has not, and credit begins anew: what has come is dealt with.
Nobody else can take a session up, and who comes later takes it over from an earlier connection, which may be half dead.

Neither end is silent for long: the client says `{"type": "here"}` every few seconds, and is answered so. An end that hears
nothing takes the connection for lost. While nobody is there the program's output is kept as far as credit reaches, and
then the program waits. After the exit code it is the client that leaves: if it is lost it can come back for that too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Hashable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from hakuriver.closing import was_lost
from hakuriver.errors import ConflictError, HakuRiverError, NotFoundError, UsageError
from hakuriver.exchange import LONGEST, WINDOW, WORTH_TELLING, GoneError, Talker, order_of
from hakuriver.kept import Kept
from hakuriver.models.environments import TerminalResume

HERE = json.dumps({"type": "here"})
SILENT_SECONDS = 30.0
"""A client that says nothing for so long is lost."""
MOST_LEFT = 64
"""Programs of one daemon that wait for their connection."""

_PIECE = 1 << 18
_VERDICT_SECONDS = 5.0
_END_SECONDS = 10.0


class Program(Protocol):
    """A program with a tty; see `hakuriver.terminals.Exec`."""

    def output(self) -> AsyncIterator[bytes]: ...

    async def write(self, data: bytes) -> None: ...

    def write_eof(self) -> None: ...

    async def resize(self, rows: object, columns: object) -> None: ...

    async def exit_code(self) -> int | None: ...

    async def hang_up(self) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Place:
    """Where a terminal may be taken up again, and by whom."""

    sessions: Sessions
    holder: Hashable
    """The user and the door."""
    present: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext
    """Entered for as long as the program is there."""


class Sessions:
    """Those of a daemon."""

    def __init__(self, seconds: float) -> None:
        """A program waits so long for its connection; with none, nothing is resumable."""
        self.seconds = seconds
        self._sessions: dict[str, Session] = {}
        self._lives: set[asyncio.Task[None]] = set()

    async def begin(self, talker: Talker, place: Place, program: Program) -> None:
        """Serves a program until the connection has ended.

        Raises:
            GoneError: the person has left, or is lost.
            ConflictError: another connection has taken over.
            HakuRiverError: the talk is not as agreed, or the engine fails; the program is ended.
        """
        session = Session(program, place.holder)
        self._sessions[session.id] = session
        life = asyncio.create_task(self._live(session, place))
        self._lives.add(life)
        life.add_done_callback(self._lives.discard)
        greeting = {"type": "session", "session": session.id, "seconds": self.seconds}
        await self._serve(session, talker, greeting, 0)

    async def resume(self, talker: Talker, place: Place, asked: TerminalResume) -> None:
        """Goes on with one.

        Raises:
            NotFoundError: it is over, or was never this person's at this door.
            HakuRiverError: as `begin`.
        """
        session = self._sessions.get(asked.session)
        if session is None or session.holder != place.holder or session.over.is_set():
            raise NotFoundError("this terminal is over, and its program was ended", "open a new one")
        await session.release()
        session.begin_anew(asked.received)
        greeting = {"type": "resumed", "received": session.taken}
        await self._serve(session, talker, greeting, asked.received)

    async def close(self) -> None:
        """Ends every program."""
        for session in self._sessions.values():
            session.over.set()
        if self._lives:
            await asyncio.wait(self._lives, timeout=_END_SECONDS)

    async def _serve(self, session: Session, talker: Talker, greeting: dict[str, Any], place: int) -> None:
        mine = session.talking = asyncio.create_task(session.talk(talker, greeting, place))
        lost = False
        try:
            lost = not await mine
        except asyncio.CancelledError:
            lost = True
            if _is_cancelled():
                raise
            raise ConflictError(
                "another connection has taken this terminal over", "go on there, or open a new one"
            ) from None
        finally:
            if session.talking is mine:
                if lost:
                    self._leave(session)
                else:
                    session.over.set()
        raise GoneError

    def _leave(self, session: Session) -> None:
        """Lets it wait. Where too many do, whoever has most of them loses the one that has waited longest."""
        session.wait(self.seconds)
        left = [other for other in self._sessions.values() if other.left_at is not None]
        if len(left) > MOST_LEFT:
            count = Counter(other.holder for other in left)
            min(left, key=lambda other: (-count[other.holder], other.left_at)).over.set()

    async def _live(self, session: Session, place: Place) -> None:
        try:
            with place.present():
                await session.play()
        finally:
            del self._sessions[session.id]


class Session:
    """A program, and the connection with it, if there is one."""

    def __init__(self, program: Program, holder: Hashable) -> None:
        self.id = secrets.token_hex(16)
        self.holder = holder
        self.over = asyncio.Event()
        """Nobody will come any more."""
        self.left_at: float | None = None
        """Since when it waits, in seconds of the loop's clock."""
        self.talking: asyncio.Task[bool] | None = None
        self.taken = 0
        """Bytes of input that the program was given."""
        self._program = program
        self._timer: asyncio.TimerHandle | None = None
        self._output = Kept()
        self._room = asyncio.Event()
        self._news = asyncio.Event()
        """There may be something to send."""
        self._input: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._held = 0
        """Bytes in it."""
        self._dealt = self._told = 0
        """Bytes of input that the program has taken, and those that the client knows of."""
        self._said_all = self._given_all = False
        self._is_asked = False
        """Whether the client waits for a sign of life."""
        self._has_ended = False
        self._code: int | None = None
        self._failure: Exception | None = None

    async def play(self) -> None:
        """Until it is over. A program that still runs then is ended."""
        working = [asyncio.create_task(self._working(work)) for work in (self._read(), self._write())]
        try:
            await self.over.wait()
        finally:
            for task in working:
                task.cancel()
            await asyncio.gather(*working, return_exceptions=True)
            self._stop_waiting()
            if not self._has_ended:
                await asyncio.shield(self._program.hang_up())
            self._program.close()

    async def talk(self, talker: Talker, greeting: dict[str, Any], place: int) -> bool:
        """Serves a connection, with the output from a place on; whether the person leaves for good."""
        sending = asyncio.create_task(self._send(talker, json.dumps(greeting), place))
        listening = asyncio.create_task(self._listen(talker))
        ending = asyncio.create_task(self.over.wait())
        try:
            await asyncio.wait({sending, listening, ending}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done() and (error := sending.exception()):
                # Whoever is gone cannot be sent anything: then the listener learns it too.
                ended, _ = await asyncio.wait({listening}, timeout=_VERDICT_SECONDS)
                if isinstance(error, HakuRiverError) or not ended:
                    raise error
            elif sending.done():
                await asyncio.wait({listening, ending}, return_when=asyncio.FIRST_COMPLETED)
            return listening.result() if listening.done() else True
        finally:
            for task in (sending, listening, ending):
                task.cancel()
            await asyncio.gather(sending, listening, ending, return_exceptions=True)

    async def release(self) -> None:
        """Ends the connection that there is."""
        while self.talking is not None and not self.talking.done():
            self.talking.cancel()
            await asyncio.wait({self.talking})

    def begin_anew(self, received: int) -> None:
        """Prepares for another connection; the client has so many bytes of output.

        Raises:
            UsageError: that cannot be.
        """
        self._output.drop(received)
        self._room.set()
        self._stop_waiting()
        while not self._input.empty():
            self._input.get_nowait()
        self._held = 0
        self._told = self.taken
        self._said_all = self._given_all
        self._is_asked = False

    def wait(self, seconds: float) -> None:
        """For another connection, and is over when none comes."""
        loop = asyncio.get_running_loop()
        self.left_at = loop.time()
        self._timer = loop.call_later(seconds, self.over.set)

    def _stop_waiting(self) -> None:
        self.left_at = None
        if self._timer is not None:
            self._timer.cancel()

    async def _working(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - raised to whoever is connected
            self._failure = error
            self._news.set()

    async def _read(self) -> None:
        """Keeps what the program writes."""
        async for data in self._program.output():
            while self._output.full:
                self._room.clear()
                await self._room.wait()
            self._output.add(data)
            self._news.set()
        self._code = await self._program.exit_code()
        self._has_ended = True
        self._news.set()

    async def _write(self) -> None:
        """Gives the program what has come."""
        while (data := await self._input.get()) is not None:
            self.taken += len(data)
            self._held -= len(data)
            await self._program.write(data)
            self._dealt += len(data)
            self._news.set()
        self._given_all = True
        self._program.write_eof()

    async def _send(self, talker: Talker, greeting: str, place: int) -> None:
        """Until the exit code has been sent."""
        await talker.send_text(greeting)
        while True:
            self._news.clear()
            if self._failure is not None:
                raise self._failure
            if self._is_asked:
                self._is_asked = False
                await talker.send_text(HERE)
            if (size := self._dealt - self._told) >= WORTH_TELLING:
                self._told += size
                await talker.send_text(json.dumps({"type": "more", "bytes": size}))
            if data := self._output.after(place, _PIECE):
                place += len(data)
                await talker.send_bytes(data)
            elif self._has_ended:
                await talker.send_text(json.dumps({"type": "exit", "code": self._code}))
                return
            else:
                await self._news.wait()

    async def _listen(self, talker: Talker) -> bool:
        """Until the person leaves, and whether that is for good."""
        while True:
            try:
                async with asyncio.timeout(SILENT_SECONDS):
                    message = await talker.receive()
            except TimeoutError:
                return False
            if message["type"] == "websocket.disconnect":
                return not was_lost(message.get("code"))
            if (data := message.get("bytes")) is not None:
                self._keep(data)
            else:
                await self._take(order_of(message.get("text")))

    def _keep(self, data: bytes | None) -> None:
        if self._said_all:
            return
        self._said_all = data is None
        self._held += len(data or b"")
        if self._held > WINDOW + LONGEST:
            raise UsageError("more was sent than was asked for", "wait for `more` before sending on")
        self._input.put_nowait(data)

    async def _take(self, order: dict[str, Any]) -> None:
        kind = order.get("type")
        if kind == "more" and isinstance(size := order.get("bytes"), int):
            self._output.drop(self._output.start + size)
            self._room.set()
        elif kind == "eof":
            self._keep(None)
        elif kind == "here":
            self._is_asked = True
            self._news.set()
        elif kind == "resize":
            await self._program.resize(order.get("rows"), order.get("columns"))


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
