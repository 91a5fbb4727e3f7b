"""The default environment, made at the Host's first start from what can be had.

In this order: the image that the configuration names, pulled; else a small root file system around a static
busybox, the machine's own or its distribution's. Nothing waits for it, and where it cannot be made the log says
what to do. It becomes visible on the share whole, by rename.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import structlog

from hakuriver.config import Settings
from hakuriver.pieces import PieceReader
from hakuriver.store import Catalog
from hakuriver.threads import start_thread
from hakuriver_host.services.environments.making import import_version

if TYPE_CHECKING:
    from docker import DockerClient

log = structlog.get_logger(__name__)

_PULL_SECONDS = 120
_COMMAND_SECONDS = 120
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ELF_INTERPRETER = 3
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/os-release": 'NAME="HakuRiver base"\nID=hakuriver\n',
}


class SeedError(Exception):
    """One way of making the environment does not work here; says why."""


class Seeder:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._name = settings.docker.default_container_name

    async def run(self) -> None:
        """Makes the default environment if it is missing."""
        if self._name == "NULL":
            return
        try:
            await start_thread(self._seed)
        except SeedError as error:
            log.warning(
                "the default environment could not be made",
                environment=self._name,
                cause=str(error),
                hint="make one, or submit with --container NULL",
            )
        except Exception:
            # Making it is a convenience: the Host serves without it.
            log.exception("making the default environment failed", environment=self._name)

    def _seed(self) -> None:
        if Catalog(self._settings.container_dir).versions(self._name):
            return
        client = _engine(self._settings.docker.socket)
        tag = f"hakuriver-env/{self._name}:{int(time.time())}"
        try:
            source = _pull_or_build(client, self._settings.docker.initial_base_image, tag)
            version = _store(client, tag, Catalog(self._settings.container_dir), self._name, source)
        finally:
            client.close()
        log.info("made the default environment", environment=self._name, source=source, version=version)


def _engine(socket: str) -> DockerClient:
    import docker  # noqa: PLC0415 - imported only by a Host that has to make the environment: it is large
    from docker.errors import DockerException  # noqa: PLC0415

    try:
        client = (
            docker.DockerClient(base_url=socket, timeout=_PULL_SECONDS)
            if socket
            else docker.from_env(timeout=_PULL_SECONDS)
        )
        client.ping()
    except DockerException as error:
        raise SeedError(f"no Docker engine answers here ({error})") from None
    return client


def _pull_or_build(client: DockerClient, image: str, tag: str) -> str:
    """Puts an image under the tag; says where it came from."""
    from docker.errors import DockerException  # noqa: PLC0415

    try:
        client.images.pull(image).tag(tag)
    except (DockerException, OSError) as error:
        log.info("the base image cannot be pulled; making a small one", image=image, cause=str(error)[:200])
    else:
        return image
    with tempfile.TemporaryDirectory() as scratch:
        busybox = _busybox(Path(scratch))
        repository, _, version = tag.rpartition(":")
        changes = [f"ENV PATH={_PATH}", 'CMD ["/bin/sh"]']
        client.api.import_image_from_data(
            _root_file_system(busybox), repository=repository, tag=version, changes=changes
        )
    return "busybox"


def _busybox(scratch: Path) -> Path:
    """A static busybox: the machine's, else the one in the distribution's package.

    Raises:
        SeedError: there is none.

    """
    for candidate in (shutil.which("busybox"), "/usr/bin/busybox", "/bin/busybox"):
        if candidate and Path(candidate).exists() and _is_static(Path(candidate)):
            return Path(candidate)
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise SeedError("no image can be pulled, and there is no static busybox; install busybox-static")
    try:
        _run(["apt-get", "download", "busybox-static"], scratch)
        package = next(scratch.glob("busybox-static_*.deb"))
        _run(["dpkg-deb", "-x", package.name, "root"], scratch)
        # Other files of the package have that name too.
        return next(
            path for path in (scratch / "root").rglob("busybox") if path.is_file() and _is_static(path)
        )
    except (subprocess.SubprocessError, OSError, StopIteration):
        raise SeedError("no image can be pulled, and busybox-static cannot be fetched; install it") from None


def _run(argv: list[str], folder: Path) -> None:
    subprocess.run(argv, cwd=folder, check=True, capture_output=True, timeout=_COMMAND_SECONDS)


def _is_static(path: Path) -> bool:
    """Whether an ELF program names no interpreter (ELF-64: program headers, PT_INTERP)."""
    data = path.read_bytes()[:4096]
    if data[:5] != b"\x7fELF\x02":
        return False
    offset = int.from_bytes(data[32:40], "little")
    size, count = int.from_bytes(data[54:56], "little"), int.from_bytes(data[56:58], "little")
    types = [int.from_bytes(data[offset + i * size : offset + i * size + 4], "little") for i in range(count)]
    return _ELF_INTERPRETER not in types


def _root_file_system(busybox: Path) -> bytes:
    """A tar of the smallest system: busybox under all of its names."""
    listed = subprocess.run(
        [busybox, "--list"], check=True, capture_output=True, text=True, timeout=_COMMAND_SECONDS
    ).stdout
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for folder, mode in (
            ("bin", 0o755),
            ("etc", 0o755),
            ("root", 0o700),
            ("tmp", 0o1777),
            ("usr/bin", 0o755),
            ("var/tmp", 0o1777),
        ):
            archive.addfile(_entry(folder, mode, tarfile.DIRTYPE))
        _add_file(archive, "bin/busybox", busybox.read_bytes(), 0o755)
        for applet in listed.split():
            if applet != "busybox":
                link = _entry(f"bin/{applet}", 0o777, tarfile.SYMTYPE)
                link.linkname = "busybox"
                archive.addfile(link)
        for name, text in _FILES.items():
            _add_file(archive, name, text.encode(), 0o644)
        env = _entry("usr/bin/env", 0o777, tarfile.SYMTYPE)
        env.linkname = "/bin/busybox"
        archive.addfile(env)
    return buffer.getvalue()


def _entry(name: str, mode: int, kind: bytes) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.type = mode, kind
    return entry


def _add_file(archive: tarfile.TarFile, name: str, data: bytes, mode: int) -> None:
    entry = _entry(name, mode, tarfile.REGTYPE)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


def _store(client: DockerClient, tag: str, catalog: Catalog, name: str, source: str) -> int:
    """Puts the image into the store as the first version; the name that it was made under goes."""
    pieces: Any = client.images.get(tag).save(named=True)
    file = cast("IO[bytes]", PieceReader(pieces))
    manifest, _ = import_version(catalog, name, file, "hakuriver", f"made of {source} at the first start")
    client.images.remove(tag)
    return manifest.version
