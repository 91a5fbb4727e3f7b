"""The doors to running attempts, for the Host alone: terminals, and connections to ports.

The Host checks whose task it is, and says who the person is; it relays what their client sends.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping

import structlog
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from hakuriver.closing import DONE, FAILED, close, refuse
from hakuriver.errors import ConflictError, HakuRiverError, UsageError
from hakuriver.exchange import GoneError
from hakuriver.forwards import carry
from hakuriver.models.environments import TerminalStart
from hakuriver.models.runner import AttemptSpec, EngineName
from hakuriver.sessions import Place, Sessions
from hakuriver.states import TaskState
from hakuriver.terminals import Exec, serve_terminal
from hakuriver_agent.engines.port import Engine, Key
from hakuriver_agent.folders import Folders
from hakuriver_agent.supervisor import Supervisor

log = structlog.get_logger(__name__)

Door = Callable[[WebSocket, Engine, AttemptSpec], Awaitable[None]]


class Guests:
    """Who is connected to attempts, and who was."""

    def __init__(self) -> None:
        self._present: Counter[Key] = Counter()
        self._came: set[Key] = set()

    @contextlib.contextmanager
    def entering(self, key: Key) -> Iterator[None]:
        self._present[key] += 1
        self._came.add(key)
        try:
            yield
        finally:
            self._present[key] -= 1
            if not self._present[key]:
                del self._present[key]

    def were_there(self, key: Key) -> bool:
        """Whether somebody is connected now, or was since this was last asked."""
        came = key in self._came
        self._came.discard(key)
        return came or key in self._present

    def forget_all_but(self, asked_about: Iterable[Key]) -> None:
        """Forgets who came to attempts of which nobody asks."""
        self._came.intersection_update(asked_about)


def routes(
    supervisor: Supervisor,
    engines: Mapping[EngineName, Engine],
    folders: Folders,
    guests: Guests,
    sessions: Sessions,
) -> list[WebSocketRoute]:
    """`/api/terminal/{task_id}/{attempt}`, and `forward/{port}` and `ssh` in the same manner; `guests` are counted.

    A terminal is resumable where the Host says whose it is (`?user=NAME`). Whoever it waits for is a guest meanwhile.
    """

    async def terminal(socket: WebSocket, engine: Engine, spec: AttemptSpec) -> None:
        user = socket.query_params.get("user")
        place = None if user is None else Place(sessions, (user, spec.key), lambda: guests.entering(spec.key))
        await _terminal(socket, engine, spec, place)

    def route(path: str, door: Door) -> WebSocketRoute:
        async def serve(socket: WebSocket) -> None:
            await socket.accept()
            key = (socket.path_params["task_id"], socket.path_params["attempt"])
            with guests.entering(key):
                await through(socket, key)

        async def through(socket: WebSocket, key: Key) -> None:
            try:
                spec = _running(supervisor, key)
                await door(socket, engines[spec.engine], spec)
                await close(socket, DONE)
            except (GoneError, WebSocketDisconnect):
                return
            except HakuRiverError as error:
                await refuse(socket, error)
            except Exception:
                log.exception("a door failed", path=socket.url.path)
                await close(socket, FAILED, "the Runner failed at this connection; see its log")

        return WebSocketRoute(f"{path}/{{task_id:int}}/{{attempt:int}}", serve)

    return [
        route("/api/terminal", terminal),
        route("/api/forward/{port:int}", _forward),
        route(
            "/api/ssh",
            lambda socket, engine, spec: _ssh(socket, engine, spec, folders, supervisor.ended(spec.key)),
        ),
    ]


async def _terminal(socket: WebSocket, engine: Engine, spec: AttemptSpec, place: Place | None) -> None:
    async def start(wanted: TerminalStart) -> Exec:
        if wanted.user is not None and spec.task_type != "vps":
            raise UsageError("in a task one is who the task is", "leave out the user")
        return await engine.run_beside(spec.key, wanted)

    await serve_terminal(socket, start, place=place)


async def _ssh(
    socket: WebSocket, engine: Engine, spec: AttemptSpec, folders: Folders, ended: asyncio.Event
) -> None:
    from hakuriver_agent.ssh.server import serve  # noqa: PLC0415 - where nobody logs in it would be 15 MB for nothing

    if spec.task_type != "vps":
        raise ConflictError(f"task {spec.task_id} is no VPS", "enter it with `hakuriver task shell`")
    await serve(socket, engine, spec, folders, ended)


async def _forward(socket: WebSocket, engine: Engine, spec: AttemptSpec) -> None:
    port = socket.path_params["port"]
    if not 0 < port < 1 << 16:
        raise ConflictError(f"{port} is not a port", "ports are 1 to 65535")
    await carry(socket, *await engine.connect(spec.key, port))


def _running(supervisor: Supervisor, key: Key) -> AttemptSpec:
    spec, report = supervisor.spec(key), supervisor.report(key)
    if spec is None or report is None or report.status is not TaskState.RUNNING:
        raise ConflictError(f"task {key[0]} does not run on this node", "see `hakuriver task status`")
    return spec
