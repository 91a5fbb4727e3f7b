"""The real `hakuriver` command, run as a person would run it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from support.daemons import clean_environment

_BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Result:
    """What a command printed, and how it ended."""

    code: int
    stdout: str
    stderr: str

    def json(self) -> Any:
        return json.loads(self.stdout)

    def assert_refused(self, code: int, *words: str) -> None:
        """It ended with that code, one line of what is wrong and one of what to do, and no traceback."""
        told = f"exit code {self.code}\n{self.stderr}\n{self.stdout}"
        assert self.code == code, told
        assert "Traceback" not in self.stderr, told
        lines = [line for line in self.stderr.splitlines() if line.strip()]
        assert 1 <= len(lines) <= 3, told
        for word in words:
            assert word.lower() in self.stderr.lower(), told


class Commands:
    """Runs `hakuriver` with one configuration file."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = {**clean_environment(), "NO_COLOR": "1", "COLUMNS": "200", **environment}

    def __call__(
        self,
        *arguments: str,
        program: str = "hakuriver",
        within: float = 60.0,
        environment: Mapping[str, str] | None = None,
    ) -> Result:
        try:
            done = subprocess.run(
                [_BIN / program, *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=within,
                check=False,
                env={**self._environment, **(environment or {})},
            )
        except subprocess.TimeoutExpired as late:
            said = (late.stderr or b"")[-3000:]
            text = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
            raise AssertionError(
                f"{program} {arguments[:2]} does not end within {within} s; it says:\n{text}"
            ) from None
        return Result(done.returncode, done.stdout, done.stderr)

    def start(
        self,
        *arguments: str,
        stdout: int | IO[bytes] = subprocess.PIPE,
        stdin: int | IO[bytes] = subprocess.DEVNULL,
    ) -> subprocess.Popen[bytes]:
        """Starts one and leaves it running, for those that follow or wait."""
        return subprocess.Popen(
            [_BIN / "hakuriver", *arguments],
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            env=self._environment,
            start_new_session=True,
        )
