"""The gateway: an SSH server that knows users by their public keys, and opens connections to VPS alone.

A person's session with a VPS goes through it encrypted from end to end (`ssh -J`): what the gateway opens is a channel
of bytes to the SSH server of the VPS, through the Runner.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable
from typing import Any, Self

import asyncssh
import structlog

from hakuriver.channels import ChannelBytes
from hakuriver.errors import ConflictError, HakuRiverError
from hakuriver.exchange import Exchange, GoneError
from hakuriver_host.domain.model import Task
from hakuriver_host.services.keys import Holder, Keys
from hakuriver_host.ssh.host_keys import private_pem
from hakuriver_host.ssh.vps import GATEWAY, VpsDesk

_SSH_PORT = 22
_SUFFIX = ".hakuriver"
_LOGIN_SECONDS = 30
_KEEP_ALIVE_SECONDS = 60
_MOST_AT_ONCE = 1_000
_MOST_STRANGERS = 32
"""Connections of one address that have not logged in."""
_MOST_STRANGERS_IN_ALL = 500
_MOST_OF_ONE = 200
"""Connections of one user, or with one key."""
_MOST_TRIES = 20
"""Keys that one connection may offer; the agents of people hold several."""
_MOST_CHANNELS = 64
"""Connections to VPS over one connection to the gateway."""

log = structlog.get_logger(__name__)


class Gateway:
    """Listens while it is entered. A port that is taken is told in `desk.problem`, and ends nothing else."""

    def __init__(self, keys: Keys, desk: VpsDesk, address: str, port: int) -> None:
        self._keys, self._desk, self._address, self._port = keys, desk, address, port
        self._listener: asyncssh.SSHAcceptor | None = None
        self.strangers: Counter[str] = Counter()
        self.known: Counter[Holder] = Counter()
        self.connections: set[asyncssh.SSHServerConnection] = set()

    async def __aenter__(self) -> Self:
        if self._port == 0:
            self._desk.problem = ConflictError(
                "this Host has no SSH gateway", "an admin sets network.host_ssh_proxy_port"
            )
            return self
        try:
            self._listener = await asyncssh.listen(
                self._address,
                self._port,
                server_factory=lambda: _Server(self, self._keys, self._desk),
                server_host_keys=[asyncssh.import_private_key(private_pem(self._keys.host_seed(GATEWAY)))],
                encoding=None,
                password_auth=False,
                kbdint_auth=False,
                gss_host=None,
                agent_forwarding=False,
                x11_forwarding=False,
                login_timeout=_LOGIN_SECONDS,
                keepalive_interval=_KEEP_ALIVE_SECONDS,
                compression_algs=None,
                server_version="HakuRiver",
            )
        except OSError as error:
            self._desk.problem = ConflictError(
                f"the SSH gateway cannot listen on port {self._port}: {error.strerror}",
                "free the port or set network.host_ssh_proxy_port, and restart the Host",
            )
            log.warning("the SSH gateway does not serve", cause=self._desk.problem.message)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._listener is not None:
            self._listener.close()
            for connection in list(self.connections):
                connection.abort()
            await self._listener.wait_closed()

    def is_full(self, address: str) -> bool:
        return (
            len(self.connections) >= _MOST_AT_ONCE
            or self.strangers[address] >= _MOST_STRANGERS
            or self.strangers.total() >= _MOST_STRANGERS_IN_ALL
        )


class _Server(asyncssh.SSHServer):
    """One connection of a person's."""

    def __init__(self, gateway: Gateway, keys: Keys, desk: VpsDesk) -> None:
        self._gateway, self._keys, self._desk = gateway, keys, desk
        self._connection: asyncssh.SSHServerConnection | None = None
        self._address = ""
        self._is_stranger = False
        self._holder: Holder | None = None
        self._entered: Holder | None = None
        self._channels = self._tries = 0

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        self._address = str((conn.get_extra_info("peername") or ("",))[0])
        if self._gateway.is_full(self._address):
            conn.abort()
            return
        self._gateway.connections.add(conn)
        self._gateway.strangers[self._address] += 1
        self._is_stranger = True

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._known()
        if self._connection is not None:
            self._gateway.connections.discard(self._connection)
        if self._entered is not None:
            self._gateway.known[self._entered] -= 1
            self._gateway.known += Counter()  # Without those that are at zero.
            self._entered = None

    def begin_auth(self, username: str) -> bool:
        del username
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        """Whoever holds a key is who it is registered for: the name that a client gives says nothing."""
        del username
        self._tries += 1
        if self._tries > _MOST_TRIES and self._connection is not None:
            self._connection.abort()
            return False
        self._holder = self._keys.holder(" ".join(key.export_public_key().decode().split()[:2]))
        return self._holder is not None

    def auth_completed(self) -> None:
        self._known()
        if self._holder is not None and self._connection is not None:
            if self._gateway.known[self._holder] >= _MOST_OF_ONE:
                self._connection.abort()
                return
            self._entered = self._holder
            self._gateway.known[self._holder] += 1

    def session_requested(self) -> asyncssh.SSHServerSession[bytes]:
        return _NoShell()

    def connection_requested(
        self, dest_host: str, dest_port: int, orig_host: str, orig_port: int
    ) -> Awaitable[asyncssh.SSHTCPSession[bytes]]:
        del orig_host, orig_port
        return self._lead(dest_host, dest_port)

    async def _lead(self, name: str, port: int) -> asyncssh.SSHTCPSession[bytes]:
        assert self._holder is not None  # noqa: S101 - no channel is opened before the login
        try:
            if port != _SSH_PORT:
                raise ConflictError(
                    f"port {port} is not opened here", "log in to the VPS and forward from there: `ssh -L`"
                )
            if self._channels >= _MOST_CHANNELS:
                raise ConflictError("too many connections over this one", "open another")
            # As `hakuriver ssh-config` names them: a name that is a number would be taken for an address.
            task = self._desk.reached(name.removesuffix(_SUFFIX), self._holder)
            session = _Way(self, task)
            await session.open(self._desk)
        except HakuRiverError as error:
            raise asyncssh.ChannelOpenError(
                asyncssh.OPEN_CONNECT_FAILED, f"{error.message}; {error.hint}"
            ) from None
        return session

    def opened(self, number: int) -> None:
        self._channels += number

    def _known(self) -> None:
        if self._is_stranger:
            self._is_stranger = False
            self._gateway.strangers[self._address] -= 1
            if not self._gateway.strangers[self._address]:
                del self._gateway.strangers[self._address]


