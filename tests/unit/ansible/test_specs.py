"""Every variable of every role is in its argument specs, says what it means, and stands in the role's README."""

from __future__ import annotations

import functools
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

_ROOT = Path(__file__).resolve().parents[3]
sys.path.append(str(_ROOT / "scripts"))

import docs_generate
import docs_roles

ROLES = sorted(path for path in (_ROOT / "ansible/roles").iterdir() if (path / "tasks").is_dir())
_WANTED = ("defaults/main.yml", "meta/main.yml", "meta/argument_specs.yml", "tasks/main.yml", "README.md")
_WORD = re.compile(r"\b[a-z][a-z0-9_]+\b")
_STRING = re.compile(r"'[^']*'|\"[^\"]*\"")
_EXPRESSION = re.compile(r"\{\{(.*?)\}\}|\{%(.*?)%\}", re.DOTALL)
_BARE = {"when", "changed_when", "failed_when", "until", "that", "assert"}
"""Keys of a task whose values are expressions without braces."""
_GIVEN = re.compile(r"^[a-z]\w*:")

roles = pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)


@roles
def test_it_is_complete(role: Path) -> None:
    assert [name for name in _WANTED if not (role / name).is_file()] == []


@roles
def test_every_variable_has_a_spec_with_a_meaning(role: Path) -> None:
    options = docs_roles.options_of(role)
    assert sorted(set(docs_roles.defaults_of(role)) - set(options)) == [], "in defaults, not in the specs"
    for name, option in _flat(options):
        assert docs_roles.text_of(option.get("description")).strip(), f"{name} does not say what it means"
        assert "type" in option, f"{name} has no type"


@roles
def test_what_is_not_required_has_a_default_and_the_specs_repeat_none_wrongly(role: Path) -> None:
    defaults = docs_roles.defaults_of(role)
    for name, option in docs_roles.options_of(role).items():
        if option.get("required"):
            assert name not in defaults, f"{name} is required and has a default"
        if "default" in option:
            assert option["default"] == defaults.get(name), f"the default of {name}"


@roles
def test_variables_carry_the_name_of_the_role(role: Path) -> None:
    foreign = [
        name for name in docs_roles.defaults_of(role) if not name.startswith((f"{role.name}_", "__", "_"))
    ]
    assert foreign == []


@roles
def test_what_tasks_and_templates_read_is_in_the_specs(role: Path) -> None:
    shared = set(docs_roles.options_of(_ROOT / "ansible/roles/hakuriver"))
    known = set(docs_roles.options_of(role)) | set(docs_roles.defaults_of(role)) | _set_inside(role) | shared
    read = {word for word in _words_of(role) if word.startswith(f"{role.name}_") and word not in known}
    assert sorted(read) == [], "read, but neither in the specs nor set by the role itself"


@roles
def test_every_variable_is_read_somewhere(role: Path) -> None:
    """In its own role, or, for what a whole cluster shares, in another or in a playbook."""
    unread = set(docs_roles.options_of(role)) - _all_words()
    assert sorted(unread) == [], "in the specs, and nothing reads it"


@roles
def test_every_variable_is_in_the_readme(role: Path) -> None:
    text = (role / "README.md").read_text("utf-8")
    options = docs_roles.options_of(role)
    names = [*options, *(key for name in options for key, _ in docs_roles.nested_of(name, options[name]))]
    assert [name for name in names if not re.search(rf"^\| `{re.escape(name)}` \|", text, re.MULTILINE)] == []


def test_every_readme_is_current() -> None:
    assert docs_roles.main(["--check"]) == 0, "run `python scripts/docs_roles.py`"


def test_what_is_read_of_the_whole_cluster_is_in_some_specs() -> None:
    known = _filters() | {name for role in ROLES for name in docs_roles.options_of(role)}
    known |= {name for role in ROLES for name in _set_inside(role)}
    read = {word for role in ROLES for word in _words_of(role) if word.startswith("hakuriver_")}
    assert sorted(read - known) == []


@roles
def test_the_readme_has_the_table(role: Path) -> None:
    path = role / "README.md"
    text = path.read_text("utf-8")
    assert "<!-- generated: variables -->" in text
    assert docs_generate.generated_readme(path, text) == text, (
        "it is old: run `python scripts/docs_generate.py`"
    )


@roles
def test_only_modules_of_ansible_itself_are_used(role: Path) -> None:
    used = {action for path in _task_files(role) for task in _tasks(path) for action in task if "." in action}
    assert sorted(name for name in used if not name.startswith("ansible.builtin.")) == []


@roles
def test_what_apt_installs_is_looked_up_by_the_task_itself(role: Path) -> None:
    """A handler would be forgotten by a run that was broken off, and the next one would find no such package."""
    for path in _task_files(role):
        for task in _tasks(path):
            asked = task.get("ansible.builtin.apt") or {}
            if asked.get("state") == "present":
                assert asked.get("update_cache"), f"{path.name}: {task.get('name')} may read old lists"
            assert not asked or path.parent.name != "handlers", f"{path.name}: {task.get('name')}"


def test_preflight_asks_every_role_that_looks_for_something_first() -> None:
    variables = yaml.safe_load((_ROOT / "ansible/roles/preflight/vars/main.yml").read_text("utf-8"))
    asked = set(re.findall(r"\['(\w+)'\] if", variables["preflight_roles"]))
    looks = {role.name for role in ROLES if (role / "tasks/preflight.yml").is_file()}
    assert asked == {*looks, "hakuriver_install"}


@roles
def test_secrets_are_kept_out_of_the_output(role: Path) -> None:
    for path in _task_files(role):
        for task in _tasks(path):
            if _handles_a_secret(task):
                assert task.get("no_log"), f"{path.name}: {task.get('name')} may show a secret"


