"""`hakuriver sweep`, and `hakurun` of the reference: a program run here for each combination of parameters."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from hakuriver.cores import usable_cores
from hakuriver.errors import UsageError
from hakuriver.sweeps import Sweep
from hakuriver_cli.sweep_record import Record
from hakuriver_cli.sweep_runs import Runner, Settings

_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")

CommandLine = Annotated[
    str,
    Parameter(
        name="APP",
        help="A program, a module or MODULE:FUNCTION, and its arguments, with spans among them.",
    ),
]


def sweep(
    *command_line: CommandLine,
    parallel: Annotated[bool, Parameter(help="Run as many at once as it may use cores.")] = False,
    jobs: Annotated[int | None, Parameter(name=("--jobs", "-j"), help="Run this many at once.")] = None,
    fail_fast: Annotated[bool, Parameter(help="Start nothing more once one has failed.")] = False,
    resume: Annotated[
        Path | None,
        Parameter(help="File that notes how each run ended; what it says has ended well is left out."),
    ] = None,
    log_dir: Annotated[
        Path | None, Parameter(help="Folder for the output of each run, instead of printing it.")
    ] = None,
    dry_run: Annotated[bool, Parameter(help="Print the command lines, and run none.")] = False,
    quiet: Annotated[bool, Parameter(name=("--quiet", "-q"), help="Say nothing of progress.")] = False,
) -> int:
    """Run a program on this machine for each combination of parameters.

    Spans among the arguments stand for the values: 'span:{1..10}', 'span:{0..1..0.1}', 'span:[a,b]'. Each value is
    combined with each; spans of one name, as 'span.pair:[1,2]' and 'span.pair:[a,b]', go together. Put them in quotes.

    APP is a program if there is one of that name, else a Python module, or one of its functions. Each run sees its number,
    from 0, in HAKURIVER_SWEEP_INDEX. Ends with 0 if all runs did, else with the code of the first that failed.
    """
    if not command_line:
        raise UsageError(
            "no command is given", "write it after the options, such as: python train.py 'span:{1..3}'"
        )
    if jobs is not None and jobs < 1:
        raise UsageError(
            f"--jobs {jobs}: at least one runs at a time", "leave it out, or give a number above 0"
        )
    app, *arguments = command_line
    runs = Sweep(arguments)
    head = program(app)
    if dry_run:
        for run in runs:
            sys.stdout.write(shlex.join([*head, *run.arguments]) + "\n")
        return 0
    at_once = jobs or (usable_cores() if parallel else 1)
    record = Record(resume, [app]) if resume else None
    settings = Settings(head, at_once, fail_fast=fail_fast, log_dir=log_dir, quiet=quiet)
    return Runner(settings, runs, record).run()


def program(app: str) -> list[str]:
    """The words that start APP.

    Raises:
        UsageError: there is nothing of that name.
    """
    if _FUNCTION.fullmatch(app):
        _check_module(app.partition(":")[0], app)
        return [sys.executable, "-m", "hakuriver_cli.sweep_function", app]
    if shutil.which(app) is not None:
        return [app]
    if not _MODULE.fullmatch(app):
        raise UsageError(f"there is no program {app}", "check its name, and that it is executable")
    _check_module(app, app)
    return [sys.executable, "-m", app]


def _check_module(module: str, app: str) -> None:
    """As a child finds it: in the folder that it is started in, too."""
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = find_spec(module)
    except (ImportError, ValueError):
        found = None
    finally:
        del sys.path[0]
    if found is None:
        raise UsageError(
            f"{app} is neither a program nor a Python module here",
            "check its name; a program in this folder is ./NAME, and modules are looked for from this folder",
        )
