"""What the Docker engine is asked for, as pure functions: a specification in, the body of the API's request out.

The fields are those of `POST /containers/create`, https://docs.docker.com/reference/api/engine/version/v1.41/.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hakuriver.cores import as_list
from hakuriver.models.runner import AttemptSpec
from hakuriver_agent.engines.commands import task_variables
from hakuriver_agent.engines.port import COMMAND_NOT_EXECUTABLE, COMMAND_NOT_FOUND, Key, StartFailedError

SHARED = "/shared"
LOCAL_TEMP = "/local_temp"
VPS_TOOLS = "/run/hakuriver/tools"
VPS_SOCKETS = "/run/hakuriver/sockets"
_VPS_COMMAND = ("-c", "exec sleep 2147483647")
"""What a VPS does while nobody is there. Busybox has no `sleep infinity`; 68 years are the most that all take."""
LABEL_TASK = "hakuriver.task"
LABEL_ATTEMPT = "hakuriver.attempt"
LABEL_NODE = "hakuriver.node"
LABEL_RUNNER = "hakuriver.runner"
LABEL_SPEC = "hakuriver.spec"

_EXEC = re.compile(r'exec: \\?"|exec format error|starting container process caused')
_NOISE = re.compile(
    r"^.*(?:OCI runtime create failed|failed to create shim task): (?:OCI runtime create failed: )?"
)


@dataclass(frozen=True, slots=True)
class Bind:
    """One bind mount, with its source resolved."""

    source: Path
    target: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """Where a container runs: what is the same for all of a Runner's."""

    node: str
    runner: str
    """Tells this Runner's containers from those of another one on the same engine."""
    log_max_bytes: int
    network: str
    """Of tasks that name none."""
    numa_cores: dict[int, str]
    """Per NUMA node its cores, as `0-3,8`."""


def container_name(key: Key) -> str:
    return f"hakuriver-task-{key[0]}-{key[1]}"


def image_name(spec: AttemptSpec) -> str:
    return f"hakuriver/{spec.environment}:{spec.environment_version}"


def create_request(
    spec: AttemptSpec, label: AttemptSpec, image: str, binds: list[Bind], place: Place
) -> dict[str, Any]:
    """The body that creates the container of an attempt. `label` is what its label may tell of the specification."""
    variables = task_variables(spec, place.node, LOCAL_TEMP, SHARED)
    return {
        "Image": image,
        "Entrypoint": [spec.command],
        "Cmd": list(_VPS_COMMAND) if spec.task_type == "vps" else spec.arguments,
        "Env": [f"{name}={value}" for name, value in variables.items()],
        "WorkingDir": spec.working_dir or SHARED,
        "User": spec.user or "",
        "Labels": {
            LABEL_TASK: str(spec.task_id),
            LABEL_ATTEMPT: str(spec.attempt),
            LABEL_NODE: place.node,
            LABEL_RUNNER: place.runner,
            LABEL_SPEC: label.model_dump_json(),
        },
        "HostConfig": _host_config(spec, binds, place),
    }


def _host_config(spec: AttemptSpec, binds: list[Bind], place: Place) -> dict[str, Any]:
    config: dict[str, Any] = {
        "NetworkMode": spec.network or place.network,
        "Privileged": spec.privileged,
        # In a VPS somebody has to wait for the programs that people leave behind.
        "Init": spec.task_type == "vps",
        "RestartPolicy": {"Name": "no"},
        "Mounts": [
            {"Type": "bind", "Source": str(bind.source), "Target": bind.target, "ReadOnly": bind.read_only}
            for bind in binds
        ],
        "LogConfig": {
            "Type": "local",
            "Config": {"max-size": str(2 * place.log_max_bytes), "max-file": "2", "compress": "false"},
        },
    }
    if spec.cores and not (spec.cpus and spec.task_type == "command"):
        # The engine refuses more than the machine has, and a node may be configured to offer more.
        config["NanoCpus"] = min(spec.cores, os.cpu_count() or spec.cores) * 10**9
    if spec.memory_bytes:
        config |= {"Memory": spec.memory_bytes, "MemorySwap": spec.memory_bytes}
    if spec.shm_size_bytes:
        config["ShmSize"] = spec.shm_size_bytes
    if spec.numa_node is not None and spec.numa_node in place.numa_cores:
        config |= {"CpusetCpus": place.numa_cores[spec.numa_node], "CpusetMems": str(spec.numa_node)}
    if spec.cpus:
        # So many cores are a limit, too. A VPS keeps the other one, since it may get other cores when it is started again.
        config["CpusetCpus"] = as_list(spec.cpus)
    return config


def split_mount(text: str) -> tuple[str, str, bool]:
    """Source, target and whether read-only, of `HOST:CONTAINER[:ro|rw]`."""
    source, target, *mode = text.split(":")
    return source, target, mode == ["ro"]


def start_failure(command: str, text: str) -> StartFailedError:
    """What the engine's refusal to start means, in one line; with the exit codes that `docker run` gives."""
    line = _NOISE.sub("", " ".join(text.split()))
    if _EXEC.search(line):
        if "not found" in line or "no such file or directory" in line:
            return StartFailedError(
                f"cannot execute {command}: not found in the container", COMMAND_NOT_FOUND
            )
        if "permission denied" in line or "is a directory" in line or "exec format error" in line:
            return StartFailedError(f"cannot execute {command}: not a program", COMMAND_NOT_EXECUTABLE)
    return StartFailedError(f"the Docker engine cannot start the container: {line}")
