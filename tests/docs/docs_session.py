"""A shell that a page's examples share, and the comparison of what they print with what the page shows."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from docs_pages import Block

_STEP_SECONDS = 90
TIMED_OUT = 124
"""As timeout(1) has it."""
_CHANGING = (
    (re.compile(r"hkr_(user|join|node)_[\w-]+"), "<token>"),
    (re.compile(r"sha256:[0-9a-f]{64}"), "<digest>"),
    (re.compile(r"\b\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d[.\dZ]*"), "<time>"),
    (re.compile(r"\b\d{17,19}\b"), "<id>"),
    (re.compile(r"\b1\d{9}\b"), "<seconds>"),
    (re.compile(r"\b127\.0\.0\.1:\d+"), "<address>"),
    (re.compile(r"[ \t]+"), " "),
)


class Step(NamedTuple):
    """One command of a session, and the lines that it is said to print."""

    command: str
    expected: list[str]


class Done(NamedTuple):
    code: int
    output: str


class Shell:
    """A bash that keeps its variables from one command to the next."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._environment = dict(environment)
        self._variables = folder / ".variables"
        self._variables.write_text("", "utf-8")
        self._code = 0

    def run(self, command: str) -> Done:
        """Runs it; `$?` in it is the exit code of the one before."""
        script = self._folder / ".step"
        script.write_text(f"{command}\n", "utf-8")
        wrapper = (
            f". {self._variables}; (exit {self._code}); . {script}; code=$?; "
            f"declare -p | grep -vE '^declare -[a-z]*[rAa]' > {self._variables} 2>/dev/null; exit $code"
        )
        done = self._do(["bash", "--norc", "--noprofile", "-c", wrapper])
        self._code = done.code
        return done

    def python(self, program: str) -> Done:
        return self._do([sys.executable, "-c", program])

    def _do(self, argv: list[str]) -> Done:
        try:
            done = subprocess.run(
                argv,
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=_STEP_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            return Done(TIMED_OUT, f"{_text(late.output)}\n(it did not end within {_STEP_SECONDS} s)\n")
        return Done(done.returncode, _text(done.stdout))


def _text(output: bytes | None) -> str:
    return (output or b"").decode("utf-8", "replace")


def steps(block: Block) -> list[Step]:
    """The commands of a session; a line that ends in a backslash goes on in the next."""
    found: list[Step] = []
    goes_on = False
    for line in block.text.splitlines():
        if line.startswith("$ "):
            found.append(Step(line[2:], []))
        elif goes_on:
            found[-1] = Step(f"{found[-1].command}\n{line}", [])
        else:
            assert found, f"{block}: the first line of a session is a command"
            found[-1].expected.append(line)
        goes_on = line.endswith("\\") and not found[-1].expected
    return found


def agrees(expected: list[str], output: str) -> bool:
    pattern = "".join(map(_pattern, expected))
    text = "".join(f"{_steady(line)}\n" for line in output.splitlines())
    return re.fullmatch(pattern, text) is not None


def _pattern(line: str) -> str:
    if line.strip() == "…":
        return r"(?:.*\n)*?"
    return ".*".join(map(re.escape, _steady(line).split("…"))) + r"\n"


def _steady(line: str) -> str:
    """The line with what differs from run to run taken out."""
    for pattern, instead in _CHANGING:
        line = pattern.sub(instead, line)
    return line.strip()
