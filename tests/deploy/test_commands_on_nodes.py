"""A cluster's life by the commands that an administrator types, on machines: each does what its help says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import scenarios, use
from support import nodes
from support.commands import Commands, Result
from support.nodes import ROOT, Nodes
from support.waiting import until

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(scenarios.SECONDS)]

SECONDS = 900
STALE = (
    "cd /etc/hakuriver && cp --preserve runner.env /run && sed -i s/STAMP=./STAMP=x/ runner.env"
    " && systemctl restart hakuriver-runner && cp --preserve /run/runner.env runner.env"
)
"""Starts a Runner that is as one that runs since before its files were written."""


class Admin:
    """Types `hakuriver cluster` where the inventory is."""

    def __init__(self, folder: Path, machines: Nodes) -> None:
        (folder / "client.toml").touch()
        self.inventory = folder / "lab"
        self.machines = machines
        self._run = Commands(
            {
                "HAKURIVER_CONFIG": str(folder / "client.toml"),
                "HAKURIVER_INVENTORY": str(self.inventory),
                "ANSIBLE_PRIVATE_KEY_FILE": str(machines.key),
                "ANSIBLE_HOST_KEY_CHECKING": "False",
            }
        )

    def __call__(self, *words: str) -> Result:
        done = self._run("cluster", *words, within=SECONDS)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def does(self, *words: str) -> Result:
        done = self(*words)
        assert done.code == 0, f"{words}: {done.stderr}\n{done.stdout}"
        return done

    def write_inventory(self) -> None:
        """As the guide has it: what `init` proposes, and where HakuRiver comes from."""
        head = f"head={self.machines.address('head')}"
        share = ("--share", "existing", "--share-path", "/mnt/hakuriver")
        machines = ("--host", head, "--runner", head, "--ssh-user", "admin")
        who = ("--name", "lab", "--user", "ada")
        self.does("init", str(self.inventory), "--non-interactive", *machines, *share, *who)
        with (self.inventory / "group_vars/all.yml").open("a") as file:
            file.write(
                "\nhakuriver_install_source: wheelhouse\n"
                f"hakuriver_install_wheelhouse: {ROOT / '.cache/wheelhouse/current'}\n"
                "hakuriver_host_settings: {docker: {default_container_name: test-base}}\n"
            )

    def nodes(self) -> dict[str, str]:
        return use.node_states(self.machines, "head")

    def runs_on(self, node: str) -> str:
        return use.run_on(self.machines, "head", "--target", node)


@pytest.fixture
def admin(tmp_path: Path) -> Iterator[Admin]:
    machines = Nodes(tmp_path, ["head", "node1"])
    with nodes.running(machines):
        yield Admin(tmp_path, machines)


def test_a_clusters_life(admin: Admin) -> None:
    admin.write_inventory()
    looked = admin("check")
    assert (looked.code, "head" in looked.stderr) == (1, True), looked.stderr
    admin.does("deploy")
    assert use.run_a_task(admin.machines, "head") == "head"
    admin.does("check")
    admin.does("status")

    address = admin.machines.address("node1")
    admin.does("add-node", "node1", "--address", address)
    assert admin.runs_on("node1") == "node1"
    assert "nothing was changed" in admin.does("deploy").stderr

    admin.does("backup")
    (kept,) = (admin.inventory / ".hakuriver/backups").iterdir()
    admin.does("rotate")
    assert admin.runs_on("node1") == "node1"

    admin.machines.run("node1", "sh", "-c", STALE)
    assert "node1: hakuriver-runner.service runs with other settings" in admin("check").stderr
    admin.machines.run("node1", "systemctl", "stop", "hakuriver-runner")
    assert "node1" in admin("check").stderr
    # The Host hears of it by the silence.
    until(lambda: admin("status").code == 1, "node1 is found to be away", within=120)
    admin.does("logs")
    collected = [*(admin.inventory / ".hakuriver/logs").rglob("*")]
    assert [path for path in collected if "node1" in path.name], collected
    admin.machines.run("node1", "systemctl", "start", "hakuriver-runner")
    until(lambda: admin.nodes()["node1"] == "online", "node1 is back", within=120)

    key = admin.machines.key.with_suffix(".pub").read_text("ascii").strip()
    made = f"hakuriver vps create --container test-base --target node1 --wait --public-key-string '{key}'"
    vps = use.as_ada(admin.machines, "head", made)
    use.as_ada(admin.machines, "head", f"hakuriver vps stop {vps}")
    refused = admin("remove-node", "node1", "--yes")
    assert (refused.code, f"keeps stopped VPS: {vps}" in refused.stderr) == (1, True), refused.stderr
    assert admin.nodes()["node1"] == "online"
    admin.does("remove-node", "node1", "--yes", "--kill")
    assert admin.nodes() == {"head": "online"}
    assert "node1" not in (admin.inventory / "hosts.yml").read_text()
    # The backup is of a time when node1 was there.
    admin.does("restore", str(kept), "--yes")
    assert set(admin.nodes()) == {"head", "node1"}
    assert admin.runs_on("head") == "head"

    admin.does("reset", "--yes")
    gone = "command -v hakuriver; ls -d /opt/hakuriver /etc/hakuriver /var/lib/hakuriver 2>/dev/null; true"
    assert admin.machines.run("head", "sh", "-c", gone) == ""
