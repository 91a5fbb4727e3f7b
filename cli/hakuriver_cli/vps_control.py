"""`hakuriver vps …`: looks at VPS, and controls them. They are made in `vps_create`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated

from cyclopts import Parameter

from hakuriver.sizes import format_size
from hakuriver.states import TaskState
from hakuriver_cli import task_views as views
from hakuriver_cli.options import COMMON, Common, Duration, Watch
from hakuriver_cli.output import Format
from hakuriver_cli.session import Session
from hakuriver_cli.vps_waiting import until, until_ssh_answers

Reference = Annotated[str, Parameter(name="VPS", help="Id or name of the VPS.")]
References = Annotated[list[str], Parameter(name="VPS", help="Ids or names of VPS; several may be given.")]


def list_vps(
    *,
    every: Annotated[bool, Parameter(name=("--all", "-a"), help="Those that have ended, too.")] = False,
    watch: Watch = False,
    common: Common = COMMON,
) -> int:
    """List VPS, newest first."""
    session = Session(common)
    if watch:
        from hakuriver_cli.watch import watch_rows  # noqa: PLC0415  (loads the client for asyncio)

        return watch_rows(session, lambda client: client.every_vps(active=not every), views.VPS, events=True)
    session.printer.rows(session.client.every_vps(active=not every), views.VPS)
    return 0


def status_of_all(*, watch: Watch = False, common: Common = COMMON) -> int:
    """List the VPS that have not ended."""
    return list_vps(watch=watch, common=common)


def status(references: References, /, *, watch: Watch = False, common: Common = COMMON) -> int:
    """Show all that is known of VPS, what they used and their history included."""
    from hakuriver_cli import tasks  # noqa: PLC0415  (loaded when it is needed)

    return _as_tasks(partial(tasks.status, watch=watch), references, common)


def kill(references: References, /, *, common: Common = COMMON) -> int:
    """End VPS, and what is in them."""
    from hakuriver_cli import tasks  # noqa: PLC0415  (loaded when it is needed)

    return _as_tasks(tasks.kill, references, common)


def stop(
    references: References,
    /,
    *,
    wait: Annotated[bool, Parameter(negative="--no-wait", help="Return when it is stopped.")] = True,
    common: Common = COMMON,
) -> int:
    """Stop VPS: they hold nothing any more, and their nodes keep what is in them until they are started again.

    A VPS that waits to be started again stays stopped.
    """

    def act(session: Session, task_id: int) -> str:
        message = session.client.stop_vps(str(task_id)).message
        if not wait:
            return message
        until(session, task_id, TaskState.STOPPED)
        return f"VPS {task_id} is stopped"

    return _each(references, common, act)


Answers = Annotated[bool, Parameter(name="--wait", help="Return when SSH answers.")]


def start(references: References, /, *, wait: Answers = False, common: Common = COMMON) -> int:
    """Start stopped VPS again, each on its node, as soon as there is room."""
    return _each(references, common, lambda session, task_id: _start(session, task_id, wait=wait))


def restart(references: References, /, *, wait: Answers = False, common: Common = COMMON) -> int:
    """Stop VPS and start them again."""

    def act(session: Session, task_id: int) -> str:
        session.client.stop_vps(str(task_id))
        until(session, task_id, TaskState.STOPPED)
        return _start(session, task_id, wait=wait)

    return _each(references, common, act)


def _start(session: Session, task_id: int, *, wait: bool) -> str:
    return _up(session, task_id, session.client.start_vps(str(task_id)).message, wait=wait)


def _up(session: Session, task_id: int, message: str, *, wait: bool) -> str:
    """What is said of a VPS that is on its way to run; with `wait`, once SSH answers."""
    if not wait:
        return message
    until_ssh_answers(session, task_id)
    return f"VPS {task_id} is running"


def extend(
    reference: Reference,
    more: Annotated[Duration, Parameter(name="DURATION", help="How much longer, such as 4h or 2d.")],
    /,
    *,
    common: Common = COMMON,
) -> int:
    """Give a VPS with a time limit more time."""
    assert more is not None  # noqa: S101 - it is an argument that must be given
    return _each(
        [reference],
        common,
        lambda session, task_id: session.client.extend_vps(str(task_id), more).message,
    )


def snapshot(
    reference: Reference,
    /,
    *,
    message: Annotated[str, Parameter(name=("--message", "-m"), help="What is in it.")] = "",
    common: Common = COMMON,
) -> None:
    """Keep what is in a VPS now as a version of the environment `vps-ID`, which is yours alone.

    It goes on as it was, but for a moment in which it is frozen; a stopped one stays stopped.
    """
    from hakuriver_cli import environment_views  # noqa: PLC0415  (loaded when it is needed)

    session = Session(common)
    taken = session.client.snapshot_vps(reference, message)
    if session.printer.form is Format.TABLE:
        session.printer.say(f"{taken.message}; {format_size(taken.written)} were written")
    session.printer.rows([taken.version], environment_views.VERSIONS)


def snapshots(reference: Reference, /, *, watch: Watch = False, common: Common = COMMON) -> int:
    """List the snapshots of a VPS, newest first."""
    from hakuriver_cli import environment_views  # noqa: PLC0415  (loaded when it is needed)

    session = Session(common)
    return session.rows(
        lambda: session.client.vps_snapshots(reference), environment_views.VERSIONS, watch=watch
    )


def restore(
    reference: Reference,
    version: Annotated[
        int | None, Parameter(name="VERSION", help="Number of the snapshot. Default: the newest.")
    ] = None,
    /,
    *,
    wait: Answers = False,
    common: Common = COMMON,
) -> int:
    """Have a VPS begin anew from one of its snapshots: what is in it now is gone.

    Its id, name and host key stay. It may run on another node.
    """

    def act(session: Session, task_id: int) -> str:
        return _up(session, task_id, session.client.restore_vps(str(task_id), version).message, wait=wait)

    return _each([reference], common, act)


def logs(
    references: References,
    /,
    *,
    follow: Annotated[bool, Parameter(name=("--follow", "-f"), help="Go on as it is written.")] = False,
    tail: Annotated[int | None, Parameter(name=("--tail", "-n"), help="Only the last so many lines.")] = None,
    common: Common = COMMON,
) -> int:
    """Print what the first program of VPS wrote, and why its start failed where it did."""
    from hakuriver_cli import logs as of_tasks  # noqa: PLC0415  (loads the client for asyncio)

    def act(found: list[int], *, common: Common) -> int:
        return of_tasks.logs(found, follow=follow, tail=tail, common=common)

    return _as_tasks(act, references, common)


def pause(references: References, /, *, common: Common = COMMON) -> int:
    """Freeze VPS; they keep what they hold, and connections wait."""
    from hakuriver_cli import tasks  # noqa: PLC0415  (loaded when it is needed)

    return _as_tasks(tasks.pause, references, common)


def resume(references: References, /, *, common: Common = COMMON) -> int:
    """Let paused VPS go on."""
    from hakuriver_cli import tasks  # noqa: PLC0415  (loaded when it is needed)

    return _as_tasks(tasks.resume, references, common)


Users = Annotated[list[str], Parameter(name="USER", help="Names of users; several may be given.")]


def share(reference: Reference, users: Users, /, *, common: Common = COMMON) -> int:
    """Let other users in, by ssh, terminal, forward and cp. Killing it stays yours."""
    from hakuriver_cli.access import for_names  # noqa: PLC0415  (loaded when it is needed)

    session = Session(common)
    return for_names(session, users, lambda user: session.client.share_vps(reference, user))


def unshare(reference: Reference, users: Users, /, *, common: Common = COMMON) -> int:
    """Let users in no more; their connections end."""
    from hakuriver_cli.access import for_names  # noqa: PLC0415  (loaded when it is needed)

    session = Session(common)
    return for_names(session, users, lambda user: session.client.unshare_vps(reference, user))


def _each(references: list[str], common: Common, act: Callable[[Session, int], str]) -> int:
    """Does it for each, and says what became of it."""
    from hakuriver_cli import tasks  # noqa: PLC0415  (loaded when it is needed)
    from hakuriver_cli.records import Done  # noqa: PLC0415  (see there)

    session = Session(common)

    def one(reference: str) -> Done:
        task_id = session.client.vps(reference).task_id
        return Done(task_id=task_id, message=act(session, task_id))

    return tasks.told_of_each(session, references, one)


def _as_tasks(act: Callable[..., int], references: list[str], common: Common) -> int:
    """What a command for tasks does, for the VPS that are there; the others are told of."""
    session = Session(common)
    found: list[int] = []
    code = session.for_each(references, lambda text: found.append(session.client.vps(text).task_id))
    return (act(found, common=common) if found else 0) or code
