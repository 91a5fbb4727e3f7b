"""The record of a sweep: how each run ended, so that a later sweep runs only what is left.

A file of JSON lines, one for each run that has ended: its command (`argv`, spans filled in), its exit code, and how many
seconds it took. Later lines go before earlier ones; a last line that a crash has cut is left aside.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from hakuriver.errors import UsageError
from hakuriver.sweeps import Run


class Record:
    """Opened for the length of one sweep.

    Raises:
        UsageError: the file cannot be read or written, or is none of these.
    """

    def __init__(self, path: Path, app: Sequence[str]) -> None:
        self._app = list(app)
        self._codes: dict[tuple[str, ...], int] = {}
        try:
            text = path.read_text("utf-8") if path.exists() else ""
            self._file: TextIO = path.open("a", encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            raise UsageError(f"cannot use {path}: {reason}", "name another file for --resume") from None
        *lines, cut = text.split("\n")
        if cut:
            self._file.write("\n")
        for number, line in enumerate(lines, 1):
            if line.strip():
                self._take(line, f"line {number} of {path}")

    def _take(self, line: str, where: str) -> None:
        try:
            told = json.loads(line)
            self._codes[tuple(told["argv"])] = int(told["code"])
        except (ValueError, KeyError, TypeError):
            if _is_cut(line):
                return
            raise UsageError(
                f"{where} is not of a sweep's record", "name another file for --resume"
            ) from None

    def is_done(self, run: Run) -> bool:
        return self._codes.get((*self._app, *run.arguments)) == 0

    def note(self, run: Run, code: int, seconds: float) -> None:
        told = {"argv": [*self._app, *run.arguments], "code": code, "seconds": round(seconds, 3)}
        self._file.write(json.dumps(told) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _is_cut(line: str) -> bool:
    """Begun as one of ours, and not ended: a machine went down while it was written."""
    return line.startswith('{"argv"') and not line.rstrip().endswith("}")
