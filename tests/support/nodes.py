"""Nodes of a deployment: containers that are whole small machines with systemd, sshd and an engine of their own."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

from support import engine

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "hakuriver-node:12"
"""A bare Debian, as an administrator would find it."""
READY_IMAGE = "hakuriver-node:12-docker"
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


def _refusal_to_start() -> str | None:
    """What the engine says against a container with what a node needs."""
    tried = subprocess.run(
        [
            "docker",
            "run",
            "--rm",
            "--cgroupns=host",
            "--volume=/sys/fs/cgroup:/sys/fs/cgroup:rw",
            "--cap-add=SYS_ADMIN",
            "--cap-add=NET_ADMIN",
            "--security-opt=seccomp=unconfined",
            IMAGE,
            "true",
        ],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    return None if tried.returncode == 0 else f"no node starts here ({tried.stderr.strip()[:200]})"
