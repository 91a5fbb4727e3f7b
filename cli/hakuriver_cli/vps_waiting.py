"""Waiting for VPS: what the Host tells of them is followed, and nothing is polled."""

from __future__ import annotations

from contextlib import closing

from hakuriver.errors import ConflictError, UnreachableError
from hakuriver.states import FINAL, TaskState
from hakuriver_cli.session import Session

_BANNER = b"SSH-2.0-"


def until_ssh_answers(session: Session, task_id: int, *, is_new: bool = False) -> None:
    """Waits until the VPS runs and its SSH server says its first word. `is_new`: it was made just now.

    Raises:
        ConflictError: it has ended, or is stopped or paused.
        UnreachableError: its SSH server does not answer.
    """
    # While it starts there is time to load what asks it.
    from websockets.exceptions import ConnectionClosed  # noqa: PLC0415

    from hakuriver.client import wire  # noqa: PLC0415
    from hakuriver_cli import sockets  # noqa: PLC0415

    until(session, task_id, TaskState.RUNNING, is_new=is_new)
    host = wire.address_of(session.settings, session.common.config)
    try:
        with sockets.opened(host, f"tasks/{task_id}/ssh") as socket:
            while isinstance(heard := socket.recv(), str):
                continue
    except ConnectionClosed as error:
        raise sockets.refusal(error) from None
    if not heard.startswith(_BANNER):
        raise UnreachableError(f"what answers for the VPS {task_id} is not SSH", "see the Runner's log")


def until(session: Session, task_id: int, wanted: TaskState, *, is_new: bool = False) -> None:
    """Waits until it is in a state; one that is new was in no other before, so that its history is followed from its begin.

    Raises:
        ConflictError: it has ended, or it is stopped or paused and only a person makes it run.
    """
    state, cause, last = TaskState.PENDING, "", 0
    if not is_new:
        known = session.client.task(task_id)
        state, cause = known.status, known.error_message or ""
        if known.history:
            # The history is read after the rest, and may be newer.
            state, last = known.history[-1].state, known.history[-1].sequence
    with closing(session.client.events(last, task_id=task_id)) as events:
        while state is not wanted:
            if state in FINAL or state is TaskState.STOPPED:
                raise ConflictError(
                    f"the VPS {task_id} is {state}{f': {cause}' if cause else ''}",
                    f"see `hakuriver task status {task_id}`",
                )
            # One that is to stop does so while it is paused, too.
            if state is TaskState.PAUSED and wanted is TaskState.RUNNING:
                raise ConflictError(
                    f"the VPS {task_id} is paused", f"resume it: `hakuriver vps resume {task_id}`"
                )
            event = next(events)
            state, cause = event.state, event.cause
