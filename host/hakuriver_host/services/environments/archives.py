"""Reading images: what `docker save` writes, and OCI archives, layer by layer into the store.

Both are read as streams and nothing is unpacked: members are looked at by name, layers go into the store as they
come, and the few small files are kept until the index says what they are. Forms: Docker image specification v1.2
(`manifest.json`), OCI image-layout 1.0 (`index.json`, `blobs/<algorithm>/<digest>`).
"""

from __future__ import annotations

import json
import posixpath
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from hakuriver.errors import UsageError
from hakuriver.models.environments import LayerInfo, digest_of
from hakuriver.store import LayerWriter
from hakuriver_host.services.environments.compression import DAMAGED, uncompressed

_PIECE = 1 << 20
_SMALL = 8 << 20
"""Configurations and indexes are smaller; layers that are smaller are written like all."""
_NO_ARCHIVE = "give an archive that `docker save` wrote, or an OCI archive"


@dataclass(frozen=True, slots=True)
class Image:
    """An image whose layers are in the store."""

    config: str
    layers: list[LayerInfo]
    written: int
    """Bytes that its layers cost on the share."""


@dataclass(slots=True)
class _Found:
    """What has been seen of an archive."""

    small: dict[str, bytes] = field(default_factory=dict)
    layers: dict[str, LayerInfo] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    written: int = 0


def ingest(root: Path, archive: IO[bytes] | Any) -> Image:
    """Puts the layers of the image in an archive into the store.

    Raises:
        UsageError: it is no archive of one image, or holds what no such archive holds.
        StorageError: the share does not take it.
    """
    found = _Found()
    try:
        with tarfile.open(fileobj=archive, mode="r|*", bufsize=_PIECE) as tar:
            for info in tar:
                _take(root, tar, info, found)
    except (tarfile.TarError, *DAMAGED) as error:
        raise UsageError(f"it is no archive of an image, or cut off: {error}", _NO_ARCHIVE) from None
    return _image(found)


def safe_name(name: str) -> str:
    """A member's name.

    Raises:
        UsageError: it leads out of the archive.
    """
    if name.startswith("/") or ".." in name.split("/"):
        raise UsageError(
            f"the archive holds {name!r}, which leads out of it", "do not use it: it may be an attack"
        )
    return posixpath.normpath(name)


def _take(root: Path, tar: tarfile.TarFile, info: tarfile.TarInfo, found: _Found) -> None:
    name = safe_name(info.name)
    if info.issym() or info.islnk():
        target = posixpath.join(posixpath.dirname(name), info.linkname) if info.issym() else info.linkname
        found.links[name] = safe_name(posixpath.normpath(target))
        return
    file = tar.extractfile(info) if info.isreg() else None
    if file is None:
        return
    head = file.read(_SMALL + 1) if not name.endswith("/layer.tar") else file.read(_PIECE)
    if not name.endswith("/layer.tar") and len(head) <= _SMALL and _is_json(head):
        found.small[name] = head
        return
    if name in {"VERSION", "repositories", "oci-layout"} or name.endswith("/VERSION"):
        return
    with LayerWriter(root) as writer:
        for piece in uncompressed(file, head):
            writer.write(piece)
        found.layers[name] = writer.finish()
        found.written += writer.written


def _is_json(data: bytes) -> bool:
    if data[:1] not in {b"{", b"["}:
        return False
    try:
        json.loads(data)
    except ValueError:
        return False
    return True


def _image(found: _Found) -> Image:
    try:
        config, names = _of_docker(found) if "manifest.json" in found.small else _of_oci(found)
        layers = [found.layers[_resolved(found, name)] for name in names]
        wanted = json.loads(config)["rootfs"]["diff_ids"]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise UsageError(
            f"the archive does not hold all of one image (missing: {error})", _NO_ARCHIVE
        ) from None
    if [layer.diff_id for layer in layers] != wanted:
        raise UsageError("a layer in the archive is damaged: its digest is another", "make the archive anew")
    return Image(config, layers, found.written)


def _of_docker(found: _Found) -> tuple[str, list[str]]:
    """Configuration and the layers' members, by `manifest.json`."""
    images = json.loads(found.small["manifest.json"])
    if len(images) != 1:
        raise UsageError(f"the archive holds {len(images)} images", "save one image: `docker save IMAGE`")
    return found.small[posixpath.normpath(images[0]["Config"])].decode(), [
        posixpath.normpath(name) for name in images[0]["Layers"]
    ]


def _of_oci(found: _Found) -> tuple[str, list[str]]:
    """The same, by `index.json` and the manifest that it names."""
    index = json.loads(found.small["index.json"])
    for _ in range(3):  # An index may name an index, as those of several platforms do.
        if len(index["manifests"]) != 1:
            raise UsageError(
                f"the archive holds {len(index['manifests'])} images", "save one image for one platform"
            )
        content = found.small[_blob(index["manifests"][0]["digest"])]
        index = json.loads(content)
        if "layers" in index:
            break
    config = found.small[_blob(index["config"]["digest"])]
    if digest_of(config) != index["config"]["digest"]:
        raise UsageError(
            "the image's configuration is damaged: its digest is another", "make the archive anew"
        )
    return config.decode(), [_blob(layer["digest"]) for layer in index["layers"]]


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/', 1)}"


def _resolved(found: _Found, name: str) -> str:
    for _ in range(8):
        if name not in found.links:
            break
        name = found.links[name]
    return name
