"""Collecting garbage: what `garbage` decides, done on the share. Blocks."""

from __future__ import annotations

import time
from collections.abc import Mapping

from hakuriver.models.environments import GarbageReport
from hakuriver.store import Catalog
from hakuriver.store.layout import BLOBS
from hakuriver_host.services.environments.garbage import Retention, expired, unused


def collect(
    catalog: Catalog, named: Mapping[str, set[int]], keep: Retention, *, dry_run: bool
) -> GarbageReport:
    """Removes versions that retention lets go, layers that no version has, and leftovers of broken writings."""
    started = time.time()
    versions, used = [], set[str]()
    for name, found in catalog.all_versions().items():
        gone = expired(found, catalog.head(name), named.get(name, ()), keep, started)
        versions += [f"{name}@{version}" for version in gone]
        for version in found:
            if version in gone and not dry_run:
                catalog.delete(name, version)
            elif version not in gone and (manifest := catalog.manifest(name, version)):
                used |= {layer.diff_id for layer in manifest.layers}
    folder = catalog.root / BLOBS
    blobs = {f"sha256:{path.name.partition('.')[0]}": path for path in folder.glob("*.tar.zst")}
    stats = {diff_id: path.stat() for diff_id, path in blobs.items()}
    gone_layers = unused({diff_id: stat.st_mtime for diff_id, stat in stats.items()}, used, started)
    if not dry_run:
        for diff_id in gone_layers:
            blobs[diff_id].unlink(missing_ok=True)
        catalog.sweep_temporary()
    return GarbageReport(
        versions=versions,
        layers=len(gone_layers),
        freed=sum(stats[diff_id].st_size for diff_id in gone_layers),
        dry_run=dry_run,
    )
