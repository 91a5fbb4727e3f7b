"""The way into running tasks: a WebSocket of a person's, relayed to one of the Runner's, message by message."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from hakuriver.closing import error_said, error_told
from hakuriver.errors import ConflictError, UnreachableError
from hakuriver.exchange import order_of
from hakuriver.states import TaskState
from hakuriver_host.services.access import Principal
from hakuriver_host.services.core import Core
from hakuriver_host.services.nodes import Nodes
from hakuriver_host.services.tasks import Tasks

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

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
        task = self._core.cluster.tasks[task_id]
        if task.state is not TaskState.RUNNING:
            hint = "resume it" if task.state is TaskState.PAUSED else "wait until it runs"
            raise ConflictError(
                f"task {task_id} is {task.state}", f"{hint}: `hakuriver task status {task_id}`"
            )
        client = self._nodes.client_of(task.node)
        async with client.open(f"{door}/{task_id}/{task.attempt}") as runner:
            await _relay(person, runner, f"{task.node}")


async def _relay(person: Talker, runner: ClientConnection, node: str) -> None:
    from websockets.exceptions import ConnectionClosed, ConnectionClosedError  # noqa: PLC0415 - as in `runners`

    async def inward() -> None:
        with contextlib.suppress(ConnectionClosed):
            while (message := await person.receive())["type"] != "websocket.disconnect":
                data = message.get("bytes")
                await runner.send(message.get("text") or "" if data is None else data)
        await runner.close()

    listener = asyncio.create_task(inward())
    try:
        async for message in runner:
            if isinstance(message, bytes):
                await person.send_bytes(message)
            elif error := error_said(order_of(message)):
                raise error
            else:
                await person.send_text(message)
    except ConnectionClosedError as error:
        told = error.rcvd and error_told(error.rcvd.code, error.rcvd.reason)
        if told:
            raise told from None
        raise UnreachableError(f"the connection to {node} was lost", "see whether its Runner runs") from None
    finally:
        listener.cancel()
        await asyncio.gather(listener, return_exceptions=True)
