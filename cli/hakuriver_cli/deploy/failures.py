"""From what Ansible says of a failure to our words: which node, what is wrong, what to do.

Pure. A table of patterns, the narrowest first, knows the failures that people meet; a failed assertion says its own
words, and anything else shows the end of what the command printed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from hakuriver_cli.deploy.events import Event, Kind

_LIMIT = 300
_NO_YAML = "a file of the inventory is no YAML"
_TWICE = "the inventory has a name twice"
_CONSEQUENCE = "nothing was done here, because of "


class Failure(BaseModel):
    """One failure, in words for people."""

    nodes: list[str]
    """Where it happened; empty when it is of the inventory or a playbook."""
    task: str = ""
    message: str
    hint: str = ""
    unreachable: bool = False

    @property
    def line(self) -> str:
        where = f"{', '.join(self.nodes)}: " if self.nodes else ""
        return f"{where}{self.message}{f' (in: {self.task})' if self.task else ''}"


@dataclass(frozen=True, slots=True)
class _Known:
    pattern: re.Pattern[str]
    message: str
    hint: str

    def told(self, text: str, node: str) -> tuple[str, str] | None:
        found = self.pattern.search(text)
        if found is None:
            return None
        words = {"node": node, **{key: (value or "").strip() for key, value in found.groupdict().items()}}
        return self.message.format(**words), self.hint.format(**words)


def _known(pattern: str, message: str, hint: str) -> _Known:
    return _Known(re.compile(pattern, re.IGNORECASE | re.DOTALL), message, hint)


_CONNECTION = [
    _known(
        r"REMOTE HOST IDENTIFICATION HAS CHANGED|Host key for .* has changed",
        "its ssh host key is not the one that was known",
        "if the machine was installed anew: `ssh-keygen -R ADDRESS`, then log in once by `ssh ADDRESS`; if not, find out why",
    ),
    _known(
        r"Host key verification failed|authenticity of host|host key .*(unknown|is not known)",
        "its ssh host key is not known here",
        "log in once by `ssh ADDRESS` and compare the key, or add it with `ssh-keyscan ADDRESS >> ~/.ssh/known_hosts`",
    ),
    _known(
        r"Invalid/incorrect password|Permission denied \([^)]*password[^)]*\)\.?.*(sshpass|ask-pass)",
        "the ssh password is wrong",
        "try again; or give ansible_user in the inventory, or a key by ansible_ssh_private_key_file",
    ),
    _known(
        r"Permission denied \((?P<how>[^)]*)\)",
        "ssh refuses the login ({how})",
        "try `ssh USER@ADDRESS`; set ansible_user, install a key with `ssh-copy-id`, or use --ask-pass",
    ),
    _known(
        r"Too many authentication failures",
        "ssh offered too many keys",
        "name the right one in the inventory: ansible_ssh_private_key_file",
    ),
    _known(
        r"Could not resolve hostname (?P<name>[^\s:]+)|Name or service not known",
        "its address {name} is not known to the name service",
        "correct ansible_host in the inventory, or give an IP address",
    ),
    _known(
        r"Connection refused",
        "nothing answers to ssh at its address",
        "start sshd there, and check ansible_host and ansible_port in the inventory",
    ),
    _known(
        r"No route to host|Network is unreachable",
        "there is no way to its address",
        "check that the machine is on, its address in the inventory, and the network between",
    ),
    _known(
        r"(Connection|Operation|banner exchange).{0,40}timed? ?out|Connection timed out|Timeout \(\d+s\) waiting",
        "it does not answer to ssh in time",
        "check that the machine is on, its address in the inventory, and firewalls",
    ),
    _known(
        r"Failed to create temporary directory|Authentication or permission failure",
        "ssh works, but no temporary folder can be made there",
        "check that the home folder of the login exists and its disk is not full (`df -h`), or set ansible_remote_tmp",
    ),
    _known(
        r"Connection (reset|closed)|Broken pipe|Shared connection to .* closed|mux_client",
        "the ssh connection broke off",
        "look whether the machine restarted; then start the same command again",
    ),
]

_SUDO = [
    _known(
        r"Missing (sudo|become|su) password|(sudo|become).{0,40}password is required",
        "sudo asks for a password",
        "use --ask-become-pass, keep ansible_become_password in a vault, or allow sudo without one",
    ),
    _known(
        r"Incorrect (sudo|become|su) password|Sorry, try again",
        "the sudo password is wrong",
        "try again with --ask-become-pass, or correct ansible_become_password in the vault",
    ),
    _known(
        r"(?P<user>\S+) is not in the sudoers file|not allowed to (execute|run) ",
        "the login may not use sudo",
        "add it to the group sudo there, or set ansible_user to one that may",
    ),
    _known(
        r"sudo: (command )?not found|sudo: No such file|Unable to find.*become.*(sudo)",
        "there is no sudo",
        "install it (`apt-get install sudo`), or log in as root: ansible_user: root",
    ),
    _known(
        r"waiting for (privilege escalation|become) (prompt|success)|unexpected end of stream.*become|become.*timed? ?out",
        "sudo did not let us in",
        "check sudo there (`sudo -v`); a wrong password or a slow name service are the usual reasons",
    ),
]

_PYTHON = [
    _known(
        r"(/usr/bin/python[\d.]*|/usr/bin/env|python[\d.]*): (not found|No such file|command not found)"
        r"|interpreter .{0,80}(was )?not found|No python interpreters found",
        "there is no Python that Ansible can use",
        "install it there (`apt-get install python3`), or set ansible_python_interpreter in the inventory",
    ),
    _known(
        r"ansible-core requires a minimum of Python|SyntaxError: future feature|Python .{0,20}is (not supported|too old)",
        "its Python is too old",
        "install a newer one and set ansible_python_interpreter in the inventory",
    ),
]

_SYSTEM = [
    _known(
        r"No space left on device|You don't have enough free space|Disk quota exceeded",
        "its disk is full",
        "make room there (`df -h`, `docker system df`), then start the same command again",
    ),
    _known(
        r"Read-only file system(: '?(?P<path>/[^'\"\s]*))?",
        "a file system there can only be read {path}",
        "look at `mount` and `dmesg` there; a share may be exported read-only",
    ),
    _known(
        r"Stale (NFS )?file handle",
        "a share there is stale",
        "unmount and mount it again: `systemctl restart` of its mount unit",
    ),
    _known(
        r"(Could not get lock|Unable to acquire the dpkg|is another process using it)",
        "another package manager runs there",
        "wait until it has ended (unattended-upgrades often), then start the same command again",
    ),
    _known(
        r"dpkg was interrupted",
        "an installation of packages was broken off there",
        "repair it: `sudo dpkg --configure -a`, then start the same command again",
    ),
    _known(
        r"(Temporary failure resolving|Could not resolve host)[ :]*'?(?P<name>[\w.-]*)",
        "it cannot resolve the name {name}",
        "check the name service there; a cluster without internet installs from `hakuriver cluster bundle`",
    ),
    _known(
        r"No matching distribution found for (?P<name>\S+)|Could not find a version that satisfies the requirement (?P<name2>\S+)",
        "pip finds no {name}{name2}",
        "check the package index (hakuriver_install_pip_environment), or deploy with --bundle",
    ),
    _known(
        r"THESE PACKAGES DO NOT MATCH THE HASHES",
        "a package is not the one that the lock names",
        "look which index it came from; do not install it",
    ),
    _known(
        r"No package matching '(?P<name>[^']+)' is available|Unable to locate package (?P<name2>\S+)",
        "there is no package {name}{name2} for its distribution",
        "check its package sources (`apt-get update`), or give a folder of packages by --bundle",
    ),
    _known(
        r"Failed to fetch|Unable to connect to .*(deb|archive|mirror)|apt cache update failed|Failed to update apt cache",
        "packages cannot be fetched there",
        "check its package sources and the way to the internet; without internet use --bundle",
    ),
    _known(
        r"certificate verify failed|SSL: CERTIFICATE|self[- ]signed certificate",
        "a certificate is not trusted there",
        "check the clock and ca-certificates there; behind a proxy install its certificate",
    ),
    _known(
        r"Address already in use|port (?P<port>\d+).{0,30}in use",
        "a port {port} that is needed is taken there",
        "see by what with `ss -lntp`; end it, or change the port in the inventory",
    ),
    _known(
        r"Unable to (re)?start service (?P<unit>[\w@.-]+)|Job for (?P<unit2>[\w@.-]+) failed",
        "the service {unit}{unit2} does not start",
        "see why with `journalctl -eu {unit}{unit2}` there, or `hakuriver cluster logs --limit NODE`",
    ),
    _known(
        r"Cannot connect to the Docker daemon|Is the docker daemon running",
        "its Docker engine does not answer",
        "see why with `journalctl -eu docker` there",
    ),
    _known(
        r"Could not find or access '(?P<path>[^']+)'",
        "the file {path} is not on this machine",
        "check the path in the inventory",
    ),
]

_CONTROLLER = [
    _known(
        r"Attempting to decrypt but no vault secrets found|no vault secrets",
        "the inventory holds vault secrets, and no vault password was given",
        "use --ask-vault-pass or --vault-password-file",
    ),
    _known(
        r"Decryption failed|HMAC verification failed",
        "the vault password is wrong",
        "try again; vaults may have passwords of their own (ansible-vault view FILE)",
    ),
    _known(
        r"Found duplicate mapping key '(?P<name>[^']+)'",
        "the inventory has a name twice: {name}",
        "give each machine, and each variable of one place, a name of its own",
    ),
    _known(
        r"(YAML parsing failed|Syntax Error while loading YAML|could not be parsed|did not find expected)[:.]?\s*(?P<what>[^\n]*)",
        "a file of the inventory is no YAML: {what}",
        "correct the indentation or the quotes there",
    ),
    _known(
        r"hosts to target|no hosts matched|Could not match supplied host pattern(, ignoring: (?P<name>\S+))?",
        "no node of the inventory is meant {name}",
        "see the names with `hakuriver cluster status`, and correct --limit",
    ),
    _known(
        r"'(?P<name>[A-Za-z_]\w*)' is undefined",
        "the variable {name} is not set",
        "set it in group_vars of the inventory; look for a typing error in its name",
    ),
]

_LOCATED = {_NO_YAML: "the inventory is no YAML", _TWICE: _TWICE}
_ALL = (*_SUDO, *_PYTHON, *_SYSTEM, *_CONTROLLER)
_PREFIX = re.compile(
    r"^(Task failed|Action failed|Module failed|\[ERROR\]|ERROR!|fatal)\s*:\s*", re.IGNORECASE
)
_HINT = re.compile(r"hint:\s*", re.IGNORECASE)
_SPEAKING = frozenset({"ansible.builtin.fail", "ansible.builtin.assert"})
_INVENTORY = "inventory"


def explain(event: Event) -> list[Failure]:
    """One failed or unreachable node in words; a check may find several things wrong at once."""
    node = event.node or ""
    unreachable = event.kind is Kind.UNREACHABLE
    told = None if unreachable else _of_assertion(event)
    return [
        _failure(event, node, message, hint, unreachable=unreachable)
        for message, hint in told or [_told(event, node, unreachable=unreachable)]
    ]


def explain_words(words: str) -> Failure:
    """What to say when nothing was played at all: the inventory, the vault or a playbook is wrong."""
    found = _search((*_CONTROLLER, *_SUDO), words, "")
    if found:
        return Failure(nodes=[], message=_clean(found[0]), hint=found[1])
    lines = [line for line in words.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("[ERROR]", "ERROR!", "error:"))]
    line = (errors or lines or ["Ansible ended and gave no reason"])[-1 if not errors else 0]
    return Failure(
        nodes=[], message=_short(_stripped(line)), hint="use --verbose to see all that Ansible says"
    )


def located(failure: Failure, places: Callable[[], Sequence[str]]) -> Failure:
    """With the file and line that cannot be read, which Ansible does not always say."""
    what = next((said for start, said in _LOCATED.items() if failure.message.startswith(start)), None)
    if failure.nodes or what is None or not (found := places()):
        return failure
    return failure.model_copy(update={"message": f"{what}: {'; '.join(found)}"})


def merged(failures: Iterable[Failure]) -> list[Failure]:
    """The same failure of several nodes told once, and not what only follows from another node's."""
    found: dict[tuple[str, str, str, bool], Failure] = {}
    for failure in failures:
        key = (failure.task, failure.message, failure.hint, failure.unreachable)
        if key in found:
            found[key].nodes += [node for node in failure.nodes if node not in found[key].nodes]
        else:
            found[key] = failure.model_copy(update={"nodes": list(failure.nodes)})
    for failure in found.values():
        failure.nodes.sort()
    reasons = [failure for failure in found.values() if not failure.message.startswith(_CONSEQUENCE)]
    return reasons or list(found.values())


