"""Runs a sweep's runs as child processes, so many at a time, and says how it goes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from hakuriver.errors import UsageError
from hakuriver.sizes import format_duration
from hakuriver.sweeps import Run, Sweep
from hakuriver_cli.output import printable
from hakuriver_cli.sweep_record import Record

INTERRUPTED = 130
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126
_SHOWN = 10
"""Failures that the summary names."""
_GRACE_SECONDS = 10.0
_WAKE_SECONDS = 0.5
_LEFT_SECONDS = 2.0
"""For output to come after the end of a run."""
_EXACT_SECONDS = 60
_LONGEST_LINE = 1 << 16
"""Of output, in bytes: a longer one is printed in pieces."""


@dataclass(frozen=True, slots=True)
class Settings:
    head: Sequence[str]
    """The words that start the program."""
    at_once: int
    fail_fast: bool = False
    log_dir: Path | None = None
    quiet: bool = False


class Runner:
    """One sweep."""

    def __init__(self, settings: Settings, sweep: Sweep, record: Record | None) -> None:
        self._settings, self._sweep, self._record = settings, sweep, record
        self._children: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        """Of the children, and of what is printed."""
        self._ending = False
        self._deaf = False
        """Nobody reads what is printed any more."""
        self._failed: list[tuple[Run, int]] = []
        self._ended = self._left_out = 0

    def run(self) -> int:
        """Runs them all; the exit code.

        Raises:
            UsageError: the folder for output cannot be made.
        """
        settings = self._settings
        if settings.log_dir is not None:
            try:
                settings.log_dir.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UsageError(
                    f"cannot make {settings.log_dir}: {error.strerror}", "name another folder for --log-dir"
                ) from None
        began = time.monotonic()
        before = signal.signal(signal.SIGTERM, _interrupt)
        try:
            self._run_all()
        except KeyboardInterrupt:
            self._end_all()
            self._summary(time.monotonic() - began, "interrupted")
            return INTERRUPTED
        finally:
            signal.signal(signal.SIGTERM, before)
            if self._record is not None:
                self._record.close()
        self._summary(time.monotonic() - began)
        if self._deaf:
            return 1
        return self._failed[0][1] if self._failed else 0

    def _run_all(self) -> None:
        """As many at a time as may be; the next is computed when there is room for it."""
        waiting = self._to_do()
        running: set[Future[None]] = set()
        with ThreadPoolExecutor(self._settings.at_once) as pool:
            try:
                while True:
                    while len(running) < self._settings.at_once and not self._is_over():
                        run = next(waiting, None)
                        if run is None:
                            break
                        running.add(pool.submit(self._run_one, run))
                    if not running:
                        return
                    # Not for ever: a signal that comes just before Python blocks is seen when it wakes.
                    done, running = wait(running, _WAKE_SECONDS, return_when=FIRST_COMPLETED)
                    for each in done:
                        each.result()
            except BaseException:
                self._end_all()
                raise

    def _is_over(self) -> bool:
        return self._deaf or (self._settings.fail_fast and bool(self._failed))

    def _to_do(self) -> Iterator[Run]:
        for run in self._sweep:
            if self._record is not None and self._record.is_done(run):
                self._left_out += 1
            else:
                yield run

    def _run_one(self, run: Run) -> None:
        began = time.monotonic()
        code = self._code_of(run)
        seconds = time.monotonic() - began
        with self._lock:
            if self._ending:
                return
            self._ended += 1
            if code:
                self._failed.append((run, code))
            if self._record is not None:
                self._record.note(run, code, seconds)
        how = "ok" if code == 0 else f"exit code {code}"
        self._say(f"run {run.index + 1} of {len(self._sweep)}{_values(run)}: {how} after {_lasted(seconds)}")

    def _code_of(self, run: Run) -> int:
        argv = [*self._settings.head, *run.arguments]
        variables = {"HAKURIVER_SWEEP_INDEX": str(run.index), "HAKURIVER_SWEEP_COUNT": str(len(self._sweep))}
        with contextlib.ExitStack() as stack:
            out, err = self._places(run, stack)
            with self._lock:
                if self._ending:
                    return INTERRUPTED
                try:
                    child = subprocess.Popen(
                        argv,
                        # What is typed cannot be meant for several.
                        stdin=None if self._settings.at_once == 1 else subprocess.DEVNULL,
                        stdout=out,
                        stderr=err,
                        env=os.environ | variables,
                        # With what it starts in a group of its own; one alone has the terminal.
                        process_group=None if self._settings.at_once == 1 else 0,
                    )
                except OSError as error:
                    self._print(sys.stderr.buffer, f"error: {argv[0]}: {error.strerror}\n".encode())
                    return _NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_EXECUTABLE
                self._children.add(child)
            pumps = [
                threading.Thread(target=self._pump, args=(run, source, target), daemon=True)
                for source, target in ((child.stdout, sys.stdout.buffer), (child.stderr, sys.stderr.buffer))
                if source is not None
            ]
            for pump in pumps:
                pump.start()
            code = child.wait()
            give_up = time.monotonic() + _LEFT_SECONDS
            for pump in pumps:
                # What it has left behind may hold them open.
                pump.join(max(0.0, give_up - time.monotonic()))
            with self._lock:
                self._children.discard(child)
            return code if code >= 0 else 128 - code

    def _places(
        self, run: Run, stack: contextlib.ExitStack
    ) -> tuple[IO[bytes] | int | None, IO[bytes] | int | None]:
        """Where the output of a run goes: files, our own, or pipes, so that lines of several do not run together."""
        folder = self._settings.log_dir
        if folder is not None:
            width = len(str(len(self._sweep)))
            name = f"{run.index + 1:0{width}}"
            try:
                out = stack.enter_context((folder / f"{name}.out").open("wb"))
                err = stack.enter_context((folder / f"{name}.err").open("wb"))
            except OSError as error:
                raise UsageError(
                    f"cannot write into {folder}: {error.strerror}", "name another folder for --log-dir"
                ) from None
            return out, err
        return (None, None) if self._settings.at_once == 1 else (subprocess.PIPE, subprocess.PIPE)

    def _pump(self, run: Run, source: IO[bytes], target: IO[bytes]) -> None:
        prefix = f"[{run.index + 1}] ".encode()
        with source:
            for line in iter(lambda: source.readline(_LONGEST_LINE), b""):
                with self._lock:
                    self._print(target, prefix + line + (b"" if line.endswith(b"\n") else b"\n"))
                if self._deaf:
                    return

    def _print(self, target: IO[bytes], data: bytes) -> None:
        try:
            target.write(data)
            target.flush()
        except BrokenPipeError:
            self._deaf = True

    def _end_all(self) -> None:
        """SIGTERM to all that run, and SIGKILL to those that are still there after a while."""
        with self._lock:
            self._ending = True
            children = list(self._children)
        for child in children:
            self._signal(child, signal.SIGTERM)
        give_up = time.monotonic() + _GRACE_SECONDS
        try:
            for child in children:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(max(0.0, give_up - time.monotonic()))
        finally:
            for child in children:
                self._signal(child, signal.SIGKILL)

    def _signal(self, child: subprocess.Popen[bytes], number: signal.Signals) -> None:
        """To its whole group, where it has one of its own; what a child has left behind is ended, too."""
        with contextlib.suppress(ProcessLookupError):
            if self._settings.at_once > 1:
                os.killpg(child.pid, number)
            elif child.poll() is None:
                child.send_signal(number)

    def _summary(self, seconds: float, how: str = "") -> None:
        good = self._ended - len(self._failed)
        counts = [f"{good} ok", f"{len(self._failed)} failed"]
        if self._left_out:
            counts.append(f"{self._left_out} done before")
        if rest := len(self._sweep) - self._ended - self._left_out:
            counts.append(f"{rest} not run")
        self._say(
            f"{how + ': ' if how else ''}{', '.join(counts)} of {len(self._sweep)} in {_lasted(seconds)}"
        )
        for run, code in self._failed[:_SHOWN]:
            self._say(f"  failed: run {run.index + 1}{_values(run)}: exit code {code}")
        if len(self._failed) > _SHOWN:
            self._say(f"  and {len(self._failed) - _SHOWN} more")

    def _say(self, text: str) -> None:
        if not self._settings.quiet:
            with self._lock, contextlib.suppress(BrokenPipeError):
                sys.stderr.write(printable(text) + "\n")
                sys.stderr.flush()


def _values(run: Run) -> str:
    return f" ({', '.join(run.values)})" if run.values else ""


def _lasted(seconds: float) -> str:
    return f"{seconds:.1f}s" if seconds < _EXACT_SECONDS else format_duration(seconds)


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt
