"""`hakuriver host | runner`: becomes the daemon, in the foreground."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, NoReturn

from cyclopts import Parameter

from hakuriver.errors import HakuRiverError

ConfigFile = Annotated[
    Path | None,
    Parameter(
        name=("--config", "-c"),
        help="Configuration file, instead of HAKURIVER_CONFIG or ~/.hakuriver/config.toml.",
    ),
]
_MODULES = {"host": "hakuriver_host", "runner": "hakuriver_agent"}
_NEEDED = ("starlette", "uvicorn", "sqlmodel", "docker", "structlog", "psutil")


def host(*, config: ConfigFile = None) -> None:
    """Run the Host in the foreground."""
    _become("host", config)


def runner(*, config: ConfigFile = None) -> None:
    """Run this machine's Runner in the foreground."""
    _become("runner", config)


def argv(role: str, config: Path | None) -> list[str]:
    """The command line of a daemon (`host` or `runner`)."""
    named = ["--config", str(config)] if config is not None else []
    return [sys.executable, "-m", _MODULES[role], *named]


def check_installed(role: str) -> None:
    """Raises an error when the daemon's libraries are missing: the base installation is the client alone."""
    if missing := [name for name in (_MODULES[role], *_NEEDED) if find_spec(name) is None]:
        raise HakuRiverError(
            f"the {role.capitalize()}'s libraries are not installed: {', '.join(missing)}",
            f"install them with `pip install 'hakuriver-cluster[{role}]'`",
        )


def _become(role: str, config: Path | None) -> NoReturn:
    check_installed(role)
    command = argv(role, config)
    sys.stdout.flush()
    os.execv(command[0], command)  # noqa: S606  (an argv list; the daemon takes this process's place)
