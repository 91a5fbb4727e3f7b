"""The SSH server of a VPS, for one connection: what a person asks for is run in the container by the engine.

It knows no passwords and no files: the host key and the keys that may log in come with the connection, from the Host.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Coroutine, Iterator
from typing import Any

import asyncssh
import structlog
from pydantic import ValidationError

from hakuriver.channels import CIPHERS, ChannelBytes, KeyLogin
from hakuriver.closing import error_said
from hakuriver.errors import HakuRiverError, NotFoundError, UsageError
from hakuriver.exchange import Exchange, GoneError, Talker
from hakuriver.links import MessageLink
from hakuriver.models.environments import TerminalStart
from hakuriver.models.runner import AttemptSpec
from hakuriver.models.vps import SshStart
from hakuriver.terminals import START_SECONDS, Exec
from hakuriver_agent.engines.docker_request import VPS_SOCKETS, VPS_TOOLS
from hakuriver_agent.engines.port import Engine
from hakuriver_agent.folders import Folders
from hakuriver_agent.ssh import given
from hakuriver_agent.ssh.pipes import Piped, Pipes
from hakuriver_agent.ssh.tools import PLACES

SERVING = '{"type": "serving"}'
_LOGIN_SECONDS = 30
_PIECE = 1 << 18
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_STDERR = 2
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1", "0.0.0.0", ""})  # noqa: S104 - names that a client gives
_NO_PROGRAM = 127
_LOOK_SECONDS = 0.5
_FAREWELL_SECONDS = 3.0
_KILLED = 128 + 9
"""What a program's end by SIGKILL is to a shell."""

_HOME = f'cd 2>/dev/null || cd /; PATH="$PATH:{VPS_TOOLS}/bin"; export PATH; '
_SHELL = (
    _HOME + "[ -t 0 ] && how=-il || how=-l; command -v bash >/dev/null 2>&1 && exec bash $how; exec sh $how"
)
_COMMAND = _HOME + 'command -v bash >/dev/null 2>&1 && exec bash -c "$0"; exec sh -c "$0"'
_USER_ID = 'while IFS=: read -r name _ id _; do [ "$name" = "$0" ] && echo "$id" && exit 0; done </etc/passwd; exit 1'
_SFTP = (
    _HOME
    + f"for each in {VPS_TOOLS}/bin/sftp-server {' '.join(PLACES['sftp-server'])}; do "
    + '[ -x "$each" ] && exec "$each"; done; '
    + 'echo "neither the node nor the image of this VPS has sftp-server: install openssh-sftp-server" >&2; exit 127'
)

log = structlog.get_logger(__name__)


async def serve(
    talker: Talker, engine: Engine, spec: AttemptSpec, folders: Folders, ended: asyncio.Event
) -> None:
    """Serves one connection to its end, or to that of the VPS: `ended` is set then.

    Raises:
        UsageError: it does not begin as agreed.
        GoneError: the other end went away.
        ConflictError: the connection was broken off.
    """
    try:
        async with asyncio.timeout(START_SECONDS):
            start = SshStart.model_validate_json(await talker.receive_text())
    except (ValidationError, KeyError, TimeoutError):
        raise UsageError("a connection to a VPS begins with its keys", "send an SshStart as JSON") from None
    await talker.send_text(SERVING)
    link = MessageLink()
    server = _Server(frozenset(start.authorized_keys), engine, spec, folders, ended)
    connection: asyncssh.SSHServerConnection = await link.serve(
        asyncssh.listen,
        server_factory=lambda: server,
        error_handler=lambda _, error: log.info(
            "a connection to a VPS ended", task=spec.task_id, cause=str(error)
        ),
        server_host_keys=[asyncssh.import_private_key(start.host_key)],
        encoding=None,
        line_editor=False,
        password_auth=False,
        kbdint_auth=False,
        gss_host=None,
        agent_forwarding=True,
        x11_forwarding=False,
        login_timeout=_LOGIN_SECONDS,
        encryption_algs=CIPHERS,
        compression_algs=None,
        server_version="HakuRiver",
    )

    async def feed(data: bytes) -> None:
        link.feed(data)

    async def take(order: dict[str, Any]) -> None:
        if error := error_said(order):
            raise error

    talking = asyncio.create_task(Exchange(talker).run(link.outgoing(), feed, link.feed_eof, take, both=True))
    ending = asyncio.create_task(ended.wait())
    try:
        await asyncio.wait({talking, ending}, return_when=asyncio.FIRST_COMPLETED)
        if not talking.done():
            if server.sessions:
                await asyncio.wait(server.sessions, timeout=_FAREWELL_SECONDS)
            # A client whose last session has ended leaves by itself, with its exit code: told to go, it would have none.
            await asyncio.wait({talking}, timeout=_FAREWELL_SECONDS)
            connection.disconnect(asyncssh.DISC_BY_APPLICATION, f"the VPS {spec.task_id} has ended")
            await asyncio.wait({talking}, timeout=_FAREWELL_SECONDS)
        if talking.done():
            talking.result()
    finally:
        for task in (talking, ending):
            task.cancel()
        await asyncio.gather(talking, ending, return_exceptions=True)
        connection.abort()


