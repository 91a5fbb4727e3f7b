"""What may be removed from the store: pure decisions, taken from what there is and what is named."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from hakuriver.models.environments import EnvironmentHead

DAY_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class Retention:
    """How many versions to keep, and for how long; none is without limit."""

    versions: int | None
    days: float | None


def expired(
    versions: Iterable[int], head: EnvironmentHead, named: Collection[int], keep: Retention, now: float
) -> list[int]:
    """Versions of one environment that retention lets go, oldest first.

    Never the current one, a tagged one, or one that a task names that is not final.
    """
    ordered = sorted(versions, reverse=True)
    if not ordered:
        return []
    current = head.current if head.current in ordered else ordered[0]
    safe = {current, *head.tags.values(), *named}
    out = [
        version
        for place, version in enumerate(ordered)
        if version not in safe
        and (
            (keep.versions is not None and place >= keep.versions)
            or (keep.days is not None and now - version > keep.days * DAY_SECONDS)
        )
    ]
    return sorted(out)


def unused(blobs: Mapping[str, float], used: Collection[str], started: float) -> list[str]:
    """Layers that no version has. `blobs` gives for each when it was written.

    What appeared since the collection started may belong to a version that is about to appear.
    """
    return sorted(diff_id for diff_id, written in blobs.items() if diff_id not in used and written < started)
