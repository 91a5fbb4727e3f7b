"""The command names of the reference (`hakuriver.task`, `hakuriver.client`, …), as further doors to the same functions."""

from __future__ import annotations

import sys
from typing import NoReturn

from cyclopts import App

from hakuriver_cli.commands import application, run
from hakuriver_cli.main import run_and_exit
from hakuriver_cli.tree import lazy, new_app


def client() -> NoReturn:
    """`hakuriver.client nodes | health | status | kill | command`."""
    _run(client_app())


def task() -> NoReturn:
    """`hakuriver.task submit | stdout | stderr | kill | command`."""
    _run(task_app())


def vps() -> NoReturn:
    """`hakuriver.vps submit | status | kill | command`."""
    _run(vps_app())


def ssh() -> NoReturn:
    """`hakuriver.ssh TASK_ID`."""
    _run(ssh_app())


def docker() -> NoReturn:
    """`hakuriver.docker list-containers | create-container | … | list-tars | create-tar`."""
    _run(docker_app())


def docker_shell() -> NoReturn:
    """`hakuriver.docker-shell NAME`."""
    _run(docker_shell_app())


def init() -> NoReturn:
    """`hakuriver.init config | service`; `config` when nothing is named."""
    app = init_app()
    words = sys.argv[1:]
    run_and_exit(lambda: run(app, words or ["config"]))


def host() -> NoReturn:
    """`hakuriver.host [-c FILE]`."""
    _run(daemon_app("host"))


def runner() -> NoReturn:
    """`hakuriver.runner [-c FILE]`."""
    _run(daemon_app("runner"))


def hakurun() -> NoReturn:
    """`hakurun [--parallel] APP ARGUMENTS`."""
    run_and_exit(lambda: run(application(), ["sweep", *sys.argv[1:]]))


def client_app() -> App:
    app = new_app("hakuriver.client", "Look at nodes and tasks, and control tasks.")
    lazy(app, "nodes:list_nodes", "nodes", "List the nodes.")
    lazy(app, "nodes:health", "health", "Show the load of the nodes.")
    lazy(app, "tasks:status", "status", "Show all that is known of tasks.")
    lazy(app, "tasks:kill", "kill", "End tasks.")
    lazy(app, "tasks:command", "command", "Pause or resume a task.")
    return app


def task_app() -> App:
    app = new_app("hakuriver.task", "Submit and control tasks.")
    lazy(app, "tasks:submit", "submit", "Queue a command.")
    lazy(app, "logs:stdout", "stdout", "Print the stdout of tasks.")
    lazy(app, "logs:stderr", "stderr", "Print the stderr of tasks.")
    lazy(app, "tasks:kill", "kill", "End tasks.")
    lazy(app, "tasks:command", "command", "Pause or resume a task.")
    return app


def vps_app() -> App:
    app = new_app("hakuriver.vps", "Make and control VPS.")
    lazy(app, "vps_create:create", "submit", "Make a VPS.")
    lazy(app, "vps_control:status_of_all", "status", "List the VPS that have not ended.")
    lazy(app, "tasks:kill", "kill", "End VPS.")
    lazy(app, "tasks:command", "command", "Pause or resume a VPS.")
    return app


def ssh_app() -> App:
    from hakuriver_cli import ssh as module  # noqa: PLC0415  (loaded by this entry alone)

    app = new_app("hakuriver.ssh", "Log in to a VPS.")
    app.default(module.reference)
    return app


def docker_app() -> App:
    app = new_app("hakuriver.docker", "Prepare environments on the Host, and pack them.")
    lazy(app, "reference_docker:list_containers", "list-containers", "List the containers of environments.")
    lazy(app, "reference_docker:create_container", "create-container", "Make a container from an image.")
    lazy(app, "reference_docker:delete_container", "delete-container", "Delete a container.")
    lazy(app, "reference_docker:start_container", "start-container", "Start a container.")
    lazy(app, "reference_docker:stop_container", "stop-container", "Stop a container.")
    lazy(app, "reference_docker:list_tars", "list-tars", "List the versions of environments.")
    lazy(app, "reference_docker:create_tar", "create-tar", "Pack a container as the next version.")
    return app


def docker_shell_app() -> App:
    from hakuriver_cli import environments  # noqa: PLC0415  (loaded by this entry alone)

    app = new_app("hakuriver.docker-shell", "Open a shell in an environment's container.")
    app.default(environments.shell)
    return app


def init_app() -> App:
    app = new_app("hakuriver.init", "Write a configuration or systemd units.")
    lazy(app, "configure:init_config", "config", "Write a configuration file.")
    lazy(app, "configure:service", "service", "Write systemd units.")
    return app


def daemon_app(role: str) -> App:
    from hakuriver_cli import daemons  # noqa: PLC0415  (loaded by these entries alone)

    app = new_app(f"hakuriver.{role}", f"Run the {role.capitalize()} in the foreground.")
    app.default(getattr(daemons, role))
    return app


def _run(app: App) -> NoReturn:
    run_and_exit(lambda: run(app, sys.argv[1:]))
