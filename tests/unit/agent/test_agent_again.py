"""When a VPS that ends unasked is started again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hakuriver_agent.engines.again import LONGEST_SECONDS, MOST, STEADY_SECONDS, Again

START = datetime(2026, 1, 1, tzinfo=UTC)


def after(again: Again, seconds: float) -> float | None:
    return again.pause(START, START + timedelta(seconds=seconds))


def test_pauses_double_to_the_longest_and_then_it_is_given_up() -> None:
    again = Again()
    pauses = [after(again, 1) for _ in range(MOST)]
    assert pauses[:4] == [1, 2, 4, 8]
    assert pauses[-1] == LONGEST_SECONDS
    assert after(again, 1) is None


def test_a_start_that_fails_leaves_the_end_before_it_and_counts() -> None:
    again = Again()
    assert [after(again, STEADY_SECONDS) for _ in range(4)] == [0, 1, 2, 4]


def test_one_that_ran_well_is_started_at_once_and_begins_anew() -> None:
    again = Again()
    for _ in range(MOST):
        after(again, 1)
    assert after(again, STEADY_SECONDS) == 0
    assert after(again, 1) == 1
