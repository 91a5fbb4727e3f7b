"""The version of all of HakuRiver, and which other versions it can talk to.

Host, Runner and client send theirs in the header named by `VERSION_HEADER`. Neighbours whose
minor version is one away work together, so that a cluster can be upgraded node by node.
"""

from __future__ import annotations

__version__ = "0.3.0"

VERSION_HEADER = "X-HakuRiver-Version"


def compatible(ours: str, theirs: str) -> bool:
    """True when both have one major version and minor versions at most one apart."""
    mine, other = _major_minor(ours), _major_minor(theirs)
    if mine is None or other is None:
        return False
    return mine[0] == other[0] and abs(mine[1] - other[1]) <= 1


def _major_minor(version: str) -> tuple[int, int] | None:
    parts = version.split(".")
    if len(parts) < 2 or not (parts[0].isdigit() and parts[1].isdigit()):  # noqa: PLR2004
        return None
    return int(parts[0]), int(parts[1])
