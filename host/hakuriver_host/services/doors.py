"""The way into running tasks: a WebSocket of a person's, relayed to one of the Runner's, message by message."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from hakuriver.closing import DONE, LOST, was_lost
from hakuriver.errors import ConflictError, DeniedError, UnreachableError, UsageError
from hakuriver.exchange import credit_of
from hakuriver.states import TaskState
from hakuriver_host.domain.cluster import lost
from hakuriver_host.domain.model import Task
from hakuriver_host.runners import RunnerTalker
from hakuriver_host.services.access import Principal, token_is_over
from hakuriver_host.services.core import Core
from hakuriver_host.services.keys import Keys
from hakuriver_host.services.nodes import Nodes
from hakuriver_host.services.tasks import Tasks

if TYPE_CHECKING:
    from hakuriver.exchange import Talker


_HINTS = {
    TaskState.PAUSED: "resume it: `hakuriver task resume {}`",
    TaskState.STOPPED: "start it: `hakuriver vps start {}`",
}


class Doors:
    def __init__(self, core: Core, nodes: Nodes, tasks: Tasks, keys: Keys) -> None:
        self._core, self._nodes, self._tasks, self._keys = core, nodes, tasks, keys
        self._guests: dict[tuple[int, str], set[asyncio.Event]] = {}
        """By task and user, what tells those who are in it that they are shut out."""

    async def relay(
        self, task_id: int, door: str, person: Talker, principal: Principal, revoked: asyncio.Event
    ) -> None:
        """Lets a person talk with a door of the Runner that runs the task, until either end closes.

        Raises:
            UnauthenticatedError: their token was `revoked` meanwhile.
            NotFoundError: there is no such task.
            DeniedError: it is another's.
            ConflictError: it does not run, or the Runner opens no such door to it.
            UnreachableError: the Runner does not answer, or was lost.
        """
        task = await self.entered(task_id, principal)
        with self.guest(task, principal.name) as shut_out:
            async with self.open(task, door, principal.name) as runner:
                await until_shut_out(relay(person, runner), shut_out, revoked)

    async def entered(self, task_id: int, principal: Principal) -> Task:
        """The live task of this id, for its owner, whoever it is shared with, and admins.

        Raises:
            NotFoundError: there is no such task.
            DeniedError: it is another's.
            ConflictError: it has ended.
        """
        task = self._core.cluster.tasks.get(task_id)
        if task is None or not self._keys.may_enter(task, principal.name):
            await self._tasks.check_owns(task_id, principal)
        return self._core.cluster.tasks[task_id]

    @contextlib.contextmanager
    def guest(self, task: Task, user: str | None) -> Iterator[asyncio.Event]:
        """While somebody is in a task: an event that is set when they are shut out."""
        event, place = asyncio.Event(), (task.task_id, user or "")
        self._guests.setdefault(place, set()).add(event)
        try:
            yield event
        finally:
            self._guests[place].discard(event)
            if not self._guests[place]:
                del self._guests[place]

    def shut_out(self, task_id: int, user: str) -> None:
        """Ends the connections of a user with a task."""
        for event in self._guests.get((task_id, user), ()):
            event.set()

    def shut_out_everywhere(self, user: str) -> None:
        """Ends the connections of a user with all tasks."""
        for (_, guest), events in self._guests.items():
            if guest == user:
                for event in events:
                    event.set()

    @contextlib.asynccontextmanager
    async def open(self, task: Task, door: str, user: str | None = None) -> AsyncIterator[RunnerTalker]:
        """A door of the Runner that runs the task; `user` is who enters by it.

        Raises:
            ConflictError: it does not run.
            UnreachableError: its node is offline, or the Runner does not answer.
        """
        task_id = task.task_id
        if task.state is TaskState.LOST:
            raise lost(task)
        if task.state is not TaskState.RUNNING:
            hint = _HINTS.get(task.state, "wait until it runs: `hakuriver task status {}`")
            raise ConflictError(f"task {task_id} is {task.state}", hint.format(task_id))
        try:
            client = self._nodes.client_of(task.node)
        except ConflictError as error:
            # It may be back soon: unlike in other conflicts, who was lost may try again.
            raise UnreachableError(error.message, error.hint) from None
        path = f"{door}/{task_id}/{task.attempt}"
        if user is not None:
            path += f"?user={quote(user, safe='')}"
        async with client.open(path) as connection:
            yield RunnerTalker(connection, task.node or "")


async def until_shut_out(
    work: Coroutine[Any, Any, None], shut_out: asyncio.Event, revoked: asyncio.Event | None = None
) -> None:
    """Does it to its end.

    Raises:
        DeniedError: whoever came in was shut out before.
        UnauthenticatedError: the token that they came in by was revoked before.
    """
    events = [shut_out] if revoked is None else [shut_out, revoked]
    doing, waiting = asyncio.ensure_future(work), [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait({doing, *waiting}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            # A user who is removed loses both, the token first.
            if revoked is not None and revoked.is_set():
                raise token_is_over()
            raise DeniedError("you are let in no more", "ask its owner or an admin")
        doing.result()
    finally:
        for task in (doing, *waiting):
            task.cancel()
        await asyncio.gather(doing, *waiting, return_exceptions=True)


async def relay(person: Talker, runner: RunnerTalker) -> None:
    """Carries messages both ways until either end closes. The Runner is told whether the person left, or was lost.

    What the Runner sends is read whether or not the person reads: as much as the person has not dealt with is kept here,
    so nobody may say to have dealt with more than was sent.

    Raises:
        UsageError: the person says so.
    """
    sent = dealt_with = 0

    async def inward() -> None:
        nonlocal dealt_with
        while (message := await person.receive())["type"] != "websocket.disconnect":
            data = message.get("bytes")
            if data is None:
                text = message.get("text") or ""
                dealt_with += credit_of(text)
                if dealt_with > sent:
                    raise UsageError("`more` was said for what was not sent", "count what has come")
                await runner.send_text(text)
            else:
                await runner.send_bytes(data)
        await runner.leave(LOST if was_lost(message.get("code")) else DONE)

    async def outward() -> None:
        nonlocal sent
        while (message := await runner.receive())["type"] != "websocket.disconnect":
            data = message.get("bytes")
            if data is None:
                await person.send_text(message["text"])
            else:
                sent += len(data)
                await person.send_bytes(data)

    coming, going = asyncio.create_task(inward()), asyncio.create_task(outward())
    try:
        await asyncio.wait({coming, going}, return_when=asyncio.FIRST_COMPLETED)
        if coming.done() and isinstance(refused := coming.exception(), UsageError):
            raise refused
        # A person who leaves has the Runner end it, whose last words are heard still.
        await going
    finally:
        for task in (coming, going):
            task.cancel()
        await asyncio.gather(coming, going, return_exceptions=True)
