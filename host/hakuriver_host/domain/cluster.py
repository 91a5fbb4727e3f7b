"""The cluster as the Host holds it in memory."""

from __future__ import annotations

from dataclasses import dataclass, field

from hakuriver_host.domain.ledger import Ledger
from hakuriver_host.domain.model import Node, Request, Task
from hakuriver_host.domain.order import FullestFirst
from hakuriver_host.domain.placement import Claim
from hakuriver_host.domain.queue import Queue


@dataclass(slots=True)
class Cluster:
    """All that the Host decides over: its nodes, the tasks that are not final, and who holds what."""

    nodes: dict[str, Node] = field(default_factory=dict)
    tasks: dict[int, Task] = field(default_factory=dict)
    queue: Queue = field(default_factory=Queue)
    ledger: Ledger = field(default_factory=Ledger)
    order: FullestFirst = field(default_factory=FullestFirst)
    claim: Claim | None = None
    blocked: set[Request] = field(default_factory=set)
    """Groups of the queue that the last round found no room for."""
    registering: dict[str, int] = field(default_factory=dict)
    """By node: the number of the last registration that has come, decided or not."""
