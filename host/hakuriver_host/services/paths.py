"""Where things are on the share, relative to its root."""

from __future__ import annotations

from typing import Literal

Stream = Literal["stdout", "stderr"]

STREAMS: tuple[Stream, ...] = ("stdout", "stderr")
_PLACES = {"stdout": ("task_outputs", "out"), "stderr": ("task_errors", "err")}


def log_path(task_id: int, attempt: int, stream: Stream) -> str:
    """`task_outputs/<id>.out` and `task_errors/<id>.err`; later attempts carry their number."""
    folder, suffix = _PLACES[stream]
    number = f".{attempt}" if attempt > 1 else ""
    return f"{folder}/{task_id}{number}.{suffix}"
