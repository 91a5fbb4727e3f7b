"""The connection to the shim: requests and answers, ends as they happen, and a new shim when it is gone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

import hakuriver_agent
from hakuriver.threads import in_thread
from hakuriver_agent.engines.commands import DEFAULT_PATH, systemd_scope
from hakuriver_agent.engines.port import EngineUnavailableError

START_SECONDS = 15.0
TRIES = 3
_LINE_LIMIT = 1 << 26
_PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from hakuriver_agent.shim.server import main; main(sys.argv[2], int(sys.argv[3]), sys.argv[4])"
)

Fields = dict[str, Any]
log = structlog.get_logger(__name__)


class ShimLink:
    """Speaks with the shim that serves in `folder`, which it starts when none does."""

    def __init__(
        self, folder: Path, group_name: str, ended: Callable[[str, Fields], None], systemd: bool = False
    ) -> None:
        self._folder = folder
        self._group_name = group_name
        self._systemd = systemd
        """Give the shim a scope of its own, so that it outlives the Runner's service however that is stopped."""
        self._ended = ended
        """Called with key and fields of every end, also of those that an earlier Runner may have seen."""
        self._writer: asyncio.StreamWriter | None = None
        self._answers: dict[int, asyncio.Future[Fields]] = {}
        self._last_id = 0
        self._unsent: list[str] = []
        self._connecting = asyncio.Lock()
        self._reader_task: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def exists(self) -> bool:
        """Whether a shim serves here, or has left records."""
        return (self._folder / "shim.sock").exists() or (self._folder / "shim.records").exists()

    async def request(self, fields: Fields) -> Fields:
        """Sends a request and waits for its answer; safe to send again, so a lost shim is replaced and asked anew.

        Raises:
            EngineUnavailableError: no shim can be reached.
            OSError: the shim could not do it.
        """
        for _ in range(TRIES):
            await self.connect()
            with contextlib.suppress(ConnectionError):
                answer: Fields = await self._ask(fields)
                if "error" in answer:
                    raise OSError(answer.get("errno") or 0, answer["error"])
                return answer
        raise EngineUnavailableError("the shim of the process engine does not answer")

    async def connect(self) -> None:
        """Connects, starting a shim if none serves. Does nothing when connected."""
        async with self._connecting:
            if self._writer is not None:
                return
            if self._closed:
                raise EngineUnavailableError("the process engine is closed")
            try:
                await self._open()
            except OSError:
                await in_thread(self._spawn, START_SECONDS)
                try:
                    await self._open()
                except OSError as error:
                    raise EngineUnavailableError(f"cannot reach the shim: {error}") from None

    async def close(self) -> None:
        """Disconnects. The shim stays while it has anything."""
        if self._writer is not None:
            with contextlib.suppress(ConnectionError, TimeoutError):
                await asyncio.wait_for(self._ask({"do": "quit"}), 2)
        self._closed = True
        if self._writer is not None:
            self._writer.close()
        if self._reader_task is not None:
            self._reader_task.cancel()

    async def _open(self) -> None:
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            # A socket's path has at most 107 bytes; this one is short wherever the folder is.
            reader, writer = await asyncio.open_unix_connection(
                f"/proc/self/fd/{folder}/shim.sock", limit=_LINE_LIMIT
            )
        finally:
            os.close(folder)
        peer = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        if struct.unpack("3i", peer)[1] != os.geteuid():
            writer.close()
            raise EngineUnavailableError("the shim's socket belongs to another user")
        self._writer = writer
        self._reader_task = asyncio.create_task(self._read(reader))
        try:
            hello = await self._ask({"do": "hello"})
        except ConnectionError as error:
            raise OSError("the shim hung up") from error
        for key, unit in hello["units"].items():
            if "ended" in unit:
                self._ended(key, unit["ended"])

    async def _ask(self, fields: Fields) -> Fields:
        if self._writer is None:
            raise ConnectionResetError
        self._last_id += 1
        number = self._last_id
        future: asyncio.Future[Fields] = asyncio.get_running_loop().create_future()
        self._answers[number] = future
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self._flush)
        self._unsent.append(json.dumps({"id": number, **fields}))
        return await future

    def _flush(self) -> None:
        """What was asked in one turn of the loop goes in one piece."""
        lines, self._unsent = self._unsent, []
        if self._writer is not None:
            self._writer.write("\n".join([*lines, ""]).encode())

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while line := await reader.readline():
                self._take(json.loads(line))
        except (ConnectionError, ValueError) as error:
            log.warning("the shim's connection broke", error=str(error))
        self._lost()

    def _take(self, message: Fields) -> None:
        if message.get("event") == "ended":
            self._ended(message["key"], message["ended"])
        elif (future := self._answers.pop(message.get("re", 0), None)) and not future.done():
            future.set_result(message)

    def _lost(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        waiting, self._answers = self._answers, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(ConnectionResetError())
        if not self._closed:
            log.warning("the shim of the process engine is gone; starting another")
            self._again = asyncio.create_task(self._reconnect())

    async def _reconnect(self) -> None:
        try:
            await self.connect()
        except (EngineUnavailableError, OSError, TimeoutError) as error:
            log.warning("cannot start the shim of the process engine", error=str(error))

    def _spawn(self) -> None:
        """Starts a shim and waits until it serves, or finds that another one does."""
        ready_read, ready_write = os.pipe()
        root = str(Path(hakuriver_agent.__file__).parent.parent)
        argv = [sys.executable, "-S", "-E", "-W", "ignore", "-c", _PROGRAM, root, str(self._folder)]
        if self._systemd:
            argv = systemd_scope(f"{self._group_name}-{secrets.token_hex(4)}", argv, 0, None, None)
        try:
            with (self._folder / "shim.log").open("ab") as output:
                child = subprocess.Popen(
                    [*argv, str(ready_write), self._group_name],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env={"PATH": os.environ.get("PATH", DEFAULT_PATH)},
                    cwd="/",
                    pass_fds=[ready_write],
                    start_new_session=True,
                )
        finally:
            os.close(ready_write)
        os.read(ready_read, 1)
        os.close(ready_read)
        _reap_later(child)


def _reap_later(child: subprocess.Popen[bytes]) -> None:
    """Waits for the shim in a thread, so that one which ends before the Runner leaves no zombie."""
    threading.Thread(target=child.wait, name="shim", daemon=True).start()
