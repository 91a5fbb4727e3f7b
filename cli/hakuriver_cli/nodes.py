"""`hakuriver node …`: the machines that run tasks."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from hakuriver_cli import cluster_views as views
from hakuriver_cli.options import COMMON, Common, Watch
from hakuriver_cli.output import Format
from hakuriver_cli.session import Session
from hakuriver_cli.tree import new_app

app = new_app("node", "Look at the nodes.")


@app.command(name="list")
def list_nodes(*, watch: Watch = False, common: Common = COMMON) -> int:
    """List the nodes, what they have and what is held."""
    session = Session(common)
    if watch:
        from hakuriver_cli.watch import watch_rows  # noqa: PLC0415

        return watch_rows(session, session.client.nodes, views.NODES, events=False)
    session.printer.rows(session.client.nodes(), views.NODES)
    return 0


@app.command
def health(
    hostname: Annotated[str | None, Parameter(name="NODE", help="Only this node.")] = None,
    /,
    *,
    common: Common = COMMON,
) -> None:
    """Show the load of the nodes now; `-o json` gives the last 60 samples, taken once a second."""
    session = Session(common)
    history = session.client.health(hostname)
    if session.printer.form is Format.JSON:
        session.printer.json(history.model_dump(mode="json"))
    else:
        session.printer.rows(history.nodes[-1] if history.nodes else [], views.SAMPLES)
