"""Which layers a load must bring, and whether it must wait: pure.

An engine takes an archive that leaves out layers which it has already, as long as these are the lowest ones. Layers
are named by their diff ids, lowest first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

Chain = tuple[str, ...]


@dataclass(eq=False, slots=True)
class Flight:
    """A load on its way."""

    name: str
    layers: Chain
    skip: int
    """How many of the lowest it leaves out; it brings the others."""
    done: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True)
class Wait:
    """Another load brings layers that are missing: plan anew when it is over."""

    flight: Flight


@dataclass(frozen=True, slots=True)
class Load:
    """Load now, without the `skip` lowest layers."""

    skip: int


def plan(wanted: Chain, present: Iterable[Chain], flights: Iterable[Flight]) -> Wait | Load:
    """What to do for an image of the layers `wanted`, where the engine has the images `present`."""
    have = max((common(wanted, chain) for chain in present), default=0)
    brought = max(flights, key=lambda flight: _brings(flight, wanted), default=None)
    if brought is not None and _brings(brought, wanted) > have:
        return Wait(brought)
    return Load(have)


def common(first: Sequence[str], second: Sequence[str]) -> int:
    """How many layers two chains have in common, from the lowest on."""
    count = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        count += 1
    return count


def _brings(flight: Flight, wanted: Chain) -> int:
    """How many of the lowest layers of `wanted` are there once the flight is over, if it brings any of them."""
    shared = common(wanted, flight.layers)
    return shared if shared > flight.skip else 0
