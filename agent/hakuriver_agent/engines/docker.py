"""The engine for containers: the Docker SDK, whose calls block, in threads.

A container is named and labelled by its attempt and is never removed by the engine itself: it outlives the Runner,
and its exit code is there until the Host has it. A start costs two calls and the attachment, an end two more.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import socket
import threading
import time
from collections.abc import Collection, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import structlog

from hakuriver.cores import as_list
from hakuriver.errors import ConflictError
from hakuriver.models.environments import TerminalStart
from hakuriver.models.runner import AttemptSpec
from hakuriver.terminals import ContainerExecs, Exec, start_exec
from hakuriver.threads import in_thread, start_thread
from hakuriver_agent.devices.gpus import Gpus, none_there
from hakuriver_agent.engines.again import Again
from hakuriver_agent.engines.container_network import connect_into
from hakuriver_agent.engines.container_usage import ContainerUsage
from hakuriver_agent.engines.docker_answers import ended, failure, moment, unit_of
from hakuriver_agent.engines.docker_door import ContainerGoneError, DockerDoor, in_words, translated
from hakuriver_agent.engines.docker_output import ContainerOutput
from hakuriver_agent.engines.docker_request import (
    LABEL_RUNNER,
    LOCAL_TEMP,
    SHARED,
    VPS_SOCKETS,
    VPS_TOOLS,
    Bind,
    Place,
    container_name,
    create_request,
    split_mount,
)
from hakuriver_agent.engines.gpu_access import (
    NO_ACCESS,
    OTHER_GPUS,
    Access,
    chosen,
    host_config,
    is_made_with,
    must_have,
    visible,
    ways,
)
from hakuriver_agent.engines.held_sources import HeldSources, clear_all
from hakuriver_agent.engines.init_process import ignores_sigterm
from hakuriver_agent.engines.memory_kills import engine_missed, kernel_killed, kernel_kills
from hakuriver_agent.engines.port import (
    Adopted,
    Ended,
    Engine,
    EngineUnavailableError,
    Key,
    Launch,
    Started,
    StartFailedError,
    Unit,
    Used,
)
from hakuriver_agent.engines.process import without_secrets
from hakuriver_agent.environments import Environments
from hakuriver_agent.environments.images import DockerImages
from hakuriver_agent.folders import Folders, ForbiddenPathError, make_scratch
from hakuriver_agent.identity import ForbiddenUserError, Ids, ids_of, in_container
from hakuriver_agent.logfile import LogFile

PROBE_SECONDS = 5.0
MOUNT_SECONDS = 5.0
RETRY_SECONDS = 0.5
SNAPSHOTS = "hakuriver-snapshot"
"""Repositories of images that are there while a snapshot is taken."""
_LOOK_SECONDS = 0.2
_AWAY = "the Docker engine was away when it ended"
_GONE = "the container was removed by somebody else"

T = TypeVar("T")
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class DockerSettings:
    """What the engine needs of the settings."""

    node: str
    folders: Folders
    log_max_bytes: int
    url: str = ""
    run_as_owner: bool = False
    allow_privileged: bool = False
    network: str = "bridge"
    """Of tasks that name none."""
    allowed_networks: tuple[str, ...] = ("bridge", "none", "host")
    parallel_starts: int = 8
    numa_cores: dict[int, str] = field(default_factory=dict)
    gpus: Gpus = field(default_factory=none_there)
    gpu_access: Literal["auto", "cdi", "runtime", "devices"] = "auto"
    environment_cache_bytes: int | None = None


class DockerEngine(Engine):
    """See `Engine`."""

    name = "docker"

    def __init__(self, settings: DockerSettings) -> None:
        self._settings = settings
        state = os.path.realpath(settings.folders.state)
        runner = hashlib.sha256(os.fsencode(state)).hexdigest()[:12]
        self._place = Place(
            settings.node, runner, settings.log_max_bytes, settings.network, settings.numa_cores
        )
        self._door = DockerDoor(settings.url)
        self.environments = Environments(
            settings.folders.containers,
            DockerImages(self._door),
            settings.folders.state,
            settings.environment_cache_bytes,
        )
        self._usage = ContainerUsage(self._door.inspect, self._door.stats)
        self._starting = asyncio.Semaphore(settings.parallel_starts)
        self._ends: dict[Key, asyncio.Future[Ended]] = {}
        self._outputs: dict[Key, ContainerOutput] = {}
        self._stopping: set[Key] = set()
        """Whose end was asked for."""
        self._closed = threading.Event()
        self._probe: asyncio.Task[str | None] | None = None
        self._gpu_probe: asyncio.Task[None] | None = None
        self._gpu_note = ""
        clear_all(settings.folders.held_sources)

    async def problem(self) -> str | None:
        if self._probe is None or self._probe.done():
            self._probe = asyncio.create_task(in_thread(self._door.ping, name="docker probe"))
        try:
            return await asyncio.wait_for(asyncio.shield(self._probe), PROBE_SECONDS)
        except TimeoutError:
            return "the Docker engine does not answer"

    async def gpu_note(self) -> str:
        """Why its containers can be given no GPU, as was last known; empty when they can, or when there is none."""
        if not self._settings.gpus.infos:
            return ""
        if self._gpu_probe is None or self._gpu_probe.done():
            self._gpu_probe = asyncio.create_task(self._look_at_ways())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._gpu_probe), PROBE_SECONDS)
        return self._gpu_note

    async def _look_at_ways(self) -> None:
        with contextlib.suppress(EngineUnavailableError):  # Which is told as the engine's problem.
            found = await self._door.call(lambda: ways(self._door.client().info()))
            self._gpu_note = "" if chosen(self._settings.gpu_access, found) else NO_ACCESS

    async def refusal(self, spec: AttemptSpec) -> str | None:
        settings = self._settings
        if spec.environment is None or spec.environment_version is None:
            return "a task for the Docker engine names no environment"
        if spec.privileged and not settings.allow_privileged:
            return "privileged tasks are not allowed on this node (runner.allow_privileged)"
        if spec.network is not None and spec.network not in settings.allowed_networks:
            return f"the network {spec.network} is not allowed on this node (runner.allowed_networks)"
        try:
            in_container(spec, run_as_owner=settings.run_as_owner)
        except ForbiddenUserError as error:
            return str(error)
        if spec.numa_node is not None and spec.numa_node not in settings.numa_cores:
            return f"this node has no NUMA node {spec.numa_node}"
        if spec.mounts:
            try:
                await in_thread(lambda: self._binds(spec), MOUNT_SECONDS)
            except ForbiddenPathError as error:
                return str(error)
            except TimeoutError:
                return f"a mount source does not answer on this node ({', '.join(spec.mounts)})"
        return None

    async def start(self, spec: AttemptSpec, launch: Launch) -> Started:
        await must_have(self._settings.gpus, spec.gpus)
        spec = self._with_user(spec)
        if spec.run:
            return await self._start_kept(spec, launch)
        with self.environments.wanted(spec):
            _, image = await self.environments.image(spec, launch)
            try:
                return await self._start_of(spec, image, launch)
            except _NoImageError:
                self.environments.forget(spec)
            _, image = await self.environments.image(spec, launch)
            try:
                return await self._start_of(spec, image, launch)
            except _NoImageError:
                raise EngineUnavailableError("the Docker engine lost the image again") from None

    async def _start_of(self, spec: AttemptSpec, image: str, launch: Launch) -> Started:
        """Starts a container of the image with this id: its name may come to mean another image."""
        async with self._starting:
            launch.check()
            kills = kernel_kills()
            started = await self._door.call(lambda: self._create_and_start(spec, image, launch))
        self._watch(spec, kills, look=spec.memory_bytes is not None)
        return Started(started, container_name(spec.key), image)

    async def _start_kept(self, spec: AttemptSpec, launch: Launch) -> Started:
        """Starts a container that was stopped, or finds it started."""
        async with self._starting:
            launch.check()
            kills = kernel_kills()
            self._stopping.discard(spec.key)
            started, image = await self._door.call(lambda: self._start_what_is_there(spec, launch))
        self._watch(spec, kills)
        return Started(started, container_name(spec.key), image)

    async def adopt(self, spec: AttemptSpec, *, ending: bool = False) -> Adopted | None:
        if ending:
            self._stopping.add(spec.key)
        name, kills = container_name(spec.key), kernel_kills()
        info = await self._door.call(lambda: self._door.inspect(name))
        if info is None or info["Config"]["Labels"].get(LABEL_RUNNER) != self._place.runner:
            return None
        if info["State"]["Status"] == "created":
            return None
        with contextlib.suppress(StartFailedError):
            # The settings may be others than at its start: it goes on, and its files stay whose they are.
            spec = self._with_user(spec)
        await self._door.call(lambda: self._output(spec).follow())
        self._watch(spec, kills)
        started = Started(moment(info["State"]["StartedAt"]), name, info["Image"])
        return Adopted(started, info["State"]["Status"] == "paused")

    async def wait(self, key: Key) -> Ended:
        return await asyncio.shield(self._ends[key])

    async def terminate(self, key: Key) -> None:
        self._stopping.add(key)
        await self._door.call(lambda: self._terminate(key))

    async def kill(self, key: Key) -> None:
        self._stopping.add(key)
        await self._door.call(lambda: self._signal(key, "SIGKILL"))

    async def pause(self, key: Key) -> None:
        await self._door.call(lambda: self._door.quietly(self._door.client().pause, container_name(key)))

    async def resume(self, key: Key) -> None:
        await self._door.call(lambda: self._door.quietly(self._door.client().unpause, container_name(key)))

    async def remove(self, key: Key) -> None:
        await self._door.call(lambda: self._remove(key))
        self._ends.pop(key, None)
        self._stopping.discard(key)
        self._outputs.pop(key, None)
        self._usage.forget(key)

    async def units(self) -> list[Unit]:
        label = f"{LABEL_RUNNER}={self._place.runner}"
        found = await self._door.call(
            lambda: self._door.client().containers(all=True, filters={"label": [label]})
        )
        return [unit for unit in map(unit_of, found) if unit]

    async def run_beside(self, key: Key, wanted: TerminalStart) -> Exec:
        name = container_name(key)
        wanted = wanted.model_copy(update={"user": self.enters_as(wanted.user)})
        return await start_exec(ContainerExecs(self._door.client, name, in_words), wanted)

    async def snapshot(self, key: Key) -> Generator[bytes]:
        def commit() -> Generator[bytes]:
            # Without limit: both take as long as there are files.
            client = self._door.connect(None)
            with in_words(f"task {key[0]}"):
                image = client.commit(container_name(key), f"{SNAPSHOTS}/{key[0]}-{key[1]}")["Id"]
                try:
                    return self._image_of(image, client.get_image(image))
                except BaseException:
                    self._door.quietly(lambda: self._door.client().remove_image(image, force=True))
                    raise

        try:
            return await self._door.call(commit)
        except ContainerGoneError:
            raise ConflictError(f"task {key[0]} is here no more", "see `hakuriver task status`") from None

    def _image_of(self, image: str, archive: Iterator[bytes]) -> Generator[bytes]:
        """The archive, piece by piece; its image is removed afterwards."""
        try:
            yield from archive
        finally:
            self._door.quietly(lambda: self._door.client().remove_image(image, force=True))

    async def forget_snapshots(self) -> None:
        """Removes the images of snapshots that an earlier life was taking."""

        def work() -> None:
            for image in self._door.client().images(filters={"reference": f"{SNAPSHOTS}/*"}):
                self._door.quietly(
                    lambda image=image: self._door.client().remove_image(image["Id"], force=True)
                )

        with contextlib.suppress(EngineUnavailableError):
            await self._door.call(work)

    async def usage(self, keys: Collection[Key]) -> dict[Key, Used]:
        """Those of which the engine has to be asked all at once: an answer can take it a second."""
        asked = [[key] for key in keys if self._usage.asks(key)]
        read = [key for key in keys if not self._usage.asks(key)]
        looks = [self._door.call(partial(self._look, some)) for some in (read, *asked) if some]
        return dict(pair for found in await asyncio.gather(*looks) for pair in found.items())

    def _look(self, keys: Collection[Key]) -> dict[Key, Used]:
        found: dict[Key, Used] = {}
        for key in keys:
            with contextlib.suppress(ContainerGoneError), translated():
                if used := self._usage.read(key):
                    found[key] = used
        return found

    def enters_as(self, user: str | None) -> str | None:
        """Where containers run as their owners, nobody is to be anybody else in one."""
        return None if self._settings.run_as_owner else user

    async def connect(self, key: Key, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        name = container_name(key)

        def work() -> socket.socket:
            with in_words(f"port {port}"):
                return connect_into(self._door.inspect(name), port)

        # A thread of its own, which ends in the container's network: never one of a pool's.
        return await asyncio.open_connection(sock=await start_thread(work, name="connect"))

    def holds(self) -> Sequence[str]:
        return self.environments.present

    async def close(self) -> None:
        self._closed.set()
        for output in self._outputs.values():
            output.abandon()

    def _with_user(self, spec: AttemptSpec) -> AttemptSpec:
        """The specification with the user that it runs as."""
        try:
            user = in_container(spec, run_as_owner=self._settings.run_as_owner)
        except ForbiddenUserError as error:
            raise StartFailedError(str(error)) from None
        return spec.model_copy(update={"user": user})

    def _create_and_start(self, spec: AttemptSpec, image: str, launch: Launch) -> datetime:
        """In a thread. Finds what an earlier life created, and never starts twice."""
        client, name = self._door.client(), container_name(spec.key)
        with HeldSources(self._held(spec)) as held:
            if not self._create(spec, image, name, held):
                state = client.inspect_container(name)["State"]
                if state["Status"] != "created":
                    self._output(spec).follow()
                    return moment(state["StartedAt"])
            launch.check()
            self._output(spec).attach()
            self._start(client, spec, name)
        return datetime.now(UTC)

    def _start_what_is_there(self, spec: AttemptSpec, launch: Launch) -> tuple[datetime, str]:
        """In a thread; when it started, and its image."""
        name = container_name(spec.key)
        info = self._door.inspect(name)
        if info is None:
            raise StartFailedError(_GONE)
        if info["State"]["Running"]:
            self._output(spec).follow()
            return moment(info["State"]["StartedAt"]), info["Image"]
        launch.check()
        self._give_cores(spec, info)
        self._start_ended(spec)
        return datetime.now(UTC), info["Image"]

    def _give_cores(self, spec: AttemptSpec, info: dict[str, Any]) -> None:
        """Those that its attempt has now: it may have been made with cores that are others' by now."""
        from docker.errors import APIError  # noqa: PLC0415 - see `docker_door`

        made_with = (info.get("HostConfig") or {}).get("CpusetCpus") or ""
        # The engine takes an empty list for no change.
        wanted = as_list(
            spec.cpus or (os.sched_getaffinity(0) if made_with and spec.numa_node is None else ())
        )
        if wanted not in {"", made_with}:
            try:
                self._door.client().update_container(container_name(spec.key), cpuset_cpus=wanted)
            except APIError as error:
                raise failure(spec, error) from None

    def _start_ended(self, spec: AttemptSpec) -> None:
        """In a thread: starts a container that has ended, with its mounts as they are now."""
        folders = self._settings.folders
        self._check_gpus(spec)
        with HeldSources(self._held(spec)) as held:
            with _preparing():
                # A folder for what is temporary may have been emptied when the machine started.
                make_scratch(folders.scratch(*spec.key), _ids(spec))
                self._vps_binds(spec)
                for bind in self._binds(spec):
                    held.hold(bind.source)
            if spec.key in self._stopping:
                return
            self._output(spec).attach()
            self._start(self._door.client(), spec, container_name(spec.key))

    def _create(self, spec: AttemptSpec, image: str, name: str, held: HeldSources) -> bool:
        """Creates the container; False when an earlier life did."""
        from docker.errors import APIError, ImageNotFound  # noqa: PLC0415 - see `docker_door`

        folders, scratch = self._settings.folders, self._settings.folders.scratch(*spec.key)
        with _preparing():
            make_scratch(scratch, _ids(spec))
            binds = [Bind(folders.shared_data, SHARED), Bind(scratch, LOCAL_TEMP)]
            if spec.task_type == "vps":
                binds += self._vps_binds(spec)
            binds += [replace(bind, source=held.hold(bind.source)) for bind in self._binds(spec)]
        request = create_request(spec, without_secrets(spec), image, binds, self._place)
        self._give_gpus(request, spec)
        try:
            self._door.client().create_container_from_config(request, name)
        except ImageNotFound:
            raise _NoImageError from None
        except APIError as error:
            if error.status_code != 409:  # noqa: PLR2004 - HTTP: the name is taken
                raise failure(spec, error) from None
            return False
        return True

    def _give_gpus(self, request: dict[str, Any], spec: AttemptSpec) -> None:
        if not self._settings.gpus.may_be_there:
            return
        access, config = self._gpu_config(spec)
        request["HostConfig"] |= config
        request["Env"].append(f"NVIDIA_VISIBLE_DEVICES={visible(access, spec.gpus)}")

    def _gpu_config(self, spec: AttemptSpec) -> tuple[Access | None, dict[str, Any]]:
        """How its container is given its GPUs, and what `HostConfig` says of it."""
        if not spec.gpus:
            return None, {}
        found, gpus = ways(self._door.client().info()), self._settings.gpus
        access = chosen(self._settings.gpu_access, found)
        if access is None:
            raise StartFailedError(NO_ACCESS)
        return access, host_config(access, spec.gpus, gpus.numbers, gpus.minors, found.cdi)

    def _check_gpus(self, spec: AttemptSpec) -> None:
        """That the container has the GPUs that its attempt holds: it may have been made with numbers that are others' now."""
        if spec.gpus:
            info = self._door.inspect(container_name(spec.key)) or {}
            access, config = self._gpu_config(spec)
            if not is_made_with(info.get("HostConfig") or {}, config, access):
                raise StartFailedError(OTHER_GPUS)

    def _start(self, client: Any, spec: AttemptSpec, name: str) -> None:
        from docker.errors import APIError  # noqa: PLC0415 - see `docker_door`

        try:
            client.start(name)
        except APIError as error:
            raise failure(spec, error) from None

    def _held(self, spec: AttemptSpec) -> Path:
        return self._settings.folders.held_sources / f"{spec.task_id}-{spec.attempt}"

    def _binds(self, spec: AttemptSpec) -> list[Bind]:
        binds = []
        for text in spec.mounts:
            source, target, read_only = split_mount(text)
            binds.append(Bind(self._settings.folders.mount_source(source), target, read_only))
        return binds

    def _vps_binds(self, spec: AttemptSpec) -> list[Bind]:
        folders = self._settings.folders
        sockets = folders.vps_sockets(*spec.key)
        sockets.mkdir(parents=True, exist_ok=True)
        folders.vps_tools.mkdir(parents=True, exist_ok=True)
        # Read-only, the sockets too: connecting takes the right to write to the socket, not to its folder, and what the
        # Runner makes there nobody in the VPS may put a link in place of.
        return [
            Bind(folders.vps_tools, VPS_TOOLS, read_only=True),
            Bind(sockets, VPS_SOCKETS, read_only=True),
        ]

    def _output(self, spec: AttemptSpec) -> ContainerOutput:
        files, owner = [], _ids(spec)
        for relative in (spec.stdout_path, spec.stderr_path):
            try:
                path = self._settings.folders.log_file(relative)
            except ForbiddenPathError as error:
                raise StartFailedError(str(error)) from None
            files.append(
                LogFile(str(path), self._settings.log_max_bytes, owner, str(self._settings.folders.marker))
            )
        if earlier := self._outputs.get(spec.key):
            earlier.abandon()
        output = ContainerOutput(self._door.client(), container_name(spec.key), files[0], files[1])
        self._outputs[spec.key] = output
        return output

    def _watch(self, spec: AttemptSpec, kills: int | None, look: bool = True) -> None:
        """Has a thread wait for the end of a started container.

        `kills` is the kernel's count of before it was started or adopted. `look` says whether there is more to know of
        an exit code 0: what the kernel killed for want of memory, when there is a limit, or when it began and ended,
        when this life did not see it.
        """
        loop, key = asyncio.get_running_loop(), spec.key
        future: asyncio.Future[Ended] = loop.create_future()
        self._ends[key] = future
        again = Again() if spec.task_type == "vps" and spec.restart == "always" else None

        def settle(ended: Ended) -> None:
            if not future.done():
                future.set_result(ended)

        def work() -> None:
            ended = self._until_end(spec, kills, look, again)
            if ended is not None and not loop.is_closed():
                loop.call_soon_threadsafe(settle, ended)

        threading.Thread(target=work, name=f"wait {container_name(key)}", daemon=True).start()

    def _until_end(
        self, spec: AttemptSpec, kills: int | None, look: bool, again: Again | None
    ) -> Ended | None:
        """In a thread: waits for the end, over engines that come and go; none when the Runner ends first.

        With `again` it is started again when it ends unasked, so that it outlives restarts of its machine.
        """
        key = spec.key
        name, output, hiccup = container_name(key), self._outputs[key], False
        while not self._closed.is_set():
            try:
                with translated():
                    answer = self._door.client().wait(name, timeout=None)
                    if (
                        not look
                        and not hiccup
                        and not again
                        and answer["StatusCode"] == 0
                        and not answer.get("Error")
                    ):
                        return Ended(0, datetime.now(UTC), message=output.finish(hiccup=False))
                    info = self._door.inspect(name)
                    oom = info is not None and self._out_of_memory(info, kills)
            except EngineUnavailableError as error:
                if not hiccup:
                    log.warning(
                        "the Docker engine went away; waiting for it", container=name, error=str(error)
                    )
                hiccup = True
                self._closed.wait(RETRY_SECONDS)
                continue
            except ContainerGoneError:
                info, oom = None, False
            if info is None:
                output.abandon()
                return Ended(None, datetime.now(UTC), message=_GONE)
            if not info["State"]["Running"] and not info["State"]["Restarting"]:
                if again and key not in self._stopping:
                    output.finish(hiccup)
                    if self._start_again(spec, info["State"], again):
                        output, hiccup = self._outputs[key], False
                        continue
                lost = output.finish(hiccup) or (_AWAY if hiccup else None)
                return ended(info["State"], lost, oom=oom)
        return None

    def _start_again(self, spec: AttemptSpec, state: dict[str, Any], again: Again) -> bool:
        """In a thread: starts a container that has ended once more; False when it is given up, or stopped meanwhile."""
        folders = self._settings.folders
        while not self._closed.is_set() and not folders.marker.exists():
            # Its mounts are on the share, which may come after the Runner when the machine starts.
            self._rest(spec.key, RETRY_SECONDS)
            if spec.key in self._stopping:
                return False
        pause = again.pause(moment(state["StartedAt"]), moment(state["FinishedAt"]))
        if pause is None:
            return False
        log.warning("a VPS has ended unasked; starting it again", task=spec.task_id, seconds=pause)
        self._rest(spec.key, pause)
        if self._closed.is_set():
            return True
        try:
            self._start_ended(self._with_user(spec))
        except (StartFailedError, EngineUnavailableError, OSError) as error:
            log.warning("a VPS could not be started again", task=spec.task_id, cause=str(error))
            self._outputs[spec.key].abandon()
        return True

    def _rest(self, key: Key, seconds: float) -> None:
        """In a thread: waits, unless the end of that container is asked for or the Runner ends."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and key not in self._stopping:
            if self._closed.wait(min(left, _LOOK_SECONDS)):
                return

    def _out_of_memory(self, info: dict[str, Any], kills: int | None) -> bool:
        """In a thread. Whether the kernel killed one of an ended container's processes for want of memory."""
        state = info["State"]
        if state["OOMKilled"] or state["Running"]:
            return bool(state["OOMKilled"])
        started, finished = moment(state["StartedAt"]), moment(state["FinishedAt"])
        return engine_missed(
            int(state["ExitCode"]),
            finished - started,
            kernel_killed(info["Id"], kills),
            lambda: self._door.told_of_memory(info["Id"], started, finished),
        )

    def _terminate(self, key: Key) -> None:
        """SIGTERM; and SIGKILL at once where the container's first process has no handler for it.

        The kernel does not deliver a signal without handler to the first process of a namespace, so waiting for
        the grace to pass would be waiting for nothing.
        """
        info = self._door.inspect(container_name(key))
        deaf = info is not None and ignores_sigterm(info["State"]["Pid"])
        self._signal(key, "SIGKILL" if deaf else "SIGTERM")

    def _signal(self, key: Key, signal: str) -> None:
        """A paused container gets it too: the engine continues it once the signal waits for it."""
        name = container_name(key)
        self._door.quietly(lambda: self._door.client().kill(name, signal))
        info = self._door.inspect(name)
        if info and info["State"]["Paused"]:
            self._door.quietly(lambda: self._door.client().unpause(name))

    def _remove(self, key: Key) -> None:
        name = container_name(key)
        self._door.quietly(lambda: self._door.client().remove_container(name, v=True, force=True))
        shutil.rmtree(self._settings.folders.scratch(*key), ignore_errors=True)
        shutil.rmtree(self._settings.folders.vps_sockets(*key), ignore_errors=True)


@contextlib.contextmanager
def _preparing() -> Iterator[None]:
    """What cannot be prepared on the node is a start that has failed. The engine is not to be asked in it: one that is away raises `OSError` too."""
    try:
        yield
    except ForbiddenPathError as error:
        raise StartFailedError(str(error)) from None
    except OSError as error:
        raise StartFailedError(f"cannot prepare {error.filename}: {error.strerror}") from None


def _ids(spec: AttemptSpec) -> Ids | None:
    return None if spec.user is None else ids_of(spec.user)


class _NoImageError(Exception):
    """The engine does not have the image."""
