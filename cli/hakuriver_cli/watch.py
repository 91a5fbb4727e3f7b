"""`--watch`: prints a list again whenever something changes, or every few seconds where nothing tells.

On a terminal the list stays in its place; elsewhere each state of it is printed after the one before.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import TextIO, TypeVar

from pydantic import BaseModel

from hakuriver.client import AsyncClient
from hakuriver_cli.output import Format, Printer, View
from hakuriver_cli.session import Session

T = TypeVar("T", bound=BaseModel)
Fetch = Callable[[AsyncClient], Awaitable[Sequence[T]]]
Show = Callable[[Sequence[T]], None]

_EVERY_SECONDS = 2.0
_AT_MOST_EVERY_SECONDS = 0.25
_CLEAR = "\x1b[H\x1b[2J\x1b[3J"


def watch_rows(session: Session, fetch: Fetch[T], view: View[T], *, events: bool) -> int:
    """Prints a list until it is interrupted; see `watch`."""
    return watch(session, fetch, lambda found: session.printer.rows(found, view), events=events)


def watch(session: Session, fetch: Fetch[T], show: Show[T], *, events: bool) -> int:
    """Shows until it is interrupted. With `events`, changes of tasks lead to a new look at once."""
    asyncio.run(_watch(session, fetch, show, events=events))
    return 0


async def first(items: AsyncGenerator[T], limit: int | None) -> list[T]:
    """The first `limit` items, or all."""
    found: list[T] = []
    async with aclosing(items):
        async for item in items:
            found.append(item)
            if len(found) == limit:
                break
    return found


async def _watch(session: Session, fetch: Fetch[T], show: Show[T], *, events: bool) -> None:
    changed = asyncio.Event()
    try:
        async with session.async_client() as client, asyncio.TaskGroup() as group:
            if events:
                group.create_task(_note_changes(client, changed))
            group.create_task(_print_again(session.printer, client, fetch, show, changed))
    except BaseExceptionGroup as failed:
        # Both tasks may meet the same trouble; it is told once, as in a command that does not watch.
        raise failed.exceptions[0] from None


async def _note_changes(client: AsyncClient, changed: asyncio.Event) -> None:
    async with aclosing(client.events()) as changes:
        async for _ in changes:
            changed.set()


async def _print_again(
    printer: Printer, client: AsyncClient, fetch: Fetch[T], show: Show[T], changed: asyncio.Event
) -> None:
    last: list[T] | None = None
    while True:
        changed.clear()
        found = list(await fetch(client))
        clear = printer.out.isatty() and printer.form in {Format.TABLE, Format.WIDE}
        if clear or found != last:
            printer.out.write(_CLEAR if clear else "")
            show(found)
        last = found
        if _has_no_reader(printer.out):
            raise BrokenPipeError
        await asyncio.sleep(_AT_MOST_EVERY_SECONDS)
        try:
            await asyncio.wait_for(changed.wait(), _EVERY_SECONDS)
        except TimeoutError:
            continue


def _has_no_reader(out: TextIO) -> bool:
    """Whether who read it has gone, as `head` does: without a change nothing is written that would tell."""
    try:
        number = out.fileno()
    except OSError:
        return False
    poll = select.poll()
    poll.register(number, 0)
    return bool(poll.poll(0))
