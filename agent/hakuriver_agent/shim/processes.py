"""Starts tasks, each as a session of its own, and ends everything that they started. Standard library only.

Starting is for one thread that does nothing else. Where control groups of version 1 are used it enters a task's group
itself, so that its child is born in it: a thread may move itself without the lock that makes other moves take
milliseconds, and Python then needs no code of its own between fork and exec, so that vfork serves. That thread is not
the process's first one, to which the kernel charges the memory.
"""

# Plain os calls: the shim starts without pathlib.
# ruff: noqa: PTH103, PTH123, PTH208
from __future__ import annotations

import contextlib
import os
import queue
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from hakuriver_agent.shim import usage
from hakuriver_agent.shim.cgroups import Cgroups, Group, wait_empty
from hakuriver_agent.shim.records import Fields

STRAGGLER_SECONDS = 5.0


@dataclass
class Process:
    """A running task."""

    key: str
    popen: subprocess.Popen[bytes]
    group: Group | None
    limited: bool
    """It has a limit of memory of its own, so that it can run out of it."""
    output: tuple[int, int]
    """The ends to read its stdout and stderr from."""
    kills_beside: int = 0
    """Out-of-memory kills in the slice before it started."""
    killed: bool = False
    """It was killed because that was asked for."""

    @property
    def pid(self) -> int:
        return self.popen.pid

    def signal(self, number: int) -> None:
        """Sends a signal to the task's process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def freeze(self, frozen: bool) -> None:
        if not (self.group and self.group.freeze(frozen)):
            self.signal(signal.SIGSTOP if frozen else signal.SIGCONT)

    def kill(self) -> None:
        """Ends it and everything that it started; frozen ones too."""
        self.killed = True
        self.signal(signal.SIGKILL)
        if self.group:
            self.group.kill()

    def used(self) -> Fields:
        """What it has used by now, see `usage.read`; nothing where it has no control group."""
        return usage.read(self.group.paths) if self.group else {}

    def used_in_all(self, by_kernel: resource.struct_rusage) -> Fields:
        """What it has used, once it has ended. `by_kernel` is of itself and of those of its children that it waited for;
        systemd may have removed a scope by now, and where there is no control group nobody else tells.

        The greatest size of a process is then that of the largest; a part of the shim's own size counts, since the
        kernel keeps it over vfork(2) and execve(2).
        """
        found = self.used()
        found.pop("now", None)
        found["cpu"] = max(found.get("cpu", 0.0), by_kernel.ru_utime + by_kernel.ru_stime)
        found.setdefault("peak", by_kernel.ru_maxrss << 10)
        return found

    def ran_out_of_memory(self, by_sigkill: bool) -> bool:
        """Whether the kernel says so. systemd may have removed a scope by now; then the slice tells that one has."""
        if not self.limited or self.group is None:
            return False
        kills = self.group.oom_kills()
        if kills is None:
            return by_sigkill and not self.killed and self.group.oom_kills_beside() > self.kills_beside
        return kills > 0

    def end_stragglers(self, others: Collection[int]) -> bool:
        """Ends what it left running; False when something resists. Its process group has been killed already.

        `others` are the processes of other tasks: where no child but these is left, nothing is.
        """
        if self.group is None:
            return _children() <= set(others) or end_named(self.key, STRAGGLER_SECONDS)
        if self.group.remove():
            return True
        return wait_empty(self.group, STRAGGLER_SECONDS) and self.group.remove()


class NotStartedError(Exception):
    """The task cannot run."""

    def __init__(self, message: str, exit_code: int | None) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code


Done = Callable[[Process | NotStartedError], None]


class Starter:
    """The thread that starts tasks."""

    def __init__(self, cgroups: Cgroups | None) -> None:
        self._cgroups = cgroups
        self._cores = os.sched_getaffinity(0)
        self._jobs: queue.SimpleQueue[tuple[Fields, Done]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="starter", daemon=True).start()

    def start(self, fields: Fields, done: Done) -> None:
        """Has a task started; `done` is called in the starter's thread."""
        self._jobs.put((fields, done))

    def _run(self) -> None:
        while True:
            fields, done = self._jobs.get()
            try:
                done(self._start(fields))
            except NotStartedError as error:
                done(error)
            except Exception as error:  # noqa: BLE001 - the edge of a start: it fails alone, and says why
                done(NotStartedError(f"cannot start the process: {error}", None))

    def _start(self, fields: Fields) -> Process:
        group = None
        try:
            group = self._group(fields)
            _make_scratch(fields)
            return self._spawn(fields, group)
        except OSError as error:
            if group is not None:
                group.remove()
            raise _failure(fields, error) from None
        finally:
            if group is not None and self._cgroups is not None:
                self._cgroups.leave()

    def _spawn(self, fields: Fields, group: Group | None) -> Process:
        out_read, out_write = os.pipe2(os.O_CLOEXEC)
        err_read, err_write = os.pipe2(os.O_CLOEXEC)
        own_group = group is not None and group.ours
        beside = group.oom_kills_beside() if group is not None and not own_group else 0
        try:
            if own_group and group is not None:
                group.enter()
            _use_cores(fields.get("cpus"))
            popen = subprocess.Popen(
                fields["argv"],
                stdin=subprocess.DEVNULL,
                stdout=out_write,
                stderr=err_write,
                cwd=fields["cwd"],
                env=fields["env"],
                user=fields["uid"],
                group=fields["gid"],
                extra_groups=_groups(fields),
                umask=0o022,
                start_new_session=True,
                preexec_fn=_before_exec(fields, group),  # noqa: PLW1509 - system calls only, where nothing else serves
            )
        except BaseException:
            os.close(out_read)
            os.close(err_read)
            raise
        finally:
            os.sched_setaffinity(0, self._cores)
            os.close(out_write)
            os.close(err_write)
        os.set_blocking(out_read, False)
        os.set_blocking(err_read, False)
        return Process(
            fields["key"], popen, group, bool(fields["memory_bytes"]), (out_read, err_read), beside
        )

    def _group(self, fields: Fields) -> Group | None:
        if self._cgroups is None:
            return None
        if fields["scope"]:
            return self._cgroups.scope(fields["scope"])
        return self._cgroups.make(fields["key"], fields["cores"], fields["memory_bytes"])


