"""Terminals that outlive their connection: all bytes once, however often it is lost; and nothing is left for ever."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hakuriver import sessions as lasting
from hakuriver.closing import LOST
from hakuriver.errors import ConflictError, NotFoundError, UsageError
from hakuriver.exchange import WINDOW, GoneError, Owed
from hakuriver.kept import Kept
from hakuriver.models.environments import TerminalResume, TerminalStart
from hakuriver.sessions import MOST_LEFT, Place, Sessions
from hakuriver.terminals import serve_terminal

CODE = 7
LONG = 60.0
START = TerminalStart(resumable=True)
GONE, AWAY, RESTARTS = 1000, 1005, 1012


class Program:
    """It writes `pieces`, and ends once it has read so many bytes; it takes a turn of the loop or more for each piece."""

    def __init__(self, pieces: list[bytes], reads: int = 0, turns: int = 0) -> None:
        self.got = bytearray()
        self.written = 0
        self.sizes: list[tuple[object, object]] = []
        self.hung_up = asyncio.Event()
        self._pieces, self._reads, self._turns = pieces, reads, turns
        self._has_read = asyncio.Event()

    async def output(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            await asyncio.sleep(0)
            self.written += len(piece)
            yield piece
        while len(self.got) < self._reads:
            self._has_read.clear()
            await self._has_read.wait()

    async def write(self, data: bytes) -> None:
        for _ in range(self._turns):
            await asyncio.sleep(0)
        self.got += data
        self._has_read.set()

    def write_eof(self) -> None:
        """It is told by the number of bytes."""

    async def resize(self, rows: object, columns: object) -> None:
        self.sizes.append((rows, columns))

    async def exit_code(self) -> int | None:
        return CODE

    async def hang_up(self) -> None:
        self.hung_up.set()

    def close(self) -> None:
        """Nothing is open."""


@dataclass(frozen=True, slots=True)
class Cut:
    """So many messages come through each way, and then none; the server is told that, or it is not."""

    inward: int
    outward: int
    told: bool


class Line:
    """A connection in memory, which may be cut."""

    def __init__(self, cut: Cut | None = None) -> None:
        self.inward: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.outward: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._cut = cut
        self._in = self._out = 0
        self._broken = False

    async def receive(self) -> dict[str, Any]:
        return await self.inward.get()

    async def receive_text(self) -> str:
        return str((await self.receive())["text"])

    async def send_bytes(self, data: bytes) -> None:
        await self._send({"bytes": data})

    async def send_text(self, data: str) -> None:
        await self._send({"text": data})

    async def _send(self, message: dict[str, Any]) -> None:
        self._out += 1
        if self._cut and self._out > self._cut.outward:
            self._break()
        elif not self._broken:
            self.outward.put_nowait(message)

    def say(self, **message: Any) -> None:
        """From the client."""
        self._in += 1
        if self._cut and self._in > self._cut.inward:
            self._break()
        elif not self._broken:
            self.inward.put_nowait({"type": "websocket.receive", **message})

    def leave(self, code: int = GONE) -> None:
        self.inward.put_nowait({"type": "websocket.disconnect", "code": code})

    async def heard(self) -> dict[str, Any]:
        """What comes to the client, an order as its object."""
        message = await self.outward.get()
        if message is None:
            raise GoneError
        return json.loads(message["text"]) if "text" in message else message

    def _break(self) -> None:
        if not self._broken:
            self._broken = True
            self.outward.put_nowait(None)
            if self._cut and self._cut.told:
                self.leave(AWAY)


class Client:
    """The other end, which types and reads, and comes back whenever it is lost."""

    def __init__(self, typed: list[bytes]) -> None:
        self.shown = bytearray()
        self._pieces = typed
        self._typed = Kept()
        self._session: str | None = None

    async def play(self, serve: Callable[[Line], Awaitable[None]], cuts: list[Cut]) -> int:
        """The exit code."""
        for cut in [*cuts, None]:
            line = Line(cut)
            serving = asyncio.ensure_future(serve(line))
            try:
                return await self._talk(line)
            except GoneError:
                continue
            finally:
                if cut is None or cut.told:
                    await asyncio.gather(serving, return_exceptions=True)
        raise AssertionError("the last connection is not cut")

    async def _talk(self, line: Line) -> int:
        owed, sent = Owed(), 0
        if self._session is None:
            # What was started by a connection whose answer did not come is another program.
            self.shown.clear()
            line.say(text=START.model_dump_json())
        else:
            line.say(text=TerminalResume(session=self._session, received=len(self.shown)).model_dump_json())
        greeting = await line.heard()
        if self._session is None:
            self._session = greeting["session"]
        else:
            self._typed.drop(greeting["received"])
            sent = greeting["received"]
        while True:
            while not self._typed.full and self._pieces:
                self._typed.add(self._pieces.pop(0))
            while sent - self._typed.start < WINDOW and (data := self._typed.after(sent, 50_000)):
                line.say(bytes=data)
                sent += len(data)
            heard = await line.heard()
            if data := heard.get("bytes") if "type" not in heard else None:
                self.shown += data
                if told := owed.add(len(data)):
                    line.say(text=told)
            elif heard["type"] == "more":
                self._typed.drop(self._typed.start + heard["bytes"])
            elif heard["type"] == "exit":
                line.leave()
                return int(heard["code"])


_PIECES = st.lists(st.integers(1, 300_000), max_size=12)
_CUTS = st.lists(st.builds(Cut, st.integers(1, 12), st.integers(1, 12), st.booleans()), max_size=6)


def patterned(sizes: list[int], step: int) -> list[bytes]:
    """Pieces of these sizes in which no place looks like its neighbours."""
    pieces, place = [], 0
    for size in sizes:
        pieces.append(bytes((place + at) * step % 251 for at in range(size)))
        place += size
    return pieces


@given(_PIECES, _PIECES, st.integers(0, 4), _CUTS)
@settings(max_examples=60, deadline=None)
def test_all_bytes_come_once_however_often_the_connection_is_lost(
    out_sizes: list[int], in_sizes: list[int], turns: int, cuts: list[Cut]
) -> None:
    output, typed = patterned(out_sizes, 7), patterned(in_sizes, 11)

    async def play() -> None:
        lasting_sessions, programs = Sessions(LONG), list[Program]()
        place = Place(lasting_sessions, "ada")

        async def start(_: TerminalStart) -> Program:
            programs.append(Program(output, sum(in_sizes), turns))
            return programs[-1]

        client = Client([*typed])
        async with asyncio.timeout(60):
            code = await client.play(lambda line: serve_terminal(line, start, place=place), cuts)  # type: ignore[arg-type]
        assert code == CODE
        assert bytes(client.shown) == b"".join(output)
        assert bytes(programs[-1].got) == b"".join(typed)
        assert not programs[-1].hung_up.is_set()
        await lasting_sessions.close()

    asyncio.run(play())


@given(st.lists(st.binary(max_size=50), max_size=20), st.lists(st.integers(0, 60), max_size=20))
def test_what_is_kept_is_what_was_added_and_not_dropped(added: list[bytes], steps: list[int]) -> None:
    kept, everything = Kept(), b"".join(added)
    for data in added:
        kept.add(data)
    for step in steps:
        place = min(kept.start + step, kept.end)
        kept.drop(place)
        assert kept.after(place, 20) == everything[place : place + 20]
    for place in (kept.start - 1, kept.end + 1):
        with pytest.raises(UsageError, match="is not between"):
            kept.after(place, 1)
        with pytest.raises(UsageError):
            kept.drop(place)


class Terminal:
    """One program that goes on, and connections with it."""

    def __init__(self, seconds: float = LONG, program: Program | None = None) -> None:
        self.sessions = Sessions(seconds)
        self.program = program or Program([b"hello"], reads=10)
        self.id = ""

    async def begin(self, holder: str = "ada") -> tuple[Line, asyncio.Task[None]]:
        line = Line()
        serving = asyncio.create_task(self.sessions.begin(line, Place(self.sessions, holder), self.program))
        self.id = (await line.heard())["session"]
        return line, serving

    def resume(self, received: int = 0, holder: str = "ada") -> tuple[Line, asyncio.Task[None]]:
        line, asked = Line(), TerminalResume(session=self.id, received=received)
        place = Place(self.sessions, holder)
        return line, asyncio.create_task(self.sessions.resume(line, place, asked))


@contextlib.asynccontextmanager
async def soon() -> AsyncIterator[None]:
    async with asyncio.timeout(10):
        yield


@pytest.mark.parametrize("code", [1000, 1001, 1011, 4400])
async def test_who_leaves_for_good_ends_the_program_at_once(code: int) -> None:
    terminal = Terminal()
    line, serving = await terminal.begin()
    line.leave(code)
    async with soon():
        with pytest.raises(GoneError):
            await serving
        await terminal.program.hung_up.wait()
        _, again = terminal.resume()
        with pytest.raises(NotFoundError, match="over"):
            await again


@pytest.mark.parametrize("code", [AWAY, 1006, RESTARTS, LOST])
async def test_who_is_lost_ends_it_after_a_while(code: int) -> None:
    terminal = Terminal(seconds=0.05)
    line, serving = await terminal.begin()
    line.leave(code)
    async with soon():
        with pytest.raises(GoneError):
            await serving
        assert not terminal.program.hung_up.is_set()
        await terminal.program.hung_up.wait()
        _, again = terminal.resume()
        with pytest.raises(NotFoundError, match="over"):
            await again


async def test_who_has_come_back_may_stay() -> None:
    terminal = Terminal(seconds=0.2)
    line, serving = await terminal.begin()
    line.leave(AWAY)
    async with soon():
        with pytest.raises(GoneError):
            await serving
        again, serving = terminal.resume(received=5)
        await again.heard()
        await asyncio.sleep(0.4)
        again.say(bytes=bytes(10))
        assert await again.heard() == {"type": "exit", "code": CODE}
        again.leave()
        with pytest.raises(GoneError):
            await serving
    assert not terminal.program.hung_up.is_set()


async def test_silence_is_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lasting, "SILENT_SECONDS", 0.2)
    terminal = Terminal()
    line, serving = await terminal.begin()
    for _ in range(4):
        await asyncio.sleep(0.1)
        line.say(text=lasting.HERE)
    heard = [await line.heard() for _ in range(5)]
    assert heard == [{"bytes": b"hello"}, *[{"type": "here"}] * 4]
    async with soon():
        with pytest.raises(GoneError):
            await serving
    assert not terminal.program.hung_up.is_set()
    await terminal.sessions.close()


async def test_nobody_else_takes_it_up() -> None:
    terminal = Terminal()
    line, serving = await terminal.begin()
    line.leave(AWAY)
    async with soon():
        with pytest.raises(GoneError):
            await serving
        _, foreign = terminal.resume(holder="eve")
        with pytest.raises(NotFoundError):
            await foreign
        mine, _ = terminal.resume()
        assert (await mine.heard())["type"] == "resumed"
    await terminal.sessions.close()


async def test_who_comes_later_takes_it_over() -> None:
    terminal = Terminal()
    first, serving = await terminal.begin()
    first.say(bytes=b"abc")
    async with soon():
        assert await first.heard() == {"bytes": b"hello"}
        while terminal.program.got != b"abc":
            await asyncio.sleep(0)
        second, _ = terminal.resume(received=2)
        assert await second.heard() == {"type": "resumed", "received": 3}
        assert await second.heard() == {"bytes": b"llo"}
        with pytest.raises(ConflictError, match="another connection"):
            await serving
        first.say(bytes=b"too late")
        second.say(bytes=b"defghij")
        assert await second.heard() == {"type": "exit", "code": CODE}
    assert terminal.program.got == b"abcdefghij"
    second.leave()
    await terminal.sessions.close()


async def test_the_exit_code_waits_too() -> None:
    terminal = Terminal(program=Program([b"bye"]))
    line, serving = await terminal.begin()
    async with soon():
        assert [await line.heard(), await line.heard()] == [{"bytes": b"bye"}, {"type": "exit", "code": CODE}]
        await asyncio.sleep(0.05)
        line.leave(AWAY)
        with pytest.raises(GoneError):
            await serving
        again, serving = terminal.resume(received=1)
        heard = [await again.heard() for _ in range(3)]
        assert heard == [{"type": "resumed", "received": 0}, {"bytes": b"ye"}, {"type": "exit", "code": CODE}]
        again.leave()
        with pytest.raises(GoneError):
            await serving
    assert not terminal.program.hung_up.is_set()


async def test_output_is_kept_as_far_as_credit_reaches() -> None:
    piece = bytes(1 << 16)
    terminal = Terminal(program=Program([piece] * 100))
    line, serving = await terminal.begin()
    line.leave(AWAY)
    async with soon():
        with pytest.raises(GoneError):
            await serving
        for _ in range(1000):
            await asyncio.sleep(0)
        assert WINDOW <= terminal.program.written <= WINDOW + 2 * len(piece)
        again, _ = terminal.resume()
        size = 0
        await again.heard()
        while (heard := await again.heard()).get("type") != "exit":
            size += len(heard["bytes"])
            again.say(text=json.dumps({"type": "more", "bytes": len(heard["bytes"])}))
        assert size == 100 * len(piece)
    again.leave()
    await terminal.sessions.close()


@pytest.mark.parametrize("received", [6, 99])
async def test_more_cannot_have_come_than_was_written(received: int) -> None:
    terminal = Terminal()
    line, _ = await terminal.begin()
    async with soon():
        await line.heard()
        _, again = terminal.resume(received=received)
        with pytest.raises(UsageError):
            await again
    await terminal.sessions.close()


@pytest.mark.parametrize("order", [{"type": "more", "bytes": 99}, {"type": "more", "bytes": -1}])
async def test_who_acknowledges_what_was_not_sent_is_refused(order: dict[str, object]) -> None:
    terminal = Terminal()
    line, serving = await terminal.begin()
    line.say(text=json.dumps(order))
    async with soon():
        with pytest.raises(UsageError):
            await serving
        await terminal.program.hung_up.wait()


async def test_too_many_that_wait_are_one_too_many_of_who_has_most() -> None:
    everything = Sessions(LONG)
    programs: list[tuple[str, Program]] = []
    async with soon():
        for number in range(MOST_LEFT + 1):
            holder = "ada" if number == 0 else "eve"
            line, program = Line(), Program([], reads=1)
            programs.append((holder, program))
            serving = asyncio.create_task(everything.begin(line, Place(everything, holder), program))
            await line.heard()
            line.leave(AWAY)
            with pytest.raises(GoneError):
                await serving
        await programs[1][1].hung_up.wait()
    assert sum(program.hung_up.is_set() for _, program in programs) == 1
    await everything.close()
    assert all(program.hung_up.is_set() for _, program in programs)


async def test_presence_lasts_as_long_as_the_program() -> None:
    present: list[str] = []

    @contextlib.contextmanager
    def there() -> Any:
        present.append("ada")
        yield
        present.remove("ada")

    terminal, line = Terminal(seconds=0.05), Line()
    place = Place(terminal.sessions, "ada", there)
    serving = asyncio.create_task(terminal.sessions.begin(line, place, terminal.program))
    await line.heard()
    line.leave(AWAY)
    async with soon():
        with pytest.raises(GoneError):
            await serving
        assert present == ["ada"]
        await terminal.program.hung_up.wait()
        while present:
            await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("wanted", "seconds"),
    [(TerminalStart(), LONG), (TerminalStart(resumable=True, tty=False), LONG), (START, 0.0)],
)
async def test_who_cannot_come_back_is_told_of_no_session(wanted: TerminalStart, seconds: float) -> None:
    program, line = Program([b"x"], reads=1), Line()

    async def start(_: TerminalStart) -> Any:
        return program

    place = Place(Sessions(seconds), "ada")
    line.say(text=wanted.model_dump_json())
    serving = asyncio.create_task(serve_terminal(line, start, place=place))
    async with soon():
        assert await line.heard() == {"bytes": b"x"}
        line.leave(AWAY)
        with pytest.raises(GoneError):
            await serving
    assert program.hung_up.is_set()


async def test_a_door_that_keeps_none_says_so() -> None:
    line = Line()
    line.say(text=TerminalResume(session="0" * 32, received=0).model_dump_json())

    async def start(_: TerminalStart) -> Any:
        raise AssertionError("nothing is to be started")

    with pytest.raises(NotFoundError):
        await serve_terminal(line, start)
