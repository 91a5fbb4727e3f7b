"""Which versions an engine keeps: the budget, the times of last use, and the pure choice of what goes."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hakuriver_agent.environments.planning import Chain, common


@dataclass(frozen=True, slots=True)
class Cached:
    """One version in the engine."""

    name: str
    """`NAME:VERSION`."""
    layers: Chain
    sizes: Mapping[str, int]
    """Bytes per layer; what is known of several layers as a whole only is under one key."""


def occupied(versions: Iterable[Cached]) -> int:
    """Bytes of the versions, each layer counted once."""
    sizes: dict[str, int] = {}
    for version in versions:
        sizes |= version.sizes
    return sum(sizes.values())


def layer_sizes(image: str, layers: Chain, total: int, known: Mapping[str, int]) -> dict[str, int]:
    """Bytes per layer of an image; those whose size nobody knows share what is left, under the image's own key."""
    sizes = {layer: known[layer] for layer in layers if layer in known}
    if len(sizes) < len(set(layers)):
        sizes[image] = max(0, total - sum(sizes.values()))
    return sizes


def victim(
    versions: Sequence[Cached],
    used: Mapping[str, float],
    budget: int,
    kept: Collection[str],
    needed: Collection[Chain],
) -> str | None:
    """The next version to remove from the engine, if one must go: the least recently used one that may.

    `kept` may not go. `needed` are chains of lowest layers on which loads in flight build: one version that has them
    stays. So does the version used last, however large: it would be loaded again for each task.
    """
    if occupied(versions) <= budget:
        return None
    order = sorted(versions, key=lambda version: (used.get(version.name, 0.0), version.name))
    for candidate in order[:-1]:
        others = [version for version in versions if version is not candidate]
        if candidate.name not in kept and all(_held(chain, candidate, others) for chain in needed):
            return candidate.name
    return None


def _held(chain: Chain, candidate: Cached, others: Iterable[Cached]) -> bool:
    """Whether the lowest layers `chain` stay in the engine without the candidate, as far as they hang on it."""
    if common(chain, candidate.layers) < len(chain):
        return True
    return any(common(chain, other.layers) == len(chain) for other in others)


class LastUse:
    """When each version was last used, kept in a small file. Losing it costs a less apt choice and nothing else."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._changed = False
        self.times: dict[str, float] = _read(path)
        """Unix seconds by `NAME:VERSION`."""

    def touch(self, name: str) -> None:
        self.times[name] = self._clock()
        self._changed = True

    def forget(self, name: str) -> None:
        self._changed |= self.times.pop(name, None) is not None

    def save(self) -> None:
        """Writes what has changed; on the local disk."""
        if not self._changed:
            return
        self._changed = False
        partial = self._path.with_suffix(".part")
        with contextlib.suppress(OSError):
            partial.write_text(json.dumps({"used": dict(self.times)}), "utf-8")
            partial.replace(self._path)


def _read(path: Path) -> dict[str, float]:
    try:
        used = json.loads(path.read_text("utf-8"))["used"]
        return {str(name): float(moment) for name, moment in used.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
