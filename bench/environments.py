"""What a change of an environment costs, against whole archives: packing by `docker save`, syncing by `docker load`.

An environment of more than a gigabyte is packed, changed by 20 MB, and packed again; the change is then synced to a
Runner whose engine has what was there before. Beside it the same engine saves the whole image, and loads a whole one
that it does not have, of the same size and kind of content.
"""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import docker

from bench.report import Figure, at_least, at_most, median, say
from hakuriver import Client
from hakuriver.pieces import pieces_of
from hakuriver.sizes import format_size
from support import engine
from support.cluster import Cluster, running
from support.settings import AS_SHIPPED

NAME = "environments"
TITLE = "Environments: an environment of over 1 GB, changed by 20 MB, against whole archives"

_FILES = 220
_FILE_BYTES = 5_000_000
"""Half of each is noise: it compresses about as systems do."""
_CHANGE = 20_000_000
_ROUNDS = 5
_FIRST_ROUNDS = 2
_ENVIRONMENT = "bench-large"
_PIECE = 1 << 20


def measure(folder: Path) -> list[Figure]:
    if reason := engine.why_not():
        return [Figure("environments", "-", note=f"left out: {reason}")]
    with running(Cluster(folder, containers=True, sections=AS_SHIPPED)) as cluster:
        token = (cluster.state_dir / "admin.token").read_text("utf-8").strip()
        with Client(cluster.url, token) as client:
            try:
                return _measure(client, cluster, folder)
            finally:
                client.env.delete(_ENVIRONMENT, versions=True)
                _remove(f"hakuriver/{_ENVIRONMENT}")


def _measure(client: Client, cluster: Cluster, folder: Path) -> list[Figure]:
    say("making and packing an environment of over 1 GB, against docker import and docker save | zstd")
    firsts = [_first(client, folder, number) for number in range(_FIRST_ROUNDS)]
    container = f"hakuriver-env-{_ENVIRONMENT}"
    say("packing and syncing a change of 20 MB, against the whole")
    packs, saves, syncs, written, sizes = [], [], [], [], []
    node = cluster.node.name
    _synced(client, node)
    for number in range(_ROUNDS):
        _change(container, number)
        seconds, change = _timed(lambda: client.env.pack(_ENVIRONMENT))
        packs.append(seconds)
        written.append(change.written)
        syncs.append(_timed(lambda: _synced(client, node))[0])
        tag = f"hakuriver/{_ENVIRONMENT}:{change.version.version}"
        seconds, size = _timed(partial(_save, tag, folder / "whole.tar"))
        saves.append(seconds)
        sizes.append(size)
    (folder / "whole.tar").unlink()
    loads = [_timed_load(number, folder) for number in range(2)]
    note = f"median {median(packs):.2f} s; docker save {median(saves):.2f} s"
    return [
        at_least(
            "bytes on the share: docker save of the whole over the change",
            median(sizes) / median(written),
            40,
            "{:.0f}",
            f"{format_size(median(written))}; whole {format_size(median(sizes))}",
        ),
        at_least(
            "packing a change: times faster than docker save of the whole",
            median(saves) / median(packs),
            5,
            "{:.1f}",
            note,
        ),
        at_least(
            "syncing a change: times faster than docker load of the whole",
            median(loads) / median(syncs),
            20,
            "{:.1f}",
            f"median {median(syncs):.2f} s; docker load {median(loads):.2f} s",
        ),
        _over("first packing of all over docker save | zstd -3", firsts, ("pack",), ("piped",)),
        _over(
            "making and first packing over docker import, and docker save | zstd -3",
            firsts,
            ("make", "pack"),
            ("import", "piped"),
        ),
    ]


