"""The Standard Workload Format of the Parallel Workloads Archive, version 2.2: one line of 18 numbers for each job.

As https://www.cs.huji.ac.il/labs/parallel/workload/swf.html defines it: what is not known is -1; lines that begin with a
semicolon are comments, and those of the header say `; Label: value`. Files are read as they are or compressed by gzip.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple, get_type_hints

from hakuriver.errors import UsageError

UNKNOWN = -1
_GZIP = b"\x1f\x8b"
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_LABEL = re.compile(r";\s*(\w+)\s*:\s*(.*)")


class Record(NamedTuple):
    """A job as the file has it. Times are in seconds, memory is in kilobytes for each processor."""

    number: int
    submit: float
    wait: float = UNKNOWN
    run: float = UNKNOWN
    allocated: int = UNKNOWN
    """Processors."""
    cpu_time: float = UNKNOWN
    memory: float = UNKNOWN
    requested: int = UNKNOWN
    """Processors."""
    requested_time: float = UNKNOWN
    requested_memory: float = UNKNOWN
    status: int = UNKNOWN
    """0 failed, 1 completed, 5 cancelled; 2 to 4 are parts of a job that was checkpointed."""
    user: int = UNKNOWN
    group: int = UNKNOWN
    executable: int = UNKNOWN
    queue: int = UNKNOWN
    partition: int = UNKNOWN
    preceding: int = UNKNOWN
    think_time: float = UNKNOWN


_KINDS = tuple(get_type_hints(Record).values())


@dataclass(frozen=True, slots=True)
class Workload:
    records: tuple[Record, ...]
    header: Mapping[str, str]
    """By label; of several, the first."""

    @property
    def processors(self) -> int | None:
        """Of the machine, as far as the header says: `MaxProcs`, or `MaxNodes` where nodes have one processor each."""
        for label in ("MaxProcs", "MaxNodes"):
            known = re.match(r"\d+", self.header.get(label, ""), re.ASCII)
            if known and int(known[0]) > 0:
                return int(known[0])
        return None


def read(path: Path) -> Workload:
    """The workload in a file.

    Raises:
        UsageError: it cannot be read, or a line of it is not of the format; with the line's number.

    """
    try:
        with _opened(path) as lines:
            return _parsed(path, lines)
    except OSError as error:
        raise UsageError(
            f"{path}: {error.strerror or error}", "name a workload file that can be read"
        ) from error
    except (EOFError, zlib.error) as error:
        raise UsageError(f"{path}: its compressed data is broken", "fetch the file again") from error


def write(path: Path, records: Iterable[Record], header: Mapping[str, str]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(f"; {label}: {value}\n" for label, value in header.items())
        file.writelines(" ".join(map(_text, record)) + "\n" for record in records)


def _opened(path: Path) -> IO[str]:
    with path.open("rb") as file:
        compressed = file.read(len(_GZIP)) == _GZIP
    # Names of people in headers come in many encodings; nothing but comments is hurt.
    if compressed:
        return gzip.open(path, "rt", encoding="utf-8", errors="replace")
    return path.open(encoding="utf-8", errors="replace")


def _parsed(path: Path, lines: Iterable[str]) -> Workload:
    header: dict[str, str] = {}
    records = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if text.startswith(";"):
            if label := _LABEL.match(text):
                header.setdefault(label[1], label[2])
        elif text:
            records.append(_record(f"{path}, line {number}", text.split()))
    return Workload(tuple(records), header)


def _record(where: str, fields: list[str]) -> Record:
    if len(fields) != len(_KINDS):
        raise _wrong(where, f"it has {len(fields)} fields, not {len(_KINDS)}")
    values = []
    for name, kind, text in zip(Record._fields, _KINDS, fields, strict=True):
        form, wanted = (_WHOLE, "a whole number") if kind is int else (_NUMBER, "a number")
        if not form.fullmatch(text) or float(text) in {float("inf"), float("-inf")}:
            raise _wrong(where, f"{name.replace('_', ' ')} is {text[:40]!r}, not {wanted}")
        values.append(kind(text))
    record = Record(*values)
    if record.submit < 0:
        raise _wrong(where, f"submit is {_text(record.submit)}, before the log begins")
    return record


def _wrong(where: str, what: str) -> UsageError:
    return UsageError(
        f"{where}: {what}", "each line is a comment that begins with `;`, or a job of 18 numbers"
    )


def _text(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)
