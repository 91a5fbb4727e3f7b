"""The command names of the reference (`hakuriver.task`, `hakuriver.client`, …), as further doors to the same functions."""

from __future__ import annotations

import sys
from typing import NoReturn

from cyclopts import App

from hakuriver.version import __version__
from hakuriver_cli.main import run


def client() -> NoReturn:
    """`hakuriver.client nodes | health | status | kill | command`."""
    _run(client_app())


def task() -> NoReturn:
    """`hakuriver.task submit | stdout | stderr | kill | command`."""
    _run(task_app())


def docker() -> NoReturn:
    """`hakuriver.docker list-tars`."""
    _run(docker_app())


def init() -> NoReturn:
    """`hakuriver.init config | service`; `config` when nothing is named."""
    app = init_app()
    words = sys.argv[1:]
    sys.exit(run(app, words or ["config"]))


def host() -> NoReturn:
    """`hakuriver.host [-c FILE]`."""
    _run(daemon_app("host"))


def runner() -> NoReturn:
    """`hakuriver.runner [-c FILE]`."""
    _run(daemon_app("runner"))


def client_app() -> App:
    app = _app("hakuriver.client", "Look at nodes and tasks, and control tasks.")
    app.command("hakuriver_cli.nodes:list_nodes", name="nodes")
    app.command("hakuriver_cli.nodes:health", name="health")
    app.command("hakuriver_cli.tasks:status", name="status")
    app.command("hakuriver_cli.tasks:kill", name="kill")
    app.command("hakuriver_cli.tasks:command", name="command")
    return app


def task_app() -> App:
    app = _app("hakuriver.task", "Submit and control tasks.")
    app.command("hakuriver_cli.tasks:submit", name="submit")
    app.command("hakuriver_cli.logs:stdout", name="stdout")
    app.command("hakuriver_cli.logs:stderr", name="stderr")
    app.command("hakuriver_cli.tasks:kill", name="kill")
    app.command("hakuriver_cli.tasks:command", name="command")
    return app


def docker_app() -> App:
    app = _app("hakuriver.docker", "Look at the environments.")
    app.command("hakuriver_cli.cluster:list_environments", name="list-tars")
    return app


def init_app() -> App:
    app = _app("hakuriver.init", "Write a configuration or systemd units.")
    app.command("hakuriver_cli.configure:init_config", name="config")
    app.command("hakuriver_cli.configure:service", name="service")
    return app


def daemon_app(role: str) -> App:
    from hakuriver_cli import daemons  # noqa: PLC0415  (loaded by these entries alone)

    app = _app(f"hakuriver.{role}", f"Run the {role.capitalize()} in the foreground.")
    app.default(getattr(daemons, role))
    return app


def _app(name: str, text: str) -> App:
    return App(name=name, help=text, version=__version__, help_format="plaintext")


def _run(app: App) -> NoReturn:
    sys.exit(run(app, sys.argv[1:]))
