"""Where the output of tasks goes: as raw bytes, or with `-o json` as one object for each line that a task wrote."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TextIO

if TYPE_CHECKING:
    from hakuriver.client.calls import LogPart, Stream

_LONGEST_LINE = 1 << 16
"""Of a log, in bytes: a longer one is printed in pieces."""


class Sink(Protocol):
    """Takes the output of one stream of one task, part by part."""

    def take(self, part: LogPart) -> None: ...

    def end(self) -> None:
        """Nothing more comes."""
        ...


class Raw:
    """Bytes as they are, at once."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out

    def take(self, part: LogPart) -> None:
        self._out.write(part.data)
        self._out.flush()

    def end(self) -> None:
        return


class Prefixed:
    """Each line once it is whole, after the number of its task; a long one in pieces."""

    def __init__(self, out: BinaryIO, index: int) -> None:
        self._out = out
        self._prefix = f"[{index}] ".encode()
        self._attempt: int | None = None
        self._rest = b""

    def take(self, part: LogPart) -> None:
        if part.attempt != self._attempt:
            self.end()
            self._attempt = part.attempt
        *lines, self._rest = (self._rest + part.data).split(b"\n")
        self._write(lines)
        if len(self._rest) > _LONGEST_LINE:
            self.end()

    def end(self) -> None:
        if self._rest:
            self._write([self._rest])
        self._rest = b""

    def _write(self, lines: list[bytes]) -> None:
        self._out.write(b"".join(self._prefix + line + b"\n" for line in lines))
        self._out.flush()


class JsonLines:
    r"""One object for each line, once it is whole. Bytes that are no UTF-8 are written as `\xff`."""

    def __init__(self, out: TextIO, task_id: int, stream: Stream, index: int | None = None) -> None:
        """With `index`, each tells the number of its task in its batch."""
        self._out = out
        self._task_id = task_id
        self._index = {} if index is None else {"index": index}
        self._stream = stream
        self._attempt: int | None = None
        self._rest = b""

    def take(self, part: LogPart) -> None:
        if part.attempt != self._attempt:
            self.end()
            self._attempt = part.attempt
        *lines, self._rest = (self._rest + part.data).split(b"\n")
        for line in lines:
            self._write(line)
        self._out.flush()

    def end(self) -> None:
        if self._rest:
            self._write(self._rest)
            self._out.flush()
        self._rest = b""

    def _write(self, line: bytes) -> None:
        text = line.decode("utf-8", "backslashreplace")
        json_line(
            self._out,
            {
                "task_id": str(self._task_id),
                **self._index,
                "attempt": self._attempt,
                "stream": self._stream,
                "text": text,
            },
        )


def json_line(out: TextIO, value: Any) -> None:
    out.write(json.dumps(value, ensure_ascii=False) + "\n")
