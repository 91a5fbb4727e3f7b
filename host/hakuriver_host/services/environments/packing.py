"""Packing: the container of an environment becomes a version on the share, for the price of what has changed.

The layers of what the container was made from went into the store when it was made (see `bases`); those of a pulled
image are read from the engine at the first packing. Then each packing adds one layer: what is different from the last one (see `changes`). The image's configuration is made
here, so no engine has to commit anything, and the container goes on as it was. Where the engine does not tell changes
by themselves, the container is committed and its whole archive is read; layers that are there are not written again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog
from pydantic import BaseModel, ValidationError

from hakuriver.errors import HakuRiverError, NotFoundError, StorageError
from hakuriver.models.environments import (
    MAX_LAYERS,
    LayerInfo,
    VersionManifest,
    digest_of,
)
from hakuriver.pieces import PieceReader
from hakuriver.store import Catalog, LayerWriter, stored_size
from hakuriver_host.services.environments.archives import ingest
from hakuriver_host.services.environments.bases import Bases
from hakuriver_host.services.environments.changes import Index, write_delta
from hakuriver_host.services.environments.engine import EnvContainer, HostEngine, Kind
from hakuriver_host.services.environments.packages import installed

log = structlog.get_logger(__name__)

_COMMITTED = "hakuriver-env/{name}:packing"


class Packed(BaseModel):
    """What the Host remembers of the last packing of a container, on its own disk: it can be lost at a price only."""

    container: str
    """The engine's id of it."""
    version: int
    index: Index


@dataclass(frozen=True, slots=True)
class Packing:
    """What a packing made."""

    manifest: VersionManifest
    written: int
    why_full: str
    """What about the engine made it read the whole archive; empty when changes were enough."""


