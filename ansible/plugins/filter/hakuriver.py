"""What our playbooks decide about an inventory: its shape, its names, its variables. Pure, but for `read_roles`.

A problem is `{"what": ..., "hint": ...}`: one line of what is wrong, one of what to do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

Problem = dict[str, str]

# As `hakuriver.targets.NODE_NAME`: what a Host takes as the name of a node.
_NODE_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")
_LOOPBACK = re.compile(r"localhost|127\.\d+\.\d+\.\d+|::1")
# Ansible's own, and those of the modules that connect.
_FOREIGN = ("ansible_", "molecule_")
# How alike a name without our prefix has to be to count as ours, misspelt. `docker_user` is not `users`.
_PREFIX_LIKENESS = 0.88


def read_roles(folder: str) -> dict[str, Any]:
    """The roles of a folder: `names`, `specs` (argument specifications), and `texts`, all that their tasks say."""
    roles = sorted(path for path in Path(folder).iterdir() if (path / "tasks").is_dir())
    files = [path / "meta" / "argument_specs.yml" for path in roles]
    return {
        "names": [path.name for path in roles],
        "specs": [yaml.safe_load(path.read_text("utf-8")) for path in files if path.is_file()],
        "texts": [
            path.read_text("utf-8")
            for role in roles
            for part in ("tasks", "handlers", "vars")
            for path in sorted((role / part).glob("**/*.yml"))
        ],
    }


def read_names(file: str) -> list[str]:
    """The variables that a YAML file sets; none where there is no file."""
    path = Path(file)
    return sorted(yaml.safe_load(path.read_text("utf-8")) or {}) if path.is_file() else []


def spoken_names(texts: Iterable[str], prefixes: Iterable[str]) -> list[str]:
    """All words of the roles' tasks that begin as our variables do: what they read, and what they set for themselves."""
    pattern = re.compile(rf"\b(?:{'|'.join(map(re.escape, prefixes))})_\w+")
    return sorted({word for text in texts for word in pattern.findall(text)})


def documented_variables(specs: Iterable[Mapping[str, Any] | None]) -> list[str]:
    """The names of all variables that argument specifications document."""
    found: set[str] = set()
    for spec in specs:
        for entry in ((spec or {}).get("argument_specs") or {}).values():
            found.update((entry or {}).get("options") or {})
    return sorted(found)


def unknown_variables(
    names: Iterable[str], known: Iterable[str], prefixes: Iterable[str], ignored: Iterable[str] = ()
) -> list[Problem]:
    """Variables that look like ours and that nobody reads: `[{"name": ..., "meant": ...}]`.

    A name looks like ours when it begins with one of the prefixes and an underscore, or is nearly one of the known
    names. `ignored` are patterns such as `docker_legacy_*`. A name with a leading underscore is private.
    """
    known_names, patterns = sorted(set(known)), tuple(ignored)
    heads = tuple(f"{prefix}_" for prefix in prefixes)
    found = []
    for name in sorted(set(names)):
        if name in known_names or name.startswith(("_", *_FOREIGN)):
            continue
        if any(fnmatchcase(name, pattern) for pattern in patterns):
            continue
        ours = name.startswith(heads)
        near = get_close_matches(name, known_names, n=1, cutoff=0.6 if ours else _PREFIX_LIKENESS)
        if ours or near:
            found.append({"name": name, "meant": near[0] if near else ""})
    return found


def variable_problems(unknown: Iterable[Mapping[str, str]]) -> list[Problem]:
    """The words for what `unknown_variables` found."""
    return [
        _problem(
            f"the inventory sets `{one['name']}`, which nothing reads"
            + (f": did you mean `{one['meant']}`?" if one["meant"] else ""),
            "correct the name, or remove it; what other programs read goes into preflight_ignored_variables",
        )
        for one in unknown
    ]


def inventory_problems(
    members: Mapping[str, Mapping[str, Any]], hosts: Sequence[str], runners: Sequence[str], share: str = ""
) -> list[Problem]:
    """What is wrong with the machines of an inventory before any of them is asked.

    `members` gives for each machine `name` (as a node), `address` (at which the Host reaches it) and `login` (where
    Ansible reaches it; empty where it says nothing).
    """
    return [
        *_shape(hosts, runners, share),
        *(
            _problem(
                f"`{members[one]['name']}` cannot be the name of a node",
                f"letters, digits and . _ - inside, at most 64: set hakuriver_node_name for {one}",
            )
            for one in runners
            if not _NODE_NAME.fullmatch(str(members[one]["name"]))
        ),
        *_twice(
            ((str(members[one]["name"]), one) for one in runners),
            "{who} have one name as nodes: {value}",
            "give each a name of its own: hakuriver_node_name",
        ),
        *_twice(
            ((str(members[one]["address"]), one) for one in runners),
            "{who} have one address: {value}",
            "give each its own: ansible_host, or hakuriver_node_address where the Host uses another one",
        ),
        *_twice(
            ((str(members[one]["login"]), one) for one in members if members[one].get("login")),
            "{who} are reached at one place: {value}",
            "give each its own ansible_host (and ansible_port), or keep one of the names",
        ),
        *_loopback(members, hosts, runners),
    ]


