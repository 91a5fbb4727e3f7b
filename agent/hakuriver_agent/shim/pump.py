"""Moves the output of processes from their pipes to the files on the share, in a thread of its own.

A share that hangs stops this thread and nothing else: the shim can still kill and report. A share that is full makes
the pipe fill up, so that the process waits. Standard library only.
"""

from __future__ import annotations

import collections
import contextlib
import os
import select
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from hakuriver_agent.logfile import PASSING, RETRY_SECONDS, LogFile

CHUNK = 65_536
LAST_WORDS_SECONDS = 10.0
"""How long output that cannot be written holds up the report of an end."""


@dataclass
class Stream:
    """One pipe and its file."""

    descriptor: int
    file: LogFile
    output: Output
    pending: bytes | memoryview = b""
    """Read, and not taken by the share yet."""
    ended: bool = False
    retry_at: float = 0.0


class Output:
    """Both streams of one task. `done` is told once, with what was lost, after `finish`."""

    def __init__(self, done: Callable[[str | None], None], grown: Callable[[], None]) -> None:
        self.streams: list[Stream] = []
        self.done = done
        self.grown = grown
        self.deadline: float | None = None
        self.told = False


class Pump:
    """The thread. `add` and `finish` may be called from another one."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._streams: dict[int, Stream] = {}
        self._waiting: list[Stream] = []
        self._ending: list[Output] = []
        self._jobs: collections.deque[tuple[Callable[[Output], None], Output]] = collections.deque()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll.register(self._wake, select.EPOLLIN)
        threading.Thread(target=self._run, name="pump", daemon=True).start()

    def add(self, output: Output) -> None:
        """Begins to move what comes out of the output's pipes."""
        self._post(self._begin, output)

    def finish(self, output: Output) -> None:
        """Everything that wrote to the pipes has ended: moves the rest, then tells `output.done`."""
        self._post(self._end, output)

    def _post(self, job: Callable[[Output], None], output: Output) -> None:
        self._jobs.append((job, output))
        os.eventfd_write(self._wake, 1)

    def _run(self) -> None:
        while True:
            for descriptor, _ in self._poll.poll(RETRY_SECONDS if self._waiting else None):
                if descriptor == self._wake:
                    os.eventfd_read(self._wake)
                elif stream := self._streams.get(descriptor):
                    self._guard(lambda stream=stream: self._move(stream))  # type: ignore[misc]
            self._guard(self._retry)
            while self._jobs:
                job, output = self._jobs.popleft()
                self._guard(lambda job=job, output=output: job(output))  # type: ignore[misc]

    def _guard(self, act: Callable[[], object]) -> None:
        """A defect must not stop the output of the other tasks; it is written to shim.log."""
        try:
            act()
        except Exception:  # noqa: BLE001 - the loop's edge
            traceback.print_exc()

    def _begin(self, output: Output) -> None:
        for stream in output.streams:
            with contextlib.suppress(OSError):
                stream.file.open()
            self._streams[stream.descriptor] = stream
            self._poll.register(stream.descriptor, select.EPOLLIN)

    def _end(self, output: Output) -> None:
        output.deadline = time.monotonic() + LAST_WORDS_SECONDS
        self._ending.append(output)
        for stream in output.streams:
            if not stream.ended and not stream.pending:
                self._drain(stream)
        self._settle(output)

    def _drain(self, stream: Stream) -> None:
        """Moves all that is in the pipe. An escaped process may hold its other end: what is there is enough."""
        while not stream.ended and not stream.pending:
            if not self._move(stream):
                self._close(stream)

    def _move(self, stream: Stream) -> bool:
        """Moves one piece; False when the pipe is empty."""
        try:
            data = os.read(stream.descriptor, CHUNK)
        except BlockingIOError:
            return False
        if not data:
            self._close(stream)
            return True
        stream.pending = memoryview(data)
        self._flush(stream)
        return True

    def _flush(self, stream: Stream) -> None:
        try:
            while stream.pending:
                stream.pending = stream.pending[stream.file.consume(stream.pending) :]
        except OSError as error:
            if error.errno not in PASSING:
                stream.pending = b""
                self._close(stream)
                return
            self._hold(stream)
        stream.output.grown()

    def _hold(self, stream: Stream) -> None:
        if stream not in self._waiting:
            self._poll.unregister(stream.descriptor)
            self._waiting.append(stream)
        stream.retry_at = time.monotonic() + RETRY_SECONDS

    def _retry(self) -> None:
        now = time.monotonic()
        for stream in [stream for stream in self._waiting if stream.retry_at <= now]:
            self._flush(stream)
            if not stream.pending and not stream.ended:
                self._waiting.remove(stream)
                self._poll.register(stream.descriptor, select.EPOLLIN)
                if stream.output.deadline is not None:
                    self._drain(stream)
        for output in [output for output in self._ending if not output.told]:
            self._settle(output)

    def _settle(self, output: Output) -> None:
        """Tells the end of an output when all of it is written, or when it has waited long enough."""
        late = output.deadline is not None and time.monotonic() >= output.deadline
        if not late and not all(stream.ended for stream in output.streams):
            return
        lost = any(stream.pending for stream in output.streams)
        for stream in output.streams:
            stream.pending = b""
            self._close(stream)
        output.told = True
        self._ending.remove(output)
        output.done("output was cut: the share did not take all of it" if lost else None)

    def _close(self, stream: Stream) -> None:
        if stream.ended:
            return
        stream.ended = True
        if stream in self._waiting:
            self._waiting.remove(stream)
        else:
            self._poll.unregister(stream.descriptor)
        self._streams.pop(stream.descriptor, None)
        os.close(stream.descriptor)
        stream.file.close()
