"""The double of an engine's images: reads the archives that it is given, as Docker 20.10 does.

A load takes layers that the archive leaves out from images that are there, and fails where there is none. Other ways of
failing are set by a test.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Callable, Iterator
from typing import IO, Any

from hakuriver_agent.environments.images import Image, LoadRefusedError
from hakuriver_agent.environments.planning import Chain


class FakeImages:
    """See `Images`."""

    def __init__(self, *, containerd: bool = False) -> None:
        self.images: dict[str, Image] = {}
        self.names: dict[str, str] = {}
        """Ids by tag."""
        self.in_use: set[str] = set()
        """Ids of images that containers use."""
        self.missing: set[str] = set()
        """Layers that are gone, although images have them."""
        self.away: Exception | None = None
        self.loads = 0
        self._containerd = containerd
        self._lock = threading.Lock()

    def takes_deltas(self) -> bool:
        return not self._containerd

    def find(self, reference: str) -> Image | None:
        with self._lock:
            self._check()
            return self._image(self.names.get(reference, reference))

    def all(self) -> list[Image]:
        with self._lock:
            self._check()
            return [image for found in self.images if (image := self._image(found))]

    def tag(self, image: str, tag: str) -> None:
        with self._lock:
            self._check()
            self.names[tag] = image

    def load(self, archive: Iterator[bytes], unpacked: Callable[[int], None]) -> None:
        self.loads += 1
        self._check()
        members = _members(archive)
        index = json.loads(members["manifest.json"])[0]
        config = json.loads(members[index["Config"]])
        with self._lock:
            self._check()
            wanted: Chain = tuple(config["rootfs"]["diff_ids"])
            self._take(wanted, [members.get(name) for name in index["Layers"]])
            digest = hashlib.sha256(members[index["Config"]] + b"manifest" * self._containerd).hexdigest()
            found = f"sha256:{digest}"
            size = sum(len(members.get(name, b"")) for name in index["Layers"])
            env = tuple((config.get("config") or {}).get("Env") or ())
            self.images[found] = Image(found, wanted, size, env)
            self.names |= dict.fromkeys(index["RepoTags"], found)
        unpacked(size)

    def remove(self, tag: str) -> bool:
        with self._lock:
            self._check()
            image = self.names.get(tag)
            if image in self.in_use:
                return False
            self.names.pop(tag, None)
            if image is not None and image not in self.names.values():
                self.images.pop(image, None)
            return True

    def _take(self, wanted: Chain, layers: list[bytes | None]) -> None:
        for number, (diff_id, data) in enumerate(zip(wanted, layers, strict=True)):
            if data is not None:
                if f"sha256:{hashlib.sha256(data).hexdigest()}" != diff_id:
                    raise LoadRefusedError(f"invalid diffID for layer {number}")
                self.missing.discard(diff_id)
            elif diff_id in self.missing or not self._has(wanted[: number + 1]):
                raise LoadRefusedError(f"open {number:03}/layer.tar: no such file or directory")

    def _has(self, chain: Chain) -> bool:
        return any(image.layers[: len(chain)] == chain for image in self.images.values())

    def _image(self, found: str) -> Image | None:
        image = self.images.get(found)
        if image is None:
            return None
        tags = tuple(tag for tag, named in self.names.items() if named == found)
        return Image(image.id, image.layers, image.size, image.env, tags)

    def _check(self) -> None:
        if self.away is not None:
            raise self.away


def _members(archive: Iterator[bytes]) -> dict[str, bytes]:
    """The files of an archive that comes piece by piece."""
    stream: Any = _Stream(archive)
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                data: IO[bytes] | None = tar.extractfile(member)
                found[member.name] = data.read() if data else b""
        for _ in archive:
            pass
    except tarfile.TarError as error:
        raise LoadRefusedError(f"Error processing tar file: {error}") from None
    return found


class _Stream(io.RawIOBase):
    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def read(self, size: int = -1) -> bytes:
        while len(self._rest) < size and (piece := next(self._pieces, None)) is not None:
            self._rest += piece
        found, self._rest = self._rest[:size], self._rest[size:]
        return found
