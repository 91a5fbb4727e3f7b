"""`hakuriver config check`: looks for the mistakes that people make, and says for each what to do."""

from __future__ import annotations

import errno
import os
import socket
import ssl
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic import BaseModel, ValidationError

from hakuriver.client import Client
from hakuriver.client.wire import find_token
from hakuriver.config import Settings, config_path, load
from hakuriver.errors import HakuRiverError
from hakuriver.models.errors import ErrorBody
from hakuriver_cli.engine import docker_problem
from hakuriver_cli.output import Column, View

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class Finding(BaseModel):
    """One line of the report."""

    check: str
    ok: bool
    message: str
    hint: str = ""


FINDINGS: View[Finding] = View(
    name=lambda finding: finding.check,
    columns=[
        Column("CHECK", lambda finding: finding.check),
        Column(
            "RESULT",
            lambda finding: "ok" if finding.ok else "problem",
            style=lambda finding: "green" if finding.ok else "red",
        ),
        Column("WHAT", lambda finding: finding.message),
        Column("HINT", lambda finding: finding.hint),
    ],
)

Check = Callable[[Settings, Path | None], Iterator[Finding]]


def run_checks(config_file: Path | None, role: str) -> list[Finding]:
    """What is found, in order. A file that cannot be read is an error, as it is for every command."""
    settings = load(config_file)
    path = config_path(config_file)
    read = f"{path} is read" if path.exists() else f"{path} is not there; the defaults are in effect"
    findings = [Finding(check="file", ok=True, message=read)]
    for check in _CHECKS[role]:
        findings += check(settings, config_file)
    return findings


def shared_storage(settings: Settings, _config_file: Path | None) -> Iterator[Finding]:
    path = settings.paths.shared_dir
    yield _writable("shared", path, "mount the shared storage there, or set paths.shared_dir")


def state(settings: Settings, _config_file: Path | None) -> Iterator[Finding]:
    path = settings.paths.state_dir
    found = _writable("state", path, "make it, or set paths.state_dir", may_be_made=True)
    if found.ok and path.is_dir() and path.stat().st_mode & _OTHERS & ~stat.S_IXGRP & ~stat.S_IXOTH:
        found = Finding(
            check="state",
            ok=False,
            message=f"{path} is open to other users",
            hint=f"chmod 700 {path}",
        )
    yield found


def scratch(settings: Settings, _config_file: Path | None) -> Iterator[Finding]:
    path = settings.paths.local_temp_dir
    yield _writable("scratch", path, "make it, or set paths.local_temp_dir", may_be_made=True)


def host_port(settings: Settings, _config_file: Path | None) -> Iterator[Finding]:
    network = settings.network
    yield _port("host port", network.host_bind_ip, network.host_port, "network.host_port")


def runner_port(settings: Settings, _config_file: Path | None) -> Iterator[Finding]:
    network = settings.network
    yield _port("runner port", network.runner_bind_ip, network.runner_port, "network.runner_port")


def certificates(settings: Settings, _config_file: Path | None) -> Iterator[Finding]:
    cert, key = settings.tls.cert_file, settings.tls.key_file
    if cert is None and key is None:
        yield Finding(check="tls", ok=True, message="none is set: plain HTTP")
        return
    if cert is None or key is None:
        yield Finding(
            check="tls", ok=False, message="one of cert_file and key_file is missing", hint="set both"
        )
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        hint = "check that both are PEM and belong together"
        yield Finding(check="tls", ok=False, message=f"{cert}: {error}", hint=hint)
    else:
        yield Finding(check="tls", ok=True, message=f"{cert} and its key belong together")


def docker(settings: Settings, _config_file: Path | None) -> Iterator[Finding]:
    problem = docker_problem(settings.docker.socket)
    if problem is None:
        yield Finding(check="docker", ok=True, message="the engine answers")
    else:
        hint = "start Docker and let this user use it; without it, tasks run with `--container NULL` only"
        yield Finding(check="docker", ok=False, message=problem, hint=hint)


