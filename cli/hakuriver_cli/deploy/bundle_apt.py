"""Which Debian packages a bundle takes along, and how apt is asked for them: pure, `bundle` runs it.

apt finds out what is needed on a machine that has nothing but what every installation has; of the machine that makes the
bundle it uses the package sources alone, and those only for nodes like it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote

PACKAGES = ("docker.io", "apparmor", "python3-venv", "nfs-common", "ca-certificates", "iptables")
"""What the roles install with their defaults on a Runner."""
SERVER_PACKAGES = ("nfs-kernel-server",)
"""What the server of the share that `cluster init` proposes needs besides: no other machine is to serve anything."""
_URI = re.compile(r"^'[^']+' (?P<file>\S+\.deb) \d+", re.MULTILINE)
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True)
class Release:
    """A release that nodes may have, and where its packages are."""

    archive: str
    security: str
    components: str
    keyring: str
    keyring_package: str
    more: tuple[str, ...] = ()
    """What the roles install there besides."""
    other_archive: str = ""
    """For other machines than x86_64, where they are elsewhere."""


_DEBIAN = Release(
    archive="http://deb.debian.org/debian",
    security="http://deb.debian.org/debian-security",
    components="main",
    keyring="/usr/share/keyrings/debian-archive-keyring.gpg",
    keyring_package="debian-archive-keyring",
)
_UBUNTU = Release(
    archive="http://archive.ubuntu.com/ubuntu",
    security="http://security.ubuntu.com/ubuntu",
    components="main universe",
    keyring="/usr/share/keyrings/ubuntu-archive-keyring.gpg",
    keyring_package="ubuntu-archive-keyring or ubuntu-keyring",
    other_archive="http://ports.ubuntu.com/ubuntu-ports",
)
RELEASES = {
    "bookworm": _DEBIAN,
    "trixie": replace(_DEBIAN, more=("docker-cli",)),
    "jammy": replace(_UBUNTU, more=("python3.11", "python3.11-venv")),
    "noble": _UBUNTU,
}


def wanted(release: str, extra: Iterable[str]) -> list[str]:
    """The packages to ask for; of a release that the roles do not know, those of all."""
    known = RELEASES.get(release)
    return [*PACKAGES, *(known.more if known else ()), *extra]


def sources(name: str, machine: str) -> str:
    """The file that tells apt where the packages of a release are."""
    release = RELEASES[name]
    elsewhere = machine != "x86_64" and release.other_archive
    archive = release.other_archive if elsewhere else release.archive
    security = release.other_archive if elsewhere else release.security
    places = ((archive, name), (archive, f"{name}-updates"), (security, f"{name}-security"))
    return "".join(
        f"deb [signed-by={release.keyring}] {url} {suite} {release.components}\n" for url, suite in places
    )


def folders() -> list[str]:
    """What has to be in the folder that `options` names, besides an empty file `status`."""
    return ["lists/partial", "cache/archives/partial"]


def options(root: Path, machine: str, *, own_sources: bool) -> list[str]:
    """Makes apt look at a machine that has nothing; unless `own_sources`, by the sources below `root`."""
    found = {
        "Dir::State::status": str(root / "status"),
        # apt would leave out what it has fetched before.
        "Dir::Cache::archives": str(root / "cache" / "archives"),
        # It cannot give up root's rights in a folder that is root's alone.
        "APT::Sandbox::User": "",
    }
    if not own_sources:
        architecture = _ARCHITECTURES[machine]
        found |= {
            "Dir::Etc::SourceList": str(root / "sources.list"),
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::State::Lists": str(root / "lists"),
            "Dir::Cache": str(root / "cache"),
            "APT::Architecture": architecture,
            "APT::Architectures": architecture,
        }
    return [word for name, value in found.items() for word in ("-o", f"{name}={value}")]


def update(given: list[str]) -> list[str]:
    return ["apt-get", "--quiet", "--error-on=any", "update", *given]


def closure(packages: Iterable[str], given: list[str]) -> list[str]:
    """Asks for the packages and all that they need."""
    return ["apt-get", "install", "--print-uris", "--yes", "--no-install-recommends", *given, *packages]


def files_of(printed: str) -> list[tuple[str, str]]:
    """Names and versions in what `closure` prints."""
    return [(name, version) for name, version in map(_name_and_version, _URI.findall(printed)) if version]


def available(given: list[str]) -> list[str]:
    """Asks for all packages that there are."""
    return ["apt-cache", "dumpavail", *given]


def required(printed: str) -> list[str]:
    """Those of `available` that every installation has: what they need, need not travel."""
    found = set()
    for stanza in printed.split("\n\n"):
        if "\nPriority: required" not in stanza and "\nEssential: yes" not in stanza:
            continue
        fields = dict(line.split(": ", 1) for line in stanza.splitlines() if ": " in line and line[0] != " ")
        if fields.get("Priority") == "required" or fields.get("Essential") == "yes":
            found.add(fields["Package"])
    return sorted(found)


def fetch(packages: Iterable[tuple[str, str]], given: list[str]) -> list[str]:
    """Downloads packages into the current folder."""
    return ["apt-get", "download", *given, *(f"{name}={version}" for name, version in packages)]


def _name_and_version(file: str) -> tuple[str, str]:
    name, version, *_ = [*file.split("_"), ""]
    return name, unquote(version)
