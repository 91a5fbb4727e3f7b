"""Archives of images are read layer by layer into the store; what is no such archive is refused in words."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import zstandard

from hakuriver.errors import UsageError
from hakuriver.models.environments import digest_of
from hakuriver.store import read_layer
from hakuriver_host.services.environments.archives import Image, ingest


def tar_of(members: Mapping[str, bytes | str]) -> bytes:
    """A tar of files; text is the target of a symbolic link."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


LAYERS = [tar_of({f"file{number}": bytes([number]) * 3000}) for number in range(2)]
CONFIG = json.dumps(
    {"os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in LAYERS]}}
).encode()


def docker_members() -> dict[str, bytes | str]:
    """As `docker save` of engine 20.10 writes it; the second layer is a link, as it writes layers that repeat."""
    return {
        "aaaa/layer.tar": LAYERS[0],
        "aaaa/json": b"{}",
        "aaaa/VERSION": b"1.0",
        "cccc/layer.tar": LAYERS[1],
        "bbbb/layer.tar": "../cccc/layer.tar",
        "conf.json": CONFIG,
        "manifest.json": json.dumps(
            [{"Config": "conf.json", "RepoTags": None, "Layers": ["aaaa/layer.tar", "bbbb/layer.tar"]}]
        ).encode(),
        "repositories": b"{}",
    }


def oci_members(*, nested: bool = False) -> dict[str, bytes | str]:
    """An OCI archive with one gzipped and one zstd layer; `nested` puts the manifest behind a second index."""
    blobs = [gzip.compress(LAYERS[0], mtime=0), zstandard.compress(LAYERS[1])]
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "config": {"digest": digest_of(CONFIG)},
            "layers": [{"digest": digest_of(blob)} for blob in blobs],
        }
    ).encode()
    found: list[bytes] = [*blobs, CONFIG, manifest]
    top = manifest
    if nested:
        top = json.dumps({"manifests": [{"digest": digest_of(manifest)}]}).encode()
        found.append(top)
    members: dict[str, bytes | str] = {
        "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        "index.json": json.dumps({"manifests": [{"digest": digest_of(top)}]}).encode(),
    }
    return members | {f"blobs/sha256/{digest_of(blob)[7:]}": blob for blob in found}


def read(root: Path, members: Mapping[str, bytes | str]) -> Image:
    return ingest(root, io.BytesIO(tar_of(members)))


@pytest.mark.parametrize(
    "members",
    [docker_members(), oci_members(), oci_members(nested=True)],
    ids=["docker", "oci", "nested oci"],
)
def test_an_image_is_read(tmp_path: Path, members: Mapping[str, bytes | str]) -> None:
    image = read(tmp_path, members)
    assert [b"".join(read_layer(tmp_path, layer)) for layer in image.layers] == LAYERS
    assert digest_of(image.config.encode()) == digest_of(CONFIG)
    assert image.written > 0


def test_a_compressed_archive_is_read_too(tmp_path: Path) -> None:
    assert ingest(tmp_path, io.BytesIO(gzip.compress(tar_of(docker_members())))).layers


@pytest.mark.parametrize(
    "pack",
    [
        lambda data: gzip.compress(data[:700]) + gzip.compress(data[700:]),
        lambda data: zstandard.compress(data[:700]) + zstandard.compress(data[700:]),
        bz2.compress,
        lzma.compress,
    ],
    ids=["gzip of two members", "zstd of two frames", "bzip2", "xz"],
)
def test_a_layer_is_read_however_it_is_compressed(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    image = read(tmp_path, docker_members() | {"cccc/layer.tar": pack(LAYERS[1])})
    assert [b"".join(read_layer(tmp_path, layer)) for layer in image.layers] == LAYERS


@pytest.mark.parametrize(
    "pack",
    [gzip.compress, zstandard.compress, bz2.compress, lzma.compress],
    ids=["gzip", "zstd", "bzip2", "xz"],
)
@pytest.mark.parametrize("damage", [lambda data: data[:-20], lambda data: data[:12] + b"damaged" + data[20:]])
def test_a_layer_that_is_damaged_is_refused(
    tmp_path: Path, pack: Callable[[bytes], bytes], damage: Callable[[bytes], bytes]
) -> None:
    with pytest.raises(UsageError, match=r"cut off|damaged"):
        read(tmp_path, docker_members() | {"cccc/layer.tar": damage(pack(LAYERS[1]))})


def test_what_is_there_is_not_written_again(tmp_path: Path) -> None:
    read(tmp_path, docker_members())
    assert read(tmp_path, oci_members()).written == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"../../etc/cron.d/evil": b"x"}, "leads out of it"),
        ({"/etc/passwd": b"x"}, "leads out of it"),
        ({"bbbb/layer.tar": "../../../../etc/shadow"}, "leads out of it"),
        ({"manifest.json": b"[]"}, "holds 0 images"),
        ({"manifest.json": b'[{"Config": "none.json", "Layers": []}]'}, "does not hold all of one image"),
        ({"cccc/layer.tar": LAYERS[0]}, "is damaged"),
        ({"conf.json": b'{"rootfs": 5}'}, "does not hold all of one image"),
    ],
    ids=[
        "above",
        "absolute",
        "link",
        "no image",
        "no configuration",
        "wrong digest",
        "strange configuration",
    ],
)
def test_what_no_archive_should_hold_is_refused(
    tmp_path: Path, change: Mapping[str, bytes | str], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        read(tmp_path, docker_members() | change)


@pytest.mark.parametrize(
    "data",
    [b"", b"a letter\n" * 300, tar_of({"readme": b"x"}), tar_of(docker_members())[:5000]],
    ids=["empty", "text", "another tar", "cut off"],
)
def test_what_is_no_archive_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(UsageError):
        ingest(tmp_path, io.BytesIO(data))
    assert [*(tmp_path / "tmp").glob("*")] == []
