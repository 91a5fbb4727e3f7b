"""`hakuriver cluster init`: asks a few questions, and writes an inventory to start from."""

from __future__ import annotations

import pwd
import socket
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, TypeVar

from cyclopts import Parameter

from hakuriver.errors import ConflictError, UsageError
from hakuriver_cli.deploy import inventory
from hakuriver_cli.deploy.new_inventory import (
    Answers,
    Machine,
    Share,
    absolute,
    account,
    check,
    check_machines,
    check_share,
    cluster_name,
    files,
    machine,
)
from hakuriver_cli.errors import report
from hakuriver_cli.options import COMMON, Common
from hakuriver_cli.session import Session

Ask = Callable[[str, str], str]
"""A question and what an empty answer means; gives the answer."""
Parsed = TypeVar("Parsed")


def init(
    directory: Annotated[Path, Parameter(name="DIR", help="Folder for the inventory.")] = inventory.DEFAULT,
    /,
    *,
    local: Annotated[bool, Parameter(help="This machine is Host and Runner.")] = False,
    name: Annotated[str | None, Parameter(help="Name of the cluster.")] = None,
    host: Annotated[str | None, Parameter(help="The Host: NAME or NAME=ADDRESS.")] = None,
    runner: Annotated[
        tuple[str, ...], Parameter(help="A Runner: NAME or NAME=ADDRESS; may be repeated.")
    ] = (),
    ssh_user: Annotated[
        str | None, Parameter(help="Who ssh logs in as; root, or one who may use sudo.")
    ] = None,
    share: Annotated[Share | None, Parameter(help="How the machines share files.")] = None,
    share_path: Annotated[str | None, Parameter(help="Where every machine sees the share.")] = None,
    no_tls: Annotated[
        bool, Parameter(help="Without encryption: for a network that nobody else is on.")
    ] = False,
    user: Annotated[
        tuple[str, ...], Parameter(help="An account to make on all machines; may be repeated.")
    ] = (),
    non_interactive: Annotated[
        bool, Parameter(help="Ask nothing; take defaults for what is not given.")
    ] = False,
    common: Common = COMMON,
) -> None:
    """Write an inventory to start from. What the options leave open is asked. Nothing is overwritten."""
    printer = Session(common).printer
    folder = directory.expanduser().absolute()
    _require_free(folder)
    given = _Given(local, name, host, runner, ssh_user, share, share_path, not no_tls, user)
    ask = _take_default if non_interactive or local or not sys.stdin.isatty() else _ask
    written = _write(folder, files(given.answers(ask)))
    for path in written:
        printer.out.write(f"{path}\n")
    named = "" if directory == inventory.DEFAULT else f" --inventory {directory}"
    printer.say(f"look through {folder / 'group_vars' / 'all.yml'}, then: hakuriver cluster deploy{named}")


class _Given:
    """What the options say; questions fill the rest."""

    def __init__(
        self,
        local: bool,
        name: str | None,
        host: str | None,
        runners: tuple[str, ...],
        ssh_user: str | None,
        share: Share | None,
        share_path: str | None,
        tls: bool,
        users: tuple[str, ...],
    ) -> None:
        self._local = local
        self._name = name
        self._host = host
        self._runners = runners
        self._ssh_user = ssh_user
        self._share = share
        self._share_path = share_path
        self._tls = tls
        self._users = users

    def answers(self, ask: Ask) -> Answers:
        return self._of_this_machine() if self._local else self._of_machines(ask)

    def _of_this_machine(self) -> Answers:
        if self._host or self._runners or self._ssh_user:
            raise UsageError("--local is one machine: this one", "leave out --host, --runner and --ssh-user")
        here = Machine(socket.gethostname().partition(".")[0] or "localhost", None)
        return check(
            Answers(
                name=self._name or "hakuriver",
                host=here,
                runners=(here,),
                share=self._share or Share.LOCAL,
                share_path=self._share_path or "/srv/hakuriver",
                tls=self._tls,
                users=self._users,
                numbers={user: pwd.getpwnam(user).pw_uid for user in self._users if _has_account(user)},
            )
        )

    def _of_machines(self, ask: Ask) -> Answers:
        name = self._name or _asked(ask, "Name of the cluster", "hakuriver", cluster_name)
        question = "The Host's machine, NAME or NAME=ADDRESS"
        host = _host(self._host) if self._host else _asked(ask, question, "", _host)
        given = " ".join(self._runners)
        question = "Runners, each NAME or NAME=ADDRESS, with blanks between"
        read = partial(_runners, host=host)
        runners = read(given) if given else _asked(ask, question, _written_as(host), read)
        alone = {one.name for one in runners} == {host.name}
        kinds = "local, existing, nfs, glusterfs or sshfs" if alone else "nfs, existing, glusterfs or sshfs"
        usual = "local" if alone else "nfs"
        share = self._share or _asked(ask, f"Shared storage: {kinds}", usual, partial(_share, alone=alone))
        return check(
            Answers(
                name=name,
                host=host,
                runners=runners,
                ssh_user=self._ssh_user or _asked(ask, "Who ssh logs in as", "root", account),
                share=share,
                share_path=self._share_path
                or _asked(ask, "Where every machine sees the share", "/mnt/hakuriver", absolute),
                tls=self._tls,
                users=self._users
                or _asked(ask, "Accounts to make on all machines, with blanks between", "", _accounts),
            )
        )


def _asked(ask: Ask, question: str, default: str, read: Callable[[str], Parsed]) -> Parsed:
    """The answer, understood. A person who was asked may try again; who gave no answer gets the error."""
    while True:
        answer = ask(question, default)
        try:
            return read(answer)
        except UsageError as error:
            if ask is not _ask:
                raise
            report(error)


def _host(text: str) -> Machine:
    if not text:
        raise UsageError(
            "which machine is the Host?", "give --host NAME=ADDRESS, or --local for this machine"
        )
    return machine(text)


def _runners(text: str, host: Machine) -> tuple[Machine, ...]:
    """The Host's machine is named without its address."""
    words = [(word, machine(word)) for word in text.split()]
    found = tuple(host if one.name == host.name and "=" not in word else one for word, one in words)
    check_machines(host, found)
    return found


def _accounts(text: str) -> tuple[str, ...]:
    return tuple(map(account, text.split()))


def _has_account(user: str) -> bool:
    try:
        return pwd.getpwnam(user).pw_uid > 0
    except KeyError:
        return False


def _written_as(one: Machine) -> str:
    return one.name if one.address in {None, one.name} else f"{one.name}={one.address}"


def _share(text: str, *, alone: bool) -> Share:
    try:
        found = Share(text.strip())
    except ValueError:
        raise UsageError(f"{text!r} is no kind of share", f"choose one of {', '.join(Share)}") from None
    check_share(found, alone=alone)
    return found


def _ask(question: str, default: str) -> str:
    sys.stderr.write(f"{question}{f' [{default}]' if default else ''}: ")
    sys.stderr.flush()
    line = sys.stdin.readline()
    if not line:
        raise UsageError("no answer came", "give the answers as options, see --help")
    return line.strip() or default


def _take_default(_question: str, default: str) -> str:
    return default


def _require_free(folder: Path) -> None:
    for name in (inventory.HOSTS_FILE, "group_vars"):
        if (folder / name).exists():
            raise ConflictError(
                f"{folder} has an inventory already: {folder / name}",
                "edit it, use `hakuriver cluster add-node`, or name another folder",
            )


def _write(folder: Path, contents: dict[str, str]) -> list[Path]:
    written = []
    for name, text in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            continue
        written.append(path)
    return written
