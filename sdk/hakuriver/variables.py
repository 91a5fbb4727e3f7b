"""Settings by variables of the environment, `PREFIX_SECTION__KEY`: as pydantic-settings reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel
from pydantic_settings import EnvSettingsSource

if TYPE_CHECKING:
    from pydantic_settings import BaseSettings

_BETWEEN = "__"


def given(model: type[BaseModel], prefix: str, values: dict[str, Any]) -> dict[str, Any]:
    """The values, with those of variables instead of them, key by key; nothing is validated.

    `prefix` is what the names of variables of the model's fields begin with.
    """
    # Of its settings the source reads their fields and their configuration, which every model has.
    settings = cast("type[BaseSettings]", model)
    source = EnvSettingsSource(
        settings, case_sensitive=False, env_prefix=prefix, env_nested_delimiter=_BETWEEN
    )
    return _merged(values, source())


def _merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Tables are merged, and anything else is replaced."""
    both = {
        key: _merged(under[key], over[key])
        for key in under.keys() & over.keys()
        if _tables(under[key], over[key])
    }
    return under | over | both


def _tables(*values: object) -> bool:
    return all(isinstance(value, dict) for value in values)
