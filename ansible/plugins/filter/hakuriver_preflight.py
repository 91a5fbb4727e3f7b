"""What preflight makes of what the machines told: problems and remarks, of each alone and among them. Pure.

A problem is `{"what": ..., "hint": ...}`: one line of what is wrong, one of what to do. `told` is what
`roles/preflight/files/probe.py` prints; `wanted` is what the role's defaults say.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Any

Problem = dict[str, str]
Told = Mapping[str, Any]

_SUPPORTED = {"debian": ("12", "13"), "ubuntu": ("22.04", "24.04")}
_SUPPORTED_WORDS = "Debian 12 and 13, Ubuntu 22.04 and 24.04"
_FEW_FILES = 1000
_CLOCK = re.compile(r"clock (\d+(?:\.\d+)?) (\d+(?:\.\d+)?) (\d+)")


def node_problems(told: Told, wanted: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with one machine."""
    return [
        *_system(told, wanted),
        *_python(told, wanted),
        *docker_problems(told, wanted),
        *_node(told, wanted),
        *_ports(told, wanted),
        *_folders(told, wanted),
        *_share(told, wanted),
        *_accounts(told, wanted),
        *_names(told, wanted),
    ]


def node_remarks(told: Told, wanted: Mapping[str, Any]) -> list[str]:
    """What an admin should know of one machine, and what hinders nothing."""
    system, cgroup, gpu = told["system"], told["cgroup"], told["gpu"]
    found = []
    if _support(system) == "like":
        found.append(f"{system['name']} is not tested: the roles support {_SUPPORTED_WORDS}")
    if not cgroup["memory"]:
        found.append(
            f"cgroup version {cgroup['version']} without memory: tasks' memory limits are not kept"
            " (kernel: cgroup_enable=memory)"
        )
    if gpu["count"] and not gpu["driver"]:
        found.append(f"it has {gpu['count']} NVIDIA GPU(s), and no driver is loaded: see the role nvidia")
    if not told["python"]["path"]:
        found.append(f"{wanted['python']} is not there yet and is to be installed")
    return found


def _system(told: Told, wanted: Mapping[str, Any]) -> list[Problem]:
    found = []
    if told["init"] != "systemd" or not told["systemd"]:
        found.append(
            _problem(
                f"systemd is not its process 1 ({told['init'] or 'unknown'} is)",
                "use a machine that systemd runs, or start the daemons there by hand: `hakuriver host`, `hakuriver runner`",
            )
        )
    system = told["system"]
    if _support(system) == "no" and not wanted.get("any_system"):
        found.append(
            _problem(
                f"{system['name'] or 'its system'} is not supported",
                f"use {_SUPPORTED_WORDS}; preflight_any_system: true tries it all the same",
            )
        )
    if told["memory_mb"] < wanted["memory_mb"]:
        found.append(
            _problem(
                f"it has {told['memory_mb']} MB of memory, and {wanted['memory_mb']} MB are asked for",
                "use a larger machine, or set preflight_memory_mb",
            )
        )
    return found


def _support(system: Mapping[str, Any]) -> str:
    """`yes`, `like` (a relative of what is supported) or `no`."""
    name, version = str(system["id"]), str(system["version"])
    if name in _SUPPORTED:
        return "yes" if version in _SUPPORTED[name] else "no"
    likes = str(system["like"]).split()
    return "like" if {"rhel", "fedora", "debian", "ubuntu"} & {name, *likes} else "no"


def _python(told: Told, wanted: Mapping[str, Any]) -> list[Problem]:
    found, program = told["python"], wanted["python"]
    if not found["path"]:
        if wanted.get("python_may_come"):
            return []
        return [
            _problem(
                f"there is no {program}, and nothing here can install it",
                "install Python 3.11 or later there, and name it in hakuriver_install_python",
            )
        ]
    if _version(found["version"]) < (3, 11):
        return [
            _problem(
                f"{found['path']} is Python {found['version'] or '?'}; the daemons need 3.11 or later",
                "install a newer one beside it, and name it in hakuriver_install_python",
            )
        ]
    return []


def docker_problems(told: Told, wanted: Mapping[str, Any]) -> list[Problem]:
    """What stands in the place of the engine."""
    if not wanted["docker"]:
        return []
    docker = told["docker"]
    if docker["kind"] == "snap":
        return [
            _problem(
                "its `docker` is the snap, which cannot see all folders",
                "`snap remove docker`, and start this again: the role docker installs the engine",
            )
        ]
    if docker["kind"] == "podman" or docker["podman_socket"]:
        return [
            _problem(
                "its `docker` is podman's imitation, not the Docker engine",
                "remove the package podman-docker and disable podman.socket, and start this again",
            )
        ]
    if docker["rootless"] and not docker["engine"]:
        return [
            _problem(
                f"its Docker runs rootless, for one user alone ({docker['rootless'][0]})",
                "`dockerd-rootless-setuptool.sh uninstall` as that user, and start this again",
            )
        ]
    return []


