"""How commands say that something went wrong: `error: …` and `hint: …` on stderr, and an exit code."""

from __future__ import annotations

import sys
from typing import TextIO

from hakuriver.errors import HakuRiverError
from hakuriver_cli.output import printable


def report(error: HakuRiverError, err: TextIO | None = None) -> None:
    stream = err or sys.stderr
    stream.write(f"error: {_line(error.message)}\n")
    if error.hint:
        stream.write(f"hint: {_line(error.hint)}\n")
    stream.flush()


def _line(text: str) -> str:
    return printable(" ".join(text.split("\n")))
