"""Adding a machine to hosts.yml and taking one away, without touching anything else in it.

The file is a person's: comments, order and quotes stay as they are. The YAML parser says at which lines a machine
belongs; lines are put in or taken out there; and what comes out is parsed again, and has to differ from before by
that machine alone. A file that cannot be changed so is left, and the person told what to write.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from hakuriver.errors import ConflictError, HakuRiverError, NotFoundError, UsageError
from hakuriver_cli.deploy.inventory import HOST_GROUP, RUNNER_GROUP

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_PLAIN = re.compile(r"[A-Za-z_/]([\w./:@+-]*[\w/])?|\d+(\.\d+){3}|0|[1-9]\d*")
_WORDS = {"true", "false", "yes", "no", "on", "off", "null", "none", "y", "n"}

_Path = tuple[str, ...]
_Entry = tuple[yaml.Node, yaml.Node]
"""A machine's name in a group, and what is said of it there."""


def with_machine(text: str, name: str, group: str, variables: Mapping[str, str]) -> str:
    """The text with the machine as the last one of the group."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no name for a machine", "use letters, digits, dots and hyphens")
    root = _compose(text)
    if any(name in _keys(hosts) for _, hosts in _host_maps(root)):
        raise ConflictError(f"{name} is in the inventory already", "see it with `hakuriver cluster status`")
    path, entry = _group(root, group)
    changed = _put(text, entry, name, variables)
    _verify(text, changed, path, name, variables)
    return changed


def without_machine(text: str, name: str) -> str:
    """The text without the machine, in whichever groups it is."""
    root = _compose(text)
    lines = text.splitlines(keepends=True)
    spans = [_span(entry) for entry in _entries(root, name, None)]
    if not spans:
        raise NotFoundError(
            f"the inventory has no machine {name}", "see them with `hakuriver cluster status`"
        )
    for start, end in sorted(spans, reverse=True):
        del lines[start:end]
    changed = "".join(lines)
    if _pruned(_load(text), name) != _pruned(_load(changed), name) or _has(_load(changed), name):
        raise _refusal(f"take {name} away")
    return changed


def without_runner(text: str, name: str) -> str:
    """The text without a machine that was a Runner; the Host goes on as the Host, and keeps what is said of it.

    Raises NotFoundError for one that is no Runner.
    """
    root = _compose(text)
    runner = list(_entries(root, name, _within(root, RUNNER_GROUP)))
    if not runner and has_machine(text, name):
        raise NotFoundError(
            f"{name} is no Runner in the inventory",
            "see who is one with `hakuriver cluster status`; `hakuriver cluster reset` takes all of a cluster away",
        )
    host = next(_entries(root, name, _within(root, HOST_GROUP)), None)
    return without_machine(text, name) if host is None else _host_alone(text, name, runner, host)


def flaw(text: str) -> str | None:
    """Where and why the text is no YAML, or names something twice; None when it does not, or when it is a vault."""
    if text.startswith("$ANSIBLE_VAULT"):
        return None
    try:
        return next(_twice(yaml.compose(text, Loader=_Loader)), None)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        return f"{line}{error.problem or error.context}"
    except yaml.YAMLError as error:
        return _one_line(error)


def has_machine(text: str, name: str) -> bool:
    return any(name in _keys(hosts) for _, hosts in _host_maps(_compose(text)))


def _twice(node: yaml.Node | None) -> Iterator[str]:
    """Keys that a mapping has once more: of these the last would count, and the others be lost without a word."""
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in lines:
                yield f"line {line}: {name}, which line {lines[name]} has already"
            lines[name] = line
            yield from _twice(value)
    elif isinstance(node, yaml.SequenceNode):
        for part in node.value:
            yield from _twice(part)


def _compose(text: str) -> yaml.MappingNode:
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise UsageError(
            f"the inventory is no YAML: {_one_line(error)}", "correct it and try again"
        ) from None
    if not isinstance(root, yaml.MappingNode):
        raise UsageError("the inventory holds no groups", "write one with `hakuriver cluster init`")
    return root


def _groups(node: yaml.MappingNode, path: _Path = ()) -> Iterator[tuple[_Path, yaml.MappingNode | None]]:
    """Every group with its path; the body is None where a group is only named."""
    for key, value in node.value:
        inner = (*path, str(key.value))
        yield inner, value if isinstance(value, yaml.MappingNode) else None
        children = _child(value, "children")
        if isinstance(children, yaml.MappingNode):
            yield from _groups(children, (*inner, "children"))


def _host_maps(root: yaml.MappingNode) -> Iterator[tuple[_Path, yaml.MappingNode]]:
    for path, body in _groups(root):
        hosts = _child(body, "hosts")
        if isinstance(hosts, yaml.MappingNode):
            yield (*path, "hosts"), hosts


def _entries(root: yaml.MappingNode, name: str, groups: set[str] | None) -> Iterator[_Entry]:
    """Where the machine stands in these groups, or in any."""
    for path, hosts in _host_maps(root):
        if groups is None or path[-2] in groups:
            yield from ((key, value) for key, value in hosts.value if key.value == name)


def _within(root: yaml.MappingNode, group: str) -> set[str]:
    """The group and all that are inside it, wherever each is written."""
    pairs = [(path[-3], path[-1]) for path, _ in _groups(root) if path[-2:-1]]
    found = {group}
    while inner := {child for parent, child in pairs if parent in found} - found:
        found |= inner
    return found


def _span(entry: _Entry) -> tuple[int, int]:
    """The lines of a machine's entry: the first, and the one after the last."""
    return int(entry[0].start_mark.line), _last_line(entry[1]) + 1