class _Server(KeyLogin, asyncssh.SSHServer):
    """One connection of a person's."""

    def __init__(
        self,
        authorized: frozenset[str],
        engine: Engine,
        spec: AttemptSpec,
        folders: Folders,
        ended: asyncio.Event,
    ) -> None:
        self._authorized, self.engine, self.spec, self.folders = authorized, engine, spec, folders
        self.ended = ended
        """Set when the VPS has ended."""
        self.sessions: set[asyncio.Task[None]] = set()
        self._connection: asyncssh.SSHServerConnection | None = None
        self._gone = False

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._gone = True

    def opens(self, key: str) -> bool:
        return key in self._authorized

    def session_requested(self) -> asyncssh.SSHServerSession[bytes]:
        return _Session(
            self, str(self._connection.get_extra_info("username")) if self._connection else "root"
        )

    def connection_requested(
        self, dest_host: str, dest_port: int, orig_host: str, orig_port: int
    ) -> Awaitable[asyncssh.SSHTCPSession[bytes]]:
        del orig_host, orig_port
        return self._forward(dest_host, dest_port)

    async def _forward(self, host: str, port: int) -> asyncssh.SSHTCPSession[bytes]:
        if host not in _LOCAL:
            raise asyncssh.ChannelOpenError(
                asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED,
                f"{host} is not the VPS itself: forward to localhost, as in -L 8888:localhost:8888",
            )
        try:
            reader, writer = await self.engine.connect(self.spec.key, port)
        except HakuRiverError as error:
            raise asyncssh.ChannelOpenError(
                asyncssh.OPEN_CONNECT_FAILED, f"{error.message}; {error.hint}"
            ) from None
        if self._gone:
            writer.transport.abort()
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "the connection is lost")
        return _Forward(reader, writer)


