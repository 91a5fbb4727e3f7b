"""What the playbook `check` finds on a machine: where it is not as the inventory says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

FREE_MB = 200
"""With less room than this for its state, a daemon is close to standing still."""


def read_facts(lines: Iterable[str]) -> dict[str, str]:
    """Lines such as `version=0.1.0-abc`; others are left out."""
    return dict(line.split("=", 1) for line in lines if "=" in line)


def findings(machine: Mapping[str, str], host: Mapping[str, str], wanted: Mapping[str, Any]) -> list[str]:
    """One sentence for each thing that is wrong, without the machine's name; empty when all is well.

    `machine` and `host` are what tasks/check.yml has read of this machine and of the Host's. `wanted` has `daemons`
    (`host`, `runner`: a list), `differs` (paths of files that are not what the inventory says), `stale` (daemons
    that run with something else than their files have), `share`, `state_dir`, `tls`, `docker` (an engine shall run) and
    `open` (the firewall's rules shall be loaded, and are not).
    """
    return [
        *_installation(machine, host),
        *_share(machine, host, wanted["share"]),
        *_room(machine, wanted["state_dir"]),
        *(
            ["the CA of the cluster is missing, or ends within two weeks"]
            if _ends(machine, "ca", wanted)
            else []
        ),
        *(found for daemon in wanted["daemons"] for found in _daemon(machine, daemon, wanted)),
        *(_engine(machine) if wanted["docker"] else []),
        *(["the firewall's rules are not loaded"] if wanted["open"] else []),
        *(f"{path} is not what the inventory says" for path in wanted["differs"]),
    ]


def account_findings(
    wanted: Iterable[Mapping[str, Any]], absent: Iterable[Mapping[str, Any]], passwd: Mapping[str, Any]
) -> list[str]:
    """Accounts that are missing, have another uid, or are there though they shall not be.

    `passwd` is what `getent` tells: name to fields, of which the second is the uid.
    """
    found = []
    for one in wanted:
        name, uid = str(one["name"]), str(one["uid"])
        if name not in passwd:
            found.append(f"there is no account {name}")
        elif str(passwd[name][1]) != uid:
            found.append(f"the account {name} has the uid {passwd[name][1]}, not {uid}")
    return found + [f"the account {one['name']} is still there" for one in absent if one["name"] in passwd]


def node_findings(node: Mapping[str, Any] | None, name: str) -> list[str]:
    """What the Host says against the node: `node` is its line of `hakuriver node list -o json`."""
    if not node:
        return [f"the Host does not know a node {name}"]
    return [
        *([f"the Host has it as {node['status']}"] if node["status"] != "online" else []),
        *([str(node["problem"])] if node.get("problem") else []),
        *(["is cordoned"] if node.get("cordoned") else []),
    ]


def _installation(machine: Mapping[str, str], host: Mapping[str, str]) -> list[str]:
    version, hosts = machine.get("version"), host.get("version")
    if not version:
        return ["HakuRiver is not installed"]
    if not hosts or _common(version) == _common(hosts):
        return []
    return [f"has version {version}, and the Host has {hosts}"]


def _common(version: str) -> list[str]:
    """Version and digest of what all machines install; what follows is of the machine's own Python and packages."""
    return version.split("-")[:2]


def _share(machine: Mapping[str, str], host: Mapping[str, str], share: str) -> list[str]:
    marker, hosts = machine.get("marker"), host.get("marker")
    if not marker:
        return [f"the share at {share} is not mounted, does not answer, or is not marked by the Host"]
    return [f"{share} is another share than the Host has"] if hosts and marker != hosts else []


def _room(machine: Mapping[str, str], state_dir: str) -> list[str]:
    free = machine.get("free", "").strip()
    if not free.isdigit() or int(free) > FREE_MB:
        return []
    return [f"only {free} MB are free for {state_dir}"]


def _engine(machine: Mapping[str, str]) -> list[str]:
    state = machine.get("docker", "")
    return (
        []
        if state == "active/enabled"
        else [f"docker.service is {state.strip('/') or 'not there'}, not active/enabled"]
    )


def _daemon(machine: Mapping[str, str], daemon: str, wanted: Mapping[str, Any]) -> list[str]:
    unit = f"hakuriver-{daemon}"
    state, version = machine.get(unit, ""), machine.get(f"{unit}-version", "")
    found = []
    if state != "active/enabled":
        found.append(f"{unit}.service is {state.strip('/') or 'not there'}, not active/enabled")
    elif version != machine.get("version"):
        found.append(f"{unit}.service still runs {version}")
    elif daemon in wanted["stale"]:
        found.append(f"{unit}.service runs with other settings than its files have")
    if machine.get(f"{unit}-reload") == "yes":
        found.append(f"systemd has not read the new {unit}.service")
    if _ends(machine, daemon, wanted):
        found.append(f"the certificate of the {daemon.capitalize()} is missing, or ends within two weeks")
    return found


def _ends(machine: Mapping[str, str], role: str, wanted: Mapping[str, Any]) -> bool:
    return bool(wanted["tls"]) and not machine.get(f"{role}-ends")


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {
            "hakuriver_read_facts": read_facts,
            "hakuriver_findings": findings,
            "hakuriver_node_findings": node_findings,
            "hakuriver_account_findings": account_findings,
        }
