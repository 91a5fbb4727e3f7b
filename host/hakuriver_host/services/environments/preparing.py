"""The containers in which environments are prepared: made, started, filled, and removed."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import structlog

from hakuriver.errors import ConflictError, HakuRiverError, UnreachableError, UsageError
from hakuriver.models.environments import EnvironmentClone, EnvironmentCreate
from hakuriver.models.tasks import Message
from hakuriver.pieces import pieces_of
from hakuriver.store.layout import LIFE
from hakuriver.threads import start_thread
from hakuriver_host.services.access import Principal
from hakuriver_host.services.environments.desk import Desk, checked, named
from hakuriver_host.services.environments.engine import EnvContainer
from hakuriver_host.services.environments.making import Maker, Source

log = structlog.get_logger(__name__)


class Preparing:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        shared_data = desk.core.settings.paths.shared_dir / "shared_data"
        self._maker = Maker(desk.engine, desk.catalog, shared_data, desk.scratch, desk.memory)

    async def create(self, request: EnvironmentCreate, principal: Principal) -> Message:
        await self._desk.may_make(request.name, principal)
        if request.base:
            await self._desk.may_use(named(request.base), principal)
        if request.image and not principal.is_admin:
            await start_thread(lambda: self._maker.check_public(str(request.image)))
        async with self._desk.alone(request.name, "being made"):
            await start_thread(lambda: self._maker.create(request, principal.name))
        return Message(message=f"{request.name} is made")

    async def upload(
        self, name: str, kind: Source, body: AsyncIterator[bytes], principal: Principal
    ) -> Message:
        """Makes an environment from an archive, a root file system or a Dockerfile's folder."""
        checked(name)
        await self._desk.may_make(name, principal)
        async with self._desk.alone(name, "being made"), self._desk.spooled(body) as file:
            await start_thread(lambda: self._maker.create_from(name, kind, file, principal.name))
        return Message(message=f"{name} is made")

    async def clone(self, name: str, request: EnvironmentClone, principal: Principal) -> Message:
        await self._desk.may_use(name, principal)
        await self._desk.may_make(request.name, principal)
        async with self._desk.alone(request.name, "being made"):
            await start_thread(lambda: self._maker.clone(name, request.name, principal.name))
        return Message(message=f"{request.name} is made")

    async def start(self, name: str, principal: Principal) -> Message:
        await self._desk.may_change(name, principal)
        async with self._desk.alone(name, "being started"):
            await start_thread(lambda: self._desk.engine.start(name))
        return Message(message=f"{name} is started")

    async def stop(self, name: str, principal: Principal) -> Message:
        await self._desk.may_change(name, principal)
        async with self._desk.alone(name, "being stopped"):
            await start_thread(lambda: self._desk.engine.stop(name))
        return Message(message=f"{name} is stopped")

    async def download(self, name: str, path: str, principal: Principal) -> Iterator[bytes]:
        await self._desk.may_change(name, principal)
        return await start_thread(lambda: self._desk.engine.download(name, _path(path)))

    async def put(self, name: str, path: str, body: AsyncIterator[bytes], principal: Principal) -> Message:
        await self._desk.may_change(name, principal)
        async with self._desk.spooled(body) as file:
            await start_thread(lambda: self._desk.engine.upload(name, _path(path), pieces_of(file)))
        return Message(message=f"copied to {name}:{path}")

    async def terminal(self, name: str, principal: Principal) -> EnvContainer:
        """The container to open a terminal in.

        Raises:
            ConflictError: it does not run.
        """
        await self._desk.may_change(name, principal)
        container = await start_thread(lambda: self._desk.engine.container(name))
        if container.state != "running":
            raise ConflictError(
                f"the environment {name} is {container.state}", f"start it: `hakuriver env start {name}`"
            )
        return container

    async def containers(self) -> list[EnvContainer]:
        """Those of this cluster.

        Raises:
            UnreachableError: no engine answers.
        """
        return await start_thread(self._desk.engine.containers)

    async def recover(self) -> None:
        """Once, at the Host's start: cleans up what an earlier life left half done.

        The engine is asked only where something was ever packed: a Host that prepares no environments loads no SDK.
        """

        def work() -> None:
            self._desk.catalog.sweep_temporary()
            for leftover in self._desk.scratch.glob("*"):
                if not leftover.name.startswith(LIFE):
                    shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)
            if self._desk.memory.is_dir():
                with suppress(UnreachableError):
                    self._desk.engine.recover(busy=self._desk.busy)

        try:
            await start_thread(work)
        except (HakuRiverError, OSError) as error:
            log.warning("cleaning up after earlier work on environments failed", cause=str(error))


def _path(path: str) -> str:
    if not path.startswith("/") or "\0" in path:
        raise UsageError(f"{path!r} is not an absolute path in the container", "write NAME:/PATH")
    return path
