"""A folder that a machine with internet fills, and a bare node without internet that becomes a cluster by it.

The commands are those of an installed wheel, with the playbooks, roles and locks that it carries.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import use
from support import nodes
from support.commands import Commands
from support.nodes import Nodes

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(2400)]

RELEASE, PYTHON = {"12": ("bookworm", "3.11"), "13": ("trixie", "3.13")}[nodes.RELEASE]
"""Of the node's image."""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of packages that the wheel was installed into, without what it depends on."""
    wheels, packages = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("packages")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]
    make = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(nodes.ROOT)]
    subprocess.run(make, check=True, capture_output=True)
    (wheel,) = wheels.iterdir()
    subprocess.run([*pip, "install", "--no-deps", "--target", str(packages), str(wheel)], check=True)
    return packages


@pytest.fixture
def hakuriver(installed: Path, tmp_path: Path) -> Commands:
    (tmp_path / "client.toml").touch()
    return Commands({"HAKURIVER_CONFIG": str(tmp_path / "client.toml"), "PYTHONPATH": str(installed)})


def test_the_commands_are_those_of_the_wheel(hakuriver: Commands, installed: Path) -> None:
    """Its playbooks too: a bundle from a checkout would be built from the checkout."""
    where = "import hakuriver_cli.deploy.content as content; print(content.checkout(), content.project())"
    done = hakuriver("-c", where, program="python")
    assert done.stdout.split() == ["None", str(installed / "hakuriver_cli/_ansible")]


@pytest.fixture
def bundle(hakuriver: Commands, tmp_path: Path) -> Path:
    """With wheels for the node's Python alone, and packages for its release: by this machine's own sources where it has the same."""
    if not shutil.which("apt-get"):
        pytest.skip("packages for nodes are fetched by apt")
    folder = tmp_path / "bundle"
    release = (
        () if platform.freedesktop_os_release().get("VERSION_CODENAME") == RELEASE else ("--release", RELEASE)
    )
    made = hakuriver("cluster", "bundle", str(folder), "--python", PYTHON, *release, within=300)
    assert made.code == 0, made.stderr
    assert made.stdout.split() == [str(folder)]
    return folder


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Nodes]:
    machines = Nodes(tmp_path / "nodes", ["head"], nodes.IMAGE, internet=False)
    (tmp_path / "nodes").mkdir()
    with nodes.running(machines, use.VARIABLES):
        yield machines


def test_a_bare_node_without_internet_becomes_a_cluster(
    bundle: Path, node: Nodes, hakuriver: Commands
) -> None:
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=bundle, check=True)
    reached = "timeout 5 bash -c '</dev/tcp/deb.debian.org/80' 2>/dev/null && echo yes || echo no"
    assert node.run("head", "sh", "-c", reached) == "no"
    assert node.run("head", "sh", "-c", "command -v docker || echo none") == "none"
    words = ("cluster", "deploy", "--bundle", str(bundle), "--inventory", str(node.inventory))
    done = hakuriver(*words, within=600)
    assert done.code == 0, done.stderr
    assert use.run_a_task(node, "head") == "head"
    again = hakuriver(*words, within=300)
    assert "nothing was changed" in again.stderr
    serve_by_nfs(node)
    served = hakuriver(*words, "--tags", "shared_storage", within=300)
    assert served.code == 0, served.stderr
    assert node.run("head", "findmnt", "--noheadings", "--output", "SOURCE", "/mnt/nfs").endswith(
        "[/srv/nfs]"
    )
    again = hakuriver(*words, "--tags", "shared_storage", within=300)
    assert "nothing was changed" in again.stderr


def serve_by_nfs(node: Nodes) -> None:
    """The share that `cluster init` proposes, by a unit that stands in for what no kernel in a container does."""
    unit = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=true\n[Install]\nWantedBy=multi-user.target\n"
    for name in ("nfs-server", "nfs-kernel-server"):
        node.run("head", "tee", f"/etc/systemd/system/{name}.service", given=unit)
    node.run("head", "systemctl", "daemon-reload")
    variables = {
        "shared_storage_type": "nfs",
        "shared_storage_dir": "/mnt/nfs",
        "shared_storage_export": "/srv/nfs",
    }
    node.write_inventory({**use.VARIABLES, **variables})


def test_a_bundle_is_whole_or_not_there(hakuriver: Commands, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0", "PIP_FIND_LINKS": ""}
    wheel = tmp_path / "hakuriver_cluster-0.1.0-py3-none-any.whl"
    wheel.touch()
    words = ("cluster", "bundle", str(folder), "--wheel", str(wheel), "--python", "3.11", "--no-packages")
    hakuriver(*words, environment={**nowhere, "PIP_CACHE_DIR": str(tmp_path / "cache")}).assert_refused(
        1, "pip failed", "check the way to the internet"
    )
    assert sorted(path.name for path in tmp_path.iterdir() if "bundle" in path.name) == []
