"""Labels of nodes, `KEY=VALUE`, and what a task asks of them: `KEY=VALUE`, `KEY!=VALUE`, or `KEY` alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from hakuriver.errors import UsageError

MAX_LABELS = 64
"""Of one node, and in one request."""
_KEY = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?")
_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
_HINT = "letters and digits, with . _ - inside, at most 63; keys may have / too"


class Selector(NamedTuple):
    """What one label of a node is to be."""

    key: str
    value: str | None = None
    """None is any."""
    negated: bool = False
    """Any but this value, or no such label."""

    def admits(self, labels: Mapping[str, str]) -> bool:
        if self.value is None:
            return self.key in labels
        return (labels.get(self.key) == self.value) != self.negated

    def __str__(self) -> str:
        return self.key if self.value is None else f"{self.key}{'!=' if self.negated else '='}{self.value}"


def check_key(key: str) -> str:
    """Raises `UsageError` where it cannot be a label's key."""
    if not _KEY.fullmatch(key):
        raise UsageError(f"{key!r} is not a label's key", _HINT)
    return key


def check_value(value: str) -> str:
    """Raises `UsageError` where it cannot be a label's value."""
    if not _VALUE.fullmatch(value):
        raise UsageError(f"{value!r} is not a label's value", _HINT)
    return value


def parse_selector(text: str) -> Selector:
    """Reads `KEY`, `KEY=VALUE` or `KEY!=VALUE`.

    Raises:
        UsageError: it is none of these.
    """
    head, equals, value = text.partition("=")
    negated = bool(equals) and head.endswith("!")
    return Selector(
        check_key(head.removesuffix("!") if negated else head),
        check_value(value) if equals else None,
        negated,
    )


def parse_change(text: str) -> tuple[str, str | None]:
    """Reads a change of a node's labels: `KEY=VALUE` gives it one, `KEY-` takes it away (none).

    Raises:
        UsageError: it is neither.
    """
    key, equals, value = text.partition("=")
    if equals:
        return check_key(key), check_value(value)
    if key.endswith("-"):
        return check_key(key[:-1]), None
    raise UsageError(f"{text!r} changes no label", "write KEY=VALUE to give one, KEY- to take it away")


def as_text(labels: Mapping[str, str]) -> str:
    """Such as `disk=ssd,room=2`."""
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
