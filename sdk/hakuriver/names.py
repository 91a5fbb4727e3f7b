"""Names of VPS: what people call them instead of by their ids."""

from __future__ import annotations

import re

VPS_NAME = re.compile(r"(?=.*[a-z])[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""A label of a host name (RFC 1123, 2.1), and no number, so that it is never taken for an id."""

WORDS = frozenset({"status"})
"""What the API takes for something else where a name could stand: `/api/vps/status` is a list, as in the reference."""


def check_vps_name(text: str) -> str:
    if not VPS_NAME.fullmatch(text):
        raise ValueError(
            "a VPS is named as a machine is: up to 63 lower-case letters, digits and '-', with a letter among them"
        )
    if text in WORDS:
        raise ValueError(f"`{text}` cannot be the name of a VPS: it means a list of them")
    return text
