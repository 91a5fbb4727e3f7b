"""A process that loads one version into the Docker engine and may be killed: `python -m support.loading`.

Arguments: the store's root, a folder for its state, name and version. It says `ready`, waits for a line, loads, and says
how that went.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import docker.api.client

from hakuriver_agent.engines.docker_door import DockerDoor
from hakuriver_agent.environments import Environments
from hakuriver_agent.environments.images import DockerImages


async def load(root: Path, state: Path, name: str, version: int) -> str:
    environments = Environments(root, DockerImages(DockerDoor("")), state)
    told = [progress async for progress in environments.sync(name, version)]
    return told[-1].reason or told[-1].state


if __name__ == "__main__":
    _, root_, state_, name_, version_ = sys.argv
    assert docker.api.client, "imported before it says that it is ready"
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    sys.stdout.write(asyncio.run(load(Path(root_), Path(state_), name_, int(version_))) + "\n")
