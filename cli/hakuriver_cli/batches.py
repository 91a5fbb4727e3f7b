"""`hakuriver batch …`: all tasks of one submission together. Their logs are in `batch_logs`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from cyclopts import Parameter

from hakuriver.errors import NotFoundError, UsageError
from hakuriver.states import TaskState
from hakuriver_cli import batch_views as views
from hakuriver_cli.options import COMMON, BatchIds, Common, States, Watch
from hakuriver_cli.output import Format, View
from hakuriver_cli.progress import Counter
from hakuriver_cli.session import Session
from hakuriver_cli.tree import lazy, new_app

if TYPE_CHECKING:
    from hakuriver.models.batches import BatchDetail, BatchSummary
    from hakuriver.models.submission import SubmitResponse
    from hakuriver.models.tasks import Message


T = TypeVar("T")

app = new_app("batch", "Look at and control all tasks of one submission.")
lazy(app, "batch_logs:logs", "logs", "Print what the tasks of a batch wrote.")

_PAGE = 100
_SHOWN = 5
"""Failures that `wait` names."""


@app.command(name="list")
def list_batches(
    *,
    status: States = (),
    owner: Annotated[str | None, Parameter(help="Only those of this user.")] = None,
    name: Annotated[str | None, Parameter(help="Only those of this name.")] = None,
    every: Annotated[bool, Parameter(name="--all", help="Batches of one task, too.")] = False,
    limit: Annotated[int, Parameter(name=("--limit", "-l"), help="How many to show; 0 is all.")] = 50,
    watch: Watch = False,
    common: Common = COMMON,
) -> int:
    """List the batches of several tasks, newest first, with how many of them are in which state."""
    filters = {"status": status, "owner": owner, "name": name, "min_tasks": 1 if every else 2}
    return show_list(Session(common), views.BATCHES, filters, limit, watch=watch)


def show_list(
    session: Session, view: View[BatchSummary], filters: dict[str, Any], limit: int, *, watch: bool
) -> int:
    """Batches that match, so many at most; 0 is all."""
    if limit < 0:
        raise UsageError(f"--limit {limit} is below zero", "give how many to show, or 0 for all")
    filters = {"page": min(limit, _PAGE) or _PAGE, **filters}
    return session.newest(lambda client: client.iter_batches(**filters), view, limit, watch=watch)


@app.command
def status(batch_ids: BatchIds, /, *, common: Common = COMMON) -> int:
    """Show all that is known of batches, the first of their failures included."""
    from hakuriver_cli.tasks import show_each  # noqa: PLC0415  (which imports this module)

    session = Session(common)
    return show_each(session, batch_ids, session.client.batch, views.BATCH)


@app.command
def wait(batch_ids: BatchIds, /, *, common: Common = COMMON) -> int:
    """Wait until all tasks of batches have ended.

    The exit code is 0 if all completed, else that of the first task that did not, in the order of their numbers. A task
    that ended without an exit code (killed before it ran, lost) counts as 1.
    """
    session = Session(common)
    known: list[BatchDetail] = []
    code = session.for_each(batch_ids, lambda batch_id: known.append(session.client.batch(batch_id)))
    return wait_for_all(session, known) or code


def wait_for_all(session: Session, batches: list[BatchDetail]) -> int:
    """Waits for one after the other, and shows how they are then; the exit code of the first that did not complete."""
    ended = [wait_for_batch(session, batch) for batch in batches]
    if ended:
        session.printer.rows([batch for batch, _ in ended], views.BATCHES)
    return next((code for _, code in ended if code), 0)


def wait_for_batch(session: Session, batch: BatchDetail) -> tuple[BatchDetail, int]:
    """How the batch is when all its tasks have ended, and the exit code for that. Names the first failures."""
    from hakuriver_cli.tasks import exit_code_of  # noqa: PLC0415  (which imports this module)

    with Counter(session.printer.err, batch.total, "tasks have ended") as counter:
        batch = session.client.wait_batch(batch.batch_id, told=counter.update)
    if not batch.failures:
        return batch, 0
    for task in batch.failures[:_SHOWN]:
        session.printer.say(views.failure(task))
    failed = batch.total - batch.counts.get(TaskState.COMPLETED, 0)
    session.printer.say(
        f"{failed} of {batch.total} tasks have not completed; `hakuriver batch retry {batch.batch_id}` makes them anew"
    )
    first = batch.failures[0]
    return batch, exit_code_of(first.status, first.exit_code)


@app.command
def kill(batch_ids: BatchIds, /, *, common: Common = COMMON) -> int:
    """End all tasks of batches: those that wait at once, the others a moment later."""
    session = Session(common)
    return _act(session, batch_ids, session.client.kill_batch)


@app.command
def hold(batch_ids: BatchIds, /, *, common: Common = COMMON) -> int:
    """Keep the waiting tasks of batches from running until they are released."""
    session = Session(common)
    return _act(session, batch_ids, session.client.hold_batch)


@app.command
def release(batch_ids: BatchIds, /, *, common: Common = COMMON) -> int:
    """Let the held tasks of batches wait for their turn again."""
    session = Session(common)
    return _act(session, batch_ids, session.client.release_batch)


@app.command
def reprioritize(
    batch_ids: BatchIds,
    /,
    *,
    priority: Annotated[int, Parameter(help="The higher goes first; -1000 to 0, and up to 1000 for admins.")],
    common: Common = COMMON,
) -> int:
    """Give the waiting tasks of batches another place in the queue."""
    session = Session(common)
    return _act(session, batch_ids, lambda batch_id: session.client.reprioritize_batch(batch_id, priority))


@app.command
def retry(batch_ids: BatchIds, /, *, common: Common = COMMON) -> int:
    """Submit the tasks of batches again that have ended and not completed; prints the ids of the new batches.

    Each keeps its number, and with it the values of a sweep. What still waits or runs is left as it is.
    """
    session = Session(common, default=Format.NAME)
    made: list[SubmitResponse] = []
    code = session.for_each(batch_ids, lambda batch_id: made.append(session.client.retry_batch(batch_id)))
    if made:
        session.printer.rows(made, views.SUBMITTED)
    return code


def either(of_task: Callable[[int], T], of_batch: Callable[[int], T]) -> Callable[[int], T]:
    """What does the one with the id of a task, and the other with that of a batch."""

    def act(number: int) -> T:
        try:
            return of_task(number)
        except NotFoundError as error:
            try:
                return of_batch(number)
            except NotFoundError:
                raise error from None

    return act


def _act(session: Session, batch_ids: list[int], act: Callable[[int], Message]) -> int:
    from hakuriver_cli.records import BatchDone  # noqa: PLC0415  (see there)

    done: list[BatchDone] = []
    try:
        return session.for_each(
            batch_ids,
            lambda batch_id: done.append(BatchDone(batch_id=batch_id, message=act(batch_id).message)),
        )
    finally:
        if done:
            session.printer.rows(done, views.DONE)
