"""Limits and whole-family kills for processes, by control groups made directly.

Version 1 has one tree per controller, version 2 one tree for all (https://docs.kernel.org/admin-guide/cgroup-v2.html
and .../cgroup-v1/). Where neither can be written, `detect` returns none and the shim falls back on rlimits and
process groups. Standard library only.
"""

# Plain os calls: the shim starts without pathlib.
# ruff: noqa: PTH102, PTH103, PTH106, PTH110, PTH112, PTH120, PTH123
from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass, field

SLICE = "hakuriver.slice"
"""In which the scopes of tasks are, see `hakuriver_agent.engines.commands`."""
CPU_PERIOD = 100_000
"""Microseconds; the kernel's default."""
_V1 = ("memory", "cpu", "cpuacct", "freezer")


@dataclass
class Group:
    """The control group of one attempt. `paths` has one folder per controller; version 2 has only `unified`."""

    paths: dict[str, str] = field(default_factory=dict)
    ours: bool = True
    """False for a scope, which systemd makes and removes."""

    @property
    def joined_by_child(self) -> bool:
        """Whether a new process must join by itself: version 2 lets no single thread move."""
        return "unified" in self.paths

    def join(self) -> None:
        """Moves the calling process in. Called in the child between fork and exec."""
        _write(self.paths["unified"], "cgroup.procs", "0")

    def enter(self) -> None:
        """Moves the calling thread in, so that its children are born in it; see `Cgroups.leave`."""
        if not self.joined_by_child:
            for path in self.paths.values():
                _write(path, "tasks", "0")

    def processes(self) -> list[int]:
        found: set[int] = set()
        for path in self.paths.values():
            found.update(int(line) for line in _read(path, "cgroup.procs").split())
        return sorted(found - {0})

    def freeze(self, frozen: bool) -> bool:
        """Stops or continues everything in it; False when it has no freezer."""
        if "unified" in self.paths:
            return _try_write(self.paths["unified"], "cgroup.freeze", "1" if frozen else "0")
        if "freezer" in self.paths:
            return _try_write(self.paths["freezer"], "freezer.state", "FROZEN" if frozen else "THAWED")
        return False

    def kill(self) -> None:
        """Ends everything in it. Frozen first, so that nothing forks away meanwhile."""
        if "unified" in self.paths and _try_write(self.paths["unified"], "cgroup.kill", "1"):
            self.freeze(False)
            return
        if not self.processes():
            return
        frozen = self.freeze(True)
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if frozen:
            self.freeze(False)

    def oom_kills(self) -> int | None:
        """How many processes the kernel killed in it for want of memory; none when it is gone already."""
        if "unified" in self.paths:
            return _oom_kills(self.paths["unified"], "memory.events")
        return _oom_kills(self.paths.get("memory", "/nonexistent"), "memory.oom_control")

    def oom_kills_beside(self) -> int:
        """The same of the group that it is in, which counts those of its children in version 2."""
        if "unified" not in self.paths:
            return 0
        return _oom_kills(os.path.dirname(self.paths["unified"]), "memory.events") or 0

    def remove(self) -> bool:
        """Removes its folders; False while something still ends in it."""
        gone = True
        if not self.ours:
            return gone
        for path in self.paths.values():
            try:
                os.rmdir(path)
            except FileNotFoundError:
                continue
            except OSError:
                gone = False
        return gone


