"""The gateway: an SSH server that knows users by their public keys, and opens connections to VPS alone.

A person's session with a VPS goes through it encrypted from end to end (`ssh -J`): what the gateway opens is a channel
of bytes to the SSH server of the VPS, through the Runner. Here it listens; `connection` has the SSH, which takes 15 MB
and is loaded when the first person comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import socket
from collections import Counter
from typing import Any, Protocol, Self

import structlog

from hakuriver.errors import ConflictError, HakuRiverError
from hakuriver_host import exclusive
from hakuriver_host.services.keys import Keys
from hakuriver_host.ssh.vps import VpsDesk

_MOST_AT_ONCE = 1_000
MOST_STRANGERS = 200
"""Connections of one address that have not logged in: as many as one user may have, all begun at once."""
_MOST_STRANGERS_IN_ALL = 500
_REST_SECONDS = 1.0
"""When there are no descriptors left for another connection."""

log = structlog.get_logger(__name__)


class Guest(Protocol):
    """The connection of somebody who has logged in."""

    def look_again(self) -> None:
        """Ends itself, or its ways to VPS, where its key opens them no more."""


class Gateway:
    """Listens while it is entered. A port that is taken is told in `desk.problem`, and ends nothing else."""

    def __init__(self, keys: Keys, desk: VpsDesk, address: str, port: int) -> None:
        self._keys, self._desk, self._address, self._port = keys, desk, address, port
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._serving: dict[asyncio.Task[None], str] = {}
        """With the address that each came from."""
        self._strangers: Counter[str] = Counter()
        self.known: Counter[str] = Counter()
        """Connections of those who have logged in, by the user that answers for them."""
        self._inside: set[Guest] = set()

    async def __aenter__(self) -> Self:
        if self._port == 0:
            self._desk.problem = ConflictError(
                "this Host has no SSH gateway", "an admin sets network.host_ssh_proxy_port"
            )
            return self
        try:
            self._listener = exclusive.listen(self._address, self._port)
        except HakuRiverError as error:
            self._desk.problem = ConflictError(
                f"the SSH gateway cannot listen on port {self._port}: {error.message}",
                "free the port or set network.host_ssh_proxy_port, and restart the Host",
            )
            log.warning("the SSH gateway does not serve", cause=self._desk.problem.message)
            return self
        self._listener.setblocking(False)
        self._accepting = asyncio.create_task(self._accept(self._listener))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._listener is None or self._accepting is None:
            return
        tasks = [self._accepting, *self._serving]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._listener.close()

    def entered(self, address: str, user: str, guest: Guest) -> None:
        """Somebody has logged in, for whom a user answers."""
        self._strangers[address] -= 1
        self.known[user] += 1
        self._inside.add(guest)

    def look_again(self) -> None:
        """Keys or users were removed: ends what they opened."""
        for guest in [*self._inside]:
            guest.look_again()

    def left(self, address: str, user: str, guest: Guest) -> None:
        """Somebody who had logged in is gone."""
        self._inside.discard(guest)
        self._strangers[address] += 1  # Until its task has ended, which counts it off.
        self.known[user] -= 1
        if not self.known[user]:
            del self.known[user]

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, where = await loop.sock_accept(listener)
            except OSError as error:
                log.warning("the gateway could not take a connection", cause=str(error))
                await asyncio.sleep(_REST_SECONDS)
                continue
            address = str(where[0])
            if self._is_full(address):
                connection.close()
                continue
            self._strangers[address] += 1
            task = asyncio.create_task(self._serve(connection))
            self._serving[task] = address
            task.add_done_callback(self._over)

    def _is_full(self, address: str) -> bool:
        return (
            len(self._serving) >= _MOST_AT_ONCE
            or self._strangers[address] >= MOST_STRANGERS
            or self._strangers.total() >= _MOST_STRANGERS_IN_ALL
        )

    async def _serve(self, connection: socket.socket) -> None:
        with contextlib.closing(connection):
            ssh: Any = await asyncio.to_thread(importlib.import_module, "hakuriver_host.ssh.connection")
            await ssh.serve(connection, self, self._keys, self._desk)

    def _over(self, task: asyncio.Task[None]) -> None:
        address = self._serving.pop(task)
        self._strangers[address] -= 1
        if self._strangers[address] <= 0:
            del self._strangers[address]
        if not task.cancelled() and (error := task.exception()):
            log.error("a connection to the gateway failed by a defect", exc_info=error)
