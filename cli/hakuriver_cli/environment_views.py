"""What lists of environments and their versions show."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from hakuriver.sizes import format_size
from hakuriver_cli.cells import time
from hakuriver_cli.output import Column, View

if TYPE_CHECKING:
    from hakuriver.models.environments import (
        EnvironmentContainer,
        EnvironmentInfo,
        GarbageReport,
        PackageChange,
        SyncProgress,
        VersionDiff,
        VersionInfo,
    )


Act = Callable[[str], str]


def _current(info: EnvironmentInfo) -> VersionInfo | None:
    return next((version for version in info.versions if version.current), None)


def _of_current(tell: Callable[[VersionInfo], str]) -> Callable[[EnvironmentInfo], str]:
    return lambda info: tell(version) if (version := _current(info)) else ""


def _nodes(info: EnvironmentInfo) -> str:
    """Each node with the newest version that it has; marked when that is not the current one."""
    newest: dict[str, int] = {}
    for version in info.versions:
        for node in version.nodes:
            newest[node] = max(version.version, newest.get(node, 0))
    current = _current(info)
    return " ".join(
        node if current and node in current.nodes else f"{node}@{version}"
        for node, version in sorted(newest.items())
    )


ENVIRONMENTS: View[EnvironmentInfo] = View(
    name=lambda info: info.name,
    columns=[
        Column("ENVIRONMENT", lambda info: info.name),
        Column("VERSION", _of_current(lambda version: str(version.version))),
        Column("PACKED", _of_current(lambda version: time(version.created))),
        Column("SIZE", _of_current(lambda version: format_size(version.size)), right=True),
        Column("VERSIONS", lambda info: str(len(info.versions)), right=True),
        Column("CONTAINER", lambda info: info.container or ""),
        Column("STORED", lambda info: format_size(info.stored), wide=True, right=True),
        Column("SHARED", lambda info: format_size(info.shared), wide=True, right=True),
        Column("NODES", _nodes, wide=True),
        Column("MADE FROM", lambda info: info.image or "", wide=True),
    ],
)

ENVIRONMENT: View[EnvironmentInfo] = ENVIRONMENTS

VERSIONS: View[VersionInfo] = View(
    name=lambda version: version.reference,
    columns=[
        Column("VERSION", lambda version: version.reference),
        Column("CURRENT", lambda version: "yes" if version.current else ""),
        Column("TAGS", lambda version: " ".join(version.tags)),
        Column("PACKED", lambda version: time(version.created)),
        Column("SIZE", lambda version: format_size(version.size), right=True),
        Column("OWN", lambda version: format_size(version.own), right=True),
        Column("AUTHOR", lambda version: version.author),
        Column("MESSAGE", lambda version: version.message, limit=40),
        Column("LAYERS", lambda version: "" if version.layers is None else str(version.layers), wide=True),
        Column("STORED", lambda version: format_size(version.stored), wide=True, right=True),
        Column("NODES", lambda version: " ".join(version.nodes), wide=True),
        Column("IMAGE", lambda version: version.image or "an archive", wide=True),
    ],
)

CONTAINERS: View[EnvironmentContainer] = View(
    name=lambda container: container.name,
    columns=[
        Column("NAME", lambda container: container.name),
        Column("STATUS", lambda container: container.status),
        Column("IMAGE", lambda container: container.image),
        Column("OWNER", lambda container: container.owner),
        Column("ID", lambda container: container.id[:12]),
    ],
)

PACKAGES: View[PackageChange] = View(
    name=lambda change: change.name,
    columns=[
        Column("MANAGER", lambda change: change.manager),
        Column("PACKAGE", lambda change: change.name),
        Column("BEFORE", lambda change: change.before or ""),
        Column("AFTER", lambda change: change.after or ""),
    ],
)

SYNCS: View[SyncProgress] = View(
    name=lambda sync: sync.node,
    columns=[
        Column("NODE", lambda sync: sync.node),
        Column("VERSION", lambda sync: f"{sync.name}@{sync.version}"),
        Column("STATE", lambda sync: sync.state),
        Column("LOADED", lambda sync: format_size(sync.done), right=True),
        Column("REASON", lambda sync: sync.reason or ""),
    ],
)

GARBAGE: View[GarbageReport] = View(
    name=lambda report: " ".join(report.versions),
    columns=[
        Column("VERSIONS", lambda report: _listed(report.versions)),
        Column("LAYERS", lambda report: str(report.layers)),
        Column("FREED", lambda report: format_size(report.freed) + (" (would be)" if report.dry_run else "")),
    ],
)


def difference(found: VersionDiff) -> str:
    """One line: sizes, and the layers that came and went."""
    added = sum(layer.size for layer in found.added_layers)
    removed = sum(layer.size for layer in found.removed_layers)
    packages = "" if found.packages is not None else "; packages are not known of both"
    return (
        f"{found.name}@{found.before} → @{found.after}: {format_size(found.size_before)} → "
        f"{format_size(found.size_after)}; layers: {len(found.added_layers)} new ({format_size(added)}), "
        f"{len(found.removed_layers)} gone ({format_size(removed)}){packages}"
    )


def _listed(names: Iterable[str]) -> str:
    return " ".join(names) or "none"
