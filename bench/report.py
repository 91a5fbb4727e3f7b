"""The table that the bench prints: what was measured, the figure, the aim, and what bounds it."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Figure:
    """One line. `reached` is none for a figure without an aim."""

    name: str
    value: str
    aim: str = ""
    reached: bool | None = None
    note: str = ""


def at_most(name: str, value: float, aim: float, form: str = "{:.2f}", note: str = "") -> Figure:
    return Figure(name, form.format(value), "≤ " + form.format(aim), value <= aim, note)


def at_least(name: str, value: float, aim: float, form: str = "{:.2f}", note: str = "") -> Figure:
    return Figure(name, form.format(value), "≥ " + form.format(aim), value >= aim, note)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of them does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def spread(values: Sequence[float], unit: str, scale: float = 1.0) -> str:
    """Median and quartiles, for a note."""
    low, middle, high = (scale * percentile(values, share) for share in (0.25, 0.5, 0.75))
    return f"median {middle:.1f} {unit}, quartiles {low:.1f} to {high:.1f}, n={len(values)}"


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def show(title: str, figures: Sequence[Figure]) -> None:
    table = Table(title=title, title_justify="left", title_style="bold")
    for column in ("what", "figure", "aim", "", "note"):
        table.add_column(column, justify="right" if column in {"figure", "aim"} else "left")
    for figure in figures:
        mark = "" if figure.reached is None else "yes" if figure.reached else "NO"
        table.add_row(figure.name, figure.value, figure.aim, mark, figure.note)
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