def _shape(hosts: Sequence[str], runners: Sequence[str], share: str) -> list[Problem]:
    found = []
    if len(hosts) != 1:
        named = f"{len(hosts)} machines ({', '.join(sorted(hosts))})" if hosts else "no machine"
        found.append(
            _problem(
                f"the group hakuriver_host has {named}",
                "a cluster has one Host: name exactly one machine there",
            )
        )
    if not runners:
        found.append(
            _problem(
                "the group hakuriver_runners has no machine",
                "name at least one there; the Host's own machine may be one",
            )
        )
    if share == "local" and len({*hosts, *runners}) > 1:
        found.append(
            _problem(
                "shared_storage_type is `local`, and there is more than one machine",
                "a local folder serves one machine alone: use nfs, glusterfs, sshfs or existing",
            )
        )
    return found


def _twice(pairs: Iterable[tuple[str, str]], what: str, hint: str) -> list[Problem]:
    """One problem for each value that more than one machine has."""
    owners: dict[str, list[str]] = {}
    for value, owner in pairs:
        owners.setdefault(value, []).append(owner)
    return [
        _problem(what.format(who=_listed(who), value=value), hint)
        for value, who in sorted(owners.items())
        if len(who) > 1
    ]


def _loopback(
    members: Mapping[str, Mapping[str, Any]], hosts: Sequence[str], runners: Sequence[str]
) -> list[Problem]:
    """A machine that is called by 127.0.0.1 is reached by itself alone."""
    if len({*hosts, *runners}) <= 1:
        return []
    return [
        _problem(
            f"{one} has the address {members[one]['address']}, which other machines cannot reach",
            f"set ansible_host or hakuriver_node_address for {one}",
        )
        for one in runners
        if one not in hosts and _LOOPBACK.fullmatch(str(members[one]["address"]))
    ]


def options(specs: Iterable[Mapping[str, Any] | None]) -> dict[str, Any]:
    """The options of all argument specifications in one, as far as values are compared with them."""
    return {
        name: _bare(option)
        for spec in specs
        for entry in ((spec or {}).get("argument_specs") or {}).values()
        for name, option in ((entry or {}).get("options") or {}).items()
    }


def argument_problems(result: Mapping[str, Any]) -> list[Problem]:
    """What `validate_argument_spec` found."""
    return [
        _problem(
            f"a variable is wrong: {' '.join(str(error).split())}",
            "correct it in the inventory; the role's README lists them all",
        )
        for error in result.get("argument_errors") or ()
    ]


def refusals(result: Mapping[str, Any], node: str) -> list[Problem]:
    """What a role said when it refused: lines of what is wrong and, after `hint:`, of what to do, maybe several times."""
    if items := result.get("results"):
        return [one for item in items if item.get("failed") for one in refusals(item, node)]
    found: list[Problem] = []
    for line in map(str.strip, str(result.get("msg", "")).splitlines()):
        begins = line.startswith(f"{node}: ")
        if line.startswith("hint:"):
            found = found or [_problem("", "")]
            found[-1]["hint"] = line.removeprefix("hint:").strip()
        elif begins or not found:
            found.append(_problem(line.removeprefix(f"{node}: "), ""))
        elif line:
            part = "hint" if found[-1]["hint"] else "what"
            found[-1][part] += f" {line}"
    said = str(result.get("stderr") or result.get("stdout") or "").strip().splitlines()
    for one in found:
        if not one["hint"]:
            one["what"] += f": {said[-1]}" if said else ""
            one["hint"] = "see all that was said with --verbose"
    return found


def _bare(option: Mapping[str, Any]) -> dict[str, Any]:
    bare = {key: option[key] for key in ("type", "elements", "choices", "required") if key in option}
    if "options" in option:
        bare["options"] = {name: _bare(part) for name, part in option["options"].items()}
    return bare


def problem_lines(problems: Iterable[Mapping[str, str]], node: str) -> str:
    """Two lines for each problem, as a failure shows them; each problem once."""
    lines = []
    for one in {(p["what"], p["hint"]): p for p in problems}.values():
        lines += [f"{node}: {one['what']}", f"hint: {one['hint']}"]
    return "\n".join(lines)


def _problem(what: str, hint: str) -> Problem:
    return {"what": what, "hint": hint}


def _listed(names: Iterable[str]) -> str:
    *front, last = sorted(names)
    return f"{', '.join(front)} and {last}" if front else last


class FilterModule:
    """The filters that Ansible finds here."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "hakuriver_read_roles": read_roles,
            "hakuriver_read_names": read_names,
            "hakuriver_spoken_names": spoken_names,
            "hakuriver_documented_variables": documented_variables,
            "hakuriver_unknown_variables": unknown_variables,
            "hakuriver_variable_problems": variable_problems,
            "hakuriver_inventory_problems": inventory_problems,
            "hakuriver_options": options,
            "hakuriver_argument_problems": argument_problems,
            "hakuriver_refusals": refusals,
            "hakuriver_problem_lines": problem_lines,
        }
