# Plain os calls: the shim starts without pathlib.
# ruff: noqa: PTH108, PTH110
"""The shim: the parent of all tasks without container of one Runner, which outlives that Runner.

It forks, moves output, reaps, keeps how each task ended until the Runner has collected it, and pushes ends to the
connected Runner. A Runner connects by a Unix socket that only the same user may use. Each message
is a line of JSON: requests carry `id` and are answered with `re`; events carry `event`. Standard library only.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import fcntl
import json
import os
import resource
import selectors
import signal
import socket
import struct
import sys
import time
import traceback
from collections.abc import Callable

from hakuriver_agent.logfile import LogFile
from hakuriver_agent.shim.cgroups import Cgroups
from hakuriver_agent.shim.processes import NotStartedError, Process, Starter, end_survivors
from hakuriver_agent.shim.pump import Output, Pump, Stream
from hakuriver_agent.shim.records import Fields, Records

PROTOCOL = 1
SEND_SECONDS = 5.0
IDLE_SECONDS = 20.0
"""The shim ends when it has been without a Runner and running tasks for so long."""
_PR_SET_CHILD_SUBREAPER = 36
_LOST = "the Runner's process supervisor (shim) ended while the task ran"


class Shim:
    """The main loop. `folder` is the Runner's state folder and the present one, since socket paths must be short."""

    def __init__(self, group_name: str) -> None:
        self._records = Records("shim.records")
        self._cgroups = Cgroups.detect(group_name)
        self._pump = Pump()
        self._starter = Starter(self._cgroups)
        self._starting = 0
        self._early: dict[int, tuple[int, resource.struct_rusage]] = {}
        """Statuses and use of processes that ended before the starter told of them."""
        self._processes: dict[int, Process] = {}
        self._running: dict[str, Process] = {}
        self._outputs: dict[str, Output] = {}
        self._done: collections.deque[Callable[[], None]] = collections.deque()
        self._clients: dict[socket.socket, bytes] = {}
        """Connected Runners, with the part of a line that has come. Normally one; two while one replaces the other."""
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._pending: dict[str, list[Callable[[Process], None]]] = {}
        """What was asked of tasks while they were being started."""
        self._idle_since = time.monotonic()
        self._quitting = False
        self._verbs: dict[str, Callable[[Fields], Fields]] = {
            "hello": self._hello,
            "signal": self._signal,
            "freeze": self._freeze,
            "remove": self._remove,
            "units": self._units,
            "usage": self._usage,
            "quit": self._quit,
        }

    def run(self, listener: socket.socket) -> None:
        """Serves until there is nothing to do for anybody."""
        self._end_lost()
        signal.set_wakeup_fd(self._wake_write)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._selector.register(self._wake_read, selectors.EVENT_READ, self._woken)
        self._selector.register(listener, selectors.EVENT_READ, lambda: self._accept(listener))
        while not self._finished():
            ready = self._selector.select(IDLE_SECONDS / 4 if not self._clients else None)
            for key, _ in ready:
                self._guard(key.data)
            while self._done:
                self._guard(self._done.popleft())
        if self._cgroups:
            self._cgroups.remove_base()

    def _guard(self, act: Callable[[], None]) -> None:
        """A defect must not end the parent of all tasks; it is written to shim.log."""
        try:
            act()
        except Exception:  # noqa: BLE001 - the loop's edge
            traceback.print_exc()

    def _finished(self) -> bool:
        """Nobody is connected and nothing runs. What has ended is on disk, for the next shim to tell."""
        if self._clients or self._starting or self._running or self._outputs:
            self._idle_since = time.monotonic()
            return False
        gone = not os.path.exists("shim.lock")
        return gone or self._quitting or time.monotonic() - self._idle_since > IDLE_SECONDS

    def _end_lost(self) -> None:
        for key, fields in list(self._records.units.items()):
            if "ended" not in fields:
                end_survivors(key, self._cgroups)
                self._records.note(key, {"ended": fields.get("result", _end(None, _LOST))})

    def _accept(self, listener: socket.socket) -> None:
        connection, _ = listener.accept()
        _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid != os.geteuid():
            connection.close()
            return
        connection.settimeout(SEND_SECONDS)
        self._clients[connection] = b""
        self._quitting = False
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._readable(connection))

    def _disconnect(self, client: socket.socket) -> None:
        if self._clients.pop(client, None) is not None:
            self._selector.unregister(client)
            client.close()

    def _readable(self, client: socket.socket) -> None:
        if client not in self._clients:
            return
        try:
            data = client.recv(1 << 20)
        except OSError:
            data = b""
        if not data:
            self._disconnect(client)
            return
        *lines, self._clients[client] = (self._clients[client] + data).split(b"\n")
        answers = [self._answer(client, json.loads(line)) for line in lines]
        self._send(client, [answer for answer in answers if answer])

    def _answer(self, client: socket.socket, request: Fields) -> Fields | None:
        """The answer; none for a start, which is answered when it has happened."""
        number = request.get("id")
        if request.get("do") == "start":
            self._start(request, lambda answer: self._send(client, [{"re": number, **answer}]))
            return None
        verb = self._verbs.get(request.get("do", ""))
        return {
            "re": number,
            **(verb(request) if verb else {"error": f"unknown request {request.get('do')}"}),
        }

    def _send(self, client: socket.socket, messages: list[Fields]) -> None:
        """A Runner that does not read loses its connection, and makes a new one when it goes on."""
        try:
            client.sendall(b"".join(json.dumps(message).encode() + b"\n" for message in messages))
        except OSError:
            self._disconnect(client)

    def _hello(self, request: Fields) -> Fields:
        del request
        return {"protocol": PROTOCOL, "cgroups": self._cgroups is not None, **self._units({})}

    def _units(self, request: Fields) -> Fields:
        del request
        return {"units": self._records.units}

    def _usage(self, request: Fields) -> Fields:
        """Of those of the keys that run."""
        running = (self._running[key] for key in request["keys"] if key in self._running)
        return {"usage": {process.key: process.used() for process in running}}

    def _start(self, request: Fields, tell: Callable[[Fields], None]) -> None:
        """Has a task started, or tells that it was. Written before it is, so that it happens once."""
        key: str = request["key"]
        if key in self._records.units:
            tell(self._records.units[key])
            return
        try:
            self._records.put(key, {"at": time.time(), "spec": request["spec"], "frozen": False})
        except OSError as error:
            tell({"error": f"the shim cannot write its records: {error.strerror}", "errno": error.errno})
            return
        self._starting += 1
        self._starter.start(request, lambda result: self._later(lambda: self._started(request, result, tell)))

    def _started(
        self, request: Fields, result: Process | NotStartedError, tell: Callable[[Fields], None]
    ) -> None:
        key: str = request["key"]
        self._starting -= 1
        if isinstance(result, NotStartedError):
            self._tell_end(key, _end(result.exit_code, result.message, started=False))
        else:
            self._adopt(request, result)
        tell(self._records.units[key])
        if not self._starting:
            self._early.clear()

    def _adopt(self, request: Fields, process: Process) -> None:
        """Takes charge of a process that the starter has made, and that may have ended already."""
        key: str = request["key"]
        self._running[key] = process
        self._outputs[key] = output = self._output(key)
        owner = tuple(request["log_owner"]) if request["log_owner"] else None
        for descriptor, path in zip(process.output, (request["stdout"], request["stderr"]), strict=True):
            file = LogFile(path, request["log_max_bytes"], owner, request["marker"])
            output.streams.append(Stream(descriptor, file, output))
        self._pump.add(output)
        for act in self._pending.pop(key, []):
            act(process)
        if (early := self._early.pop(process.pid, None)) is not None:
            process.signal(signal.SIGKILL)
            self._reaped(process, *early)
        else:
            self._processes[process.pid] = process

    def _later(self, job: Callable[[], None]) -> None:
        """Has the main thread do something. May be called in every thread."""
        self._done.append(job)
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"\0")

    def _output(self, key: str) -> Output:
        def done(lost: str | None) -> None:
            self._later(lambda: self._ended(key, lost))

        return Output(done, lambda: None)

    def _signal(self, request: Fields) -> Fields:
        return self._do(request["key"], lambda process: self._strike(process, request["number"]))

    def _freeze(self, request: Fields) -> Fields:
        return self._do(request["key"], lambda process: self._set_frozen(process, request["frozen"]))

    def _do(self, key: str, act: Callable[[Process], None]) -> Fields:
        """Acts on a running task, now or once it has been started; on an ended one there is nothing to do."""
        if process := self._running.get(key):
            act(process)
        elif key in self._records.units and "ended" not in self._records.units[key]:
            self._pending.setdefault(key, []).append(act)
        return {}

    def _strike(self, process: Process, number: int) -> None:
        if number == signal.SIGKILL:
            process.kill()
            return
        process.signal(number)
        if self._records.units[process.key].get("frozen"):
            self._set_frozen(process, False)

    def _set_frozen(self, process: Process, frozen: bool) -> None:
        process.freeze(frozen)
        self._records.note(process.key, {"frozen": frozen})

    def _remove(self, request: Fields) -> Fields:
        if "ended" in self._records.units.get(request["key"], {}):
            self._records.drop(request["key"])
        return {}

    def _quit(self, request: Fields) -> Fields:
        """Ends the shim once its Runner is gone and nothing is left."""
        del request
        self._quitting = True
        return {}

    def _woken(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)
        with contextlib.suppress(ChildProcessError):
            while found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT | os.WNOHANG):
                process = self._processes.pop(found.si_pid, None)
                if process:
                    process.signal(signal.SIGKILL)
                _, status, used = os.wait4(found.si_pid, 0)
                if process:
                    self._reaped(process, status, used)
                elif self._starting:
                    self._early[found.si_pid] = (status, used)

    def _reaped(self, process: Process, status: int, by_kernel: resource.struct_rusage) -> None:
        """Its process ended: ends the stragglers, notes how it ended, and has the rest of the output written.

        Its process group was killed before it was reaped, when its number could not belong to another one yet.
        """
        del self._running[process.key]
        code = os.waitstatus_to_exitcode(status)
        process.popen.returncode = code
        oom = process.ran_out_of_memory(code == -signal.SIGKILL or code == 128 + signal.SIGKILL)
        used = process.used_in_all(by_kernel)
        message = (
            None
            if process.end_stragglers(self._processes)
            else "a process that it started could not be ended"
        )
        result = _end(code if code >= 0 else 128 - code, message, oom=oom) | {"used": used}
        self._records.note(process.key, {"result": result})
        self._pump.finish(self._outputs[process.key])

    def _ended(self, key: str, lost: str | None) -> None:
        del self._outputs[key]
        result: Fields = self._records.units[key].pop("result")
        result["message"] = result["message"] or lost
        self._tell_end(key, result)

    def _tell_end(self, key: str, ended: Fields) -> None:
        self._pending.pop(key, None)
        self._records.note(key, {"ended": ended})
        for client in list(self._clients):
            self._send(client, [{"event": "ended", "key": key, "ended": ended}])


def _end(exit_code: int | None, message: str | None, *, oom: bool = False, started: bool = True) -> Fields:
    return {"exit_code": exit_code, "at": time.time(), "oom": oom, "message": message, "started": started}


def main(folder: str, ready: int, group_name: str) -> None:
    """Serves in `folder`; writes a byte to `ready` when it listens. Ends at once if another shim serves there."""
    os.chdir(folder)
    lock = os.open("shim.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        # A handler, and not to ignore it: what is ignored stays so in the tasks.
        signal.signal(number, lambda *_: None)
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.suppress(FileNotFoundError):
        os.unlink("shim.sock")
    os.umask(0o077)
    listener.bind("shim.sock")
    os.umask(0o022)
    listener.listen(8)
    shim = Shim(group_name)
    os.write(ready, b"\0")
    os.close(ready)
    shim.run(listener)
    with contextlib.suppress(FileNotFoundError):
        os.unlink("shim.sock")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
