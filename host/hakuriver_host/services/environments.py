"""Environments as they stand on the share: archives `NAME-<unix seconds>.tar`, the newest of each current."""

from __future__ import annotations

import re
from pathlib import Path

from hakuriver.errors import NotFoundError, StorageError
from hakuriver.models.nodes import EnvironmentVersion, EnvironmentVersions
from hakuriver_host.services.core import Core

_ARCHIVE = re.compile(r"(?P<name>[a-z0-9][a-z0-9_.-]*)-(?P<timestamp>[0-9]{1,12})\.tar")


def list_environments(container_dir: Path) -> dict[str, EnvironmentVersions]:
    """All environments, versions newest first. Blocks on the share: call it in a thread.

    Raises:
        StorageError: the folder cannot be read.

    """
    found: dict[str, list[EnvironmentVersion]] = {}
    try:
        names = [path.name for path in container_dir.iterdir()]
    except FileNotFoundError:
        names = []
    except OSError as error:
        raise StorageError(
            f"cannot read {container_dir}: {error.strerror}", "check the share's mount and permissions"
        ) from None
    for name in names:
        match = _ARCHIVE.fullmatch(name)
        if match:
            version = EnvironmentVersion(timestamp=int(match["timestamp"]), tarball=name)
            found.setdefault(match["name"], []).append(version)
    return {name: _sorted(versions) for name, versions in sorted(found.items())}


def current_version(container_dir: Path, name: str) -> str:
    """The version that a submission is pinned to.

    Raises:
        NotFoundError: there is no such environment.

    """
    environments = list_environments(container_dir)
    if name not in environments:
        known = ", ".join(environments) or "none yet"
        raise NotFoundError(
            f"there is no environment {name!r} (there are: {known})",
            "name one of them with --container, or use --container NULL for none",
        )
    return str(environments[name].latest_timestamp)


def _sorted(versions: list[EnvironmentVersion]) -> EnvironmentVersions:
    versions.sort(key=lambda version: version.timestamp, reverse=True)
    return EnvironmentVersions(
        latest_timestamp=versions[0].timestamp, latest_tarball=versions[0].tarball, all_versions=versions
    )


class Environments:
    """The same, for requests."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def list(self) -> dict[str, EnvironmentVersions]:
        return await self._core.share.call(lambda: list_environments(self._core.settings.container_dir))
