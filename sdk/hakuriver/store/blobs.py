"""Layers on the share: written once, compressed, under the digest of what they hold; checked whenever they are read."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import zstandard

from hakuriver.errors import StorageError
from hakuriver.models.environments import LayerInfo
from hakuriver.store.layout import appear, blob_path, cannot_write, temporary_path

LEVEL = 3
"""Of zstd: about 700 MB/s on two cores, and a third of the size for systems."""
_PIECE = 1 << 20


class LayerWriter:
    """Takes the tar of one layer and puts it into the store, unless it is there. Used as a context.

    Raises:
        StorageError: the share does not take it; nothing of it stays.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._temporary = temporary_path(root)
        self._digest = hashlib.sha256()
        self._size = 0
        self.written = 0
        """Bytes that this layer cost on the share, once it is finished; 0 when it was there."""
        with self._storing():
            self._temporary.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._temporary.open("xb")
            compressor = zstandard.ZstdCompressor(level=LEVEL, threads=-1, write_checksum=True)
            self._stream: Any = compressor.stream_writer(self._file, closefd=False, write_size=_PIECE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        with contextlib.suppress(OSError):
            self._temporary.unlink(missing_ok=True)

    def write(self, data: bytes | memoryview) -> int:
        self._digest.update(data)
        self._size += len(data)
        with self._storing():
            self._stream.write(data)
        return len(data)

    def finish(self) -> LayerInfo:
        """Makes the layer appear."""
        diff_id = f"sha256:{self._digest.hexdigest()}"
        with self._storing():
            self._stream.close()
            final = blob_path(self._root, diff_id)
            if (stored := stored_size(self._root, diff_id)) is None:
                self._file.flush()
                os.fsync(self._file.fileno())
                stored = self.written = os.fstat(self._file.fileno()).st_size
                appear(self._temporary, final)
        return LayerInfo(diff_id=diff_id, size=self._size, stored=stored)

    @contextlib.contextmanager
    def _storing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise cannot_write(self._root, error) from None


def stored_size(root: Path, diff_id: str) -> int | None:
    """Bytes of a layer on the share; none when it is not there."""
    try:
        return blob_path(root, diff_id).stat().st_size
    except FileNotFoundError:
        return None


def read_layer(root: Path, layer: LayerInfo) -> Iterator[bytes]:
    """The uncompressed tar of a layer, piece by piece; the last piece comes only when its digest is right.

    Raises:
        StorageError: it is missing, cut off or damaged, or the share cannot be read.
    """
    digest, size = hashlib.sha256(), 0
    last = b""
    try:
        with blob_path(root, layer.diff_id).open("rb") as file:
            if (found := os.fstat(file.fileno()).st_size) < layer.stored:
                raise _broken(layer, f"is cut off: {found} of {layer.stored} bytes are there")
            for piece in zstandard.ZstdDecompressor().read_to_iter(file, read_size=_PIECE, write_size=_PIECE):
                digest.update(piece)
                size += len(piece)
                if last:
                    yield last
                last = piece
    except FileNotFoundError:
        raise _broken(layer, "is missing") from None
    except zstandard.ZstdError as error:
        raise _broken(layer, f"is damaged: {error}") from None
    except OSError as error:
        raise StorageError(
            f"cannot read the layer {layer.diff_id[:19]} on the share: {error.strerror or error}",
            "check the share's mount on this machine",
        ) from None
    if f"sha256:{digest.hexdigest()}" != layer.diff_id or size != layer.size:
        raise _broken(layer, "is damaged: its digest is another")
    if last:
        yield last


def _broken(layer: LayerInfo, what: str) -> StorageError:
    return StorageError(
        f"the layer {layer.diff_id[:19]} of the environment {what} on the share",
        "remove that version (`hakuriver env delete NAME@VERSION`) and pack it again, or name another version",
    )
