"""The example inventory's variables: every one of every role with its meaning, and the few that the example sets."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from docs_roles import ROLES, defaults_of, options_of, text_of

EXAMPLE = ROLES.parents[1] / "inventories/example/group_vars/all.yml"
ORDER = (
    "hakuriver",
    "preflight",
    "users",
    "shared_storage",
    "docker",
    "nvidia",
    "tls",
    "hakuriver_install",
    "hakuriver_host",
    "hakuriver_runner",
)
"""As a deployment plays them; those that are not named come after, by name."""
_WIDTH = 120
_SET = re.compile(r"^([a-z]\w*):.*\n(?:[ -].*\n)*", re.MULTILINE)


def example(text: str) -> str:
    """The file as it should be: what stands before the first role, and what is set, stay."""
    head, _, body = text.partition("# --- ")
    given = {match[1]: match[0].rstrip("\n") for match in _SET.finditer(body)}
    return head + "\n".join(_role(role, given) for role in _roles())


def _roles() -> list[Path]:
    roles = [path.parents[1] for path in ROLES.glob("*/meta/argument_specs.yml")]
    ranks = {name: rank for rank, name in enumerate(ORDER)}
    return sorted(roles, key=lambda role: (ranks.get(role.name, len(ORDER)), role.name))


def _role(role: Path, given: Mapping[str, str]) -> str:
    defaults = defaults_of(role)
    blocks = [f"# --- {role.name}\n"]
    for name, option in options_of(role).items():
        lines = [*_comment(text_of(option.get("description"))), *_fields(option)]
        lines.append(given.get(name) or _default(name, option, defaults))
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


def _fields(option: Mapping[str, Any]) -> Iterator[str]:
    """What each entry of a list holds."""
    for name, field in option.get("options", {}).items():
        needed = " Needed." if field.get("required") else ""
        yield from _comment(f"{name}: {text_of(field.get('description'))}{needed}", "#   ", "#     ")


def _comment(text: str, first: str = "# ", then: str = "# ") -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=first,
        subsequent_indent=then,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _default(name: str, option: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    value = defaults.get(name, option.get("default"))
    if value is None:
        return f"# {name}:"
    if isinstance(value, str) and "{" in value:
        short = " ".join(value.split())
        return (
            f"# {name}:  # {short}"
            if "{%" not in short and len(short) + len(name) < _WIDTH - 6
            else f"# {name}:"
        )
    shown = yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()
    return f"# {name}: {shown}"
