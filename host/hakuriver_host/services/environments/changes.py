"""What has changed in a container since it was packed last, as a layer.

The engine's overlay keeps all that was ever changed since the container was made in one folder, its upper directory.
Packing that each time would cost more each time. So what a packing saw is remembered as an index (a path and what was
there), and the next layer holds what is different now, with whiteouts for what is gone.

A layer is a tar as the OCI image specification has it (`layer.md`): `.wh.NAME` removes NAME of the layers below, and
`.wh..wh..opq` in a folder hides all that they have in it. In an upper directory a removal is a character device 0/0,
and a folder that hides is marked (overlayfs.rst in the kernel's documentation, `whiteouts and opaque directories`).
The marks are not in the tar. An engine tells them in one of two ways: a marked folder is called removed, or what it
hides is, though no device is there for it.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Protocol

from hakuriver.pieces import PIECE, PieceReader, pieces_of

Index = dict[str, str]
"""For each path of the upper directory, what is there: its kind, and all that must be equal."""

WHITEOUT, OPAQUE = "w", "o"
_WHITEOUT_PREFIX, _OPAQUE_NAME = ".wh.", ".wh..wh..opq"
_XATTR = "SCHILY.xattr."


class Output(Protocol):
    def write(self, data: bytes, /) -> int: ...


@dataclass(slots=True)
class Delta:
    """The outcome: the index of now, and how many entries the layer has."""

    index: Index = field(default_factory=dict)
    entries: int = 0


def write_delta(
    upper: Iterable[tuple[tarfile.TarInfo, IO[bytes] | None]],
    removed: Collection[str],
    before: Mapping[str, str],
    content: Callable[[str], Iterator[bytes]],
    output: Output,
) -> Delta:
    """Writes the layer that leads from `before` to `upper`.

    `upper` is the tar of the upper directory with paths relative to it, folders before what is in them. `removed` are
    the paths that the engine calls removed. `content` reads a file again, by its path.
    """
    with tarfile.open(mode="w|", fileobj=output, format=tarfile.PAX_FORMAT, bufsize=PIECE) as tar:  # type: ignore[call-overload]
        writer = _Writer(tar, before, content)
        for info, file in upper:
            writer.take(info, file, opaque=info.isdir() and info.name in removed)
        writer.finish(removed)
    return writer.delta


class _Writer:
    def __init__(
        self, tar: tarfile.TarFile, before: Mapping[str, str], content: Callable[[str], Iterator[bytes]]
    ) -> None:
        self.delta = Delta()
        self._tar = tar
        self._before = before
        self._content = content
        self._folders: dict[str, tarfile.TarInfo] = {}
        """Folders that were seen and are not in the layer yet."""
        self._kept: dict[str, tarfile.TarInfo] = {}
        """Files that did not change, for hard links that did."""
        self._hidden: list[str] = []
        """Folders that hide what is below them since this layer."""

    def take(self, info: tarfile.TarInfo, file: IO[bytes] | None, *, opaque: bool) -> None:
        # The kernel may make all removals links to one device (overlayfs, since Linux 5.8).
        if _is_whiteout(info) or (info.islnk() and self.delta.index.get(info.linkname) == WHITEOUT):
            self._whiteout(info.name)
        elif info.isdir():
            self._folder(info, opaque=opaque)
        elif info.isreg():
            self._file(info, file)
        elif info.islnk():
            self._link(info)
        else:
            self._simple(info)

    def finish(self, removed: Collection[str]) -> None:
        """Whiteouts for what a folder of the upper directory hides, and for what was there at the last packing."""
        index = self.delta.index
        for path in sorted(path for path in removed if path not in index):
            if _is_folder(index.get(path.rpartition("/")[0], "")):
                self._whiteout(path)
        gone = {path for path, was in self._before.items() if path not in index and was != WHITEOUT}
        for path in sorted(gone):
            parent = path.rpartition("/")[0]
            if (
                parent in gone
                or self._is_hidden(path)
                or not _is_folder(index.get(parent, "d" if not parent else ""))
            ):
                continue
            self._emit_whiteout(path)

    def _whiteout(self, path: str) -> None:
        self.delta.index[path] = WHITEOUT
        if self._before.get(path) != WHITEOUT and not self._is_hidden(path):
            self._emit_whiteout(path)

    def _folder(self, info: tarfile.TarInfo, *, opaque: bool) -> None:
        path = info.name
        kind = OPAQUE if opaque else "d"
        now = self.delta.index[path] = f"{kind} {_attributes(info)}"
        was = self._before.get(path, "")
        self._folders[path] = info
        if opaque and not was.startswith(OPAQUE):
            self._emit_folder(path)
            self._emit(_empty(f"{path}/{_OPAQUE_NAME}"))
            self._hidden.append(f"{path}/")
        elif now != was or self._is_hidden(path):
            self._emit_folder(path)

    def _file(self, info: tarfile.TarInfo, file: IO[bytes] | None) -> None:
        path, stem = info.name, f"f {_attributes(info)} {info.size} "
        was = self._before.get(path, "")
        digest = hashlib.sha256()
        if not was.startswith(stem) or self._is_hidden(path):
            self._emit_parents(path)
            self._emit(info, _Hashing(file, digest))
        else:
            for piece in pieces_of(file) if file is not None else ():
                digest.update(piece)
            if was != stem + digest.hexdigest():
                self._emit_parents(path)
                self._emit(info, PieceReader(self._content(path)))
            else:
                self._kept[path] = info
        self.delta.index[path] = stem + digest.hexdigest()

    def _link(self, info: tarfile.TarInfo) -> None:
        path, target = info.name, info.linkname
        now = self.delta.index[path] = f"h {target} {self.delta.index.get(target, '')}"
        if now == self._before.get(path) and not self._is_hidden(path):
            return
        self._emit_parents(path)
        if (kept := self._kept.pop(target, None)) is not None:
            # A link must find its target in its own layer, and this one's is in a lower one.
            self._emit_parents(target)
            self._emit(kept, PieceReader(self._content(target)))
        self._emit(info)

    def _simple(self, info: tarfile.TarInfo) -> None:
        path = info.name
        kind = info.type.decode("ascii", "replace")
        now = f"{kind} {_attributes(info)} {info.linkname} {info.devmajor},{info.devminor}"
        self.delta.index[path] = now
        if now != self._before.get(path) or self._is_hidden(path):
            self._emit_parents(path)
            self._emit(info)

    def _emit_whiteout(self, path: str) -> None:
        parent, _, name = path.rpartition("/")
        self._emit_parents(path)
        self._emit(_empty(f"{parent}/{_WHITEOUT_PREFIX}{name}" if parent else f"{_WHITEOUT_PREFIX}{name}"))

    def _emit_parents(self, path: str) -> None:
        """A folder that a layer lacks would get an engine's idea of its owner and mode."""
        parts = path.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            self._emit_folder("/".join(parts[:depth]))

    def _emit_folder(self, path: str) -> None:
        if path not in self._folders:
            return
        self._emit_parents(path)
        self._emit(self._folders.pop(path))

    def _emit(self, info: tarfile.TarInfo, file: object = None) -> None:
        # What was read of a long name or a size goes before the fields when it is written.
        info.pax_headers = {key: value for key, value in info.pax_headers.items() if key.startswith(_XATTR)}
        self._tar.addfile(info, file)  # type: ignore[arg-type]
        self.delta.entries += 1

    def _is_hidden(self, path: str) -> bool:
        return any(path.startswith(folder) for folder in self._hidden)


def _is_whiteout(info: tarfile.TarInfo) -> bool:
    return info.ischr() and (info.devmajor, info.devminor) == (0, 0)


def _is_folder(entry: str) -> bool:
    return entry.startswith(("d", OPAQUE))


def _attributes(info: tarfile.TarInfo) -> str:
    xattrs = sorted(item for item in info.pax_headers.items() if item[0].startswith(_XATTR))
    more = f" {xattrs!r}" if xattrs else ""
    return f"{info.mode:o} {info.uid}:{info.gid} {int(info.mtime)}{more}"


def _empty(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.mode = 0o600
    return info


class _Hashing:
    """A file whose content is hashed while it is copied."""

    def __init__(self, file: IO[bytes] | None, digest: hashlib._Hash) -> None:
        self._file, self._digest = file, digest

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size) if self._file is not None else b""
        self._digest.update(data)
        return data
