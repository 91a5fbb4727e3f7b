"""A second run looks at a cluster that is right and sets nothing up; what was spoilt on a node it mends, and that alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import nodes
from support.nodes import Nodes

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(2400)]

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO0t0IhMEIZqLtKLd0PVMLJAcoFuTUgq1eqPlw6cPGiF ada"
ADA = {"name": "ada", "uid": 2001, "docker": True, "comment": "Ada", "ssh_keys": [KEY]}
CONFIG = "/etc/hakuriver"

SPOILT = {
    "usermod --shell /bin/sh hakuriver": "users : Make the service user",
    "usermod --comment Eve ada": "users : Make people's accounts",
    "rm /home/ada/.ssh/authorized_keys": "users : Write the list of keys",
    "chmod 0755 /home/ada/.ssh": "users : Make the folder of keys",
    "chmod 0700 /etc/docker": "docker : Make the folder of the settings",
    "sed -i s/10m/11m/ /etc/docker/daemon.json": "docker : Write the settings",
    "systemctl disable docker.service": "docker : Enable and start the engine",
    f"sed -i s/^M/N/ {CONFIG}/tls/ca.pem": "tls : Write the certificate of the CA",
    f"rm {CONFIG}/tls/runner.key": "tls : Make its key and a request, on the node",
    "rm /usr/local/bin/hakuriver.task": "hakuriver_install : Link the commands into the search path",
    f"chmod 0666 {CONFIG}/client.toml": "hakuriver_install : Configure the commands for everybody on this machine",
    "rm /etc/profile.d/hakuriver.sh": "hakuriver_install : Let login shells find it",
    f"sed -i $a# {CONFIG}/runner.toml": "hakuriver_runner : Configure it",
    "sed -i s/always/no/ /etc/systemd/system/hakuriver-runner.service": "hakuriver_runner : Write its unit",
    f"chmod 0644 {CONFIG}/runner.env": "hakuriver_runner : Write its variables",
    "chown ada /var/lib/hakuriver-scratch": "hakuriver_runner : Make the folder for tasks' scratch space",
    "systemctl stop hakuriver-runner.service": "hakuriver_runner : Start it, anew where it runs with something else",
    f"touch {CONFIG}/join.token": "hakuriver_runner : Remove the token that it joined with",
    "install -D /dev/null /etc/nftables.d/hakuriver.nft": "firewall : Remove what was written",
}
"""What is done to a node, and the task that mends it."""
ENTAILED = {
    "docker : Keep what the engine runs with until it has taken the new settings",
    "docker : Restart the engine",
    "docker : Forget what it ran with before",
    "tls : Sign it, on the controller",
    "tls : Write the certificate beside the key",
    "tls : Take both into use",
    "hakuriver_runner : Restart hakuriver-runner",
}
"""Tasks that change something because of those."""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Nodes]:
    machines = Nodes(tmp_path, ["head", "node"])
    with nodes.running(machines, {"hakuriver_tls": True, "users_accounts": [ADA]}):
        yield machines


def changed(output: str) -> dict[str, set[str]]:
    """The tasks that changed something, by machine."""
    found: dict[str, set[str]] = {}
    task = ""
    for line in output.splitlines():
        if begins := re.match(r"(?:TASK|RUNNING HANDLER) \[(.*)\] \**$", line):
            task = begins[1]
        elif change := re.match(r"changed: \[([\w-]+)", line):
            found.setdefault(change[1], set()).add(task)
    return found


def played(machines: Nodes, *options: str) -> str:
    done = machines.play("site", *options)
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout


def test_a_second_run_mends_what_was_spoilt_and_else_sets_nothing_up(cluster: Nodes) -> None:
    played(cluster)
    again = played(cluster)
    assert changed(again) == {}
    assert "set-up.yml" not in again

    for command in SPOILT:
        cluster.run("node", *command.split())
    seen = changed(played(cluster, "--check", "--diff"))
    assert seen.keys() == {"node"}
    mended = changed(played(cluster))
    assert mended.keys() == {"node"}
    assert set(SPOILT.values()) - mended["node"] == set()
    assert mended["node"] - set(SPOILT.values()) - ENTAILED == set()

    again = played(cluster)
    assert changed(again) == {}
    assert "set-up.yml" not in again
