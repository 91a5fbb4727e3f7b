"""The states of a task and of a node."""

from __future__ import annotations

from enum import StrEnum


class TaskState(StrEnum):
    """`pending → assigning → running ⇄ paused → completed | failed | killed | killed_oom | lost`.

    A VPS may also go from `running` or `paused` to `stopped`, and from there to `pending` again.
    """

    PENDING = "pending"
    """Waits in the queue."""
    ASSIGNING = "assigning"
    """Resources are held on a node; the Runner prepares the start (image sync included)."""
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    """A VPS that was stopped: it holds no resources, and its node keeps what is in it until it is started again."""
    COMPLETED = "completed"
    """Ended by itself with exit code 0."""
    FAILED = "failed"
    """Ended by itself with another exit code, could not be started, or ran over its time limit."""
    KILLED = "killed"
    """Ended because a person asked for it."""
    KILLED_OOM = "killed_oom"
    """Ended by the kernel for want of memory, as the engine says; where it missed it, the kernel's own count."""
    LOST = "lost"
    """Its node has not been heard of for longer than `lost_after`."""


FINAL = frozenset(
    {TaskState.COMPLETED, TaskState.FAILED, TaskState.KILLED, TaskState.KILLED_OOM, TaskState.LOST}
)
"""Nothing follows them, but that a Runner which comes back corrects `lost`."""

HOLDING = frozenset({TaskState.ASSIGNING, TaskState.RUNNING, TaskState.PAUSED})
"""States in which a task holds resources on a node."""


class NodeState(StrEnum):
    ONLINE = "online"
    OFFLINE = "offline"
    """Its heartbeats are missing; it gets no work, and its tasks keep what they hold."""
