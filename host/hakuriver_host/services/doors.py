"""The way into running tasks: a WebSocket of a person's, relayed to one of the Runner's, message by message."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from hakuriver.errors import ConflictError
from hakuriver.states import TaskState
from hakuriver_host.domain.model import Task
from hakuriver_host.runners import RunnerTalker
from hakuriver_host.services.access import Principal
from hakuriver_host.services.core import Core
from hakuriver_host.services.nodes import Nodes
from hakuriver_host.services.tasks import Tasks

if TYPE_CHECKING:
    from hakuriver.exchange import Talker


class Doors:
    def __init__(self, core: Core, nodes: Nodes, tasks: Tasks) -> None:
        self._core, self._nodes, self._tasks = core, nodes, tasks

    async def relay(self, task_id: int, door: str, person: Talker, principal: Principal) -> None:
        """Lets a person talk with a door of the Runner that runs the task, until either end closes.

        Raises:
            NotFoundError: there is no such task.
            DeniedError: it is another's.
            ConflictError: it does not run, or the Runner opens no such door to it.
            UnreachableError: the Runner does not answer, or was lost.
        """
        await self._tasks.check_owns(task_id, principal)
        async with self.open(self._core.cluster.tasks[task_id], door) as runner:
            await relay(person, runner)

    @contextlib.asynccontextmanager
    async def open(self, task: Task, door: str) -> AsyncIterator[RunnerTalker]:
        """A door of the Runner that runs the task.

        Raises:
            ConflictError: it does not run.
            UnreachableError: the Runner does not answer.
        """
        task_id = task.task_id
        if task.state is not TaskState.RUNNING:
            hint = "resume it" if task.state is TaskState.PAUSED else "wait until it runs"
            raise ConflictError(
                f"task {task_id} is {task.state}", f"{hint}: `hakuriver task status {task_id}`"
            )
        client = self._nodes.client_of(task.node)
        async with client.open(f"{door}/{task_id}/{task.attempt}") as connection:
            yield RunnerTalker(connection, task.node or "")


async def relay(person: Talker, runner: RunnerTalker) -> None:
    """Carries messages both ways until either end closes."""

    async def inward() -> None:
        while (message := await person.receive())["type"] != "websocket.disconnect":
            data = message.get("bytes")
            if data is None:
                await runner.send_text(message.get("text") or "")
            else:
                await runner.send_bytes(data)
        await runner.close()

    listener = asyncio.create_task(inward())
    try:
        while (message := await runner.receive())["type"] != "websocket.disconnect":
            data = message.get("bytes")
            if data is None:
                await person.send_text(message["text"])
            else:
                await person.send_bytes(data)
    finally:
        listener.cancel()
        await asyncio.gather(listener, return_exceptions=True)
