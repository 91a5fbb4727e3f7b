"""How command trees are made: one manner for `hakuriver` and for the reference's names.

Commands are registered by the name of their module, which is loaded when the command is asked for; the list of commands
shows the short text that is given here, and the command's own help its docstring.
"""

from __future__ import annotations

from collections.abc import Iterable
from inspect import getdoc
from typing import Any

from cyclopts import App, Parameter

from hakuriver.version import __version__


def new_app(name: str, text: str) -> App:
    """An App of our manner: plain help, no `--no-…` and `--empty-…` forms, no empty defaults in help."""
    return App(
        name=name,
        help=text,
        version=__version__,
        help_format="plaintext",
        default_parameter=Parameter(negative_bool=(), negative_iterable=(), show_default=_shown),
        suppress_keyboard_interrupt=False,
    )


def lazy(app: App, path: str, name: str, text: str) -> None:
    """Registers a command that lives at `path` (`module:name` in this package)."""
    app.command(f"hakuriver_cli.{path}", name=name, help=text)


def use_docstrings(apps: Iterable[App]) -> None:
    """Lets each command's own help be its docstring, paragraph by paragraph."""
    for app in apps:
        text = getdoc(app.default_command) if app.default_command else None
        if text and app.default_command.__module__.startswith("hakuriver_cli"):
            app.help = "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def _shown(value: Any) -> str | None:
    return None if value is None or value is False or value == () else str(value)
