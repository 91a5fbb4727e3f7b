"""What is wrong with machines or their inventory is told before anything changes: which machine, what, what to do.

The faults are produced for real on two bare machines, many at once: all of all machines have to be told by one run of
the whole playbook `site`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from support import nodes
from support.daemons import clean_environment
from support.nodes import Nodes

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(2400)]

EXISTING = {"shared_storage_type": "existing"}
CHANGED = (
    "find /etc /opt /usr /var /srv /root /mnt -newer /run/before -not -path '*/.ansible*'"
    " -not -path '/var/log*' -not -name '*.pyc' -not -name __pycache__"
)
PODMAN = "printf '#!/bin/sh\\nexec podman \"$@\"\\n' >/usr/local/bin/docker; chmod +x /usr/local/bin/docker"
SNAP = "mkdir -p /snap/bin; touch /usr/bin/snap; chmod +x /usr/bin/snap; ln -s /usr/bin/snap /snap/bin/docker"
ROOTLESS = (
    "mkdir -p /run/user/1000; systemd-run --quiet --unit=rootless python3 -c"
    ' \'import socket, time; s = socket.socket(socket.AF_UNIX); s.bind("/run/user/1000/docker.sock"); s.listen();'
    " time.sleep(600)'; until [ -S /run/user/1000/docker.sock ]; do sleep 0.1; done"
)
ASKS = "echo admin:right | chpasswd; echo 'admin ALL=(ALL) ALL' >/etc/sudoers.d/admin"


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a machine, and what has to be said of it."""

    node: str
    breaks: str
    """A shell's commands there, as root."""
    mends: str
    what: str
    hint: str
    variables: Mapping[str, Any] = field(default_factory=dict)
    """Of this machine, in the inventory."""


