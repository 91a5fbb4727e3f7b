"""`hakuriver task logs | stdout | stderr`: what tasks wrote, as raw bytes, up to now or followed to the end."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from hakuriver.errors import NotFoundError, UsageError
from hakuriver_cli.batches import either
from hakuriver_cli.options import COMMON, Attempt, Common, TaskIds, TaskOrBatchIds
from hakuriver_cli.output import Format
from hakuriver_cli.session import Session
from hakuriver_cli.sinks import JsonLines, Raw, Sink

if TYPE_CHECKING:
    from hakuriver.client import AsyncClient, Client
    from hakuriver.client.calls import LogPart, Stream

Follow = Annotated[
    bool, Parameter(name=("--follow", "-f"), help="Go on as it is written, until the task ends.")
]
Tail = Annotated[int | None, Parameter(name=("--tail", "-n"), help="Only the last so many lines.")]
BLOCK = 64 * 1024
"""Bytes to read at once when looking for the last lines."""


def logs(
    task_ids: TaskOrBatchIds,
    /,
    *,
    follow: Follow = False,
    stdout: Annotated[bool, Parameter(help="Only stdout.")] = False,
    stderr: Annotated[bool, Parameter(help="Only stderr, printed to stdout.")] = False,
    both: Annotated[bool, Parameter(help="Each to its own; this is the default.")] = False,
    tail: Tail = None,
    attempt: Attempt = None,
    common: Common = COMMON,
) -> int:
    """Print what tasks wrote: their stdout to stdout, their stderr to stderr.

    With -o json all goes to stdout, as one object for each line: task_id, attempt, stream and text. Of a batch, it is as
    in `hakuriver batch logs`.
    """
    streams: tuple[Stream, ...] = ("stdout", "stderr")
    if stdout != stderr and not both:
        streams = ("stdout",) if stdout else ("stderr",)
    return _print(Session(common), task_ids, streams, follow=follow, tail=tail, attempt=attempt)


def stdout(
    task_ids: TaskIds,
    /,
    *,
    follow: Follow = False,
    tail: Tail = None,
    attempt: Attempt = None,
    common: Common = COMMON,
) -> int:
    """Print the stdout of tasks, byte by byte."""
    return _print(Session(common), task_ids, ("stdout",), follow=follow, tail=tail, attempt=attempt)


def stderr(
    task_ids: TaskIds,
    /,
    *,
    follow: Follow = False,
    tail: Tail = None,
    attempt: Attempt = None,
    common: Common = COMMON,
) -> int:
    """Print the stderr of tasks, byte by byte, to stdout."""
    return _print(Session(common), task_ids, ("stderr",), follow=follow, tail=tail, attempt=attempt)


def _print(
    session: Session,
    task_ids: list[int],
    streams: tuple[Stream, ...],
    *,
    follow: bool,
    tail: int | None,
    attempt: int | None,
) -> int:
    if tail is not None and tail < 0:
        raise UsageError(f"--tail {tail} is below zero", "give how many lines to print")

    def of_task(task_id: int) -> None:
        sinks = {stream: _sink(session, task_id, stream, alone=len(streams) == 1) for stream in streams}
        present = {
            stream: None
            if follow and tail is None
            else present_part(session.client, task_id, stream, sink, tail, attempt, follow=follow)
            for stream, sink in sinks.items()
        }
        if follow:
            import asyncio  # noqa: PLC0415  (loads much, and here alone it is needed)

            asyncio.run(_follow(session, task_id, sinks, present, attempt))
        for sink in sinks.values():
            sink.end()

    def of_batch(batch_id: int) -> None:
        from hakuriver_cli.batch_logs import print_logs  # noqa: PLC0415  (which imports this module)

        print_logs(session, session.client.batch(batch_id), streams, follow=follow, tail=tail)

    return session.for_each(task_ids, either(of_task, of_batch))


def _sink(session: Session, task_id: int, stream: Stream, *, alone: bool) -> Sink:
    """Each stream to its own; one that is asked for alone to stdout."""
    if session.printer.form is Format.JSON:
        return JsonLines(session.printer.out, task_id, stream)
    return Raw(sys.stdout.buffer if alone or stream == "stdout" else sys.stderr.buffer)


def present_part(
    client: Client,
    task_id: int,
    stream: Stream,
    sink: Sink,
    tail: int | None,
    attempt: int | None,
    *,
    follow: bool,
) -> LogPart | None:
    """Prints what is there now; gives the last part of it. None where nothing is there yet, and `follow` waits."""
    last = None
    try:
        if tail is None:
            for last in client.parts(task_id, stream, attempt=attempt):
                sink.take(last)
        else:
            last, pieces = _end_of(client, task_id, stream, tail, attempt)
            for line in last_lines(pieces, tail):
                sink.take(replace(last, data=line))
    except NotFoundError:
        if not follow:
            raise
    return last


def _end_of(
    client: Client, task_id: int, stream: Stream, lines: int, attempt: int | None
) -> tuple[LogPart, deque[bytes]]:
    """The last part, and pieces that hold at least so many lines: read from the end on, so little of a large log."""
    last = client.log(task_id, stream, offset=-BLOCK, attempt=attempt)
    pieces, newlines = deque([last.data]), last.data.count(b"\n")
    start = last.next_offset - len(last.data)
    while start > 0 and newlines <= lines:
        end, start = start, max(0, start - BLOCK)
        piece = client.log(task_id, stream, offset=start, limit=end - start, attempt=last.attempt).data
        pieces.appendleft(piece)
        newlines += piece.count(b"\n")
    return last, pieces


def last_lines(pieces: Iterable[bytes], count: int) -> list[bytes]:
    """The last `count` lines of what the pieces make together; holds no more than these and one piece."""
    lines: deque[bytes] = deque(maxlen=count + 1)
    rest = b""
    for piece in pieces:
        *complete, rest = (rest + piece).split(b"\n")
        lines.extend(line + b"\n" for line in complete)
    if rest:
        lines.append(rest)
    return list(lines)[-count:] if count else []


async def _follow(
    session: Session,
    task_id: int,
    sinks: dict[Stream, Sink],
    present: dict[Stream, LogPart | None],
    attempt: int | None,
) -> None:
    import asyncio  # noqa: PLC0415

    async with session.async_client() as client:
        await asyncio.gather(
            *(
                _copy(client, task_id, stream, sink, attempt, present[stream])
                for stream, sink in sinks.items()
            )
        )


async def _copy(
    client: AsyncClient,
    task_id: int,
    stream: Stream,
    sink: Sink,
    attempt: int | None,
    after: LogPart | None,
) -> None:
    async with aclosing(client.follow_parts(task_id, stream, attempt=attempt, after=after)) as parts:
        async for part in parts:
            sink.take(part)
