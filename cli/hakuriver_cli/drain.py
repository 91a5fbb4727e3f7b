"""`hakuriver node drain --wait`: follows the Host's events until the nodes hold nothing more; nothing is polled."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import aclosing
from typing import TYPE_CHECKING

from hakuriver.client import AsyncClient
from hakuriver.client.draining import Draining
from hakuriver.errors import ConflictError, HakuRiverError
from hakuriver.sizes import format_duration
from hakuriver_cli.errors import report
from hakuriver_cli.output import Printer
from hakuriver_cli.progress import Progress
from hakuriver_cli.session import Session

if TYPE_CHECKING:
    from hakuriver.models.nodes import NodeDuty


_AFTER_KILL_SECONDS = 120.0
"""A kill may take the Runner's whole grace time; a Runner that is away takes it when it is back."""


def wait_until_empty(
    session: Session, duties: Iterable[NodeDuty], timeout: float | None, *, kill: bool
) -> dict[int, str]:
    """The tasks that are left when it ends, each with its node."""
    return asyncio.run(_wait(session, Draining(duties), timeout, kill=kill))


async def _wait(session: Session, draining: Draining, timeout: float | None, *, kill: bool) -> dict[int, str]:
    printer = session.printer
    async with session.async_client() as client:
        if await _emptied(client, printer, draining, timeout):
            return {}
        waited = format_duration(timeout or 0)
        if kill:
            printer.say(f"after {waited}, killing {_named(draining)}")
            await _kill(client, printer, draining)
            if await _emptied(client, printer, draining, _AFTER_KILL_SECONDS):
                return {}
            waited += f" and {format_duration(_AFTER_KILL_SECONDS)} for the kills"
    left = draining.held
    report(
        HakuRiverError(
            f"after {waited} there is left: {_named(draining)}",
            "wait again, end them with `hakuriver task kill`, or give --kill; the nodes stay cordoned",
        ),
        printer.err,
    )
    return left


async def _emptied(client: AsyncClient, printer: Printer, draining: Draining, timeout: float | None) -> bool:
    try:
        async with asyncio.timeout(timeout):
            await _follow(client, printer, draining)
    except TimeoutError:
        return False
    return True


async def _follow(client: AsyncClient, printer: Printer, draining: Draining) -> None:
    if not draining.held:
        return
    with Progress(printer.err) as progress:
        progress.update(f"waiting for {_named(draining)}")
        async with aclosing(client.events(draining.since)) as changes:
            async for event in changes:
                draining.since = event.sequence
                if draining.take(event):
                    return
                progress.update(f"waiting for {_named(draining)}")


async def _kill(client: AsyncClient, printer: Printer, draining: Draining) -> None:
    for task_id in draining.held:
        try:
            await client.kill(task_id)
        except ConflictError:
            continue
        except HakuRiverError as error:
            report(error, printer.err)


def _named(draining: Draining) -> str:
    return ", ".join(f"task {task_id} on {node}" for task_id, node in draining.held.items())
