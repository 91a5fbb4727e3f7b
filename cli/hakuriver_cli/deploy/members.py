"""The machines of hosts.yml, changed on disk: written at once, and put back when nothing came of it.

A machine that was added for a command that did not even reach it would be in the way of every later deployment, and
one that is half set up is mended by the next `add-node` or `deploy`: so a new entry is taken out again only when the
command was refused or interrupted before anything was changed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from hakuriver.errors import UsageError
from hakuriver_cli.deploy import inventory_text as text

Say = Callable[[str], None]


class Members:
    """Changes the inventory for one command. `keep` is false for one that only looks what would change."""

    def __init__(self, inventory: Path, say: Say, *, keep: bool) -> None:
        self._path = inventory
        self._say = say
        self._keep = keep
        self._before: str | None = None

    def add(self, name: str, group: str, variables: Mapping[str, str]) -> None:
        """Adds the machine; one that is there already is left as it is."""
        before = self._read()
        if text.has_machine(before, name):
            if variables:
                self._say(f"{name} is in the inventory already; its entry is left as it is")
            return
        self._before = before
        self._write(text.with_machine(before, name, group, variables))
        if self._keep:
            self._say(f"{name} is now in {self._path}")

    def require(self, name: str) -> None:
        """Raises what `remove` would."""
        text.without_runner(self._read(), name)

    def remove(self, name: str) -> None:
        """Takes the machine out; the Host remains as the Host."""
        if not self._keep:
            return
        after = text.without_runner(self._read(), name)
        self._write(after)
        if text.has_machine(after, name):
            self._say(f"{name} is no Runner any more in {self._path}; it goes on as the Host")
            return
        self._say(f"{name} is no longer in {self._path}")
        own = self._path.parent / "host_vars" / f"{name}.yml"
        if own.exists():
            self._say(f"its variables are still in {own}")

    def undo(self) -> None:
        """Takes the machine that was added out again."""
        if self._before is None:
            return
        self._write(self._before)
        self._before = None
        if self._keep:
            self._say(f"nothing was changed there, so {self._path} is as it was")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None or not self._keep:
            self.undo()

    def _read(self) -> str:
        if self._path.is_dir() or self._path.suffix not in {".yml", ".yaml"}:
            raise UsageError(
                f"{self._path} is no hosts.yml", "change it by hand, then run `hakuriver cluster deploy`"
            )
        return self._path.read_text("utf-8")

    def _write(self, content: str) -> None:
        """By a rename, so that nobody ever reads half of it; mode and links stay."""
        target = self._path.resolve()
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        temporary.write_text(content, "utf-8")
        temporary.chmod(target.stat().st_mode & 0o7777)
        temporary.replace(target)
