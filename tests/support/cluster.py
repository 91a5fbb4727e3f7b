"""A whole cluster on this machine: the real Host and Runners as processes, on free ports and in folders of their own.

Between Host and Runners there can be a relay for each direction, so that the link can be cut. At the end
everything is stopped and nothing of it may be left: `assert_clean` says what is.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import httpx

from hakuriver.states import FINAL, NodeState
from support import engine, leaks, settings
from support.api import Api
from support.commands import Commands
from support.daemons import Daemon
from support.ports import free_port
from support.relay import Relay
from support.waiting import until

_LOOPBACK = "127.0.0.1"
_FAR = "127.0.0.2"
"""A second loopback address: the relays to Runners listen here, on the Runner's own port."""


class Node(NamedTuple):
    """A Runner of the cluster."""

    name: str
    daemon: Daemon
    relay: Relay | None


class Cluster:
    """`start` brings it up; `host` and `nodes` are its daemons, `api` and `run` speak to it as its admin."""

    def __init__(
        self,
        folder: Path,
        *,
        runners: int = 1,
        cores: int = 4,
        containers: bool = False,
        relays: bool = False,
        state_dir: Path | None = None,
        sections: settings.Sections | None = None,
        runner_sections: settings.Sections | None = None,
        runner_environment: dict[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.shared = folder / "shared"
        self.state_dir = state_dir or folder / "host-state"
        self.port = free_port()
        self.ssh_port = free_port()
        self.url = f"http://{_LOOPBACK}:{self.port}"
        self._cores = cores
        self._containers = containers
        self._sections = sections or {}
        self._runner_sections = runner_sections or {}
        self._runner_environment = runner_environment
        self._host_relay = Relay(_LOOPBACK, free_port(), (_LOOPBACK, self.port)) if relays else None
        self.config = settings.write(folder / "host.toml", self._host_settings())
        self.host = Daemon("hakuriver_host", self.config, folder / "host.log")
        prefix = f"t{uuid.uuid4().hex[:8]}"
        self.nodes = [self._make_node(f"{prefix}-{number}", relays) for number in range(runners)]
        self._api: Api | None = None

    @property
    def node(self) -> Node:
        """The first Runner."""
        return self.nodes[0]

    @property
    def api(self) -> Api:
        if self._api is None:
            self._api = self.api_as((self.state_dir / "admin.token").read_text("utf-8").strip())
        return self._api

    def api_as(self, token: str) -> Api:
        return Api(self.url, token)

    @property
    def run(self) -> Commands:
        """The command line, with the admin's token."""
        return Commands({"HAKURIVER_CONFIG": str(self.config)})

    def start(self) -> None:
        self.shared.mkdir(exist_ok=True)
        if self._containers:
            engine.write_environment(self.shared / "hakuriver-containers")
        if self._host_relay:
            self._host_relay.start()
        self.start_host()
        for node in self.nodes:
            if node.relay:
                node.relay.start()
            node.daemon.start()
        self.wait_online()

    def start_host(self) -> None:
        self.host.start()
        self.wait_host()

    def wait_host(self, within: float = 30.0) -> None:
        until(self.host_answers, lambda: f"the Host answers; it says:\n{self.host.output()[-3000:]}", within)

    def wait_online(self, within: float = 30.0) -> None:
        """Until every Runner is online and gets work."""

        def probe() -> bool:
            known = self.api.nodes()
            return all(node.name in known and known[node.name].schedulable for node in self.nodes)

        until(probe, self._describe, within)

    def wait_node(self, state: NodeState, node: Node | None = None, within: float = 30.0) -> None:
        name = (node or self.node).name
        until(
            lambda: self.api.nodes()[name].status == state,
            lambda: f"{name} {state}\n{self._describe()}",
            within,
        )

    def cut(self, how: Literal["drop", "reset"] = "drop") -> None:
        """Cuts every link between Host and Runners, in both directions."""
        for relay in self._relays():
            relay.cut(how)

    def mend(self) -> None:
        for relay in self._relays():
            relay.mend()

    def assert_clean(self, task_ids: Collection[int] | None = None, within: float = 30.0) -> None:
        """No container, no process of a task, no resource held, and no task that is not final."""
        until(
            lambda: not self._held(task_ids), lambda: "nothing left; there is " + self._held(task_ids), within
        )

    def stop(self) -> None:
        for daemon in (*(node.daemon for node in self.nodes), self.host):
            daemon.kill()
        for relay in self._relays():
            relay.stop()
        for node in self.nodes:
            leaks.end_task_processes(self._task_ids_on_share())
            if self._containers:
                engine.remove_containers_of(node.name)

    def _held(self, task_ids: Collection[int] | None) -> str:
        """What is left, in words; empty when nothing is."""
        ids = self._task_ids_on_share() if task_ids is None else task_ids
        left = [f"process {pid} of task {task}" for pid, task in leaks.task_processes(ids).items()]
        for node in self.nodes:
            info = self.api.nodes()[node.name]
            if info.cores_in_use or info.memory_in_use_bytes or info.running_tasks:
                left.append(f"on {node.name}: {info.cores_in_use} cores, {info.memory_in_use_bytes} bytes")
            if self._containers:
                left += [
                    f"container {found.name} ({found.status})" for found in engine.containers_of(node.name)
                ]
        counts = self.api.cluster().tasks
        left += [f"{count} tasks {state}" for state, count in counts.items() if count and state not in FINAL]
        return ", ".join(left)

    def _task_ids_on_share(self) -> set[int]:
        folder = self.shared / "task_outputs"
        names = (path.name.partition(".")[0] for path in folder.iterdir()) if folder.is_dir() else iter(())
        return {int(name) for name in names if name.isdecimal()}

    def host_answers(self) -> bool:
        assert self.host.is_running, f"the Host ended:\n{self.host.output()[-3000:]}"
        try:
            return self.api.call("GET", "/api/cluster").is_success
        except (httpx.TransportError, FileNotFoundError):
            return False

    def _describe(self) -> str:
        daemons = [self.host, *(node.daemon for node in self.nodes)]
        logs = "\n".join(f"--- {daemon.log.name}\n{daemon.output()[-2000:]}" for daemon in daemons)
        return f"all Runners online; {self.api.call('GET', '/api/nodes').text}\n{logs}"

    def _relays(self) -> list[Relay]:
        relays = [self._host_relay, *(node.relay for node in self.nodes)]
        return [relay for relay in relays if relay is not None]

    def _host_settings(self) -> dict[str, dict[str, object]]:
        own: settings.Sections = {
            "network": {
                "host_bind_ip": _LOOPBACK,
                "host_port": self.port,
                "host_ssh_proxy_port": self.ssh_port,
            },
            "paths": {"shared_dir": self.shared, "state_dir": self.state_dir},
            "docker": {"default_container_name": engine.ENVIRONMENT if self._containers else "NULL"},
            "client": {"url": self.url, "token_file": self.state_dir / "admin.token"},
        }
        return settings.merged(settings.QUICK, own, self._sections)

    def _make_node(self, name: str, with_relay: bool) -> Node:
        port = free_port()
        relay = Relay(_FAR, port, (_LOOPBACK, port)) if with_relay else None
        own: settings.Sections = {
            "network": {
                "runner_bind_ip": _LOOPBACK,
                "runner_address": _FAR if relay else _LOOPBACK,
                "runner_port": port,
            },
            "paths": {
                "shared_dir": self.shared,
                "state_dir": self.folder / f"{name}-state",
                "local_temp_dir": self.folder / f"{name}-temp",
            },
            "client": {
                "url": f"http://{_LOOPBACK}:{self._host_relay.port}" if self._host_relay else self.url
            },
            "runner": {
                "name": name,
                "cores": self._cores,
                "memory_bytes": 8_000_000_000,
                "join_token_file": self.state_dir / "join.token",
            },
        }
        sections = settings.merged(self._host_settings(), own, self._sections, self._runner_sections)
        config = settings.write(self.folder / f"{name}.toml", sections)
        log = self.folder / f"{name}.log"
        return Node(name, Daemon("hakuriver_agent", config, log, self._runner_environment), relay)


@contextmanager
def running(cluster: Cluster) -> Iterator[Cluster]:
    """Starts the cluster, and stops and cleans it whatever happens."""
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
