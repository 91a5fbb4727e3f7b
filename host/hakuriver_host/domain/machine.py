"""The machine of states: which change of a task's state is allowed.

One table and one pure function. Whatever changes a state goes through `allowed`.
"""

from __future__ import annotations

from hakuriver.states import FINAL, TaskState

_S = TaskState
_ENDS = FINAL - {_S.LOST}

TRANSITIONS: dict[TaskState, frozenset[TaskState]] = {
    # An attempt that was given up as lost and comes back before its retry was placed is adopted as it is.
    # A stopped VPS that waits to be started again may be told to stay as it is, or be lost with its node.
    _S.PENDING: frozenset({_S.ASSIGNING, _S.RUNNING, _S.PAUSED, _S.STOPPED, *FINAL}),
    # Back to `pending`: refused by the node, never arrived there, or retried.
    _S.ASSIGNING: frozenset({_S.PENDING, _S.RUNNING, _S.PAUSED, _S.STOPPED, *FINAL}),
    _S.RUNNING: frozenset({_S.PENDING, _S.PAUSED, _S.STOPPED, *FINAL}),
    _S.PAUSED: frozenset({_S.PENDING, _S.RUNNING, _S.STOPPED, *FINAL}),
    # To `running` without a word of the Host's: it has lost its last writes, and the Runner knows better.
    _S.STOPPED: frozenset({_S.PENDING, _S.RUNNING, _S.PAUSED, *FINAL}),
    _S.COMPLETED: frozenset(),
    _S.FAILED: frozenset(),
    _S.KILLED: frozenset(),
    _S.KILLED_OOM: frozenset(),
    # The one correction: the Runner came back and knows better.
    _S.LOST: frozenset({_S.PENDING, _S.ASSIGNING, _S.RUNNING, _S.PAUSED, _S.STOPPED, *_ENDS}),
}


def allowed(current: TaskState, new: TaskState) -> bool:
    """True when a task in state `current` may change to `new`; staying is no change."""
    return new in TRANSITIONS[current]
