"""Programs of the node that every VPS has, whatever its image: what file transfers over SSH start at the far end.

They are copied with the libraries and the loader that they need, so that they run in an image with other libraries, or
with none. In a VPS they run as any program of its own does, with its user and its limits. `/run/hakuriver/tools/bin`
comes last on the PATH: what an image brings itself goes before.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import structlog

PLACES = {
    "sftp-server": (
        "/usr/lib/openssh/sftp-server",
        "/usr/libexec/openssh/sftp-server",
        "/usr/lib/ssh/sftp-server",
    ),
    "scp": ("/usr/bin/scp",),
    "rsync": ("/usr/bin/rsync",),
}
"""Where Debian, Fedora and Arch have them."""
INSIDE = "/run/hakuriver/tools"
_LIBRARY = re.compile(r"^\s*(?:\S+ => )?(/\S+) \(0x[0-9a-f]+\)$", re.MULTILINE)
"""A line of ldd(1)."""
_WRAPPER = """#!/bin/sh
exec {inside}/lib/{loader} --library-path {inside}/lib {inside}/libexec/{name} "$@"
"""
_LDD_SECONDS = 10

log = structlog.get_logger(__name__)


def install(folder: Path) -> None:
    """Brings the tools that this node has into `folder`, anew. Blocks; what cannot be brought is left out."""
    for name, places in PLACES.items():
        program = next((Path(place) for place in places if os.access(place, os.X_OK)), None)
        if program is None:
            continue
        try:
            install_program(folder, name, program)
        except (OSError, subprocess.SubprocessError, StopIteration) as error:
            log.warning("VPS go without a program of this node", program=str(program), cause=str(error))


def install_program(folder: Path, name: str, program: Path) -> None:
    """Brings one program, under a name.

    Raises:
        OSError: it cannot be read, or the folder cannot be written.
        subprocess.SubprocessError: it is no program of this system.
        StopIteration: it needs no loader.
    """
    told = subprocess.run(
        ["ldd", program], capture_output=True, text=True, check=True, timeout=_LDD_SECONDS
    ).stdout
    libraries = [Path(found) for found in _LIBRARY.findall(told)]
    loader = next(path for path in libraries if path.name.startswith("ld-"))
    for path in libraries:
        _copy(path, folder / "lib" / path.name)
    _copy(program, folder / "libexec" / name)
    wrapper = folder / "bin" / name
    wrapper.parent.mkdir(parents=True, exist_ok=True)
    _put(wrapper, _WRAPPER.format(inside=INSIDE, loader=loader.name, name=name).encode())


def _copy(source: Path, target: Path) -> None:
    """One that is the same stays: a VPS may be running it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    known, found = (target.stat() if target.exists() else None), source.stat()
    if known is None or (known.st_size, known.st_mtime_ns) != (found.st_size, found.st_mtime_ns):
        fresh = target.with_name(target.name + ".new")
        shutil.copy2(source, fresh)
        fresh.chmod(0o755)
        fresh.replace(target)


def _put(target: Path, content: bytes) -> None:
    fresh = target.with_name(target.name + ".new")
    fresh.write_bytes(content)
    fresh.chmod(0o755)
    fresh.replace(target)