def _first(client: Client, folder: Path, number: int) -> dict[str, float]:
    """Seconds of making and first packing, and of what they stand beside; the environment stays."""
    if number:
        client.env.delete(_ENVIRONMENT, versions=True)
        _remove(f"hakuriver/{_ENVIRONMENT}")
        client.env.collect_garbage()
    took, tag = {}, f"bench-first:{number}"
    theirs, ours = _files(folder, b"theirs%d" % number), _files(folder, b"ours%d" % number)
    steps: dict[str, Callable[[], Any]] = {
        "make": lambda: client.env.create_from(_ENVIRONMENT, "rootfs", pieces_of(ours.open("rb"))),
        "pack": lambda: client.env.pack(_ENVIRONMENT),
        "import": lambda: subprocess.run(
            ["docker", "import", "-", tag], stdin=theirs.open("rb"), stdout=subprocess.DEVNULL, check=True
        ),
        "piped": lambda: _save_and_compress(tag, folder / "whole.tar.zst"),
    }
    names = [*steps] if number % 2 else ["import", "piped", "make", "pack"]
    for name in names:
        # What the step before has left to be written is not this one's.
        os.sync()
        took[name] = _timed(steps[name])[0]
    engine.client().images.remove(tag, force=True)
    for file in (theirs, ours):
        file.unlink()
    return took


def _over(name: str, took: list[dict[str, float]], ours: tuple[str, ...], theirs: tuple[str, ...]) -> Figure:
    mine = median([sum(each[step] for step in ours) for each in took])
    other = median([sum(each[step] for step in theirs) for each in took])
    return at_most(name, mine / other, 1.0, "{:.2f}", f"{mine:.1f} s; {other:.1f} s")


def _files(folder: Path, seed: bytes) -> Path:
    path = folder / seed.decode()
    with path.open("wb") as file:
        for piece in _root(seed):
            file.write(piece)
    return path


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    begin = time.perf_counter()
    answer = work()
    return time.perf_counter() - begin, answer


def _synced(client: Client, node: str) -> None:
    states = [each.state for each in client.env.prefetch(_ENVIRONMENT, nodes=[node])]
    assert states[-1] == "ready", states


def _change(container: str, number: int) -> None:
    """Another 20 MB that do not compress, beside what was there."""
    code, output = (
        engine.client()
        .containers.get(container)
        .exec_run(["sh", "-c", f"mkdir -p /opt; head -c {_CHANGE} /dev/urandom > /opt/change{number}"])
    )
    assert code == 0, output


def _save(tag: str, target: Path) -> int:
    size = 0
    with target.open("wb") as file:
        for piece in docker.from_env(timeout=600).images.get(tag).save(chunk_size=_PIECE, named=True):
            size += file.write(piece)
    return size


def _save_and_compress(image: str, target: Path) -> None:
    with target.open("wb") as file:
        save = subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE)
        subprocess.run(["zstd", "-3", "-q", "-c"], stdin=save.stdout, stdout=file, check=True)
        assert save.wait() == 0
    target.unlink()


def _timed_load(number: int, folder: Path) -> float:
    """A whole image that the engine does not have."""
    tag = f"bench-whole:{number}"
    client = docker.from_env(timeout=600)
    client.api.import_image_from_data(
        io.BufferedReader(_Raw(_root(b"%d" % number))), repository="bench-whole", tag=str(number)
    )
    archive = folder / "whole.tar"
    _save(tag, archive)
    client.images.remove(tag, force=True)
    try:
        with archive.open("rb") as file:
            return _timed(lambda: client.images.load(file))[0]
    finally:
        client.images.remove(tag, force=True)
        archive.unlink()


class _Raw(io.RawIOBase):
    """Pieces as a file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._left = pieces, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._left = memoryview(piece)
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count


def _root(seed: bytes) -> Iterator[bytes]:
    """The tar of a root file system: a busybox and over a gigabyte of files."""
    small = engine.root_file_system()
    yield _without_end(small)
    noise = hashlib.shake_128(seed).digest(_FILE_BYTES // 2)
    for number in range(_FILES):
        info = tarfile.TarInfo(f"data/{number}")
        info.size = _FILE_BYTES
        content = number.to_bytes(4, "big") + noise[4:] + b"text of a program " * (_FILE_BYTES // 36 + 1)
        yield info.tobuf() + content[:_FILE_BYTES] + bytes(-_FILE_BYTES % 512)
    yield bytes(1024)


def _without_end(tar: bytes) -> bytes:
    """A tar without the empty blocks that end it."""
    with tarfile.open(fileobj=io.BytesIO(tar)) as members:
        last = members.getmembers()[-1]
    return tar[: last.offset_data + last.size + (-last.size % 512)]


def _remove(repository: str) -> None:
    for image in engine.client().images.list(repository):
        for tag in image.tags:
            engine.client().images.remove(tag, force=True)
