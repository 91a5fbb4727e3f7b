"""The example inventory names every variable, with its default, and says nothing that no role knows."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import yaml

_ROOT = Path(__file__).resolve().parents[3]
sys.path.append(str(_ROOT / "scripts"))

import docs_roles

ROLES = [path.parents[1] for path in sorted((_ROOT / "ansible/roles").glob("*/meta/argument_specs.yml"))]
EXAMPLE = _ROOT / "inventories/example/group_vars"
_LINE = re.compile(r"^(?:# )?([a-z][a-z0-9_]+):(.*)$", re.MULTILINE)
_OPTIONS = {name for role in ROLES for name in docs_roles.options_of(role)}


def shown() -> dict[str, str]:
    return {name: value.strip() for name, value in _LINE.findall((EXAMPLE / "all.yml").read_text("utf-8"))}


def test_it_names_every_variable_of_every_role() -> None:
    assert sorted(_OPTIONS - set(shown())) == []


def test_the_defaults_that_it_shows_are_those_of_the_roles() -> None:
    defaults = {name: value for role in ROLES for name, value in docs_roles.defaults_of(role).items()}
    text = (EXAMPLE / "all.yml").read_text("utf-8")
    wrong = [
        name
        for name, value in shown().items()
        if name in defaults
        and f"# {name}:" in text
        and value
        and not value.startswith("#")
        and yaml.safe_load(value) != defaults[name]
    ]
    assert wrong == []


def test_it_sets_nothing_that_no_role_knows() -> None:
    for path in EXAMPLE.glob("*.yml"):
        names = set(yaml.safe_load(path.read_text("utf-8")) or {})
        assert {name for name in names if not name.startswith("ansible_")} <= _OPTIONS, path.name