def _node(told: Told, wanted: Mapping[str, Any]) -> list[Problem]:
    """A machine that is a node keeps its name: with another one its Runner would leave its tasks and come as a stranger."""
    if told["node"] in {"", wanted["node"]}:
        return []
    return [
        _problem(
            f"it is the node `{told['node']}` already, and not `{wanted['node']}`",
            f"correct ansible_host or hakuriver_node_name; or `hakuriver cluster remove-node {told['node']}` first,"
            " and where that node is gone already, remove runner.toml there",
        )
    ]


def _ports(told: Told, wanted: Mapping[str, Any]) -> list[Problem]:
    found = []
    for port, ours in wanted["ports"].items():
        holder = told["ports"].get(str(port))
        # A program's name or folder says nothing: a daemon that somebody started by hand stays in the way of the unit.
        if holder is None or holder["unit"] in ours["units"]:
            continue
        who = holder["program"] or "a process that cannot be seen"
        pid = f" (pid {holder['pid']})" if holder["pid"] else ""
        unit = f" of {holder['unit']}" if holder["unit"] else ""
        found.append(
            _problem(
                f"port {port} is taken by {who}{pid}{unit}",
                f"end that program, or {ours['way_out']}",
            )
        )
    return found


def _folders(told: Told, wanted: Mapping[str, Any]) -> list[Problem]:
    found = []
    for name, least in wanted["free_mb"].items():
        folder = told["folders"].get(name)
        if folder is None:
            continue
        path, place = folder["path"], folder["place"]
        if folder["error"]:
            found.append(
                _problem(f"{path} cannot be used: {place}: {folder['error']}", "remove what is in its place")
            )
        elif folder["read_only"]:
            found.append(
                _problem(
                    f"{path} lies on a file system that can only be read ({place})",
                    "mount it for writing, or set another folder; `dmesg` tells of a damaged disk",
                )
            )
        elif folder["free_mb"] < least:
            found.append(
                _problem(
                    f"{path} has {folder['free_mb']} MB free, and {least} MB are asked for ({name})",
                    f"make room on {place}, or set preflight_free_{name}_mb",
                )
            )
        elif folder["free_files"] is not None and folder["free_files"] < _FEW_FILES:
            found.append(
                _problem(
                    f"{path} has room for {folder['free_files']} more files only",
                    f"remove small files on {place}: `df -i`",
                )
            )
    return found


def _share(told: Told, wanted: Mapping[str, Any]) -> list[Problem]:
    """Only a share that somebody else mounts is judged here; the others are yet to come."""
    share = told.get("share")
    if not share:
        return []
    path = share["path"]
    if share["hangs"]:
        return [
            _problem(
                f"the share {path} does not answer", "see to its storage server, or unmount it: `umount -l`"
            )
        ]
    if share.get("stale"):
        return [_problem(f"the share {path} is stale", "unmount it (`umount -l`) and mount it again")]
    if not wanted["share_exists"]:
        return []
    if share["error"]:
        return [
            _problem(
                f"the share {path} cannot be read: {share['error']}",
                "mount it there, or let the role do it: shared_storage_type",
            )
        ]
    if not wanted["alone"] and share["mount"]["point"] in {"", "/"}:
        return [
            _problem(
                f"nothing is mounted at {path}, and shared_storage_type is `existing`",
                "mount the share there, or let the role do it: shared_storage_type",
            )
        ]
    if share["read_only"] or not share["writable"]:
        return [
            _problem(
                f"the share {path} can only be read there",
                f"export and mount it for writing ({share['mount']['source'] or 'see `findmnt`'})",
            )
        ]
    return []


def _accounts(told: Told, wanted: Mapping[str, Any]) -> list[Problem]:
    """Numbers that shall be the same on all machines and are somebody else's on this one, and who is nobody there."""
    found, user = [], wanted["runner_user"]
    # None where it has nothing to run, or where the name service did not answer.
    if told["account"] is False and user not in {one["name"] for one in wanted["accounts"]}:
        found.append(
            _problem(
                f"there is no account {user}, which the Runner is to run as",
                "correct hakuriver_runner_user, or make the account, by users_accounts or yourself",
            )
        )
    for one in wanted["accounts"]:
        given = "hakuriver_uid and hakuriver_gid" if one.get("is_service") else "its entry in users_accounts"
        found += _number("uid", one["name"], one.get("uid"), told["passwd"], given)
        found += _number("gid", one.get("group") or one["name"], one.get("gid"), told["group"], given)
    return found


