"""Making environments: where the first files come from. Everything here blocks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Literal, cast

from hakuriver.errors import ConflictError, DeniedError, HakuRiverError, StorageError, UsageError
from hakuriver.models.environments import (
    EnvironmentCreate,
    LayerInfo,
    VersionManifest,
    image_tag,
)
from hakuriver.pieces import pieces_of
from hakuriver.references import Reference, parse_reference
from hakuriver.store import Catalog, docker_archive, read_layer
from hakuriver.store.layout import LIFE, archive_path
from hakuriver_host.services.environments.archives import ingest, safe_name
from hakuriver_host.services.environments.bases import Base, Bases, Kept
from hakuriver_host.services.environments.compression import DAMAGED, uncompressed
from hakuriver_host.services.environments.engine import EnvContainer, HostEngine
from hakuriver_host.services.environments.packing import configured
from hakuriver_host.services.environments.snapshots import is_snapshot

Source = Literal["archive", "rootfs", "dockerfile"]

_DEBOOTSTRAP_SECONDS = 1800


class Maker:
    """`memory` is the Host's own folder for what `Bases` remembers, `scratch` one for what is being made."""

    def __init__(
        self, engine: HostEngine, catalog: Catalog, shared_data: Path, scratch: Path, memory: Path
    ) -> None:
        self._engine = engine
        self._catalog = catalog
        self._shared_data = shared_data
        self._scratch = scratch
        self._bases = Bases(memory)

    def create(self, request: EnvironmentCreate, owner: str) -> EnvContainer:
        """From an image, a version, or the distribution's packages.

        Raises:
            ConflictError: the environment has a container already.
            UsageError: more than one source is named, or none.
        """
        sources = [each for each in (request.image, request.base, request.debootstrap) if each]
        if len(sources) != 1:
            raise UsageError(
                "an environment is made from one source",
                "give one of --image, --from, --archive, --rootfs, --dockerfile, --debootstrap",
            )
        self._check_free(request.name)
        layers: list[LayerInfo] = []
        if request.image:
            image = self._pulled(request.image)
        elif request.base:
            image = self.provide(request.base)
        else:
            image, layers = self._debootstrapped(request)
        return self._container(request.name, owner, image, layers)

    def check_public(self, image: str) -> None:
        """That an image in the Host's engine is no snapshot of a VPS, by whatever name.

        Raises:
            DeniedError: it is one.
        """
        if is_snapshot(image) or any(map(is_snapshot, self._engine.names_of(image))):
            raise DeniedError(
                f"the image {image} is a snapshot of a VPS", "its owner makes environments of it: --from"
            )

    def create_from(self, name: str, kind: Source, file: IO[bytes], owner: str) -> EnvContainer:
        """From what was uploaded."""
        self._check_free(name)
        tag = _own_tag(name)
        layers: list[LayerInfo] = []
        if kind == "rootfs":
            _check_members(file)
            layers = self._imported(_tar_in(file), tag)
        elif kind == "dockerfile":
            _check_members(file)
            _check_dockerfiles(file)
            self._engine.build(file, tag)
        else:
            image = ingest(self._catalog.root, file)
            manifest = VersionManifest(
                name=name, version=0, created=datetime.now(UTC), config=image.config, layers=image.layers
            )
            self._engine.load(docker_archive(manifest, lambda layer: read_layer(self._catalog.root, layer)))
            self._engine.tag(manifest.image, tag)
            self._engine.remove_image(manifest.tag)
            layers = image.layers
        return self._container(name, owner, tag, layers)

    def clone(self, name: str, new: str, owner: str) -> EnvContainer:
        """A container with all that is in another environment's now, packed or not."""
        self._check_free(new)
        container = self._engine.find(name)
        if container is None:
            return self._container(new, owner, self.provide(name))
        tag = _own_tag(new)
        self._engine.commit(container, tag)
        return self._container(new, owner, tag)

    def provide(self, reference: str) -> str:
        """Has a version of an environment in the Host's engine; gives the image's name."""
        try:
            wanted = parse_reference(reference)
        except ValueError as error:
            raise UsageError(str(error), "see `hakuriver env list`") from None
        version = self._catalog.resolve(wanted)
        manifest = self._catalog.manifest(wanted.name, version)
        image = manifest.image if manifest else image_tag(wanted.name, version)
        if not self._engine.has_image(image):
            self._engine.load(exported(self._catalog, wanted.name, version))
        return image

    def _imported(self, tar: Iterator[bytes], tag: str) -> list[LayerInfo]:
        """Makes an image of a root file system; gives its layer, where the share took it."""
        kept = Kept(self._catalog.root, tar)
        self._engine.import_root(iter(kept), tag)
        return kept.layers

    def _container(self, name: str, owner: str, image: str, layers: Sequence[LayerInfo] = ()) -> EnvContainer:
        """`layers` are those of the image that are in the store and that no version tells of."""
        shared = str(self._shared_data) if self._shared_data.is_dir() else None
        try:
            made = self._engine.create(name, owner, image, shared)
        except HakuRiverError:
            if image.startswith("hakuriver-env/"):
                self._engine.remove_image(image)
            raise
        self._bases.remember(name, Base(container=made.id, layers=list(layers)))
        return made

    def _check_free(self, name: str) -> None:
        if self._engine.find(name) is not None:
            raise ConflictError(
                f"the environment {name} has a container already",
                f"use it (`hakuriver env shell {name}`), or delete it first: `hakuriver env delete {name}`",
            )

    def _pulled(self, reference: str) -> str:
        """What the engine has is used as it is; what it has not is pulled."""
        if not self._engine.has_image(reference):
            self._engine.pull(reference)
        return reference

    def _debootstrapped(self, request: EnvironmentCreate) -> tuple[str, list[LayerInfo]]:
        suite = str(request.debootstrap)
        program = shutil.which("debootstrap")
        by_hand = f"`debootstrap {suite} DIR`, then `hakuriver env create {request.name} --rootfs DIR`"
        if program is None:
            raise UsageError(
                "debootstrap is not installed on the Host", f"install it, or on another machine: {by_hand}"
            )
        if os.geteuid() != 0:
            raise UsageError(
                "debootstrap needs root, which this Host is not", f"where you are root: {by_hand}"
            )
        tag = _own_tag(request.name)
        self._scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._scratch, prefix=f"{LIFE}-") as folder:
            root = Path(folder) / "root"
            include = [f"--include={','.join(request.include)}"] if request.include else []
            made = subprocess.run(
                [program, "--variant=minbase", *include, suite, root],
                capture_output=True,
                text=True,
                check=False,
                timeout=_DEBOOTSTRAP_SECONDS,
            )
            if made.returncode != 0:
                said = (made.stderr or made.stdout).strip().splitlines() or ["it said nothing"]
                raise HakuRiverError(
                    f"debootstrap {suite} failed: {said[-1][:300]}", "check the suite's name and the network"
                )
            tar = subprocess.Popen(
                ["tar", "--numeric-owner", "--one-file-system", "-C", root, "-c", "."], stdout=subprocess.PIPE
            )
            with tar, cast("IO[bytes]", tar.stdout) as output:
                return tag, self._imported(pieces_of(output), tag)


