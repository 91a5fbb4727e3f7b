"""Options that the commands of `hakuriver cluster` share."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from hakuriver.errors import UsageError
from hakuriver_cli.deploy import inventory
from hakuriver_cli.deploy.play import Play, Secret, Variables, parse_variables

ANSIBLE = Group("Ansible options", sort_key=50)

Inventory = Annotated[
    Path | None,
    Parameter(
        name=("--inventory", "-i"),
        group=ANSIBLE,
        help="Inventory: a folder with hosts.yml, or a file. Without it HAKURIVER_INVENTORY, ./hosts.yml, ./inventory,"
        " ~/.hakuriver/cluster.",
    ),
]
VaultFile = Annotated[
    Path | None,
    Parameter(group=ANSIBLE, help="File that holds the vault password, or a program that prints it."),
]
Yes = Annotated[bool, Parameter(name=("--yes", "-y"), help="Do not ask whether it is meant.")]


@Parameter(name="*")
@dataclass(frozen=True)
class Playing:
    """How to play a playbook."""

    inventory: Inventory = None
    limit: Annotated[
        str | None,
        Parameter(
            name=("--limit", "-l"), group=ANSIBLE, help="Only these nodes or groups, such as node-1,node-2."
        ),
    ] = None
    check: Annotated[
        bool,
        Parameter(name=("--check", "-C"), group=ANSIBLE, help="Say what would change, and change nothing."),
    ] = False
    diff: Annotated[bool, Parameter(name=("--diff", "-D"), group=ANSIBLE, help="Show how files change.")] = (
        False
    )
    tags: Annotated[
        tuple[str, ...],
        Parameter(name=("--tags", "-t"), group=ANSIBLE, help="Only these parts: the names of roles."),
    ] = ()
    skip_tags: Annotated[tuple[str, ...], Parameter(group=ANSIBLE, help="Not these parts.")] = ()
    extra_vars: Annotated[
        tuple[str, ...],
        Parameter(
            name=("--extra-vars", "-e"),
            group=ANSIBLE,
            help="Variables on top of the inventory's: name=value, a JSON object or @FILE. Secrets are refused.",
        ),
    ] = ()
    ask_pass: Annotated[
        bool, Parameter(name=("--ask-pass", "-k"), group=ANSIBLE, help="Ask for the ssh password.")
    ] = False
    ask_become_pass: Annotated[
        bool, Parameter(name=("--ask-become-pass", "-K"), group=ANSIBLE, help="Ask for the sudo password.")
    ] = False
    ask_vault_pass: Annotated[
        bool,
        Parameter(name=("--ask-vault-pass", "-J"), group=ANSIBLE, help="Ask for the vault password."),
    ] = False
    vault_password_file: VaultFile = None
    verbose: Annotated[
        bool, Parameter(name=("--verbose", "-v"), group=ANSIBLE, help="Show all that Ansible says.")
    ] = False


PLAYING = Playing()


def find_inventory(given: Path | None) -> Path:
    return inventory.locate(given, os.environ, Path.cwd(), Path.home())


def play_of(
    playing: Playing,
    found: Path,
    what: str,
    playbook: str,
    *,
    limit: str | None = None,
    variables: Mapping[str, object] | None = None,
    defaults: Mapping[str, object] | None = None,
) -> Play:
    """What the options ask for. A limit of the command's own may not meet one of the person's."""
    if limit and playing.limit:
        raise UsageError(f"`cluster {what}` knows by itself which nodes are meant", "leave out --limit")
    if playing.ask_vault_pass and playing.vault_password_file:
        raise UsageError("--ask-vault-pass and --vault-password-file exclude each other", "give one of them")
    given: list[Variables] = [parse_variables(text) for text in playing.extra_vars]
    return Play(
        what=what,
        playbook=playbook,
        inventory=found,
        limit=limit or playing.limit,
        tags=playing.tags,
        skip_tags=playing.skip_tags,
        check=playing.check,
        diff=playing.diff,
        verbose=playing.verbose,
        variables=(*([dict(variables)] if variables else []), *given),
        defaults=dict(defaults or {}),
        vault_password_file=playing.vault_password_file
        and playing.vault_password_file.expanduser().absolute(),
        ask=_asked(playing),
    )


def confirm(question: str, *, yes: bool) -> None:
    """Goes on only when a person means it. Raises UsageError where nobody can be asked, or says no."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(question, "if you mean it, say so with --yes")
    sys.stderr.write(f"{question} Type yes to go on: ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() != "yes":
        raise UsageError("nothing was done", "type yes, or give --yes")


def _asked(playing: Playing) -> tuple[Secret, ...]:
    wanted = {
        Secret.SSH: playing.ask_pass,
        Secret.BECOME: playing.ask_become_pass,
        Secret.VAULT: playing.ask_vault_pass,
    }
    return tuple(secret for secret, asked in wanted.items() if asked)
