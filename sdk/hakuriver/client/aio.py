"""The client for asyncio programs; `Client` with `await`. What it asks for is built in `calls`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar
from uuid import uuid4

import httpx

from hakuriver import models
from hakuriver.client import calls, wire
from hakuriver.client.streams import Cursor, EventCursor, LogCursor
from hakuriver.client.waiting import BatchWaiting, Waiting
from hakuriver.config import Settings
from hakuriver.errors import UnreachableError

if TYPE_CHECKING:
    from hakuriver.models.access import TokenCreate, TokenCreated, TokenInfo, UserCreate, UserInfo, WhoAmI
    from hakuriver.models.batches import BatchDetail, BatchList, BatchSummary
    from hakuriver.models.environments import PackResult, VersionInfo
    from hakuriver.models.nodes import (
        ClusterStatus,
        EnvironmentVersions,
        HealthHistory,
        NodeDuty,
        NodeInfo,
        NodeLabels,
    )
    from hakuriver.models.submission import SubmitRequest, SubmitResponse
    from hakuriver.models.tasks import (
        Message,
        QueuedTask,
        TaskDetail,
        TaskEvent,
        TaskExplanation,
        TaskList,
        TaskSummary,
    )
    from hakuriver.models.vps import GatewayInfo, KeyCreate, KeyInfo, VpsSummary


T = TypeVar("T")


class AsyncClient:
    """Talks to a Host. Use it in an `async with` block, or call `close`; it belongs to one event loop.

    Every method raises a `hakuriver.errors.HakuRiverError`: the one that the Host sent, or `UnreachableError`.
    `timeout` is how long one answer may take; `patience` is how long a connection that was lost is tried again
    (0: not at all) before `UnreachableError`. A Host that cannot be reached at first is an error at once.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        ca_file: Path | str | None = None,
        timeout: float = 30.0,
        patience: float = 60.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._address = wire.address(url, token, ca_file=ca_file, timeout=timeout, patience=patience)
        self._http = httpx.AsyncClient(**self._address.options(), transport=transport)
        self._stood = False
        """Whether the Host has answered this client before."""

    @classmethod
    def from_settings(cls, settings: Settings, config_file: Path | None = None) -> Self:
        """The Host and token that the configuration names; `config_file` is where it was read from."""
        found = wire.address_of(settings, config_file)
        return cls(found.url, found.token, ca_file=found.ca_file, timeout=found.timeout)

    @property
    def url(self) -> str:
        return self._address.url

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def submit(
        self, request: SubmitRequest | None = None, *, idempotency_key: str | None = None, **fields: Any
    ) -> SubmitResponse:
        """Submits `request`, or the one that the keyword arguments make.

        A connection that is lost meanwhile is tried again with the same key, so the tasks are made once.
        """
        request = request or calls.submit_request(fields)
        return await self._send(calls.submit(request, idempotency_key or uuid4().hex))

    async def tasks(
        self,
        *,
        status: Iterable[str] = (),
        node: str | None = None,
        owner: str | None = None,
        batch_id: int | None = None,
        name: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> TaskList:
        """One page of tasks, newest first."""
        return await self._send(
            calls.tasks(
                status=status,
                node=node,
                owner=owner,
                batch_id=batch_id,
                name=name,
                limit=limit,
                cursor=cursor,
            )
        )

    async def iter_tasks(self, *, page: int = 200, **filters: Any) -> AsyncGenerator[TaskSummary]:
        """All tasks that match, newest first, fetched page by page as they are read."""
        cursor: str | None = None
        while True:
            found = await self.tasks(limit=page, cursor=cursor, **filters)
            for task in found.tasks:
                yield task
            cursor = found.next_cursor
            if cursor is None:
                return

    async def task(self, task_id: int) -> TaskDetail:
        return await self._send(calls.task(task_id))

    async def explain(self, task_id: int) -> TaskExplanation:
        """Why the task waits, node by node."""
        return await self._send(calls.explain(task_id))

    async def kill(self, task_id: int) -> Message:
        return await self._send(calls.kill(task_id))

    async def pause(self, task_id: int) -> Message:
        return await self._send(calls.pause(task_id))

    async def resume(self, task_id: int) -> Message:
        return await self._send(calls.resume(task_id))

    async def hold(self, task_id: int) -> Message:
        """Keeps a task that waits from being placed, until it is released."""
        return await self._send(calls.hold(task_id))

    async def release(self, task_id: int) -> Message:
        return await self._send(calls.release(task_id))

    async def reprioritize(self, task_id: int, priority: int) -> Message:
        """Gives a task that waits another place in the queue: the higher the priority, the sooner."""
        return await self._send(calls.reprioritize(task_id, models.tasks.PriorityRequest(priority=priority)))

    async def queue(self, *, owner: str | None = None, limit: int | None = None) -> list[QueuedTask]:
        """The tasks that wait: in line first, in its order, then those that stand aside."""
        return await self._send(calls.queue(owner=owner, limit=limit))

    async def retry(self, task_id: int, *, idempotency_key: str | None = None) -> SubmitResponse:
        """Submits what a task that has ended asked for once more, as a new task; with a key, as `submit`."""
        return await self._send(calls.retry(task_id, idempotency_key or uuid4().hex))

    async def batches(
        self,
        *,
        status: Iterable[str] = (),
        node: str | None = None,
        owner: str | None = None,
        batch_id: int | None = None,
        name: str | None = None,
        min_tasks: int | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> BatchList:
        """One page of batches, newest first, with how those of their tasks are that match."""
        return await self._send(
            calls.batches(
                status=status,
                node=node,
                owner=owner,
                batch_id=batch_id,
                name=name,
                min_tasks=min_tasks,
                limit=limit,
                cursor=cursor,
            )
        )

    async def iter_batches(self, *, page: int = 200, **filters: Any) -> AsyncGenerator[BatchSummary]:
        """All batches that match, newest first, fetched page by page as they are read."""
        cursor: str | None = None
        while True:
            found = await self.batches(limit=page, cursor=cursor, **filters)
            for batch in found.batches:
                yield batch
            cursor = found.next_cursor
            if cursor is None:
                return

    async def batch(self, batch_id: int) -> BatchDetail:
        return await self._send(calls.batch(batch_id))

    async def kill_batch(self, batch_id: int) -> Message:
        """Ends all tasks of a batch that have not ended."""
        return await self._send(calls.kill_batch(batch_id))

    async def hold_batch(self, batch_id: int) -> Message:
        """Keeps the tasks of a batch that wait from being placed, until they are released."""
        return await self._send(calls.hold_batch(batch_id))

    async def release_batch(self, batch_id: int) -> Message:
        return await self._send(calls.release_batch(batch_id))

    async def reprioritize_batch(self, batch_id: int, priority: int) -> Message:
        """Gives the tasks of a batch that wait another place in the queue."""
        return await self._send(
            calls.reprioritize_batch(batch_id, models.tasks.PriorityRequest(priority=priority))
        )

    async def retry_batch(self, batch_id: int, *, idempotency_key: str | None = None) -> SubmitResponse:
        """Submits the tasks of a batch that have ended and not completed again, as a new batch with the same numbers."""
        return await self._send(calls.retry_batch(batch_id, idempotency_key or uuid4().hex))

    async def log(
        self,
        task_id: int,
        stream: calls.Stream,
        *,
        offset: int = 0,
        limit: int | None = None,
        attempt: int | None = None,
    ) -> calls.LogPart:
        """At most `limit` bytes from `offset` on, and where to read on; the Host may give fewer."""
        return await self._send(calls.log(task_id, stream, offset=offset, limit=limit, attempt=attempt))

    async def stdout(self, task_id: int, *, offset: int = 0, attempt: int | None = None) -> bytes:
        """All of it that is there now, from `offset` on."""
        return b"".join(
            [part.data async for part in self.parts(task_id, "stdout", offset=offset, attempt=attempt)]
        )

    async def stderr(self, task_id: int, *, offset: int = 0, attempt: int | None = None) -> bytes:
        return b"".join(
            [part.data async for part in self.parts(task_id, "stderr", offset=offset, attempt=attempt)]
        )

    async def parts(
        self, task_id: int, stream: calls.Stream, *, offset: int = 0, attempt: int | None = None
    ) -> AsyncGenerator[calls.LogPart]:
        """What is there now, piece by piece, all of one attempt."""
        while (part := await self.log(task_id, stream, offset=offset, attempt=attempt)).data:
            yield part
            offset, attempt = part.next_offset, part.attempt or attempt

    async def follow(
        self,
        task_id: int,
        stream: calls.Stream = "stdout",
        *,
        offset: int = 0,
        attempt: int | None = None,
        after: calls.LogPart | None = None,
    ) -> AsyncGenerator[bytes]:
        """The log from `offset` on, or `after` a part that was read, as it is written, until the task has ended.

        Without `attempt` it begins in the latest and goes on with those that follow when the task is tried again.
        """
        following = self.follow_parts(task_id, stream, offset=offset, attempt=attempt, after=after)
        async with aclosing(following) as parts:
            async for part in parts:
                yield part.data

    def follow_parts(
        self,
        task_id: int,
        stream: calls.Stream = "stdout",
        *,
        offset: int = 0,
        attempt: int | None = None,
        after: calls.LogPart | None = None,
    ) -> AsyncGenerator[calls.LogPart]:
        """As `follow`, each piece with the attempt that wrote it."""
        return self._stream(LogCursor(task_id, stream, offset, attempt, after))

    def events(
        self, since: int | None = None, *, task_id: int | None = None, batch_id: int | None = None
    ) -> AsyncGenerator[TaskEvent]:
        """Changes of state after the one numbered `since`; without it, from now on. It does not end by itself."""
        return self._stream(EventCursor(since, task_id=task_id, batch_id=batch_id))

    async def wait(
        self, task_ids: Iterable[int], *, told: Callable[[int], None] | None = None
    ) -> dict[int, TaskEvent]:
        """Waits until all have ended; gives the final event of each, in the order given. Follows, polls nothing.

        `told` is called with how many have ended so far.
        """
        waiting = Waiting(task_ids, told)
        while remaining := waiting.remaining:
            cursor = waiting.next_cursor(await self.task(remaining[0]))
            if cursor is not None:
                async with aclosing(self._stream(cursor)) as changes:
                    async for event in changes:
                        if waiting.take(event):
                            break
        return waiting.results()

    async def wait_batch(self, batch_id: int, *, told: Callable[[int], None] | None = None) -> BatchDetail:
        """Waits until all tasks of a batch have ended, and gives how they did. Follows, polls nothing.

        `told` is called with how many have ended so far.
        """
        waiting = BatchWaiting(told)
        while True:
            detail = await self.batch(batch_id)
            cursor = waiting.next_cursor(detail)
            if cursor is None:
                return detail
            async with aclosing(self._stream(cursor)) as changes:
                async for event in changes:
                    if waiting.take(event):
                        break

    async def nodes(self) -> list[NodeInfo]:
        return await self._send(calls.nodes())

    async def cordon(self, name: str) -> NodeDuty:
        """Keeps new attempts from a node; those that it holds go on."""
        return await self._send(calls.cordon(name))

    async def uncordon(self, name: str) -> NodeDuty:
        return await self._send(calls.uncordon(name))

    async def label(self, name: str, changes: Mapping[str, str | None]) -> NodeLabels:
        """Gives a node labels, and takes those away whose value is none."""
        return await self._send(calls.label(name, changes))

    async def drain(self, name: str) -> NodeDuty:
        """Cordons a node to empty it, and says what it still holds; does not wait."""
        return await self._send(calls.drain(name))

    async def remove_node(self, name: str, *, force: bool = False) -> Message:
        """Removes a node that is offline and holds nothing; with `force` any, and its attempts become `lost`."""
        return await self._send(calls.remove_node(name, force=force))

    async def health(self, hostname: str | None = None) -> HealthHistory:
        return await self._send(calls.health(hostname))

    async def cluster(self) -> ClusterStatus:
        return await self._send(calls.cluster())

    async def environments(self) -> Mapping[str, EnvironmentVersions]:
        return await self._send(calls.environments())

    async def users(self) -> list[UserInfo]:
        return await self._send(calls.users())

    async def create_user(self, request: UserCreate) -> UserInfo:
        return await self._send(calls.create_user(request))

    async def remove_user(self, name: str) -> Message:
        return await self._send(calls.remove_user(name))

    async def keys(self) -> list[KeyInfo]:
        return await self._send(calls.keys())

    async def add_key(self, request: KeyCreate) -> KeyInfo:
        return await self._send(calls.add_key(request))

    async def remove_key(self, key_id: str) -> Message:
        return await self._send(calls.remove_key(key_id))

    async def every_vps(self, *, active: bool = True) -> list[VpsSummary]:
        """Those that have not ended, or all; newest first."""
        return await self._send(calls.every_vps(active=active))

    async def vps(self, reference: str) -> VpsSummary:
        """By its id, or the live one by its name."""
        return await self._send(calls.vps(reference))

    async def stop_vps(self, reference: str) -> Message:
        """Has a VPS hold nothing any more; its node keeps what is in it. It is `stopped` a moment later."""
        return await self._send(calls.stop_vps(reference))

    async def start_vps(self, reference: str) -> Message:
        """Has a stopped VPS run again, on its node, as soon as there is room."""
        return await self._send(calls.start_vps(reference))

    async def extend_vps(self, reference: str, seconds: int) -> Message:
        """Gives a VPS with a time limit so many seconds more."""
        return await self._send(calls.extend_vps(reference, seconds))

    async def snapshot_vps(self, reference: str, message: str = "") -> PackResult:
        """Keeps what is in a VPS now as a version of the environment `vps-ID`, which is its owner's alone."""
        return await self._send(calls.snapshot_vps(reference, message))

    async def vps_snapshots(self, reference: str) -> list[VersionInfo]:
        """The snapshots of a VPS, newest first."""
        return await self._send(calls.vps_snapshots(reference))

    async def restore_vps(self, reference: str, version: int | None = None) -> Message:
        """Has a VPS begin anew from one of its snapshots, the newest by default; what is in it now is gone."""
        return await self._send(calls.restore_vps(reference, version))

    async def share_vps(self, reference: str, user: str) -> Message:
        """Lets a user into a VPS, given by its id or name."""
        return await self._send(calls.share_vps(reference, user))

    async def unshare_vps(self, reference: str, user: str) -> Message:
        """Lets a user in no more, and ends their connections."""
        return await self._send(calls.unshare_vps(reference, user))

    async def gateway(self) -> GatewayInfo:
        return await self._send(calls.gateway())

    async def tokens(self) -> list[TokenInfo]:
        return await self._send(calls.tokens())

    async def create_token(self, request: TokenCreate) -> TokenCreated:
        return await self._send(calls.create_token(request))

    async def revoke_token(self, token_id: str) -> Message:
        return await self._send(calls.revoke_token(token_id))

    async def whoami(self) -> WhoAmI:
        return await self._send(calls.whoami())

    async def _send(self, call: calls.Call[T]) -> T:
        retries = wire.Retries(
            self._address.patience, time.monotonic, repeatable=call.repeatable, stood=self._stood
        )
        while True:
            try:
                response = await self._http.request(**wire.request_arguments(call, self._address.timeout))
            except httpx.TransportError as error:
                pause = retries.pause_after(error)
                if pause is None:
                    raise self._unreachable(error) from error
                await asyncio.sleep(pause)
            else:
                self._stood = True
                wire.check(response, self.url)
                return call.read(response)

    async def _stream(self, cursor: Cursor[T]) -> AsyncGenerator[T]:
        retries = wire.Retries(self._address.patience, time.monotonic, stood=self._stood)
        while not cursor.done:
            try:
                async with aclosing(self._connected(cursor, retries)) as items:
                    async for item in items:
                        yield item
            except httpx.TransportError as error:
                pause = retries.pause_after(error)
                if pause is None:
                    raise self._unreachable(error) from error
                await asyncio.sleep(pause)

    async def _connected(self, cursor: Cursor[T], retries: wire.Retries) -> AsyncGenerator[T]:
        """The items of one connection; a connection that ends before its time counts as lost."""
        arguments = wire.stream_arguments(cursor.call(), self._address.timeout)
        async with self._http.stream(**arguments) as response:
            self._stood = True
            if not response.is_success:
                await response.aread()
            wire.check(response, self.url)
            parser = wire.parser_of(response, self.url)
            async for data in response.aiter_raw():
                retries.connected()
                for event in parser.feed(data):
                    item = cursor.take(event)
                    if item is not None:
                        yield item
                    if cursor.done:
                        return
        raise httpx.RemoteProtocolError("the Host closed the stream")

    def _unreachable(self, error: httpx.TransportError) -> UnreachableError:
        return wire.unreachable(error, self.url, self._address.timeout)