class Packer:
    """Packs one container at a time; who calls sees to it that no environment is packed twice at once."""

    def __init__(self, engine: HostEngine, catalog: Catalog, memory: Path) -> None:
        self._engine = engine
        self._catalog = catalog
        self._memory = memory
        self._bases = Bases(memory)

    def pack(self, name: str, author: str, message: str) -> Packing:
        """Makes the next version.

        Raises:
            NotFoundError: the environment has no container.
            StorageError: the share does not take it; no version appears.
        """
        container, kind = self._engine.container(name), self._engine.kind()
        # Before anything is begun: a later life looks for what was left behind only where it is there.
        with suppress(OSError):
            self._memory.mkdir(mode=0o700, parents=True, exist_ok=True)
        packages = installed(self._engine, container)
        work = self._changes if kind.tells_changes else self._whole
        config, layers, written, index = work(container, kind, message)
        manifest = VersionManifest(
            name=name,
            version=self._catalog.free_version(name, time.time()),
            created=datetime.now(UTC),
            author=author,
            message=message,
            parent=self._catalog.current(name),
            config=config,
            layers=layers,
            packages=packages,
        )
        self._catalog.write(manifest)
        if index is not None:
            self._remember(name, Packed(container=container.id, version=manifest.version, index=index))
        return Packing(manifest, written, kind.why_not)

    def forget(self, name: str) -> None:
        """The container is gone."""
        (self._memory / f"{name}.json").unlink(missing_ok=True)
        self._bases.forget(name)

    def _changes(
        self, container: EnvContainer, _kind: Kind, message: str
    ) -> tuple[str, list[LayerInfo], int, Index | None]:
        image = self._engine.image(container.image)
        last = self._last(container)
        written = 0
        if last is None:
            below, written = self._base(container, image)
            before: Index = {}
        else:
            before, below = last
        delta, cost, index, entries = self._delta(container, before)
        # Nothing changed: the version has the layers of the last one.
        layers = [*below, delta] if entries else below
        return _config(image, layers, message), layers, written + cost, index

    def _delta(self, container: EnvContainer, before: Index) -> tuple[LayerInfo, int, Index, int]:
        with (
            self._engine.paused(container),
            self._engine.upper(container) as upper,
            LayerWriter(self._catalog.root) as writer,
        ):
            delta = write_delta(upper.entries, upper.removed, before, upper.content, writer)
            if not delta.entries:
                return LayerInfo(diff_id=digest_of(b""), size=0, stored=0), 0, delta.index, 0
            layer = writer.finish()
            return layer, writer.written, delta.index, delta.entries

    def _base(self, container: EnvContainer, image: dict[str, Any]) -> tuple[list[LayerInfo], int]:
        """The layers of what a container was made from, in the store."""
        wanted: list[str] = image["RootFS"].get("Layers") or []
        known = self._known_layers()
        known |= {layer.diff_id: layer for layer in self._bases.recall(container.environment, container.id)}
        if all(diff_id in known and stored_size(self._catalog.root, diff_id) for diff_id in wanted):
            return [known[diff_id] for diff_id in wanted], 0
        with closing(self._engine.save(image["Id"])) as archive:
            found = ingest(self._catalog.root, PieceReader(archive))
        return found.layers, found.written

    def _known_layers(self) -> dict[str, LayerInfo]:
        """Layers of all versions: their sizes are in the manifests alone."""
        known: dict[str, LayerInfo] = {}
        for name, versions in self._catalog.all_versions().items():
            for version in versions:
                with suppress(HakuRiverError):
                    manifest = self._catalog.manifest(name, version)
                    known |= {layer.diff_id: layer for layer in (manifest.layers if manifest else [])}
        return known

    def _last(self, container: EnvContainer) -> tuple[Index, list[LayerInfo]] | None:
        """What the last packing of this very container saw, and its layers, if all of it is still there."""
        path = self._memory / f"{container.environment}.json"
        try:
            packed = Packed.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            return None
        if packed.container != container.id:
            return None
        try:
            manifest = self._catalog.manifest(container.environment, packed.version)
        except (NotFoundError, StorageError):
            return None
        if manifest is None or len(manifest.layers) >= MAX_LAYERS:
            return None
        if any(stored_size(self._catalog.root, layer.diff_id) != layer.stored for layer in manifest.layers):
            return None
        return packed.index, manifest.layers

    def _remember(self, name: str, packed: Packed) -> None:
        """Losing it makes the next packing dearer, and no worse."""
        path = self._memory / f"{name}.json"
        try:
            temporary = path.with_suffix(".new")
            temporary.write_text(packed.model_dump_json(), "utf-8")
            temporary.rename(path)
        except OSError as error:
            log.warning("the state of a packing was not kept; the next one will cost more", cause=str(error))
            path.unlink(missing_ok=True)

    def _whole(
        self, container: EnvContainer, kind: Kind, _message: str
    ) -> tuple[str, list[LayerInfo], int, Index | None]:
        log.info("packing from the whole archive", environment=container.environment, why=kind.why_not)
        tag = _COMMITTED.format(name=container.environment)
        self._engine.commit(container, tag)
        try:
            with closing(self._engine.save(tag)) as archive:
                found = ingest(self._catalog.root, PieceReader(archive))
        finally:
            self._engine.remove_image(tag)
        return found.config, found.layers, found.written, None


def _config(image: dict[str, Any], layers: Iterable[LayerInfo], message: str) -> str:
    """The configuration of an image with these layers, which runs as the one does that an engine describes so."""
    described = {"architecture": image["Architecture"], "os": image["Os"], "config": image.get("Config")}
    if variant := image.get("Variant"):
        described["variant"] = variant
    return configured(described, layers, message)


def configured(like: dict[str, Any], layers: Iterable[LayerInfo], message: str) -> str:
    """The configuration of an image with these layers (OCI image-spec), which runs as the one with that configuration does."""
    created = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    layers = list(layers)
    settings: dict[str, Any] = like.get("config") or {}
    history = [{"created": created, "created_by": "hakuriver env pack"} for _ in layers]
    if history and message:
        history[-1]["comment"] = message
    config: dict[str, Any] = {
        **{key: like[key] for key in ("architecture", "os", "variant") if key in like},
        "created": created,
        "config": {key: value for key, value in settings.items() if value is not None},
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        "history": history,
    }
    return json.dumps(config, separators=(",", ":"), sort_keys=True)
