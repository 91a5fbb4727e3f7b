"""`hakuriver up`: a whole cluster on this machine, with one command and without root.

It makes what is missing in its folder, starts a Host and Runners as its children, waits until they are online, and
stays in the foreground. A daemon that ends by itself is started again. Ctrl-C ends the daemons; tasks go on, and the
next `hakuriver up` takes them up again.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from hakuriver.client import AsyncClient
from hakuriver.config import CONFIG_VARIABLE, DEFAULT_PATH, Settings, load
from hakuriver.errors import ConflictError, HakuRiverError, UnauthenticatedError, UnreachableError, UsageError
from hakuriver.states import NodeState
from hakuriver_cli.daemons import check_installed
from hakuriver_cli.engine import docker_problem
from hakuriver_cli.processes import Child
from hakuriver_cli.progress import Progress
from hakuriver_cli.up_plan import (
    Daemon,
    configuration,
    free_ports,
    host_daemon,
    is_free,
    pause_before,
    runner_daemons,
)

if TYPE_CHECKING:
    from hakuriver.models.nodes import NodeInfo


MAX_RUNNERS = 64
_LOOK_SECONDS = 0.1
_START_SECONDS = 120.0
_WELL_SECONDS = 60.0
"""A daemon that has run for so long was well: its end is counted as the first one."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def up(
    *,
    runners: Annotated[
        int, Parameter(help="Runners to start; several share the machine's cores evenly.")
    ] = 1,
    directory: Annotated[
        Path, Parameter(name="--dir", help="Folder for configuration, state, logs and shared storage.")
    ] = DEFAULT_PATH.parent,
) -> None:
    """Start a Host and Runners on this machine, and keep them running in the foreground.

    The first time it writes a configuration and tokens into the folder, readable by you alone; a configuration that
    is there already is used as it is. A daemon that ends by itself is started again, and it is said. Ctrl-C ends the
    daemons; tasks go on, and the next start takes them up again.
    """
    if not 1 <= runners <= MAX_RUNNERS:
        raise UsageError(f"--runners {runners} is out of range", f"give 1 to {MAX_RUNNERS}")
    check_installed("host")
    folder = directory.expanduser().absolute()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone(folder):
        asyncio.run(_run(folder, runners))


async def _run(folder: Path, runners: int) -> None:
    await _Cluster(folder, runners).run()