def _failure(event: Event, node: str, message: str, hint: str, *, unreachable: bool) -> Failure:
    nodes = [node] if node else []
    named, colon, rest = message.partition(": ")
    if colon and named in {node, _INVENTORY}:
        nodes = [] if named == _INVENTORY else nodes
        message = f"the inventory: {rest}" if named == _INVENTORY else rest
    if event.delegate:
        message = f"{message} (on {event.delegate})"
    return Failure(nodes=nodes, task=event.title, message=message, hint=hint, unreachable=unreachable)


def _told(event: Event, node: str, *, unreachable: bool) -> tuple[str, str]:
    detail = event.detail
    text = "\n".join(str(detail[key]) for key in _SPOKEN if key in detail)
    if unreachable:
        found = _search((*_CONNECTION, *_ALL), text, node)
        return found or (_short(_stripped(text)), "try `ssh` to its address by hand")
    for tell in (_of_secret, _of_variables):
        if (told := tell(detail)) is not None:
            return told
    found = _search(_ALL, text, node)
    return found or _of_command(detail)


_SPOKEN = ("msg", "module_stderr", "stderr", "module_stdout", "stdout", "exception")


def _of_secret(detail: dict[str, Any]) -> tuple[str, str] | None:
    if "censored" not in detail:
        return None
    return "it failed, and what it said holds a secret and is hidden", "look on the node: `journalctl -e`"


