"""`hakuriver task …`: submit, look at and control tasks. Attached runs are in `attach`, logs in `logs`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from cyclopts import Parameter

from hakuriver.errors import UsageError
from hakuriver.states import TaskState
from hakuriver_cli import batch_views, batches
from hakuriver_cli import task_views as views
from hakuriver_cli.options import (
    COMMON,
    Common,
    OptionalId,
    States,
    TaskIdOption,
    TaskIds,
    TaskOrBatchIds,
    Watch,
)
from hakuriver_cli.output import Format, Printer, View
from hakuriver_cli.progress import Counter
from hakuriver_cli.session import Session
from hakuriver_cli.submission import DEFAULTS, SubmitOptions, request_of
from hakuriver_cli.submitting import SUBMITTED, report_made
from hakuriver_cli.tree import lazy, new_app

if TYPE_CHECKING:
    from hakuriver.client import AsyncClient
    from hakuriver.models.batches import BatchDetail
    from hakuriver.models.submission import SubmitResponse
    from hakuriver.models.tasks import Message, TaskDetail, TaskEvent, TaskExplanation
    from hakuriver_cli.records import Done

Name = TypeVar("Name", int, str)
Shown = TypeVar("Shown", "TaskDetail", "TaskExplanation", "BatchDetail")

app = new_app("task", "Submit, follow and control tasks.")
lazy(app, "attach:run", "run", "Run a command and stay with it.")
lazy(app, "logs:logs", "logs", "Print what tasks wrote.")
lazy(app, "doors:shell", "shell", "Open a shell in a running task.")
lazy(app, "doors:execute", "exec", "Run a command in a running task.")
lazy(app, "logs:stdout", "stdout", "Print the stdout of tasks, byte by byte.")
lazy(app, "logs:stderr", "stderr", "Print the stderr of tasks, byte by byte.")

_PAGE = 200
CommandLine = Annotated[
    str,
    Parameter(name="COMMAND", help="The program and its arguments; no shell reads them."),
]


@app.command
def submit(
    *command_line: CommandLine,
    options: SubmitOptions = DEFAULTS,
    wait: Annotated[
        bool, Parameter(help="Wait until all have ended, and exit with the task's own code.")
    ] = False,
    poll_interval: Annotated[
        float | None, Parameter(help="Accepted for old scripts, and without effect: the Host tells at once.")
    ] = None,
    common: Common = COMMON,
) -> int:
    """Queue a command, and print the ids of its tasks; of a sweep, the id of its batch.

    With --wait the exit code is the task's own. Of several tasks it is 0 if all completed, else the first other
    code in the order of submission. A task that ended without an exit code (killed before it ran, lost) counts as 1.
    """
    del poll_interval
    session = Session(common, default=Format.NAME)
    request = request_of(options, command_line)
    made = session.client.submit(request)
    session.printer.record(made, batch_views.SUBMITTED if request.sweep else SUBMITTED)
    refused = report_made(session, made)
    if not wait:
        return refused
    if request.sweep:
        return batches.wait_for_batch(session, session.client.batch(made.batch_id))[1] or refused
    return wait_for(session, made.task_ids, show=False) or refused


def wait_for(session: Session, task_ids: list[int], *, show: bool) -> int:
    with Counter(session.printer.err, len(task_ids), "tasks have ended") as counter:
        ended = list(session.client.wait(task_ids, told=counter.update).values())
    if show and ended:
        session.printer.rows(ended, views.ENDED)
    for event in ended:
        if not show and (code_of(event) or session.printer.err.isatty()):
            session.printer.say(ending(event))
    return next((code for code in map(code_of, ended) if code), 0)


def ending(event: TaskEvent) -> str:
    """How a task ended, in a line for people."""
    code = "" if event.exit_code is None else f" with exit code {event.exit_code}"
    cause = f": {event.cause}" if event.cause and event.state is not TaskState.COMPLETED else ""
    return f"task {event.task_id} {event.state}{code}{cause}"


def code_of(event: TaskEvent) -> int:
    """The exit code that a task's end gives a command."""
    return exit_code_of(event.state, event.exit_code)


