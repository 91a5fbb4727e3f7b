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
import errno
import fcntl
import json
import os
import selectors
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable

from hakuriver_agent.logfile import LogFile
from hakuriver_agent.shim.cgroups import Cgroups
from hakuriver_agent.shim.processes import Process, end_stragglers, end_survivors, start
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
        self._processes: dict[int, Process] = {}
        self._running: dict[str, Process] = {}
        self._outputs: dict[str, Output] = {}
        self._done: collections.deque[Callable[[], None]] = collections.deque()
        self._clients: dict[socket.socket, bytes] = {}
        """Connected Runners, with the part of a line that has come. Normally one; two while one replaces the other."""
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._idle_since = time.monotonic()
        self._quitting = False
        self._verbs: dict[str, Callable[[Fields], Fields]] = {
            "hello": self._hello,
            "start": self._start,
            "signal": self._signal,
            "kill": self._kill,
            "freeze": self._freeze,
            "remove": self._remove,
            "units": self._units,
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
            for key, _ in self._selector.select(IDLE_SECONDS / 4 if not self._clients else None):
                key.data()
            while self._done:
                self._done.popleft()()
        if self._cgroups:
            self._cgroups.remove_base()

    def _finished(self) -> bool:
        """Nobody is connected and nothing runs. What has ended is on disk, for the next shim to tell."""
        if self._clients or self._running or self._outputs:
            self._idle_since = time.monotonic()
            return False
        gone = not os.path.exists("shim.lock")
        return gone or self._quitting or time.monotonic() - self._idle_since > IDLE_SECONDS

    def _end_lost(self) -> None:
        for key, fields in list(self._records.units.items()):
            if "ended" not in fields:
                end_survivors(key, self._cgroups)
                lost = {"exit_code": None, "at": time.time(), "oom": False, "message": _LOST}
                self._records.put(key, {"ended": fields.get("result", lost)})

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
        answers = [self._answer(json.loads(line)) for line in lines]
        self._send(client, answers)

    def _answer(self, request: Fields) -> Fields:
        verb = self._verbs.get(request.get("do", ""))
        try:
            answer = verb(request) if verb else {"error": f"unknown request {request.get('do')}"}
        except OSError as error:
            answer = {"error": error.strerror or str(error), "errno": error.errno}
        return {"re": request.get("id"), **answer}

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

    def _start(self, request: Fields) -> Fields:
        """Starts a task, or answers when it was started. Written before the fork, so that it happens once."""
        key: str = request["key"]
        if key in self._records.units:
            return {"at": self._records.units[key]["at"]}
        at = time.time()
        self._records.put(key, {"at": at, "spec": request["spec"], "frozen": False})
        try:
            process, out, err = start(request, self._cgroups)
        except OSError:
            self._records.drop(key)
            raise
        self._processes[process.pid] = self._running[key] = process
        self._outputs[key] = output = self._output(key)
        owner = None if request["uid"] is None else (request["uid"], request["gid"])
        for descriptor, path in ((out, request["stdout"]), (err, request["stderr"])):
            output.streams.append(Stream(descriptor, LogFile(path, request["log_max_bytes"], owner), output))
        self._pump.add(output)
        return {"at": at}

    def _output(self, key: str) -> Output:
        def done(lost: str | None) -> None:
            self._done.append(lambda: self._ended(key, lost))
            os.write(self._wake_write, b"\0")

        return Output(done, lambda: None)

    def _signal(self, request: Fields) -> Fields:
        if process := self._running.get(request["key"]):
            process.signal(request["number"])
            if self._records.units[request["key"]].get("frozen"):
                self._set_frozen(process, False)
        return {}

    def _kill(self, request: Fields) -> Fields:
        if process := self._running.get(request["key"]):
            process.kill()
        return {}

    def _freeze(self, request: Fields) -> Fields:
        if process := self._running.get(request["key"]):
            self._set_frozen(process, request["frozen"])
        return {}

    def _set_frozen(self, process: Process, frozen: bool) -> None:
        process.freeze(frozen)
        self._records.put(process.key, {"frozen": frozen})

    def _remove(self, request: Fields) -> Fields:
        if request["key"] not in self._running and request["key"] not in self._outputs:
            self._records.drop(request["key"])
        return {}

    def _quit(self, request: Fields) -> Fields:
        """Ends the shim once its Runner is gone and nothing is left."""
        del request
        self._quitting = True
        return {}

    def _woken(self) -> None:
        os.read(self._wake_read, 4096)
        with contextlib.suppress(ChildProcessError):
            while found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT | os.WNOHANG):
                if process := self._processes.pop(found.si_pid, None):
                    process.signal(signal.SIGKILL)
                _, status = os.waitpid(found.si_pid, 0)
                if process:
                    self._reaped(process, status)

    def _reaped(self, process: Process, status: int) -> None:
        """Its process ended: ends the stragglers, notes how it ended, and has the rest of the output written.

        Its process group was killed before it was reaped, when its number could not belong to another one yet.
        """
        del self._running[process.key]
        oom = process.group is not None and process.group.oom_kills() > 0
        clean = end_stragglers(process)
        ended = _ended(status, oom, process.failure())
        if not clean:
            ended["message"] = "a process that it started could not be ended"
        self._records.put(process.key, {"result": ended})
        self._pump.finish(self._outputs[process.key])

    def _ended(self, key: str, lost: str | None) -> None:
        del self._outputs[key]
        ended: Fields = self._records.units[key].pop("result")
        ended["message"] = ended["message"] or lost
        self._records.put(key, {"ended": ended})
        for client in list(self._clients):
            self._send(client, [{"event": "ended", "key": key, "ended": ended}])


def _ended(status: int, oom: bool, failure: tuple[str, int] | None) -> Fields:
    code = os.waitstatus_to_exitcode(status)
    ended: Fields = {
        "exit_code": code if code >= 0 else 128 - code,
        "at": time.time(),
        "oom": oom,
        "message": None,
    }
    if failure:
        stage, number = failure
        reason = os.strerror(number) if number else "it is not valid"
        ended["exit_code"] = 127 if number == errno.ENOENT else 126
        ended["message"] = f"{stage}: {reason}"
    return ended


def main(folder: str, ready: int, group_name: str) -> None:
    """Serves in `folder`; writes a byte to `ready` when it listens. Ends at once if another shim serves there."""
    os.chdir(folder)
    lock = os.open("shim.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
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
