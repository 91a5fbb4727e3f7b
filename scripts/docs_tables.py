"""What all generated tables share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic_core import PydanticUndefined


def row(cells: Iterable[Any]) -> str:
    return "| " + " | ".join(map(cell, cells)) + " |"


def cell(text: Any) -> str:
    """Text as it may stand in a table's cell."""
    shown = "" if text is PydanticUndefined else " ".join(str(text).split())
    return shown.replace("|", "\\|")
