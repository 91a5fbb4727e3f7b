"""`hakuriver vps …`: machines of one's own inside the cluster."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter

from hakuriver.errors import ConflictError, UnreachableError, UsageError
from hakuriver.sizes import format_size
from hakuriver.states import FINAL, TaskState
from hakuriver_cli import task_views as views
from hakuriver_cli.options import COMMON, Common, Duration, Size, Watch
from hakuriver_cli.output import Format
from hakuriver_cli.public_keys import checked, default_files, read
from hakuriver_cli.session import Session
from hakuriver_cli.submission import FLAGS, NO_GPUS, PLACE, GpuOptions, WantedLabels, report_made, variables
from hakuriver_cli.tree import new_app

app = new_app("vps", "Make and control VPS: machines of your own, reached by SSH.")

_KEYS = Group("Who may log in", sort_key=0)
_CONTAINER = Group("Environment and container", sort_key=3)
_BANNER = b"SSH-2.0-"

Reference = Annotated[str, Parameter(name="VPS", help="Id or name of the VPS.")]
References = Annotated[list[str], Parameter(name="VPS", help="Ids or names of VPS; several may be given.")]


@Parameter(name="*")
@dataclass(frozen=True)
class VpsOptions:
    public_key_string: Annotated[
        str | None, Parameter(group=_KEYS, metavar="KEY", help="A public key, as a line of authorized_keys.")
    ] = None
    public_key_file: Annotated[
        Path | None,
        Parameter(
            group=_KEYS,
            help="File of a public key. Default: those of ~/.ssh. Keys that you have registered with `hakuriver key add`"
            " open it too.",
        ),
    ] = None
    name: Annotated[
        str | None,
        Parameter(group=PLACE, help="What to call it, as a machine is called: `ssh NAME.hakuriver`."),
    ] = None
    target: Annotated[
        str | None,
        Parameter(group=PLACE, help="Where to run: NODE[:NUMA][::GPU,GPU]. Without it the Host chooses."),
    ] = None
    cores: Annotated[
        int,
        Parameter(group=PLACE, help="Cores to hold, which are also its limit; 0 holds none, without limit."),
    ] = 0
    memory: Annotated[
        Size, Parameter(group=PLACE, help="Memory to hold, and the limit, such as 4G or 512Mi.")
    ] = None
    gpu: GpuOptions = NO_GPUS
    node_label: WantedLabels = ()
    time_limit: Annotated[
        Duration, Parameter(group=PLACE, help="End it, and what is in it, after so long, such as 12h or 7d.")
    ] = None
    restart: Annotated[
        Literal["always", "never"],
        Parameter(
            group=PLACE, help="Whether to start it again when it ends unasked, as when its machine restarts."
        ),
    ] = "always"
    idle_stop: Annotated[
        Duration,
        Parameter(
            group=PLACE,
            help="Stop it, and keep what is in it, when it was not used for so long: nobody connected, next to no"
            " processor time, and no use of its GPUs.",
        ),
    ] = None
    hold_for_node: Annotated[
        bool, Parameter(group=PLACE, help="Queue it even if no node that is known now can ever run it.")
    ] = False
    container: Annotated[
        str | None,
        Parameter(group=_CONTAINER, metavar="NAME", help="Environment to start from. Default: the Host's."),
    ] = None
    privileged: Annotated[
        bool | None,
        Parameter(group=_CONTAINER, negative_bool="no-", help="Run privileged, where the node allows it."),
    ] = None
    mount: Annotated[
        tuple[str, ...],
        Parameter(
            group=_CONTAINER,
            metavar="HOST:CONTAINER[:ro]",
            help="A folder under a root that the node allows; repeatable, and replaces the configured ones.",
        ),
    ] = ()
    env: Annotated[
        tuple[str, ...],
        Parameter(
            name=("--env", "-e"), group=_CONTAINER, metavar="KEY=VALUE", help="A variable in it; repeatable."
        ),
    ] = ()
    network: Annotated[
        Literal["host", "bridge", "none"] | None,
        Parameter(group=_CONTAINER, help="Network of the container. Default: the node's."),
    ] = None
    shm_size: Annotated[Size, Parameter(group=_CONTAINER, help="Size of /dev/shm, such as 2G.")] = None


_DEFAULTS = VpsOptions()


@app.command
def create(
    *,
    options: VpsOptions = _DEFAULTS,
    wait: Annotated[bool, Parameter(help="Return when SSH answers, or when it has failed.")] = False,
    common: Common = COMMON,
) -> int:
    """Make a VPS, and print its id. Log in with `hakuriver ssh NAME`.

    It runs until it is killed, over restarts of Host, Runner and machine; what is in it ends with it.
    """
    from hakuriver.client.calls import submit_request  # noqa: PLC0415  (loaded when it is needed)

    session = Session(common, default=Format.NAME)
    fields: dict[str, Any] = {
        "task_type": "vps",
        "command": _keys(session, options),
        "env_vars": variables(options.env),
        "required_cores": options.cores,
        "required_memory_bytes": options.memory,
        **options.gpu.fields(),
        "targets": [options.target] if options.target else [],
        "node_labels": list(options.node_label),
        "name": options.name,
        "container_name": options.container,
        "privileged": options.privileged,
        "additional_mounts": list(options.mount) or None,
        "network": options.network,
        "shm_size_bytes": options.shm_size,
        "time_limit_seconds": options.time_limit,
        "idle_stop_seconds": options.idle_stop,
        "restart": options.restart,
        "hold_for_node": options.hold_for_node,
    }
    made = session.client.submit(submit_request(fields, FLAGS))
    session.printer.record(made, views.SUBMITTED)
    session.printer.out.flush()
    code = report_made(session, made)
    if not wait or code:
        return code
    _until_ssh_answers(session, made.task_ids[0], is_new=True)
    return 0


def _keys(session: Session, options: VpsOptions) -> str:
    """What the request says of keys: those that are named, else those of ~/.ssh, else the registered ones alone."""
    from hakuriver.models.tasks import OWN_KEYS  # noqa: PLC0415  (loaded when it is needed)

    if options.public_key_string is not None and options.public_key_file is not None:
        raise UsageError("--public-key-string and --public-key-file are given", "give one of them")
    if options.public_key_string is not None:
        return checked(options.public_key_string, "--public-key-string")
    if options.public_key_file is not None:
        return read(options.public_key_file)
    if files := default_files():
        return "\n".join(map(read, files))
    if session.client.keys():
        return OWN_KEYS
    raise UsageError(
        "no public key is given, ~/.ssh has none, and you have none registered",
        "make one: ssh-keygen -t ed25519",
    )


def _until_ssh_answers(session: Session, task_id: int, *, is_new: bool = False) -> None:
    """Waits until the VPS runs and its SSH server says its first word. `is_new`: it was made just now.

    Raises:
        ConflictError: it has ended.
        UnreachableError: its SSH server does not answer.
    """
    # While it starts there is time to load what asks it.
    from websockets.exceptions import ConnectionClosed  # noqa: PLC0415

    from hakuriver.client import wire  # noqa: PLC0415
    from hakuriver_cli import sockets  # noqa: PLC0415

    _until(session, task_id, TaskState.RUNNING, is_new=is_new)
    host = wire.address_of(session.settings, session.common.config)
    try:
        with sockets.opened(host, f"tasks/{task_id}/ssh") as socket:
            while isinstance(heard := socket.recv(), str):
                continue
    except ConnectionClosed as error:
        raise sockets.refusal(error) from None
    if not heard.startswith(_BANNER):
        raise UnreachableError(f"what answers for the VPS {task_id} is not SSH", "see the Runner's log")


def _until(session: Session, task_id: int, wanted: TaskState, *, is_new: bool = False) -> None:
    """Waits until it is in a state; one that is new was in no other before, so that its history is followed from its begin."""
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
            event = next(events)
            state, cause = event.state, event.cause


@app.command(name="list")
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


@app.command
def status(references: References, /, *, watch: Watch = False, common: Common = COMMON) -> int:
    """Show all that is known of VPS, what they used and their history included."""
    from hakuriver_cli import tasks  # noqa: PLC0415  (loaded when it is needed)

    return _as_tasks(partial(tasks.status, watch=watch), references, common)


@app.command
def kill(references: References, /, *, common: Common = COMMON) -> int:
    """End VPS, and what is in them."""
    from hakuriver_cli import tasks  # noqa: PLC0415  (loaded when it is needed)

    return _as_tasks(tasks.kill, references, common)


@app.command
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
        _until(session, task_id, TaskState.STOPPED)
        return f"VPS {task_id} is stopped"

    return _each(references, common, act)


Answers = Annotated[bool, Parameter(name="--wait", help="Return when SSH answers.")]


@app.command
def start(references: References, /, *, wait: Answers = False, common: Common = COMMON) -> int:
    """Start stopped VPS again, each on its node, as soon as there is room."""
    return _each(references, common, lambda session, task_id: _start(session, task_id, wait=wait))


@app.command
def restart(references: References, /, *, wait: Answers = False, common: Common = COMMON) -> int:
    """Stop VPS and start them again."""

    def act(session: Session, task_id: int) -> str:
        session.client.stop_vps(str(task_id))
        _until(session, task_id, TaskState.STOPPED)
        return _start(session, task_id, wait=wait)

    return _each(references, common, act)


def _start(session: Session, task_id: int, *, wait: bool) -> str:
    return _up(session, task_id, session.client.start_vps(str(task_id)).message, wait=wait)


def _up(session: Session, task_id: int, message: str, *, wait: bool) -> str:
    """What is said of a VPS that is on its way to run; with `wait`, once SSH answers."""
    if not wait:
        return message
    _until_ssh_answers(session, task_id)
    return f"VPS {task_id} is running"


@app.command
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


@app.command
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


@app.command
def snapshots(reference: Reference, /, *, watch: Watch = False, common: Common = COMMON) -> int:
    """List the snapshots of a VPS, newest first."""
    from hakuriver_cli import environment_views  # noqa: PLC0415  (loaded when it is needed)

    session = Session(common)
    return session.rows(
        lambda: session.client.vps_snapshots(reference), environment_views.VERSIONS, watch=watch
    )


@app.command
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


@app.command
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


@app.command
def pause(references: References, /, *, common: Common = COMMON) -> int:
    """Freeze VPS; they keep what they hold, and connections wait."""
    from hakuriver_cli import tasks  # noqa: PLC0415  (loaded when it is needed)

    return _as_tasks(tasks.pause, references, common)


@app.command
def resume(references: References, /, *, common: Common = COMMON) -> int:
    """Let paused VPS go on."""
    from hakuriver_cli import tasks  # noqa: PLC0415  (loaded when it is needed)

    return _as_tasks(tasks.resume, references, common)


Users = Annotated[list[str], Parameter(name="USER", help="Names of users; several may be given.")]


@app.command
def share(reference: Reference, users: Users, /, *, common: Common = COMMON) -> int:
    """Let other users in, by ssh, terminal, forward and cp. Killing it stays yours."""
    from hakuriver_cli.access import for_names  # noqa: PLC0415  (loaded when it is needed)

    session = Session(common)
    return for_names(session, users, lambda user: session.client.share_vps(reference, user))


@app.command
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
