"""The versions that submissions are pinned to."""

from __future__ import annotations

import time
from dataclasses import dataclass

from hakuriver_host.services.core import Core
from hakuriver_host.services.environments.catalogue import current_version

_SECONDS = 1.0
"""For how long it is remembered what a reference means: the share may be changed by hand as well."""


@dataclass(frozen=True, slots=True)
class _Pin:
    version: str
    read_at: float


class Pins:
    """What references mean now, remembered so that a stream of submissions does not list the share for each."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._known: dict[str, _Pin] = {}

    async def version(self, reference: str) -> str:
        """The version that a reference means.

        Raises:
            NotFoundError: there is no such environment or version.
            StorageError: its manifest is damaged, or the share cannot be read.
            UsageError: it is not a reference.
        """
        known, now = self._known, time.monotonic()
        pin = known.get(reference)
        if pin is None or now - pin.read_at > _SECONDS:
            version = await self._core.share.call(
                lambda: current_version(self._core.settings.container_dir, reference)
            )
            # What was read before a change is kept with what is forgotten by now.
            pin = known[reference] = _Pin(version, now)
        return pin.version

    def forget(self) -> None:
        """The Host has changed an environment: submissions from now on must see it."""
        self._known = {}
