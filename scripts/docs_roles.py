#!/usr/bin/env python3
"""The variables of the roles, from their argument specs: for the README of each role and for an admin's page.

    python scripts/docs_roles.py            # writes the READMEs
    python scripts/docs_roles.py --check    # exits with 1 when one is not up to date

`docs_generate.py` does the same, among all that it generates.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from docs_tables import row

ROLES = Path(__file__).resolve().parents[1] / "ansible/roles"
_TABLE = re.compile(r"(<!-- generated: variables -->\n).*?(<!-- end generated -->)", re.DOTALL)


def main(arguments: list[str]) -> int:
    stale = [path for path in readmes() if readme(path) != path.read_text("utf-8")]
    for path in stale:
        if "--check" not in arguments:
            path.write_text(readme(path), "utf-8")
        print(path.relative_to(ROLES.parents[1]))
    return 1 if stale and "--check" in arguments else 0


def readme(path: Path) -> str:
    """A role's README with its table of variables as it should be."""
    table = variables(path.parent)
    return _TABLE.sub(lambda match: f"{match[1]}\n{table}\n\n{match[2]}", path.read_text("utf-8"))


def readmes() -> list[Path]:
    return sorted(ROLES.glob("*/README.md"))


def variables(role: Path) -> str:
    """The table of one role. Defaults are those that `defaults/main.yml` sets."""
    defaults = defaults_of(role)
    lines = ["| variable | type | default | meaning |", "|---|---|---|---|"]
    for name, option in options_of(role).items():
        given = _code(defaults[name]) if name in defaults else _unset(option)
        lines.append(row((f"`{name}`", _type(option), given, _meaning(option))))
        lines += [
            row((f"`{key}`", _type(nested), _nested_default(nested), _meaning(nested)))
            for key, nested in nested_of(name, option)
        ]
    return "\n".join(lines)


def options_of(role: Path, entry: str = "main") -> dict[str, Any]:
    specs = _load(role / "meta/argument_specs.yml").get("argument_specs", {})
    options: dict[str, Any] = specs.get(entry, {}).get("options", {})
    return options


def defaults_of(role: Path) -> dict[str, Any]:
    path = role / "defaults/main.yml"
    return _load(path) if path.exists() else {}


def text_of(description: object) -> str:
    """A description as one line; specs may give a list of sentences."""
    parts = description if isinstance(description, list) else [description or ""]
    return " ".join(" ".join(str(part).split()) for part in parts)


def _load(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text("utf-8")) or {}


def nested_of(name: str, option: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The keys below a variable, as `name[].key` where it is a list."""
    prefix = f"{name}[]" if option.get("type") == "list" else name
    for key, nested in option.get("options", {}).items():
        yield f"{prefix}.{key}", nested
        yield from nested_of(f"{prefix}.{key}", nested)


def _type(option: Mapping[str, Any]) -> str:
    kind = option.get("type", "str")
    return f"{kind} of {option['elements']}" if "elements" in option else str(kind)


def _meaning(option: Mapping[str, Any]) -> str:
    text = text_of(option.get("description"))
    choices = [choice for choice in option.get("choices", []) if f"`{choice}`" not in text]
    if choices:
        text += f" One of {', '.join(map(_code, option['choices']))}."
    return text


def _unset(option: Mapping[str, Any]) -> str:
    return "required" if option.get("required") else ""


def _nested_default(option: Mapping[str, Any]) -> str:
    return _code(option["default"]) if "default" in option else _unset(option)


def _code(value: object) -> str:
    """As it would be written in an inventory."""
    if isinstance(value, str) and value:
        return f"`{' '.join(value.split())}`"
    shown = yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()
    return f"`{shown}`"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
