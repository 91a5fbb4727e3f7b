"""Holds the sources of a container's mounts from the check until the container has them.

The Docker engine is told a path and resolves it anew when it starts the container. A task that can write where the
source lies could put a link in its place meanwhile, and the container would get whatever that leads to. So a Runner
that is root opens what it has checked, binds exactly that in a folder where nobody else can go, and names that place
to the engine. Once the container runs it has a mount of its own, and the place is taken away.

Another Runner may not mount: the engine is then told the resolved path.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
from pathlib import Path
from types import TracebackType
from typing import Self

from hakuriver_agent.folders import open_without_links

# mount(2), umount2(2).
_MS_NOSUID, _MS_NODEV, _MS_BIND, _MS_REC, _MS_SLAVE = 1 << 1, 1 << 2, 1 << 12, 1 << 14, 1 << 19
_MNT_DETACH = 2


class HeldSources:
    """The sources of one container. Blocks; for use in a thread."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._count:
            _clear(self._place)

    def hold(self, source: Path) -> Path:
        """Where the engine finds `source`, whatever happens to its path.

        Raises:
            ForbiddenPathError: its path has changed since it was resolved.
            OSError: it cannot be held.
        """
        if os.geteuid() != 0:
            return source
        descriptor = open_without_links(source)
        try:
            return self._bind(descriptor)
        finally:
            os.close(descriptor)

    def _bind(self, descriptor: int) -> Path:
        if not self._count:
            self._place.mkdir(mode=0o700, parents=True, exist_ok=True)
            # In a file system of its own: an engine that does not see our mounts then finds no path, and says so.
            _mount("tmpfs", self._place, "tmpfs", _MS_NOSUID | _MS_NODEV)
        held = self._place / str(self._count)
        self._count += 1
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            held.mkdir()
        else:
            held.touch()
        _mount(f"/proc/self/fd/{descriptor}", held, None, _MS_BIND | _MS_REC)
        _let_go_of_source(held)
        return held


def clear_all(folder: Path) -> None:
    """Takes away what a Runner that was killed in the middle of starts has left in `folder`."""
    with contextlib.suppress(FileNotFoundError):
        for place in folder.iterdir():
            _clear(place)


def _clear(place: Path) -> None:
    for held in place.iterdir():
        with contextlib.suppress(OSError):
            _let_go_of_source(held)
        _unmount(held)
    _unmount(place)
    with contextlib.suppress(OSError):
        place.rmdir()


def _let_go_of_source(held: Path) -> None:
    """Or unmounting the bind would unmount what is mounted below its source, too; see mount_namespaces(7)."""
    _mount(None, held, None, _MS_REC | _MS_SLAVE)


def _mount(source: str | None, target: Path, kind: str | None, flags: int) -> None:
    name = source and os.fsencode(source)
    if ctypes.CDLL(None, use_errno=True).mount(
        name, os.fsencode(target), kind and kind.encode(), ctypes.c_ulong(flags), None
    ):
        number = ctypes.get_errno()
        raise OSError(number, f"{os.strerror(number)} (a Runner that is root must be able to mount)", target)


def _unmount(target: Path) -> None:
    ctypes.CDLL(None, use_errno=True).umount2(os.fsencode(target), _MNT_DETACH)
