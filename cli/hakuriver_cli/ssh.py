"""`hakuriver ssh` and `hakuriver ssh-config`: the system's own ssh, told how to find VPS and whom to trust.

Both write `ssh/known_hosts` beside the configuration: the keys of the gateway and of each VPS, as the Host tells them
over its authenticated connection, so that nobody is ever asked whether to trust a new key.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

from cyclopts import Parameter

from hakuriver.errors import ConflictError, StorageError, UsageError
from hakuriver.states import TaskState
from hakuriver_cli.options import COMMON, Common
from hakuriver_cli.session import Session

if TYPE_CHECKING:
    from hakuriver.models.vps import GatewayInfo, VpsSummary

GATEWAY = "hakuriver-gateway"
_SUFFIX = ".hakuriver"
_VALUED = frozenset("BbcDEeFIiJLlmOoPpQRSWw")
"""The options of ssh(1) that take a word."""
_CIPHERS = "aes128-gcm@openssh.com,aes256-gcm@openssh.com,aes128-ctr,aes256-ctr"
"""ssh would take AES-CTR first, which costs either end more than AES-GCM."""
_NO_SSH = 127
_INCLUDE = "Include"
_HINTS = {
    TaskState.PAUSED: "let it go on: `hakuriver vps resume {}`",
    TaskState.STOPPED: "start it: `hakuriver vps start {} --wait`",
    TaskState.LOST: "it comes back with its node; give it up: `hakuriver vps kill {}`",
}
_OWN_CONFIG = Path("~/.ssh/config")
_CONFIG_OF_ONE = re.compile(r"config-[0-9]{16,19}(-[0-9a-f]{12})?")
"""Ids have that many digits, so that a copy which a person named by its date is not meant."""
_KEPT_SECONDS = 7 * 86400.0
"""After its last use; ssh reads it when it begins, and no more."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the gateway is, and where the files for ssh lie."""

    address: str
    gateway: GatewayInfo
    folder: Path

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"


def ssh(
    vps: Annotated[
        str, Parameter(name="[USER@]VPS", help="Id or name of the VPS, and whom to be there (root).")
    ],
    /,
    *command_line: Annotated[
        str,
        Parameter(
            name="WORDS",
            help="Options for ssh, such as -v or -L 8888:localhost:8888, then the command to run, after -- if need be.",
            allow_leading_hyphen=True,
        ),
    ],
    common: Common = COMMON,
) -> int:
    """Log in to a VPS, or run a command there; ends with ssh's exit code.

    It starts the system's ssh, with the gateway as its jump host. Your own ~/.ssh/config holds too.
    """
    session = Session(common)
    user, _, reference = vps.rpartition("@")
    options, command = _split(command_line)
    return _ssh(session, reference, [*(["-l", user] if user else []), *options], command)


def reference(
    task_id: Annotated[str, Parameter(name="TASK_ID", help="Id or name of the VPS.")],
    /,
    *words: Annotated[
        str,
        Parameter(name="WORDS", help="Options for ssh, then a command.", allow_leading_hyphen=True),
    ],
    host: Annotated[str | None, Parameter(help="Address of the gateway. Default: the Host's.")] = None,
    proxy_port: Annotated[
        int | None, Parameter(help="Port of the gateway. Default: as the Host says.")
    ] = None,
    local_port: Annotated[
        int | None, Parameter(help="Accepted for old scripts, and without effect: no port is needed here.")
    ] = None,
    user: Annotated[str, Parameter(help="Whom to be in the VPS.")] = "root",
    common: Common = COMMON,
) -> int:
    """Log in to a VPS; ends with ssh's exit code."""
    del local_port
    options, command = _split(words)
    return _ssh(Session(common), task_id, ["-l", user, *options], command, address=host, port=proxy_port)


def ssh_config(
    *,
    install: Annotated[
        bool, Parameter(help="Have ~/.ssh/config include it, so that `ssh NAME.hakuriver` works from now on.")
    ] = False,
    common: Common = COMMON,
) -> None:
    """Print the configuration by which ssh, scp, rsync, sftp and VS Code reach your VPS as NAME.hakuriver.

    With --install it is written beside the configuration instead, and ~/.ssh/config includes it. Repeat it when you
    have made another VPS.
    """
    session = Session(common)
    place = _place(session)
    mine = session.client.whoami().name
    found = [vps for vps in session.client.every_vps() if mine in {vps.owner, *vps.shared_with}]
    config = place.folder / "config"
    text = _text(place, found)
    _write(place, found, config, text)
    if not install:
        session.printer.out.write(text)
        return
    _include(_OWN_CONFIG.expanduser(), f'{_INCLUDE} "{config}"')
    session.printer.say(f"{_OWN_CONFIG} includes {config}: {len(found)} VPS")


