"""`hakuriver queue`: who waits, in which order, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from hakuriver_cli import task_views as views
from hakuriver_cli.options import COMMON, Common, Watch
from hakuriver_cli.session import Session

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from hakuriver.client import AsyncClient
    from hakuriver.models.tasks import QueuedTask


def queue(
    *,
    owner: Annotated[str | None, Parameter(help="Only those of this user.")] = None,
    limit: Annotated[int, Parameter(name=("--limit", "-l"), help="How many to show, 1 to 1000.")] = 50,
    watch: Watch = False,
    common: Common = COMMON,
) -> int:
    """List the tasks that wait: the first in line first, then those that stand aside."""
    session = Session(common)
    if watch:
        from hakuriver_cli.watch import watch_rows  # noqa: PLC0415  (loads the client for asyncio)

        def fetch(client: AsyncClient) -> Awaitable[list[QueuedTask]]:
            return client.queue(owner=owner, limit=limit)

        return watch_rows(session, fetch, views.QUEUE, events=True)
    found = session.client.queue(owner=owner, limit=limit)
    session.printer.rows(found, views.QUEUE)
    if len(found) == limit and session.printer.err.isatty():
        session.printer.say(f"(the first {limit}; --limit shows more)")
    return 0
