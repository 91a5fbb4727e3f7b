"""Assembles the Host: every part is built here, once, and handed to those who need it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import Engine
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from hakuriver.config import Settings
from hakuriver.errors import HakuRiverError, InternalError, NotFoundError, UsageError
from hakuriver.ids import IdGenerator
from hakuriver.sessions import Sessions
from hakuriver_host.api.access import access_endpoints
from hakuriver_host.api.batches import batch_endpoints
from hakuriver_host.api.endpoint import Call, Endpoint, EndpointApp, error_response
from hakuriver_host.api.environments import environment_endpoints
from hakuriver_host.api.events import event_endpoints
from hakuriver_host.api.metrics import metric_endpoints
from hakuriver_host.api.nodes import node_endpoints
from hakuriver_host.api.openapi import document
from hakuriver_host.api.tasks import task_endpoints
from hakuriver_host.api.terminal import terminal_routes
from hakuriver_host.api.vps import vps_endpoints
from hakuriver_host.db.repository import LoadedState, Repository
from hakuriver_host.db.writer import Writer
from hakuriver_host.domain import reactor
from hakuriver_host.domain.model import Effects
from hakuriver_host.domain.order import NodeOrder
from hakuriver_host.runners import RunnerClients
from hakuriver_host.services import systemd
from hakuriver_host.services.access import Access, Permission, load_secret
from hakuriver_host.services.batches import Batches
from hakuriver_host.services.core import Core, clock
from hakuriver_host.services.dispatch import Dispatcher
from hakuriver_host.services.doors import Doors
from hakuriver_host.services.environments import Environments, Pins
from hakuriver_host.services.keys import Keys
from hakuriver_host.services.logs import Logs
from hakuriver_host.services.metrics import Metrics
from hakuriver_host.services.monitor import Monitor
from hakuriver_host.services.nodes import Nodes
from hakuriver_host.services.scheduling import limits_of, shares_of
from hakuriver_host.services.seed import Seeder
from hakuriver_host.services.share import Share
from hakuriver_host.services.submit import Submissions
from hakuriver_host.services.tasks import Tasks
from hakuriver_host.ssh.gateway import Gateway
from hakuriver_host.ssh.vps import VpsDesk

log = structlog.get_logger(__name__)


Loop = Callable[[], Coroutine[Any, Any, None]]

_DECIDING = {"schedule", "liveness"}
"""Loops whose defect may leave the cluster in memory other than it is on the record."""
_BEGIN_AGAIN_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Parts:
    """What the application is made of."""

    core: Core
    restored: Effects
    """What taking up the record has led to."""
    access: Access
    nodes: Nodes
    endpoints: Sequence[Endpoint]
    loops: Mapping[str, Loop]
    dispatcher: Dispatcher
    environments: Environments
    monitor: Monitor
    doors: Doors
    desk: VpsDesk
    gateway: Gateway
    terminals: Sessions
    """Of environments."""


class HostApp:
    """The Host's ASGI application. Its parts live as long as its lifespan.

    What ends it, at its start or later, is left in `failure`; `stop` is called when that is later.

    A bare router: the endpoints answer their own errors, so no middleware stands before them.
    """

    def __init__(self, settings: Settings, engine: Engine, share: Share) -> None:
        self.failure: HakuRiverError | None = None
        self.stop: Callable[[], None] = lambda: None
        self.parts: Parts | None = None
        self._settings, self._engine, self._share = settings, engine, share
        self._router = Router(redirect_slashes=False, default=_nothing_here, lifespan=self.lifespan)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._router(scope, receive, send)

    @contextlib.asynccontextmanager
    async def lifespan(self, app: object) -> AsyncIterator[None]:
        del app
        async with contextlib.AsyncExitStack() as stack:
            try:
                parts = await _start(stack, self._settings, self._engine, self._share)
            except HakuRiverError as error:
                self.failure = error
                raise
            except Exception:
                log.exception("the Host cannot start")
                self.failure = InternalError("the Host cannot start", "see its log, and report it")
                raise
            for name, loop in parts.loops.items():
                task = asyncio.create_task(_watched(name, loop, self._fail))
                stack.push_async_callback(_end, task)
            parts.core.schedule_wanted.set()
            self.parts = parts
            self._router.routes.extend(
                _routes(parts.endpoints, parts.access, self._settings.host.max_request_bytes)
            )
            self._router.routes.extend(
                terminal_routes(parts.environments, parts.doors, parts.desk, parts.access, parts.terminals)
            )
            systemd.tell("READY=1")
            yield
            systemd.tell("STOPPING=1")
            await parts.monitor.note_shares()

    def _fail(self, error: HakuRiverError) -> None:
        self.failure = self.failure or error
        self.stop()


async def _start(stack: contextlib.AsyncExitStack, settings: Settings, engine: Engine, share: Share) -> Parts:
    """Starts every part; the stack ends them, last first."""
    stack.callback(engine.dispose)
    repository = Repository(engine)
    loaded = await asyncio.to_thread(repository.load)
    runners = await stack.enter_async_context(
        RunnerClients(str(settings.tls.ca_file) if settings.tls.ca_file else None)
    )
    writer = Writer(engine)
    stack.push_async_callback(writer.close)
    parts = _assemble(settings, repository, writer, loaded, share, runners)
    stack.push_async_callback(parts.dispatcher.close)
    stack.push_async_callback(parts.terminals.close)
    await parts.core.apply(parts.restored)
    await parts.access.bootstrap(settings.paths.state_dir)
    await stack.enter_async_context(parts.gateway)
    return parts


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _assemble(
    settings: Settings,
    repository: Repository,
    writer: Writer,
    loaded: LoadedState,
    share: Share,
    runners: RunnerClients,
) -> Parts:
    scheduling = settings.scheduling
    cluster = reactor.Cluster(
        order=NodeOrder(spread=scheduling.placement == "spread"),
        shares=shares_of(scheduling, loaded),
        limits=limits_of(scheduling),
        pins=scheduling.pin_cores,
    )
    restored = reactor.restore(
        cluster, [node for node, _ in loaded.nodes], loaded.tasks, clock(), loaded.outcomes
    )
    core = Core(
        settings=settings,
        cluster=cluster,
        repository=repository,
        writer=writer,
        ids=IdGenerator(lambda: int(time.time() * 1000), last=loaded.last_id),
        last_event=loaded.last_event,
        records={**loaded.pending_nodes, **{node.name: record for node, record in loaded.nodes}},
        share=share.calls,
        share_problem=lambda: share.problem,
    )
    secret = load_secret(settings.paths.state_dir)
    access = Access(core, loaded.users, loaded.tokens, secret)
    nodes = Nodes(core, access, runners.client, share.share_id)
    keys = Keys(core, loaded.keys, loaded.shares, secret)
    pins = Pins(core)
    submissions = Submissions(core, access, keys, pins)
    monitor, dispatcher, seeder = Monitor(core), Dispatcher(core, nodes), Seeder(settings)
    environments = Environments(core, nodes, pins, share.share_id)
    tasks = Tasks(core, nodes, submissions)
    doors = Doors(core, nodes, tasks, keys)
    network = settings.network
    desk = VpsDesk(keys, access, tasks, doors, environments.versions, network.host_ssh_proxy_port)
    gateway = Gateway(keys, desk, network.host_bind_ip, network.host_ssh_proxy_port)
    endpoints = [
        *task_endpoints(tasks, submissions, Logs(core, nodes)),
        *batch_endpoints(Batches(core, tasks, submissions)),
        *node_endpoints(nodes, monitor),
        *environment_endpoints(environments),
        *event_endpoints(core),
        *access_endpoints(access, keys, doors, gateway, environments.versions),
        *vps_endpoints(desk),
        *metric_endpoints(Metrics(core)),
    ]
    endpoints.append(_openapi_endpoint(endpoints))
    loops = {
        "schedule": dispatcher.run,
        "liveness": monitor.watch,
        "health": monitor.sample,
        "retention": monitor.retain,
        "share": share.watch,
        "default environment": seeder.run,
        "leftovers of environments": environments.preparing.recover,
        "watchdog": systemd.watchdog,
    }
    return Parts(
        core,
        restored,
        access,
        nodes,
        endpoints,
        loops,
        dispatcher,
        environments,
        monitor,
        doors,
        desk,
        gateway,
        Sessions(settings.timing.terminal_wait),
    )


def _openapi_endpoint(endpoints: list[Endpoint]) -> Endpoint:
    async def openapi(call: Call) -> dict[str, Any]:
        del call
        return described

    mine = Endpoint("GET", "/api/openapi.json", openapi, Permission.SEE, "Describe this API", dict[str, Any])
    described = document([*endpoints, mine])
    return mine


def _routes(endpoints: Sequence[Endpoint], access: Access, max_bytes: int) -> list[Route]:
    """One route for each path, with its methods behind it."""
    by_path: dict[str, dict[str, EndpointApp]] = {}
    for endpoint in endpoints:
        by_path.setdefault(endpoint.path, {})[endpoint.method] = EndpointApp(endpoint, access, max_bytes)
    return [Route(path, _Methods(methods), methods=None) for path, methods in by_path.items()]


class _Methods:
    """Chooses the endpoint of a path by the request's method."""

    def __init__(self, apps: dict[str, EndpointApp]) -> None:
        self._apps = apps

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._apps.get(scope["method"])
        if app is not None:
            await app(scope, receive, send)
            return
        known = ", ".join(sorted(self._apps))
        response = _plain(
            405, UsageError(f"{scope['method']} is not served at {scope['path']}", f"{known} is")
        )
        response.headers["Allow"] = known
        await response(scope, receive, send)


async def _nothing_here(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        error = NotFoundError(
            f"nothing is served at {scope['path']}", "see the API reference (/api/openapi.json)"
        )
        await error_response(error)(scope, receive, send)


def _plain(status: int, error: HakuRiverError) -> Response:
    response = error_response(error)
    response.status_code = status
    return response


async def _watched(name: str, loop: Loop, fail: Callable[[HakuRiverError], None]) -> None:
    """A loop that ends by a defect begins again; where decisions may be half done, the Host starts anew from its record."""
    while True:
        try:
            await loop()
        except Exception:
            if name in _DECIDING:
                log.exception("a loop of the Host has failed; the Host ends, to be started anew", loop=name)
                fail(InternalError(f"the {name} loop of the Host has failed", "see its log, and report it"))
                return
            log.exception("a loop of the Host has failed; it begins again", loop=name)
        else:
            return
        await asyncio.sleep(_BEGIN_AGAIN_SECONDS)
