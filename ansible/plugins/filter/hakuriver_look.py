"""What our roles decide before they touch a machine: whether anything there is not as it is to be. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any


def told(output: str) -> dict[str, Any]:
    """The JSON object that a program on a machine printed in one line, whatever sudo or a terminal said around it."""
    for line in reversed(output.splitlines()):
        if line.startswith("{"):
            found: dict[str, Any] = json.loads(line)
            return found
    said = output.strip().splitlines()
    message = f"the machine does not tell how it is: {said[-1] if said else 'it says nothing'}"
    raise ValueError(message)


def unlike(seen: Mapping[str, Any], wanted: Iterable[Mapping[str, Any]]) -> list[str]:
    """The paths that are not as they are to be, by what roles/hakuriver/files/look.py told.

    Each of `wanted` has `path` and `kind` (`folder`, `file`, `link` or `absent`), and what matters of `owner`, `group`
    (names or numbers), `mode` (such as "0644"), `content` and `target`. Where files carry SELinux's labels, all count
    as unlike: what labels they are to have is known to Ansible's modules alone.
    """
    return [one["path"] for one in wanted if seen["labels"] or not _is(seen["paths"].get(one["path"]), one)]


def _is(found: Mapping[str, Any] | None, one: Mapping[str, Any]) -> bool:
    if found is None or one["kind"] == "absent":
        return found is None and one["kind"] == "absent"
    return (
        found["kind"] == one["kind"]
        and all(str(one[key]) in found[key] for key in ("owner", "group") if key in one)
        and ("mode" not in one or int(found["mode"], 8) == int(str(one["mode"]), 8))
        and ("content" not in one or found["digest"] == hashlib.sha256(one["content"].encode()).hexdigest())
        and ("target" not in one or found["target"] == one["target"])
    )


class FilterModule:
    """The filters that Ansible finds here."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "hakuriver_told": told,
            "hakuriver_unlike": unlike,
        }
