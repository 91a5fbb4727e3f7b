"""What the shim started and how it ended, in a file that only grows until nothing is left in it.

A line is written before a process starts and after it ended, without syncing: these records must outlive the shim
and the Runner, not the machine, whose processes end with it. Standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from typing import Any

Fields = dict[str, Any]


class Records:
    """The units by key. Each is a dictionary of JSON values; `ended` is in it once it has ended."""

    def __init__(self, path: str) -> None:
        self.units: dict[str, Fields] = {}
        self._descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = self._read()
        os.ftruncate(self._descriptor, self._size)

    def put(self, key: str, fields: Fields) -> None:
        """Adds `fields` to the unit's.

        Raises:
            OSError: they cannot be written; nothing has changed.
        """
        self._append([key, fields])
        self.units.setdefault(key, {}).update(fields)

    def note(self, key: str, fields: Fields) -> None:
        """Like `put`; what cannot be written is kept in memory alone."""
        with contextlib.suppress(OSError):
            self._append([key, fields])
        self.units.setdefault(key, {}).update(fields)

    def drop(self, key: str) -> None:
        """Forgets the unit."""
        if self.units.pop(key, None) is None:
            return
        if self.units:
            with contextlib.suppress(OSError):
                self._append([key, None])
        else:
            self._size = 0
            os.ftruncate(self._descriptor, 0)

    def _append(self, line: list[Any]) -> None:
        data = json.dumps(line).encode() + b"\n"
        if os.write(self._descriptor, data) != len(data):
            os.ftruncate(self._descriptor, self._size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._size += len(data)

    def _read(self) -> int:
        """Reads the lines; returns where the last whole one ends."""
        data = os.pread(self._descriptor, os.fstat(self._descriptor).st_size, 0)
        whole = data.rfind(b"\n") + 1
        for line in data[:whole].splitlines():
            key, fields = json.loads(line)
            if fields is None:
                self.units.pop(key, None)
            else:
                self.units.setdefault(key, {}).update(fields)
        return whole
