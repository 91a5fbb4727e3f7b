"""A Host or a Runner as a real process that can be killed without warning and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Literal

Module = Literal["hakuriver_host", "hakuriver_agent"]


class Daemon:
    """One daemon over all its lives. Its output goes to one file, each life after the other."""

    def __init__(
        self, module: Module, config: Path, log: Path, environment: dict[str, str] | None = None
    ) -> None:
        self.module = module
        self.config = config
        self.log = log
        self._environment = environment or {}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        assert not self.is_running, f"{self.module} runs already"
        command = [sys.executable, "-m", self.module, "--config", str(self.config)]
        environment = {**clean_environment(), **self._environment}
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                start_new_session=True,
            )

    def kill(self) -> None:
        """SIGKILL: it gets no chance to put anything in order."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, as a service manager would."""
        self._end(signal.SIGTERM)

    def wait(self, within: float = 30.0) -> int:
        """The exit code, once it ends by itself."""
        assert self._process is not None
        return self._process.wait(timeout=within)

    def output(self) -> str:
        return self.log.read_text("utf-8", "replace") if self.log.exists() else ""

    def _end(self, with_signal: signal.Signals) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(with_signal)
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(timeout=10)
            raise AssertionError(f"{self.module} did not end on {with_signal.name}; it was killed") from None


def clean_environment() -> dict[str, str]:
    """This process's environment, without settings of a HakuRiver that the person at this machine uses."""
    return {name: value for name, value in os.environ.items() if not name.startswith("HAKURIVER")}