def _number(kind: str, name: str, number: Any, table: Mapping[str, int], given: str) -> list[Problem]:
    """`given` says where the number comes from."""
    if number in {None, ""}:
        return []
    other = [one for one, has in table.items() if has == int(number) and one != name]
    if other:
        return [
            _problem(
                f"the {kind} {number} of {name} is {other[0]}'s there",
                f"choose one that is free on all machines: {given}",
            )
        ]
    if name in table and table[name] != int(number):
        return [
            _problem(
                f"{name} has the {kind} {table[name]} there, not {number}",
                f"set {given} to what it has there, for all machines, or change it there and chown its files",
            )
        ]
    return []


def _names(told: Told, wanted: Mapping[str, Any]) -> list[Problem]:
    found = []
    for answer in told["resolve"]:
        if answer is None:
            found.append(
                _problem("its name service does not answer", "see `resolvectl status` and /etc/resolv.conf")
            )
        elif answer["error"]:
            found.append(
                _problem(
                    f"it cannot resolve {answer['name']}",
                    "correct DNS or /etc/hosts there, or give an IP address (hakuriver_host_address, ansible_host)",
                )
            )
        elif (
            answer["name"] == wanted["host_address"]
            and not wanted["is_host"]
            and _all_loopback(answer["addresses"])
        ):
            found.append(
                _problem(
                    f"the Host's address {answer['name']} is {answer['addresses'][0]} there, which is itself",
                    "correct /etc/hosts there, or set hakuriver_host_address to an address that all machines reach",
                )
            )
    return found


def _all_loopback(addresses: list[str]) -> bool:
    return bool(addresses) and all(one.startswith("127.") or one == "::1" for one in addresses)


def cluster_problems(
    nodes: Mapping[str, Mapping[str, Any]], me: str, limits: Mapping[str, Any]
) -> list[Problem]:
    """What is wrong with one machine when it is seen beside the others.

    `nodes` gives of each machine that was asked: `told`, and `skew` as `skew` finds it.
    """
    return [*_clock(nodes, me, limits["clock"]), *_one_machine(nodes, me), *_paths(nodes, me, limits)]


def cluster_remarks(nodes: Mapping[str, Mapping[str, Any]], me: str) -> list[str]:
    """Machines made from one image: harmless here, and a trap for DHCP and logs."""
    mine = nodes[me]["told"]
    twins = [
        name
        for name, node in nodes.items()
        if name != me and mine["machine_id"] and node["told"]["machine_id"] == mine["machine_id"]
        if node["told"]["identity"] != mine["identity"]
    ]
    if not twins:
        return []
    return [f"its /etc/machine-id is also that of {', '.join(sorted(twins))}: it was copied with the disk"]


def skew(answers: Iterable[str]) -> list[float]:
    """Between which seconds a node's clock is ahead of the controller's.

    Each answer has a line `clock SENT THERE UID`: the controller's clock when it asked, and the node's. When the second
    was asked, the first had been answered: that bounds it from both sides.
    """
    pairs = [(float(found[1]), float(found[2])) for found in map(_CLOCK.search, answers) if found]
    high = min(there - sent for sent, there in pairs)
    low = max(there - sent for (_, there), (sent, _) in pairwise(pairs))
    return [low, high]


def user_of(answer: str) -> str:
    """The number of the user that answered; empty when it did not."""
    found = _CLOCK.search(answer)
    return found[3] if found else ""


def _surely(low: float, high: float) -> float:
    """By how much two clocks differ for certain; negative is behind."""
    return low if low > 0 else min(high, 0.0)


def _clock(nodes: Mapping[str, Mapping[str, Any]], me: str, limit: float) -> list[Problem]:
    skews = {name: (float(node["skew"][0]), float(node["skew"][1])) for name, node in nodes.items()}
    low, high = skews[me]
    apart = _surely(low, high)
    if abs(apart) > limit:
        side = "ahead of" if apart > 0 else "behind"
        return [
            _problem(
                f"its clock is {abs(apart):.0f} s {side} that of the machine that Ansible runs on (limit: {limit:g} s)",
                "set both by a time service: `timedatectl set-ntp true`, or chrony",
            )
        ]
    found = []
    for other in sorted(set(nodes) - {me}):
        theirs = skews[other]
        between = _surely(low - theirs[1], high - theirs[0])
        if abs(between) > limit and abs(_surely(*theirs)) <= limit:
            found.append(
                _problem(
                    f"its clock and that of {other} are {abs(between):.0f} s apart (limit: {limit:g} s)",
                    "set both by a time service: `timedatectl set-ntp true`, or chrony",
                )
            )
    return found


