"""What an environment is made from goes into the store on its way into the engine, and is not read from there again."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hakuriver.errors import StorageError, UsageError
from hakuriver.models.environments import digest_of
from hakuriver.store import Catalog, LayerWriter, read_layer
from hakuriver_host.services.environments.bases import Base, Bases, Kept
from hakuriver_host.services.environments.engine import HostEngine
from hakuriver_host.services.environments.making import Maker
from hakuriver_host.services.environments.packing import Packer
from support import engine as docker_support


class Unread(HostEngine):
    """An engine out of which no image may be read."""

    def save(self, reference: str) -> Iterator[bytes]:
        raise AssertionError(f"{reference} was read from the engine")


class World:
    def __init__(self, folder: Path) -> None:
        self.name = f"t{uuid.uuid4().hex[:10]}"
        self.catalog = Catalog(folder / "store")
        self.engine = Unread("", f"making-{self.name}")
        memory = folder / "memory"
        self.maker = Maker(self.engine, self.catalog, folder / "none", folder / "scratch", memory)
        self.packer = Packer(self.engine, self.catalog, memory)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    try:
        yield made
    finally:
        if made.engine.find(made.name):
            made.engine.remove(made.name)


@pytest.mark.docker
@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_a_root_file_system_is_in_the_store_when_it_is_packed(
    world: World, compress: Callable[[bytes], bytes]
) -> None:
    root = docker_support.root_file_system()
    world.maker.create_from(world.name, "rootfs", io.BytesIO(compress(root)), "tester")
    packing = world.packer.pack(world.name, "tester", "")
    assert packing.manifest.layers[0].diff_id == digest_of(root)
    assert b"".join(read_layer(world.catalog.root, packing.manifest.layers[0])) == root


@pytest.mark.docker
def test_an_archive_is_in_the_store_when_it_is_packed(world: World, tmp_path: Path) -> None:
    docker_support.write_environment(tmp_path)
    (archive,) = tmp_path.glob("*.tar")
    world.maker.create_from(world.name, "archive", io.BytesIO(archive.read_bytes()), "tester")
    (layer,) = world.packer.pack(world.name, "tester", "").manifest.layers[:1]
    assert layer.diff_id == digest_of(docker_support.root_file_system())


@pytest.mark.docker
def test_one_that_was_cut_off_makes_nothing(world: World) -> None:
    whole = gzip.compress(docker_support.root_file_system())
    with pytest.raises(UsageError, match="cut off"):
        world.maker.create_from(world.name, "rootfs", io.BytesIO(whole[:-9]), "tester")
    assert world.engine.find(world.name) is None
    assert not [*world.catalog.root.rglob("*.tar.zst")]


PIECES = [b"one", b"two" * 1_000_000, b"three"]


def test_what_goes_by_is_kept(tmp_path: Path) -> None:
    kept = Kept(tmp_path, iter(PIECES))
    assert [*kept] == PIECES
    (layer,) = kept.layers
    assert b"".join(read_layer(tmp_path, layer)) == b"".join(PIECES)


@pytest.mark.parametrize("broken", ["__init__", "write", "finish"])
def test_it_goes_by_whatever_the_share_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise StorageError("the share is full", "free some space")

    monkeypatch.setattr(LayerWriter, broken, fail)
    kept = Kept(tmp_path, iter(PIECES))
    assert [*kept] == PIECES
    assert kept.layers == []
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_only_what_this_very_container_was_made_from_is_recalled(tmp_path: Path) -> None:
    with LayerWriter(tmp_path / "store") as writer:
        writer.write(b"x")
        layer = writer.finish()
    bases = Bases(tmp_path)
    bases.remember("a", Base(container="1", layers=[layer]))
    assert bases.recall("a", "1") == [layer]
    assert bases.recall("a", "2") == bases.recall("b", "1") == []
    bases.forget("a")
    bases.forget("a")
    assert bases.recall("a", "1") == []