def _host_alone(text: str, name: str, runner: Sequence[_Entry], host: _Entry) -> str:
    """Without the machine's entries among the Runners; variables that stand there alone move to the Host's."""
    lines = text.splitlines(keepends=True)
    lines[-1] = lines[-1].rstrip("\n") + "\n"
    known = set(_keys(host[1])) if isinstance(host[1], yaml.MappingNode) else set()
    moved = [
        line
        for _, value in runner
        if isinstance(value, yaml.MappingNode)
        for key, own in value.value
        if key.value not in known
        for line in _source(text, lines, key, own, flow=value.flow_style)
    ]
    at, indent = _end_of(host)
    put = (at, at, [f"{' ' * indent}{line}" for line in moved])
    for start, end, instead in sorted([put, *((*_span(entry), []) for entry in runner)], reverse=True):
        lines[start:end] = instead
    changed = "".join(lines)
    try:
        right = _is_host_alone(text, changed, name)
    except UsageError:
        right = False
    if not right:
        raise _refusal(f"take {name} off the Runners")
    return changed


def _is_host_alone(text: str, changed: str, name: str) -> bool:
    root = _compose(changed)
    return (
        next(_entries(root, name, _within(root, RUNNER_GROUP)), None) is None
        and next(_entries(root, name, _within(root, HOST_GROUP)), None) is not None
        and _pruned(_load(text), name) == _pruned(_load(changed), name)
        and _said_of(_load(text), name) == _said_of(_load(changed), name)
    )


def _source(text: str, lines: Sequence[str], key: yaml.Node, value: yaml.Node, *, flow: bool) -> list[str]:
    """A variable as it is written, without its indentation."""
    if flow:
        return [text[key.start_mark.index : value.end_mark.index] + "\n"]
    return [line[key.start_mark.column :] for line in lines[key.start_mark.line : _last_line(value) + 1]]


def _end_of(entry: _Entry) -> tuple[int, int]:
    """The line that a further variable of a machine goes to, and its indentation."""
    key, value = entry
    if isinstance(value, yaml.MappingNode) and value.value and not value.flow_style:
        return _last_line(value) + 1, int(value.value[0][0].start_mark.column)
    return int(key.start_mark.line) + 1, int(key.start_mark.column) + 2


def _group(root: yaml.MappingNode, group: str) -> tuple[_Path, tuple[yaml.Node, yaml.Node]]:
    """The path to the group's machines, and the entry `hosts:` (key and value) that holds them."""
    for path, body in _groups(root):
        if path[-1] == group and body is not None:
            for key, value in body.value:
                if key.value == "hosts":
                    return (*path, "hosts"), (key, value)
    raise UsageError(
        f"the inventory has no group {group} with a line `hosts:`",
        "write the machine into the file by hand, or name another group with --group",
    )


