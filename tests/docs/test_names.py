"""What exists is named in the documentation, and what the documentation names exists."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import docs_api
import docs_commands
import docs_messages
import pytest
from docs_pages import DOCS, ROOT, blocks, command_lines, inline_code, pages

from hakuriver.config import Settings
from hakuriver.errors import HakuRiverError
from hakuriver.states import TaskState
from hakuriver_agent.api import attempts, doors, health, logs, snapshots, sync
from hakuriver_cli import reference
from hakuriver_cli.commands import application
from hakuriver_host.api.terminal import terminal_routes
from hakuriver_host.services.metrics import METRICS

_PACKAGES = ("sdk", "host", "agent", "cli")
_NOTHING: Any = None
_PROGRAMS = {
    "hakuriver.client": reference.client_app,
    "hakuriver.task": reference.task_app,
    "hakuriver.docker": reference.docker_app,
    "hakuriver.docker-shell": reference.docker_shell_app,
    "hakuriver.init": reference.init_app,
}


def _text() -> str:
    return "\n".join(page.read_text("utf-8") for page in pages())


def _sources() -> Iterator[Path]:
    for package in _PACKAGES:
        yield from (ROOT / package).rglob("*.py")


def _settings() -> set[str]:
    sections = {name: field.annotation for name, field in Settings.model_fields.items()}
    return {f"{name}.{key}" for name, model in sections.items() for key in model.model_fields}  # type: ignore[union-attr]


def _commands(chain: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command of the tree that does something."""
    _, apps, _ = application().parse_commands(list(chain))
    below = [name for name in apps[-1] if not name.startswith("-")]
    if not below:
        yield chain
    for name in below:
        yield from _commands((*chain, name))


def _runner_endpoints() -> set[tuple[str, str]]:
    routes = [
        *attempts.routes(_NOTHING),
        *logs.routes(_NOTHING, _NOTHING),
        *snapshots.routes(_NOTHING, _NOTHING),
        *sync.routes(_NOTHING, ""),
        *health.routes(_NOTHING),
    ]
    return {
        (method, route.path.replace(":int", ""))
        for route in routes
        for method in (route.methods or set()) - {"HEAD"}
    }


def _host_endpoints() -> set[tuple[str, str]]:
    paths = docs_api.host_document()["paths"]
    return {(method.upper(), path) for path, methods in paths.items() for method in methods}


def _web_sockets() -> set[str]:
    routes = [
        *terminal_routes(_NOTHING, _NOTHING, _NOTHING, _NOTHING, _NOTHING),
        *doors.routes(_NOTHING, _NOTHING, _NOTHING, _NOTHING, _NOTHING),
    ]
    return {route.path.replace(":int", "") for route in routes}


def test_every_setting_is_documented() -> None:
    page = (DOCS / "reference/configuration.md").read_text("utf-8")
    missing = {name for name in _settings() if f"`{name}`" not in page}
    assert not missing


def test_every_setting_that_is_named_exists() -> None:
    sections = "|".join(Settings.model_fields)
    named = re.compile(rf"(?:{sections})\.[a-z_]+")
    known = _settings() | {"host.db", "host.key", "host.lock", "docker.io"}
    wrong = {(page.name, code) for page in pages() for code in inline_code(page) if named.fullmatch(code)}
    assert not {(page, code) for page, code in wrong if code not in known}


@pytest.mark.parametrize("chain", list(_commands()), ids=" ".join)
def test_every_command_and_flag_is_documented(chain: tuple[str, ...]) -> None:
    text = _text()
    heading = f"## hakuriver {' '.join(chain)}\n"
    assert heading in text
    section = text.split(heading, 1)[1].split("\n## ", 1)[0]
    for argument in docs_commands.arguments_of(list(chain)):
        for name in argument.names:
            assert f"`{name}`" in section, f"hakuriver {' '.join(chain)}: {name} is not documented"


def test_every_metric_is_documented_and_every_one_that_is_named_exists() -> None:
    page = DOCS / "integration-guides/external-monitoring.md"
    known = {metric.name for metric in METRICS}
    assert not {name for name in known if f"| `{name}` |" not in page.read_text("utf-8")}
    assert set(re.findall(r"hakuriver_(?!host|agent|cli)[a-z_]+", page.read_text("utf-8"))) <= known


def test_every_other_name_of_a_command_is_documented() -> None:
    text = _text()
    for program, make in _PROGRAMS.items():
        for name in make():
            assert name.startswith("-") or f"`{program} {name}" in text, f"{program} {name}"


def test_every_endpoint_is_documented() -> None:
    page = (DOCS / "reference/api-reference.md").read_text("utf-8")
    for method, path in _host_endpoints():
        assert f"### {method} {path}\n" in page
    for method, path in _runner_endpoints():
        assert f"`{method} {path}`" in page
    for path in _web_sockets():
        assert f"`{path}`" in page


