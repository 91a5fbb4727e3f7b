"""The `hakuriver` command: its tree of nouns and verbs, and the one place where errors become words and exit codes.

Exit codes: 0 ok, 1 error, 2 usage, 3 not found, 4 denied, 5 conflict, 6 unreachable, 130 interrupted; `task run`,
`task wait` and `--wait` exit with the task's own code.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from inspect import signature

from cyclopts import App, CycloptsError

from hakuriver.errors import HakuRiverError, UsageError
from hakuriver.version import __version__
from hakuriver_cli.errors import report
from hakuriver_cli.passthrough import end_options, leading_options

INTERRUPTED = 130
_GLOBAL_OPTIONS = frozenset({"--config", "--output", "-o"})
_HELP = """\
A few machines used as one computer: queue commands, run them in containers that are the same everywhere.

Start everything on this machine with `hakuriver up`, then run something: `hakuriver task run -- COMMAND`.
"""


def application() -> App:
    """The tree of commands. Modules behind it are loaded when a command of theirs is asked for."""
    app = App(name="hakuriver", help=_HELP, version=__version__, help_format="plaintext")
    app.command("hakuriver_cli.up:up", name="up")
    app.command("hakuriver_cli.daemons:host", name="host")
    app.command(
        "hakuriver_cli.daemons:runner", name="runner", help="Run this machine's Runner in the foreground."
    )
    app.command("hakuriver_cli.tasks:app", name="task", help="Submit, follow and control tasks.")
    app.command("hakuriver_cli.nodes:app", name="node", help="Look at the nodes.")
    app.command("hakuriver_cli.cluster:environments", name="env", help="Look at the environments.")
    app.command("hakuriver_cli.cluster:status", name="status")
    app.command("hakuriver_cli.access:users", name="user", help="Administer users.")
    app.command("hakuriver_cli.access:tokens", name="token", help="Make, list and revoke tokens.")
    app.command("hakuriver_cli.access:whoami", name="whoami")
    app.command("hakuriver_cli.configure:config", name="config", help="Show and check the configuration.")
    app.command("hakuriver_cli.configure:init", name="init", help="Write a configuration or systemd units.")
    app.command("hakuriver_cli.cluster:version", name="version")
    app.command(
        "hakuriver_cli.shell:completion", name="completion", help="Install completion for your shell."
    )
    return app


def main() -> None:
    sys.exit(run(application(), sys.argv[1:]))


def run(app: App, tokens: Sequence[str]) -> int:
    """Runs one command and gives its exit code; every failure is told in words on stderr."""
    try:
        code = _dispatch(app, tokens)
        sys.stdout.flush()
    except HakuRiverError as error:
        report(error)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _abandon_stdout()
        return 1
    except OSError as error:
        report(_of_system(error))
        return 1
    return code


def _dispatch(app: App, tokens: Sequence[str]) -> int:
    try:
        result = app(
            _prepared(app, tokens), exit_on_error=False, print_error=False, result_action="return_value"
        )
    except CycloptsError as error:
        raise _usage(app, error) from None
    return result if isinstance(result, int) else 0


def _prepared(app: App, tokens: Sequence[str]) -> list[str]:
    leading, rest = leading_options(tokens, _GLOBAL_OPTIONS)
    chain, apps, words = app.parse_commands(rest)
    if not chain:
        return [*leading, *rest] if leading and not rest else rest
    command = apps[-1]
    if command.default_command and "command_line" in signature(command.default_command).parameters:
        words = end_options(words, *_options_of(command))
    return [*chain, *leading, *words]


def _options_of(command: App) -> tuple[set[str], set[str]]:
    """The names of options that stand alone, and of those that take a word."""
    flags, valued = set(command.help_flags), set[str]()
    for argument in command.assemble_argument_collection():
        takes_word = argument.token_count()[0] > 0
        (valued if takes_word else flags).update(name for name in argument.names if name.startswith("-"))
    return flags, valued


def _usage(app: App, error: CycloptsError) -> UsageError:
    command = " ".join((app.name[0], *(error.command_chain or ())))
    return UsageError(" ".join(str(error).split()), f"see `{command} --help`")


def _of_system(error: OSError) -> HakuRiverError:
    where = f"{error.filename}: " if error.filename else ""
    return HakuRiverError(f"{where}{error.strerror or error}", "check the path, its owner and the disk")


def _abandon_stdout() -> None:
    """Keeps the interpreter from flushing into the closed pipe when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
