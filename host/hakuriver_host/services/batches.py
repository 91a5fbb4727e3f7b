"""What people see of batches, and what they do to all tasks of one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from hakuriver.errors import ConflictError, NotFoundError
from hakuriver.models.batches import BatchDetail, BatchSummary
from hakuriver.models.submission import SubmitResponse
from hakuriver.models.tasks import Message, TaskSummary
from hakuriver.states import FINAL
from hakuriver_host.db.repository import Tally, TaskFilter
from hakuriver_host.domain import batches as domain
from hakuriver_host.domain import waiting
from hakuriver_host.domain.model import Batch, Effects, Task
from hakuriver_host.services.access import Principal
from hakuriver_host.services.core import RECORD_SECONDS, Core, moment, optional_moment
from hakuriver_host.services.submit import Again, Submissions, check_priority
from hakuriver_host.services.tasks import Tasks, anew

_WRITES = 8
"""Parts of a batch whose rows are under way at once."""
_SHOWN_FAILURES = 10


class Batches:
    def __init__(self, core: Core, tasks: Tasks, submissions: Submissions) -> None:
        self._core = core
        self._tasks = tasks
        self._submissions = submissions

    async def list(self, wanted: TaskFilter, at_least: int, principal: Principal) -> Sequence[BatchSummary]:
        """Newest first; of each, how those of its tasks are that match, where there are at least so many."""
        repository = self._core.repository
        found = await asyncio.to_thread(repository.tallies, wanted, at_least)
        alone = [tally.first for tally in found if sum(tally.counts.values()) == 1]
        rows = await asyncio.to_thread(repository.tasks_of, alone)
        tasks = {task.task_id: task for task in self._tasks.summaries(rows, principal)}
        batches = await asyncio.to_thread(repository.batches, {tally.batch_id for tally in found})
        return [
            _summary(tally, batches[tally.batch_id], tasks.get(tally.first), principal) for tally in found
        ]

    async def detail(self, batch_id: int, principal: Principal) -> BatchDetail:
        """Raises `NotFoundError`."""
        repository = self._core.repository
        batch = await self._find(batch_id)
        # Before the tasks are counted: what happens between is told of twice, and not missed.
        last_event = await asyncio.to_thread(repository.last_event)
        (summary,) = await self.list(TaskFilter(batch_id=batch_id, limit=1), 1, principal) or [
            _summary(Tally(batch_id, {}, 0, None, None), batch, None, principal)
        ]
        failures = await asyncio.to_thread(repository.failures, batch_id, _SHOWN_FAILURES)
        return BatchDetail(
            **summary.model_dump(),
            env_vars=batch.spec.env_vars if _is_theirs(batch, principal) else {},
            failures=[*self._tasks.summaries(failures, principal)],
            last_event=last_event,
        )

    async def kill(self, batch_id: int, principal: Principal) -> Message:
        """Ends all tasks of a batch that have not ended: first those that wait, which end at once.

        Raises:
            ConflictError: none is left.
            NotFoundError: there is no such batch.
        """
        await self._owned(batch_id, principal)
        cluster, by = self._core.cluster, principal.name
        waits, others = domain.live_of(cluster, batch_id)
        if not waits and not others:
            raise ConflictError(f"all tasks of batch {batch_id} have ended", "nothing is left to be done")
        settled = await self._each(
            [*waits, *others],
            lambda some: domain.on_kill_each(cluster, some, by, self._core.now()),
            urgent=True,
        )
        said = [
            _said(len(waits), "that waited", "killed"),
            _said(len(others), "that did not wait", "being killed"),
        ]
        text = f"batch {batch_id}: {', '.join(filter(None, said))}"
        if not settled:
            text = f"{text}, which is {self._core.why_unwritten}"
        return Message(message=text)

    async def move(self, batch_id: int, action: str, principal: Principal) -> Message:
        """Holds or releases those of a batch that wait.

        Raises:
            ConflictError: none waits.
            NotFoundError: there is no such batch.
        """
        decide = waiting.on_hold if action == "hold" else waiting.on_release
        number = await self._move(
            batch_id,
            principal,
            lambda task_id: decide(self._core.cluster, task_id, principal.name, self._core.now()),
        )
        past = {"hold": "held", "release": "released"}[action]
        return Message(message=f"batch {batch_id}: {_said(number, 'that waited', past)}")

    async def reprioritize(self, batch_id: int, priority: int, principal: Principal) -> Message:
        """Gives those of a batch that wait another place in the queue.

        Raises:
            ConflictError: none waits.
            DeniedError: the priority is an admin's to give.
            NotFoundError: there is no such batch.
        """
        check_priority(priority, principal)
        core = self._core
        number = await self._move(
            batch_id,
            principal,
            lambda task_id: waiting.on_reprioritize(
                core.cluster, task_id, priority, principal.name, core.now()
            ),
        )
        return Message(
            message=f"batch {batch_id}: {_said(number, 'that waited', f'given priority {priority}')}"
        )

    async def retry(self, batch_id: int, principal: Principal, key: str | None) -> SubmitResponse:
        """Submits those that have ended and not completed again, as a new batch: each with its number, and so with the
        values that it had.

        Raises:
            ConflictError: there is none.
            NotFoundError: there is no such batch.
        """
        batch = await self._owned(batch_id, principal)
        places = await asyncio.to_thread(self._core.repository.failed_places, batch_id)
        if not places:
            raise ConflictError(
                f"no task of batch {batch_id} has failed, was killed or is lost",
                "see `hakuriver batch status`; `hakuriver task retry` makes one anew that completed",
            )
        request = anew(batch.spec, principal)
        return await self._submissions.submit(request, principal, key, Again(batch_id, places))

    async def _move(self, batch_id: int, principal: Principal, decide: Callable[[int], Effects]) -> int:
        """For all that wait; how many that were."""
        await self._owned(batch_id, principal)
        waits, _ = domain.live_of(self._core.cluster, batch_id)
        if not waits:
            raise ConflictError(
                f"no task of batch {batch_id} waits", "only a task that waits has a place in the queue"
            )
        await self._each(waits, lambda some: domain.on_each(some, decide))
        return len(waits)

    async def _each(
        self, tasks: Sequence[Task], decide: Callable[[Sequence[Task]], Effects], *, urgent: bool = False
    ) -> bool:
        """Decides over all, a part between two turns of the loop. Whether that is on the record: what is `urgent` goes
        on where it can't be written now.
        """
        writing: set[asyncio.Future[None]] = set()
        stuck = False
        for some in domain.parts(tasks):
            writing.add(self._core.begin(decide(some), urgent=urgent))
            await asyncio.sleep(0)
            if len(writing) >= _WRITES and not stuck:
                stuck = not await _settle(writing, asyncio.FIRST_COMPLETED, urgent=urgent)
        return not stuck and await _settle(writing, asyncio.ALL_COMPLETED, urgent=urgent)

    async def _owned(self, batch_id: int, principal: Principal) -> Batch:
        batch = await self._find(batch_id)
        principal.check_owns(batch.owner, f"batch {batch_id}")
        return batch

    async def _find(self, batch_id: int) -> Batch:
        repository = self._core.repository
        batch = await asyncio.to_thread(repository.batch, batch_id)
        if batch is None:
            task = await asyncio.to_thread(repository.task, batch_id)
            raise NotFoundError(
                f"there is no batch {batch_id}",
                f"it is a task of batch {task[0].batch_id}"
                if task
                else "list them with `hakuriver batch list`",
            )
        return batch


async def _settle(writing: set[asyncio.Future[None]], until: str, *, urgent: bool) -> bool:
    """Waits for writes, and takes out those that are done; False where the time was up."""
    done, _ = await asyncio.wait(writing, timeout=RECORD_SECONDS if urgent else None, return_when=until)
    writing -= done
    for write in done:
        write.result()
    return bool(done) and (until == asyncio.FIRST_COMPLETED or not writing)


def _summary(tally: Tally, batch: Batch, task: TaskSummary | None, principal: Principal) -> BatchSummary:
    spec = batch.spec
    ended = all(state in FINAL for state in tally.counts)
    return BatchSummary(
        batch_id=batch.batch_id,
        name=spec.name,
        owner=batch.owner,
        task_type=spec.task_type,
        sweep=spec.sweep,
        command=spec.command if spec.task_type == "command" else "",  # Of a VPS these are keys.
        arguments=spec.arguments if _is_theirs(batch, principal) else [],
        container_name=spec.container_name,
        required_cores=spec.required_cores,
        max_running=spec.max_running,
        counts=tally.counts,
        task=task,
        submitted_at=moment(batch.submitted_at),
        started_at=optional_moment(tally.started_at),
        completed_at=optional_moment(tally.completed_at) if ended else None,
    )


def _is_theirs(batch: Batch, principal: Principal) -> bool:
    return principal.is_admin or principal.name == batch.owner


def _said(number: int, which: str, what: str) -> str:
    """What became of so many tasks, in words; nothing of none."""
    if number == 0:
        return ""
    return f"1 task {which} is {what}" if number == 1 else f"{number} tasks {which} are {what}"
