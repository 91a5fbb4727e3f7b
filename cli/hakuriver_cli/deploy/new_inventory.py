"""The inventory that `cluster init` writes: from a few answers to commented files. Pure."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import PurePosixPath

from hakuriver.errors import UsageError

SERVICE_NUMBER = 640
"""Distributions give accounts of the system numbers from 100 upward and from 999 downward; few machines come to this one."""
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")
_ADDRESS = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:_-]*")
_USER = re.compile(r"[a-z_][a-z0-9_-]*\$?")


class Share(StrEnum):
    """How the machines come to share files."""

    NFS = "nfs"
    """The Host exports a folder."""
    EXISTING = "existing"
    """Every machine has it mounted already."""
    LOCAL = "local"
    """One machine alone: a folder."""
    GLUSTERFS = "glusterfs"
    SSHFS = "sshfs"


@dataclass(frozen=True, slots=True)
class Machine:
    name: str
    address: str | None
    """None where Ansible runs: this machine."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What was asked, or given by options."""

    name: str
    host: Machine
    runners: tuple[Machine, ...]
    ssh_user: str = "root"
    share: Share = Share.NFS
    share_path: str = "/mnt/hakuriver"
    tls: bool = True
    users: tuple[str, ...] = field(default=())
    numbers: Mapping[str, int] = field(default_factory=dict)
    """The uids of those users who have an account already; they keep it."""

    @property
    def local(self) -> bool:
        return all(machine.address is None for machine in (self.host, *self.runners))


def machine(text: str) -> Machine:
    """`NAME` or `NAME=ADDRESS`."""
    name, _, address = text.strip().partition("=")
    address = address or name
    if not _NAME.fullmatch(name) or not _ADDRESS.fullmatch(address):
        raise UsageError(f"{text!r} is no machine", "write NAME or NAME=ADDRESS, such as node-1=192.168.1.11")
    return Machine(name, address)


def check(answers: Answers) -> Answers:
    """Raises UsageError for what cannot be a cluster."""
    cluster_name(answers.name)
    check_machines(answers.host, answers.runners)
    account(answers.ssh_user)
    absolute(answers.share_path)
    check_share(answers.share, alone={one.name for one in answers.runners} == {answers.host.name})
    for user in answers.users:
        account(user)
    return answers


def cluster_name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise UsageError(f"{text!r} is no name for a cluster", "use letters, digits and hyphens")
    return text


def account(text: str) -> str:
    if not _USER.fullmatch(text):
        raise UsageError(f"{text!r} is no name of a user", "use lower-case letters, digits and hyphens")
    return text


def absolute(text: str) -> str:
    if not PurePosixPath(text).is_absolute():
        raise UsageError(f"{text!r} is no absolute path", "start it with /")
    return text


def check_share(share: Share, *, alone: bool) -> None:
    if share is Share.LOCAL and not alone:
        raise UsageError("a local folder serves one machine alone", "choose nfs, or another kind of share")


def check_machines(host: Machine, runners: tuple[Machine, ...]) -> None:
    """No two with one name, and no two with one address."""
    if not runners:
        raise UsageError("a cluster needs a Runner", "the Host's machine may be one: give it again")
    addresses: dict[str | None, str] = {}
    for one in (host, *runners):
        other = addresses.setdefault(one.address, one.name)
        if other != one.name:
            raise UsageError(
                f"{other} and {one.name} have the same address: {one.address}", "correct one of them"
            )
    names: dict[str, str | None] = {}
    for one in (host, *runners):
        if names.setdefault(one.name, one.address) != one.address:
            raise UsageError(f"two machines are called {one.name}", "give each a name of its own")


def files(answers: Answers) -> dict[str, str]:
    """The files of the inventory's folder, by their path in it."""
    check(answers)
    return {
        "hosts.yml": _hosts(answers),
        "group_vars/all.yml": _variables(answers),
        ".gitignore": "# Keys, tokens, backups and the history of deployments are this machine's own.\n.hakuriver/\n",
    }


