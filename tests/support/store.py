"""Versions of environments in a store of the tests' own, made of layers given as bytes; no engine is needed."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import tarfile
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from hakuriver.models.environments import VersionManifest
from hakuriver.store import Catalog, LayerWriter
from hakuriver.store.layout import blob_path
from support import engine


def layer(seed: str, size: int = 1000) -> bytes:
    """The tar of one layer: a file named by the seed, with bytes of its own that do not compress."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo(f"layer-{seed}")
        entry.size = size
        tar.addfile(entry, io.BytesIO(hashlib.shake_128(seed.encode()).digest(size)))
    return buffer.getvalue()


@functools.cache
def system() -> bytes:
    """The tar of a layer in which commands run: a busybox, the same one in all tests."""
    return engine.root_file_system()


def unique(name: str = "env") -> str:
    """A name that no other test uses, on an engine that many share."""
    return f"test-{name}-{uuid.uuid4().hex[:8]}"


def write_version(
    root: Path,
    name: str,
    version: int,
    layers: Sequence[bytes],
    *,
    env: Sequence[str] = ("PATH=/bin",),
    message: str = "",
    author: str = "",
) -> VersionManifest:
    """Stores a version as the Host would, and gives its manifest. Layers that are there already are not written."""
    stored = []
    for data in layers:
        with LayerWriter(root) as writer:
            writer.write(data)
            stored.append(writer.finish())
    created = datetime.fromtimestamp(version, UTC)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "created": created.isoformat(),
        "config": {"Env": list(env), "Labels": {"hakuriver.test": f"{name}@{version}"}},
        "rootfs": {"type": "layers", "diff_ids": [info.diff_id for info in stored]},
    }
    manifest = VersionManifest(
        name=name,
        version=version,
        created=created,
        author=author,
        message=message,
        config=json.dumps(config),
        layers=stored,
    )
    Catalog(root).write(manifest)
    return manifest


def blob(root: Path, manifest: VersionManifest, number: int) -> Path:
    """The file of a version's layer, counted from the lowest, 0."""
    return blob_path(root, manifest.layers[number].diff_id)


def remove_images(*manifests: VersionManifest) -> None:
    """From the engine, with what they alone use."""
    for manifest in manifests:
        engine.remove_image(manifest.name, manifest.version)