def _put(text: str, entry: tuple[yaml.Node, yaml.Node], name: str, variables: Mapping[str, str]) -> str:
    key, value = entry
    lines = text.splitlines(keepends=True)
    indent = key.start_mark.column + 2
    at = key.start_mark.line + 1
    if isinstance(value, yaml.MappingNode) and value.value:
        if value.flow_style:
            raise _refusal(f"add {name}")
        indent = value.value[0][0].start_mark.column
        at = _last_line(value) + 1
    elif isinstance(value, yaml.MappingNode):
        # `hosts: {}`
        line = lines[key.start_mark.line]
        lines[key.start_mark.line] = line.replace("{}", "", 1).rstrip() + "\n"
    if lines and at == len(lines) and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    lines[at:at] = [f"{' ' * indent}{line}\n" for line in _entry(name, variables)]
    return "".join(lines)


def _entry(name: str, variables: Mapping[str, str]) -> list[str]:
    return [f"{_scalar(name)}:", *(f"  {key}: {_scalar(value)}" for key, value in variables.items())]


def _scalar(text: str) -> str:
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    if text.lower() in {"true", "false"}:
        return text.lower()
    return "'" + text.replace("'", "''") + "'"


def _last_line(node: yaml.Node) -> int:
    """The line on which its last word stands; a parser ends a mapping only after the comments that follow."""
    if isinstance(node, yaml.MappingNode) and node.value and not node.flow_style:
        return max(_last_line(part) for pair in node.value for part in pair)
    if isinstance(node, yaml.SequenceNode) and node.value and not node.flow_style:
        return max(_last_line(part) for part in node.value)
    end = node.end_mark
    return int(end.line - (1 if end.column == 0 and end.line > node.start_mark.line else 0))


def _verify(text: str, changed: str, path: _Path, name: str, variables: Mapping[str, str]) -> None:
    before, after = _load(text), _load(changed)
    hosts = _at(after, path)
    added = hosts.get(name) if isinstance(hosts, dict) else None
    right = {key: str(value) for key, value in (added or {}).items()} == {
        key: str(_load(_scalar(value))) for key, value in variables.items()
    }
    if not right or _pruned(before, name) != _pruned(after, name):
        raise _refusal(f"add {name}")


def _at(data: Any, path: _Path) -> Any:
    for key in path:
        data = data.get(key) if isinstance(data, dict) else None
    return data


def _pruned(data: Any, name: str) -> Any:
    """The inventory without the machine, and with empty groups of machines alike however they are written."""
    if not isinstance(data, dict):
        return data
    result = {}
    for key, value in data.items():
        if key == "hosts":
            result[key] = {host: own for host, own in (value or {}).items() if host != name}
        else:
            result[key] = _pruned(value, name)
    return result


def _said_of(data: Any, name: str) -> dict[str, Any]:
    """A machine's variables, of all its groups; one that is given twice, differently, has all its values."""
    found: dict[str, Any] = {}
    for key, value in data.items() if isinstance(data, dict) else ():
        is_listed = key == "hosts" and isinstance(value, dict)
        said = value.get(name) or {} if is_listed else _said_of(value, name)
        for variable, own in said.items():
            if found.setdefault(variable, own) != own:
                found[variable] = (found[variable], own)
    return found


def _has(data: Any, name: str) -> bool:
    if not isinstance(data, dict):
        return False
    return any(name in (value or {}) if key == "hosts" else _has(value, name) for key, value in data.items())


class _Loader(yaml.SafeLoader):
    """Takes `!vault`, `!unsafe` and the like for plain text."""


def _text_of(_loader: yaml.SafeLoader, _suffix: str, node: yaml.Node) -> str:
    return str(node.value)


_Loader.add_multi_constructor("!", _text_of)


def _load(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)  # noqa: S506  (a safe loader's child)


def _child(node: Any, name: str) -> yaml.Node | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == name and isinstance(value, yaml.Node):
                return value
    return None


def _keys(node: yaml.MappingNode) -> Sequence[str]:
    return [str(key.value) for key, _ in node.value]


def _one_line(error: yaml.YAMLError) -> str:
    return " ".join(str(error).split())


def _refusal(what: str) -> HakuRiverError:
    return HakuRiverError(f"cannot {what} without changing more than that", "edit the inventory by hand")
