"""A disk small enough to fill: a tmpfs of a few megabytes, for tests of what happens without space."""

from __future__ import annotations

import functools
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_BALLAST = "ballast"


@functools.cache
def why_not() -> str | None:
    """Why no small disk can be made here, or None when it can."""
    if os.geteuid() != 0:
        return "mounting a small disk takes root"
    with tempfile.TemporaryDirectory() as folder:
        try:
            with small_disk(Path(folder, "disk"), 1):
                return None
        except subprocess.CalledProcessError:
            return "this machine does not let root mount a small disk"


class SmallDisk:
    """A mounted tmpfs. `fill` takes what is left of it, `free` gives that back."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def fill(self) -> None:
        block = b"\0" * 4096
        with (self.path / _BALLAST).open("ab", buffering=0) as ballast:
            try:
                while ballast.write(block):
                    pass
            except OSError:
                return

    def free(self) -> None:
        (self.path / _BALLAST).unlink(missing_ok=True)


@contextmanager
def small_disk(path: Path, megabytes: int) -> Iterator[SmallDisk]:
    path.mkdir(parents=True, exist_ok=True)
    options = f"size={megabytes}m,mode=0755"
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], check=True, capture_output=True
    )
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)
