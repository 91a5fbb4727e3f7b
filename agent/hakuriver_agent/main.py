"""The Runner daemon: reads its settings once, starts, and says in two lines why it cannot.

Ended by SIGTERM or SIGKILL, it leaves its tasks running; started again, it takes them up.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import fcntl
import gc
import os
import signal
import socket
import ssl
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import structlog
import uvicorn
import uvloop
from starlette.types import ASGIApp

from hakuriver.config import Settings, Tls, load
from hakuriver.errors import ConflictError, HakuRiverError, StorageError, UsageError
from hakuriver.version import __version__
from hakuriver_agent import log as logging_setup
from hakuriver_agent.app import application, assemble, boot_id
from hakuriver_agent.folders import Folders
from hakuriver_agent.journal import Journal

BACKLOG = 2048
GRACEFUL_SECONDS = 3
log = structlog.get_logger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the Runner until it is told to end; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="hakuriver.runner", description="The Runner: runs tasks on this machine."
    )
    parser.add_argument(
        "-c", "--config", type=Path, help="configuration file (default ~/.hakuriver/config.toml)"
    )
    parser.add_argument("--version", action="version", version=__version__)
    given = parser.parse_args(arguments)
    try:
        settings = load(given.config)
        logging_setup.configure(settings.paths.runner_log_file)
        run(settings)
    except HakuRiverError as error:
        print(f"hakuriver.runner: {error.message}", file=sys.stderr)  # noqa: T201 - before there is a log
        if error.hint:
            print(f"  {error.hint}", file=sys.stderr)  # noqa: T201 - see above
        return error.exit_code
    return 0


def run(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT.

    Raises:
        HakuRiverError: it cannot start.
    """
    _check_certificate(settings.tls)
    folders = Folders.of(settings)
    folders.prepare()
    lock = _lock(folders.state)
    listener = _listen(settings.network.runner_bind_ip, settings.network.runner_port)
    journal = Journal.open(folders.journal, boot_id())
    stop = _Stop()
    for number in (signal.SIGTERM, signal.SIGINT):
        # The server raises the signal anew once it has shut down; what follows it shall still happen.
        signal.signal(number, stop.ask)
    try:
        uvloop.run(_serve(settings, folders, journal, listener, stop))
    finally:
        listener.close()
        os.close(lock)


class _Stop:
    """A signal to end that comes before the server listens to signals itself is kept for it."""

    def __init__(self) -> None:
        self._asked = False
        self._server: uvicorn.Server | None = None

    def ask(self, *_: object) -> None:
        self._asked = True
        if self._server is not None:
            self._server.should_exit = True

    def hand_over(self, server: uvicorn.Server) -> None:
        self._server = server
        server.should_exit = self._asked


async def _serve(
    settings: Settings, folders: Folders, journal: Journal, listener: socket.socket, stop: _Stop
) -> None:
    port: int = listener.getsockname()[1]
    parts = assemble(settings, folders, journal, port)
    # What is there now stays: it need not be looked through for garbage again and again.
    gc.collect()
    gc.freeze()
    log.info(f"Runner {settings.runner.name} {__version__} listens", port=port, host=settings.host_url)
    server = _server(settings, application(parts))
    stop.hand_over(server)
    await server.serve(sockets=[listener])


def _check_certificate(tls: Tls) -> None:
    if tls.cert_file is None:
        return
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(tls.cert_file.expanduser(), tls.key_file and tls.key_file.expanduser())
    except OSError as error:
        raise UsageError(
            f"cannot use the certificate {tls.cert_file}: {error}", "check the [tls] section"
        ) from None


_TERMINAL_BYTES = 1 << 20
"""One message of a terminal's or a forward's."""


def _web_socket(**parts: Any) -> asyncio.Protocol:
    """Loaded with the first terminal: most Runners have none open, and it takes memory."""
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol  # noqa: PLC0415

    return WebSocketsSansIOProtocol(**parts)


def _server(settings: Settings, app: ASGIApp) -> uvicorn.Server:
    tls = settings.tls
    config = uvicorn.Config(
        app,
        http="httptools",
        loop="none",
        ws=_web_socket,  # type: ignore[arg-type]  # called as the class would be
        ws_max_size=_TERMINAL_BYTES,
        access_log=False,
        log_config=None,
        backlog=BACKLOG,
        timeout_graceful_shutdown=GRACEFUL_SECONDS,
        server_header=False,
        ssl_certfile=tls.cert_file and tls.cert_file.expanduser(),
        ssl_keyfile=tls.key_file and tls.key_file.expanduser(),
    )
    return uvicorn.Server(config)


def _lock(folder: Path) -> int:
    """Held for the life of the process: two Runners with one journal would run attempts twice."""
    try:
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StorageError(f"cannot write in {folder}: {error.strerror}", "check paths.state_dir") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise ConflictError(
            f"another Runner is running with the state in {folder}",
            "end it, or give this one another runner.name or paths.state_dir",
        ) from None
    return descriptor


def _listen(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise ConflictError(
                f"port {port} is in use on {address}", "end what uses it, or set network.runner_port"
            ) from None
        raise UsageError(
            f"cannot listen on {address}:{port}: {error.strerror}",
            "check network.runner_bind_ip and runner_port",
        ) from None
    return listener


def exit_now(code: int) -> None:
    """Ends the process without waiting for threads, one of which may hang on a share."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
