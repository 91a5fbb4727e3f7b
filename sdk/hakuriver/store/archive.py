"""A version as the archive that `docker load` takes, made on the way out of the store.

The form is that of `docker save` (Docker image specification v1.2): `manifest.json`, the configuration, and a tar for
each layer. An engine that has the lowest layers already takes an archive without them.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterator

from hakuriver.models.environments import LayerInfo, VersionManifest

_BLOCK = tarfile.BLOCKSIZE


def docker_archive(
    manifest: VersionManifest, layer: Callable[[LayerInfo], Iterator[bytes]], *, skip: int = 0
) -> Iterator[bytes]:
    """The archive of a version without its `skip` lowest layers. `layer` reads one."""
    config = manifest.config.encode()
    config_name = f"{manifest.image.removeprefix('sha256:')}.json"
    names = [f"{number:03}/layer.tar" for number in range(len(manifest.layers))]
    index = [{"Config": config_name, "RepoTags": [manifest.tag], "Layers": names}]
    yield from _member("manifest.json", json.dumps(index).encode())
    yield from _member(config_name, config)
    for name, info in list(zip(names, manifest.layers, strict=True))[skip:]:
        yield _header(name, info.size)
        yield from layer(info)
        yield b"\0" * (-info.size % _BLOCK)
    yield b"\0" * (2 * _BLOCK)


def _member(name: str, data: bytes) -> Iterator[bytes]:
    yield _header(name, len(data)) + data + b"\0" * (-len(data) % _BLOCK)


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    # GNU's form holds sizes above 8 GB in the header itself.
    return info.tobuf(tarfile.GNU_FORMAT)
