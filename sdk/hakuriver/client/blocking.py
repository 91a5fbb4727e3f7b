"""The client for ordinary, blocking programs. What it asks for is built in `calls`."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import closing
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
    from hakuriver.client.environments import EnvironmentCalls
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


class Client:
    """Talks to a Host. Use it in a `with` block, or call `close`; it may be shared between threads.

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
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._address = wire.address(url, token, ca_file=ca_file, timeout=timeout, patience=patience)
        self._http = httpx.Client(**self._address.options(), transport=transport)
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

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def submit(
        self, request: SubmitRequest | None = None, *, idempotency_key: str | None = None, **fields: Any
    ) -> SubmitResponse:
        """Submits `request`, or the one that the keyword arguments make.

        A connection that is lost meanwhile is tried again with the same key, so the tasks are made once.
        """
        request = request or calls.submit_request(fields)
        return self._send(calls.submit(request, idempotency_key or uuid4().hex))

    def tasks(
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
        return self._send(
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

    def iter_tasks(self, *, page: int = 200, **filters: Any) -> Generator[TaskSummary]:
        """All tasks that match, newest first, fetched page by page as they are read."""
        cursor: str | None = None
        while True:
            found = self.tasks(limit=page, cursor=cursor, **filters)
            yield from found.tasks
            cursor = found.next_cursor
            if cursor is None:
                return

    def task(self, task_id: int) -> TaskDetail:
        return self._send(calls.task(task_id))

    def explain(self, task_id: int) -> TaskExplanation:
        """Why the task waits, node by node."""
        return self._send(calls.explain(task_id))

    def kill(self, task_id: int) -> Message:
        return self._send(calls.kill(task_id))

    def pause(self, task_id: int) -> Message:
        return self._send(calls.pause(task_id))

    def resume(self, task_id: int) -> Message:
        return self._send(calls.resume(task_id))

    def hold(self, task_id: int) -> Message:
        """Keeps a task that waits from being placed, until it is released."""
        return self._send(calls.hold(task_id))

    def release(self, task_id: int) -> Message:
        return self._send(calls.release(task_id))

    def reprioritize(self, task_id: int, priority: int) -> Message:
        """Gives a task that waits another place in the queue: the higher the priority, the sooner."""
        return self._send(calls.reprioritize(task_id, models.tasks.PriorityRequest(priority=priority)))

    def queue(self, *, owner: str | None = None, limit: int | None = None) -> list[QueuedTask]:
        """The tasks that wait: in line first, in its order, then those that stand aside."""
        return self._send(calls.queue(owner=owner, limit=limit))

    def retry(self, task_id: int, *, idempotency_key: str | None = None) -> SubmitResponse:
        """Submits what a task that has ended asked for once more, as a new task; with a key, as `submit`."""
        return self._send(calls.retry(task_id, idempotency_key or uuid4().hex))

    def batches(
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
        return self._send(
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

    def iter_batches(self, *, page: int = 200, **filters: Any) -> Generator[BatchSummary]:
        """All batches that match, newest first, fetched page by page as they are read."""
        cursor: str | None = None
        while True:
            found = self.batches(limit=page, cursor=cursor, **filters)
            yield from found.batches
            cursor = found.next_cursor
            if cursor is None:
                return

    def batch(self, batch_id: int) -> BatchDetail:
        return self._send(calls.batch(batch_id))

    def kill_batch(self, batch_id: int) -> Message:
        """Ends all tasks of a batch that have not ended."""
        return self._send(calls.kill_batch(batch_id))

    def hold_batch(self, batch_id: int) -> Message:
        """Keeps the tasks of a batch that wait from being placed, until they are released."""
        return self._send(calls.hold_batch(batch_id))

    def release_batch(self, batch_id: int) -> Message:
        return self._send(calls.release_batch(batch_id))

    def reprioritize_batch(self, batch_id: int, priority: int) -> Message:
        """Gives the tasks of a batch that wait another place in the queue."""
        return self._send(calls.reprioritize_batch(batch_id, models.tasks.PriorityRequest(priority=priority)))

    def retry_batch(self, batch_id: int, *, idempotency_key: str | None = None) -> SubmitResponse:
        """Submits the tasks of a batch that have ended and not completed again, as a new batch with the same numbers."""
        return self._send(calls.retry_batch(batch_id, idempotency_key or uuid4().hex))

    def log(
        self,
        task_id: int,
        stream: calls.Stream,
        *,
        offset: int = 0,
        limit: int | None = None,
        attempt: int | None = None,
    ) -> calls.LogPart:
        """At most `limit` bytes from `offset` on, and where to read on; the Host may give fewer."""
        return self._send(calls.log(task_id, stream, offset=offset, limit=limit, attempt=attempt))

    def stdout(self, task_id: int, *, offset: int = 0, attempt: int | None = None) -> bytes:
        """All of it that is there now, from `offset` on."""
        return b"".join(part.data for part in self.parts(task_id, "stdout", offset=offset, attempt=attempt))

    def stderr(self, task_id: int, *, offset: int = 0, attempt: int | None = None) -> bytes:
        return b"".join(part.data for part in self.parts(task_id, "stderr", offset=offset, attempt=attempt))

    def parts(
        self, task_id: int, stream: calls.Stream, *, offset: int = 0, attempt: int | None = None
    ) -> Generator[calls.LogPart]:
        """What is there now, piece by piece, all of one attempt."""
        while (part := self.log(task_id, stream, offset=offset, attempt=attempt)).data:
            yield part
            offset, attempt = part.next_offset, part.attempt or attempt

    def follow(
        self,
        task_id: int,
        stream: calls.Stream = "stdout",
        *,
        offset: int = 0,
        attempt: int | None = None,
        after: calls.LogPart | None = None,
    ) -> Generator[bytes]:
        """The log from `offset` on, or `after` a part that was read, as it is written, until the task has ended.

        Without `attempt` it begins in the latest and goes on with those that follow when the task is tried again.
        """
        for part in self.follow_parts(task_id, stream, offset=offset, attempt=attempt, after=after):
            yield part.data

    def follow_parts(
        self,
        task_id: int,
        stream: calls.Stream = "stdout",
        *,
        offset: int = 0,
        attempt: int | None = None,
        after: calls.LogPart | None = None,
    ) -> Generator[calls.LogPart]:
        """As `follow`, each piece with the attempt that wrote it."""
        return self._stream(LogCursor(task_id, stream, offset, attempt, after))

    def events(
        self, since: int | None = None, *, task_id: int | None = None, batch_id: int | None = None
    ) -> Generator[TaskEvent]:
        """Changes of state after the one numbered `since`; without it, from now on. It does not end by itself."""
        return self._stream(EventCursor(since, task_id=task_id, batch_id=batch_id))

    def wait(
        self, task_ids: Iterable[int], *, told: Callable[[int], None] | None = None
    ) -> dict[int, TaskEvent]:
        """Waits until all have ended; gives the final event of each, in the order given. Follows, polls nothing.

        `told` is called with how many have ended so far.
        """
        waiting = Waiting(task_ids, told)
        while remaining := waiting.remaining:
            cursor = waiting.next_cursor(self.task(remaining[0]))
            if cursor is not None:
                with closing(self._stream(cursor)) as changes:
                    for event in changes:
                        if waiting.take(event):
                            break
        return waiting.results()

    def wait_batch(self, batch_id: int, *, told: Callable[[int], None] | None = None) -> BatchDetail:
        """Waits until all tasks of a batch have ended, and gives how they did. Follows, polls nothing.

        `told` is called with how many have ended so far.
        """
        waiting = BatchWaiting(told)
        while True:
            detail = self.batch(batch_id)
            cursor = waiting.next_cursor(detail)
            if cursor is None:
                return detail
            with closing(self._stream(cursor)) as changes:
                for event in changes:
                    if waiting.take(event):
                        break

    def nodes(self) -> list[NodeInfo]:
        return self._send(calls.nodes())

    def cordon(self, name: str) -> NodeDuty:
        """Keeps new attempts from a node; those that it holds go on."""
        return self._send(calls.cordon(name))

    def uncordon(self, name: str) -> NodeDuty:
        return self._send(calls.uncordon(name))

    def label(self, name: str, changes: Mapping[str, str | None]) -> NodeLabels:
        """Gives a node labels, and takes those away whose value is none."""
        return self._send(calls.label(name, changes))

    def drain(self, name: str) -> NodeDuty:
        """Cordons a node to empty it, and says what it still holds; does not wait."""
        return self._send(calls.drain(name))

    def remove_node(self, name: str, *, force: bool = False) -> Message:
        """Removes a node that is offline and holds nothing; with `force` any, and its attempts become `lost`."""
        return self._send(calls.remove_node(name, force=force))

    def health(self, hostname: str | None = None) -> HealthHistory:
        return self._send(calls.health(hostname))

    def cluster(self) -> ClusterStatus:
        return self._send(calls.cluster())

    def environments(self) -> Mapping[str, EnvironmentVersions]:
        return self._send(calls.environments())

    @property
    def env(self) -> EnvironmentCalls:
        """What concerns environments: making, packing, choosing and syncing them."""
        from hakuriver.client.environments import EnvironmentCalls  # noqa: PLC0415  (few need them)

        return EnvironmentCalls(self._http, self._address)

    def users(self) -> list[UserInfo]:
        return self._send(calls.users())

    def create_user(self, request: UserCreate) -> UserInfo:
        return self._send(calls.create_user(request))

    def remove_user(self, name: str) -> Message:
        return self._send(calls.remove_user(name))

    def keys(self) -> list[KeyInfo]:
        return self._send(calls.keys())

    def add_key(self, request: KeyCreate) -> KeyInfo:
        return self._send(calls.add_key(request))

    def remove_key(self, key_id: str) -> Message:
        return self._send(calls.remove_key(key_id))

    def every_vps(self, *, active: bool = True) -> list[VpsSummary]:
        """Those that have not ended, or all; newest first."""
        return self._send(calls.every_vps(active=active))

    def vps(self, reference: str) -> VpsSummary:
        """By its id, or the live one by its name."""
        return self._send(calls.vps(reference))

    def stop_vps(self, reference: str) -> Message:
        """Has a VPS hold nothing any more; its node keeps what is in it. It is `stopped` a moment later."""
        return self._send(calls.stop_vps(reference))

    def start_vps(self, reference: str) -> Message:
        """Has a stopped VPS run again, on its node, as soon as there is room."""
        return self._send(calls.start_vps(reference))

    def extend_vps(self, reference: str, seconds: int) -> Message:
        """Gives a VPS with a time limit so many seconds more."""
        return self._send(calls.extend_vps(reference, seconds))

    def snapshot_vps(self, reference: str, message: str = "") -> PackResult:
        """Keeps what is in a VPS now as a version of the environment `vps-ID`, which is its owner's alone."""
        return self._send(calls.snapshot_vps(reference, message))

    def vps_snapshots(self, reference: str) -> list[VersionInfo]:
        """The snapshots of a VPS, newest first."""
        return self._send(calls.vps_snapshots(reference))

    def restore_vps(self, reference: str, version: int | None = None) -> Message:
        """Has a VPS begin anew from one of its snapshots, the newest by default; what is in it now is gone."""
        return self._send(calls.restore_vps(reference, version))

    def share_vps(self, reference: str, user: str) -> Message:
        """Lets a user into a VPS, given by its id or name."""
        return self._send(calls.share_vps(reference, user))

    def unshare_vps(self, reference: str, user: str) -> Message:
        """Lets a user in no more, and ends their connections."""
        return self._send(calls.unshare_vps(reference, user))

    def gateway(self) -> GatewayInfo:
        return self._send(calls.gateway())

    def tokens(self) -> list[TokenInfo]:
        return self._send(calls.tokens())

    def create_token(self, request: TokenCreate) -> TokenCreated:
        return self._send(calls.create_token(request))

    def revoke_token(self, token_id: str) -> Message:
        return self._send(calls.revoke_token(token_id))

    def whoami(self) -> WhoAmI:
        return self._send(calls.whoami())

    def _send(self, call: calls.Call[T]) -> T:
        retries = wire.Retries(
            self._address.patience, time.monotonic, repeatable=call.repeatable, stood=self._stood
        )
        while True:
            try:
                response = self._http.request(**wire.request_arguments(call, self._address.timeout))
            except httpx.TransportError as error:
                pause = retries.pause_after(error)
                if pause is None:
                    raise self._unreachable(error) from error
                time.sleep(pause)
            else:
                self._stood = True
                wire.check(response, self.url)
                return call.read(response)

    def _stream(self, cursor: Cursor[T]) -> Generator[T]:
        retries = wire.Retries(self._address.patience, time.monotonic, stood=self._stood)
        while not cursor.done:
            try:
                yield from self._connected(cursor, retries)
            except httpx.TransportError as error:
                pause = retries.pause_after(error)
                if pause is None:
                    raise self._unreachable(error) from error
                time.sleep(pause)

    def _connected(self, cursor: Cursor[T], retries: wire.Retries) -> Generator[T]:
        """The items of one connection; a connection that ends before its time counts as lost."""
        arguments = wire.stream_arguments(cursor.call(), self._address.timeout)
        with self._http.stream(**arguments) as response:
            self._stood = True
            if not response.is_success:
                response.read()
            wire.check(response, self.url)
            parser = wire.parser_of(response, self.url)
            for data in response.iter_raw():
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
