"""Nodes of a deployment: containers that are whole small machines with systemd, sshd and an engine of their own."""

from __future__ import annotations

import functools
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support import engine
from support.waiting import until

ROOT = Path(__file__).resolve().parents[2]
RELEASE = os.environ.get("NODE_RELEASE") or "12"
"""Of Debian, on the nodes."""
IMAGE = f"hakuriver-node:{RELEASE}"
"""A bare Debian, as an administrator would find it."""
READY_IMAGE = f"{IMAGE}-docker"
"""The same with the packages that the roles install."""


@functools.cache
def why_not() -> str | None:
    """Why no node can run here, or None when one can."""
    if reason := engine.why_not():
        return reason
    if shutil.which("ssh") is None:
        return "no ssh is here to reach nodes with"
    made = subprocess.run(
        [ROOT / "scripts/node-image"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    if made.returncode != 0:
        return f"no image of a node can be made ({made.stderr.strip()[:200]})"
    return _refusal_to_start()


def environment() -> dict[str, str]:
    """The environment for programs of the deployment: this virtual environment first, and no colours."""
    folder = Path(sys.executable).parent
    return {
        **os.environ,
        "PATH": f"{folder}:{os.environ['PATH']}",
        "VENV": str(folder.parent),
        "NO_COLOR": "1",
        "PY_COLORS": "0",
        "ANSIBLE_NOCOLOR": "1",
        "MOLECULE_COMMAND_BORDERS": "0",
    }


class Nodes:
    """Some nodes on a network of their own, with a folder that all of them share at /mnt/hakuriver.

    The first is the Host and a Runner too, the others are Runners.
    """

    def __init__(
        self, folder: Path, names: Sequence[str], image: str = READY_IMAGE, *, internet: bool = True
    ) -> None:
        self.names = list(names)
        self._internet = internet
        self._folder = folder
        self._image = image
        self._prefix = f"hk{os.getpid()}-{next(_numbers)}"
        self.key = folder / "id_ed25519"
        self.inventory = folder / "inventory" / "hosts.json"

    def start(self, variables: Mapping[str, Any] | None = None) -> None:
        """Until all of them are up and reached by ssh. `variables` are those of the whole inventory."""
        self._make("scripts/node-image", "scripts/wheelhouse")
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key))
        _run("docker", "network", "create", *([] if self._internet else ["--internal"]), self._prefix)
        for name in self.names:
            _run("docker", "run", "--detach", *self._options(name), self._image)
        for name in self.names:
            until(lambda name=name: self._is_up(name), f"{name} is up", within=60)  # type: ignore[misc]
            self._let_in(name)
        self.write_inventory(variables or {})

    def write_inventory(self, variables: Mapping[str, Any]) -> None:
        hosts = {name: {"ansible_host": self.address(name)} for name in self.names}
        self.inventory.parent.mkdir(exist_ok=True)
        content = {
            "all": {"vars": {**self._connection(), **variables}},
            "hakuriver": {"children": {"hakuriver_host": {}, "hakuriver_runners": {}}},
            "hakuriver_host": {"hosts": {self.names[0]: {}}},
            "hakuriver_runners": {"hosts": hosts},
        }
        self.inventory.write_text(json.dumps(content, indent=2), "utf-8")

    def command(self, playbook: str, *options: str) -> list[str]:
        """What plays that playbook on these nodes."""
        path = ROOT / "ansible/playbooks" / f"{playbook}.yml"
        return ["ansible-playbook", "--inventory", str(self.inventory), *options, str(path)]

    def play(self, playbook: str, *options: str) -> subprocess.CompletedProcess[str]:
        return told(self.command(playbook, *options), play_environment())

    def run(self, name: str, *command: str, given: str | None = None) -> str:
        """What a command says on that node."""
        return _run("docker", "exec", "--interactive", f"{self._prefix}-{name}", *command, given=given)

    def cpu_seconds(self) -> float:
        """What all nodes have used of the processors since they started."""
        containers = engine.client().containers
        used: list[Any] = [
            containers.get(f"{self._prefix}-{name}").stats(stream=False) for name in self.names
        ]
        return float(sum(stats["cpu_stats"]["cpu_usage"]["total_usage"] for stats in used)) / 1e9

    def bring(self, name: str, file: Path, target: str) -> None:
        """Copies a file to that node."""
        _run("docker", "cp", str(file), f"{self._prefix}-{name}:{target}")

    def remove(self) -> None:
        for name in self.names:
            _run("docker", "rm", "--force", "--volumes", f"{self._prefix}-{name}", check=False)
        _run("docker", "volume", "rm", f"{self._prefix}-share", check=False)
        _run("docker", "network", "rm", self._prefix, check=False)

    def _make(self, *scripts: str) -> None:
        for script in scripts:
            subprocess.run([ROOT / script], check=True, capture_output=True, env=environment())

    def _options(self, name: str) -> list[str]:
        return [
            f"--name={self._prefix}-{name}",
            f"--hostname={name}",
            f"--network={self._prefix}",
            f"--network-alias={name}",
            f"--volume={self._prefix}-share:/mnt/hakuriver",
            "--volume=/var/lib/docker",
            "--tmpfs=/run",
            "--tmpfs=/run/lock",
            *_NEEDED,
        ]

    def _is_up(self, name: str) -> bool:
        container = f"{self._prefix}-{name}"
        return _run("docker", "exec", container, "systemctl", "is-system-running", check=False) == "running"

    def _let_in(self, name: str) -> None:
        public = self.key.with_suffix(".pub").read_text("ascii")
        self.run(
            name, "runuser", "-u", "admin", "--", "tee", "/home/admin/.ssh/authorized_keys", given=public
        )

    def address(self, name: str) -> str:
        form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        return _run("docker", "inspect", "--format", form, f"{self._prefix}-{name}")

    def _connection(self) -> dict[str, Any]:
        known = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
        return {
            "ansible_user": "admin",
            "ansible_ssh_private_key_file": str(self.key),
            "ansible_ssh_common_args": known,
            "hakuriver_install_source": "wheelhouse",
            "hakuriver_install_wheelhouse": str(ROOT / ".cache/wheelhouse/current"),
        }


