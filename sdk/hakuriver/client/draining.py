"""Waiting for nodes to be empty, as a plan without input or output: what they hold, event by event."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from hakuriver.states import HOLDING

if TYPE_CHECKING:
    from hakuriver.models.nodes import NodeDuty
    from hakuriver.models.tasks import TaskEvent


class Draining:
    """What a set of nodes still holds. `since` is the event after which to follow."""

    def __init__(self, duties: Iterable[NodeDuty]) -> None:
        found = list(duties)
        self.since = min((duty.sequence for duty in found), default=0)
        self._told = {duty.hostname: duty.sequence for duty in found}
        self._held = {task_id: duty.hostname for duty in found for task_id in duty.held_tasks}

    @property
    def held(self) -> dict[int, str]:
        """The tasks, and where each is."""
        return dict(sorted(self._held.items()))

    def take(self, event: TaskEvent) -> bool:
        """Notes an event; true when the nodes hold nothing more."""
        holder = self._held.get(event.task_id)
        if event.state in HOLDING and self._is_news(event.node, event):
            # A Runner that came back may hold again what had been given up.
            self._held[event.task_id] = str(event.node)
        elif holder is not None and self._is_news(holder, event):
            del self._held[event.task_id]
        return not self._held

    def _is_news(self, node: str | None, event: TaskEvent) -> bool:
        """Whether the node was asked before this happened."""
        return node in self._told and event.sequence > self._told[node]
