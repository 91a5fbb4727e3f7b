"""Lines on stderr that say what goes on, shown on a terminal only, and gone before real output comes."""

from __future__ import annotations

from shutil import get_terminal_size
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

from hakuriver_cli.output import printable

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.status import Status


class Progress:
    def __init__(self, err: TextIO) -> None:
        self._err = err
        self._status: Status | None = None
        self.shown = err.isatty()
        """Whether updates are of use; false for good once it was stopped."""

    def update(self, text: str) -> None:
        if not self.shown:
            return
        if self._status is None:
            from rich.console import Console  # noqa: PLC0415  (loaded only on a terminal)
            from rich.markup import escape  # noqa: PLC0415

            self._escape = escape
            self._status = Console(file=self._err).status("")
            self._status.start()
        line = " ".join(printable(text).split())
        self._status.update(self._escape(line[: max(20, get_terminal_size().columns - 4)]))

    def stop(self) -> None:
        self.shown = False
        if self._status is not None:
            self._status.stop()
            self._status = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class Counter:
    """A bar that says how many of `total` are done."""

    def __init__(self, err: TextIO, total: int, what: str) -> None:
        self._bar: Bar | None = None
        if err.isatty():
            from rich.console import Console  # noqa: PLC0415  (loaded only on a terminal)
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415
            from rich.progress import Progress as Bar  # noqa: PLC0415

            columns = (BarColumn(), MofNCompleteColumn(), TextColumn(what), TimeElapsedColumn())
            self._bar = Bar(*columns, console=Console(file=err), transient=True)
            self._task = self._bar.add_task("", total=total)

    def update(self, done: int) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=done)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
