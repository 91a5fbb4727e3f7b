#!/usr/bin/env python3
"""Writes the generated parts of the documentation, from the code that they describe.

A page holds `<!-- generated: NAME -->` and `<!-- end generated -->`; what stands between is replaced. What stands around
is written by hand. So is what the example inventory sets; its comments are those of the roles' specifications. A test checks that the committed pages equal what this gives.

    python scripts/docs_generate.py            # writes
    python scripts/docs_generate.py --check    # exits with 1 when a page is not up to date
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from docs_api import endpoints, error_codes, metrics, models, roles
from docs_commands import commands, other_names
from docs_example import EXAMPLE, example
from docs_roles import readmes, variables
from docs_settings import settings
from docs_states import states, transitions

DOCS = Path(__file__).resolve().parents[1] / "docs"
_REGION = re.compile(r"(<!-- generated: ([a-z-]+) -->\n).*?(<!-- end generated -->)", re.DOTALL)


def main(arguments: list[str]) -> int:
    stale = []
    for path in [*sorted(DOCS.rglob("*.md")), *readmes(), EXAMPLE]:
        text = path.read_text("utf-8")
        made = _made(path, text)
        if made == text:
            continue
        stale.append(path)
        if "--check" not in arguments:
            path.write_text(made, "utf-8")
    for path in stale:
        print(path.relative_to(DOCS.parent))
    return 1 if stale and "--check" in arguments else 0


def _made(path: Path, text: str) -> str:
    if path == EXAMPLE:
        return example(text)
    return generated(text) if path.is_relative_to(DOCS) else generated_readme(path, text)


def generated(page: str) -> str:
    """The page with its generated parts as they should be."""
    return _with_parts(page, _PARTS)


def generated_readme(path: Path, text: str) -> str:
    """The README of a role with its table of variables as it should be."""
    return _with_parts(text, {"variables": lambda: variables(path.parent)})


def _with_parts(page: str, parts: Mapping[str, Callable[[], str]]) -> str:
    return _REGION.sub(lambda match: f"{match[1]}\n{parts[match[2]]().strip()}\n\n{match[3]}", page)


_PARTS: dict[str, Callable[[], str]] = {
    "settings": settings,
    "task-commands": commands("task", "batch", "queue", "connect", "forward", "cp", "sweep"),
    "vps-commands": commands("vps"),
    "ssh-commands": commands("ssh", "ssh-config", "key"),
    "env-commands": commands("env"),
    "cluster-commands": commands(
        "up",
        "host",
        "runner",
        "state",
        "status",
        "node",
        "gpu",
        "cluster",
        "user",
        "token",
        "whoami",
        "config",
        "init",
        "version",
        "completion",
    ),
    "other-names": other_names,
    "endpoints": endpoints,
    "metrics": metrics,
    "models": models,
    "roles": roles,
    "transitions": transitions,
    "states": states,
    "error-codes": error_codes,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
