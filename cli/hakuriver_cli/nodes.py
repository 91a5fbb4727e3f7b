"""`hakuriver node …`: the machines that run tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from hakuriver import models
from hakuriver.errors import NotFoundError, UsageError
from hakuriver.labels import parse_change
from hakuriver_cli import cluster_views as views
from hakuriver_cli.options import COMMON, Common, Duration, Watch
from hakuriver_cli.output import Format, Printer
from hakuriver_cli.session import Session
from hakuriver_cli.tree import new_app

if TYPE_CHECKING:
    from hakuriver.models.nodes import HealthHistory, NodeDuty


app = new_app("node", "Look at nodes, empty and remove them.")

NodeNames = Annotated[list[str], Parameter(name="NODE", help="Names of nodes; several may be given.")]


@app.command(name="list")
def list_nodes(*, watch: Watch = False, common: Common = COMMON) -> int:
    """List the nodes, what they have and what is held."""
    session = Session(common)
    return session.rows(session.client.nodes, views.NODES, watch=watch)


@app.command
def health(
    hostname: Annotated[str | None, Parameter(name="NODE", help="Only this node.")] = None,
    /,
    *,
    watch: Watch = False,
    common: Common = COMMON,
) -> int:
    """Show the load of the nodes now, what their GPUs do, and what the tasks on them use.

    `-o json` gives the last 60 samples, taken once a second.
    """
    session = Session(common)
    if watch:
        from hakuriver.client import AsyncClient  # noqa: PLC0415
        from hakuriver_cli import watch as again  # noqa: PLC0415

        async def fetch(client: AsyncClient) -> list[HealthHistory]:
            return [await client.health(hostname)]

        return again.watch(session, fetch, lambda found: show_health(session.printer, found[0]), events=False)
    show_health(session.printer, session.client.health(hostname))
    return 0


@app.command
def cordon(names: NodeNames, /, *, common: Common = COMMON) -> int:
    """Keep new tasks from nodes; what they run goes on, and tasks that are submitted for them wait."""
    session = Session(common)
    return _act(session, names, session.client.cordon)


@app.command
def uncordon(names: NodeNames, /, *, common: Common = COMMON) -> int:
    """Let nodes have work again."""
    session = Session(common)
    return _act(session, names, session.client.uncordon)


@app.command
def label(
    name: Annotated[str, Parameter(name="NODE", help="Name of the node.")],
    changes: Annotated[
        list[str] | None, Parameter(name="CHANGE", help="KEY=VALUE gives it a label, KEY- takes one away.")
    ] = None,
    /,
    *,
    common: Common = COMMON,
) -> None:
    """Give a node labels, by which tasks can ask for it, and take them away; without changes show those that it has."""
    session = Session(common)
    made = dict(map(parse_change, changes or []))
    if made:
        session.printer.rows([session.client.label(name, made)], views.LABELS)
        return
    found = [node for node in session.client.nodes() if node.hostname == name]
    if not found:
        raise NotFoundError(f"there is no node {name}", "list them with `hakuriver node list`")
    session.printer.rows([models.nodes.NodeLabels(hostname=name, labels=found[0].labels)], views.LABELS)


@app.command
def drain(
    names: NodeNames,
    /,
    *,
    wait: Annotated[bool, Parameter(help="Stay until they hold nothing more.")] = False,
    timeout: Annotated[
        Duration, Parameter(help="How long to wait, such as 2h; implies --wait. None is without end.")
    ] = None,
    kill: Annotated[
        bool, Parameter(help="Kill what is left when the timeout passes, and wait for these ends.")
    ] = False,
    common: Common = COMMON,
) -> int:
    """Cordon nodes to empty them, and say what they still hold.

    With --wait the exit code is 1 when the timeout passes and tasks are left; they are named.
    """
    if kill and timeout is None:
        raise UsageError("--kill needs --timeout", "say how long tasks may take to end by themselves")
    session = Session(common)
    duties: list[NodeDuty] = []
    code = session.for_each(names, lambda name: duties.append(session.client.drain(name)))
    if wait or timeout is not None:
        from hakuriver_cli.drain import wait_until_empty  # noqa: PLC0415  (loads the client for asyncio)

        left = wait_until_empty(session, duties, timeout, kill=kill)
        duties = [duty.model_copy(update={"held_tasks": _of(duty, left)}) for duty in duties]
        code = code or int(bool(left))
    if duties:
        session.printer.rows(duties, views.DUTIES)
    return code


@app.command
def remove(
    names: NodeNames,
    /,
    *,
    force: Annotated[
        bool,
        Parameter(
            help="Also one that is online or holds tasks, such as a machine that is gone; they are lost."
        ),
    ] = False,
    common: Common = COMMON,
) -> int:
    """Remove nodes that are offline and hold nothing. To come back they must join; their tasks stay on the record."""
    from hakuriver_cli.records import Told  # noqa: PLC0415  (see there)

    session = Session(common)
    done: list[Told] = []

    def act(name: str) -> None:
        message = session.client.remove_node(name, force=force).message
        done.append(Told(name=name, message=message))

    code = session.for_each(names, act)
    if done:
        session.printer.rows(done, views.TOLD)
    return code


def show_health(printer: Printer, history: HealthHistory) -> None:
    """The newest sample of each node; below it the GPUs and the tasks, where there are any."""
    if printer.form is Format.JSON:
        printer.json(history.model_dump(mode="json"))
        return
    from hakuriver_cli.gpu_views import GPUS, gpu_rows  # noqa: PLC0415  (this command alone needs them)
    from hakuriver_cli.usage_views import LOADS  # noqa: PLC0415

    samples = history.nodes[-1] if history.nodes else []
    printer.rows(samples, views.SAMPLES)
    if printer.form is Format.NAME:
        return
    gpus = [row for sample in samples for row in gpu_rows(sample.hostname, sample.gpu_info, history.tasks)]
    if gpus:
        printer.out.write("\n")
        printer.rows(gpus, GPUS)
    if history.tasks:
        printer.out.write("\n")
        printer.rows(history.tasks, LOADS)


def _act(session: Session, names: list[str], act: Callable[[str], NodeDuty]) -> int:
    duties: list[NodeDuty] = []
    code = session.for_each(names, lambda name: duties.append(act(name)))
    if duties:
        session.printer.rows(duties, views.DUTIES)
    return code


def _of(duty: NodeDuty, held: dict[int, str]) -> list[int]:
    return [task_id for task_id, node in held.items() if node == duty.hostname]
