"""What the Runner makes of a container that the engine does not call out of memory."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from hakuriver_agent.engines.memory_kills import engine_missed, kernel_kills

AT_ONCE, LONG = timedelta(milliseconds=80), timedelta(hours=1)


def never() -> bool:
    raise AssertionError


def test_the_engine_is_not_asked_while_the_kernel_killed_nobody() -> None:
    assert not engine_missed(137, AT_ONCE, 7, 7, never)
    assert not engine_missed(137, AT_ONCE, None, None, never)


@pytest.mark.parametrize("exit_code", [0, 1, 137])
def test_a_late_notice_of_the_engine_counts(exit_code: int) -> None:
    assert engine_missed(exit_code, LONG, 7, 8, lambda: True)


@pytest.mark.parametrize(
    ("exit_code", "lived", "missed"),
    [(137, AT_ONCE, True), (137, LONG, False), (1, AT_ONCE, False), (0, AT_ONCE, False)],
)
def test_without_notice_it_is_one_that_was_killed_before_the_engine_watched(
    exit_code: int, lived: timedelta, missed: bool
) -> None:
    assert engine_missed(exit_code, lived, 7, 8, lambda: False) is missed


def test_the_count_is_the_kernels_own(tmp_path: Path) -> None:
    vmstat = tmp_path / "vmstat"
    vmstat.write_text("nr_free_pages 12\noom_kill 41\noom_kill_other 3\n")
    assert kernel_kills(vmstat) == 41
    vmstat.write_text("nr_free_pages 12\n")
    assert kernel_kills(vmstat) is None
    assert kernel_kills(tmp_path / "none") is None