def end_survivors(key: str, cgroups: Cgroups | None) -> None:
    """Ends what an earlier shim left running: by its group, and by the variables that name the attempt."""
    if cgroups:
        group = cgroups.known(key)
        wait_empty(group, STRAGGLER_SECONDS)
        group.remove()
    end_named(key, STRAGGLER_SECONDS)


def end_named(key: str, seconds: float) -> bool:
    """Kills what carries the variables that name an attempt, until nothing does; False when something stays.

    For where there are no control groups. A task that takes these variables away from what it leaves can leave it.
    """
    deadline = time.monotonic() + seconds
    while found := _named(key):
        for pid in found:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


def _named(key: str) -> list[int]:
    task, _, attempt = key.partition("-")
    marks = {f"HAKURIVER_TASK_ID={task}".encode(), f"HAKURIVER_ATTEMPT={attempt}".encode()}
    entries = [entry for entry in os.listdir("/proc") if entry.isdigit() and int(entry) != os.getpid()]
    return [int(entry) for entry in entries if marks <= _environment(entry)]


def _children() -> set[int]:
    """All children of this process, to which orphans are given; not empty where the kernel does not tell."""
    found: set[int] = set()
    for thread in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{thread}/children") as file:
                found.update(map(int, file.read().split()))
        except FileNotFoundError:
            return {0}
    return found


def _use_cores(cpus: Collection[int] | None) -> None:
    """Has the calling thread, and with it the child that it makes, run on these cores alone (sched_setaffinity(2)).

    Cores that the machine has taken out of service meanwhile are no reason not to run.
    """
    if cpus:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, cpus)


def _before_exec(fields: Fields, group: Group | None) -> Callable[[], None] | None:
    """What must happen in the child; none where nothing must, since that allows vfork."""
    if fields["scope"]:
        return None
    if group is not None:
        return group.join if group.joined_by_child else None
    if fields["memory_bytes"]:
        limit = fields["memory_bytes"]
        return lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return None


def _groups(fields: Fields) -> list[int] | None:
    if fields["uid"] is None or os.geteuid() != 0:
        return None
    return list(fields["groups"] or [fields["gid"]])


def _make_scratch(fields: Fields) -> None:
    os.makedirs(fields["scratch"], mode=0o700, exist_ok=True)
    if fields["owner"] is not None and os.geteuid() == 0:
        os.chown(fields["scratch"], *fields["owner"])


def _failure(fields: Fields, error: OSError) -> NotStartedError:
    reason = error.strerror or str(error)
    if error.filename == fields["cwd"]:
        return NotStartedError(f"cannot use the working directory {fields['cwd']}: {reason}", None)
    if error.filename == fields["argv"][0]:
        code = 127 if isinstance(error, FileNotFoundError) else 126
        return NotStartedError(f"cannot execute {fields['command']}: {reason}", code)
    return NotStartedError(f"cannot start the process: {reason} ({error.filename or 'no file'})", None)


def _environment(pid: str) -> set[bytes]:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return set(file.read().split(b"\0"))
    except OSError:
        return set()
