"""The shim's parts: records that outlive it, output that waits for the share, groups that hold a whole family."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import hakuriver_agent
from hakuriver_agent import logfile
from hakuriver_agent.logfile import LogFile
from hakuriver_agent.shim import pump as pump_module
from hakuriver_agent.shim.cgroups import Cgroups
from hakuriver_agent.shim.pump import Output, Pump, Stream
from hakuriver_agent.shim.records import Records

WITHIN = 10.0


def test_it_needs_nothing_but_the_standard_library() -> None:
    root = Path(hakuriver_agent.__file__).parent.parent
    code = "import sys; sys.path.insert(0, sys.argv[1]); import hakuriver_agent.shim.server; print(len(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-c", code, str(root)], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 160


def test_records_outlive_their_writer(tmp_path: Path) -> None:
    path = str(tmp_path / "records")
    records = Records(path)
    records.put("1-1", {"at": 1.5, "spec": {"a": "ä"}})
    records.put("2-1", {"at": 2.5})
    records.put("1-1", {"ended": {"exit_code": 3}})
    records.drop("2-1")
    assert Records(path).units == {"1-1": {"at": 1.5, "spec": {"a": "ä"}, "ended": {"exit_code": 3}}}


def test_records_end_before_a_line_that_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "records"
    Records(str(path)).put("1-1", {"at": 1})
    with path.open("ab") as file:
        file.write(b'["2-1", {"at"')
    records = Records(str(path))
    assert records.units == {"1-1": {"at": 1}}
    records.put("3-1", {"at": 3})
    assert Records(str(path)).units == {"1-1": {"at": 1}, "3-1": {"at": 3}}


def test_records_of_nothing_take_no_space(tmp_path: Path) -> None:
    records = Records(str(tmp_path / "records"))
    for number in range(100):
        records.put(f"{number}-1", {"at": number})
    for number in range(100):
        records.drop(f"{number}-1")
    assert (tmp_path / "records").stat().st_size == 0


def test_a_file_goes_on_where_it_ended(tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    first = LogFile(path, 100)
    assert first.write(b"abc", threading.Event())
    first.close()
    second = LogFile(path, 100)
    assert second.open() == 3
    assert second.write(b"def", threading.Event())
    assert Path(path).read_bytes() == b"abcdef"


def test_a_file_notes_once_what_it_dropped(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for _ in range(3):
        file = LogFile(str(path), 4)
        assert file.write(b"abcdefgh", threading.Event())
        file.close()
    assert path.read_bytes() == b"abcd\n[hakuriver: output beyond 4 bytes was dropped]\n"


def test_a_file_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"")
    (tmp_path / "log").symlink_to(tmp_path / "secret")
    assert not LogFile(str(tmp_path / "log"), 100).write(b"x", threading.Event())
    assert (tmp_path / "secret").read_bytes() == b""


class Faulty(LogFile):
    """A file on a share that fails for a while."""

    def __init__(self, path: str, failures: int, number: int = errno.ENOSPC) -> None:
        super().__init__(path, 10_000_000)
        self.failures = failures
        self.number = number

    def consume(self, data: bytes | memoryview) -> int:
        if self.failures:
            self.failures -= 1
            raise OSError(self.number, os.strerror(self.number))
        return super().consume(data)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pump_module, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(pump_module, "LAST_WORDS_SECONDS", 0.2)
    monkeypatch.setattr(logfile, "RETRY_SECONDS", 0.01)


class Pumped:
    """One task's output through a pump: `write` ends of two pipes, and what `done` told."""

    def __init__(self, pump: Pump, out: LogFile, err: LogFile) -> None:
        self.told: list[str | None] = []
        self.over = threading.Event()
        self.output = Output(self._done, lambda: None)
        self.write = []
        for file in (out, err):
            read, write = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(read, False)
            self.output.streams.append(Stream(read, file, self.output))
            self.write.append(write)
        self._pump = pump
        pump.add(self.output)

    def _done(self, lost: str | None) -> None:
        self.told.append(lost)
        self.over.set()

    def finish(self, close: bool = True) -> str | None:
        if close:
            for descriptor in self.write:
                os.close(descriptor)
        self._pump.finish(self.output)
        assert self.over.wait(WITHIN)
        return self.told[0]


@pytest.fixture(name="pumped")
def _pumped(tmp_path: Path) -> Callable[..., Pumped]:
    def make(failures: int = 0, number: int = errno.ENOSPC) -> Pumped:
        out = Faulty(str(tmp_path / "out"), failures, number)
        return Pumped(Pump(), out, LogFile(str(tmp_path / "err"), 10_000_000))

    return make


def test_output_is_moved(pumped: Callable[..., Pumped], tmp_path: Path) -> None:
    task = pumped()
    os.write(task.write[0], b"out")
    os.write(task.write[1], b"err")
    assert task.finish() is None
    assert ((tmp_path / "out").read_bytes(), (tmp_path / "err").read_bytes()) == (b"out", b"err")


def test_a_full_share_delays_output(pumped: Callable[..., Pumped], tmp_path: Path) -> None:
    task = pumped(failures=3)
    writer = threading.Thread(target=_write_all, args=(task.write[0], b"x" * 500_000))
    writer.start()
    writer.join(WITHIN)
    assert task.finish() is None
    assert (tmp_path / "out").read_bytes() == b"x" * 500_000


def test_a_share_that_stays_full_is_told(pumped: Callable[..., Pumped], tmp_path: Path) -> None:
    task = pumped(failures=10**9)
    os.write(task.write[0], b"lost")
    os.write(task.write[1], b"kept")
    assert task.finish() == "output was cut: the share did not take all of it"
    assert (tmp_path / "err").read_bytes() == b"kept"


def test_an_error_that_does_not_pass_ends_the_stream(pumped: Callable[..., Pumped]) -> None:
    task = pumped(failures=10**9, number=errno.EACCES)
    os.write(task.write[0], b"lost")
    task.finish()
    assert task.told


def test_what_holds_a_pipe_open_holds_up_no_end(pumped: Callable[..., Pumped], tmp_path: Path) -> None:
    task = pumped()
    os.write(task.write[0], b"out")
    assert task.finish(close=False) is None
    assert (tmp_path / "out").read_bytes() == b"out"


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


@pytest.mark.skipif(Cgroups.detect("hakuriver-probe") is None, reason="no control group can be made here")
def test_a_group_holds_a_whole_family() -> None:
    groups = Cgroups.detect(f"hakuriver-unit-{os.getpid()}")
    assert groups is not None
    group = groups.make("1-1", 1, 50_000_000)
    done = threading.Event()
    started: list[subprocess.Popen[bytes]] = []

    def enter_and_start() -> None:
        group.enter()
        child = None if not group.joined_by_child else group.join
        started.append(
            subprocess.Popen(
                ["sh", "-c", "setsid sleep 1000 & exec sleep 1000"],
                preexec_fn=child,  # noqa: PLW1509 - as the shim does
            )
        )
        groups.leave()
        done.set()

    threading.Thread(target=enter_and_start).start()
    assert done.wait(WITHIN)
    assert started[0].pid in group.processes()
    assert not group.remove()
    group.kill()
    started[0].wait(WITHIN)
    assert group.oom_kills() == 0
    while group.processes():
        group.kill()
    while not group.remove():
        pass
    assert group.oom_kills() is None
    groups.remove_base()
    mounts = {Path(path).parent for path in group.paths.values()}
    assert not any(path.exists() for path in mounts)


def teardown_module() -> None:
    probe = Cgroups.detect("hakuriver-probe")
    if probe is not None:
        probe.remove_base()
