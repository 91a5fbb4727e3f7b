"""What preflight's probe reads of a machine, where that can be seen without one."""

from __future__ import annotations

import json
import runpy
import tomllib
from pathlib import Path
from typing import Any

import pytest
from jinja2 import Environment

_ROLES = Path(__file__).resolve().parents[3] / "ansible/roles"
_PROBE = runpy.run_path(str(_ROLES / "preflight/files/probe.py"))


def _configuration(name: str) -> str:
    return _rendered(
        "runner", {"network": {"name": "no"}, "runner": {"cores": 4, "name": name}, "client": {"name": "no"}}
    )


def _rendered(role: str, sections: dict[str, dict[str, Any]]) -> str:
    """As the role writes it."""
    environment = Environment(trim_blocks=True)  # noqa: S701  (no web page)
    environment.filters["comment"] = "# {}".format
    environment.filters["to_json"] = lambda value, ensure_ascii: json.dumps(value, ensure_ascii=ensure_ascii)
    template = (_ROLES / f"hakuriver_{role}/templates/{role}.toml.j2").read_text("utf-8")
    variables = {f"hakuriver_{role}_effective": sections}
    return environment.from_string(template).render(ansible_managed="managed", **variables)


@pytest.mark.parametrize("name", ["node-1", 'a"b', "ü"])
def test_a_machine_that_is_a_node_tells_its_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / "runner.toml"
    path.write_text(_configuration(name), "utf-8")
    assert _PROBE["node"](str(path)) == name


@pytest.mark.parametrize("role", ["host", "runner"])
def test_settings_that_are_tables_are_written_as_such(role: str) -> None:
    limits = {"students": {"members": ["bo", "cleo"], "cores": 32, "gpus": None}, "a.b": {}}
    sections = {"scheduling": {"group_limits": limits}, "runner": {"labels": {"rack": "3"}, "cores": None}}
    read = tomllib.loads(_rendered(role, sections))
    del limits["students"]["gpus"]
    assert read == {"scheduling": {"group_limits": limits}, "runner": {"labels": {"rack": "3"}}}


@pytest.mark.parametrize("text", ["", "[runner]\n", "[runner]\nname = \n", "[client]\nname = 1\n", "\xff"])
def test_a_machine_that_is_none_has_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "runner.toml"
    path.write_text(text, "latin-1")
    assert _PROBE["node"](str(path)) == _PROBE["node"](str(tmp_path / "none")) == _PROBE["node"]("") == ""


@pytest.mark.parametrize(
    ("text", "readable"),
    [
        (None, True),
        ("", True),
        ("{}", True),
        ('{"debug": true}', True),
        ("{", False),
        ("[]", False),
        ("\xff", False),
    ],
)
def test_whether_the_settings_of_the_engine_can_be_read(
    tmp_path: Path, text: str | None, readable: bool
) -> None:
    path = tmp_path / "daemon.json"
    if text is not None:
        path.write_text(text, "latin-1")
    assert _PROBE["settings"](str(path)) is readable


def test_whether_there_is_an_account() -> None:
    assert _PROBE["is_account"]("root") is True
    assert _PROBE["is_account"]("nobody-of-that-name") is False
