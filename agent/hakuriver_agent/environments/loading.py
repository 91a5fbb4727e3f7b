"""Brings one version from the share into the engine: what is missing of it, once, and checked.

A version is a manifest with layers, or an archive as a whole. What was loaded must be the image that the manifest
names: a task never runs in another one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path

import structlog

from hakuriver.errors import HakuRiverError, NotFoundError, StorageError
from hakuriver.models.environments import LayerInfo, VersionManifest, image_tag
from hakuriver.pieces import pieces_of
from hakuriver.store import Catalog, docker_archive, read_layer
from hakuriver.store.layout import archive_path
from hakuriver.threads import in_thread
from hakuriver_agent.engines.port import StartFailedError
from hakuriver_agent.environments.images import Image, Images, LoadRefusedError
from hakuriver_agent.environments.planning import Chain, Flight, Wait, plan
from hakuriver_agent.environments.progress import Sync

ReadLayer = Callable[[Path, LayerInfo], Iterator[bytes]]
_FULL = "no space left"
log = structlog.get_logger(__name__)


class Loader:
    """Lives in the loop; the share and the engine are used in threads."""

    def __init__(self, root: Path, images: Images, read: ReadLayer = read_layer) -> None:
        self._catalog = Catalog(root)
        self._images = images
        self._read = partial(read, root)
        self._flights: list[Flight] = []
        self._turn = 0
        """Rises when the engine's images may have changed: what was seen before is stale."""
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._deltas: bool | None = None

    async def obtain(self, sync: Sync) -> str:
        """The id of the version's image, which is in the engine and has its name.

        Raises:
            StartFailedError: it cannot be had.
        """
        try:
            await self._quiet.wait()
            manifest = await in_thread(lambda: sync.meter.reading(lambda: self._manifest(sync)))
            if manifest is None:
                return await self._whole(sync)
            return await self._layered(sync, manifest)
        except HakuRiverError as error:
            raise StartFailedError(
                f"{error.message}; {error.hint}" if error.hint else error.message
            ) from None
        except LoadRefusedError as error:
            raise StartFailedError(f"cannot load {sync.name}@{sync.version}: {error}") from None

    @property
    def needed(self) -> list[Chain]:
        """Chains of lowest layers on which loads in flight build."""
        return [flight.layers[: flight.skip] for flight in self._flights if flight.skip]

    @contextlib.contextmanager
    def evicting(self) -> Iterator[None]:
        """While an image is removed from the engine, nothing is looked up or planned."""
        self._quiet.clear()
        try:
            yield
        finally:
            self._turn += 1
            self._quiet.set()

    def _manifest(self, sync: Sync) -> VersionManifest | None:
        try:
            return self._catalog.manifest(sync.name, sync.version)
        except NotFoundError:
            root = self._catalog.root
            if root.is_dir():
                raise
            raise StorageError(
                f"the share's folder {root.name} is not there on this node",
                "check the mount of paths.shared_dir",
            ) from None

    async def _layered(self, sync: Sync, manifest: VersionManifest) -> str:
        wanted = tuple(layer.diff_id for layer in manifest.layers)
        while True:
            await self._quiet.wait()
            turn = self._turn
            found, images = await in_thread(lambda: self._look(manifest))
            if turn != self._turn:
                continue
            if found is not None:
                return found
            chains = [image.layers for image in images] if self._deltas else []
            step = plan(wanted, chains, self._flights if self._deltas else [])
            if isinstance(step, Wait):
                sync.waits(f"waiting for layers that {step.flight.name} brings")
                await step.flight.done.wait()
                continue
            async with self._flight(Flight(f"{sync.name}@{sync.version}", wanted, step.skip)) as flight:
                return await self._bring(sync, manifest, flight)

    @contextlib.asynccontextmanager
    async def _flight(self, flight: Flight) -> AsyncIterator[Flight]:
        self._flights.append(flight)
        try:
            yield flight
        finally:
            self._flights.remove(flight)
            self._turn += 1
            flight.done.set()

    async def _bring(self, sync: Sync, manifest: VersionManifest, flight: Flight) -> str:
        """Loads, and once more with all layers where the engine misses one that it seemed to have."""
        try:
            await self._load(sync, manifest, flight.skip)
        except LoadRefusedError as error:
            if not flight.skip or _FULL in str(error):
                raise
            log.warning("loading all layers, since some were missing", image=manifest.tag, error=str(error))
            flight.skip = 0
            await self._load(sync, manifest, 0)
        found, _ = await in_thread(lambda: self._look(manifest))
        if found is None:
            raise StartFailedError(f"what was loaded for {sync.name}@{sync.version} is not its image")
        return found

    async def _load(self, sync: Sync, manifest: VersionManifest, skip: int) -> None:
        meter, missing = sync.meter, manifest.layers[skip:]
        sync.loads(sum(layer.size for layer in missing))
        log.info("loading an environment", image=manifest.tag, layers=len(missing), bytes=meter.total)
        failures: list[HakuRiverError] = []

        def layer(info: LayerInfo) -> Iterator[bytes]:
            try:
                yield from meter.counted(self._read(info))
            except HakuRiverError as error:
                failures.append(error)
                raise

        await self._stream(sync, docker_archive(manifest, layer, skip=skip), failures)

    async def _whole(self, sync: Sync) -> str:
        """The same for an archive, of which nobody knows what it holds."""
        tag = image_tag(sync.name, sync.version)
        path = archive_path(self._catalog.root, sync.name, sync.version)
        found = await in_thread(lambda: self._images.find(tag))
        if found is None:
            failures: list[HakuRiverError] = []
            sync.loads(await in_thread(lambda: sync.meter.reading(lambda: _size(path))))
            log.info("loading an environment", image=tag, archive=path.name, bytes=sync.meter.total)
            await self._stream(sync, sync.meter.counted(_pieces(path, failures)), failures)
            self._turn += 1
            found = await in_thread(lambda: self._images.find(tag))
        if found is None:
            raise StartFailedError(f"the archive {path.name} does not hold the image {tag}")
        return found.id

    async def _stream(self, sync: Sync, archive: Iterator[bytes], failures: list[HakuRiverError]) -> None:
        """Hands an archive to the engine; what the share refused goes before what the engine makes of it."""
        meter, began = sync.meter, time.monotonic()

        def unpacked(count: int) -> None:
            meter.unpacked = count

        def work() -> None:
            try:
                self._images.load(archive, unpacked)
            except Exception:
                if failures:
                    raise failures[0] from None
                raise

        await in_thread(work, name="load")
        log.info(
            "loaded an environment",
            image=image_tag(sync.name, sync.version),
            seconds=round(time.monotonic() - began, 2),
        )

    def _look(self, manifest: VersionManifest) -> tuple[str | None, list[Image]]:
        """In a thread: the id of the version's image if the engine has it, under its name; and all images."""
        deltas = self._images.takes_deltas()
        if deltas != self._deltas:
            self._deltas = deltas
            how = (
                "without layers that are there"
                if deltas
                else "as whole archives: it keeps images in containerd"
            )
            log.info(f"the Docker engine takes environments {how}")
        if deltas:
            found = self._images.find(manifest.image)
            if found is not None:
                _name(self._images, found, manifest.tag)
                return found.id, []
        else:
            found = self._images.find(manifest.tag)
            if found is not None and is_version(found, manifest):
                return found.id, []
        return None, self._images.all() if deltas else []


def is_version(image: Image, manifest: VersionManifest) -> bool:
    """Whether an image is that of a manifest, where the engine's ids are not digests of configurations.

    Layers and variables are what a task meets of an image: its command, folder and user are the task's own.
    """
    env = (json.loads(manifest.config).get("config") or {}).get("Env") or []
    return image.layers == tuple(layer.diff_id for layer in manifest.layers) and image.env == tuple(env)


def _name(images: Images, found: Image, tag: str) -> None:
    """Gives an image its name, which another one may have."""
    if tag in found.tags:
        return
    if other := images.find(tag):
        log.warning("took its name from an image that is not this version", image=tag, other=other.id)
    images.tag(found.id, tag)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise _cannot_read(path, error) from None


def _pieces(path: Path, failures: list[HakuRiverError]) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            yield from pieces_of(file)
    except OSError as error:
        failures.append(_cannot_read(path, error))
        raise failures[0] from None


def _cannot_read(path: Path, error: OSError) -> StorageError:
    return StorageError(
        f"cannot read {path.name} on the share: {error.strerror or error}",
        "check the share's mount on this machine",
    )
