"""The double of Ansible: plays a story that a test tells, as the messages that ansible-runner would send."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from hakuriver_cli.deploy.port import End, Job, Message

_AT = "2026-01-02T03:04:05+00:00"


@dataclass
class FakeAnsible:
    """`results` says for each task what becomes of it on each node; a node that fails takes no further part."""

    results: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    """By task, then by node: a result as a module gives it. `unreachable` and `failed` in it mean what they say."""
    words: tuple[str, ...] = ()
    """What Ansible says before it plays."""
    listing: Mapping[str, Any] = field(default_factory=dict)
    ends: str | None = None
    """A status to end with, instead of what the results lead to."""
    waits: bool = False
    """Stays in the last task until it is stopped."""
    jobs: list[Job] = field(default_factory=list)
    on_play: Callable[[Job], None] | None = None

    def __post_init__(self) -> None:
        self.waiting = threading.Event()
        self._stopped = threading.Event()

    def play(self, job: Job, on_message: Callable[[Message], None]) -> End:
        self.jobs.append(job)
        if self.on_play:
            self.on_play(job)
        bad: dict[str, str] = {}
        for counter, message in enumerate(self._messages(bad), start=1):
            on_message({"counter": counter, "uuid": str(counter), "created": _AT, "pid": 1, **message})
        if self.waits:
            self.waiting.set()
            # A signal that comes right before a wait without an end would not be noticed until another one comes.
            while not self._stopped.wait(0.1):
                pass
            return End("failed")
        return End(self.ends or ("failed" if bad else "successful"))

    def stop(self) -> None:
        self._stopped.set()

    def inventory(self, arguments: list[str]) -> dict[str, Any]:  # noqa: ARG002
        return dict(self.listing)

    def _messages(self, bad: dict[str, str]) -> Iterator[dict[str, Any]]:
        for text in self.words:
            yield {"event": "verbose", "stdout": text}
        if not self.results:
            return
        yield _message("playbook_on_play_start", play="A play")
        counts: dict[str, dict[str, int]] = {}
        for task, nodes in self.results.items():
            role, _, name = task.rpartition(": ")
            of = {"play": "A play", "role": role or None, "task": name}
            yield _message("playbook_on_task_start", **of)
            for node, result in nodes.items():
                if node in bad:
                    continue
                yield _message("runner_on_start", host=node, **of)
                yield self._ended(node, result, of, bad, counts)
        if not self.waits:
            yield _message("playbook_on_stats", **counts)

    @staticmethod
    def _ended(
        node: str,
        result: Mapping[str, Any],
        of: Mapping[str, Any],
        bad: dict[str, str],
        counts: dict[str, dict[str, int]],
    ) -> dict[str, Any]:
        event, counted = "runner_on_ok", "ok"
        if result.get("unreachable"):
            event, counted = "runner_on_unreachable", "dark"
        elif result.get("failed"):
            event, counted = "runner_on_failed", "failures"
        elif result.get("skipped"):
            event, counted = "runner_on_skipped", "skipped"
        if counted in {"dark", "failures"}:
            bad[node] = counted
        for key in (counted, *(["changed"] if result.get("changed") else [])):
            counts.setdefault(key, {})[node] = counts.get(key, {}).get(node, 0) + 1
        module = result.get("module", "ansible.builtin.command")
        return _message(event, host=node, task_action=module, res=dict(result), duration=0.1, end=_AT, **of)


def _message(event: str, **data: Any) -> dict[str, Any]:
    words = data.get("host") or data.get("task") or data.get("play") or ""
    return {"event": event, "stdout": f"{event} {words}".strip(), "event_data": data}
