"""What is shown while a deployment goes on: a line for each task, when it has ended everywhere."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

from hakuriver_cli.deploy.display import Lines, Terminal, make
from hakuriver_cli.deploy.events import Event, Kind

AT = datetime(2026, 1, 2, tzinfo=UTC)


def event(kind: Kind, **more: Any) -> Event:
    return Event(kind=kind, time=AT, **more)


def task(name: str, role: str | None = None, **ended: Kind) -> list[Event]:
    of = {"role": role, "task": name}
    return [
        event(Kind.TASK, **of),
        *(event(kind, node=node.replace("_", "-"), **of) for node, kind in ended.items()),
    ]


def lines(*events: Event) -> list[str]:
    err = io.StringIO()
    shown = Lines(err)
    for one in events:
        shown.event(one)
    shown.close()
    return err.getvalue().splitlines()


def test_a_task_is_one_line_below_its_play() -> None:
    assert lines(
        event(Kind.PLAY, play="Prepare"),
        *task("Install it", "docker", node_1=Kind.OK, node_2=Kind.CHANGED),
        *task("Look", node_1=Kind.FAILED, node_2=Kind.UNREACHABLE),
    ) == [
        "== Prepare",
        "docker: Install it … changed: node-2; ok: node-1",
        "Look … failed: node-1; unreachable: node-2",
    ]


def test_a_play_that_meets_no_node_and_a_task_that_all_skip_are_not_shown() -> None:
    nothing = task("Install it", node_1=Kind.SKIPPED)
    assert lines(event(Kind.PLAY, play="Prepare"), *nothing, event(Kind.PLAY, play="Run")) == []


def test_the_look_at_variables_is_shown_when_it_finds_something() -> None:
    name = "Validating arguments against arg spec 'main' - The engine"
    assert lines(*task(name, "docker", node_1=Kind.OK)) == []
    assert lines(*task(name, "docker", node_1=Kind.FAILED)) == ["docker: its variables … failed: node-1"]


def test_names_cannot_write_to_the_terminal() -> None:
    (line,) = lines(*task("a\x1b[2Jb\nc", node_1=Kind.OK))
    assert "\x1b" not in line


def test_how_a_file_changes_is_shown_with_its_node() -> None:
    change = event(Kind.DIFF, node="node-1", text="--- before\n+++ after\n@@ -1 +1 @@\n-a\n+b\n")
    shown = task("Write", node_1=Kind.CHANGED)
    assert lines(event(Kind.PLAY, play="Prepare"), shown[0], change, *shown[1:]) == [
        "== Prepare",
        "node-1: --- before",
        "node-1: +++ after",
        "node-1: @@ -1 +1 @@",
        "node-1: -a",
        "node-1: +b",
        "Write … changed: node-1",
    ]


def test_a_terminal_has_lines_of_what_changed_or_failed() -> None:
    err = io.StringIO()
    shown = Terminal(err)
    for one in (
        event(Kind.PLAY, play="Prepare"),
        *task("Look", node_1=Kind.OK),
        *task("Install it", "docker", node_1=Kind.CHANGED),
    ):
        shown.event(one)
    shown.close()
    assert "docker: Install it … changed: node-1" in err.getvalue()
    assert "Look …" not in err.getvalue()


def test_quiet_shows_nothing_and_a_file_gets_lines() -> None:
    err = io.StringIO()
    assert isinstance(make(err), Lines)
    make(err, quiet=True).event(event(Kind.TASK, task="x"))
    assert err.getvalue() == ""
