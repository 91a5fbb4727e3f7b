"""The store on the share: what is there is whole, and what is damaged is said to be so."""

from __future__ import annotations

import errno
import io
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hakuriver.errors import NotFoundError, StorageError
from hakuriver.models.environments import (
    EnvironmentHead,
    LayerInfo,
    VersionManifest,
)
from hakuriver.references import Reference, parse_reference
from hakuriver.store import Catalog, LayerWriter, docker_archive, read_layer
from hakuriver.store import blobs as blobs_module
from hakuriver.store.layout import blob_path, manifest_path


def put(root: Path, data: bytes) -> LayerInfo:
    with LayerWriter(root) as writer:
        writer.write(data)
        return writer.finish()


def manifest(name: str, version: int, *layers: LayerInfo) -> VersionManifest:
    return VersionManifest(
        name=name, version=version, created=datetime.now(UTC), config="{}", layers=[*layers]
    )


def leftovers(root: Path) -> list[str]:
    return [path.name for path in (root / "tmp").glob("*")]


class TestReferences:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("lab", Reference("lab")),
            ("lab-1.x_y@17", Reference("lab-1.x_y", 17)),
            ("lab:stable", Reference("lab", None, "stable")),
        ],
    )
    def test_are_read_and_written(self, text: str, expected: Reference) -> None:
        assert parse_reference(text) == expected
        assert str(expected) == text

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "Lab",
            "a/b",
            "..",
            "a..b",
            "a__b",
            "-a",
            "a-",
            "a@x",
            "a@",
            "a:",
            "a@1:b",
            "a b",
            "a\n",
            "x" * 65,
            "a:-b",
        ],
    )
    def test_what_no_engine_or_path_should_see_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match="environment"):
            parse_reference(text)


