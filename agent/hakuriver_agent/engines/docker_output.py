"""Brings the output of one container to its two files on the share, without losing or repeating a byte.

A container started in this life is attached to before it starts, and its output is written as it comes. What was not
seen that way (after a restart of the Runner or of the engine) is read from the engine's own log, from the beginning,
leaving out as many bytes as each file holds: the size of the file is the durable offset.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from hakuriver_agent.logfile import LogFile

if TYPE_CHECKING:
    from docker.api.client import APIClient

STDOUT, STDERR = 1, 2
LAST_WORDS_SECONDS = 10.0
"""How long output that cannot be written holds up the report of an end."""
CUT = "output was cut: the share did not take all of it"
_HEADER = struct.Struct(">BxxxL")
"""Stream and length before each piece, see ContainerAttach in the API's reference."""


class Frames:
    """Cuts the engine's stream into pieces of stdout and stderr."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._stream = STDOUT
        self._left = 0

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Gives what `data` completes; a piece may come in parts."""
        self._buffer += data
        while self._buffer:
            if self._left == 0:
                if len(self._buffer) < _HEADER.size:
                    return
                self._stream, self._left = _HEADER.unpack_from(self._buffer)
                del self._buffer[: _HEADER.size]
                continue
            part = bytes(self._buffer[: self._left])
            del self._buffer[: len(part)]
            self._left -= len(part)
            yield self._stream, part


class ContainerOutput:
    """The output of one container. Every method blocks; threads of its own move the bytes."""

    def __init__(self, client: APIClient, container: str, stdout: LogFile, stderr: LogFile) -> None:
        self._client = client
        self._container = container
        self._files = {STDOUT: stdout, STDERR: stderr}
        self._threads: list[threading.Thread] = []
        self._give_up = threading.Event()
        self._broken = False
        """Bytes may be missing that the engine's log has."""
        self._lost = False
        self._hang_ups: list[Callable[[], object]] = []
        """End the connections that threads read from."""

    def attach(self) -> None:
        """Attaches before the start, and begins to write what comes."""
        stream: Any = self._client.attach_socket(
            self._container, params={"stdout": 1, "stderr": 1, "stream": 1}
        )
        raw: socket.socket = getattr(stream, "_sock", stream)
        raw.settimeout(None)
        self._hang_ups.append(lambda: raw.shutdown(socket.SHUT_RDWR))
        self._spawn(lambda: self._copy(stream, raw))

    def follow(self) -> None:
        """Takes up the output of a container that was started before, from the engine's log."""
        self._broken = True
        for number, file in self._files.items():
            self._spawn(lambda number=number, file=file: self._catch_up(number, file, follow=True))

    def finish(self, hiccup: bool) -> str | None:
        """After the end of the container: waits until all is written; tells what was lost, if anything.

        `hiccup` says that the engine was away meanwhile, so that its log must be looked at again.
        """
        deadline = time.monotonic() + LAST_WORDS_SECONDS
        self._join(deadline)
        if (hiccup or self._broken) and not self._lost:
            for number, file in self._files.items():
                self._spawn(lambda number=number, file=file: self._catch_up(number, file, follow=False))
            self._join(deadline)
        for file in self._files.values():
            file.close()
        return CUT if self._lost else None

    def abandon(self) -> None:
        """Stops writing; the container goes on, and a later life takes it up."""
        self._give_up.set()
        for hang_up in self._hang_ups:
            with contextlib.suppress(Exception):
                hang_up()

    def _spawn(self, work: Any) -> None:
        thread = threading.Thread(target=work, name=f"output {self._container}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _join(self, deadline: float) -> None:
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if any(thread.is_alive() for thread in self._threads):
            self._lost = True
            self._give_up.set()
        self._threads.clear()

    def _copy(self, stream: Any, raw: socket.socket) -> None:
        for file in self._files.values():
            with contextlib.suppress(OSError):
                file.open()
        frames = Frames()
        try:
            while data := raw.recv(1 << 16):
                for number, part in frames.feed(data):
                    if not self._files[number].write(part, self._give_up):
                        self._lost = True
                        return
        except OSError:
            self._broken = True
        finally:
            stream.close()

    def _catch_up(self, number: int, file: LogFile, follow: bool) -> None:
        try:
            skip = file.open()
            pieces: Any = self._client.logs(
                self._container, stdout=number == STDOUT, stderr=number == STDERR, stream=True, follow=follow
            )
            self._hang_ups.append(pieces.close)
            for piece in pieces:
                new = piece[skip:]
                skip = max(0, skip - len(piece))
                if new and not file.write(new, self._give_up):
                    self._lost = True
                    return
        except Exception:  # noqa: BLE001 - the engine went away, in one of many ways; the watcher sees it too
            self._broken = True
