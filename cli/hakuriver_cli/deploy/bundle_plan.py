"""What a bundle holds, and the commands that fill it: pure argument lists, which `bundle` runs."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.markers import Marker

WHEELS = "wheels"
PACKAGES = "packages"
SERVER = "server"
"""Below a release: what only the machine that serves the share installs."""
PYTHONS = ("3.11", "3.12", "3.13")
"""Those of the distributions that nodes may have."""
_SOURCE_ONLY = frozenset({"sdnotify"})
"""Published as source alone; they hold no compiled code, so any Python makes the wheel."""
_OLDEST_GLIBC, _NEWEST_GLIBC = 17, 35
"""The newest is that of the oldest supported distribution, Ubuntu 22.04."""
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Requirement:
    """One entry of a lock: name, version and hashes, and for which machines."""

    name: str
    text: str
    marker: str

    def is_for(self, environment: dict[str, str]) -> bool:
        return not self.marker or Marker(self.marker).evaluate(environment)


def bundle_variables(folder: Path) -> dict[str, object]:
    """The variables with which the playbooks install from a bundle. Each node takes its own distribution's packages."""
    found: dict[str, object] = {
        "hakuriver_install_source": "wheelhouse",
        "hakuriver_install_wheelhouse": str(folder / WHEELS),
    }
    if (folder / PACKAGES).is_dir():
        release = "{{ ansible_facts['distribution_release'] }}"
        found |= {
            "docker_source": "packages",
            "docker_package_dir": f"{folder / PACKAGES}/{release}",
            "shared_storage_package_dir": str(folder / PACKAGES),
        }
    return found


def requirements(lock: str) -> list[Requirement]:
    """The entries of a lock with hashes, as uv writes it."""
    found = []
    for entry in re.split(r"\n(?=[A-Za-z0-9])", lock):
        lines = [line for line in entry.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        if not lines or not (name := _NAME.match(lines[0])):
            continue
        head, _, marker = lines[0].removesuffix("\\").partition(";")
        hashes = [line.strip().removesuffix("\\").strip() for line in lines[1:]]
        found.append(Requirement(name[0].lower(), " ".join([head.strip(), *hashes]), marker.strip()))
    return found


def chosen(
    entries: Iterable[Requirement], python: str, machine: str
) -> tuple[list[Requirement], list[Requirement]]:
    """What a node with that Python needs: what there are wheels of, and what only source is published of."""
    environment = _environment(python, machine)
    wanted = [entry for entry in entries if entry.is_for(environment)]
    return (
        [entry for entry in wanted if entry.name not in _SOURCE_ONLY],
        [entry for entry in wanted if entry.name in _SOURCE_ONLY],
    )


def download(lock: Path, folder: Path, python: str, machine: str) -> list[str]:
    """Fetches wheels for another Python and maybe another machine than ours."""
    abi = f"cp{python.replace('.', '')}"
    words = [
        *_PIP,
        "download",
        "--dest",
        str(folder),
        "--no-deps",
        "--require-hashes",
        "--requirement",
        str(lock),
    ]
    words += ["--only-binary", ":all:", "--python-version", python, "--implementation", "cp"]
    for name in (abi, "abi3", "none"):
        words += ["--abi", name]
    for platform in _platforms(machine):
        words += ["--platform", platform]
    return words


def build(lock: Path, folder: Path) -> list[str]:
    """Makes wheels of what is published as source."""
    return [
        *_PIP,
        "wheel",
        "--wheel-dir",
        str(folder),
        "--no-deps",
        "--require-hashes",
        "--requirement",
        str(lock),
    ]


def own_wheel(checkout: Path, folder: Path) -> list[str]:
    """Makes our wheel from the repository."""
    return [*_PIP, "wheel", "--wheel-dir", str(folder), "--no-deps", str(checkout)]


def readme(version: str, pythons: Iterable[str], machine: str, releases: Iterable[str]) -> str:
    folders = ", ".join(f"`{PACKAGES}/{release}`" for release in releases)
    packages = (
        f"{folders}: Debian packages for nodes of these releases. A node takes those of its own,"
        f" and the machine that serves the share by NFS those in `{SERVER}` there.\n"
        if folders
        else "There are no Debian packages: nodes need Docker already.\n"
    )
    return (
        f"# HakuRiver {version}, to install without internet\n\n"
        f"`{WHEELS}` has HakuRiver and all that it needs, for {machine} and Python {', '.join(pythons)}.\n{packages}\n"
        "Check it: `sha256sum --check SHA256SUMS`. Install from it:\n\n"
        "    hakuriver cluster deploy --bundle THIS_FOLDER\n"
    )


def _environment(python: str, machine: str) -> dict[str, str]:
    return {
        "implementation_name": "cpython",
        "implementation_version": f"{python}.0",
        "os_name": "posix",
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": f"{python}.0",
        "python_version": python,
        "sys_platform": "linux",
        "extra": "",
    }


def _platforms(machine: str) -> Iterator[str]:
    yield f"manylinux2014_{machine}"
    for minor in range(_NEWEST_GLIBC, _OLDEST_GLIBC - 1, -1):
        yield f"manylinux_2_{minor}_{machine}"
    yield f"linux_{machine}"


_PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]
