from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from hakuriver.errors import UsageError
from hakuriver.times import parse_when

ZONE = timezone(timedelta(hours=8))
NOW = datetime(2026, 11, 26, 18, 30, tzinfo=ZONE)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("19:05", "2026-11-26T19:05:00+08:00"),
        ("7:00", "2026-11-27T07:00:00+08:00"),
        ("18:30", "2026-11-27T18:30:00+08:00"),
        ("2h30m", "2026-11-26T21:00:00+08:00"),
        ("90s", "2026-11-26T18:31:30+08:00"),
        ("2026-12-31", "2026-12-31T00:00:00+08:00"),
        ("2026-12-31T06:00", "2026-12-31T06:00:00+08:00"),
        ("2026-12-31 06:00", "2026-12-31T06:00:00+08:00"),
        ("2026-12-31T06:00Z", "2026-12-31T06:00:00+00:00"),
    ],
)
def test_what_is_meant(text: str, wanted: str) -> None:
    assert parse_when(text, NOW, ZONE).astimezone(datetime.fromisoformat(wanted).tzinfo).isoformat() == wanted


@pytest.mark.parametrize("text", ["", "soon", "25:00", "12:60", "90", "-2h", "2026-13-01", "0s"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(UsageError, match="is not a time"):
        parse_when(text, NOW, ZONE)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2026-12-31T18:00", "2026-12-31T18:00:00+01:00"),
        ("08:00", "2026-10-25T08:00:00+01:00"),
        ("12h", "2026-10-25T07:00:00+01:00"),
    ],
)
def test_over_a_change_of_the_clocks(text: str, wanted: str) -> None:
    """In the night to 2026-10-25 they go from 3 back to 2."""
    berlin = ZoneInfo("Europe/Berlin")
    evening = datetime(2026, 10, 24, 20, 0, tzinfo=berlin)
    assert parse_when(text, evening, berlin) == datetime.fromisoformat(wanted)


def test_in_the_zone_of_this_machine() -> None:
    now = datetime.now(UTC)
    assert parse_when("2030-01-02T03:04", now) == datetime(2030, 1, 2, 3, 4).astimezone()
    assert now < parse_when("03:04", now) <= now + timedelta(days=1, hours=1)
