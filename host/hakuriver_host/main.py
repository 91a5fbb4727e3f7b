"""Starts the Host: reads the settings, opens the database, takes the port, serves."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import ssl
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import structlog
import uvicorn

from hakuriver.config import Settings, Tls, load
from hakuriver.errors import HakuRiverError, InternalError, StorageError, UsageError
from hakuriver.version import __version__
from hakuriver_host import exclusive
from hakuriver_host.app import HostApp
from hakuriver_host.db.engine import open_database
from hakuriver_host.services.share import Share

log = structlog.get_logger("hakuriver_host")

_GRACE_SECONDS = 1
_KEEP_ALIVE_SECONDS = 75
_TERMINAL_BYTES = 1 << 20
"""Longer than a heartbeat interval: Runners keep their connections."""
_GC_THRESHOLDS = (50_000, 20, 100)
"""The Host holds tens of thousands of tasks that are no garbage: looking through them at Python's own pace would stop the
loop for tens of milliseconds again and again."""
_SWITCH_SECONDS = 0.0005
"""How long a thread may hold the interpreter while another waits for it. Python's own 5 ms would make each commit of the
writer, and each read, wait that long behind a busy loop."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the Host until it is told to stop; the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        settings = load(arguments.config)
        _set_up_logging(settings.paths.host_log_file)
        with exclusive.state_dir(settings.paths.state_dir):
            exclusive.check_whole(settings.paths.state_dir)
            serve(settings)
    except HakuRiverError as error:
        print(f"error: {error.message}", file=sys.stderr)  # noqa: T201
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    return 0


def serve(settings: Settings) -> None:
    """Serves until a signal.

    Raises:
        StorageError: the share or the database cannot be used.
        ConflictError: the port is taken.
        UsageError: a certificate cannot be used.

    """
    sys.setswitchinterval(_SWITCH_SECONDS)
    gc.set_threshold(*_GC_THRESHOLDS)
    listener = exclusive.listen(settings.network.host_bind_ip, settings.network.host_port)
    engine = open_database(settings.database_url)
    share = Share(settings, engine)
    share.open()
    app = HostApp(settings, engine, share)
    server = uvicorn.Server(_server_config(app, settings))
    logging.getLogger("uvicorn.error").addFilter(
        lambda _record: server.started
    )  # A failed start is told in one line, below.
    log.info(
        "the Host starts",
        version=__version__,
        address=f"{settings.scheme}://{settings.network.host_bind_ip}:{settings.network.host_port}",
    )
    app.stop = partial(setattr, server, "should_exit", True)
    try:
        server.run(sockets=[listener])
    except SystemExit:
        # So the server ends where the application could not start.
        raise app.failure or InternalError("the Host cannot start", "see its log") from None
    if app.failure is not None:
        raise app.failure


def _server_config(app: HostApp, settings: Settings) -> uvicorn.Config:
    tls = settings.tls
    if bool(tls.cert_file) != bool(tls.key_file):
        raise UsageError("tls.cert_file and tls.key_file belong together", "give both, or neither")
    for path in (tls.cert_file, tls.key_file, tls.ca_file):
        if path is not None and not os.access(path, os.R_OK):
            raise UsageError(
                f"cannot read {path}", "check the paths in the tls section and the file's permissions"
            )
    _check_certificates(tls)
    return uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        ws="websockets-sansio",
        ws_max_size=_TERMINAL_BYTES,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        ssl_certfile=str(tls.cert_file) if tls.cert_file else None,
        ssl_keyfile=str(tls.key_file) if tls.key_file else None,
    )


def _check_certificates(tls: Tls) -> None:
    try:
        if tls.cert_file is not None:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(tls.cert_file, tls.key_file)
    except OSError as error:
        raise UsageError(
            f"cannot use the certificate {tls.cert_file} with the key {tls.key_file}: {error}",
            "check the [tls] section: both in PEM form, and of one pair",
        ) from None
    try:
        if tls.ca_file is not None:
            ssl.create_default_context(cafile=tls.ca_file)
    except OSError as error:
        raise UsageError(
            f"cannot use the certificates in {tls.ca_file}: {error}", "set tls.ca_file to a PEM file"
        ) from None


def _set_up_logging(log_file: Path | None) -> None:
    """One line for each event, to standard error and to the file, if one is named."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if log_file is not None:
        try:
            handlers.append(logging.FileHandler(log_file))
        except OSError as error:
            raise StorageError(
                f"cannot write the log {log_file}: {error.strerror}", "check paths.host_log_file"
            ) from None
    logging.basicConfig(level=logging.INFO, handlers=handlers, format="%(message)s", force=True)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    for noisy in ("httpx", "httpcore", "uvicorn.error", "asyncssh"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.dev.ConsoleRenderer(colors=False)
            if sys.stderr.isatty()
            else structlog.processors.LogfmtRenderer(),
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=True,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hakuriver host", description="The coordinator of a HakuRiver cluster."
    )
    parser.add_argument("-c", "--config", type=Path, help="configuration file (TOML)")
    return parser