class Cgroups:
    """Makes the groups of one Runner, all inside a group of its own."""

    def __init__(self, bases: dict[str, str], mounts: dict[str, str]) -> None:
        self._bases = bases
        self._mounts = mounts
        self._home = Group(_own({name: mounts[name] for name in bases if name != "unified"}))
        """Where a thread goes when it leaves a task's group: where this process was at its start."""

    @classmethod
    def detect(cls, name: str) -> Cgroups | None:
        """The trees in which this process may make groups; none when it may in none."""
        found = mounts()
        bases: dict[str, str] = {}
        for controller in _V1:
            if controller in found and (base := _make_base(found[controller], name)):
                bases[controller] = base
        if not bases and "unified" in found:
            base = _make_base(found["unified"], name)
            if base and _delegate(found["unified"]) and _delegate(base):
                bases["unified"] = base
        return cls(bases, found) if bases else None

    def make(self, key: str, cores: int, memory_bytes: int | None) -> Group:
        """Makes the group of one attempt and sets its limits; 0 cores and no memory are no limit."""
        # Without limits, too: they count what it uses.
        group = Group({name: f"{base}/{key}" for name, base in self._bases.items()})
        for path in group.paths.values():
            with contextlib.suppress(FileExistsError):
                os.makedirs(path, 0o755)
        if "unified" in group.paths:
            _limit_v2(group.paths["unified"], cores, memory_bytes)
        else:
            _limit_v1(group.paths, cores, memory_bytes)
        return group

    def leave(self) -> None:
        """Moves the calling thread out of the group that it entered."""
        self._home.enter()

    def scope(self, unit: str) -> Group:
        """The group that systemd makes for a scope of the system manager."""
        inside = f"{_manager()}/{SLICE}/{unit}"
        unified = "unified" in self._mounts and os.path.exists(
            f"{self._mounts['unified']}/cgroup.controllers"
        )
        names = [name for name in _V1 if name in self._mounts] or (["unified"] if unified else [])
        return Group({name: self._mounts[name] + inside for name in names}, ours=False)

    def known(self, key: str) -> Group:
        """The group that an earlier shim made."""
        paths = {name: f"{base}/{key}" for name, base in self._bases.items()}
        return Group({name: path for name, path in paths.items() if os.path.isdir(path)})

    def remove_base(self) -> None:
        """Removes the group of all tasks, unless one is left in it."""
        Group(dict(self._bases)).remove()


def wait_empty(group: Group, seconds: float) -> bool:
    """Kills the group until nothing is left in it; False when something stays (uninterruptible sleep)."""
    deadline = time.monotonic() + seconds
    while group.processes():
        group.kill()
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


def _own(mounts: dict[str, str]) -> dict[str, str]:
    """The groups that this process is in, by controller."""
    found: dict[str, str] = {}
    for line in _read("/proc/self", "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        for name in controllers.split(","):
            if name in mounts:
                folder = mounts[name] + path.rstrip("/")
                # In a namespace of its own the path may not be below the mount; the root always is.
                found[name] = folder if os.path.isdir(folder) else mounts[name]
    return found


def _manager() -> str:
    """The control group that systemd, process 1, manages: the root, unless it runs in a container."""
    for line in _read("/proc/1", "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in {"", "name=systemd"} and path.endswith("/init.scope"):
            return path.removesuffix("/init.scope")
    return ""


def _oom_kills(folder: str, name: str) -> int | None:
    for line in _read(folder, name).splitlines():
        key, _, value = line.partition(" ")
        if key == "oom_kill":
            return int(value)
    return None


def _limit_v1(paths: dict[str, str], cores: int, memory_bytes: int | None) -> None:
    if cores and "cpu" in paths:
        _write(paths["cpu"], "cpu.cfs_quota_us", str(cores * CPU_PERIOD))
    if memory_bytes and "memory" in paths:
        _write(paths["memory"], "memory.limit_in_bytes", str(memory_bytes))
        _try_write(paths["memory"], "memory.memsw.limit_in_bytes", str(memory_bytes))


def _limit_v2(path: str, cores: int, memory_bytes: int | None) -> None:
    if cores:
        _write(path, "cpu.max", f"{cores * CPU_PERIOD} {CPU_PERIOD}")
    if memory_bytes:
        _write(path, "memory.max", str(memory_bytes))
        _try_write(path, "memory.swap.max", "0")


def mounts() -> dict[str, str]:
    """Where each controller is mounted; `unified` is version 2."""
    found: dict[str, str] = {}
    with open("/proc/self/mountinfo") as lines:
        for line in lines:
            before, _, after = line.partition(" - ")
            path = before.split()[4]
            kind, _, rest = after.partition(" ")
            if kind == "cgroup2":
                found.setdefault("unified", path)
            elif kind == "cgroup":
                for option in rest.split()[-1].split(","):
                    if option in _V1:
                        found.setdefault(option, path)
    return found


def _make_base(mount: str, name: str) -> str | None:
    base = f"{mount}/{name}"
    try:
        os.mkdir(base, 0o755)
    except FileExistsError:
        pass
    except OSError:
        return None
    return base if os.access(f"{base}/cgroup.procs", os.W_OK) else None


def _delegate(path: str) -> bool:
    return _try_write(path, "cgroup.subtree_control", "+cpu +memory")


def _read(folder: str, name: str) -> str:
    try:
        with open(f"{folder}/{name}") as file:
            return file.read()
    except OSError:
        return ""


def _write(folder: str, name: str, text: str) -> None:
    descriptor = os.open(f"{folder}/{name}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _try_write(folder: str, name: str, text: str) -> bool:
    try:
        _write(folder, name, text)
    except OSError:
        return False
    return True
