"""The `hakuriver` command: its tree of nouns and verbs, and the one place where errors become words and exit codes.

Exit codes: 0 ok, 1 error, 2 usage, 3 not found, 4 denied, 5 conflict, 6 unreachable, 130 interrupted; `task run`,
`task wait` and `--wait` exit with the task's own code.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any, get_args

from cyclopts import App, CoercionError, CycloptsError, MissingArgumentError
from cyclopts.exceptions import UnusedCliTokensError

from hakuriver.errors import HakuRiverError, UsageError
from hakuriver_cli.errors import report
from hakuriver_cli.passthrough import end_options, leading_options
from hakuriver_cli.tree import lazy, new_app, use_docstrings

INTERRUPTED = 130
_NUMBERS: Mapping[Any, str] = {int: "a whole number", float: "a number"}
_GLOBAL_OPTIONS = frozenset({"--config", "--output", "-o"})
_HELP = """\
A few machines used as one computer: queue commands, run them in containers that are the same everywhere.

Start everything on this machine with `hakuriver up`, then run something: `hakuriver task run -- COMMAND`.
"""


def application() -> App:
    """The tree of commands. Modules behind it are loaded when a command of theirs is asked for."""
    app = new_app("hakuriver", _HELP)
    lazy(app, "up:up", "up", "Start a Host and Runners on this machine.")
    lazy(app, "daemons:host", "host", "Run the Host in the foreground.")
    lazy(app, "daemons:runner", "runner", "Run this machine's Runner in the foreground.")
    lazy(app, "state:app", "state", "Back up and restore what a Host keeps.")
    lazy(app, "tasks:app", "task", "Submit, follow and control tasks.")
    lazy(app, "batches:app", "batch", "Look at and control all tasks of one submission.")
    lazy(app, "queue:queue", "queue", "List the tasks that wait, in order.")
    lazy(app, "doors:shell", "connect", "Open a shell in a running task.")
    lazy(app, "doors:forward", "forward", "Reach ports of a running task from here.")
    lazy(app, "doors:cp", "cp", "Copy files into running tasks and out of them.")
    lazy(app, "sweep:sweep", "sweep", "Run a program here for each combination of parameters.")
    lazy(app, "nodes:app", "node", "Look at nodes, empty and remove them.")
    lazy(app, "gpus:app", "gpu", "Look at the GPUs of all nodes.")
    lazy(app, "environments:app", "env", "Prepare environments, pack them, and bring them to nodes.")
    lazy(app, "cluster:status", "status", "Show how the cluster is.")
    lazy(app, "deploy.commands:app", "cluster", "Deploy and administer the cluster by Ansible.")
    lazy(app, "vps:app", "vps", "Make and control VPS: machines of your own, reached by SSH.")
    lazy(app, "ssh:ssh", "ssh", "Log in to a VPS, or run a command there.")
    lazy(app, "ssh:ssh_config", "ssh-config", "Print what lets ssh, scp, rsync and VS Code find your VPS.")
    lazy(app, "access:users", "user", "Administer users.")
    lazy(app, "access:tokens", "token", "Make, list and revoke tokens.")
    lazy(app, "access:keys", "key", "Register the public keys that open your VPS.")
    lazy(app, "access:whoami", "whoami", "Show whose token you use.")
    lazy(app, "configure:config", "config", "Show and check the configuration.")
    lazy(app, "configure:init", "init", "Write a configuration or systemd units.")
    lazy(app, "cluster:version", "version", "Show the versions of client and Host.")
    lazy(app, "shell:completion", "completion", "Install completion for your shell.")
    return app


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
    use_docstrings(apps)
    command = apps[-1]
    if command.default_command and "command_line" in signature(command.default_command).parameters:
        words = end_options(words, *_options_of(command))
    return [*chain, *leading, *words]


def _options_of(command: App) -> tuple[set[str], set[str]]:
    """The names of options that stand alone, and of those that take a word."""
    flags, valued = set(command.help_flags), set[str]()
    for argument in command.assemble_argument_collection():
        alone = bool in {argument.hint, *get_args(argument.hint)}
        (flags if alone else valued).update(name for name in argument.names if name.startswith("-"))
    return flags, valued


def _usage(app: App, error: CycloptsError) -> UsageError:
    command = " ".join((app.name[0], *(error.command_chain or ())))
    return UsageError(_said(error), f"see `{command} --help`")


def _said(error: CycloptsError) -> str:
    """The parser's words, or ours where its own speak of Python."""
    if isinstance(error, UnusedCliTokensError):
        return f"{' '.join(error.unused_tokens or ())!r} is more than the command takes"
    name = error.argument.name if error.argument is not None else ""
    if isinstance(error, CoercionError) and error.token is not None and error.target_type in _NUMBERS:
        return f"{error.token.keyword or name} {error.token.value}: must be {_NUMBERS[error.target_type]}"
    if isinstance(error, MissingArgumentError) and name:
        return f"{error.keyword} needs a value" if error.keyword else f"{name} is missing"
    return " ".join(str(error).split())


def _of_system(error: OSError) -> HakuRiverError:
    where = f"{error.filename}: " if error.filename else ""
    return HakuRiverError(f"{where}{error.strerror or error}", "check the path, its owner and the disk")


def _abandon_stdout() -> None:
    """Keeps the interpreter from flushing into the closed pipe when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
