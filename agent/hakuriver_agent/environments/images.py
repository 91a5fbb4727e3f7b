"""The images of an engine: the port, and Docker behind it. Everything here blocks.

The double for tests is `fake_images.py`; `tests/contract/test_environments.py` runs against both.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from hakuriver_agent.environments.planning import Chain

if TYPE_CHECKING:
    from hakuriver_agent.engines.docker_door import DockerDoor

_PREFIX = "hakuriver/"
_CONTAINERD = "io.containerd."
_CONFLICT = 409


@dataclass(frozen=True, slots=True)
class Image:
    id: str
    """The digest of its configuration; of its manifest in an engine with containerd's image store."""
    layers: Chain
    size: int
    env: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()


class LoadRefusedError(Exception):
    """The engine does not take the archive; the text is the engine's."""


class Images(Protocol):
    """What is asked of an engine. Every method raises the engine's own errors when it is away."""

    def takes_deltas(self) -> bool:
        """Whether a load may leave out layers that are there."""

    def find(self, reference: str) -> Image | None:
        """The image with this id or tag."""

    def all(self) -> list[Image]: ...

    def tag(self, image: str, tag: str) -> None:
        """Names an image, even if another one has that name."""

    def load(self, archive: Iterator[bytes], unpacked: Callable[[int], None]) -> None:
        """Takes an archive; `unpacked` is told how many bytes of layers are in place.

        Raises:
            LoadRefusedError: it is not taken, and nothing of it stays.
        """

    def remove(self, tag: str) -> bool:
        """Removes a name, and the image when it has no other; False when a container uses it."""


class DockerImages:
    """See `Images`."""

    def __init__(self, door: DockerDoor) -> None:
        self._door = door
        self._inspected: dict[str, Image] = {}
        """By id. An image never changes; its tags do, and are taken from elsewhere."""
        self._lock = threading.Lock()

    def takes_deltas(self) -> bool:
        status = self._door.client().info().get("DriverStatus") or []
        return not any(
            key == "driver-type" and str(value).startswith(_CONTAINERD) for key, value, *_ in status
        )

    def find(self, reference: str) -> Image | None:
        from docker.errors import NotFound  # noqa: PLC0415 - costs memory where there is no Docker

        try:
            return _image(self._door.client().inspect_image(reference))
        except NotFound:
            return None

    def all(self) -> list[Image]:
        listed = self._door.client().images()
        found = [image for entry in listed if (image := self._known(entry))]
        with self._lock:
            self._inspected = {image.id: image for image in found}
        return found

    def tag(self, image: str, tag: str) -> None:
        repository, _, version = tag.rpartition(":")
        self._door.client().tag(image, repository, version, force=True)

    def load(self, archive: Iterator[bytes], unpacked: Callable[[int], None]) -> None:
        whole = _Unpacked(unpacked)
        # A client of its own, without a limit of time: a share may hang for long.
        client = self._door.connect(None)
        with contextlib.closing(client):
            for answer in client.load_image(archive, quiet=False):
                # An engine that refuses at once answers `message`, one that does so later `error`.
                if refusal := answer.get("error") or answer.get("message"):
                    raise LoadRefusedError(" ".join(str(refusal).split()))
                whole.told(answer)

    def remove(self, tag: str) -> bool:
        from docker.errors import APIError, NotFound  # noqa: PLC0415 - see `find`

        try:
            self._door.client().remove_image(tag)
        except NotFound:
            return True
        except APIError as error:
            if error.status_code != _CONFLICT:
                raise
            return False
        return True

    def _known(self, entry: dict[str, Any]) -> Image | None:
        tags = tuple(tag for tag in entry.get("RepoTags") or () if not tag.startswith("<none>"))
        with self._lock:
            image = self._inspected.get(entry["Id"])
        if image is None:
            image = self.find(entry["Id"])
        return image and Image(image.id, image.layers, image.size, image.env, tags)


class _Unpacked:
    """Sums what the engine tells of each layer: `{"id": …, "progressDetail": {"current": …, "total": …}}`."""

    def __init__(self, told: Callable[[int], None]) -> None:
        self._tell = told
        self._layers: dict[str, int] = {}

    def told(self, answer: dict[str, Any]) -> None:
        detail = answer.get("progressDetail") or {}
        if "id" in answer and isinstance(detail.get("current"), int):
            self._layers[answer["id"]] = detail["current"]
            self._tell(sum(self._layers.values()))


def _image(info: dict[str, Any]) -> Image:
    root, config = info.get("RootFS") or {}, info.get("Config") or {}
    return Image(
        id=str(info["Id"]),
        layers=tuple(root.get("Layers") or ()),
        size=int(info.get("Size") or 0),
        env=tuple(config.get("Env") or ()),
        tags=tuple(info.get("RepoTags") or ()),
    )


def label_of(tag: str) -> str | None:
    """`NAME:VERSION` of an image's name, if it is a version of an environment."""
    name, _, version = tag.removeprefix(_PREFIX).rpartition(":")
    if tag.startswith(_PREFIX) and name and "/" not in name and version.isdecimal():
        return f"{name}:{version}"
    return None
