"""Finding the inventory, and reading it: by Ansible itself, so that nothing is understood in another way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hakuriver.errors import NotFoundError

VARIABLE = "HAKURIVER_INVENTORY"
DEFAULT = Path("~/.hakuriver/cluster")
HOSTS_FILE = "hosts.yml"
CONTROLLER = ".hakuriver"
HOST_GROUP = "hakuriver_host"
RUNNER_GROUP = "hakuriver_runners"
_YAML = {".yml", ".yaml", ""}


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine of the inventory."""

    name: str
    address: str
    is_host: bool
    is_runner: bool
    variables: Mapping[str, Any] = field(default_factory=dict)

    @property
    def node(self) -> str:
        """The name that its Runner has at the Host."""
        return str(self.variables.get("hakuriver_node_name") or self.name)


def locate(given: Path | None, environment: Mapping[str, str], cwd: Path, home: Path) -> Path:
    """The inventory's file, or its folder when it has no hosts.yml. Raises NotFoundError when there is none."""
    if given is not None:
        return _existing(given.expanduser().absolute())
    if named := environment.get(VARIABLE):
        return _existing(Path(named).expanduser().absolute())
    for path in (cwd / HOSTS_FILE, cwd / "inventory", home / DEFAULT.relative_to("~")):
        if path.exists():
            return _existing(path)
    raise NotFoundError(
        f"there is no inventory: neither ./{HOSTS_FILE} nor ./inventory nor {DEFAULT}",
        f"write one with `hakuriver cluster init`, or name one with --inventory or {VARIABLE}",
    )


def folder(inventory: Path) -> Path:
    """Where group_vars lie, and our own folder."""
    return inventory if inventory.is_dir() else inventory.parent


def controller(inventory: Path) -> Path:
    """Our own folder beside the inventory, for its owner alone; made when it is missing."""
    path = folder(inventory) / CONTROLLER
    path.mkdir(mode=0o700, exist_ok=True)
    return path


def flaws(inventory: Path) -> list[str]:
    """The files of the inventory that are no YAML: where, and why."""
    from hakuriver_cli.deploy.inventory_text import flaw  # noqa: PLC0415  (needs YAML)

    base = folder(inventory)
    found = []
    for path in (inventory, *sorted(base.glob("group_vars/**/*")), *sorted(base.glob("host_vars/**/*"))):
        if path.is_file() and path.suffix in _YAML:
            why = flaw(path.read_text("utf-8", "replace"))
            found += [f"{path.relative_to(base)}, {why}"] if why else []
    return found


def machines(listing: Mapping[str, Any]) -> list[Machine]:
    """The machines of HakuRiver in what `ansible-inventory --list` prints."""
    hosts, runners = _members(listing, HOST_GROUP), _members(listing, RUNNER_GROUP)
    variables = listing.get("_meta", {}).get("hostvars", {})
    found = []
    for name in dict.fromkeys([*hosts, *runners]):
        own = variables.get(name, {})
        address = str(own.get("ansible_host") or name)
        found.append(Machine(name, address, name in hosts, name in runners, own))
    return found


def host_url(found: list[Machine]) -> str:
    """Where the Host answers, as the playbooks set it up; empty when the inventory names none."""
    host = next((machine for machine in found if machine.is_host), None)
    if host is None:
        return ""
    address = host.variables.get("hakuriver_host_address") or host.address
    port = host.variables.get("hakuriver_host_port") or 8000
    return f"{'https' if _is_true(host.variables.get('hakuriver_tls', True)) else 'http'}://{address}:{port}"


def _existing(path: Path) -> Path:
    if not path.exists():
        raise NotFoundError(f"there is no inventory {path}", "write one with `hakuriver cluster init`")
    inside = path / HOSTS_FILE
    return inside if path.is_dir() and inside.is_file() else path


def _members(listing: Mapping[str, Any], group: str) -> list[str]:
    """The machines of a group and of all that are below it."""
    found: list[str] = []
    waiting, seen = [group], set()
    while waiting:
        name = waiting.pop(0)
        if name in seen:
            continue
        seen.add(name)
        entry = listing.get(name, {})
        found += entry.get("hosts", [])
        waiting += entry.get("children", [])
    return list(dict.fromkeys(found))


def _is_true(value: Any) -> bool:
    return value is True or str(value).lower() in {"true", "yes", "on", "1"}
