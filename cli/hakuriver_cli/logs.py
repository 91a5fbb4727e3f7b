"""`hakuriver task logs | stdout | stderr`: what tasks wrote, as raw bytes, up to now or followed to the end."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import aclosing
from typing import Annotated, BinaryIO

from cyclopts import Parameter

from hakuriver.client import AsyncClient, Client
from hakuriver.client.calls import Stream
from hakuriver.errors import UsageError
from hakuriver_cli.options import COMMON, Attempt, Common, TaskIds
from hakuriver_cli.session import Session

Follow = Annotated[
    bool, Parameter(name=("--follow", "-f"), help="Go on as it is written, until the task ends.")
]
Tail = Annotated[int | None, Parameter(name=("--tail", "-n"), help="Only the last so many lines.")]
Sink = tuple[Stream, BinaryIO]


def logs(
    task_ids: TaskIds,
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
    """Print what tasks wrote: their stdout to stdout, their stderr to stderr."""
    out, err = sys.stdout.buffer, sys.stderr.buffer
    sinks: list[Sink] = [("stdout", out), ("stderr", err)]
    if stdout != stderr and not both:
        sinks = [("stdout", out)] if stdout else [("stderr", out)]
    return _print(Session(common), task_ids, sinks, follow=follow, tail=tail, attempt=attempt)


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
    sinks: list[Sink] = [("stdout", sys.stdout.buffer)]
    return _print(Session(common), task_ids, sinks, follow=follow, tail=tail, attempt=attempt)


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
    sinks: list[Sink] = [("stderr", sys.stdout.buffer)]
    return _print(Session(common), task_ids, sinks, follow=follow, tail=tail, attempt=attempt)


def _print(
    session: Session,
    task_ids: list[int],
    sinks: list[Sink],
    *,
    follow: bool,
    tail: int | None,
    attempt: int | None,
) -> int:
    if tail is not None and tail < 0:
        raise UsageError(f"--tail {tail} is below zero", "give how many lines to print")

    def one(task_id: int) -> None:
        offsets = {}
        for stream, sink in sinks:
            offsets[stream] = (
                0
                if follow and tail is None
                else _present(session.client, task_id, stream, sink, tail, attempt)
            )
        if follow:
            asyncio.run(_follow(session, task_id, sinks, offsets, attempt))

    return session.for_each(task_ids, one)


def _present(
    client: Client, task_id: int, stream: Stream, sink: BinaryIO, tail: int | None, attempt: int | None
) -> int:
    """Prints what is there now; gives the offset of what comes later."""
    end = 0

    def pieces() -> Iterator[bytes]:
        nonlocal end
        for part in client.parts(task_id, stream, attempt=attempt):
            end = part.next_offset
            yield part.data

    for piece in pieces() if tail is None else last_lines(pieces(), tail):
        sink.write(piece)
        sink.flush()
    return end


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
    sinks: list[Sink],
    offsets: dict[Stream, int],
    attempt: int | None,
) -> None:
    async with session.async_client() as client:
        await asyncio.gather(
            *(_copy(client, task_id, stream, sink, offsets[stream], attempt) for stream, sink in sinks)
        )


async def _copy(
    client: AsyncClient, task_id: int, stream: Stream, sink: BinaryIO, offset: int, attempt: int | None
) -> None:
    async with aclosing(client.follow(task_id, stream, offset=offset, attempt=attempt)) as parts:
        async for part in parts:
            sink.write(part)
            sink.flush()
