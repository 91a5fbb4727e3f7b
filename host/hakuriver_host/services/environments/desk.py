"""What all work on environments shares: who may, one thing at a time for each, the share's threads, and uploads."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from typing import IO, TypeVar

from hakuriver.errors import ConflictError, HakuRiverError, NotFoundError, StorageError, UsageError
from hakuriver.references import check_name, parse_reference
from hakuriver.states import FINAL
from hakuriver.store import Catalog
from hakuriver.threads import start_thread
from hakuriver_host.services.access import Principal
from hakuriver_host.services.core import Core
from hakuriver_host.services.environments.engine import EnvContainer, HostEngine
from hakuriver_host.services.environments.pins import Pins
from hakuriver_host.services.environments.snapshots import is_private

_ROOM = 64 << 20
"""Bytes that must be free on the share before anything is written to it."""
_RESERVE = 1 << 30
"""Bytes that uploads leave free on the Host's own disk; less on one that has less than twenty times as many."""
T = TypeVar("T")


class Desk:
    """`share_id` names the cluster on the engine."""

    def __init__(self, core: Core, pins: Pins, share_id: str) -> None:
        settings = core.settings
        self.core = core
        self.pins = pins
        self.catalog = Catalog(settings.container_dir)
        self.engine = HostEngine(settings.docker.socket, share_id)
        self.scratch = settings.paths.state_dir / "uploads"
        self.memory = settings.paths.state_dir / "environments"
        """What packings remember; there once something was packed."""
        self.busy: dict[str, str] = {}
        self.collecting = False

    async def may_make(self, name: str, principal: Principal) -> None:
        """A name that is somebody else's environment cannot be taken, nor one that is for snapshots."""
        if is_private(name):
            raise ConflictError(f"{name} is a name for the snapshots of a VPS", "choose another name")
        owner = await self._owner(name)
        if owner:
            principal.check_owns(owner, f"the environment {name}")

    async def may_use(self, name: str, principal: Principal) -> None:
        """Environments are there for everybody, but for the snapshots of VPS."""
        if is_private(name):
            await self.may_change(name, principal)

    async def may_change(self, name: str, principal: Principal) -> None:
        checked(name)
        owner = await self._owner(name)
        if owner is None:
            raise NotFoundError(f"there is no environment {name!r}", "see `hakuriver env list`")
        principal.check_owns(owner or "the cluster", f"the environment {name}")

    async def _owner(self, name: str) -> str | None:
        """Who made it: the container's owner, else the first version's author; none when there is neither."""
        if (container := await self.container(name)) is not None:
            return container.owner

        def work() -> str | None:
            versions = self.catalog.versions(name)
            for version in reversed(versions):
                with contextlib.suppress(StorageError):  # Damaged: the next one tells.
                    manifest = self.catalog.manifest(name, version)
                    return manifest.author if manifest else ""
            return "" if versions else None

        return await self.share(work)

    @contextlib.asynccontextmanager
    async def alone(self, name: str, doing: str) -> AsyncIterator[None]:
        """One thing at a time for one environment; what comes meanwhile is told so."""
        if self.collecting:
            raise ConflictError("garbage is being collected", "try again in a moment")
        if (busy := self.busy.get(name)) is not None:
            raise ConflictError(f"the environment {name} is {busy} now", "try again when that is done")
        self.busy[name] = doing
        try:
            yield
        finally:
            del self.busy[name]
            self.pins.forget()

    @contextlib.asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """Refuses before anything is done when the share is nearly full."""

        def free() -> int:
            stat = os.statvfs(self.catalog.root)
            return stat.f_bavail * stat.f_frsize

        if await self.share(free) < _ROOM:
            raise StorageError(
                "the share is full", "free some space there: `hakuriver env gc`; nothing was changed"
            )
        yield

    @contextlib.asynccontextmanager
    async def spooled(self, body: AsyncIterator[bytes]) -> AsyncIterator[IO[bytes]]:
        """What is uploaded, as a file on the Host's own disk: read again where that is needed, gone afterwards."""
        try:
            self.scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = tempfile.TemporaryFile(dir=self.scratch)  # noqa: SIM115 - closed below
        except OSError as error:
            raise StorageError(
                f"cannot write {self.scratch}: {error.strerror}", "check the Host's disk"
            ) from None
        try:
            async for piece in body:
                await asyncio.to_thread(_write, file, piece)
            file.seek(0)
            yield file
        except OSError as error:
            raise StorageError(
                f"cannot keep the upload: {error.strerror}", "free some space on the Host's disk"
            ) from None
        finally:
            file.close()

    async def share(self, work: Callable[[], T]) -> T:
        """Work on the share, which may hang."""
        try:
            return await self.core.share.call(work)
        except OSError as error:
            raise StorageError(
                f"the Host's shared directory: {error.strerror or error}", "check its mount and permissions"
            ) from None

    async def containers(self) -> list[EnvContainer]:
        """None where no engine answers: versions can be looked at all the same."""
        try:
            return await start_thread(self.engine.containers)
        except HakuRiverError:
            return []

    async def container(self, name: str) -> EnvContainer | None:
        return next((each for each in await self.containers() if each.environment == name), None)

    def named(self, name: str) -> set[int]:
        """Versions of an environment that tasks name which are not final."""
        return {
            int(task.batch.environment_version)
            for task in self.core.cluster.tasks.values()
            if task.state not in FINAL and task.batch.environment == name and task.batch.environment_version
        }

    def current(self, name: str) -> int:
        current = self.catalog.current(name)
        if current is None:
            raise NotFoundError(
                f"the environment {name!r} has no version",
                f"pack it: `hakuriver env pack {name}`; or see `hakuriver env list`",
            )
        return current

    def chosen(self, name: str, version: int | None) -> int:
        """The number of a version that can be read; none is the current one. Blocks on the share."""
        number = version if version is not None else self.current(name)
        self.catalog.manifest(name, number)
        return number


def _write(file: IO[bytes], piece: bytes) -> None:
    """Raises `OSError` where the disk, which the Host's own state is on, would have too little left."""
    stat = os.fstatvfs(file.fileno())
    if stat.f_bavail * stat.f_frsize - len(piece) < min(_RESERVE, stat.f_blocks * stat.f_frsize // 20):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    file.write(piece)


def checked(name: str) -> None:
    """Raises `UsageError` when it cannot be an environment's name."""
    try:
        check_name(name)
    except ValueError as error:
        raise UsageError(str(error), "choose another name") from None


def named(reference: str) -> str:
    """The environment that a reference names. Raises `UsageError` when it is none."""
    try:
        return parse_reference(reference).name
    except ValueError as error:
        raise UsageError(str(error), "see `hakuriver env list`") from None


def in_use(name: str, versions: list[int]) -> ConflictError:
    listed = ", ".join(f"{name}@{version}" for version in versions)
    return ConflictError(
        f"tasks that have not ended name {listed}", "wait for them or kill them: `hakuriver task list`"
    )
