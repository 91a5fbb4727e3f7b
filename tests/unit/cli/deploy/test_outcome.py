"""What a deployment came to, from its events."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hakuriver_cli.deploy.events import Counts, Event, Kind
from hakuriver_cli.deploy.outcome import Status, Tally
from hakuriver_cli.deploy.port import End

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def event(kind: Kind, node: str, task: str, message: str = "") -> Event:
    detail: dict[str, Any] = {"msg": message} if message else {}
    return Event(kind=kind, time=NOW, node=node, task=task, module="ansible.builtin.fail", detail=detail)


def finished(stats: dict[str, Counts], *events: Event) -> tuple[Status, list[str]]:
    tally = Tally()
    for one in (*events, Event(kind=Kind.STATS, time=NOW, stats=stats)):
        tally.take(one)
    ended = "failed" if any(counts.failed for counts in stats.values()) else "successful"
    status, _, failures = tally.finish(End(ended), interrupted=False)
    return status, [failure.line for failure in failures]


def test_what_was_rescued_is_told_once_in_the_words_that_came_after_it() -> None:
    events = [
        event(Kind.FAILED, "n1", "Start it", "unit failed"),
        event(Kind.OK, "n1", "Read why"),
        event(Kind.FAILED, "n1", "Say why", "n1: it does not start\nhint: mend it"),
        event(Kind.FAILED, "n2", "Start it", "unit failed"),
    ]
    stats = {"n1": Counts(failed=1, rescued=1), "n2": Counts(failed=1)}
    assert finished(stats, *events) == (
        Status.FAILED,
        ["n1: it does not start (in: Say why)", "n2: unit failed (in: Start it)"],
    )


def test_what_failed_while_tidying_up_is_told_beside_the_reason() -> None:
    events = [
        event(Kind.FAILED, "n1", "Write", "no room"),
        event(Kind.FAILED, "n1", "Tidy up", "still no room"),
    ]
    stats = {"n1": Counts(failed=2)}
    assert finished(stats, *events)[1] == ["n1: no room (in: Write)", "n1: still no room (in: Tidy up)"]


def test_what_was_rescued_and_made_good_is_no_failure() -> None:
    events = [event(Kind.FAILED, "n1", "Ask", "no"), event(Kind.OK, "n1", "Ask otherwise")]
    assert finished({"n1": Counts(ok=1, rescued=1)}, *events) == (Status.OK, [])
