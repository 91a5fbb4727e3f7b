"""What our playbooks decide about accounts: whose a number is, and which keys may log in. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

Problem = dict[str, str]


def account_problems(
    wanted: Iterable[Mapping[str, Any]], passwd: Mapping[str, Any], groups: Mapping[str, Any]
) -> list[Problem]:
    """Why accounts cannot be made with the numbers they shall have everywhere.

    Each has `name`, `uid`, `group` and `gid`; without a group of another name, its gid is its uid. `passwd` and `groups`
    are what `getent` tells: name to fields, of which the second is the number.
    """
    users, teams, found = _numbers(passwd), _numbers(groups), []
    for one in wanted:
        name, uid = str(one["name"]), one.get("uid")
        group = str(one.get("group") or name)
        gid = one.get("gid") or (uid if not one.get("group") else None)
        found += [*_taken("uid", "user", name, uid, users), *_taken("gid", "group", group, gid, teams)]
    return found


def _taken(kind: str, noun: str, name: str, number: Any, numbers: Mapping[str, int]) -> list[Problem]:
    if number is None or number == "":
        return []
    other = [one for one, has in numbers.items() if has == int(number) and one != name]
    if other:
        return [
            {
                "what": f"the {kind} {number} of {name} is {other[0]}'s on this machine",
                "hint": f"give {name} a {kind} that is free on all machines, or change that of {other[0]}",
            }
        ]
    if name in numbers and numbers[name] != int(number):
        return [
            {
                "what": f"the {noun} {name} has the {kind} {numbers[name]} on this machine, not {number}",
                "hint": f"set its {kind} to {numbers[name]} for all machines, or change it here and chown its files",
            }
        ]
    return []


def _numbers(table: Mapping[str, Any]) -> dict[str, int]:
    return {str(name): int(fields[1]) for name, fields in table.items() if str(fields[1]).isdigit()}


def accounts_unlike(
    wanted: Iterable[Mapping[str, Any]],
    absent: Iterable[Mapping[str, Any]],
    passwd: Mapping[str, Any],
    groups: Mapping[str, Any],
) -> list[str]:
    """The names of accounts that are missing, that are not as they are to be, or that are there and are not to be.

    As the tasks of the role make them: without a word of the shell it is bash, and of groups that an account is in
    beside its own none is taken away. `docker` asks for the engine's group where there is one.
    """
    return [
        *(str(one["name"]) for one in wanted if not _is(one, passwd, groups)),
        *(str(one["name"]) for one in absent if one["name"] in passwd),
    ]


def _is(one: Mapping[str, Any], passwd: Mapping[str, Any], groups: Mapping[str, Any]) -> bool:
    name = str(one["name"])
    own = str(one.get("group") or name)
    if name not in passwd or own not in groups:
        return False
    _, uid, gid, comment, home, shell = map(str, passwd[name])
    own_gid = str(one.get("gid") or (groups[own][1] if one.get("group") else one["uid"]))
    others = [*(one.get("groups") or []), *(["docker"] if one.get("docker") and "docker" in groups else [])]
    return (
        (uid, gid, str(groups[own][1])) == (str(one["uid"]), own_gid, own_gid)
        and shell == str(one.get("shell") or "/bin/bash")
        and home == str(one.get("home") or home)
        and comment == str(one.get("comment", comment))
        and all(other in groups and name in str(groups[other][2]).split(",") for other in others)
    )


def key_files(
    accounts: Iterable[Mapping[str, Any]],
    passwd: Mapping[str, Any],
    texts: Mapping[str, str | None] | None = None,
    exclusive: bool = False,
) -> list[dict[str, Any]]:
    """The folders and files that let the accounts' keys in, as `hakuriver_unlike` takes them; `texts` is what is there."""
    found = []
    for one in accounts:
        folder = f"{passwd[one['name']][4]}/.ssh"
        path = f"{folder}/authorized_keys"
        present = (texts or {}).get(path) or ""
        content = authorized_keys(present, one["ssh_keys"], bool(one.get("exclusive_keys", exclusive)))
        owned = {"owner": one["name"], "group": one.get("group") or one["name"]}
        found += [
            {"path": folder, "kind": "folder", "mode": "0700", **owned},
            {"path": path, "kind": "file", "mode": "0600", "content": content, **owned},
        ]
    return found


def repeated_accounts(accounts: Iterable[Mapping[str, Any]]) -> list[Problem]:
    """Names and numbers that a list of accounts gives twice, among those that are to be there."""
    present = [one for one in accounts if one.get("state", "present") == "present"]
    found = []
    for key in ("name", "uid"):
        values = [str(one[key]) for one in present if one.get(key) not in {None, ""}]
        found += [
            {
                "what": f"users_accounts has the {key} {value} more than once",
                "hint": "give each account a name and a uid of its own",
            }
            for value in sorted({value for value in values if values.count(value) > 1})
        ]
    return found


def authorized_keys(present: str, wanted: Iterable[str], exclusive: bool = False) -> str:
    """The text of an authorized_keys file with the wanted keys in it.

    Two lines hold one key when their type and body agree: options and comment become those wanted. Lines of others stay
    as they are, in their place, unless `exclusive`.
    """
    ours = {_body(key): key.strip() for key in wanted if key.strip()}
    lines = []
    for line in present.splitlines():
        body = _body(line)
        if body in ours:
            lines.append(ours.pop(body))
        elif not exclusive:
            lines.append(line)
    text = "\n".join([*lines, *ours.values()])
    return f"{text}\n" if text else ""


def _body(line: str) -> str:
    """Type and body of a key: what identifies it. A comment's body is the comment itself."""
    words = line.split()
    for at, word in enumerate(words[:-1]):
        if word.startswith(("ssh-", "ecdsa-", "sk-ssh-", "sk-ecdsa-")) and words[at + 1].startswith("AAAA"):
            return f"{word} {words[at + 1]}"
    return line.strip()


class FilterModule:
    """The filters that Ansible finds here."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "hakuriver_account_problems": account_problems,
            "hakuriver_accounts_unlike": accounts_unlike,
            "hakuriver_key_files": key_files,
            "hakuriver_repeated_accounts": repeated_accounts,
            "hakuriver_authorized_keys": authorized_keys,
        }