def exit_code_of(state: TaskState, exit_code: int | None) -> int:
    """Of a command, by how a task ended: its own; 1 when it has none and did not complete."""
    if state is TaskState.COMPLETED:
        return 0
    if exit_code is None or exit_code == 0:
        return 1
    return 128 - exit_code if exit_code < 0 else exit_code & 0xFF or 1


@app.command(name="list")
def list_tasks(
    *,
    status: States = (),
    node: Annotated[str | None, Parameter(name=("--node", "-n"), help="Only those of this node.")] = None,
    owner: Annotated[str | None, Parameter(help="Only those of this user.")] = None,
    batch: Annotated[OptionalId, Parameter(help="Only those of this batch.")] = None,
    name: Annotated[str | None, Parameter(help="Only those of this name.")] = None,
    each: Annotated[
        bool, Parameter(name="--tasks", help="One line for each task, of batches of several too.")
    ] = False,
    limit: Annotated[int, Parameter(name=("--limit", "-l"), help="How many to show; 0 is all.")] = 50,
    usage: Annotated[
        bool, Parameter(negative="", help="Show what each asked for, and what it used of that.")
    ] = False,
    watch: Watch = False,
    common: Common = COMMON,
) -> int:
    """List tasks, newest first.

    Tables show those of a batch of several tasks in one line, with how many are in which state, unless --tasks or --batch
    is given. With -o json and -o name each is told of.
    """
    if limit < 0:
        raise UsageError(f"--limit {limit} is below zero", "give how many to show, or 0 for all")
    session, view = Session(common), views.USAGE if usage else views.TASKS

    filters: dict[str, Any] = {
        "page": min(limit, _PAGE) or _PAGE,
        "status": status,
        "node": node,
        "owner": owner,
        "batch_id": batch,
        "name": name,
    }
    if not (each or batch or usage) and session.printer.form in {Format.TABLE, Format.WIDE}:
        return batches.show_list(session, batch_views.LINES, filters, limit, watch=watch)
    return session.newest(lambda client: client.iter_tasks(**filters), view, limit, watch=watch)


@app.command
def status(task_ids: TaskIds, /, *, watch: Watch = False, common: Common = COMMON) -> int:
    """Show all that is known of tasks, what they used and their history included."""
    session = Session(common)
    if watch:
        return _watch_each(session, task_ids, lambda client, task_id: client.task(task_id), views.TASK)
    return show_each(session, task_ids, session.client.task, views.TASK)


@app.command
def explain(task_ids: TaskIds, /, *, watch: Watch = False, common: Common = COMMON) -> int:
    """Say why tasks wait, node by node."""
    session = Session(common)

    def verdicts(told: TaskExplanation) -> None:
        if told.nodes:
            session.printer.rows(told.nodes, views.VERDICTS)

    if watch:
        return _watch_each(
            session, task_ids, lambda client, task_id: client.explain(task_id), views.EXPLANATION, verdicts
        )
    return show_each(session, task_ids, session.client.explain, views.EXPLANATION, verdicts)


def show_each(
    session: Session,
    task_ids: list[int],
    ask: Callable[[int], Shown],
    view: View[Shown],
    below: Callable[[Shown], None] = lambda _: None,
) -> int:
    """One is an object in JSON, several an array; for people one comes after the other, with what goes `below` it."""
    found: list[Shown] = []
    code = session.for_each(task_ids, lambda task_id: found.append(ask(task_id)))
    _print_each(session.printer, found, len(task_ids), view, below)
    return code


def _watch_each(
    session: Session,
    task_ids: list[int],
    ask: Callable[[AsyncClient, int], Awaitable[Shown]],
    view: View[Shown],
    below: Callable[[Shown], None] = lambda _: None,
) -> int:
    """The same again and again; one that is not there ends it."""
    from hakuriver_cli.watch import watch  # noqa: PLC0415

    async def fetch(client: AsyncClient) -> list[Shown]:
        return [await ask(client, task_id) for task_id in task_ids]

    def show(found: Sequence[Shown]) -> None:
        _print_each(session.printer, found, len(task_ids), view, below)

    return watch(session, fetch, show, events=True)


def _print_each(
    printer: Printer,
    found: Sequence[Shown],
    asked: int,
    view: View[Shown],
    below: Callable[[Shown], None],
) -> None:
    if printer.form is Format.NAME or (printer.form is Format.JSON and asked > 1):
        printer.rows(found, view)
        return
    for number, item in enumerate(found):
        if number:
            printer.out.write("\n")
        printer.record(item, view)
        if printer.form is not Format.JSON:
            below(item)


