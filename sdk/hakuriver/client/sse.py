"""Reads server-sent events out of a stream of bytes, as the WHATWG HTML standard describes them.

The parser does no input or output and keeps what is incomplete between calls, so any cut of the stream into pieces
gives the same events. Comments (the Host's keep-alives) and unknown fields are left aside.
"""

from __future__ import annotations

from dataclasses import dataclass

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One dispatched event. `last_id` is the newest id so far, as a reconnecting client sends it."""

    event: str
    data: str
    last_id: str = ""


class SseParser:
    """Feed it bytes as they come; it answers with the events that they complete."""

    def __init__(self) -> None:
        self._rest = b""
        self._after_cr = False
        self._at_start = True
        self._event = ""
        self._data: list[bytes] = []
        self._last_id = ""

    def feed(self, data: bytes) -> list[ServerEvent]:
        events = []
        for line in self._lines(data):
            if line:
                self._field(line)
            elif (event := self._dispatch()) is not None:
                events.append(event)
        return events

    def _lines(self, data: bytes) -> list[bytes]:
        """The complete lines; CR, LF and CRLF each end one, also when a CRLF is cut in two."""
        if self._after_cr and data.startswith(b"\n"):
            self._after_cr = False
            data = data[1:]
        if not data:
            return []
        self._after_cr = data.endswith(b"\r")
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        if self._at_start and lines:
            self._at_start = False
            lines[0] = lines[0].removeprefix(_BYTE_ORDER_MARK)
        return lines

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._event = value.decode("utf-8", "replace")
        elif name == b"id" and b"\0" not in value:
            self._last_id = value.decode("utf-8", "replace")

    def _dispatch(self) -> ServerEvent | None:
        event, data = self._event or "message", self._data
        self._event, self._data = "", []
        if not data:
            return None
        return ServerEvent(event, b"\n".join(data).decode("utf-8", "replace"), self._last_id)
