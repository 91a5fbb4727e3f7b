"""Environments over a store of the tests' own: with the double of an engine's images, and with the real engine."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hakuriver.models.environments import LayerInfo, SyncProgress, VersionManifest
from hakuriver.models.runner import AttemptSpec
from hakuriver.store import read_layer
from hakuriver_agent.engines.docker_door import DockerDoor
from hakuriver_agent.engines.port import Launch
from hakuriver_agent.environments import Environments
from hakuriver_agent.environments.fake_images import FakeImages
from hakuriver_agent.environments.images import DockerImages, Image, Images
from support import store

WITHIN = 60.0
_ids = itertools.count(1)


@dataclass
class EnvironmentRig:
    """One node's environments, and what was read for them."""

    folder: Path
    images: Images
    budget: int | None = None
    reads: Counter[str] = field(default_factory=Counter)
    """How often each layer was read from the share."""
    gates: dict[str, threading.Event] = field(default_factory=dict)
    """Layers that are given only once their event is set: the share hangs until then."""
    manifests: list[VersionManifest] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.folder / "state").mkdir(exist_ok=True)
        self.environments = self.life()

    @property
    def root(self) -> Path:
        return self.folder / "containers"

    @property
    def fake(self) -> FakeImages:
        assert isinstance(self.images, FakeImages)
        return self.images

    def life(self) -> Environments:
        """A new life of the Runner, over the same engine and share."""
        self.environments = Environments(
            self.root, self.images, self.folder / "state", self.budget, self._read
        )
        return self.environments

    def pack(
        self, name: str, layers: list[bytes], version: int = 1_700_000_000, **more: Any
    ) -> VersionManifest:
        manifest = store.write_version(self.root, name, version, layers, **more)
        self.manifests.append(manifest)
        return manifest

    def spec(self, manifest: VersionManifest, **changes: Any) -> AttemptSpec:
        task = next(_ids)
        fields: dict[str, Any] = {
            "task_id": task,
            "attempt": 1,
            "batch_id": task,
            "owner": "tester",
            "engine": "docker",
            "command": "true",
            "environment": manifest.name,
            "environment_version": str(manifest.version),
            "stdout_path": f"task_outputs/{task}.out",
            "stderr_path": f"task_errors/{task}.err",
        }
        return AttemptSpec.model_validate(fields | changes)

    async def get(self, manifest: VersionManifest, launch: Launch | None = None) -> tuple[str, str]:
        """What an attempt does."""
        spec = self.spec(manifest)
        with self.environments.wanted(spec):
            return await asyncio.wait_for(self.environments.image(spec, launch or Launch()), WITHIN)

    async def synced(self, manifest: VersionManifest) -> list[SyncProgress]:
        return [told async for told in self.environments.sync(manifest.name, manifest.version)]

    def image(self, manifest: VersionManifest) -> Image | None:
        """What has the version's name in the engine."""
        return self.images.find(manifest.tag)

    def gate(self, manifest: VersionManifest, number: int) -> threading.Event:
        """Has the share hang at a layer, until the event is set."""
        return self.gates.setdefault(manifest.layers[number].diff_id, threading.Event())

    def close(self) -> None:
        for gate in self.gates.values():
            gate.set()
        if isinstance(self.images, DockerImages):
            store.remove_images(*self.manifests)

    def _read(self, root: Path, layer: LayerInfo) -> Iterator[bytes]:
        self.reads[layer.diff_id] += 1
        if gate := self.gates.get(layer.diff_id):
            gate.wait()
        yield from read_layer(root, layer)


def rig(kind: str, folder: Path, budget: int | None = None) -> EnvironmentRig:
    images: Images = FakeImages() if kind == "fake" else DockerImages(DockerDoor(""))
    return EnvironmentRig(folder, images, budget)


async def soon(probe: Callable[[], object], what: str) -> None:
    """Waits until `probe()` is true, with a deadline."""
    deadline = asyncio.get_running_loop().time() + WITHIN
    while not probe():
        assert asyncio.get_running_loop().time() < deadline, what
        await asyncio.sleep(0.01)