UNSUPPORTED = Fault(
    "head",
    "cp /usr/lib/os-release /run/; printf 'ID=arch\\nPRETTY_NAME=\"Arch Linux\"\\n' >/usr/lib/os-release",
    "cp /run/os-release /usr/lib/os-release",
    "Arch Linux is not supported",
    "use Debian 12 and 13, Ubuntu 22.04 and 24.04",
)
PORT_TAKEN = Fault(
    "head",
    # Its name is nearly ours.
    "ln -s /usr/bin/python3 /run/hakuriver; systemd-run --quiet --unit=web /run/hakuriver -m http.server 8000; until ss -ltn | grep -q :8000; do sleep 0.1; done",
    "systemctl stop web; rm /run/hakuriver",
    "port 8000 is taken by",
    "set hakuriver_host_port to a free port",
)
OLD_PYTHON = Fault(
    "head",
    "printf '#!/bin/sh\\necho 3.9.2\\n' >/usr/local/bin/python3.9; chmod +x /usr/local/bin/python3.9",
    "rm /usr/local/bin/python3.9",
    "/usr/local/bin/python3.9 is Python 3.9.2; the daemons need 3.11 or later",
    "name it in hakuriver_install_python",
    {"hakuriver_install_python": "/usr/local/bin/python3.9"},
)
PODMANS_DOCKER = Fault(
    "head",
    PODMAN,
    "rm /usr/local/bin/docker",
    "its `docker` is podman's imitation",
    "remove the package podman-docker",
)
SNAPS_DOCKER = Fault(
    "node1",
    SNAP,
    "rm -r /snap /usr/bin/snap",
    "its `docker` is the snap",
    "snap remove docker",
)
CLOCK = Fault(
    "node1",
    'printf \'#!/bin/sh\\nexec /bin/date -d "+90 seconds" "$@"\\n\' >/usr/local/bin/date; chmod +x /usr/local/bin/date',
    "rm /usr/local/bin/date",
    "its clock is 90 s ahead of that of the machine that Ansible runs on (limit: 5 s)",
    "timedatectl set-ntp true",
)
READ_ONLY_SHARE = Fault(
    "node1",
    "mount -o remount,bind,ro /mnt/hakuriver",
    "mount -o remount,bind,rw /mnt/hakuriver",
    "the share /mnt/hakuriver can only be read there",
    "export and mount it for writing",
)
FULL_DISK = Fault(
    "node1",
    "mkdir -p /var/lib/hakuriver; mount -t tmpfs -o size=10m none /var/lib/hakuriver",
    "umount /var/lib/hakuriver; rmdir /var/lib/hakuriver",
    "/var/lib/hakuriver has 10 MB free, and 500 MB are asked for",
    "make room on /var/lib/hakuriver",
)
ROOTLESS_DOCKER = Fault(
    "head",
    ROOTLESS,
    "systemctl stop rootless; rm -r /run/user/1000",
    "its Docker runs rootless, for one user alone (/run/user/1000/docker.sock)",
    "dockerd-rootless-setuptool.sh uninstall",
)
SECOND_NAME = Fault(
    "node1",
    "mkdir /etc/hakuriver; printf '# Ansible\\n[network]\\nname = 1\\n\\n[runner]\\nname = \"node7\"\\n' >/etc/hakuriver/runner.toml",
    "rm -r /etc/hakuriver",
    "it is the node `node7` already, and not `node1`",
    "hakuriver cluster remove-node node7",
)
UNREACHABLE = Fault(
    "node1",
    "systemctl stop ssh.socket ssh.service",
    "systemctl start ssh",
    "nothing answers to ssh at its address",
    "start sshd there, and check ansible_host and ansible_port",
)
MANY = [
    UNSUPPORTED,
    PORT_TAKEN,
    OLD_PYTHON,
    PODMANS_DOCKER,
    SNAPS_DOCKER,
    CLOCK,
    READ_ONLY_SHARE,
    FULL_DISK,
    SECOND_NAME,
]
UFW = "[Service]\\nType=oneshot\\nRemainAfterExit=yes\\nExecStart=true\\n[Install]\\nWantedBy=multi-user.target\\n"
"""Of ufw, which has ended when its rules are loaded, and says elsewhere that it is on."""
BROKEN_SETTINGS = Fault(
    "node1",
    "mkdir /etc/docker; echo '{' >/etc/docker/daemon.json",
    "rm -r /etc/docker",
    "/etc/docker/daemon.json is not valid",
    "correct the file, or remove it",
)
NO_DRIVER = Fault(
    "node1",
    "mkdir -p /run/pci/0000:01:00.0; cd /run/pci/0000:01:00.0; echo 0x10de >vendor; echo 0x030000 >class",
    "rm -r /run/pci",
    "there is an NVIDIA GPU (0000:01:00.0), and its driver is not loaded",
    "install the driver and reboot the node",
    {"nvidia_pci_root": "/run/pci"},
)
HALF_A_CERTIFICATE = Fault(
    "node1",
    "true",
    "true",
    "only one of tls_runner_certificate and tls_runner_key is set",
    "set both, or neither",
    {"tls_runner_certificate": "/nowhere/runner.pem"},
)
NO_WHEEL = Fault(
    "head",
    "true",
    "true",
    "/nowhere holds no wheel of HakuRiver",
    "make it with `hakuriver cluster bundle`",
    {"hakuriver_install_wheelhouse": "/nowhere"},
)
NO_SETTING = Fault(
    "head",
    "true",
    "true",
    "host.toml would be wrong: network.host_prt is not a setting (did you mean host_port?)",
    "correct hakuriver_host_settings",
    {"hakuriver_host_settings": {"network": {"host_prt": 8000}}},
)
OTHER_FIREWALL = Fault(
    "head",
    f"printf '{UFW}' >/etc/systemd/system/ufw.service; systemctl enable --quiet --now ufw; ln -s /bin/true /usr/sbin/ufw;"
    " mkdir /etc/ufw; echo ENABLED=yes >/etc/ufw/ufw.conf",
    "systemctl disable --quiet --now ufw; rm -r /etc/systemd/system/ufw.service /usr/sbin/ufw /etc/ufw; systemctl daemon-reload",
    "ufw is in charge of its firewall",
    "set firewall_enabled: false for this machine, or disable it",
    {"firewall_enabled": True},
)
REFUSED_BY_ROLES = [
    BROKEN_SETTINGS,
    NO_DRIVER,
    HALF_A_CERTIFICATE,
    NO_WHEEL,
    NO_SETTING,
    OTHER_FIREWALL,
]
WRONG_VALUE = Fault(
    "node1",
    "true",
    "true",
    "a variable is wrong: value of docker_source must be one of: distribution, vendor, packages, existing, none, got: distro",
    "correct it in the inventory",
    {"docker_source": "distro"},
)


