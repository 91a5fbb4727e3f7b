"""Calls a function of a module, as `hakurun MODULE:FUNCTION ARGUMENTS` asks for: `python -m hakuriver_cli.sweep_function`.

A function that takes no arguments finds them in `sys.argv`, as a program does; others are given them, as text. What it
returns is the exit code, if it is a whole number.
"""

from __future__ import annotations

import sys
from importlib import import_module
from inspect import signature

_MOST = 255
"""Exit codes have eight bits."""


def main(argv: list[str]) -> int:
    module, _, name = argv[0].partition(":")
    function = getattr(import_module(module), name, None)
    if not callable(function):
        sys.stderr.write(f"error: {module} has no function {name}\nhint: check its name\n")
        return 2
    sys.argv = list(argv)
    try:
        takes = bool(signature(function).parameters)
    except ValueError:  # Of one that is not written in Python nothing is told.
        takes = True
    returned = function(*argv[1:]) if takes else function()
    if isinstance(returned, bool) or not isinstance(returned, int):
        return 0
    return returned if 0 <= returned <= _MOST else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
