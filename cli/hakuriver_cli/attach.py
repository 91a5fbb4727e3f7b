"""`hakuriver task run`: submits, stays with the task as `docker run` does, and ends with its exit code.

Everything is pushed by the Host: state changes by one stream, stdout and stderr by one each for every attempt. Raw bytes
go through unchanged. The first Ctrl-C kills the task and waits for its end; the second leaves it.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Coroutine
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, BinaryIO

from cyclopts import Parameter

from hakuriver.errors import ConflictError, HakuRiverError, NotFoundError
from hakuriver.states import FINAL, TaskState
from hakuriver_cli.errors import report
from hakuriver_cli.options import COMMON, Common
from hakuriver_cli.output import Format, Printer
from hakuriver_cli.progress import Progress
from hakuriver_cli.session import Session
from hakuriver_cli.sinks import JsonLines, Prefixed, Raw, Sink, json_line
from hakuriver_cli.submission import DEFAULTS, SubmitOptions, request_of
from hakuriver_cli.submitting import SUBMITTED, report_made, report_refused
from hakuriver_cli.tasks import CommandLine, code_of, ending

if TYPE_CHECKING:
    from hakuriver.client import AsyncClient
    from hakuriver.client.calls import Stream
    from hakuriver.models.submission import SubmitRequest, SubmitResponse
    from hakuriver.models.tasks import TaskEvent


INTERRUPTED = 130
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_REASON_SECONDS = 1.0


def run(
    *command_line: CommandLine,
    options: SubmitOptions = DEFAULTS,
    detach: Annotated[
        bool, Parameter(name=("--detach", "-d"), help="Print the id and do not stay with it.")
    ] = False,
    common: Common = COMMON,
) -> int:
    """Run a command and stay with it: its output comes here as it is written, and the exit code is its own.

    Ctrl-C kills the task and waits for its end; a second Ctrl-C leaves it to that. A task that ended without an exit
    code counts as 1, or as 130 after Ctrl-C. With -o json each line of output is an object on stdout (task_id, attempt,
    stream, text), and so is at last the event that ended each task.
    """
    session = Session(common, default=Format.NAME)
    request = request_of(options, command_line)
    if detach:
        made = session.client.submit(request)
        session.printer.record(made, SUBMITTED)
        return report_made(session, made)
    return asyncio.run(_attached(session, request))


async def _attached(session: Session, request: SubmitRequest) -> int:
    async with session.async_client() as client:
        made = await client.submit(request)
        refused = report_refused(session.printer, made)
        attachment = Attachment(client, made, session.printer, numbered=request.sweep)
        return await attachment.stay() or refused


class Attachment:
    """Stays with the tasks of one submission until they have ended."""

    def __init__(
        self,
        client: AsyncClient,
        made: SubmitResponse,
        printer: Printer,
        out: BinaryIO | None = None,
        err: BinaryIO | None = None,
        *,
        numbered: bool = False,
    ) -> None:
        """`numbered` lines of output say which of the tasks wrote them."""
        self._client = client
        self._made = made
        self._printer = printer
        self._out = out or sys.stdout.buffer
        self._err = err or sys.stderr.buffer
        self._indices = {task_id: index for index, task_id in enumerate(made.task_ids)} if numbered else {}
        self._in_json = printer.form is Format.JSON
        self._progress = Progress(printer.err)
        self._ended: dict[int, TaskEvent] = {}
        self._logs: dict[tuple[int, int], asyncio.Task[None]] = {}
        self._helpers: set[asyncio.Task[None]] = set()
        self._interrupts = 0
        self._following: asyncio.Future[None] | None = None
        self._broken: BaseException | None = None
        """Why output cannot be printed any more: as with a program that runs here, it is the task's end."""

    async def stay(self) -> int:
        """Gives the exit code: 0 if all completed, else the first other one in the order of submission."""
        loop = asyncio.get_running_loop()
        self._following = following = asyncio.ensure_future(self._follow())
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._interrupt, following)
        try:
            with self._progress:
                await following
        except asyncio.CancelledError:
            if self._broken is not None:
                await self._kill()
                raise self._broken from None
            self._printer.say("left; `hakuriver task status` shows how they end: " + self._names())
            return INTERRUPTED
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)
            await self._cancel_all()
        return self._code()

    async def _follow(self) -> None:
        reasons = self._start(self._show_reasons()) if self._progress.shown else None
        async with aclosing(self._client.events(0, batch_id=self._made.batch_id)) as changes:
            async for event in changes:
                self._on_event(event)
                if len(self._ended) == len(self._made.task_ids):
                    break
        if reasons is not None:
            reasons.cancel()
        await asyncio.gather(*self._logs.values())

    def _on_event(self, event: TaskEvent) -> None:
        key = (event.task_id, event.attempt)
        if event.attempt and key not in self._logs:
            copying = asyncio.ensure_future(self._copy_both(*key))
            copying.add_done_callback(self._on_copied)
            self._logs[key] = copying
        if event.state is TaskState.RUNNING:
            self._progress.stop()
        else:
            self._progress.update(f"task {event.task_id} {event.state}")
        if event.state in FINAL:
            self._ended[event.task_id] = event

    def _on_copied(self, copying: asyncio.Task[None]) -> None:
        if not copying.cancelled() and self._following is not None:
            self._broken = self._broken or copying.exception()
            if self._broken is not None:
                self._following.cancel()

    async def _copy_both(self, task_id: int, attempt: int) -> None:
        await asyncio.gather(
            self._copy(task_id, attempt, "stdout", self._out),
            self._copy(task_id, attempt, "stderr", self._err),
        )

    async def _copy(self, task_id: int, attempt: int, stream: Stream, target: BinaryIO) -> None:
        sink = self._sink(task_id, stream, target)
        try:
            async with aclosing(self._client.follow_parts(task_id, stream, attempt=attempt)) as parts:
                async for part in parts:
                    self._progress.stop()
                    sink.take(part)
            sink.end()
        except NotFoundError:
            return
        except HakuRiverError as error:
            report(error, self._printer.err)

    def _sink(self, task_id: int, stream: Stream, target: BinaryIO) -> Sink:
        index = self._indices.get(task_id)
        if self._in_json:
            return JsonLines(self._printer.out, task_id, stream, index)
        return Raw(target) if index is None else Prefixed(target, index)

    async def _show_reasons(self) -> None:
        """Why the first task waits, or what its Runner prepares: this is no event, so it is asked for."""
        task_id = self._made.task_ids[0]
        while self._progress.shown:
            await asyncio.sleep(_REASON_SECONDS)
            detail = await self._client.task(task_id)
            if detail.status not in {TaskState.PENDING, TaskState.ASSIGNING}:
                return
            self._progress.update(
                f"task {task_id} {detail.status}" + (f": {detail.reason}" * bool(detail.reason))
            )

    def _interrupt(self, following: asyncio.Future[None]) -> None:
        self._interrupts += 1
        self._progress.stop()
        if self._interrupts > 1:
            following.cancel()
            return
        self._printer.say("killing; Ctrl-C again leaves without waiting: " + self._names())
        self._start(self._kill())

    async def _kill(self) -> None:
        if len(self._made.task_ids) > 1:
            await self._kill_batch()
            return
        for task_id in self._made.task_ids:
            if task_id not in self._ended:
                try:
                    await self._client.kill(task_id)
                except ConflictError:
                    continue
                except HakuRiverError as error:
                    report(error, self._printer.err)

    async def _kill_batch(self) -> None:
        try:
            await self._client.kill_batch(self._made.batch_id)
        except ConflictError:
            return
        except HakuRiverError as error:
            report(error, self._printer.err)

    def _code(self) -> int:
        codes = [code_of(self._ended[task_id]) for task_id in self._made.task_ids]
        code = next((code for code in codes if code), 0)
        if self._in_json:
            for task_id in self._made.task_ids:
                json_line(self._printer.out, self._ended[task_id].model_dump(mode="json"))
        for event in self._ended.values():
            if (
                event.exit_code is None
                or event.state not in {TaskState.COMPLETED, TaskState.FAILED}
                or (event.state is TaskState.FAILED and event.cause)
            ):
                self._printer.say(ending(event))
        if self._interrupts and code == 1 and all(event.exit_code is None for event in self._ended.values()):
            return INTERRUPTED
        return code

    def _start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._helpers.add(task)
        task.add_done_callback(self._helpers.discard)
        return task

    async def _cancel_all(self) -> None:
        left = [task for task in (*self._logs.values(), *self._helpers) if not task.done()]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def _names(self) -> str:
        return " ".join(str(task_id) for task_id in self._made.task_ids if task_id not in self._ended)