@app.command
def wait(task_ids: TaskOrBatchIds, /, *, common: Common = COMMON) -> int:
    """Wait until tasks have ended, and exit with their code.

    Of several tasks the exit code is 0 if all completed, else the first other code in the order given. A task that
    ended without an exit code (killed before it ran, lost) counts as 1.
    """
    session = Session(common)
    known: list[int] = []
    whole: list[BatchDetail] = []

    look = batches.either(
        lambda task_id: known.append(session.client.task(task_id).task_id),
        lambda batch_id: whole.append(session.client.batch(batch_id)),
    )
    code = session.for_each(task_ids, look)
    codes = wait_for(session, known, show=True), batches.wait_for_all(session, whole), code
    return next(filter(None, codes), 0)


@app.command
def kill(task_ids: TaskOrBatchIds, /, *, common: Common = COMMON) -> int:
    """End tasks, whatever they do: waiting, starting, running or paused."""
    session = Session(common)
    return _act(session, task_ids, batches.either(session.client.kill, session.client.kill_batch))


@app.command
def pause(task_ids: TaskIds, /, *, common: Common = COMMON) -> int:
    """Freeze running tasks; they keep what they hold."""
    session = Session(common)
    return _act(session, task_ids, session.client.pause)


@app.command
def resume(task_ids: TaskIds, /, *, common: Common = COMMON) -> int:
    """Let paused tasks go on."""
    session = Session(common)
    return _act(session, task_ids, session.client.resume)


@app.command
def hold(task_ids: TaskOrBatchIds, /, *, common: Common = COMMON) -> int:
    """Keep waiting tasks from running until they are released."""
    session = Session(common)
    return _act(session, task_ids, batches.either(session.client.hold, session.client.hold_batch))


@app.command
def release(task_ids: TaskOrBatchIds, /, *, common: Common = COMMON) -> int:
    """Let held tasks wait for their turn again, in their old places."""
    session = Session(common)
    return _act(session, task_ids, batches.either(session.client.release, session.client.release_batch))


@app.command
def reprioritize(
    task_ids: TaskOrBatchIds,
    /,
    *,
    priority: Annotated[int, Parameter(help="The higher goes first; -1000 to 0, and up to 1000 for admins.")],
    common: Common = COMMON,
) -> int:
    """Give waiting tasks another place in the queue."""
    session = Session(common)
    act = batches.either(
        lambda task_id: session.client.reprioritize(task_id, priority),
        lambda batch_id: session.client.reprioritize_batch(batch_id, priority),
    )
    return _act(session, task_ids, act)


@app.command
def retry(task_ids: TaskOrBatchIds, /, *, common: Common = COMMON) -> int:
    """Submit what ended tasks asked for once more, as new tasks; prints the new ids.

    Of a batch, those of its tasks that have not completed. Each keeps its number, and with it the values of a sweep.
    """
    session = Session(common, default=Format.NAME)
    made: list[SubmitResponse] = []
    again = batches.either(session.client.retry, session.client.retry_batch)
    code = session.for_each(task_ids, lambda number: made.append(again(number)))
    if made:
        session.printer.rows(made, SUBMITTED)
    return code


def command(
    task_id: TaskIdOption,
    action: Annotated[Literal["pause", "resume"], Parameter(name="ACTION", help="What to do.")],
    /,
    *,
    common: Common = COMMON,
) -> int:
    """Pause or resume a task."""
    return (pause if action == "pause" else resume)([task_id], common=common)


def _act(session: Session, task_ids: list[int], act: Callable[[int], Message]) -> int:
    from hakuriver_cli.records import Done  # noqa: PLC0415  (see there)

    return told_of_each(
        session, task_ids, lambda task_id: Done(task_id=task_id, message=act(task_id).message)
    )


def told_of_each(session: Session, names: list[Name], act: Callable[[Name], Done]) -> int:
    """Does it for each, and says what became of those for which it was done."""
    done: list[Done] = []
    try:
        return session.for_each(names, lambda name: done.append(act(name)))
    finally:
        if done:
            session.printer.rows(done, views.DONE)
