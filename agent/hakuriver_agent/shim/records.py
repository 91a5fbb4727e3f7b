# Plain os calls: the shim starts without pathlib.
# ruff: noqa: PTH123
"""What the shim started and how it ended, in a file that only grows until nothing is left in it.

A line is written before a process starts and after it ended, without syncing: these records must outlive the shim
and the Runner, not the machine, whose processes end with it. Standard library only.
"""

from __future__ import annotations

import json
import os
from typing import Any

Fields = dict[str, Any]


class Records:
    """The units by key. Each is a dictionary of JSON values; `ended` is in it once it has ended."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.units: dict[str, Fields] = {}
        self._read()
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def put(self, key: str, fields: Fields) -> None:
        """Adds `fields` to the unit's."""
        self.units.setdefault(key, {}).update(fields)
        self._append([key, fields])

    def drop(self, key: str) -> None:
        """Forgets the unit."""
        if self.units.pop(key, None) is None:
            return
        if self.units:
            self._append([key, None])
        else:
            os.ftruncate(self._descriptor, 0)

    def _append(self, line: list[Any]) -> None:
        os.write(self._descriptor, json.dumps(line).encode() + b"\n")

    def _read(self) -> None:
        try:
            with open(self._path, "rb") as file:
                lines = file.read().split(b"\n")
        except FileNotFoundError:
            return
        for line in lines[:-1]:
            key, fields = json.loads(line)
            if fields is None:
                self.units.pop(key, None)
            else:
                self.units.setdefault(key, {}).update(fields)
