"""What a cell of a list shows: numbers, times, sizes, shares."""

from __future__ import annotations

from datetime import datetime

from hakuriver.sizes import format_size
from hakuriver_cli.output import NOTHING


def number(value: object) -> str:
    return NOTHING if value is None else str(value)


def time(moment: datetime | None) -> str:
    """Local time, to the second."""
    return NOTHING if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def size(value: int | None) -> str:
    return NOTHING if value is None else format_size(value)


def percent(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.0f}%"


def degrees(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.0f}°C"