def _hosts(answers: Answers) -> str:
    host, runners = _entry(answers.host), "".join(map(_entry, answers.runners))
    if answers.host in answers.runners:
        runners = "".join(_bare(one) if one == answers.host else _entry(one) for one in answers.runners)
    return f"""\
# The machines of the cluster {answers.name}. A new line makes a new node:
#   hakuriver cluster add-node NAME --address ADDRESS     adds it here and sets it up
#   hakuriver cluster deploy                              sets up what was added by hand
---
hakuriver:
  children:
    # The machine that coordinates: exactly one.
    hakuriver_host:
      hosts:
{host}
    # The machines that run tasks: one or more; the Host's may be one of them.
    hakuriver_runners:
      hosts:
{runners}"""


def _entry(one: Machine) -> str:
    if one.address is None:
        return f"        {one.name}:\n          ansible_connection: local\n"
    return f"        {one.name}:\n          ansible_host: {one.address}\n"


def _bare(one: Machine) -> str:
    return f"        {one.name}:\n"


def _variables(answers: Answers) -> str:
    return "\n".join(
        part for part in (_connection(answers), _cluster(answers), _storage(answers), _users(answers)) if part
    )


def _connection(answers: Answers) -> str:
    if answers.local:
        return """\
---
# Ansible works on this very machine, as root: start `hakuriver cluster` as root, or let sudo ask with
# --ask-become-pass.
ansible_become: true
"""
    return f"""\
---
# How Ansible reaches the machines. Passwords do not belong here: use keys, or --ask-pass and --ask-become-pass, or a
# vault (ansible-vault encrypt_string).
ansible_user: {answers.ssh_user}
ansible_become: {"false" if answers.ssh_user == "root" else "true"}
# ansible_ssh_private_key_file: ~/.ssh/id_ed25519
"""


_HERE = """\
hakuriver_host_address: 127.0.0.1
hakuriver_node_address: 127.0.0.1
# Nobody but this machine calls the daemons.
hakuriver_host_bind: 127.0.0.1
hakuriver_runner_bind: 127.0.0.1"""


def _cluster(answers: Answers) -> str:
    address = answers.host.address
    reach = f"# hakuriver_host_address: {address}" if address else _HERE
    return f"""\
# The cluster's name, for people.
hakuriver_cluster_name: {answers.name}
# What Runners and clients call the Host by; its ansible_host if not set.
{reach}
# hakuriver_host_port: 8000
# hakuriver_runner_port: 8001
# Encrypt and authenticate all connections, by certificates of a CA that is made in .hakuriver beside this inventory.
hakuriver_tls: {"true" if answers.tls else "false"}
# Fetch the administrator's token into .hakuriver, so that `hakuriver cluster status` can ask the Host.
hakuriver_host_fetch_admin_token: true
"""


def _storage(answers: Answers) -> str:
    return f"""\
# Where every machine sees the files that all share.
hakuriver_shared_dir: {answers.share_path}
# nfs (the Host exports a folder), existing (mounted by you), glusterfs, sshfs, or local (one machine alone).
shared_storage_type: {answers.share}
# Numbers of the account hakuriver, which owns the Host's files there: free on all machines, and the same for good.
hakuriver_uid: {SERVICE_NUMBER}
hakuriver_gid: {SERVICE_NUMBER}
"""


def _users(answers: Answers) -> str:
    if not answers.users:
        return """\
# People's accounts on all machines, with the same numbers everywhere.
# users_accounts:
#   - name: ada
#     uid: 2001
"""
    lines = ["# People's accounts on all machines, with the same numbers everywhere.", "users_accounts:"]
    free = (number for number in itertools.count(2001) if number not in answers.numbers.values())
    for user in answers.users:
        lines += [f"  - name: {user}", f"    uid: {answers.numbers.get(user) or next(free)}"]
    return "\n".join(lines) + "\n"
