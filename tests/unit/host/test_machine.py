"""The machine of states, every pair of it."""

from __future__ import annotations

import itertools

import pytest

from hakuriver.states import FINAL, TaskState
from hakuriver_host.domain.machine import TRANSITIONS, allowed

S = TaskState
ENDS = (S.COMPLETED, S.FAILED, S.KILLED, S.KILLED_OOM)

# Written out by hand, row by row, so that a change of the table has to be made twice.
EXPECTED = {
    S.PENDING: {S.ASSIGNING, S.RUNNING, S.PAUSED, S.STOPPED, *ENDS, S.LOST},
    S.ASSIGNING: {S.PENDING, S.RUNNING, S.PAUSED, S.STOPPED, *ENDS, S.LOST},
    S.RUNNING: {S.PENDING, S.PAUSED, S.STOPPED, *ENDS, S.LOST},
    S.PAUSED: {S.PENDING, S.RUNNING, S.STOPPED, *ENDS, S.LOST},
    S.STOPPED: {S.PENDING, S.RUNNING, S.PAUSED, *ENDS, S.LOST},
    S.COMPLETED: set(),
    S.FAILED: set(),
    S.KILLED: set(),
    S.KILLED_OOM: set(),
    S.LOST: {S.PENDING, S.ASSIGNING, S.RUNNING, S.PAUSED, S.STOPPED, *ENDS},
}


@pytest.mark.parametrize(("current", "new"), list(itertools.product(TaskState, TaskState)))
def test_every_pair_of_states(current: TaskState, new: TaskState) -> None:
    assert allowed(current, new) is (new in EXPECTED[current])


def test_the_table_covers_every_state() -> None:
    assert set(TRANSITIONS) == set(TaskState)


@pytest.mark.parametrize("state", sorted(FINAL - {S.LOST}))
def test_final_is_final(state: TaskState) -> None:
    assert not TRANSITIONS[state]
