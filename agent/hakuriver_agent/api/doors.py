"""The doors to running attempts, for the Host alone: terminals, and connections to ports.

The Host checks whose task it is; it relays what a person's client sends.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import structlog
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from hakuriver.closing import DONE, FAILED, close, refuse
from hakuriver.errors import ConflictError, HakuRiverError
from hakuriver.exchange import GoneError
from hakuriver.forwards import carry
from hakuriver.models.runner import EngineName
from hakuriver.states import TaskState
from hakuriver.terminals import serve_terminal
from hakuriver_agent.engines.port import Engine, Key
from hakuriver_agent.supervisor import Supervisor

log = structlog.get_logger(__name__)

Door = Callable[[WebSocket, Engine, Key], Awaitable[None]]


def routes(supervisor: Supervisor, engines: Mapping[EngineName, Engine]) -> list[WebSocketRoute]:
    """`/api/terminal/{task_id}/{attempt}` and `/api/forward/{port}/{task_id}/{attempt}`."""

    def route(path: str, door: Door) -> WebSocketRoute:
        async def serve(socket: WebSocket) -> None:
            await socket.accept()
            key = (socket.path_params["task_id"], socket.path_params["attempt"])
            try:
                await door(socket, _engine(supervisor, engines, key), key)
                await close(socket, DONE)
            except (GoneError, WebSocketDisconnect):
                return
            except HakuRiverError as error:
                await refuse(socket, error)
            except Exception:
                log.exception("a door failed", path=socket.url.path)
                await close(socket, FAILED, "the Runner failed at this connection; see its log")

        return WebSocketRoute(f"{path}/{{task_id:int}}/{{attempt:int}}", serve)

    return [route("/api/terminal", _terminal), route("/api/forward/{port:int}", _forward)]


async def _terminal(socket: WebSocket, engine: Engine, key: Key) -> None:
    await serve_terminal(socket, lambda wanted: engine.run_beside(key, wanted))


async def _forward(socket: WebSocket, engine: Engine, key: Key) -> None:
    port = socket.path_params["port"]
    if not 0 < port < 1 << 16:
        raise ConflictError(f"{port} is not a port", "ports are 1 to 65535")
    await carry(socket, *await engine.connect(key, port))


def _engine(supervisor: Supervisor, engines: Mapping[EngineName, Engine], key: Key) -> Engine:
    spec, report = supervisor.spec(key), supervisor.report(key)
    if spec is None or report is None or report.status is not TaskState.RUNNING:
        raise ConflictError(f"task {key[0]} does not run on this node", "see `hakuriver task status`")
    return engines[spec.engine]
