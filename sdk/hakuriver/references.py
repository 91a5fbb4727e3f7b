"""How versions of environments are named: `NAME` (the current one), `NAME@VERSION` (unix seconds of its packing) or `NAME:TAG`."""

from __future__ import annotations

import re
from dataclasses import dataclass

ENVIRONMENT_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_.-]{0,62}[a-z0-9])?")
"""A name that is a Docker repository's component and a file's name alike."""
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_REFERENCE = re.compile(
    rf"(?P<name>{ENVIRONMENT_NAME.pattern})(?:@(?P<version>[0-9]{{1,12}})|:(?P<tag>{TAG.pattern}))?"
)
_RESERVED = ("..", "__", "--")
"""Docker takes one separator at a time (two underscores are its only exception; nobody needs to know)."""


def check_name(text: str) -> str:
    """An environment's name.

    Raises:
        ValueError: it cannot be one.
    """
    if not ENVIRONMENT_NAME.fullmatch(text) or any(double in text for double in _RESERVED):
        raise ValueError(
            f"{text!r} is not an environment's name: lower-case letters, digits and single . _ - inside, at most 64"
        )
    return text


@dataclass(frozen=True, slots=True)
class Reference:
    """Which version of which environment; without version and tag, the current one."""

    name: str
    version: int | None = None
    tag: str | None = None

    def __str__(self) -> str:
        if self.version is not None:
            return f"{self.name}@{self.version}"
        return f"{self.name}:{self.tag}" if self.tag is not None else self.name


def parse_reference(text: str) -> Reference:
    """Reads `NAME`, `NAME@VERSION` or `NAME:TAG`.

    Raises:
        ValueError: it is none of them.
    """
    match = _REFERENCE.fullmatch(text)
    if match is None:
        check_name(re.split("[@:]", text, maxsplit=1)[0])
        raise ValueError(
            f"{text!r} is not a version of an environment: write NAME, NAME@VERSION (its number) or NAME:TAG"
        )
    check_name(match["name"])
    return Reference(match["name"], int(match["version"]) if match["version"] else None, match["tag"])
