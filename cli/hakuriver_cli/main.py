"""Where `hakuriver` begins and ends. Most of what a short command takes is loading, and taking apart what was loaded: both are
kept small, and nothing that a command does depends on it.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any, NoReturn

from hakuriver.version import __version__

_PLUGINS = "pydantic.plugin._loader"


def main() -> None:
    """`hakuriver …`."""
    if sys.argv[1:] == ["--version"]:
        # What the parser would print, without loading it. Where that fails, it says why.
        with contextlib.suppress(OSError):
            sys.stdout.write(f"{__version__}\n")
            sys.stdout.flush()
            return
    run_and_exit(_run)


def run_and_exit(run: Callable[[], int]) -> NoReturn:
    """Runs a command, and ends this process with the exit code that it gives."""
    _load_quickly()
    ending = _Ending()
    # What is registered first is called last: after all threads have ended, and all else that is to be done at the end.
    atexit.register(ending.at_once)
    ending.code = run()
    sys.exit(ending.code)


class _Ending:
    """Ends the process without freeing, object by object, what ends with it: that takes as long as a request."""

    def __init__(self) -> None:
        self.code: int | None = None
        """None where a defect ends it: Python tells of that, and gives the code."""

    def at_once(self) -> None:
        if self.code is None:
            return
        with contextlib.suppress(OSError, ValueError):  # Python tells of what cannot be written.
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(self.code)


class NoPlugins(ModuleType):
    """Stands for the module by which pydantic looks for plugins in all that is installed, of which commands use none.

    What else that module may come to hold is the module's own.
    """

    get_plugins = staticmethod(tuple)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # Of which the import system asks.
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), name)


def _load_quickly() -> None:
    """Looks for no garbage, since next to all that is loaded stays, until there is a lot that may be some. And leaves out
    httpx's own command line (with click and pygments), which httpx does without when it cannot be imported.
    """
    gc.set_threshold(500_000)
    sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
    sys.modules.setdefault(_PLUGINS, NoPlugins(_PLUGINS))


def _run() -> int:
    from hakuriver_cli.commands import application, run  # noqa: PLC0415  (loads the parser)

    return run(application(), sys.argv[1:])