def _ssh(
    session: Session,
    reference: str,
    options: Sequence[str],
    command: Sequence[str],
    *,
    address: str | None = None,
    port: int | None = None,
) -> int:
    program = shutil.which("ssh")
    if program is None:
        session.printer.say("error: there is no ssh on this machine\nhint: install openssh-client")
        return _NO_SSH
    vps = session.client.vps(reference)
    if vps.status is not TaskState.RUNNING:
        why = vps.error_message or vps.reason
        raise ConflictError(
            f"the VPS {reference} is {vps.status}{f': {why}' if why else ''}",
            _HINTS.get(vps.status, "see `hakuriver vps status {}`").format(reference),
        )
    place = _place(session, address, port)
    # ssh reads no other file than the one it is given, and takes the first value that it finds.
    own = _OWN_CONFIG.expanduser()
    text = (
        _identities(options)
        + _text(place, [vps])
        + (f'\nMatch all\n    {_INCLUDE} "{own}"\n' if own.exists() else "")
    )
    # ssh starts its jump host with the same file a moment later: no command with other options may have replaced it.
    config = place.folder / f"config-{vps.task_id}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    _write(place, [vps], config, text)
    words = [program, "-F", str(config), *options, f"{vps.task_id}{_SUFFIX}", *command]
    return subprocess.run(words, check=False).returncode


def _place(session: Session, address: str | None = None, port: int | None = None) -> Place:
    from hakuriver.config import DEFAULT_PATH, config_path  # noqa: PLC0415  (loaded when it is needed)

    gateway = session.client.gateway()
    if port is not None:
        gateway = gateway.model_copy(update={"port": port})
    beside = config_path(session.common.config).absolute().parent
    # A configuration that is for everybody on this machine lies where few can write.
    folder = (beside if os.access(beside, os.W_OK) else DEFAULT_PATH.expanduser().parent) / "ssh"
    return Place(address or urlsplit(session.settings.host_url).hostname or "", gateway, folder)


def _split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Ssh's own options, and the command."""
    index = 0
    while index < len(words):
        word = words[index]
        if word == "--":
            return list(words[:index]), list(words[index + 1 :])
        if not word.startswith("-") or word == "-":
            break
        index += 2 if word[-1] in _VALUED and not any(letter in _VALUED for letter in word[1:-1]) else 1
    return list(words[:index]), list(words[index:])


def _identities(options: Sequence[str]) -> str:
    """What -i names, for the gateway too: ssh gives its jump host none of its options."""
    index, found = 0, []
    while index < len(options):
        word = options[index]
        if word == "-i" and index + 1 < len(options):
            index += 1
            found.append(options[index])
        elif word.startswith("-i"):
            found.append(word[2:])
        index += 1
    lines = (f'    IdentityFile "{Path(name).expanduser().absolute()}"\n' for name in found)
    return f"Match all\n{''.join(lines)}\n" if found else ""


def _write(place: Place, found: Iterable[VpsSummary], config: Path, text: str) -> None:
    """Writes the configuration, and whom to trust, and removes what `ssh` wrote and uses no more."""
    hosts = [f"{GATEWAY} {place.gateway.host_key}"]
    hosts += [f"{_alias(vps)} {vps.host_key}" for vps in found]
    try:
        place.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (place.folder / ".lock").open("w") as lock:
            # Another one that ends this moment must not write over what this one adds.
            fcntl.flock(lock, fcntl.LOCK_EX)
            _add_hosts(place.known_hosts, hosts)
            _put(config, text.splitlines())
            _remove_unused(place.folder)
    except OSError as error:
        raise StorageError(
            f"cannot write {error.filename or place.folder}: {error.strerror}", "ssh reads its keys there"
        ) from None


def _remove_unused(folder: Path) -> None:
    """Under the lock: what another command has just written anew is no longer old."""
    since = time.time() - _KEPT_SECONDS
    for path in folder.iterdir():
        if _CONFIG_OF_ONE.fullmatch(path.name):
            with suppress(OSError):
                if path.stat().st_mtime < since:
                    path.unlink()


def _add_hosts(path: Path, hosts: list[str]) -> None:
    known = path.read_text("utf-8").splitlines() if path.exists() else []
    fresh = {line.partition(" ")[0] for line in hosts}
    _put(path, [line for line in known if line.partition(" ")[0] not in fresh] + hosts)


def _text(place: Place, found: Iterable[VpsSummary]) -> str:
    trust = f'    UserKnownHostsFile "{place.known_hosts}"\n    StrictHostKeyChecking yes\n    Ciphers {_CIPHERS}\n'
    blocks = [
        (
            f"Host {GATEWAY}\n    HostName {place.address}\n    Port {place.gateway.port}\n"
            f"    HostKeyAlias {GATEWAY}\n{trust}"
        )
    ]
    for vps in found:
        names = " ".join(f"{name}{_SUFFIX}" for name in (vps.name, vps.task_id) if name)
        blocks.append(
            f"Host {names}\n    HostName {vps.task_id}{_SUFFIX}\n    User root\n    ProxyJump {GATEWAY}\n"
            f"    HostKeyAlias {_alias(vps)}\n{trust}"
        )
    return "\n".join(blocks)


def _alias(vps: VpsSummary) -> str:
    return f"hakuriver-vps-{vps.task_id}"


def _put(path: Path, lines: Iterable[str]) -> None:
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    fresh.replace(path)


def _include(config: Path, line: str) -> None:
    """Puts the line before all else: below a `Host` it would hold for that host alone."""
    try:
        text = config.read_text("utf-8") if config.exists() else ""
        if line in text.splitlines():
            return
        config.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        real = config.resolve()
        _put(real, [line, *(["", *text.splitlines()] if text else [])])
        real.chmod(0o600)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot change {config}: {error}", f"add the line yourself: {line}") from None
