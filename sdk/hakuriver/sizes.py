"""Sizes and durations as people type them."""

from __future__ import annotations

import re

from hakuriver.errors import UsageError

_UNITS = {
    "": 1,
    "K": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "KI": 2**10,
    "MI": 2**20,
    "GI": 2**30,
    "TI": 2**40,
}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?I?)B?", re.IGNORECASE)
_DURATION_PART = re.compile(r"(\d+)([dhms])")
_SECONDS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_CLOCK_PARTS = (2, 3)

MAX_BYTES = 2**62
"""Above every machine; keeps sizes inside a database's 64-bit integers."""
MAX_SECONDS = 10 * 365 * 86_400


def parse_size(text: str) -> int:
    """Bytes of `512`, `4G` (powers of 1000), `4Gi` (powers of 1024).

    Raises:
        UsageError: the text is not such a size, or not above zero.
    """
    match = _SIZE.fullmatch(text.strip())
    unit = match.group(2).upper() if match else None
    if match is None or unit not in _UNITS:
        raise UsageError(
            f"{text!r} is not a size",
            "write digits and K, M, G or T (or Ki, Mi, Gi, Ti), such as 4G or 512Mi",
        )
    size = int(float(match.group(1)) * _UNITS[unit])
    if not 0 < size <= MAX_BYTES:
        raise UsageError(
            f"{text!r} is out of range", "give a size above zero that a machine can have, such as 4G"
        )
    return size


def format_size(size: float) -> str:
    """A size for people, in powers of 1000: `1.5G`."""
    for unit in ("", "K", "M", "G", "T"):
        if abs(size) < 1000 or unit == "T":  # noqa: PLR2004
            return f"{size:.0f}{unit}" if unit == "" or size >= 100 else f"{size:.1f}{unit}"  # noqa: PLR2004
        size /= 1000
    raise AssertionError("unreachable")


def parse_duration(text: str) -> int:
    """Seconds of `90`, `90s`, `15m`, `2h30m`, `1d`, `MM:SS` or `HH:MM:SS`.

    Raises:
        UsageError: the text is not such a duration, or not above zero.
    """
    seconds = _duration(text.strip().lower())
    if seconds is None:
        raise UsageError(
            f"{text!r} is not a duration", "write seconds, or such as 90s, 15m, 2h30m, 1d, 01:30:00"
        )
    if not 0 < seconds <= MAX_SECONDS:
        raise UsageError(f"{text!r} is out of range", "give a duration above zero and under ten years")
    return seconds


def _duration(text: str) -> int | None:
    if text.isdecimal():
        return int(text)
    clock = text.split(":")
    if len(clock) in _CLOCK_PARTS and all(part.isdecimal() for part in clock):
        seconds = 0
        for part in clock:
            seconds = seconds * 60 + int(part)
        return seconds
    parts = _DURATION_PART.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return sum(int(number) * _SECONDS[unit] for number, unit in parts)
    return None


def format_duration(seconds: float) -> str:
    """A duration for people: `42s`, `3m10s`, `2h05m`, `3d04h`."""
    whole = max(0, int(seconds))
    if whole < 60:  # noqa: PLR2004
        return f"{whole}s"
    if whole < 3_600:  # noqa: PLR2004
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86_400:  # noqa: PLR2004
        return f"{whole // 3_600}h{whole % 3_600 // 60:02d}m"
    return f"{whole // 86_400}d{whole % 86_400 // 3_600:02d}h"
