"""The Runner's log: one line per event, on standard error and, if configured, in a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import IO, Any, TextIO

import structlog

from hakuriver.errors import StorageError


class _Both:
    """Writes to standard error and a file."""

    def __init__(self, first: TextIO, second: IO[str]) -> None:
        self._files = (first, second)

    def write(self, text: str) -> int:
        for file in self._files:
            file.write(text)
        return len(text)

    def flush(self) -> None:
        for file in self._files:
            file.flush()


def configure(path: Path | None) -> None:
    """Sends the log to its places.

    Raises:
        StorageError: the file cannot be written.
    """
    output: Any = sys.stderr
    if path is not None:
        try:
            path.expanduser().parent.mkdir(parents=True, exist_ok=True)
            output = _Both(sys.stderr, path.expanduser().open("a", encoding="utf-8"))
        except OSError as error:
            raise StorageError(
                f"cannot write the log {path}: {error.strerror}",
                "set paths.runner_log_file to a writable file",
            ) from None
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.ConsoleRenderer(colors=path is None and sys.stderr.isatty(), pad_event_to=0),
        ],
        logger_factory=structlog.PrintLoggerFactory(output),
        cache_logger_on_first_use=True,
    )
