"""The engine without containers: tasks are processes of this machine, started and kept by the shim.

The shim (`hakuriver_agent.shim`) is their parent and outlives the Runner. This side translates: specification to
command line, user, limits and files; ends to exit codes.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import pwd
import shutil
import signal
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import structlog

from hakuriver.models.runner import AttemptSpec
from hakuriver_agent.devices.gpus import Gpus, none_there
from hakuriver_agent.engines.commands import (
    DEFAULT_PATH,
    cuda_variables,
    numactl,
    systemd_scope,
    task_variables,
)
from hakuriver_agent.engines.gpu_access import must_have
from hakuriver_agent.engines.port import (
    COMMAND_NOT_EXECUTABLE,
    COMMAND_NOT_FOUND,
    Adopted,
    Ended,
    Engine,
    Key,
    Launch,
    Started,
    StartFailedError,
    Unit,
    UnitState,
    Used,
)
from hakuriver_agent.engines.shimlink import Fields, ShimLink
from hakuriver_agent.folders import Folders, ForbiddenPathError, remove_scratch
from hakuriver_agent.identity import ForbiddenUserError, Ids, Rules, as_process

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ProcessSettings:
    """What the engine needs of the settings."""

    node: str
    folders: Folders
    log_max_bytes: int
    run_as_owner: bool = False
    runner_user: str = ""
    allow_any_user: bool = False
    numactl_path: str = ""
    numa_nodes: frozenset[int] = frozenset()
    gpus: Gpus = field(default_factory=none_there)
    systemd: bool = False
    """Give the shim a scope."""
    scopes: bool = False
    """Give each task a scope."""


def systemd_runs() -> bool:
    """Whether systemd manages this machine and lets us make scopes; see sd_booted(3)."""
    booted = Path("/run/systemd/system").is_dir()
    return booted and os.geteuid() == 0 and shutil.which("systemd-run") is not None


def scopes_tell_oom() -> bool:
    """Whether a task may have a scope: with version 2 of control groups.

    systemd removes an ended scope's group at once, and whether the kernel killed something in it can then be told by
    the slice above it alone, which counts only in version 2. Elsewhere the shim makes the groups itself.
    """
    return Path("/sys/fs/cgroup/cgroup.controllers").exists()


class ProcessEngine(Engine):
    """See `Engine`."""

    name = "process"

    def __init__(self, settings: ProcessSettings) -> None:
        self._settings = settings
        state = settings.folders.state
        tag = hashlib.sha256(os.fsencode(os.path.realpath(state))).hexdigest()[:12]
        self._link = ShimLink(state, f"hakuriver-{tag}", self._on_end, settings.systemd)
        self._ends: dict[Key, asyncio.Future[Ended]] = {}

    async def problem(self) -> str | None:
        return None

    async def refusal(self, spec: AttemptSpec) -> str | None:
        try:
            self._user(spec)
        except ForbiddenUserError as error:
            return str(error)
        if spec.numa_node is not None and spec.numa_node not in self._settings.numa_nodes:
            return f"this node has no NUMA node {spec.numa_node}"
        if spec.numa_node is not None and not self._numactl():
            return "the task asks for a NUMA node, and numactl is not installed on this node"
        return None

    async def start(self, spec: AttemptSpec, launch: Launch) -> Started:
        await must_have(self._settings.gpus, spec.gpus)
        launch.check()
        try:
            answer = await self._link.request(self._request(spec))
        except OSError as error:
            raise StartFailedError(f"cannot start the process: {error.strerror}") from None
        if (ended := answer.get("ended")) and not ended["started"]:
            raise StartFailedError(ended["message"], ended["exit_code"])
        return _started(spec.key, answer)

    async def adopt(self, spec: AttemptSpec, *, ending: bool = False) -> Adopted | None:
        del ending  # Nothing is started again unasked here.
        if not self._link.exists:
            return None
        units = (await self._link.request({"do": "units"}))["units"]
        unit = units.get(_name(spec.key))
        return Adopted(_started(spec.key, unit), unit["frozen"]) if unit else None

    async def wait(self, key: Key) -> Ended:
        return await asyncio.shield(self._end_of(key))

    async def terminate(self, key: Key) -> None:
        await self._link.request({"do": "signal", "key": _name(key), "number": int(signal.SIGTERM)})

    async def kill(self, key: Key) -> None:
        await self._link.request({"do": "signal", "key": _name(key), "number": int(signal.SIGKILL)})

    async def pause(self, key: Key) -> None:
        await self._link.request({"do": "freeze", "key": _name(key), "frozen": True})

    async def resume(self, key: Key) -> None:
        await self._link.request({"do": "freeze", "key": _name(key), "frozen": False})

    async def remove(self, key: Key) -> None:
        known = self._ends.pop(key, None)
        if known or self._link.exists:
            await self._link.request({"do": "remove", "key": _name(key)})
        await remove_scratch(self._settings.folders.scratch(*key))

    async def usage(self, keys: Collection[Key]) -> dict[Key, Used]:
        if not self._link.exists:
            return {}
        try:
            answer = await self._link.request({"do": "usage", "keys": [_name(key) for key in keys]})
        except OSError:  # A shim that an earlier version of the Runner started does not know of it.
            return {}
        return {_key(name): _used(told) for name, told in answer["usage"].items() if told}

    async def units(self) -> list[Unit]:
        if not self._link.exists:
            return []
        units = (await self._link.request({"do": "units"}))["units"]
        return [
            Unit(_key(name), _state(unit), AttemptSpec.model_validate(unit["spec"]))
            for name, unit in units.items()
        ]

    async def close(self) -> None:
        await self._link.close()

    def _end_of(self, key: Key) -> asyncio.Future[Ended]:
        if key not in self._ends:
            self._ends[key] = asyncio.get_running_loop().create_future()
        return self._ends[key]

    def _on_end(self, name: str, fields: Fields) -> None:
        future = self._end_of(_key(name))
        if not future.done():
            at = datetime.fromtimestamp(fields["at"], UTC)
            used = _used(fields["used"]) if "used" in fields else None
            future.set_result(Ended(fields["exit_code"], at, fields["oom"], fields["message"], used=used))

    def _request(self, spec: AttemptSpec) -> Fields:
        settings, folders = self._settings, self._settings.folders
        shared, scratch = str(folders.shared_data), str(folders.scratch(*spec.key))
        scope = f"{unit_name(spec.key)}.scope" if settings.scopes else None
        try:
            user = self._user(spec)
            stdout, stderr = folders.log_file(spec.stdout_path), folders.log_file(spec.stderr_path)
        except (ForbiddenPathError, ForbiddenUserError) as error:
            raise StartFailedError(str(error)) from None
        return {
            "do": "start",
            "key": _name(spec.key),
            "command": spec.command,
            "argv": self._argv(spec, scope, user),
            "env": _base_variables(user)
            | task_variables(spec, settings.node, scratch, shared)
            | cuda_variables(spec.gpus, there=settings.gpus.may_be_there),
            "cwd": spec.working_dir or shared,
            "scratch": scratch,
            "stdout": str(stdout),
            "stderr": str(stderr),
            "log_max_bytes": settings.log_max_bytes,
            "owner": user,
            # Tasks of the common user must not read each other's.
            "log_owner": None if self._is_common(user) else user,
            "marker": str(folders.marker),
            # systemd-run becomes the user by itself, once it has made the scope.
            "uid": user[0] if user and scope is None else None,
            "gid": user[1] if user and scope is None else None,
            "groups": self._groups(user),
            "cores": spec.cores,
            "cpus": spec.cpus,
            "memory_bytes": spec.memory_bytes,
            "scope": scope,
            "spec": without_secrets(spec).model_dump(mode="json"),
        }

    def _argv(self, spec: AttemptSpec, scope: str | None, user: Ids | None) -> list[str]:
        argv = [spec.command, *spec.arguments]
        if spec.numa_node is not None:
            argv = numactl(self._numactl() or "numactl", spec.numa_node, spec.cpus, argv)
        if scope is None:
            return argv
        _check_command(spec.command, spec.env_vars.get("PATH", DEFAULT_PATH))
        return systemd_scope(scope.removesuffix(".scope"), argv, spec.cores, spec.memory_bytes, user)

    def _user(self, spec: AttemptSpec) -> Ids | None:
        settings = self._settings
        rules = Rules(
            own=(os.geteuid(), os.getegid()),
            run_as_owner=settings.run_as_owner,
            runner_user=None if settings.run_as_owner else self._runner_user(),
            allow_any_user=settings.allow_any_user,
        )
        return as_process(spec, rules)

    def _runner_user(self) -> Ids | None:
        name = self._settings.runner_user
        if not name:
            return None
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            raise ForbiddenUserError(
                f"the user {name} of environment.runner_user is not on this node"
            ) from None
        return entry.pw_uid, entry.pw_gid

    def _groups(self, user: Ids | None) -> list[int]:
        """The further groups of the common user; others have none but their own."""
        if user is None or not self._is_common(user):
            return []
        return os.getgrouplist(self._settings.runner_user, user[1])

    def _is_common(self, user: Ids | None) -> bool:
        return user is not None and not self._settings.run_as_owner and user == self._runner_user()

    def _numactl(self) -> str | None:
        return self._settings.numactl_path or shutil.which("numactl")


def unit_name(key: Key) -> str:
    return f"hakuriver-task-{key[0]}-{key[1]}"


def without_secrets(spec: AttemptSpec) -> AttemptSpec:
    """What may be written beside a unit, so that it can be taken up without the journal."""
    return spec.model_copy(update={"arguments": [], "env_vars": {}})


def _name(key: Key) -> str:
    return f"{key[0]}-{key[1]}"


def _key(name: str) -> Key:
    task, _, attempt = name.partition("-")
    return int(task), int(attempt)


def _started(key: Key, fields: Fields) -> Started:
    return Started(datetime.fromtimestamp(fields["at"], UTC), unit_name(key))


def _used(told: Fields) -> Used:
    return Used(told.get("cpu"), told.get("now"), told.get("peak"))


def _state(unit: Fields) -> UnitState:
    if "ended" in unit:
        return UnitState.ENDED
    return UnitState.PAUSED if unit["frozen"] else UnitState.RUNNING


def _base_variables(user: Ids | None) -> dict[str, str]:
    """A small environment of its own: a task sees nothing of the Runner's."""
    variables = {"PATH": DEFAULT_PATH, "LANG": os.environ.get("LANG", "C.UTF-8")}
    try:
        entry = pwd.getpwuid(user[0] if user else os.geteuid())
    except KeyError:
        return variables | {"HOME": "/"}
    return variables | {"HOME": entry.pw_dir, "USER": entry.pw_name, "LOGNAME": entry.pw_name}


def _check_command(command: str, path: str) -> None:
    """systemd-run does not tell why it could not execute, so that it is looked at before."""
    if shutil.which(command, path=path):
        return
    if "/" in command and Path(command).exists():
        raise StartFailedError(f"cannot execute {command}: Permission denied", COMMAND_NOT_EXECUTABLE)
    raise StartFailedError(f"cannot execute {command}: No such file or directory", COMMAND_NOT_FOUND)
