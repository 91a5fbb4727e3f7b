"""What containers use: read from their control groups, which costs the engine nothing.

A container's group is found by its first process, once for each start. Where its files cannot be read, as with an engine
on another machine, the engine is asked, which takes it 2 ms of processor time, and up to a second. A group is gone when its container
has ended, and nobody keeps its account.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hakuriver_agent.engines.docker_request import container_name
from hakuriver_agent.engines.port import Key, Used
from hakuriver_agent.shim import usage
from hakuriver_agent.shim.cgroups import mounts

Info = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Running:
    """One start of a container."""

    pid: int
    folders: dict[str, str]
    """Of its group, by controller; empty where its files cannot be read."""


class ContainerUsage:
    """Of the containers of one engine. Methods block."""

    def __init__(
        self,
        inspect: Callable[[str], Info | None],
        stats: Callable[[str], Info],
        proc: Path = Path("/proc"),
        mounted: Callable[[], dict[str, str]] = mounts,
    ) -> None:
        self._inspect, self._stats = inspect, stats
        self._proc, self._mounted = proc, mounted
        self._running: dict[Key, _Running] = {}

    def read(self, key: Key) -> Used | None:
        """None where nothing is known: it has ended, say.

        Raises:
            Exception: what the SDK raises when the engine is away.
        """
        known = self._running.pop(key, None) or self._find(key)
        if known is None:
            return None
        found = usage.read(known.folders) if known.folders else self._told(key)
        if not found:
            return None  # It has ended; when it is started again, its group is another one.
        self._running[key] = known
        return Used(found.get("cpu"), found.get("now"), found.get("peak"), known.pid)

    def asks(self, key: Key) -> bool:
        """Whether `read` will ask the engine, as it did last time."""
        known = self._running.get(key)
        return known is not None and not known.folders

    def forget(self, key: Key) -> None:
        self._running.pop(key, None)

    def _find(self, key: Key) -> _Running | None:
        info = self._inspect(container_name(key))
        pid = int(info["State"]["Pid"]) if info else 0
        if info is None or not pid:
            return None
        return _Running(pid, self._folders(pid, str(info["Id"])))

    def _folders(self, pid: int, container: str) -> dict[str, str]:
        """The process is the container's only if its groups are named by it: with an engine elsewhere it is another's."""
        try:
            lines = (self._proc / str(pid) / "cgroup").read_text().splitlines()
        except OSError:
            return {}
        mounted, folders = self._mounted(), {}
        for line in lines:
            _, controllers, path = line.split(":", 2)
            for name in controllers.split(",") if controllers else ["unified"]:
                before, named, after = path.partition(container)
                if name in mounted and named:
                    # Not the group inside its own into which the process may have gone.
                    folders[name] = mounted[name] + before + named + after.partition("/")[0]
        return folders if usage.read(folders) else {}

    def _told(self, key: Key) -> usage.Fields:
        """What the engine tells. Of a version 2 kernel it tells no peak."""
        told = self._stats(container_name(key))
        cpu = (told.get("cpu_stats") or {}).get("cpu_usage") or {}
        memory = told.get("memory_stats") or {}
        found = {"now": memory.get("usage"), "peak": memory.get("max_usage")}
        if cpu.get("total_usage"):
            found["cpu"] = cpu["total_usage"] / 1e9
        return {name: value for name, value in found.items() if value is not None}
