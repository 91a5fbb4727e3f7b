"""Points in time as people type them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo

from hakuriver.errors import UsageError
from hakuriver.sizes import parse_duration

_CLOCK = re.compile(r"(\d{1,2}):(\d{2})")
_HINT = "write 18:00, 2026-12-31T18:00 (in your time zone, unless it has one), or how long from now, such as 2h30m"


def parse_when(text: str, now: datetime, zone: tzinfo | None = None) -> datetime:
    """The time that is meant by `18:00` (the next one), `2026-12-31T18:00[+01:00]`, or `2h30m` from `now`.

    `now` has a time zone. Times without one are those of `zone`, or of this machine.

    Raises:
        UsageError: the text is no such time.
    """
    words = text.strip()
    try:
        if match := _CLOCK.fullmatch(words):
            return _next(int(match[1]), int(match[2]), now, zone)
        if words[:1].isdigit() and words[-1:].lower() in "dhms":
            return now.astimezone(UTC) + timedelta(seconds=parse_duration(words))
        found = datetime.fromisoformat(words)
        return found if found.tzinfo else _local(found, zone)
    except (ValueError, OverflowError, UsageError):
        raise UsageError(f"{text!r} is not a time", _HINT) from None


def _next(hour: int, minute: int, now: datetime, zone: tzinfo | None) -> datetime:
    # On the clock, without an offset: that of the day that is meant may be another than today's.
    today = now.astimezone(zone).replace(tzinfo=None, hour=hour, minute=minute, second=0, microsecond=0)
    first = _local(today, zone)
    return first if first > now else _local(today + timedelta(days=1), zone)


def _local(clock: datetime, zone: tzinfo | None) -> datetime:
    return clock.replace(tzinfo=zone) if zone else clock.astimezone()