def import_version(
    catalog: Catalog, name: str, file: IO[bytes], author: str, message: str, like: Reference | None = None
) -> tuple[VersionManifest, int]:
    """An archive of an image becomes a version; gives it and the bytes that it cost on the share.

    With `like` it runs as that version does: of the archive's own configuration nothing is kept.

    Raises:
        UsageError: it is no such archive.
        StorageError: the share does not take it; no version appears.
    """
    image = ingest(catalog.root, file)
    config = image.config
    if like is not None:
        described = _config_of(catalog, like) or _without_its_run(json.loads(config))
        config = configured(described, image.layers, message)
    manifest = VersionManifest(
        name=name,
        version=catalog.free_version(name, time.time()),
        created=datetime.now(UTC),
        author=author,
        message=message,
        parent=catalog.current(name),
        config=config,
        layers=image.layers,
    )
    catalog.write(manifest)
    return manifest, image.written


def _config_of(catalog: Catalog, version: Reference) -> dict[str, Any]:
    """How an image of a version runs; of an archive nothing is known but its files."""
    manifest = catalog.manifest(version.name, version.version or 0)
    return dict(json.loads(manifest.config)) if manifest is not None else {}


def _without_its_run(committed: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a container's image without what its run was told: command, labels, variables, secrets among them."""
    variables = (committed.get("config") or {}).get("Env") or []
    return committed | {"config": {"Env": [each for each in variables if each.startswith("PATH=")]}}


def exported(catalog: Catalog, name: str, version: int) -> Iterator[bytes]:
    """A version as one archive, which `docker load` and `env import` take."""
    manifest = catalog.manifest(name, version)
    if manifest is not None:
        yield from docker_archive(manifest, lambda layer: read_layer(catalog.root, layer))
        return
    path = archive_path(catalog.root, name, version)
    try:
        with path.open("rb") as file:
            yield from pieces_of(file)
    except OSError as error:
        raise StorageError(f"cannot read {path.name}: {error.strerror}", "check the share's mount") from None


def _check_dockerfiles(file: IO[bytes]) -> None:
    """Raises `DeniedError` where a Dockerfile of the folder names a snapshot of a VPS."""
    with tarfile.open(fileobj=file, mode="r:*") as tar:
        for member in tar:
            if "dockerfile" not in member.name.lower() or member.isdir():
                continue
            content = tar.extractfile(member) if member.isreg() else None
            if content is None:
                raise UsageError(f"{member.name} is a link", "put the file itself there")
            if is_snapshot(content.read().decode("utf-8", "replace")):
                raise DeniedError(f"{member.name} names a snapshot of a VPS", "use another image")
    file.seek(0)


def _own_tag(name: str) -> str:
    return f"hakuriver-env/{name}:{int(time.time())}"


def _tar_in(file: IO[bytes]) -> Iterator[bytes]:
    """What the engine calls the layer is the digest of that."""
    try:
        yield from uncompressed(file)
    except DAMAGED as error:
        raise _no_tar(error) from None


def _no_tar(error: Exception) -> UsageError:
    return UsageError(f"it is no tar, or cut off: {error}", "make it anew, by `tar -c`")


def _check_members(file: IO[bytes]) -> None:
    """Refuses what is no tar, or leads out of itself, before an engine sees it."""
    try:
        with tarfile.open(fileobj=file, mode="r:*") as tar:
            for info in tar:
                safe_name(info.name)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise _no_tar(error) from None
    file.seek(0)
