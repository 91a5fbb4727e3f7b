"""How commands print: one interface that gives each of them its table, wide table, JSON and names.

Data goes to stdout and words go to stderr, so that output can be piped. A `View` says once how a kind of thing is
shown; JSON is the wire model's own, and a list of them is an array.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Generic, Literal, TextIO, TypeVar

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.table import Table

T = TypeVar("T", bound="BaseModel")

NOTHING = "-"
_ENDLESS = 100_000
"""Columns of output that is no terminal: nothing is cut for want of room."""
_NAMES = {name.lower(): name for name in ("ID", "URL", "UID", "GID", "CPU", "GPU", "GPUs")}
"""Words that are written in a way of their own."""


class Format(StrEnum):
    """How to print what was found."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    NAME = "name"


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    title: str
    text: Callable[[T], str]
    wide: bool = False
    """Shown with `-o wide` only."""
    right: bool = False
    style: Callable[[T], str] | None = None
    limit: int | None = None
    """Characters to show at most, except in the wide form; on a narrow terminal, these columns give way."""


@dataclass(frozen=True, slots=True)
class View(Generic[T]):
    """How things of one kind are shown. `name` is what `-o name` prints: what other commands take."""

    name: Callable[[T], str]
    columns: Sequence[Column[T]]


class Printer:
    """Prints in one format; `out` is for data, `err` for words."""

    def __init__(self, form: Format, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self.form = form
        self.out = out or sys.stdout
        self.err = err or sys.stderr

    def rows(self, items: Iterable[T], view: View[T]) -> None:
        """A list: an array in JSON, a line for each otherwise."""
        found = list(items)
        if self.form is Format.JSON:
            self.json([item.model_dump(mode="json") for item in found])
        elif self.form is Format.NAME:
            self._lines(view.name(item) for item in found)
        else:
            self._show(self.table(found, view))

    def record(self, item: T, view: View[T]) -> None:
        """One thing: an object in JSON, a line for each field otherwise."""
        if self.form is Format.JSON:
            self.json(item.model_dump(mode="json"))
        elif self.form is Format.NAME:
            self._lines([view.name(item)])
        else:
            self._show(self._fields(item, view))

    def json(self, value: Any) -> None:
        self.out.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
        self.out.flush()

    def say(self, text: str) -> None:
        """Words for people, on stderr."""
        self.err.write(printable(text) + "\n")
        self.err.flush()

    def table(self, items: Sequence[T], view: View[T]) -> Table:
        from rich.table import Table  # noqa: PLC0415  (loaded only when a table is printed)

        columns = [column for column in view.columns if self.form is Format.WIDE or not column.wide]
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for column in columns:
            justify: Literal["right", "left"] = "right" if column.right else "left"
            table.add_column(column.title, justify=justify, no_wrap=column.limit is None)
        for item in items:
            table.add_row(*[self._cell(column, item, one_line=True) for column in columns])
        return table

    def _fields(self, item: T, view: View[T]) -> Table:
        from rich.table import Table  # noqa: PLC0415

        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for column in view.columns:
            cell = self._cell(column, item)
            if self.form is Format.WIDE or not (column.wide and cell.plain == NOTHING):
                table.add_row(_label(column.title), cell)
        return table

    def _cell(self, column: Column[T], item: T, *, one_line: bool = False) -> Any:
        from rich.text import Text  # noqa: PLC0415

        text = printable(column.text(item)) or NOTHING
        if column.limit is not None and self.form is not Format.WIDE and len(text) > column.limit:
            text = text[: column.limit - 1] + "…"
        style = column.style(item) if column.style else ""
        return Text(text, style=style, no_wrap=one_line or None, overflow="ellipsis" if one_line else None)

    def _lines(self, lines: Iterable[str]) -> None:
        self.out.write("".join(f"{line}\n" for line in lines))
        self.out.flush()

    def _show(self, table: Table) -> None:
        """On a terminal a table is fitted to it, by cutting columns that have a limit; the wide form and what goes
        elsewhere are never cut. Without a terminal no line ends in blanks.
        """
        from rich.console import Console  # noqa: PLC0415

        if self.out.isatty():
            width = _ENDLESS if self.form is Format.WIDE and table.show_header else None
            Console(file=self.out, width=width, highlight=False).print(table)
            return
        page = io.StringIO()
        Console(file=page, width=_ENDLESS, highlight=False).print(table)
        self._lines(line.rstrip() for line in page.getvalue().splitlines())


def _label(title: str) -> str:
    return " ".join(_NAMES.get(word.lower(), word) for word in title.capitalize().split())


def printable(text: str) -> str:
    """The text without control characters, which could rewrite the terminal; line ends and tabs stay."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in "\n\t" else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape", "replace").decode("ascii")