@contextmanager
def running(nodes: Nodes, variables: Mapping[str, Any] | None = None) -> Iterator[Nodes]:
    """Starts the nodes, and removes them whatever happens."""
    try:
        nodes.start(variables)
        yield nodes
    finally:
        nodes.remove()


def told(command: Sequence[str], env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs it at the root; all that it says, in its order, is in `stdout`."""
    return subprocess.run(
        command,
        cwd=ROOT,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def play_environment() -> dict[str, str]:
    return {**environment(), "ANSIBLE_CONFIG": str(ROOT / "ansible/ansible.cfg")}


_numbers = itertools.count(1)
_NEEDED = (
    "--cgroupns=host",
    "--volume=/sys/fs/cgroup:/sys/fs/cgroup:rw",
    "--cap-add=SYS_ADMIN",
    "--cap-add=SYS_PTRACE",
    "--cap-add=NET_ADMIN",
    "--security-opt=seccomp=unconfined",
)
"""What systemd and an engine inside take."""


def _run(*command: str, given: str | None = None, check: bool = True) -> str:
    done = subprocess.run(command, input=given or "", capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"{' '.join(command)}: {done.stderr[-2000:]}"
    return done.stdout.strip()


def _refusal_to_start() -> str | None:
    """What the engine says against a container with what a node needs."""
    tried = subprocess.run(
        ["docker", "run", "--rm", *_NEEDED, IMAGE, "true"],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    return None if tried.returncode == 0 else f"no node starts here ({tried.stderr.strip()[:200]})"
