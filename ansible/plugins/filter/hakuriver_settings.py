"""Whether the daemons would take the settings that an inventory gives them, before a machine has them.

The words are those of HakuRiver itself, whose settings these are. Where Ansible's Python does not have it, nothing is found
here, and the machine's own says so later, before it writes the file.

A problem is `{"what": ..., "hint": ...}`: one line of what is wrong, one of what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

Problem = dict[str, str]


def settings_problems(settings: Mapping[str, Any], daemon: str) -> list[Problem]:
    """What is wrong with the settings of `host` or `runner`, by section; never a value, which may be a password."""
    try:
        from hakuriver.config import Settings  # noqa: PLC0415  (Ansible's Python may not have it)
    except ImportError:
        return []
    return [
        {
            "what": f"{daemon}.toml would be wrong: {what}",
            "hint": f"correct hakuriver_{daemon}_settings; `hakuriver config show --defaults` explains all settings",
        }
        for section, keys in settings.items()
        for what in _of_section(str(section), _plain(keys), Settings.model_fields)
    ]


def _of_section(section: str, keys: Any, sections: Mapping[str, Any]) -> Iterator[str]:
    from pydantic import ValidationError  # noqa: PLC0415

    from hakuriver.problems import said  # noqa: PLC0415

    if section not in sections:
        yield f"{section} is not a section{_meant(section, sections)}"
        return
    if not isinstance(keys, dict):
        yield f"{section} must be a table of keys and values"
        return
    model = sections[section].annotation
    try:
        model(**{key: value for key, value in keys.items() if value is not None})
    except ValidationError as error:
        for problem in error.errors(include_url=False, include_input=False):
            place = ".".join(map(str, (section, *problem["loc"])))
            if problem["type"] == "extra_forbidden":
                yield f"{place} is not a setting{_meant(str(problem['loc'][-1]), model.model_fields)}"
            else:
                yield f"{place}: {said(problem)}"


def _meant(name: str, known: Mapping[str, Any]) -> str:
    near = get_close_matches(name, known, n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def _plain(value: Any) -> Any:
    """Without Ansible's own kinds of dictionaries and lists, which work out what is in them when they are asked."""
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value


class FilterModule:
    """The filters that Ansible finds here."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "hakuriver_settings_problems": settings_problems,
        }
