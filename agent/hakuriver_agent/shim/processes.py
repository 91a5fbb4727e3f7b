# Plain os calls: the shim starts without pathlib.
# ruff: noqa: PTH103, PTH123, PTH208
"""Starts one task as a session of its own, and ends everything that it started. Standard library only."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from dataclasses import dataclass

from hakuriver_agent.shim.cgroups import Cgroups, Group, wait_empty
from hakuriver_agent.shim.records import Fields

STRAGGLER_SECONDS = 5.0
_DEFAULT_SIGNALS = (
    signal.SIGPIPE,
    signal.SIGXFSZ,
    signal.SIGCHLD,
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
)


@dataclass
class Process:
    """A running task."""

    key: str
    pid: int
    group: Group | None
    status: int
    """Reads why the program could not be executed; empty when it was."""

    def failure(self) -> tuple[str, int] | None:
        """What went wrong before the program ran, and the error's number."""
        try:
            text = os.read(self.status, 4096).decode("utf-8", "replace")
        except OSError:
            text = ""
        finally:
            os.close(self.status)
        stage, _, number = text.rpartition(":")
        return (stage, int(number)) if stage else None

    def signal(self, number: int) -> None:
        """Sends a signal to the task's process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def freeze(self, frozen: bool) -> None:
        if not (self.group and self.group.freeze(frozen)):
            self.signal(signal.SIGSTOP if frozen else signal.SIGCONT)

    def kill(self) -> None:
        """Ends it and everything that it started; frozen ones too."""
        self.signal(signal.SIGKILL)
        if self.group:
            self.group.kill()


def start(fields: Fields, cgroups: Cgroups | None) -> tuple[Process, int, int]:
    """Forks and executes; returns the process and the ends to read its output from.

    Raises:
        OSError: no process, pipe or control group can be made.
    """
    key: str = fields["key"]
    group = _group(fields, cgroups)
    out_read, out_write = os.pipe2(os.O_CLOEXEC)
    err_read, err_write = os.pipe2(os.O_CLOEXEC)
    status_read, status_write = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _become(fields, group, (out_write, err_write), status_write)
    for descriptor in (out_write, err_write, status_write):
        os.close(descriptor)
    os.set_blocking(out_read, False)
    os.set_blocking(err_read, False)
    return Process(key, pid, group, status_read), out_read, err_read


def end_stragglers(process: Process) -> bool:
    """Ends what an ended task left running; False when something resists."""
    if process.group is None:
        return True
    return wait_empty(process.group, STRAGGLER_SECONDS) and process.group.remove()


def end_survivors(key: str, cgroups: Cgroups | None) -> None:
    """Ends what an earlier shim left running: by its group, and by the variables that name the attempt."""
    if cgroups:
        group = cgroups.known(key)
        wait_empty(group, STRAGGLER_SECONDS)
        group.remove()
    task, _, attempt = key.partition("-")
    marks = {f"HAKURIVER_TASK_ID={task}".encode(), f"HAKURIVER_ATTEMPT={attempt}".encode()}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and marks <= _environment(entry) and int(entry) != os.getpid():
            with contextlib.suppress(OSError):
                os.kill(int(entry), signal.SIGKILL)


def _group(fields: Fields, cgroups: Cgroups | None) -> Group | None:
    if cgroups is None:
        return None
    if fields["scope"]:
        return cgroups.scope(fields["scope"])
    return cgroups.make(fields["key"], fields["cores"], fields["memory_bytes"])


def _become(fields: Fields, group: Group | None, output: tuple[int, int], status: int) -> None:
    """In the child: takes on the task's limits, user, folder and output, and executes it. Never returns."""
    stage = "cannot start the process"
    try:
        os.setsid()
        for number in _DEFAULT_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        stage = "cannot limit the process"
        _limit(fields, group)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output[0], 1)
        os.dup2(output[1], 2)
        os.umask(0o022)
        stage = f"cannot make the scratch folder {fields['scratch']}"
        _make_scratch(fields)
        stage = "cannot become the task's user"
        _become_user(fields)
        stage = f"cannot use the working directory {fields['cwd']}"
        os.chdir(fields["cwd"])
        stage = f"cannot execute {fields['command']}"
        os.execvpe(fields["argv"][0], fields["argv"], fields["env"])  # noqa: S606 - argv, and no shell is wanted
    except BaseException as error:  # noqa: BLE001 - the parent tells it, whatever it is
        reason = error.errno if isinstance(error, OSError) and error.errno else 0
        os.write(status, f"{stage}:{reason}".encode()[-4000:])
    finally:
        os._exit(127)


def _limit(fields: Fields, group: Group | None) -> None:
    if fields["scope"]:
        return
    if group is not None:
        group.join()
    elif fields["memory_bytes"]:
        resource.setrlimit(resource.RLIMIT_AS, (fields["memory_bytes"],) * 2)


def _make_scratch(fields: Fields) -> None:
    os.makedirs(fields["scratch"], mode=0o700, exist_ok=True)
    if fields["uid"] is not None and os.geteuid() == 0:
        os.chown(fields["scratch"], fields["uid"], fields["gid"])


def _become_user(fields: Fields) -> None:
    if fields["uid"] is None:
        return
    if os.geteuid() == 0:
        os.setgroups(fields["groups"] or [fields["gid"]])
    if os.getgid() != fields["gid"]:
        os.setgid(fields["gid"])
    if os.getuid() != fields["uid"]:
        os.setuid(fields["uid"])


def _environment(pid: str) -> set[bytes]:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return set(file.read().split(b"\0"))
    except OSError:
        return set()
