"""What the Host remembers of the layers that a container was made from, so that its first packing reads none again.

What comes through the Host when an environment is made goes into the store on the way. The sizes of such layers are in
no manifest yet; they are kept on the Host's own disk, and losing them makes the first packing dearer, and no worse.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import structlog
from pydantic import BaseModel, ValidationError

from hakuriver.errors import StorageError
from hakuriver.models.environments import LayerInfo
from hakuriver.store import LayerWriter

log = structlog.get_logger(__name__)


class Base(BaseModel):
    container: str
    """The engine's id of what was made from them."""
    layers: list[LayerInfo]


class Bases:
    def __init__(self, memory: Path) -> None:
        self._folder = memory / "bases"

    def remember(self, name: str, base: Base) -> None:
        with suppress(OSError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary = self._folder / f"{name}.new"
            temporary.write_text(base.model_dump_json(), "utf-8")
            temporary.rename(self._folder / f"{name}.json")

    def recall(self, name: str, container: str) -> list[LayerInfo]:
        """Those that this very container was made from; none where that is not known."""
        try:
            base = Base.model_validate_json((self._folder / f"{name}.json").read_bytes())
        except (OSError, ValidationError):
            return []
        return base.layers if base.container == container else []

    def forget(self, name: str) -> None:
        (self._folder / f"{name}.json").unlink(missing_ok=True)


class Kept:
    """Passes on the tar of a layer, and puts it into the store on the way. What goes by goes by, whatever the share does."""

    def __init__(self, root: Path, pieces: Iterator[bytes]) -> None:
        self._root = root
        self._pieces = pieces
        self.layers: list[LayerInfo] = []
        """The layer, when it has gone by and is in the store."""

    def __iter__(self) -> Iterator[bytes]:
        try:
            with LayerWriter(self._root) as writer:
                for piece in self._pieces:
                    yield piece
                    writer.write(piece)
                self.layers.append(writer.finish())
        except StorageError as error:
            log.warning("the share did not take what an environment is made from", cause=str(error))
        # What is left, when the share did not take all.
        yield from self._pieces
