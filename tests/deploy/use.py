"""What a person does with a cluster that was deployed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from support import nodes
from support.nodes import ROOT, Nodes

VARIABLES = {
    "shared_storage_type": "local",
    "users_accounts": [{"name": "ada", "uid": 2001}],
    "hakuriver_host_users": [{"name": "ada", "uid": 2001, "gid": 2001, "deploy_token": True}],
    "hakuriver_host_settings": {"docker": {"default_container_name": "test-base"}},
}
"""Of one machine, with a person who has a token there."""


def run_a_task(machines: Nodes, host: str) -> str:
    """What a task in a container prints: the name of its node."""
    made = subprocess.check_output([ROOT / "scripts/test-environment"], env=nodes.environment(), text=True)
    archive = ROOT / Path(made.strip())
    target = f"/mnt/hakuriver/hakuriver-containers/{archive.name}"
    machines.bring(host, archive, target)
    machines.run(host, "chown", "hakuriver:hakuriver", target)
    return run_on(machines, host)


def run_on(machines: Nodes, host: str, *options: str) -> str:
    """The same once the environment is there; the options are those of `task run`."""
    words = " ".join(("hakuriver task run --container test-base", *options))
    return as_ada(machines, host, f"{words} -- sh -c 'echo $HAKURIVER_NODE'")


def node_states(machines: Nodes, host: str) -> dict[str, str]:
    """By name, as ada sees them."""
    listed = json.loads(as_ada(machines, host, "hakuriver node list -o json"))
    return {node["hostname"]: node["status"] for node in listed}


def as_ada(machines: Nodes, host: str, command: str) -> str:
    return machines.run(host, "runuser", "--login", "ada", "--command", command)
