"""Where a follower is in a stream: what to ask for next, and what an event means.

A cursor does no input or output. After a lost connection its `call` asks for what has not been seen yet, so nothing
is given twice and nothing is left out.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from hakuriver import models
from hakuriver.client import calls
from hakuriver.client.sse import ServerEvent
from hakuriver.errors import InternalError

if TYPE_CHECKING:
    from hakuriver.models.tasks import TaskEvent


T_co = TypeVar("T_co", covariant=True)


class Cursor(Protocol, Generic[T_co]):
    @property
    def done(self) -> bool:
        """Whether the stream has reached its end, so that a closed connection is not a lost one."""
        ...

    def call(self) -> calls.Call[None]: ...
    def take(self, event: ServerEvent) -> T_co | None: ...


class LogCursor:
    """Follows the log of one attempt, or of the latest and those after it; gives its parts.

    `after` is what was read already. `end` is the event that the log ended with.
    """

    def __init__(
        self,
        task_id: int,
        stream: calls.Stream,
        offset: int = 0,
        attempt: int | None = None,
        after: calls.LogPart | None = None,
    ) -> None:
        self.end: TaskEvent | None = None
        self._task_id = task_id
        self._stream = stream
        self._attempt = attempt
        self._offset = after.next_offset if after else offset
        self._seen = after.attempt if after else None
        """The attempt that `_offset` is of; none before anything came."""

    @property
    def done(self) -> bool:
        return self.end is not None

    def call(self) -> calls.Call[None]:
        return calls.follow_log(
            self._task_id, self._stream, offset=self._offset, attempt=self._attempt, seen=self._seen
        )

    def take(self, event: ServerEvent) -> calls.LogPart | None:
        if event.event == "end":
            self.end = calls.read_json(models.tasks.TaskEvent, event.data)
        if event.event != "log":
            return None
        chunk = calls.read_json(models.tasks.LogChunk, event.data)
        if self._seen is not None and chunk.attempt < self._seen:
            return None
        if chunk.attempt != self._seen:
            self._seen, self._offset = chunk.attempt, chunk.offset
        data, skip = _decode(chunk.data), self._offset - chunk.offset
        self._offset = max(self._offset, chunk.next_offset)
        news = data[skip:] if skip > 0 else data
        return calls.LogPart(news, self._offset, self._seen) if news else None


class EventCursor:
    """Follows the changes of state, of one task, one batch or all; has no end of its own."""

    done = False

    def __init__(
        self, since: int | None = None, *, task_id: int | None = None, batch_id: int | None = None
    ) -> None:
        self.since = since
        self._task_id = task_id
        self._batch_id = batch_id

    def call(self) -> calls.Call[None]:
        return calls.events(self.since, task_id=self._task_id, batch_id=self._batch_id)

    def take(self, event: ServerEvent) -> TaskEvent | None:
        if event.event != "task":
            return None
        change = calls.read_json(models.tasks.TaskEvent, event.data)
        if self.since is not None and change.sequence <= self.since:
            return None
        self.since = change.sequence
        return change


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise InternalError("the Host sent a piece of a log that is not base64") from None