def _of_assertion(event: Event) -> list[tuple[str, str]]:
    """The words of an `assert` or `fail` are ours already: what is wrong, then `hint: ` and what to do, maybe again.

    Without such a line the first is what, and the others what to do.
    """
    detail = event.detail
    if "assertion" not in detail and event.module not in _SPEAKING:
        return []
    lines = [line.strip() for line in _stripped(str(detail.get("msg", ""))).splitlines() if line.strip()]
    if not lines:
        return [(f"this does not hold: {detail.get('assertion', '')}", "")]
    if not any(map(_HINT.match, lines)):
        return [(lines[0], " ".join(lines[1:]))]
    found, before = list[tuple[str, str]](), list[str]()
    for line in lines:
        if _HINT.match(line):
            found += [(what, _HINT.sub("", line)) for what in _each(before, event.node or "")]
            before = []
        else:
            before.append(line)
    if before:
        found[-1] = (found[-1][0], " ".join([found[-1][1], *before]))
    return found


def _each(lines: Sequence[str], node: str) -> list[str]:
    """What is wrong, one by one: a line that names the node begins another, any other line goes on with the one before."""
    found: list[str] = []
    for line in lines:
        if found and not line.startswith((f"{node}: ", f"{_INVENTORY}: ")):
            found[-1] = f"{found[-1]} {line}"
        else:
            found.append(line)
    return found


