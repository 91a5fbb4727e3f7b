"""The tables of commands and their options, from the command trees."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, get_args

from cyclopts import App
from docs_tables import row

from hakuriver_cli import reference
from hakuriver_cli.commands import application
from hakuriver_cli.tree import use_docstrings


def commands(*names: str) -> Callable[[], str]:
    """A page's worth of commands of the `hakuriver` tree."""
    return lambda: "\n".join(_commands(application(), [name]) for name in names)


def _commands(app: App, chain: list[str]) -> str:
    """One command, or all that are below it."""
    _, apps, _ = app.parse_commands(chain)
    below = [name for name in apps[-1] if not name.startswith("-")]
    if below:
        return "\n".join(_commands(app, [*chain, name]) for name in below)
    use_docstrings(apps)
    return _command(apps[-1], " ".join(("hakuriver", *chain)), arguments_of(chain))


def arguments_of(chain: list[str]) -> list[Any]:
    """The arguments and options of one command."""
    app = application()
    _, apps, _ = app.parse_commands(chain)
    with app.app_stack(chain):
        return [argument for argument in apps[-1].assemble_argument_collection() if argument.parameter.help]


def _command(app: App, name: str, arguments: list[Any]) -> str:
    positional = [argument for argument in arguments if argument.index is not None]
    options = [argument for argument in arguments if argument.index is None]
    words = " ".join(_positional(argument) for argument in positional)
    lines = [f"## {name}", "", str(app.help or "").strip(), ""]
    lines += ["```text", " ".join(filter(None, [name, "[OPTIONS]" if options else "", words])), "```", ""]
    if arguments:
        lines += ["| argument or option | meaning | default |", "|---|---|---|"]
        lines += [_argument(argument) for argument in (*positional, *options)]
        lines.append("")
    return "\n".join(lines)


def _positional(argument: Any) -> str:
    several = get_args(argument.hint) and getattr(argument.hint, "__origin__", None) in {list, tuple}
    word = f"{argument.names[0]}..." if several else argument.names[0]
    if word == "COMMAND...":
        return "COMMAND [ARGUMENT...]"
    return word if argument.required else f"[{word}]"


def _argument(argument: Any) -> str:
    names = ", ".join(f"`{name}`" for name in argument.names)
    value = _metavar(argument)
    choices = argument.get_choices()
    meaning = argument.parameter.help + (
        f" One of {', '.join(f'`{choice}`' for choice in choices)}." if choices else ""
    )
    cells = (f"{names}{f' {value}' if value else ''}", meaning, _argument_default(argument))
    return row(cells)


def _metavar(argument: Any) -> str:
    if argument.index is not None or bool in {argument.hint, *get_args(argument.hint)}:
        return ""
    if argument.parameter.metavar:
        return f"`{argument.parameter.metavar}`"
    plain = {"int": "NUMBER", "float": "NUMBER", "Path": "PATH", "PosixPath": "PATH"}
    kinds = [argument.hint, *get_args(argument.hint)]
    found = next((plain[kind.__name__] for kind in kinds if getattr(kind, "__name__", "") in plain), None)
    return f"`{found or ('CHOICE' if argument.get_choices() else 'TEXT')}`"


def _argument_default(argument: Any) -> str:
    default = argument.field_info.default
    if default is inspect.Parameter.empty or default in (None, False, (), ""):
        return ""
    return f"`{default}`"


_OTHER_NAMES = {
    "hakuriver.client": (reference.client_app, {"nodes": "node list", "health": "node health"}, "task"),
    "hakuriver.task": (reference.task_app, {}, "task"),
    "hakuriver.vps": (reference.vps_app, {"submit": "vps create", "status": "vps list"}, "task"),
    "hakuriver.docker": (
        reference.docker_app,
        {
            "list-containers": "env list",
            "create-container": "env create",
            "delete-container": "env delete",
            "start-container": "env start",
            "stop-container": "env stop",
            "list-tars": "env list",
            "create-tar": "env pack",
        },
        "env",
    ),
    "hakuriver.init": (reference.init_app, {}, "init"),
}


def other_names() -> str:
    lines = ["| command | is |", "|---|---|"]
    for program, (make, renamed, noun) in _OTHER_NAMES.items():
        for name in make():
            if name.startswith("-"):
                continue
            same = renamed.get(name, f"{noun} {name}")
            meaning = (
                f"`hakuriver {same}`" if same != "task command" else "`hakuriver task pause` or `resume`"
            )
            words = " TASK_ID pause` or `resume" if same == "task command" else ""
            lines.append(f"| `{program} {name}{words}` | {meaning} |")
    lines.append("| `hakuriver.docker-shell` | `hakuriver env shell` |")
    lines += ["| `hakuriver.ssh` | `hakuriver ssh` |", "| `hakurun` | `hakuriver sweep` |"]
    lines += ["| `hakuriver.host` | `hakuriver host` |", "| `hakuriver.runner` | `hakuriver runner` |"]
    return "\n".join(lines)