class _Forward(ChannelBytes, asyncssh.SSHTCPSession[bytes]):
    """One connection to a port of the VPS."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__()
        self._reader, self._writer = reader, writer
        self._carrying: asyncio.Task[None] | None = None

    def session_started(self) -> None:
        self._carrying = asyncio.create_task(self._carry())

    async def _carry(self) -> None:
        """Until both ways have ended; or all that came is written, when the person's end is closed."""
        reading, writing = asyncio.create_task(self._outward()), asyncio.create_task(self._inward())
        closed = asyncio.create_task(self.lost.wait())
        try:
            await asyncio.wait({reading, closed}, return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                # Where the program has reset the connection, who waits for its answer sends nothing more.
                reading.result()
            await writing
            if reading.done():
                reading.result()
            self._writer.close()
        except (OSError, RuntimeError, GoneError):
            self._writer.transport.abort()
        finally:
            for task in (reading, writing, closed):
                task.cancel()
            await asyncio.gather(reading, writing, closed, return_exceptions=True)
            self.channel.close()

    async def _outward(self) -> None:
        while data := await self._reader.read(_PIECE):
            await self.write(data)
        self.write_eof()

    async def _inward(self) -> None:
        async for data in self.incoming():
            self._writer.write(data)
            await self._writer.drain()
        with contextlib.suppress(OSError, RuntimeError):
            self._writer.write_eof()


class _Session(ChannelBytes, asyncssh.SSHServerSession[bytes]):
    """One program: a shell, a command, or the far end of a file transfer."""

    def __init__(self, server: _Server, user: str) -> None:
        super().__init__()
        self._server, self._user = server, user
        self._wanted = TerminalStart(tty=False)
        self._variables: dict[str, str] = {}
        self._program: Exec | None = None
        self._running: asyncio.Task[None] | None = None
        self._orders: set[asyncio.Task[Any]] = set()

    def pty_requested(
        self, term_type: str | None, term_size: tuple[int, int, int, int], term_modes: Any
    ) -> bool:
        del term_modes
        columns, rows = term_size[:2]
        self._variables["TERM"] = term_type or "xterm"
        size = {"rows": rows or 24, "columns": columns or 80}
        self._wanted = self._wanted.model_copy(update={"tty": True, **size})
        return True

    def shell_requested(self) -> bool:
        return self._run(_SHELL)

    def exec_requested(self, command: str) -> bool:
        return self._run(_COMMAND, command)

    def subsystem_requested(self, subsystem: str) -> bool:
        return subsystem == "sftp" and self._run(_SFTP)

    def session_started(self) -> None:
        self._running = asyncio.create_task(self._serve())
        self._server.sessions.add(self._running)
        self._running.add_done_callback(self._server.sessions.discard)

    def terminal_size_changed(self, width: int, height: int, pixwidth: int, pixheight: int) -> None:
        del pixwidth, pixheight
        if self._program is not None:
            self._order(self._program.resize(height, width))

    def signal_received(self, signal: str) -> None:
        if self._program is not None and signal.isalnum():
            self._order(self._program.signal(signal))

    def break_received(self, msec: int) -> bool:
        del msec
        return False

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        if self._running is not None:
            self._running.cancel()

    def _run(self, script: str, *arguments: str) -> bool:
        wanted = self._wanted
        if wanted.tty:
            # The engine starts a program before it can be told the size of its terminal.
            script = f"stty rows {wanted.rows} cols {wanted.columns} 2>/dev/null; {script}"
        self._wanted = wanted.model_copy(update={"argv": ["/bin/sh", "-c", script, *arguments]})
        return True

    def _order(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._orders.add(task)
        task.add_done_callback(self._orders.discard)

    async def _serve(self) -> None:
        try:
            user = self._server.engine.enters_as(self._user)
            ids = await self._ids_of(user)
            async with self._agent(ids) as variables:
                who = {"USER": user, "LOGNAME": user} if user else {}
                told: dict[str, str] = dict(self.channel.get_environment())
                known = {name: value for name, value in told.items() if _VARIABLE.fullmatch(name)}
                wanted = self._wanted.model_copy(
                    update={"user": user, "env_vars": {**who, **self._variables, **known, **variables}}
                )
                code = await self._until_over(self._run_whole(wanted, ids))
            if code == _KILLED:
                await self._says_that_the_vps_has_ended()
        except HakuRiverError as error:
            if await self._says_that_the_vps_has_ended():
                code = _KILLED
            else:
                await self._say(f"error: {error.message}\r\nhint: {error.hint}\r\n")
                code = _NO_PROGRAM
        except GoneError:
            return
        except Exception:
            log.exception("an SSH session failed by a defect", task=self._server.spec.task_id)
            code = 1
        if not self.lost.is_set():
            self.channel.exit(code)

    async def _until_over(self, work: Coroutine[Any, Any, int]) -> int:
        """The exit code of a program; where its VPS ends and the engine does not tell of the program, that of a killed one."""
        doing, ending = asyncio.create_task(work), asyncio.create_task(self._server.ended.wait())
        try:
            await asyncio.wait({doing, ending}, return_when=asyncio.FIRST_COMPLETED)
            if not doing.done():
                await asyncio.wait({doing}, timeout=_LOOK_SECONDS)
            if doing.done():
                return doing.result()
        except asyncio.CancelledError:
            doing.cancel()
            await asyncio.gather(doing, return_exceptions=True)
            raise
        finally:
            ending.cancel()
        doing.cancel()
        self._orders.add(doing)
        doing.add_done_callback(self._orders.discard)
        return _KILLED

    async def _says_that_the_vps_has_ended(self) -> bool:
        """Where it has: programs end with their VPS, and the engine tells of it a moment later."""
        try:
            await asyncio.wait_for(self._server.ended.wait(), _LOOK_SECONDS)
        except TimeoutError:
            return False
        vps = self._server.spec.task_id
        await self._say(f"error: the VPS {vps} has ended\r\nhint: see `hakuriver vps status {vps}`\r\n")
        return True

    async def _ids_of(self, user: str | None) -> int | None:
        """The number of a user of the image; none where it is the owner's, whom the node knows.

        The engine's own words about a user whom the image does not have would come as the program's output.
        """
        if user in {None, "root"}:
            return None if user is None else 0
        looking = TerminalStart(argv=["/bin/sh", "-c", _USER_ID, str(user)], tty=False, stdin=False)
        looked = await self._server.engine.run_beside(self._server.spec.key, looking)
        said = b"".join([data[1:] async for data in looked.output()]).strip()
        looked.close()
        if await looked.exit_code() != 0 or not said.isdigit():
            raise NotFoundError(f"the VPS has no user {user}", "log in as root, or make the user there")
        return int(said)

    async def _run_whole(self, wanted: TerminalStart, uid: int | None) -> int:
        """From a program's start to its exit code."""
        with self._pipes(uid) as pipes:
            if pipes is not None:
                shell, option, script, *arguments = wanted.argv
                wanted = wanted.model_copy(
                    update={"argv": [shell, option, pipes.script + script, *arguments]}
                )
            self._program = await self._server.engine.run_beside(self._server.spec.key, wanted)
            return await self._carry(self._program, Piped(self._program, pipes) if pipes else None)

    @contextlib.contextmanager
    def _pipes(self, uid: int | None) -> Iterator[Pipes | None]:
        """None for a terminal, and where others in the VPS could open them."""
        if self._wanted.tty or not (uid is None or given.can_give()):
            yield None
            return
        try:
            pipes = Pipes(self._server.folders.vps_sockets(*self._server.spec.key), uid)
        except OSError as error:
            log.warning("a session goes without pipes", task=self._server.spec.task_id, cause=str(error))
            yield None
            return
        with pipes:
            yield pipes

    async def _carry(self, program: Exec, piped: Piped | None) -> int:
        """From the program's start to its exit code; who goes away ends it."""

        async def inward() -> None:
            async for data in self.incoming():
                await (piped or program).write(data)
            if piped:
                await piped.write_eof()
            elif not self._wanted.tty:
                program.write_eof()

        async def outward() -> None:
            if piped:
                await piped.output(self._hand_on)
                return
            async for data in program.output():
                if self._wanted.tty:
                    await self.write(data)
                else:
                    await self._hand_on(data[0], data[1:])

        writing = asyncio.create_task(inward())
        try:
            await outward()
            while (code := await program.exit_code()) is None:  # noqa: ASYNC110 - its engine tells nobody of its end
                # It has said all, and goes on.
                await asyncio.sleep(_LOOK_SECONDS)
        except BaseException:
            await asyncio.shield(program.hang_up())
            raise
        else:
            return code
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
            program.close()

    async def _hand_on(self, stream: int, data: bytes) -> None:
        await self.write(data, asyncssh.EXTENDED_DATA_STDERR if stream == _STDERR else None)

    async def _say(self, text: str) -> None:
        with contextlib.suppress(GoneError):
            await self.write(text.encode(), asyncssh.EXTENDED_DATA_STDERR)

    @contextlib.asynccontextmanager
    async def _agent(self, uid: int | None) -> AsyncIterator[dict[str, str]]:
        """The variables by which a program finds the person's own agent, when it is forwarded."""
        path = self.channel.get_agent_path()
        if path is None:
            yield {}
            return
        name = f"agent-{secrets.token_hex(6)}"
        folder = self._server.folders.vps_sockets(*self._server.spec.key)
        try:
            listener = given.listener(folder, name, uid)
        except OSError as error:
            log.warning("an agent cannot be forwarded", task=self._server.spec.task_id, cause=str(error))
            yield {}
            return
        server = await asyncio.start_unix_server(_Agent(path).carry, sock=listener)
        try:
            yield {"SSH_AUTH_SOCK": f"{VPS_SOCKETS}/{name}"}
        finally:
            server.close()
            with contextlib.suppress(OSError):
                (folder / name).unlink()


class _Agent:
    """Leads connections to an agent that is forwarded, at `path` on the node."""

    def __init__(self, path: str) -> None:
        self._path = path

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            far_reader, far_writer = await asyncio.open_unix_connection(self._path)
            await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
        writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, RuntimeError):
        while data := await reader.read(_PIECE):
            writer.write(data)
            await writer.drain()
    writer.close()
