"""The three engines as the contract sees them: each with the same programs, and a world that outlives its Runner."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hakuriver.models.runner import AttemptSpec
from hakuriver_agent.engines.docker import DockerEngine, DockerSettings
from hakuriver_agent.engines.fake import FakeEngine, FakeWorld
from hakuriver_agent.engines.port import Ended, Engine, Key, Launch, StartFailedError
from hakuriver_agent.engines.process import ProcessEngine, ProcessSettings
from hakuriver_agent.folders import Folders
from support import engine as docker_support
from support import shares

LOG_LIMIT = 4_000_000
_ids = itertools.count(int(time.time() * 1000) << 20)


def sh(script: str) -> list[str]:
    return ["sh", "-c", script]


@dataclass
class Rig:
    """Makes engines of one kind over one world, and specifications for them."""

    kind: str
    folder: Path
    folders: Folders
    made: list[Engine] = field(default_factory=list)
    keys: list[Key] = field(default_factory=list)
    world: FakeWorld | None = None
    rules: dict[str, Any] = field(default_factory=dict)
    """Settings that say as whom tasks run."""

    @property
    def real(self) -> bool:
        return self.kind != "fake"

    def engine(self) -> Engine:
        """A new life of the Runner."""
        engine = self._make()
        self.made.append(engine)
        return engine

    def _make(self) -> Engine:
        if self.kind == "process":
            if not self.rules.pop("control_groups", True):
                # No group can have a name of two parts, so that the shim makes none.
                return _WithoutGroups(ProcessSettings("rig", self.folders, LOG_LIMIT, allow_any_user=True))
            return ProcessEngine(
                ProcessSettings("rig", self.folders, LOG_LIMIT, **{"allow_any_user": True, **self.rules})
            )
        if self.kind == "docker":
            return DockerEngine(
                DockerSettings("rig", self.folders, LOG_LIMIT, allow_privileged=True, **self.rules)
            )
        assert self.world is not None
        return FakeEngine(self.world, "process")

    def spec(self, argv: Sequence[str], **changes: Any) -> AttemptSpec:
        task = next(_ids)
        self.keys.append((task, 1))
        fields: dict[str, Any] = {
            "task_id": task,
            "attempt": 1,
            "batch_id": task,
            "owner": "tester",
            "engine": "docker" if self.kind == "docker" else "process",
            "command": argv[0],
            "arguments": list(argv[1:]),
            "environment": docker_support.ENVIRONMENT,
            "environment_version": str(docker_support.VERSION),
            "network": "none",
            "stdout_path": f"task_outputs/{task}.out",
            "stderr_path": f"task_errors/{task}.err",
        }
        return AttemptSpec.model_validate(fields | changes)

    def exits(self, code: int) -> list[str]:
        return sh(f"exit {code}") if self.real else ["exit", str(code)]

    def waits(self) -> list[str]:
        """Runs until it is asked to end."""
        return sh("trap 'exit 143' TERM; while :; do sleep 0.02; done") if self.real else ["wait"]

    def deaf(self) -> list[str]:
        """Runs, and does not end on SIGTERM."""
        return sh("trap '' TERM; while :; do sleep 0.02; done") if self.real else ["deaf"]

    def prints(self, text: str) -> list[str]:
        return ["printf", "%s", text] if self.real else ["print", text]

    def complains(self, text: str) -> list[str]:
        return ["sh", "-c", 'printf %s "$1" >&2', "-", text] if self.real else ["complain", text]

    def shows_variable(self, name: str) -> list[str]:
        return ["sh", "-c", f'printf %s "${name}"'] if self.real else ["variable", name]

    def shows_arguments(self, *arguments: str) -> list[str]:
        return ["printf", "%s\\n", *arguments] if self.real else ["arguments", *arguments]

    def uses(self, go: str) -> list[str]:
        """Uses more than a second of processor time and 100 MB, prints what times(2) says of it, and waits for a file."""
        if not self.real:
            return ["use", "1.5", "100000000"]
        computes = "i=0; while [ $i -lt 400000 ]; do i=$((i+1)); done"
        holds = "x=$(head -c 100000000 /dev/zero | tr '\\0' x)"
        return sh(f"{computes}; {holds}; times; until [ -e {go} ]; do sleep 0.02; done")

    def out(self, spec: AttemptSpec) -> bytes:
        return _content(self.folders.shared / spec.stdout_path)

    def err(self, spec: AttemptSpec) -> bytes:
        return _content(self.folders.shared / spec.stderr_path)

    def scratch(self, spec: AttemptSpec) -> Path:
        return self.folders.scratch(*spec.key)

    async def close(self) -> None:
        last = self.engine()
        for key in self.keys:
            await last.kill(key)
            await last.remove(key)
        for engine in self.made:
            await engine.close()


class _WithoutGroups(ProcessEngine):
    def __init__(self, settings: ProcessSettings) -> None:
        super().__init__(settings)
        self._link._group_name = "no-such-group/task"


def make(kind: str, folder: Path) -> Rig:
    shared = folder / "shared"
    folders = Folders(
        shared=shared,
        containers=shared / "hakuriver-containers",
        local_temp=folder / "temp",
        state=folder / "state" / "runner-rig",
        mount_roots=(shared / "shared_data", folder / "allowed"),
        private=(folder / "state", shared / "task_outputs", shared / "task_errors"),
    )
    shares.make(shared)
    for path in (folder / "allowed", folders.state, folders.local_temp):
        path.mkdir(parents=True)
    for path in (folder, folders.local_temp):
        path.chmod(0o755)
    if kind == "docker":
        docker_support.write_environment(folders.containers)
    return Rig(kind, folder, folders, world=FakeWorld(shared))


async def run(engine: Engine, spec: AttemptSpec) -> Ended:
    """Start to end. A start that fails counts as an end, since it is reported the same way."""
    try:
        await engine.start(spec, Launch())
    except StartFailedError as error:
        return Ended(error.exit_code, at=_epoch(), message=error.message)
    return await engine.wait(spec.key)


def _epoch() -> Any:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(0, UTC)


def _content(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def processes_with(mark: str) -> list[int]:
    """Processes that have `mark` on their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if mark.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found