class TestLayers:
    def test_are_read_as_they_were_written(self, tmp_path: Path) -> None:
        data = bytes(range(256)) * 20_000
        layer = put(tmp_path, data)
        assert (layer.size, b"".join(read_layer(tmp_path, layer))) == (len(data), data)
        assert leftovers(tmp_path) == []

    def test_the_same_layer_is_kept_once(self, tmp_path: Path) -> None:
        first = put(tmp_path, b"x" * 1000)
        with LayerWriter(tmp_path) as writer:
            writer.write(b"x" * 1000)
            assert writer.finish() == first
            assert writer.written == 0
        assert len([*(tmp_path / "blobs/sha256").iterdir()]) == 1

    def test_one_that_is_broken_off_leaves_nothing(self, tmp_path: Path) -> None:
        with LayerWriter(tmp_path) as writer:
            writer.write(b"half")
        assert leftovers(tmp_path) == []
        assert not (tmp_path / "blobs").exists()

    def test_a_full_share_is_told_and_leaves_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(_descriptor: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        with LayerWriter(tmp_path) as writer:
            writer.write(b"data")
            monkeypatch.setattr(blobs_module.os, "fsync", full)
            with pytest.raises(StorageError, match="No space left"):
                writer.finish()
        assert leftovers(tmp_path) == []
        assert not (tmp_path / "blobs").exists()

    @pytest.mark.parametrize(
        ("damage", "words"),
        [
            (lambda path: path.unlink(), "is missing"),
            (lambda path: path.write_bytes(path.read_bytes()[:-10]), "is cut off"),
            (lambda path: path.write_bytes(b"\0" * path.stat().st_size), "is damaged"),
            (lambda path: path.write_bytes(_other(path)), "its digest is another"),
        ],
        ids=["missing", "cut off", "zeros", "another layer"],
    )
    def test_what_is_damaged_never_comes_whole(self, tmp_path: Path, damage: object, words: str) -> None:
        layer = put(tmp_path, bytes(range(256)) * 8_000)
        damage(blob_path(tmp_path, layer.diff_id))  # type: ignore[operator]
        got: list[bytes] = []
        with pytest.raises(StorageError, match=words):
            got.extend(read_layer(tmp_path, layer))
        assert len(b"".join(got)) < layer.size


def _other(path: Path) -> bytes:
    other = path.parent.parent.parent / "other"
    layer = put(other, bytes(range(255, -1, -1)) * 8_000)
    return blob_path(other, layer.diff_id).read_bytes().ljust(path.stat().st_size, b"\0")


class TestCatalog:
    def test_the_newest_version_is_current_unless_another_is_chosen(self, tmp_path: Path) -> None:
        catalog = Catalog(tmp_path)
        for version in (5, 7, 6):
            catalog.write(manifest("lab", version))
        assert catalog.current("lab") == 7
        catalog.write_head("lab", EnvironmentHead(current=5, tags={"old": 6}))
        assert catalog.current("lab") == catalog.resolve(Reference("lab")) == 5
        assert catalog.resolve(Reference("lab", tag="old")) == 6
        assert catalog.resolve(Reference("lab", version=7)) == 7

    def test_archives_are_versions_too(self, tmp_path: Path) -> None:
        catalog = Catalog(tmp_path)
        (tmp_path / "lab-9.tar").write_bytes(b"")
        catalog.write(manifest("lab", 8))
        assert catalog.all_versions() == {"lab": [9, 8]}
        assert catalog.manifest("lab", 9) is None

    @pytest.mark.parametrize("reference", ["other", "lab@4", "lab:none"])
    def test_what_is_not_there_is_said(self, tmp_path: Path, reference: str) -> None:
        catalog = Catalog(tmp_path)
        catalog.write(manifest("lab", 5))
        with pytest.raises(NotFoundError):
            catalog.resolve(parse_reference(reference))

    def test_a_damaged_manifest_is_no_version_to_run(self, tmp_path: Path) -> None:
        catalog = Catalog(tmp_path)
        catalog.write(manifest("lab", 5))
        path = manifest_path(tmp_path, "lab", 5)
        path.write_bytes(path.read_bytes()[:20])
        with pytest.raises(StorageError, match="damaged"):
            catalog.manifest("lab", 5)
        path.write_text(manifest("other", 5).model_dump_json())
        with pytest.raises(StorageError, match="is of other@5"):
            catalog.manifest("lab", 5)

    def test_numbers_of_versions_rise_also_within_a_second(self, tmp_path: Path) -> None:
        catalog = Catalog(tmp_path)
        assert catalog.free_version("lab", 100.5) == 100
        catalog.write(manifest("lab", 100))
        assert catalog.free_version("lab", 100.9) == 101
        assert catalog.free_version("lab", 50) == 101, "a clock that jumps back"

    def test_the_last_version_takes_the_head_with_it(self, tmp_path: Path) -> None:
        catalog = Catalog(tmp_path)
        catalog.write(manifest("lab", 5))
        catalog.write_head("lab", EnvironmentHead(tags={"a": 5}))
        catalog.delete("lab", 5)
        assert catalog.names() == []
        assert catalog.head("lab") == EnvironmentHead()

    def test_leftovers_of_an_earlier_life_are_swept(self, tmp_path: Path) -> None:
        catalog = Catalog(tmp_path)
        catalog.write(manifest("lab", 5))
        (tmp_path / "tmp" / "0123-leftover").write_bytes(b"half")
        catalog.sweep_temporary()
        assert leftovers(tmp_path) == []


def test_an_archive_is_made_without_the_layers_that_are_there(tmp_path: Path) -> None:
    layers = [put(tmp_path, f"layer {number}".encode()) for number in range(3)]
    version = manifest("lab", 5, *layers)
    data = b"".join(docker_archive(version, lambda layer: read_layer(tmp_path, layer), skip=2))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        names = tar.getnames()
        assert names == ["manifest.json", f"{version.image.removeprefix('sha256:')}.json", "002/layer.tar"]
        last = tar.extractfile("002/layer.tar")
        assert last is not None
        assert last.read() == b"layer 2"
