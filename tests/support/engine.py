"""The Docker engine that the tests use, and the environment that their containers run in."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import docker
from docker.errors import APIError, DockerException, NotFound
from docker.models.containers import Container

ENVIRONMENT = "test-base"
"""Name of the tests' environment: a busybox and nothing else, about 2 MB."""
VERSION = 1_700_000_001
"""Its only version: the same content each time, so that the engine loads it once."""
NODE_LABEL = "hakuriver.node"


@functools.cache
def why_not() -> str | None:
    """Why no container can run here, or None when one can."""
    try:
        docker.from_env(timeout=10).ping()
    except DockerException as error:
        return f"no Docker engine answers ({str(error)[:120]})"
    if _busybox() is None:
        return "no static busybox is here to make an environment of"
    return None


@functools.cache
def client() -> docker.DockerClient:
    return docker.from_env(timeout=60)


def write_environment(
    folder: Path, name: str = ENVIRONMENT, version: int = VERSION, ballast: int = 0
) -> Path:
    """Writes the archive of an environment into the folder, as the Host would; its image is not left behind.

    `ballast` adds that many bytes which do not compress: loading takes longer.
    """
    path = folder / f"{name}-{version}.tar"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    tag = f"hakuriver/{name}:{version}"
    had = has_image(tag)
    if not had:
        client().api.import_image_from_data(
            root_file_system(ballast), repository=f"hakuriver/{name}", tag=str(version)
        )
    partial = path.with_suffix(f".{os.getpid()}.part")
    with partial.open("wb") as archive:
        for chunk in client().images.get(tag).save(named=tag):
            archive.write(chunk)
    partial.rename(path)
    if not had and ballast:
        client().images.remove(tag, force=True)
    return path


def remove_image(name: str, version: int = VERSION) -> None:
    try:
        client().images.remove(f"hakuriver/{name}:{version}", force=True)
    except NotFound:
        return


def containers_of(node: str) -> list[Container]:
    """All containers that this node's Runner made, ended ones too."""
    found: list[Container] = client().containers.list(
        all=True, filters={"label": f"{NODE_LABEL}={node}"}, ignore_removed=True
    )
    return found


def remove_containers_of(node: str) -> None:
    for container in containers_of(node):
        remove_container(container)


def remove_container(container: Container) -> None:
    """Removes it, or waits for who is removing it."""
    try:
        container.remove(force=True)
    except NotFound:
        return
    except APIError as error:
        if "already in progress" not in str(error):
            raise
        with contextlib.suppress(NotFound):
            container.wait(condition="removed", timeout=60)


def has_image(tag: str) -> bool:
    try:
        client().images.get(tag)
    except NotFound:
        return False
    return True


def _busybox() -> Path | None:
    found = shutil.which("busybox")
    if found is None:
        return None
    linked = subprocess.run(["ldd", found], capture_output=True, check=False).returncode == 0
    return None if linked else Path(found).resolve()


def root_file_system(ballast: int = 0) -> bytes:
    """A tar of busybox, its applets as links, and the few files that programs expect."""
    busybox = _busybox()
    assert busybox is not None
    applets = subprocess.run([busybox, "--list"], capture_output=True, check=True, text=True).stdout.split()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        _add_file(tar, "bin/busybox", busybox.read_bytes(), 0o755)
        for applet in sorted(set(applets) - {"busybox"}):
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        for folder, mode in (
            ("tmp", 0o1777),
            ("root", 0o700),
            ("proc", 0o555),
            ("sys", 0o555),
            ("dev", 0o755),
        ):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)
        _add_file(tar, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n", 0o644)
        _add_file(tar, "etc/group", b"root:x:0:\n", 0o644)
        # For tests that remove what was there: where an engine is broken, nothing else has such names.
        for name in ("lower/file", "lower-file"):
            _add_file(tar, name, b"lower\n", 0o644)
        if ballast:
            _add_file(tar, "ballast", _noise(ballast), 0o644)
    return buffer.getvalue()


def _noise(size: int) -> bytes:
    return hashlib.shake_128(b"ballast").digest(size)


def _add_file(tar: tarfile.TarFile, name: str, data: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    tar.addfile(entry, io.BytesIO(data))
