"""`hakuriver state backup | restore`: what a Host keeps, in one archive and back. Done by the Host's own module."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

from cyclopts import Parameter

from hakuriver_cli.daemons import ConfigFile, check_installed
from hakuriver_cli.tree import new_app

app = new_app("state", "Back up and restore what a Host keeps.")


@app.command
def backup(
    file: Annotated[Path, Parameter(name="FILE", help="The archive to write, such as hakuriver.tar.gz.")],
    /,
    *,
    config: ConfigFile = None,
) -> None:
    """Write the Host's database, key and tokens into one archive, on the Host's machine; the Host may run.

    The archive is as secret as what is in it: only you can read it.
    """
    _become(["backup", str(file)], config)


@app.command
def restore(
    file: Annotated[
        Path, Parameter(name="FILE", help="A backup, or the copy of a database that a migration has left.")
    ],
    /,
    *,
    force: Annotated[
        bool, Parameter(help="Also where there is a database already; it is kept aside.")
    ] = False,
    config: ConfigFile = None,
) -> None:
    """Put a backup in the place of what the Host keeps. The Host must be stopped.

    Everything in it is checked before anything is changed.
    """
    _become(["restore", str(file), *(["--force"] if force else [])], config)


def _become(arguments: list[str], config: Path | None) -> NoReturn:
    check_installed("host")
    named = ["--config", str(config)] if config is not None else []
    command = [sys.executable, "-m", "hakuriver_host.state", *arguments, *named]
    sys.stdout.flush()
    os.execv(command[0], command)  # noqa: S606  (an argv list; the Host's module takes this process's place)