@roles
def test_how_files_with_settings_change_is_shown_to_nobody(role: Path) -> None:
    """`--diff` and the history would keep the password in the URL of a database."""
    for path in _task_files(role):
        for task in _tasks(path):
            source = str((task.get("ansible.builtin.template") or {}).get("src", ""))
            if source in {"host.toml.j2", "runner.toml.j2", "host.env.j2", "runner.env.j2"}:
                assert task.get("diff") is False, f"{path.name}: {task.get('name')} shows a secret by --diff"
            if "to_nice_json" in str((task.get("ansible.builtin.copy") or {}).get("content", "")):
                assert "docker_shows_differences" in str(task.get("diff"))


def test_the_guide_lists_the_roles_in_the_order_in_which_site_plays_them() -> None:
    plays = yaml.safe_load((_ROOT / "ansible/playbooks/site.yml").read_text("utf-8"))
    played = [entry["role"] for play in plays for entry in play["roles"]]
    guide = (_ROOT / "docs/admin-guides/cluster-with-ansible.md").read_text("utf-8")
    table = guide.partition("What it does, in this order.")[2].partition("\n\n| path")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert [name for row in rows for name in re.findall(r"`(\w+)`", row)] == played


def _flat(options: dict[str, Any], prefix: str = "") -> list[tuple[str, dict[str, Any]]]:
    found = []
    for name, option in options.items():
        found.append((prefix + name, option))
        found += _flat(option.get("options") or {}, f"{prefix}{name}.")
    return found


def _task_files(role: Path) -> list[Path]:
    return sorted([*role.glob("tasks/**/*.yml"), *role.glob("handlers/*.yml")])


def _tasks(path: Path) -> list[dict[str, Any]]:
    def walk(tasks: list[dict[str, Any]], inherited: dict[str, Any]) -> list[dict[str, Any]]:
        found = []
        for task in tasks:
            whole = {**inherited, **task}
            found.append(whole)
            passed = {key: whole[key] for key in ("no_log",) if key in whole}
            for part in ("block", "rescue", "always"):
                found += walk(task.get(part) or [], passed)
        return found

    return walk(yaml.safe_load(path.read_text("utf-8")) or [], {})


def _handles_a_secret(task: dict[str, Any]) -> bool:
    """Whether its arguments or results carry a token or a private key, and not merely a path or a name of one."""
    if "block" in task:
        return False
    arguments = {key: value for key, value in task.items() if key.startswith("ansible.builtin.")}
    text = yaml.safe_dump(arguments)
    command = "token" in text and "create" in text and ("command" in text or "shell" in text)
    slurped = "ansible.builtin.slurp" in arguments and bool(re.search(r"token|\.key\b|_key\b", text))
    return command or slurped


@functools.cache
def _all_words() -> frozenset[str]:
    """What roles, playbooks and templates name, whether as a variable or as the name of another's variable."""
    files = [
        path
        for folder in ("tasks", "handlers", "defaults", "vars", "templates")
        for path in (_ROOT / "ansible/roles").glob(f"*/{folder}/**/*")
        if path.is_file()
    ]
    files += (_ROOT / "ansible/playbooks").glob("**/*.yml")
    lines = [line for path in files for line in path.read_text("utf-8").splitlines()]
    # A line that gives a variable its default does not read it.
    return frozenset(word for line in lines for word in _WORD.findall(_GIVEN.sub("", line)))


def _filters() -> set[str]:
    found: set[str] = set()
    for path in (_ROOT / "ansible/plugins/filter").glob("*.py"):
        found.update(re.findall(r'^ +"(\w+)":', path.read_text("utf-8"), re.MULTILINE))
    return found


def _set_inside(role: Path) -> set[str]:
    """Names that the role itself sets: facts, registered results, variables of tasks and loops, and vars files."""
    found: set[str] = set()
    for path in _task_files(role):
        for task in _tasks(path):
            found |= set(task.get("vars") or {})
            found |= {str(task[key]) for key in ("register",) if key in task}
            found |= set(task.get("ansible.builtin.set_fact") or {})
            loop = task.get("loop_control") or {}
            found |= {str(loop[key]) for key in ("loop_var", "index_var") if key in loop}
    for path in role.glob("vars/**/*.yml"):
        found |= set(yaml.safe_load(path.read_text("utf-8")) or {})
    for path in role.glob("templates/**/*"):
        if path.is_file():
            found |= set(re.findall(r"\{%-?\s*(?:set|for)\s+(\w+)", path.read_text("utf-8")))
            found |= set(re.findall(r"\{%-?\s*macro\s+(\w+)", path.read_text("utf-8")))
    return found


def _words_of(role: Path) -> set[str]:
    """Names in expressions of tasks, handlers, defaults, variables and templates; strings inside them left out."""
    found: set[str] = set()
    for folder in ("tasks", "handlers", "defaults", "vars"):
        for path in role.glob(f"{folder}/**/*.yml"):
            found |= _words_in(yaml.safe_load(path.read_text("utf-8")), bare=False)
    for path in role.glob("templates/**/*"):
        if path.is_file():
            found |= _words_in(path.read_text("utf-8"), bare=False)
    return found


def _words_in(value: Any, *, bare: bool) -> set[str]:
    if isinstance(value, dict):
        found: set[str] = set()
        for key, part in value.items():
            found |= _words_in(part, bare=bare or key in _BARE)
        return found
    if isinstance(value, list):
        return {word for part in value for word in _words_in(part, bare=bare)}
    if not isinstance(value, str):
        return set()
    expressions = [first or second for first, second in _EXPRESSION.findall(value)]
    if bare and not expressions:
        expressions = [value]
    return {word for text in expressions for word in _WORD.findall(_STRING.sub("", text))}
