"""What a deployment came to: counted from its events, and kept in the history."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum

from pydantic import BaseModel, Field

from hakuriver_cli.deploy.events import Counts, Event, Kind
from hakuriver_cli.deploy.failures import Failure, explain, explain_words, merged
from hakuriver_cli.deploy.play import Play
from hakuriver_cli.deploy.port import End
from hakuriver_cli.output import Column, View

_WORDS_KEPT = 60


class Status(StrEnum):
    RUNNING = "running"
    """Still going on, or its process was killed."""
    OK = "ok"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


class NodeOutcome(BaseModel):
    """What became of one node."""

    node: str
    status: Status
    counts: Counts


class Outcome(BaseModel):
    """One deployment, as the history keeps it."""

    what: str
    playbook: str
    status: Status
    started: datetime
    seconds: float = 0.0
    user: str
    machine: str
    version: str
    inventory: str
    options: list[str]
    variables: list[str]
    """Names of what was set on the command line; never values."""
    nodes: list[NodeOutcome] = Field(default_factory=list)
    failures: list[Failure] = Field(default_factory=list)
    history: str = ""

    @property
    def changed(self) -> int:
        return sum(node.counts.changed for node in self.nodes)


class Tally:
    """Counts events as they come, so that a run that is broken off can be told as well."""

    def __init__(self) -> None:
        self.counts: dict[str, Counts] = {}
        self._failed: list[tuple[Event, list[Failure]]] = []
        self._stats: dict[str, Counts] = {}
        self._words: list[str] = []
        self._items: dict[str, Event] = {}
        self._played = False

    def take(self, event: Event) -> None:
        if event.text and event.kind is not Kind.DIFF:
            self._words = [*self._words[-_WORDS_KEPT:], event.text]
        if event.kind is Kind.STATS:
            self._stats = event.stats
        elif event.node:
            self._of_node(event, event.node)

    def finish(self, end: End, *, interrupted: bool) -> tuple[Status, list[NodeOutcome], list[Failure]]:
        """How it ended, node by node, and the failures. Rescued failures are none; a run without nodes is one."""
        counts = self._stats or self.counts
        nodes = [
            NodeOutcome(node=name, status=_of(found), counts=found) for name, found in sorted(counts.items())
        ]
        bad = {node.node for node in nodes if node.status is Status.FAILED}
        told = (failure for failures in self._not_rescued() for failure in failures)
        failures = merged(f for f in told if not self._stats or not f.nodes or bad & set(f.nodes))
        if interrupted:
            return Status.INTERRUPTED, nodes, failures
        if end.status == "successful" and nodes and not bad:
            return Status.OK, nodes, []
        if not failures:
            failures = [explain_words("\n".join([*self._words, end.words]))]
        return Status.FAILED, nodes, failures

    def _not_rescued(self) -> list[list[Failure]]:
        """Without what a playbook rescued: it told of that in words of its own, or made it good.

        A node's rescued failures come before the one that ends it, and Ansible counts them.
        """
        rescued = {node: counts.rescued for node, counts in self._stats.items()}
        found = []
        for event, failures in self._failed:
            node = event.node or ""
            if event.kind is Kind.FAILED and rescued.get(node, 0) > 0:
                rescued[node] -= 1
            else:
                found.append(failures)
        return found

    def _of_node(self, event: Event, node: str) -> None:
        counts = self.counts.setdefault(node, Counts())
        if event.kind is Kind.ITEM:
            self._items[node] = event
            return
        if event.kind in _COUNTED:
            name = _COUNTED[event.kind]
            setattr(counts, name, getattr(counts, name) + 1)
            if event.kind is Kind.CHANGED:
                counts.ok += 1
        if event.kind in {Kind.FAILED, Kind.UNREACHABLE}:
            item = self._items.pop(node, None)
            same = item is not None and item.task == event.task and item.detail
            shown = event.model_copy(update={"detail": item.detail}) if item and same else event
            self._failed.append((event, explain(shown)))


_COUNTED = {
    Kind.OK: "ok",
    Kind.CHANGED: "changed",
    Kind.SKIPPED: "skipped",
    Kind.FAILED: "failed",
    Kind.UNREACHABLE: "unreachable",
    Kind.IGNORED: "ignored",
}


def started(play: Play, *, user: str, machine: str, version: str, options: list[str]) -> Outcome:
    return Outcome(
        what=play.what,
        playbook=play.playbook,
        status=Status.RUNNING,
        started=datetime.now(UTC),
        user=user,
        machine=machine,
        version=version,
        inventory=str(play.inventory),
        options=options,
        variables=play.variable_names,
    )


def _of(counts: Counts) -> Status:
    return Status.FAILED if counts.failed or counts.unreachable else Status.OK


def _style(node: NodeOutcome) -> str:
    return "red" if node.status is Status.FAILED else "yellow" if node.counts.changed else "green"


def _state(node: NodeOutcome) -> str:
    return "unreachable" if node.counts.unreachable else str(node.status)


NODES: View[NodeOutcome] = View(
    name=lambda node: node.node,
    columns=[
        Column("NODE", lambda node: node.node),
        Column("STATE", _state, style=_style),
        Column("OK", lambda node: str(node.counts.ok), right=True),
        Column("CHANGED", lambda node: str(node.counts.changed), right=True),
        Column("FAILED", lambda node: str(node.counts.failed), right=True),
        Column("SKIPPED", lambda node: str(node.counts.skipped), right=True, wide=True),
        Column("RESCUED", lambda node: str(node.counts.rescued), right=True, wide=True),
        Column("IGNORED", lambda node: str(node.counts.ignored), right=True, wide=True),
    ],
)
