"""How a deployment is shown while it goes on: a table that stays in place on a terminal, a line for each task elsewhere.

Words go to stderr, as everywhere. Tasks that only looked and found all as it should be take no line of their own on a
terminal.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Protocol, TextIO

from hakuriver_cli.deploy.events import Event, Kind
from hakuriver_cli.output import printable

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.live import Live

_ENDED = {
    Kind.CHANGED: "changed",
    Kind.FAILED: "failed",
    Kind.UNREACHABLE: "unreachable",
    Kind.IGNORED: "failed, ignored",
    Kind.OK: "ok",
    Kind.SKIPPED: "skipped",
}
_SHOWN_ON_TERMINAL = frozenset({Kind.CHANGED, Kind.FAILED, Kind.UNREACHABLE})


class Display(Protocol):
    def event(self, event: Event) -> None: ...

    def close(self) -> None: ...


def make(err: TextIO, *, quiet: bool = False) -> Display:
    if quiet:
        return Nothing()
    return Terminal(err) if err.isatty() else Lines(err)


class Nothing:
    """Shows nothing."""

    def event(self, event: Event) -> None: ...

    def close(self) -> None: ...


class _Task:
    """What became of one task, node by node."""

    def __init__(self, event: Event) -> None:
        self.title = event.title
        self._is_of_variables = event.is_of_variables
        self.ended: dict[Kind, list[str]] = {}
        self.seconds = 0.0

    def take(self, event: Event) -> None:
        nodes = self.ended.setdefault(event.kind, [])
        if event.node and event.node not in nodes:
            nodes.append(event.node)
        self.seconds = max(self.seconds, event.seconds or 0.0)

    def line(self) -> str:
        parts = [
            f"{words}: {' '.join(sorted(self.ended[kind]))}"
            for kind, words in _ENDED.items()
            if kind in self.ended
        ]
        seconds = f" ({self.seconds:.0f} s)" if self.seconds >= 1 else ""
        return f"{self.title}{seconds} … {'; '.join(parts)}"

    def is_worth_a_line(self, kinds: frozenset[Kind]) -> bool:
        """Ansible's own look at the variables of a role is worth one only when it finds something."""
        ended = set(self.ended)
        return bool(kinds & ended) and not (self._is_of_variables and ended <= {Kind.OK, Kind.SKIPPED})


def _diff(event: Event) -> list[str]:
    """Each line with its node: the nodes' own come one after the other."""
    return [f"{event.node}: {line}" for line in event.text.splitlines() if line.strip()]


class Lines:
    """A line for each play and task, when it has ended on all nodes."""

    _kinds = frozenset(_ENDED) - {Kind.SKIPPED}

    def __init__(self, err: TextIO) -> None:
        self._err = err
        self._task: _Task | None = None
        self._play = ""
        """One that no line was written of yet: a play may meet no node."""

    def event(self, event: Event) -> None:
        if event.kind in {Kind.TASK, Kind.PLAY, Kind.STATS}:
            self._flush()
        if event.kind is Kind.TASK:
            self._task = _Task(event)
        elif event.kind is Kind.PLAY:
            self._play = event.play or ""
        elif event.kind is Kind.DIFF:
            self._begin_play()
            for line in _diff(event):
                self._say(line)
        elif event.kind in _ENDED and self._task is not None:
            self._task.take(event)

    def close(self) -> None:
        self._flush()

    def _begin_play(self) -> None:
        if self._play:
            self._say(f"== {self._play}")
            self._play = ""

    def _flush(self) -> None:
        if self._task is not None and self._task.is_worth_a_line(self._kinds):
            self._begin_play()
            self._say(self._task.line())
        self._task = None

    def _say(self, text: str) -> None:
        self._err.write(printable(text).replace("\n", " ") + "\n")
        self._err.flush()


class _Node:
    def __init__(self) -> None:
        self.done = 0
        self.changed = 0
        self.state = ""
        self.now = ""
        self.since = 0.0

    def take(self, event: Event, now: float) -> None:
        if event.kind is Kind.START:
            self.now, self.since = event.title, now
            return
        self.now = ""
        self.done += 1
        self.changed += event.kind is Kind.CHANGED
        if event.kind in {Kind.FAILED, Kind.UNREACHABLE}:
            self.state = _ENDED[event.kind]


class Terminal:
    """A table of the nodes and what each does now; above it, a line for each task that changed something or failed."""

    def __init__(self, err: TextIO) -> None:
        from rich.console import Console  # noqa: PLC0415  (loaded only on a terminal)

        self._console = Console(file=err, highlight=False)
        self._live: Live | None = None
        self._nodes: dict[str, _Node] = {}
        self._play = ""
        self._task: _Task | None = None
        self._start = monotonic()

    def event(self, event: Event) -> None:
        self._begin()
        if event.kind in {Kind.TASK, Kind.PLAY, Kind.STATS}:
            self._flush()
        if event.kind is Kind.TASK:
            self._task = _Task(event)
        elif event.kind is Kind.PLAY:
            self._play = event.play or ""
        elif event.kind is Kind.DIFF:
            self._print("\n".join(map(printable, _diff(event))))
        if event.node and (event.kind in _ENDED or event.kind is Kind.START):
            self._nodes.setdefault(event.node, _Node()).take(event, monotonic())
            if event.kind in _ENDED and self._task is not None:
                self._task.take(event)

    def close(self) -> None:
        self._flush()
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _begin(self) -> None:
        if self._live is None:
            from rich.live import Live  # noqa: PLC0415

            self._live = Live(self, console=self._console, refresh_per_second=4, transient=True)
            self._live.start()

    def _flush(self) -> None:
        if self._task is not None and self._task.is_worth_a_line(_SHOWN_ON_TERMINAL):
            bad = self._task.is_worth_a_line(frozenset({Kind.FAILED, Kind.UNREACHABLE}))
            self._print(printable(self._task.line()), style="red" if bad else "")
        self._task = None

    def _print(self, text: str, style: str = "") -> None:
        from rich.text import Text  # noqa: PLC0415

        self._console.print(Text(text, style=style))

    def __rich_console__(self, _console: Console, _options: ConsoleOptions) -> RenderResult:
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        now = monotonic()
        yield Text(f"{self._play} ({now - self._start:.0f} s)", style="bold")
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        for title in ("NODE", "DONE", "CHANGED"):
            table.add_column(title, no_wrap=True, justify="left" if title == "NODE" else "right")
        table.add_column("NOW", no_wrap=True, overflow="ellipsis")
        for name, node in list(self._nodes.items()):
            doing = f"{node.now} ({now - node.since:.0f} s)" if node.now else node.state
            style = "red" if node.state else ""
            table.add_row(
                Text(printable(name)), str(node.done), str(node.changed), Text(printable(doing), style=style)
            )
        yield table