def test_every_endpoint_that_is_named_exists() -> None:
    served = {path for _, path in _host_endpoints() | _runner_endpoints()} | _web_sockets()
    known = [re.sub(r"\{\w+\}", "[^/]+", path) for path in served]
    pattern = re.compile(r"(?:(?:GET|POST|PUT|DELETE) )?(/api/[^\s?]*)(?:\?\S*)?")
    for page in pages():
        for code in inline_code(page):
            found = pattern.fullmatch(code)
            if found:
                assert any(re.fullmatch(path, found[1]) for path in known), f"{page.name}: {code}"


def test_every_variable_is_documented_and_every_one_that_is_named_exists() -> None:
    pattern = re.compile(r"HAKURIVER_[A-Z][A-Z_]*[A-Z]")
    used = {name for path in _sources() for name in pattern.findall(path.read_text("utf-8"))}
    named = set(pattern.findall(_text()))
    assert used <= named, f"not documented: {used - named}"
    assert named <= used, f"does not exist: {named - used}"


def test_every_state_and_every_error_is_documented() -> None:
    text = _text()
    for state in TaskState:
        assert f"`{state}`" in text
    for kind in docs_api.tree(HakuRiverError):
        assert f"| `{kind.code}` |" in text


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(DOCS)))
def test_every_command_that_is_shown_exists(page: Path) -> None:
    for line in command_lines(page):
        for words in _invocations(line):
            _check(words, f"{page.name}: {line}")


def _invocations(line: str) -> Iterator[list[str]]:
    """The words of each call of `hakuriver` in a line of shell."""
    for part in re.split(r"\||;|&&|\$\(|\)|`", line):
        found = re.search(r"(?:^|\s|/)(hakuriver(?:\.\w+)?)(\s.*)?$", part.strip())
        if found and not re.search(r"[{}<>]", part.split(" -- ")[0]):
            yield [found[1], *_split(found[2] or "")]


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text, comments=True)
    except ValueError:
        return text.split()


def _check(words: list[str], where: str) -> None:
    program, rest = words[0], words[1:]
    if program in {"hakuriver.host", "hakuriver.runner"}:
        program, rest = "hakuriver", [program.partition(".")[2], *rest]
    make = application if program == "hakuriver" else _PROGRAMS.get(program)
    if make is None:
        return
    app = make()
    while rest and rest[0] in {"--config", "-o", "--output"}:
        rest = rest[2:]
    if not rest or rest[0].startswith("-"):
        return
    chain, apps, after = app.parse_commands(rest)
    expected = next((word for word in rest if not word.startswith("-")), None)
    assert chain or expected is None or expected.isupper(), f"{where}: there is no such command"
    if not chain or any(not name.startswith("-") for name in apps[-1]):
        assert not after or after[0].startswith("-") or after[0].isupper(), (
            f"{where}: there is no such command"
        )
        return
    with app.app_stack(chain):
        _check_options(list(apps[-1].assemble_argument_collection()), after, where)


def _check_options(arguments: list[Any], words: list[str], where: str) -> None:
    known = {name: argument for argument in arguments for name in argument.names}
    takes_command = any(argument.names in {("COMMAND",), ("WORDS",)} for argument in arguments)
    index = 0
    while index < len(words) and words[index] != "--":
        word = words[index]
        index += 1
        if not word.startswith("-") or word == "-":
            if takes_command:
                return
            continue
        name = word.partition("=")[0]
        if name in {"--help", "-h", "--version"}:
            continue
        assert name in known, f"{where}: there is no option {name}"
        alone = bool in {known[name].hint, *get_args(known[name].hint)}
        index += 0 if alone or "=" in word else 1


def test_every_message_that_troubleshooting_quotes_is_in_the_code() -> None:
    texts = [*(text for path in _sources() for text in _strings(path)), *docs_messages.texts()]
    quoted = 0
    for page in (DOCS / "troubleshooting").glob("*.md"):
        for block in blocks(page):
            for line in block.text.splitlines() if block.language == "text" else ():
                pieces = re.sub(r"^(error|hint|hakuriver\.runner): ", "", line).split("…")
                for piece in (piece.strip(" :") for piece in pieces):
                    quoted += 1
                    assert len(piece) < 6 or any(piece in text for text in texts), (
                        f"{block}: no code says {piece!r}"
                    )
    assert quoted


def _strings(path: Path) -> Iterator[str]:
    """Every text in a module; of one with variables in it, the parts between them."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_the_tests_that_the_laws_name_exist() -> None:
    page = DOCS / "reference/architecture.md"
    named = [code for code in inline_code(page) if code.startswith("tests/")]
    assert named
    for code in named:
        path, _, name = code.partition("::")
        source = ROOT / path
        assert source.exists(), code
        assert not name or f"def {name}(" in source.read_text("utf-8"), code
