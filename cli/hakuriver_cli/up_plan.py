"""What `hakuriver up` will start, worked out before anything is: the configuration, ports, and each daemon's command.

Pure but for `choose_port`, which is handed in. One configuration file serves Host and Runners; what differs between
them travels in environment variables.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import tomlkit

from hakuriver.config import Settings

_LOOPBACK = "127.0.0.1"
_LONGEST_PAUSE = 30.0
_HEAD = """\
# Made by `hakuriver up` for this machine alone: everything listens on loopback and lives in this folder.
# Change what you like; it is read at the next start. `hakuriver config show` prints all settings.

"""

PortChooser = Callable[[int], int]


@dataclass(frozen=True, slots=True)
class Daemon:
    """One process to start. `environment` comes on top of the command's own."""

    name: str
    """As people see it, and the name of its log: `host`, `runner-1`."""
    module: str
    config: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def arguments(self) -> list[str]:
        return ["-m", self.module, "--config", str(self.config)]


@dataclass(frozen=True, slots=True)
class RunnerPlan:
    node: str
    daemon: Daemon


def configuration(directory: Path, choose_port: PortChooser) -> str:
    """The text of a configuration that keeps all in `directory`."""
    document = tomlkit.document()
    state = directory / "state"
    sections: dict[str, dict[str, str | int]] = {
        "network": {
            "host_bind_ip": _LOOPBACK,
            "host_port": choose_port(8000),
            "host_ssh_proxy_port": choose_port(8002),
            "host_reachable_address": _LOOPBACK,
            "runner_bind_ip": _LOOPBACK,
            "runner_address": _LOOPBACK,
            "runner_port": choose_port(8001),
        },
        "paths": {
            "shared_dir": str(directory / "shared"),
            "local_temp_dir": str(directory / "temp"),
            "state_dir": str(state),
        },
        # Of one person on their own machine: tasks without container run as whoever starts this.
        "runner": {"join_token_file": str(state / "join.token"), "allow_any_user": True},
        "client": {"token_file": str(state / "admin.token")},
    }
    for name, values in sections.items():
        table = tomlkit.table()
        table.update(values)
        document[name] = table
    return _HEAD + tomlkit.dumps(document)


def host_daemon(config: Path, *, containers: bool) -> Daemon:
    return Daemon("host", "hakuriver_host", config, _engine(containers=containers))


def runner_daemons(
    config: Path,
    settings: Settings,
    count: int,
    *,
    containers: bool,
    cores: int,
    memory_bytes: int,
    choose_port: PortChooser,
) -> list[RunnerPlan]:
    """The Runners. One is as it is configured; several share the machine's cores and memory evenly."""
    plans = []
    for index, share in enumerate(shares(settings.runner.cores or cores, count)):
        number = index + 1
        node = settings.runner.name if number == 1 else f"{settings.runner.name}-{number}"
        own = {"PATHS__STATE_DIR": str(settings.paths.state_dir / f"runner-{number}")}
        if settings.runner.join_token_file is None:
            own["RUNNER__JOIN_TOKEN_FILE"] = str(settings.paths.state_dir / "join.token")
        if count > 1:
            own |= {
                "RUNNER__CORES": str(share),
                "RUNNER__MEMORY_BYTES": str((settings.runner.memory_bytes or memory_bytes) // count),
                "PATHS__LOCAL_TEMP_DIR": str(settings.paths.local_temp_dir / f"runner-{number}"),
            }
        if number > 1:
            own |= {
                "RUNNER__NAME": node,
                "NETWORK__RUNNER_PORT": str(choose_port(settings.network.runner_port + number - 1)),
            }
        environment = _engine(containers=containers) | _prefixed(own)
        plans.append(RunnerPlan(node, Daemon(f"runner-{number}", "hakuriver_agent", config, environment)))
    return plans


def pause_before(starts: int) -> float:
    """Seconds to wait before a daemon that has ended is started again, `starts` times in a row by now."""
    return min(_LONGEST_PAUSE, 2.0 ** min(starts, 10))


def shares(total: int, count: int) -> list[int]:
    """`total` in `count` parts that differ by one at most, each at least one."""
    return [max(1, total // count + (index < total % count)) for index in range(count)]


def free_ports(taken: Iterable[int] = ()) -> PortChooser:
    """Chooses the wanted port if it is free on loopback, else one that is; never the same twice."""
    chosen = set(taken)

    def choose(wanted: int) -> int:
        port = wanted if wanted not in chosen and is_free(_LOOPBACK, wanted) else _any_free(chosen)
        chosen.add(port)
        return port

    return choose


def is_free(address: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def _any_free(chosen: set[int]) -> int:
    while True:
        with socket.socket() as probe:
            probe.bind((_LOOPBACK, 0))
            port: int = probe.getsockname()[1]
        if port not in chosen:
            return port


def _engine(*, containers: bool) -> dict[str, str]:
    return {} if containers else {"HAKURIVER__DOCKER__DEFAULT_CONTAINER_NAME": "NULL"}


def _prefixed(values: Mapping[str, str]) -> dict[str, str]:
    return {f"HAKURIVER__{key}": value for key, value in values.items()}