class _NoShell(asyncssh.SSHServerSession[bytes]):
    """What somebody gets who logs in to the gateway itself: words, and an end."""

    def __init__(self) -> None:
        self._channel: asyncssh.SSHServerChannel[bytes] | None = None

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        self._channel = chan

    def pty_requested(self, *_: object) -> bool:
        return True

    def shell_requested(self) -> bool:
        return True

    def exec_requested(self, command: str) -> bool:
        del command
        return True

    def session_started(self) -> None:
        assert self._channel is not None  # noqa: S101 - asyncssh's order
        self._channel.write_stderr(
            b"error: the gateway has no shell\r\nhint: go through it: ssh -J GATEWAY root@VPS, or `hakuriver ssh VPS`\r\n"
        )
        self._channel.exit(1)


class _Way(ChannelBytes, asyncssh.SSHTCPSession[bytes]):
    """One way to a VPS."""

    def __init__(self, server: _Server, task: Task) -> None:
        super().__init__()
        self._server, self._task = server, task
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._carrying: asyncio.Task[None] | None = None

    async def open(self, desk: VpsDesk) -> None:
        """Until the Runner has opened its door, or has said why not."""
        self._server.opened(1)
        self._carrying = asyncio.create_task(self._carry(desk))
        await asyncio.wait({self._ready, self._carrying}, return_when=asyncio.FIRST_COMPLETED)
        if not self._ready.done():
            self._carrying.result()

    async def _carry(self, desk: VpsDesk) -> None:
        try:
            async with desk.open(self._task) as runner:
                self._ready.set_result(None)
                await Exchange(runner).run(
                    self.incoming(), self.write, self.write_eof, _take, both=True, patient=True
                )
        except GoneError:
            pass
        except HakuRiverError as error:
            if not self._ready.done():
                raise
            log.info("a connection to a VPS was broken off", task=self._task.task_id, cause=error.message)
        except Exception:
            if not self._ready.done():
                raise
            log.exception("a connection to a VPS failed by a defect", task=self._task.task_id)
        finally:
            self._server.opened(-1)
            if self.channel is not None:
                self.channel.close()


async def _take(order: dict[str, Any]) -> None:
    """What the Runner says beside the bytes is for later versions."""
    del order
