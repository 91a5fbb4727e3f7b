"""Which packages are installed in a container, where its package managers tell: for `env diff`.

Databases are read as files, which works in a stopped container too: dpkg's `status` (deb822, dpkg(1)) and apk's
`installed` (Alpine's `P:` and `V:` lines). Python's packages are asked of the container's own pip, where it runs.
"""

from __future__ import annotations

import json
from contextlib import suppress

from hakuriver.errors import HakuRiverError
from hakuriver.models.environments import Packages
from hakuriver_host.services.environments.engine import EnvContainer, HostEngine

_PIP = ["python3", "-m", "pip", "list", "--format=json", "--disable-pip-version-check"]


def installed(engine: HostEngine, container: EnvContainer) -> Packages | None:
    """By package manager; none when there is none that tells."""
    found: Packages = {}
    with suppress(HakuRiverError):
        if (status := engine.read_file(container, "/var/lib/dpkg/status")) is not None:
            found["apt"] = of_dpkg(status.decode("utf-8", "replace"))
        if (database := engine.read_file(container, "/lib/apk/db/installed")) is not None:
            found["apk"] = of_apk(database.decode("utf-8", "replace"))
        if container.state == "running":
            code, output = engine.execs(container).run(_PIP)
            if code == 0:
                found["pip"] = of_pip(output)
    return found or None


def of_dpkg(status: str) -> dict[str, str]:
    """Names and versions of the installed packages in dpkg's status file."""
    found = {}
    for paragraph in status.split("\n\n"):
        fields = dict(
            line.split(": ", 1)
            for line in paragraph.splitlines()
            if ": " in line and not line.startswith(" ")
        )
        if fields.get("Status", "").endswith(" installed") and {"Package", "Version"} <= fields.keys():
            found[fields["Package"]] = fields["Version"]
    return found


def of_apk(database: str) -> dict[str, str]:
    """The same of apk's database."""
    found = {}
    for paragraph in database.split("\n\n"):
        fields = dict(line.split(":", 1) for line in paragraph.splitlines() if ":" in line)
        if {"P", "V"} <= fields.keys():
            found[fields["P"]] = fields["V"]
    return found


def of_pip(output: bytes) -> dict[str, str]:
    """The same of `pip list --format=json`."""
    try:
        return {str(each["name"]): str(each["version"]) for each in json.loads(output)}
    except (ValueError, KeyError, TypeError):
        return {}