def _one_machine(nodes: Mapping[str, Mapping[str, Any]], me: str) -> list[Problem]:
    mine = nodes[me]["told"]["identity"]
    others = sorted(name for name in nodes if name != me and nodes[name]["told"]["identity"] == mine)
    if not others or not mine.strip():
        return []
    return [
        _problem(
            f"{me} and {', '.join(others)} are one and the same machine",
            "keep one of the names in the inventory, or correct ansible_host",
        )
    ]


def _paths(nodes: Mapping[str, Mapping[str, Any]], me: str, limits: Mapping[str, Any]) -> list[Problem]:
    """Whether what this machine calls can be reached from it. A refusal is an answer: nobody listens there yet."""
    found = []
    for path in nodes[me]["told"]["connect"]:
        answer, where = path["answer"], f"{path['name']} at {path['address']}:{path['port']}"
        listens = nodes.get(path["name"], {}).get("told", {}).get("ports", {}).get(str(path["port"]))
        if answer in {"open", "unknown name"}:
            continue
        if path["outside"]:
            found.append(
                _problem(
                    f"it cannot reach the storage server {where}: {answer}",
                    "start the service there and let this machine in, or correct the storage servers in the inventory",
                )
            )
        elif answer == "refused" and not listens:
            continue
        elif answer == "refused":
            reason = "it listens on 127.0.0.1 alone" if listens["loopback"] else "a firewall refuses it"
            found.append(
                _problem(
                    f"it cannot reach {where}: refused, although something listens there",
                    f"{reason}: see the firewall and the address that {path['name']} listens on",
                )
            )
        elif answer == "no way":
            found.append(
                _problem(
                    f"it has no way to {where}",
                    f"check routes, and the address of {path['name']} in the inventory",
                )
            )
        elif not limits["may_open"]:
            found.append(
                _problem(
                    f"it gets no answer from {where}",
                    f"open TCP port {path['port']} for it in the firewalls of {path['name']} and between the two",
                )
            )
    return found


def escalation_problem(said: str, rc: int = 1) -> Problem:
    """Why becoming root failed, from what Ansible or sudo said."""
    for pattern, what, hint in _ESCALATION:
        if re.search(pattern, said, re.IGNORECASE):
            return _problem(what, hint)
    last = next((line.strip() for line in reversed(said.splitlines()) if line.strip()), f"exit code {rc}")
    return _problem(f"a command as root failed: {last[:200]}", "try `sudo id` there by hand")


_ESCALATION = (
    (
        r"missing .{0,10}password|password is required|no password was provided|a terminal is required",
        "sudo asks for a password, and none was given",
        "use --ask-become-pass, keep ansible_become_password in a vault, or allow sudo without one",
    ),
    (
        r"incorrect .{0,10}password|sorry, try again|authentication failure",
        "the sudo password is wrong",
        "try again with --ask-become-pass, or correct ansible_become_password in the vault",
    ),
    (
        r"not in the sudoers|not allowed to (execute|run)|may not run sudo",
        "its login may not use sudo",
        "add it to the group sudo there, or set ansible_user to one that may",
    ),
    (
        r"sudo: (command )?not found|sudo: No such file|failed to find (required )?executable.*sudo",
        "there is no sudo",
        "install it (`apt-get install sudo`), or log in as root: ansible_user: root, ansible_become: false",
    ),
    (
        r"waiting for (privilege escalation|become)|timed? ?out",
        "sudo did not answer in time",
        "try `sudo -v` there: a wrong password or a slow name service are the usual reasons",
    ),
)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:2])


def _problem(what: str, hint: str) -> Problem:
    return {"what": what, "hint": hint}


class FilterModule:
    """The filters that Ansible finds here."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "hakuriver_node_problems": node_problems,
            "hakuriver_docker_problems": docker_problems,
            "hakuriver_node_remarks": node_remarks,
            "hakuriver_cluster_problems": cluster_problems,
            "hakuriver_cluster_remarks": cluster_remarks,
            "hakuriver_escalation_problem": escalation_problem,
            "hakuriver_skew": skew,
            "hakuriver_user_of": user_of,
        }
