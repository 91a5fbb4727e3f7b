"""Every command explains itself, and every option is told of."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from cyclopts import App

from hakuriver_cli import reference
from hakuriver_cli.commands import application
from unit.cli.conftest import Commands

APPS: list[Callable[[], App]] = [
    application,
    reference.client_app,
    reference.task_app,
    reference.docker_app,
    reference.init_app,
]
VERBS = [
    "up",
    "gpu list",
    "host",
    "runner",
    "state backup",
    "state restore",
    "status",
    "whoami",
    "version",
    "completion",
    "task exec",
    "task shell",
    "connect",
    "forward",
    "cp",
    "vps create",
    "vps list",
    "vps status",
    "vps kill",
    "vps stop",
    "vps start",
    "vps restart",
    "vps extend",
    "vps snapshot",
    "vps snapshots",
    "vps restore",
    "vps logs",
    "vps pause",
    "vps resume",
    "vps share",
    "vps unshare",
    "ssh",
    "sweep",
    "queue",
    "batch list",
    "batch status",
    "batch wait",
    "batch kill",
    "batch hold",
    "batch release",
    "batch reprioritize",
    "batch retry",
    "batch logs",
    "task hold",
    "task release",
    "task reprioritize",
    "ssh-config",
    "key add",
    "key list",
    "key remove",
    "node list",
    "node health",
    "node cordon",
    "node uncordon",
    "node drain",
    "node label",
    "node remove",
    "env create",
    "env clone",
    "env list",
    "env versions",
    "env start",
    "env stop",
    "env delete",
    "env shell",
    "env exec",
    "env cp",
    "env pack",
    "env diff",
    "env rollback",
    "env tag",
    "env export",
    "env import",
    "env prefetch",
    "env gc",
    "cluster init",
    "cluster check",
    "cluster deploy",
    "cluster add-node",
    "cluster remove-node",
    "cluster upgrade",
    "cluster backup",
    "cluster restore",
    "cluster rotate",
    "cluster status",
    "cluster logs",
    "cluster bundle",
    "cluster reset",
    "config show",
    "config check",
    "init config",
    "init service",
    "user create",
    "user list",
    "user remove",
    "token create",
    "token list",
    "token revoke",
    "task run",
    "task submit",
    "task list",
    "task status",
    "task explain",
    "task logs",
    "task stdout",
    "task stderr",
    "task wait",
    "task kill",
    "task pause",
    "task resume",
    "task retry",
]


def leaves(app: App, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], App]]:
    for name, command in app.resolved_commands().items():
        if not name.startswith("-"):
            inner = list(leaves(command, (*path, name)))
            yield from inner or [((*path, name), command)]


def named(value: object) -> str:
    return " ".join(value) if isinstance(value, tuple) else ""


ALL = [(make, path) for make in APPS for path, _ in leaves(make())]


def test_the_commands_are_these() -> None:
    assert sorted(" ".join(path) for path, _ in leaves(application())) == sorted(VERBS)


@pytest.mark.parametrize(("make", "path"), ALL, ids=named)
def test_help_says_what_it_does(commands: Commands, make: Callable[[], App], path: tuple[str, ...]) -> None:
    app = make()
    done = commands(*path, "--help", app=app)
    assert done.code == 0
    assert done.err == ""
    usage, _, rest = done.out.strip().partition("\n")
    assert usage.startswith(f"Usage: {app.name[0]} {' '.join(path)}")
    assert rest.strip()[0].isupper()


@pytest.mark.parametrize(("make", "path"), ALL, ids=named)
def test_every_option_has_a_description(make: Callable[[], App], path: tuple[str, ...]) -> None:
    command = dict(leaves(make()))[path]
    for argument in command.assemble_argument_collection():
        if argument.name != "*":
            assert argument.parameter.help, argument.name


@pytest.mark.parametrize("role", ["host", "runner"])
def test_the_daemons_entries_of_the_reference(commands: Commands, role: str) -> None:
    done = commands("--help", app=reference.daemon_app(role))
    assert done.code == 0
    assert "-c" in done.out


def test_a_noun_alone_shows_its_verbs(commands: Commands) -> None:
    done = commands("task")
    assert done.code == 0
    assert "submit" in done.out


def test_completion_names_the_commands(commands: Commands) -> None:
    done = commands("completion", "bash", "--print")
    assert done.code == 0
    assert "explain" in done.out