class Lab:
    """Two bare machines, and `hakuriver cluster deploy` on them."""

    def __init__(self, machines: Nodes) -> None:
        self.nodes = machines

    def deploy(self, *options: str, given: str = "") -> subprocess.CompletedProcess[str]:
        """With a connection for each task: none that is still open from before hides that there is no sshd."""
        folder = self.nodes.inventory.parent
        (folder / "client.toml").touch()
        own = {
            "ANSIBLE_SSH_ARGS": "-o ControlMaster=no",
            "HAKURIVER_CONFIG": str(folder / "client.toml"),
            "NO_COLOR": "1",
        }
        program = str(Path(sys.executable).parent / "hakuriver")
        return subprocess.run(
            [program, "cluster", "deploy", *options, "--inventory", str(self.nodes.inventory)],
            input=given,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
            env={**clean_environment(), **own},
        )

    def fail(self, *options: str, given: str = "", code: int = 1) -> list[tuple[str, str]]:
        """What a deployment says that has to fail, with the hints; and nothing has changed on any machine."""
        for name in self.nodes.names:
            self.nodes.run(name, "touch", "/run/before")
        done = self.deploy(*options, given=given)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        assert "nothing was changed" in done.stderr
        for name in self.nodes.names:
            assert self.nodes.run(name, "sh", "-c", CHANGED) == "", f"{name} was changed"
        return told(done.stderr)

    def with_faults(self, faults: Sequence[Fault]) -> list[tuple[str, str]]:
        folder = self.nodes.inventory.parent / "host_vars"
        folder.mkdir(exist_ok=True)
        for name in self.nodes.names:
            own = [fault.variables for fault in faults if fault.node == name]
            merged = {key: value for variables in own for key, value in variables.items()}
            (folder / f"{name}.json").write_text(json.dumps(merged))
        broken: list[Fault] = []
        try:
            for fault in faults:
                broken.append(fault)
                self.nodes.run(fault.node, "sh", "-c", fault.breaks)
            return self.fail()
        finally:
            for fault in reversed(broken):
                self.nodes.run(fault.node, "sh", "-c", fault.mends)
            for path in folder.iterdir():
                path.unlink()


def told(text: str) -> list[tuple[str, str]]:
    """Pairs of error and hint, as they stand below each other."""
    lines = text.splitlines()
    return [
        (line.removeprefix("error: "), after.removeprefix("hint: "))
        for line, after in zip(lines, [*lines[1:], ""], strict=True)
        if line.startswith("error: ")
    ]


def assert_told(found: list[tuple[str, str]], node: str, what: str, hint: str) -> None:
    start = f"{node}: {what}" if node else what
    assert any(error.startswith(start) and hint in after for error, after in found), found


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    machines = Nodes(tmp_path_factory.mktemp("nodes"), ["head", "node1"], nodes.IMAGE)
    with nodes.running(machines, EXISTING):
        yield Lab(machines)


@pytest.fixture(scope="module")
def all_at_once(lab: Lab) -> list[tuple[str, str]]:
    return lab.with_faults(MANY)


@pytest.mark.parametrize("fault", MANY, ids=lambda fault: fault.what[:30])
def test_each_of_many_faults_is_told_by_one_run(all_at_once: list[tuple[str, str]], fault: Fault) -> None:
    assert_told(all_at_once, fault.node, fault.what, fault.hint)


def test_nothing_else_is_told(all_at_once: list[tuple[str, str]]) -> None:
    assert len(all_at_once) == len(MANY)


@pytest.fixture(scope="module")
def refused_at_once(lab: Lab) -> list[tuple[str, str]]:
    return lab.with_faults(REFUSED_BY_ROLES)


