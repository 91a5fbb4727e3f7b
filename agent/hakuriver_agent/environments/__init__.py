"""Environments: their versions, from the share into the engine, and out of it again when the budget is used up.

A version that is known to be there costs nothing; one that is missing is loaded once, however many attempts wait for
it, several versions at the same time, and each missing layer once. A task in a version that is there waits for no other.

    planning.py     which layers a load brings, and what it waits for: pure
    loading.py      one version: its manifest, the plan, the load, the check
    progress.py     how far it is, in bytes and seconds
    cache.py        which versions stay: the budget and the times of last use; pure
    images.py       the engine's images: the port, and Docker behind it
    fake_images.py  its double
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import structlog

from hakuriver.errors import NotFoundError, StorageError
from hakuriver.models.environments import SyncProgress, VersionManifest, image_tag
from hakuriver.models.runner import AttemptSpec
from hakuriver.references import check_name
from hakuriver.store import Catalog, read_layer
from hakuriver.threads import in_thread
from hakuriver_agent.engines.docker_door import ContainerGoneError, translated
from hakuriver_agent.engines.port import EngineUnavailableError, Launch, StartFailedError
from hakuriver_agent.environments import progress as progress_
from hakuriver_agent.environments.cache import Cached, LastUse, layer_sizes, victim
from hakuriver_agent.environments.images import Image, Images, label_of
from hakuriver_agent.environments.loading import Loader, ReadLayer
from hakuriver_agent.environments.progress import Sync

REFRESH_SECONDS = 60.0
TOLD_AGAIN_SECONDS = 5.0
"""A sync of which nothing new is to be told is told again after this long: its caller sees that it goes on."""
log = structlog.get_logger(__name__)


class Environments:
    """The versions in one engine. `state` is the Runner's own folder."""

    def __init__(
        self,
        root: Path,
        images: Images,
        state: Path,
        budget: int | None = None,
        read: ReadLayer = read_layer,
    ) -> None:
        self._catalog = Catalog(root)
        self._images = images
        self._budget = budget
        self._loader = Loader(root, images, read)
        self._used = LastUse(state / "environments.json")
        self._known: dict[str, str] = {}
        """Ids of images that are in the engine, by `NAME:VERSION`."""
        self._syncs: dict[str, Sync] = {}
        self._wanted: Counter[str] = Counter()
        self._manifests: dict[str, VersionManifest] = {}
        self._present: list[str] = []
        self._tidying: asyncio.Task[None] | None = None
        self._again = False

    @property
    def present(self) -> list[str]:
        """`NAME:VERSION` of what the engine had when it was last looked at."""
        return self._present

    @contextlib.contextmanager
    def wanted(self, spec: AttemptSpec) -> Iterator[None]:
        """While an attempt is starting, its version stays in the engine."""
        label = f"{spec.environment}:{spec.environment_version}"
        self._wanted[label] += 1
        try:
            yield
        finally:
            self._wanted[label] -= 1
            self._wanted += Counter()

    async def image(self, spec: AttemptSpec, launch: Launch) -> tuple[str, str]:
        """Name and id of the image for `spec`, which is in the engine.

        Raises:
            StartFailedError: there is no such version, or it cannot be loaded.
            StartCancelledError: the attempt was killed while it waited.
            EngineUnavailableError: the engine is away.
        """
        name, version = _named(spec)
        label = f"{name}:{version}"
        self._used.touch(label)
        if label not in self._known:
            sync = self._join(name, version)
            sync.joined(launch)
            assert sync.task is not None  # noqa: S101 - `_join` sets it
            cancelled = asyncio.create_task(launch.until_cancelled())
            try:
                await asyncio.wait({sync.task, cancelled}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                cancelled.cancel()
            launch.check()
            return image_tag(name, version), await asyncio.shield(sync.task)
        return image_tag(name, version), self._known[label]

    def forget(self, spec: AttemptSpec) -> None:
        """The engine turned out not to have it."""
        self._known.pop(f"{spec.environment}:{spec.environment_version}", None)

    async def sync(self, name: str, version: int) -> AsyncIterator[SyncProgress]:
        """Starts or joins the load of a version, and tells how it goes; it goes on when nobody listens any more."""
        sync = self._join(name, version)
        self._used.touch(sync.label)
        while True:
            told = sync.progress
            yield told
            if told.state in {"ready", "failed"}:
                return
            if sync.progress == told:
                await sync.changed(TOLD_AGAIN_SECONDS)

    async def run(self, problem: Callable[[], Awaitable[str | None]]) -> None:
        """Looks at the engine's images now and then, for ever, when it works."""
        while True:
            if await problem() is None:
                await self.refresh()
            await in_thread(self._used.save)
            await asyncio.sleep(REFRESH_SECONDS)

    async def refresh(self) -> None:
        """Looks at the engine's images."""
        try:
            with translated():
                images = await in_thread(self._images.all)
        except (EngineUnavailableError, ContainerGoneError):
            return
        self._present = sorted({label for image in images for tag in image.tags if (label := label_of(tag))})
        there = {*self._present, *self._known, *self._syncs, *self._wanted}
        for label in self._used.times.keys() - there:
            self._used.forget(label)

    def _join(self, name: str, version: int) -> Sync:
        label = f"{name}:{version}"
        sync = self._syncs.get(label)
        if sync is None:
            sync = self._syncs[label] = Sync(name, version)
            sync.task = asyncio.create_task(self._run(sync))
            sync.task.add_done_callback(lambda task: self._ended(sync, task))
        return sync

    async def _run(self, sync: Sync) -> str:
        looks = asyncio.create_task(_looks(sync))
        try:
            with translated():
                digest = await self._loader.obtain(sync)
        except ContainerGoneError as error:
            raise EngineUnavailableError(f"the Docker engine lost an image: {error}") from None
        finally:
            looks.cancel()
        self._known[sync.label] = digest
        self._used.touch(sync.label)
        return digest

    def _ended(self, sync: Sync, task: asyncio.Task[str]) -> None:
        del self._syncs[sync.label]
        if task.cancelled():
            return
        error = task.exception()
        sync.ended(str(error) if error else None)
        if error is not None:
            log.warning("cannot provide an environment", environment=sync.label, error=str(error))
        else:
            self._tidy()

    def _tidy(self) -> None:
        """After a load: looks at what there is, and keeps to the budget. Once at a time."""
        if self._tidying is not None and not self._tidying.done():
            self._again = True
            return
        self._tidying = asyncio.create_task(self._tidy_up())

    async def _tidy_up(self) -> None:
        self._again = True
        while self._again:
            self._again = False
            await self.refresh()
            await in_thread(self._used.save)
            try:
                with translated():
                    await self._evict()
            except (EngineUnavailableError, ContainerGoneError) as error:
                log.warning("cannot remove environments from the engine now", error=str(error))

    async def _evict(self) -> None:
        if self._budget is None:
            return
        versions = await in_thread(self._inventory)
        refused: set[str] = set()
        while True:
            kept = refused | self._wanted.keys() | self._syncs.keys()
            label = victim(versions, self._used.times, self._budget, kept, self._loader.needed)
            if label is None:
                return
            self._known.pop(label, None)
            with self._loader.evicting():
                name, _, version = label.rpartition(":")
                gone = await in_thread(lambda: self._images.remove(image_tag(name, version)))  # noqa: B023
            if not gone:
                refused.add(label)
                continue
            log.info("removed an environment from the engine, to keep to its budget", environment=label)
            self._used.forget(label)
            versions = [version_ for version_ in versions if version_.name != label]
            self._present = [other for other in self._present if other != label]

    def _inventory(self) -> list[Cached]:
        """In a thread: the versions in the engine that are this cluster's, as the share or the record tells.

        Another cluster may use the same engine: what is neither on this share nor was used here is not touched.
        """
        found = []
        for image in self._images.all():
            for label in filter(None, map(label_of, image.tags)):
                ours, sizes = self._known_sizes(label, image)
                if ours:
                    found.append(Cached(label, image.layers, sizes))
        return found

    def _known_sizes(self, label: str, image: Image) -> tuple[bool, dict[str, int]]:
        """Whether a version is ours, and the sizes of its layers."""
        name, _, version = label.rpartition(":")
        ours = label in self._used.times
        if label not in self._manifests:
            with contextlib.suppress(StorageError, NotFoundError):
                manifest = self._catalog.manifest(name, int(version))
                ours = True
                if manifest is not None:
                    self._manifests[label] = manifest
        known = self._manifests.get(label)
        layers = {layer.diff_id: layer.size for layer in known.layers} if known else {}
        return ours or known is not None, layer_sizes(image.id, image.layers, image.size, layers)


async def _looks(sync: Sync) -> None:
    while True:
        await asyncio.sleep(progress_.LOOK_SECONDS)
        sync.look()


def _named(spec: AttemptSpec) -> tuple[str, int]:
    """Name and version; both become parts of paths."""
    try:
        return check_name(spec.environment or ""), int(spec.environment_version or "")
    except ValueError as error:
        raise StartFailedError(f"no version of an environment: {error}") from None


__all__ = ["Environments"]
