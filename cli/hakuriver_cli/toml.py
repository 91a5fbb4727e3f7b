"""The settings as TOML that explains itself: each key with its description, taken from the settings' model."""

from __future__ import annotations

from pathlib import Path
from textwrap import wrap
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import tomlkit
from pydantic import BaseModel

from hakuriver.config import Settings

_WIDTH = 100


def settings_text(settings: Settings, *, inactive: bool = False) -> str:
    """All settings with their descriptions. `inactive` comments each key out, as in a file to start from."""
    parts = []
    for name in Settings.model_fields:
        lines = [f"[{name}]"]
        lines += _section(getattr(settings, name), inactive=inactive)
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def values(settings: Settings) -> dict[str, Any]:
    """All settings as JSON has them, without passwords."""
    found: dict[str, Any] = settings.model_dump(mode="json")
    if settings.database.url:
        found["database"]["url"] = without_password(settings.database.url)
    return found


def without_password(url: str) -> str:
    parts = urlsplit(url)
    if parts.password is None:
        return url
    user, _, place = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}:***@{place}"))


def _section(section: BaseModel, *, inactive: bool) -> list[str]:
    lines = []
    for key, field in type(section).model_fields.items():
        value = getattr(section, key)
        lines += [f"# {line}" for line in wrap(field.description or "", _WIDTH)]
        if value is None:
            lines.append(f"#{key} =")
            continue
        if key == "url" and isinstance(value, str):
            value = without_password(value)
        lines.append(f"{'#' if inactive else ''}{key} = {_toml(value)}")
    return lines


def _toml(value: Any) -> str:
    if isinstance(value, Path):
        value = str(value)
    elif isinstance(value, list):
        value = [str(item) if isinstance(item, Path) else item for item in value]
    elif isinstance(value, dict):
        value = _inline(value)
    return str(tomlkit.item(value).as_string())


def _inline(values: dict[str, Any]) -> Any:
    """A table in one line, with those in it."""
    table = tomlkit.inline_table()
    for key, value in values.items():
        inner = value.model_dump(mode="json", exclude_none=True) if isinstance(value, BaseModel) else value
        table[key] = _inline(inner) if isinstance(inner, dict) else inner
    return table