@pytest.mark.parametrize("fault", REFUSED_BY_ROLES, ids=lambda fault: fault.what[:30])
def test_what_each_role_refuses_is_told_by_one_run(
    refused_at_once: list[tuple[str, str]], fault: Fault
) -> None:
    assert_told(refused_at_once, fault.node, fault.what, fault.hint)
    assert len(refused_at_once) == len(REFUSED_BY_ROLES)


def test_a_wrong_value_is_told_beside_what_is_wrong_with_the_others(lab: Lab) -> None:
    found = lab.with_faults([WRONG_VALUE, NO_SETTING])
    for fault in (WRONG_VALUE, NO_SETTING):
        assert_told(found, fault.node, fault.what, fault.hint)
    assert len(found) == 2


def test_what_is_wrong_elsewhere_is_told_beside_a_machine_that_cannot_be_reached(lab: Lab) -> None:
    found = lab.with_faults([ROOTLESS_DOCKER, UNREACHABLE])
    for fault in (ROOTLESS_DOCKER, UNREACHABLE):
        assert_told(found, fault.node, fault.what, fault.hint)
    assert len(found) == 2


def test_a_machine_that_cannot_be_reached_is_told_alone_with_an_exit_code_of_its_own(lab: Lab) -> None:
    lab.nodes.run("node1", "sh", "-c", UNREACHABLE.breaks)
    try:
        found = lab.fail(code=6)
    finally:
        lab.nodes.run("node1", "sh", "-c", UNREACHABLE.mends)
    assert [error.partition(" (in: ")[0] for error, _ in found] == [f"node1: {UNREACHABLE.what}"]


def test_a_sudo_password_that_is_missing_or_wrong(lab: Lab) -> None:
    lab.nodes.run("node1", "cp", "/etc/sudoers.d/admin", "/run/sudoers")
    lab.nodes.run("node1", "sh", "-c", ASKS)
    try:
        missing = lab.fail()
        wrong = lab.fail("--ask-become-pass", given="wrong\n")
        right = lab.deploy("--ask-become-pass", "--tags", "preflight", given="right\n")
    finally:
        lab.nodes.run("node1", "cp", "/run/sudoers", "/etc/sudoers.d/admin")
    assert_told(missing, "node1", "sudo asks for a password", "use --ask-become-pass")
    assert_told(wrong, "node1", "the sudo password is wrong", "try again with --ask-become-pass")
    assert len(missing) == len(wrong) == 1
    assert right.returncode == 0, right.stderr


def inventory_with(lab: Lab, **more: Any) -> None:
    """Machines and variables besides those of the fixture."""
    lab.nodes.write_inventory({**EXISTING, **more.pop("variables", {})})
    text = json.loads(lab.nodes.inventory.read_text())
    runners = text["hakuriver_runners"]["hosts"]
    for name, own in more.items():
        runners.setdefault(name, {}).update(own)
    lab.nodes.inventory.write_text(json.dumps(text))


def test_an_inventory_with_a_misspelt_variable_one_name_and_one_address_twice(lab: Lab) -> None:
    address = json.loads(lab.nodes.inventory.read_text())["hakuriver_runners"]["hosts"]["node1"][
        "ansible_host"
    ]
    inventory_with(
        lab,
        variables={"hakuriver_share_dir": "/data"},
        head={"hakuriver_node_name": "one"},
        node1={"hakuriver_node_name": "one"},
        node2={"ansible_host": address},
    )
    try:
        found = lab.fail()
    finally:
        lab.nodes.write_inventory(EXISTING)
    misspelt = (
        "the inventory: the inventory sets `hakuriver_share_dir`, which nothing reads:"
        " did you mean `hakuriver_shared_dir`?"
    )
    assert_told(found, "", misspelt, "correct the name, or remove it")
    assert_told(found, "", "the inventory: head and node1 have one name as nodes: one", "hakuriver_node_name")
    assert_told(found, "", f"the inventory: node1 and node2 have one address: {address}", "ansible_host")


