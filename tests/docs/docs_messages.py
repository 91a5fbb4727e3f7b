"""What the deployment says when something is wrong: its messages, cut where a value stands in them.

They are in the roles' and playbooks' `fail` and `assert`, in the filters that judge machines and inventories, in the findings
of `check`, and in the table by which the commands explain what Ansible says.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from docs_pages import ROOT

_ANSIBLE = ROOT / "ansible"
_FINDINGS = _ANSIBLE / "plugins/filter/hakuriver_findings.py"
_FAILURES = ROOT / "cli/hakuriver_cli/deploy/failures.py"
_TEMPLATE = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)
_SHORTEST = 10
"""A shorter piece says nothing: ` and `, ` MB of `."""


def texts() -> list[str]:
    """All that the deployment's files say, to look a quotation up in."""
    paths = [path for suffix in ("yml", "py") for path in _ANSIBLE.rglob(f"*.{suffix}")]
    return [
        text for path in paths for text in (_plain(path), *(_constants(path) if path.suffix == ".py" else ()))
    ]


def pieces() -> dict[str, str]:
    """Each piece of a message, and where it is from."""
    found: dict[str, str] = {}
    for path, message in _messages():
        for piece in re.split(r"…", message):
            text = _words(piece)
            if len(text) >= _SHORTEST and " " in text:
                found.setdefault(text, str(path.relative_to(ROOT)))
    return found


def _messages() -> Iterator[tuple[Path, str]]:
    """Messages with `…` for their values."""
    for path in sorted((_ANSIBLE / "plugins/filter").glob("*.py")):
        yield from ((path, message) for message in _problems(path))
    yield from ((_FAILURES, re.sub(r"\{\w+\}", "…", message)) for message in _explained(_FAILURES))
    for path in sorted([*_ANSIBLE.glob("roles/*/tasks/*.yml"), *_ANSIBLE.glob("playbooks/**/*.yml")]):
        for message in _failing(yaml.safe_load(path.read_text("utf-8"))):
            what = re.split(r"^\s*(?:hint|mounted):", message, flags=re.MULTILINE)[0]
            yield path, _TEMPLATE.sub("…", what)
    yield from ((_FINDINGS, message) for message in _findings(_FINDINGS))


def _problems(path: Path) -> Iterator[str]:
    """`_problem(WHAT, HINT)` and `{"what": WHAT, "hint": HINT}`."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in {"_problem", "_twice"}:
            yield from _text(node.args[1 if getattr(node.func, "id", "") == "_twice" else 0])
        elif isinstance(node, ast.Dict):
            keys = [key.value if isinstance(key, ast.Constant) else None for key in node.keys]
            if keys == ["what", "hint"]:
                yield from _text(node.values[0])
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "_ESCALATION":
            assert isinstance(node.value, ast.Tuple)
            for row in node.value.elts:
                assert isinstance(row, ast.Tuple)
                yield from _text(row.elts[1])


def _explained(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "_known":
            yield from _text(node.args[1])


def _text(node: ast.expr) -> Iterator[str]:
    """A text; of one with variables, `…` for each of them."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield re.sub(r"\{\w+\}", "…", node.value)
    elif isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    elif isinstance(node, ast.BinOp):
        yield from (text for one in (node.left, node.right) for text in _text(one))


def _failing(data: Any) -> Iterator[str]:
    """The words of every `fail` and `assert` of a file of tasks or plays."""
    if isinstance(data, list):
        for one in data:
            yield from _failing(one)
    elif isinstance(data, dict):
        for name, key in (("ansible.builtin.assert", "fail_msg"), ("ansible.builtin.fail", "msg")):
            if isinstance(data.get(name), dict):
                yield str(data[name].get(key, ""))
        for value in data.values():
            yield from _failing(value)


def _findings(path: Path) -> Iterator[str]:
    """What `check` may find: every text of that module but its docstrings."""
    tree = list(ast.walk(ast.parse(path.read_text("utf-8"))))
    parts = {id(part) for node in tree if isinstance(node, ast.JoinedStr) for part in node.values}
    parts |= {id(node.value) for node in tree if isinstance(node, ast.Expr)}
    for node in tree:
        if isinstance(node, ast.expr) and id(node) not in parts:
            yield from _text(node)


def _plain(path: Path) -> str:
    return _words(path.read_text("utf-8"))


def _constants(path: Path) -> list[str]:
    tree = ast.walk(ast.parse(path.read_text("utf-8")))
    return [
        _words(node.value) for node in tree if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


def _words(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip(" :,;()…")