class _Cluster:
    """Host and Runners, from their start to their end."""

    def __init__(self, folder: Path, runners: int) -> None:
        self._folder = folder
        self._count = runners
        self._config = folder / "config.toml"
        self._logs = folder / "logs"
        self._children: dict[str, Child] = {}
        self._complete = False
        self._restarts: set[asyncio.Task[None]] = set()
        self._ends: Counter[str] = Counter()
        """How often in a row a daemon has ended, by its name."""
        self._progress = Progress(sys.stderr)
        self._over: asyncio.Future[Child | None] = asyncio.get_running_loop().create_future()
        """Done when it is to end: with the daemon that could not be started, or with none after a signal."""

    async def run(self) -> None:
        for number in _SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._end, None)
        try:
            with self._progress:
                await self._unless_over(self._start())
            ended = await self._over
            if ended is not None:
                _say("\n".join(ended.last_lines()))
                raise ended.failure()
        finally:
            await self._stop()

    async def _start(self) -> None:
        settings = self._settings()
        problem = await asyncio.to_thread(docker_problem, settings.docker.socket)
        if problem is not None:
            _say(f"{problem}: tasks run as processes of this machine, without containers")
        self._check_ports(settings)
        self._logs.mkdir(exist_ok=True)
        async with AsyncClient(settings.host_url, ca_file=settings.tls.ca_file) as client:
            self._tell("starting the Host")
            await self._begin(host_daemon(self._config, containers=problem is None))
            await self._answering(client)
        plans = runner_daemons(
            self._config,
            settings,
            self._count,
            containers=problem is None,
            cores=len(os.sched_getaffinity(0)),
            memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            choose_port=free_ports([settings.network.runner_port]),
        )
        for plan in plans:
            await self._begin(plan.daemon)
        async with AsyncClient.from_settings(settings, self._config) as client:
            try:
                await self._online(client, [plan.node for plan in plans])
            except UnauthenticatedError:
                raise ConflictError(
                    f"the Host at {settings.host_url} is another one: it does not know the token of {self._folder}",
                    f"end that Host, or set network.host_port in {self._config}",
                ) from None
        self._complete = True
        self._progress.stop()
        self._explain(settings)

    def _settings(self) -> Settings:
        if not self._config.exists():
            self._config.touch(mode=0o600)
            self._config.write_text(configuration(self._folder, free_ports()), "utf-8")
            _say(f"wrote {self._config}")
        settings = load(self._config)
        for path in (settings.paths.shared_dir, settings.paths.local_temp_dir):
            path.mkdir(parents=True, exist_ok=True)
        settings.paths.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        return settings

    def _check_ports(self, settings: Settings) -> None:
        network = settings.network
        for key, address, port in (
            ("host_port", network.host_bind_ip, network.host_port),
            ("runner_port", network.runner_bind_ip, network.runner_port),
        ):
            if not is_free(address, port):
                raise ConflictError(
                    f"port {port} on {address} is in use",
                    f"end what uses it, or set network.{key} in {self._config}",
                )

    async def _begin(self, daemon: Daemon) -> None:
        child = self._children[daemon.name] = await Child.start(daemon, self._logs)
        child.ended.add_done_callback(lambda _: self._on_end(child))

    def _on_end(self, child: Child) -> None:
        """While all is being started it is the end of all; later the daemon is started again."""
        if not self._complete:
            self._end(child)
        elif not self._over.done():
            task = asyncio.create_task(self._begin_again(child))
            self._restarts.add(task)
            task.add_done_callback(self._restarts.discard)

    async def _begin_again(self, child: Child) -> None:
        if time.monotonic() - child.began > _WELL_SECONDS:
            self._ends[child.name] = 0
        pause = pause_before(self._ends[child.name])
        self._ends[child.name] += 1
        failure = child.failure()
        _say(f"{failure.message}; {failure.hint}; it is started again in {pause:g} s")
        await asyncio.wait([self._over], timeout=pause)
        if self._over.done():
            return
        try:
            await self._begin(child.daemon)
        except OSError as error:
            _say(f"the {child.name} cannot be started: {error}")
            self._end(child)

    async def _answering(self, client: AsyncClient) -> None:
        """Waits until the Host answers; whether it knows us does not matter yet."""
        async with asyncio.timeout(_START_SECONDS):
            while True:
                try:
                    await client.cluster()
                except UnreachableError:
                    await asyncio.sleep(_LOOK_SECONDS)
                except HakuRiverError:
                    return
                else:
                    return

    async def _online(self, client: AsyncClient, names: list[str]) -> None:
        async with asyncio.timeout(_START_SECONDS):
            while True:
                nodes = {node.hostname: node for node in await client.nodes()}
                ready = [name for name in names if name in nodes and _is_online(nodes[name])]
                self._tell(f"starting Runners: {len(ready)} of {len(names)} online")
                if len(ready) == len(names):
                    break
                await asyncio.sleep(_LOOK_SECONDS)
        for name in names:
            if nodes[name].problem:
                _say(f"{name}: {nodes[name].problem}")

    def _end(self, child: Child | None) -> None:
        if not self._over.done():
            self._over.set_result(child)

    async def _unless_over(self, work: Coroutine[None, None, None]) -> None:
        """Does the work, and leaves it when a signal comes or a daemon ends."""
        task = asyncio.ensure_future(work)
        try:
            waited: set[asyncio.Future[Any]] = {task, self._over}
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
        except TimeoutError:
            raise HakuRiverError(
                f"the daemons did not become ready within {_START_SECONDS:g} s",
                f"their logs are in {self._logs}",
            ) from None
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _stop(self) -> None:
        self._end(None)
        await asyncio.gather(*self._restarts, return_exceptions=True)
        running = [child for child in self._children.values() if not child.ended.done()]
        if running:
            _say("ending the daemons; tasks go on, and the next `hakuriver up` takes them up again")
        for child in reversed(running):
            await child.stop()

    def _tell(self, text: str) -> None:
        self._progress.update(text)

    def _explain(self, settings: Settings) -> None:
        default = self._config == DEFAULT_PATH.expanduser()
        lines = [
            f"the Host answers at {settings.host_url}, {self._count} Runner(s) are online",
            "in another terminal:",
            *([] if default else [f"  export {CONFIG_VARIABLE}={self._config}"]),
            "  hakuriver task run -- echo hello",
            "  hakuriver task list",
            "  hakuriver node list",
            f"logs: {self._logs}",
            "Ctrl-C ends the daemons; tasks go on",
        ]
        _say("\n".join(lines))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Holds the folder's lock; the kernel gives it back however this process ends."""
    with (folder / "up.lock").open("a+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            owner = file.read().strip()
            raise ConflictError(
                f"`hakuriver up` runs already in {folder}" + (f" (process {owner})" if owner else ""),
                "use that one, end it, or give another folder with --dir",
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def _is_online(node: NodeInfo) -> bool:
    return node.status is NodeState.ONLINE


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
