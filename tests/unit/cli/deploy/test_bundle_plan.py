"""What a bundle takes from locks and from what apt prints."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from hakuriver_cli.deploy import bundle_apt, bundle_plan, content
from hakuriver_cli.deploy.bundle import sums

LOCK = """\
# This file was made by a program.
anyio==4.9.0 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
    # via starlette
sdnotify==0.3.2 \\
    --hash=sha256:cc
    # via hakuriver-cluster
backports-thing==1.0 ; python_full_version < '3.12' \\
    --hash=sha256:dd
uvloop==0.21.0 ; platform_machine == 'x86_64' and sys_platform != 'win32' \\
    --hash=sha256:ee
"""
PRINTED = """\
Reading package lists...
'http://deb.example/pool/d/docker.io_20.10%2bdfsg1-2_amd64.deb' docker.io_20.10%2bdfsg1-2_amd64.deb 123 SHA256:aa
'http://deb.example/pool/i/iptables_1%3a1.8.9-2_amd64.deb' iptables_1%3a1.8.9-2_amd64.deb 45 SHA256:bb
"""
SHOWN = """\
Package: docker.io
Priority: optional
Description: an engine
 Priority: required, says nobody

Package: libc6
Priority: optional
Essential: yes

Package: tar
Priority: required
"""


def names(entries: list[bundle_plan.Requirement]) -> list[str]:
    return [entry.name for entry in entries]


def test_a_lock_is_read_with_hashes_and_markers() -> None:
    found = bundle_plan.requirements(LOCK)
    assert names(found) == ["anyio", "sdnotify", "backports-thing", "uvloop"]
    assert found[0].text == "anyio==4.9.0 --hash=sha256:aa --hash=sha256:bb"
    assert found[2].text == "backports-thing==1.0 --hash=sha256:dd"
    assert found[2].marker == "python_full_version < '3.12'"


@pytest.mark.parametrize(
    ("python", "machine", "ready"),
    [
        ("3.11", "x86_64", ["anyio", "backports-thing", "uvloop"]),
        ("3.12", "x86_64", ["anyio", "uvloop"]),
        ("3.13", "aarch64", ["anyio"]),
    ],
)
def test_a_node_gets_what_its_python_and_machine_need(python: str, machine: str, ready: list[str]) -> None:
    found, source = bundle_plan.chosen(bundle_plan.requirements(LOCK), python, machine)
    assert names(found) == ready
    assert names(source) == ["sdnotify"]


@pytest.mark.parametrize("lock", ["runtime", "pip"])
def test_our_own_locks_are_understood(lock: str) -> None:
    text = content.lock_file(lock).read_text("utf-8")
    found = bundle_plan.requirements(text)
    assert len(found) == sum("==" in line for line in text.splitlines() if line[:1].isalnum())
    assert all("--hash=sha256:" in entry.text for entry in found)


def test_wheels_are_fetched_by_their_hashes_for_another_python() -> None:
    words = bundle_plan.download(Path("/lock"), Path("/wheels"), "3.12", "aarch64")
    assert {"--require-hashes", "--no-deps", "--only-binary"} <= set(words)
    assert words[words.index("--python-version") + 1] == "3.12"
    platforms = [after for word, after in pairwise(words) if word == "--platform"]
    assert "manylinux_2_28_aarch64" in platforms
    assert not [one for one in platforms if "x86_64" in one]


def test_what_apt_prints_names_packages_and_versions() -> None:
    assert bundle_apt.files_of(PRINTED) == [("docker.io", "20.10+dfsg1-2"), ("iptables", "1:1.8.9-2")]


def test_what_every_installation_has_does_not_travel() -> None:
    assert bundle_apt.required(SHOWN) == ["libc6", "tar"]


@pytest.mark.parametrize("release", ["bookworm", "trixie", "jammy", "noble"])
def test_another_release_has_sources_that_are_signed(release: str) -> None:
    lines = bundle_apt.sources(release, "x86_64").splitlines()
    suites = [line.split()[3] for line in lines]
    assert suites == [release, f"{release}-updates", f"{release}-security"]
    assert all(line.startswith("deb [signed-by=/usr/share/keyrings/") for line in lines)


def test_other_machines_have_their_packages_elsewhere() -> None:
    assert "ports.ubuntu.com" in bundle_apt.sources("noble", "aarch64")
    assert "deb.debian.org" in bundle_apt.sources("trixie", "aarch64")


def test_each_release_is_asked_for_what_the_roles_install_there() -> None:
    assert "docker-cli" in bundle_apt.wanted("trixie", [])
    assert "python3.11-venv" in bundle_apt.wanted("jammy", [])
    assert bundle_apt.wanted("sid", ["htop"]) == [*bundle_apt.PACKAGES, "htop"]


def test_a_bundle_has_what_the_role_installs_with_the_engine() -> None:
    role = (content.project() / "roles/docker/vars/main.yml").read_text("utf-8")
    listed = yaml.safe_load(role)["docker_distribution_packages"]["Debian"]
    installed = set(re.findall(r"\'([\w.-]+)\'", listed.partition(" if ")[0]))
    assert installed == {"docker.io", "apparmor", "docker-cli"}
    assert installed <= set(bundle_apt.wanted("trixie", []))


def test_apt_sees_a_machine_that_has_nothing() -> None:
    own = bundle_apt.options(Path("/r"), "x86_64", own_sources=True)
    assert "Dir::State::status=/r/status" in own
    assert not [word for word in own if "SourceList" in word]
    other = bundle_apt.options(Path("/r"), "aarch64", own_sources=False)
    assert {"Dir::Etc::SourceList=/r/sources.list", "APT::Architecture=arm64"} <= set(other)


def test_a_bundle_without_packages_leaves_docker_to_the_inventory(tmp_path: Path) -> None:
    assert "docker_source" not in bundle_plan.bundle_variables(tmp_path)
    (tmp_path / "packages").mkdir()
    found = bundle_plan.bundle_variables(tmp_path)
    assert found["docker_source"] == "packages"
    # The role adds the release and `server`.
    assert found["shared_storage_package_dir"] == str(tmp_path / "packages")


def test_the_sums_are_of_all_files_in_order(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x").write_text("1")
    (tmp_path / "a").write_text("2")
    assert [line.split("  ")[1] for line in sums(tmp_path).splitlines()] == ["a", "b/x"]
