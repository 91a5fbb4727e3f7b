"""What time it is for the removal of old records."""

from __future__ import annotations

import pytest

from hakuriver_host.domain.retention import believed

DAY = 86_400.0


@pytest.mark.parametrize(
    ("wall", "passed", "expected"),
    [
        (1_000.0 + 3_600, 3_600.0, 1_000.0 + 3_600),
        (1_000.0 + 3_590, 3_600.0, 1_000.0 + 3_590),
        (1_000.0 + 3_700, 3_600.0, 1_000.0 + 3_700),
        (1_000.0 + 3_650 * DAY, 3_600.0, 1_000.0 + 2 * 3_600),
        (-5 * DAY, 3_600.0, -5 * DAY),
    ],
    ids=["as it passed", "set back a little", "set ahead a little", "ten years ahead", "set back by days"],
)
def test_the_clock_is_believed_as_far_as_time_has_passed(wall: float, passed: float, expected: float) -> None:
    assert believed(wall, 1_000.0, passed, 3_600.0) == expected


def test_a_right_clock_is_caught_up_with() -> None:
    """After the Host was away for a month."""
    wall, time = 30 * DAY, 0.0
    for _ in range(30 * 24 * 2):
        wall += 3_600
        time = believed(wall, time, 3_600, 3_600)
    assert time == wall