def join_token(settings: Settings, _config_file: Path | None) -> Iterator[Finding]:
    path = settings.runner.join_token_file
    if path is not None:
        yield _secret("join token", path)


def token(settings: Settings, config_file: Path | None) -> Iterator[Finding]:
    if settings.client.token_file is not None:
        yield _secret("token", settings.client.token_file)
        return
    if find_token(settings, config_file):
        yield Finding(check="token", ok=True, message="found")
    else:
        beside = config_path(config_file).parent / "token"
        hint = f"put it into {beside}, or set client.token_file or HAKURIVER_TOKEN"
        yield Finding(check="token", ok=False, message="you have none", hint=hint)


def host_answers(settings: Settings, config_file: Path | None) -> Iterator[Finding]:
    try:
        with Client.from_settings(settings, config_file) as client:
            who = client.whoami()
    except HakuRiverError as error:
        yield Finding(check="host", ok=False, message=error.message, hint=error.hint)
    else:
        yield Finding(
            check="host", ok=True, message=f"{settings.host_url} knows you as {who.name} ({who.role})"
        )


_CLIENT: list[Check] = [token, host_answers]
_HOST: list[Check] = [shared_storage, state, host_port, certificates]
_RUNNER: list[Check] = [shared_storage, state, scratch, runner_port, certificates, docker, join_token]
_CHECKS: dict[str, list[Check]] = {
    "client": _CLIENT,
    "host": [*_HOST, *_CLIENT],
    "runner": [*_RUNNER, *_CLIENT],
    "all": [*dict.fromkeys([*_HOST, *_RUNNER, *_CLIENT])],
}


def _writable(check: str, path: Path, hint: str, *, may_be_made: bool = False) -> Finding:
    place = path
    while may_be_made and not place.exists() and place != place.parent:
        place = place.parent
    try:
        with tempfile.NamedTemporaryFile(dir=place, prefix=".hakuriver-check-") as file:
            file.write(b"ok")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return Finding(check=check, ok=False, message=f"{path}: {error.strerror}", hint=hint)
    made = "" if place == path else " (it is made when it is needed)"
    return Finding(check=check, ok=True, message=f"{path} can be written{made}")


def _port(check: str, address: str, port: int, key: str) -> Finding:
    """Free, or in use by a HakuRiver daemon; a plain bind tells the first."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE and _is_ours(address, port):
                return Finding(check=check, ok=True, message=f"{address}:{port} is served by HakuRiver")
            hint = f"end what uses it, or set {key}"
            return Finding(check=check, ok=False, message=f"{address}:{port}: {error.strerror}", hint=hint)
    return Finding(check=check, ok=True, message=f"{address}:{port} is free")


def _is_ours(address: str, port: int) -> bool:
    """Whether what listens there speaks as HakuRiver does, over HTTP or HTTPS."""
    import httpx  # noqa: PLC0415  (needed for this alone)

    from hakuriver.version import VERSION_HEADER  # noqa: PLC0415

    there = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(address, address)  # noqa: S104
    for scheme in ("http", "https"):
        try:
            answer = httpx.get(f"{scheme}://{there}:{port}/api/health", verify=False, trust_env=False)  # noqa: S501
        except httpx.HTTPError:
            continue
        if VERSION_HEADER in answer.headers or _is_our_error(answer.content):
            return True
    return False


def _is_our_error(content: bytes) -> bool:
    try:
        ErrorBody.model_validate_json(content)
    except ValidationError:
        return False
    return True


def _secret(check: str, path: Path) -> Finding:
    path = path.expanduser()
    try:
        mode = path.stat().st_mode
        path.read_bytes()
    except OSError as error:
        return Finding(
            check=check, ok=False, message=f"{path}: {error.strerror}", hint="check its path and owner"
        )
    if mode & _OTHERS:
        return Finding(
            check=check, ok=False, message=f"{path} is open to other users", hint=f"chmod 600 {path}"
        )
    return Finding(check=check, ok=True, message=f"{path} is yours alone")