def _of_variables(detail: dict[str, Any]) -> tuple[str, str] | None:
    errors = detail.get("argument_errors")
    if not errors:
        return None
    told = "; ".join(map(str, errors)) if isinstance(errors, list) else str(errors)
    return (
        f"a variable is wrong: {_short(told)}",
        "correct it in the inventory; the role's README lists them all",
    )


def _of_command(detail: dict[str, Any]) -> tuple[str, str]:
    """A command's own last words, and its exit code."""
    said = next((str(detail[key]) for key in ("stderr", "module_stderr", "stdout") if detail.get(key)), "")
    message = _stripped(str(detail.get("msg", ""))) or "it failed"
    last = _last_line(said)
    if detail.get("rc") not in {None, 0} and "cmd" in detail:
        command = detail["cmd"]
        shown = " ".join(map(str, command)) if isinstance(command, list) else str(command)
        message = f"`{_short(shown, 80)}` ended with exit code {detail['rc']}"
    if last and message != last:
        message = f"{message}: {last}"
    return _short(message), "look on the node, or collect its logs: `hakuriver cluster logs --limit NODE`"


def _search(known: Sequence[_Known], text: str, node: str) -> tuple[str, str] | None:
    for candidate in known:
        if (told := candidate.told(text, node)) is not None:
            return _clean(told[0]), told[1]
    return None


def _clean(message: str) -> str:
    """Without the gap where a part was not known."""
    return " ".join(message.split()).rstrip(": ")


def _stripped(text: str) -> str:
    """Without Ansible's own words in front."""
    before = None
    while before != text:
        before, text = text, _PREFIX.sub("", text.strip())
    return text


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _short(text: str, limit: int = _LIMIT) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"
