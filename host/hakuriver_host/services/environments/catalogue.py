"""What versions there are, as submissions and lists need it. Blocks on the share: call it in a thread."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from hakuriver.errors import HakuRiverError, UsageError
from hakuriver.models.environments import (
    EnvironmentInfo,
    LayerInfo,
    VersionInfo,
    VersionManifest,
    unique_bytes,
)
from hakuriver.models.nodes import EnvironmentVersion, EnvironmentVersions
from hakuriver.references import parse_reference
from hakuriver.store import Catalog
from hakuriver.store.layout import VERSIONS, archive_path


def list_environments(container_dir: Path) -> dict[str, EnvironmentVersions]:
    """All environments with the files of their versions, newest first, as `GET /api/docker/list` tells them.

    Raises:
        StorageError: the share cannot be read.

    """
    catalog = Catalog(container_dir)
    found = {}
    for name, versions in catalog.all_versions().items():
        files = [
            EnvironmentVersion(timestamp=each, tarball=file_of(catalog, name, each)) for each in versions
        ]
        current = catalog.current(name)
        latest = next((file for file in files if file.timestamp == current), files[0])
        found[name] = EnvironmentVersions(
            latest_timestamp=latest.timestamp, latest_tarball=latest.tarball, all_versions=files
        )
    return found


def file_of(catalog: Catalog, name: str, version: int) -> str:
    """The file that makes the version, relative to the container directory."""
    archive = archive_path(catalog.root, name, version)
    return archive.name if archive.exists() else f"{VERSIONS}/{name}/{version}.json"


def current_version(container_dir: Path, reference: str) -> str:
    """The version that a submission is pinned to.

    Raises:
        NotFoundError: there is no such environment or version.
        StorageError: its manifest is damaged, or the share cannot be read.

    """
    catalog = Catalog(container_dir)
    try:
        wanted = parse_reference(reference)
    except ValueError as error:
        raise UsageError(str(error), "see `hakuriver env list`") from None
    version = catalog.resolve(wanted)
    catalog.manifest(wanted.name, version)
    return str(version)


def describe(catalog: Catalog, nodes: Mapping[str, Iterable[str]]) -> list[EnvironmentInfo]:
    """All environments and their versions. `nodes` says for each node which images its engine has."""
    manifests: dict[str, dict[int, VersionManifest | None]] = {}
    for name, versions in catalog.all_versions().items():
        manifests[name] = {version: _readable(catalog, name, version) for version in versions}
    users = _users(manifests)
    return [_environment(catalog, name, found, users, nodes) for name, found in manifests.items()]


def _readable(catalog: Catalog, name: str, version: int) -> VersionManifest | None:
    """A damaged manifest must not hide the others."""
    try:
        return catalog.manifest(name, version)
    except HakuRiverError:
        return None


def _users(manifests: Mapping[str, Mapping[int, VersionManifest | None]]) -> dict[str, set[tuple[str, int]]]:
    """For each layer the versions that have it."""
    users: dict[str, set[tuple[str, int]]] = {}
    for name, versions in manifests.items():
        for version, manifest in versions.items():
            for layer in manifest.layers if manifest else []:
                users.setdefault(layer.diff_id, set()).add((name, version))
    return users


def _environment(
    catalog: Catalog,
    name: str,
    found: Mapping[int, VersionManifest | None],
    users: Mapping[str, set[tuple[str, int]]],
    nodes: Mapping[str, Iterable[str]],
) -> EnvironmentInfo:
    head, current = catalog.head(name), catalog.current(name)
    layers = [layer for manifest in found.values() if manifest for layer in manifest.layers]
    versions = []
    for version, manifest in found.items():
        tags = sorted(tag for tag, tagged in head.tags.items() if tagged == version)
        archive = 0 if manifest else _archive_size(catalog, name, version)
        common = {
            "name": name,
            "version": version,
            "reference": f"{name}@{version}",
            "current": version == current,
            "tags": tags,
            "nodes": sorted(node for node, images in nodes.items() if f"{name}:{version}" in images),
        }
        versions.append(
            version_info(manifest, users, common)
            if manifest
            else VersionInfo(
                **common, created=catalog.created_at(version), size=archive, stored=archive, own=archive
            )
        )
    archives = sum(info.stored for info in versions if info.image is None)
    return EnvironmentInfo(
        name=name,
        current=current,
        versions=versions,
        stored=unique_bytes(layers) + archives,
        shared=unique_bytes(
            layer for layer in layers if any(user != name for user, _ in users[layer.diff_id])
        ),
    )


def version_info(
    manifest: VersionManifest, users: Mapping[str, set[tuple[str, int]]], common: Mapping[str, object]
) -> VersionInfo:
    own = [layer for layer in manifest.layers if len(users.get(layer.diff_id, ())) <= 1]
    return VersionInfo.model_validate(
        {
            **common,
            "image": manifest.image,
            "created": manifest.created,
            "author": manifest.author,
            "message": manifest.message,
            "parent": manifest.parent,
            "layers": len(manifest.layers),
            "size": manifest.size,
            "stored": unique_bytes(manifest.layers),
            "own": unique_bytes(own),
        }
    )


def _archive_size(catalog: Catalog, name: str, version: int) -> int:
    try:
        return archive_path(catalog.root, name, version).stat().st_size
    except OSError:
        return 0


def missing_layers(layers: Iterable[LayerInfo], kept: Iterable[LayerInfo]) -> list[LayerInfo]:
    """Those of the first that are not among the second."""
    known = {layer.diff_id for layer in kept}
    return [layer for layer in layers if layer.diff_id not in known]
