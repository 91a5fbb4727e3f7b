"""What shall be played, and the argument list for it: pure, so that deployments are tested by comparing lists."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from hakuriver.errors import UsageError

_SECRET_NAME = re.compile(r"(pass|password|passwd|secret|token|private_key)$", re.IGNORECASE)


class Secret(StrEnum):
    """What Ansible may ask for. The answer goes to its prompt: never onto a command line, never into a file."""

    SSH = "SSH password"
    BECOME = "sudo password"
    VAULT = "vault password"

    @property
    def option(self) -> str:
        return _OPTIONS[self]

    @property
    def prompt(self) -> str:
        """A regular expression for Ansible's prompt."""
        return _PROMPTS[self]


_OPTIONS = {
    Secret.SSH: "--ask-pass",
    Secret.BECOME: "--ask-become-pass",
    Secret.VAULT: "--ask-vault-password",
}
_PROMPTS = {
    Secret.SSH: r"SSH password:\s*?$",
    Secret.BECOME: r"BECOME password.*:\s*?$",
    Secret.VAULT: r"Vault password.*:\s*?$",
}

Variables = Mapping[str, Any] | Path
"""Variables on top of the inventory's: values, or a file that Ansible reads."""


@dataclass(frozen=True, slots=True)
class Play:
    """One run of one playbook."""

    what: str
    """The command that asked for it: `deploy`, `add-node`."""
    playbook: str
    inventory: Path
    limit: str | None = None
    tags: tuple[str, ...] = ()
    skip_tags: tuple[str, ...] = ()
    check: bool = False
    diff: bool = False
    verbose: bool = False
    variables: tuple[Variables, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Variables below the inventory's: they hold where it says nothing."""
    vault_password_file: Path | None = None
    ask: tuple[Secret, ...] = ()

    @property
    def variable_names(self) -> list[str]:
        """What was set on top of the inventory; values may be anybody's business, so the history has names alone."""
        names: list[str] = []
        for given in self.variables:
            names += [f"@{given}"] if isinstance(given, Path) else list(given)
        return names


def arguments(
    play: Play, variable_files: Sequence[Path] = (), defaults_file: Path | None = None
) -> list[str]:
    """The options of `ansible-playbook`, but for inventory and playbook, which the runner puts in itself.

    `defaults_file` is an inventory that comes before the person's, whose variables win.
    """
    words: list[str] = ["--inventory", str(defaults_file)] if defaults_file else []
    if play.limit:
        words += ["--limit", play.limit]
    if play.tags:
        words += ["--tags", ",".join(play.tags)]
    if play.skip_tags:
        words += ["--skip-tags", ",".join(play.skip_tags)]
    switches = {"--check": play.check, "--diff": play.diff, "-v": play.verbose}
    words += [option for option, wanted in switches.items() if wanted]
    if play.vault_password_file is not None:
        words += ["--vault-password-file", str(play.vault_password_file)]
    words += [secret.option for secret in play.ask]
    for path in variable_files:
        words += ["--extra-vars", f"@{path}"]
    return words


def inventory_arguments(inventory: Path, vault_password_file: Path | None = None) -> list[str]:
    """The options of `ansible-inventory` that print all of it as JSON."""
    words = ["--inventory", str(inventory), "--list"]
    if vault_password_file is not None:
        words += ["--vault-password-file", str(vault_password_file)]
    return words


def parse_variables(text: str) -> Variables:
    """What `-e` takes: `name=value`, `{"name": value}` or `@FILE`. A secret is refused: everyone could read it."""
    if text.startswith("@"):
        return Path(text[1:]).expanduser().absolute()
    values = _object(text) if text.lstrip().startswith("{") else _pair(text)
    for name, value in values.items():
        if _SECRET_NAME.search(name) and value:
            raise UsageError(
                f"{name} is a secret, and a command line is read by everyone on this machine",
                "keep it in a vault (ansible-vault encrypt_string), or use --ask-become-pass or --ask-pass",
            )
    return values


def _object(text: str) -> dict[str, Any]:
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError):
        raise UsageError(f"-e {text!r} is not a JSON object", "write it as -e name=value") from None


def _pair(text: str) -> dict[str, Any]:
    name, sign, value = text.partition("=")
    if not sign or not name.isidentifier():
        raise UsageError(f"-e {text!r} is not understood", "write -e name=value, -e '{...}' or -e @FILE")
    return {name: value}
