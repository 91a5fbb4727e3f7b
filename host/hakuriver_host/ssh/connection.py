"""One connection to the gateway: who it is, and the ways to VPS that it opens. Loaded with the first connection."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

import asyncssh
import structlog

from hakuriver.channels import CIPHERS, ChannelBytes, KeyLogin
from hakuriver.errors import ConflictError, HakuRiverError
from hakuriver.exchange import Exchange, GoneError
from hakuriver.links import SocketLink
from hakuriver_host.domain.model import Task
from hakuriver_host.services.doors import until_shut_out
from hakuriver_host.services.keys import Holder, Keys
from hakuriver_host.ssh.host_keys import private_pem
from hakuriver_host.ssh.vps import GATEWAY, VpsDesk

if TYPE_CHECKING:
    from hakuriver_host.ssh.gateway import Gateway

_SSH_PORT = 22
_SUFFIX = ".hakuriver"
_LOGIN_SECONDS = 30
_KEEP_ALIVE_SECONDS = 60
_MOST_OF_ONE = 200
"""Connections of one user, or with one key."""
_MOST_TRIES = 20
"""Keys that one connection may offer; the agents of people hold several."""
_MOST_CHANNELS = 64
"""Connections to VPS over one connection to the gateway."""

log = structlog.get_logger(__name__)


async def serve(connection: socket.socket, gateway: Gateway, keys: Keys, desk: VpsDesk) -> None:
    """Serves one connection to its end."""
    link = SocketLink()
    served: asyncssh.SSHServerConnection = await link.serve(
        asyncssh.listen,
        server_factory=lambda: _Server(gateway, keys, desk),
        error_handler=_refused,
        server_host_keys=[asyncssh.import_private_key(private_pem(keys.host_seed(GATEWAY)))],
        encoding=None,
        password_auth=False,
        kbdint_auth=False,
        gss_host=None,
        agent_forwarding=False,
        x11_forwarding=False,
        login_timeout=_LOGIN_SECONDS,
        keepalive_interval=_KEEP_ALIVE_SECONDS,
        encryption_algs=CIPHERS,
        compression_algs=None,
        server_version="HakuRiver",
    )
    try:
        await asyncio.get_running_loop().connect_accepted_socket(lambda: link, connection)
        await served.wait_closed()
    except OSError as error:
        log.debug("a connection to the gateway ended", cause=str(error))
    finally:
        served.abort()


def _refused(connection: object, error: Exception | None) -> None:
    del connection
    log.debug("a connection to the gateway ended", cause=str(error))


class _Server(KeyLogin, asyncssh.SSHServer):
    """One connection of a person's."""

    def __init__(self, gateway: Gateway, keys: Keys, desk: VpsDesk) -> None:
        self._gateway, self._keys, self._desk = gateway, keys, desk
        self._connection: asyncssh.SSHServerConnection | None = None
        self._address = ""
        self._key = ""
        self._holder: Holder | None = None
        self._entered = ""
        """The user that answers for this connection, once it has logged in."""
        self._ways: set[_Way] = set()
        self._tries = 0

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        self._address = str((conn.get_extra_info("peername") or ("",))[0])

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self._entered:
            self._gateway.left(self._address, self._entered, self)
            self._entered = ""

    def opens(self, key: str) -> bool:
        self._tries += 1
        if self._tries > _MOST_TRIES and self._connection is not None:
            self._connection.disconnect(
                asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE,
                "too many keys were offered; name the right one: -i FILE -o IdentitiesOnly=yes",
            )
            return False
        self._key, self._holder = key, self._keys.holder(key)
        return self._holder is not None

    def auth_completed(self) -> None:
        if self._connection is not None:
            # The key may have been removed since it was offered.
            self._holder = self._keys.holder(self._key)
            if self._holder is None:
                self._connection.abort()
                return
            user = self._keys.answers(self._holder)
            if self._gateway.known[user] >= _MOST_OF_ONE:
                self._connection.disconnect(
                    asyncssh.DISC_TOO_MANY_CONNECTIONS,
                    f"you have {_MOST_OF_ONE} connections, which are as many as one may have; close some",
                )
                return
            self._entered = user
            self._gateway.entered(self._address, user, self)

    def look_again(self) -> None:
        """Ends the connection, or its ways to VPS, where its key opens them no more."""
        holder = self._keys.holder(self._key)
        if self._connection is not None and (holder is None or self.user not in {None, holder.user}):
            self._connection.abort()
            return
        self._holder = holder
        for way in self._ways:
            way.look_again()

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
            if len(self._ways) >= _MOST_CHANNELS:
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

    @property
    def user(self) -> str | None:
        """Who has logged in; none with a key that is no user's."""
        return self._holder.user if self._holder else None

    def may_enter(self, task: Task) -> bool:
        """Whether the key opens a VPS now."""
        holder = self._holder
        return holder is not None and self._keys.admits(holder, task)

    def begun(self, way: _Way) -> None:
        self._ways.add(way)

    def over(self, way: _Way) -> None:
        self._ways.discard(way)


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
        self._shut_out: asyncio.Event | None = None

    async def open(self, desk: VpsDesk) -> None:
        """Until the Runner has opened its door, or has said why not."""
        self._server.begun(self)
        self._carrying = asyncio.create_task(self._carry(desk))
        await asyncio.wait({self._ready, self._carrying}, return_when=asyncio.FIRST_COMPLETED)
        if not self._ready.done():
            self._carrying.result()

    def look_again(self) -> None:
        """Ends where the key of its connection opens the VPS no more."""
        if self._shut_out is not None and not self._server.may_enter(self._task):
            self._shut_out.set()

    async def _carry(self, desk: VpsDesk) -> None:
        try:
            with desk.doors.guest(self._task, self._server.user) as shut_out:
                self._shut_out = shut_out
                async with desk.open(self._task) as runner:
                    self._ready.set_result(None)
                    exchange = Exchange(runner).run(
                        self.incoming(), self.write, self.write_eof, _take, both=True, patient=True
                    )
                    await until_shut_out(exchange, shut_out)
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
            self._server.over(self)
            if self.channel is not None:
                self.channel.close()


async def _take(order: dict[str, Any]) -> None:
    """What the Runner says beside the bytes is for later versions."""
    del order
