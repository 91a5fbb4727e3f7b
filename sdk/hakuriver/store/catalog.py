"""Which versions there are: their manifests, the archives that lie beside them, which is current, and the tags."""

from __future__ import annotations

import contextlib
import re
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from hakuriver.errors import NotFoundError, StorageError
from hakuriver.models.environments import EnvironmentHead, VersionManifest
from hakuriver.references import Reference
from hakuriver.store.layout import (
    LIFE,
    TEMPORARY,
    VERSIONS,
    appearing,
    archive_path,
    cannot_write,
    head_path,
    manifest_path,
)

_ARCHIVE = re.compile(r"(?P<name>[a-z0-9][a-z0-9_.-]*)-(?P<version>[0-9]{1,12})\.tar")
_MANIFEST = re.compile(r"(?P<version>[0-9]{1,12})\.json")


class Catalog:
    """The versions under one root (`docker.container_dir` of the share)."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> list[str]:
        """All environments that have a version.

        Raises:
            StorageError: the share cannot be read.
        """
        found = {match["name"] for match in map(_ARCHIVE.fullmatch, self._entries(self.root)) if match}
        found |= {name for name in self._entries(self.root / VERSIONS) if self._manifests(name)}
        return sorted(found)

    def versions(self, name: str) -> list[int]:
        """The versions of an environment, newest first."""
        found = self._manifests(name)
        for match in map(_ARCHIVE.fullmatch, self._entries(self.root)):
            if match and match["name"] == name:
                found.add(int(match["version"]))
        return sorted(found, reverse=True)

    def all_versions(self) -> dict[str, list[int]]:
        """The same of all environments, from one look at each folder."""
        found: dict[str, set[int]] = {}
        for match in map(_ARCHIVE.fullmatch, self._entries(self.root)):
            if match:
                found.setdefault(match["name"], set()).add(int(match["version"]))
        for name in self._entries(self.root / VERSIONS):
            if manifests := self._manifests(name):
                found.setdefault(name, set()).update(manifests)
        return {name: sorted(versions, reverse=True) for name, versions in sorted(found.items())}

    def manifest(self, name: str, version: int) -> VersionManifest | None:
        """The manifest of a version; none when it is an archive.

        Raises:
            NotFoundError: there is no such version.
            StorageError: the share cannot be read, or the manifest is damaged.
        """
        path = manifest_path(self.root, name, version)
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            if archive_path(self.root, name, version).is_file():
                return None
            raise NotFoundError(
                f"there is no version {version} of the environment {name}",
                f"see `hakuriver env versions {name}`",
            ) from None
        except OSError as error:
            raise _cannot_read(path, error) from None
        try:
            manifest = VersionManifest.model_validate_json(text)
        except ValidationError:
            raise StorageError(
                f"the manifest of {name}@{version} on the share is damaged",
                "remove that version, or restore it",
            ) from None
        if (manifest.name, manifest.version) != (name, version):
            raise StorageError(
                f"the manifest of {name}@{version} on the share is of {manifest.name}@{manifest.version}",
                "remove that version, or restore it",
            )
        return manifest

    def head(self, name: str) -> EnvironmentHead:
        try:
            return EnvironmentHead.model_validate_json(head_path(self.root, name).read_bytes())
        except (FileNotFoundError, ValidationError):
            return EnvironmentHead()
        except OSError as error:
            raise _cannot_read(head_path(self.root, name), error) from None

    def current(self, name: str) -> int | None:
        """The version that `NAME` means; none when there is none."""
        versions = self.versions(name)
        if not versions:
            return None
        return _current(versions, self.head(name))

    def resolve(self, reference: Reference) -> int:
        """The version that a reference means.

        Raises:
            NotFoundError: there is none.
        """
        name = reference.name
        versions = self.versions(name)
        if not versions:
            known = ", ".join(self.names()) or "none yet"
            raise NotFoundError(
                f"there is no environment {name!r} (there are: {known})",
                "name one of them with --container, or use --container NULL for none",
            )
        hint = f"see `hakuriver env versions {name}`"
        if reference.version is not None:
            if reference.version not in versions:
                raise NotFoundError(f"{name} has no version {reference.version}", hint)
            return reference.version
        head = self.head(name)
        if reference.tag is not None:
            tagged = head.tags.get(reference.tag)
            if tagged is None or tagged not in versions:
                raise NotFoundError(f"{name} has no tag {reference.tag!r}", hint)
            return tagged
        return _current(versions, head)

    def free_version(self, name: str, now: float) -> int:
        """The number of a new version: unix seconds, above all that there are."""
        return max([int(now), *(version + 1 for version in self.versions(name)[:1])])

    def write(self, manifest: VersionManifest) -> None:
        """Makes a version appear."""
        final = manifest_path(self.root, manifest.name, manifest.version)
        with appearing(self.root, final) as file:
            file.write(manifest.model_dump_json(indent=1).encode())

    def write_head(self, name: str, head: EnvironmentHead) -> None:
        with appearing(self.root, head_path(self.root, name)) as file:
            file.write(head.model_dump_json(indent=1).encode())

    def delete(self, name: str, version: int) -> None:
        """Makes a version disappear; its layers are left to the collection of garbage."""
        try:
            manifest_path(self.root, name, version).unlink(missing_ok=True)
            archive_path(self.root, name, version).unlink(missing_ok=True)
            if not self.versions(name):
                head_path(self.root, name).unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    (self.root / VERSIONS / name).rmdir()
        except OSError as error:
            raise cannot_write(self.root, error) from None

    def sweep_temporary(self) -> None:
        """Removes leftovers of writings that an earlier life of the Host broke off."""
        for name in self._entries(self.root / TEMPORARY):
            if not name.startswith(LIFE):
                with contextlib.suppress(OSError):
                    (self.root / TEMPORARY / name).unlink()

    def created_at(self, version: int) -> datetime:
        """When a version was packed, as far as its number tells."""
        return datetime.fromtimestamp(version, UTC)

    def _manifests(self, name: str) -> set[int]:
        found = map(_MANIFEST.fullmatch, self._entries(self.root / VERSIONS / name))
        return {int(match["version"]) for match in found if match}

    def _entries(self, folder: Path) -> list[str]:
        try:
            return [entry.name for entry in folder.iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise _cannot_read(folder, error) from None


def _current(versions: list[int], head: EnvironmentHead) -> int:
    """The chosen version while it is there, else the newest."""
    return head.current if head.current is not None and head.current in versions else versions[0]


def _cannot_read(path: Path, error: OSError) -> StorageError:
    return StorageError(f"cannot read {path}: {error.strerror}", "check the share's mount and permissions")