def test_a_misspelt_variable_is_told_when_no_machine_can_be_reached(lab: Lab) -> None:
    lab.nodes.write_inventory({**EXISTING, "hakuriver_share_dir": "/data", "ansible_port": 1})
    try:
        found = lab.fail()
    finally:
        lab.nodes.write_inventory(EXISTING)
    assert len(found) == 1
    assert_told(found, "", "the inventory: the inventory sets `hakuriver_share_dir`", "correct the name")


def test_two_names_of_one_machine(lab: Lab) -> None:
    """By two ports, so that the inventory alone does not show it."""
    address = json.loads(lab.nodes.inventory.read_text())["hakuriver_runners"]["hosts"]["head"][
        "ansible_host"
    ]
    inventory_with(
        lab, node2={"ansible_host": address, "ansible_port": 2222, "hakuriver_node_address": "10.0.0.9"}
    )
    lab.nodes.run("head", "sh", "-c", "systemd-run --quiet --unit=sshd2 /usr/sbin/sshd -D -p 2222")
    try:
        found = lab.fail()
    finally:
        lab.nodes.run("head", "systemctl", "stop", "sshd2")
        lab.nodes.write_inventory(EXISTING)
    assert_told(found, "head", "head and node2 are one and the same machine", "keep one of the names")


def test_a_python_that_comes_with_the_packages_of_the_engine_is_awaited(lab: Lab, tmp_path: Path) -> None:
    """As on Ubuntu 22.04 from a bundle."""
    (tmp_path / "docker.io_26_all.deb").touch()
    missing = {
        "hakuriver_install_python": "python3.99",
        "docker_source": "packages",
        "docker_package_dir": str(tmp_path),
    }
    inventory_with(lab, node1=missing)
    try:
        without = lab.fail()
        (tmp_path / "python3.99_1_all.deb").touch()
        done = lab.deploy("--tags", "preflight")
    finally:
        lab.nodes.write_inventory(EXISTING)
    assert_told(without, "node1", "there is no python3.99, and nothing here can install it", "install Python")
    assert done.returncode == 0, done.stderr


def test_a_python_that_is_to_be_installed_comes_with_the_installation(lab: Lab) -> None:
    """And not before it is known that nothing is wrong: looking for that installs nothing."""
    missing = {
        "hakuriver_install_source": "index",
        "hakuriver_install_version": "0.3.0",
        "hakuriver_install_python": "python3.99",
    }
    inventory_with(
        lab,
        head={**missing, "hakuriver_install_packages": ["python3-numpy", "python3-yaml=6.0-3+b2"]},
        node1={**missing, "hakuriver_install_packages": ["python3.99-none"]},
    )
    lists = "/var/lib/apt/lists"
    try:
        unknown = lab.fail()
        # Where apt has no lists yet it cannot be known.
        lab.nodes.run("node1", "mv", lists, f"{lists}.away")
        try:
            done = lab.deploy("--tags", "preflight")
        finally:
            lab.nodes.run("node1", "sh", "-c", f"rm -rf {lists}; mv {lists}.away {lists}")
        inventory_with(lab, node1={**missing, "hakuriver_install_packages": []})
        none = lab.fail()
    finally:
        lab.nodes.write_inventory(EXISTING)
    assert_told(
        unknown,
        "node1",
        "python3.99 is to be installed, and apt knows no package python3.99-none",
        "name it in hakuriver_install_python",
    )
    assert_told(none, "node1", "there is no Python of 3.11 or later: python3.99", "install one there")
    assert done.returncode == 0, done.stderr
    assert "none" in lab.nodes.run("head", "sh", "-c", "dpkg --status python3-numpy 2>/dev/null || echo none")


def test_machines_without_faults_pass(lab: Lab) -> None:
    """Also with a variable that is made of a default which its role alone knows."""
    inventory_with(lab, variables={"shared_storage_export": "{{ shared_storage_dir }}/x"})
    try:
        done = lab.deploy("--tags", "preflight")
    finally:
        lab.nodes.write_inventory(EXISTING)
    assert done.returncode == 0, done.stderr
    assert told(done.stderr) == []
