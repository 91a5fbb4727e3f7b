"""A load whose outcome is known beforehand, and the books that tell whether every task of it ran as it should.

Each attempt leaves a mark on the share when it begins (`mkdir`, which succeeds once) and another when it ends. So
an attempt that ran twice, or an end that was invented, shows in files that neither daemon wrote.
"""

from __future__ import annotations

import random
import uuid
from collections import Counter
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx

from hakuriver.models.tasks import TaskDetail
from hakuriver.states import FINAL, TaskState
from support.cluster import Cluster
from support.waiting import until

_SCRIPT = """\
mark={marks}/$HAKURIVER_TASK_ID.$HAKURIVER_ATTEMPT
mkdir "$mark" || {{ echo "$(date) again" >> "$mark.twice"; exit 99; }}
sleep {seconds}
touch "$mark/ended"
exit {code}
"""
_CODES = (0, 0, 0, 0, 1, 3, 42, 137)
_IN_CONTAINER = "/shared/marks"


@dataclass
class Load:
    """Submits tasks through a Host that comes and goes; `expected` has the exit code of each acknowledged one."""

    cluster: Cluster
    chance: random.Random
    containers: bool
    expected: dict[int, int] = field(default_factory=dict)
    refused: int = 0
    """Submissions that the Host could not take for want of disk."""
    losses: bool = False
    """The trouble lasts longer than `lost_after`, so that an attempt may be given up, and corrected."""

    @property
    def marks(self) -> Path:
        """Where the attempts leave their marks: tasks see this folder as /shared/marks."""
        return self.cluster.shared / "shared_data" / "marks"

    def prepare(self) -> None:
        self.marks.mkdir(parents=True, exist_ok=True)

    def submit(self, within: float = 120.0) -> int:
        """One task, acknowledged: the same key is sent again until an answer comes."""
        code = self.chance.choice(_CODES)
        key = uuid.UUID(int=self.chance.getrandbits(128)).hex
        body = self._body(code)
        answer = until(lambda: self._try(body, key), "a submission is acknowledged", within)
        task = int(answer["task_ids"][0])
        self.expected[task] = code
        return task

    def wait_all(self, within: float = 240.0) -> None:
        """Until every acknowledged task is final; the Host may still be coming back."""
        last: dict[int, str] = {}

        def probe() -> bool:
            try:
                last.update({task.task_id: task.status for task in self.cluster.api.tasks()})
            except httpx.TransportError:
                return False
            return all(last.get(task) in FINAL for task in self.expected)

        until(probe, lambda: f"all final; {Counter(last.get(task) for task in self.expected)}", within)

    def wait_corrected(self, within: float = 120.0) -> None:
        """Until none of them is lost any more: the Runner that came back has told how each ended."""
        until(
            lambda: not any(task.status is TaskState.LOST for task in self.cluster.api.tasks()),
            "what was lost is corrected",
            within,
        )

    def assert_each_ended_once(self) -> None:
        """The right end, one final event, one run for each attempt and none besides."""
        wrong = [problem for task, code in self.expected.items() for problem in self._problems(task, code)]
        wrong += [f"{path.name} ran more than once" for path in self.marks.glob("*.twice")]
        known = {str(task) for task in self.expected}
        wrong += [
            f"{path.name} ran and was never acknowledged"
            for path in self.marks.iterdir()
            if path.name.split(".")[0] not in known
        ]
        assert not wrong, f"{len(wrong)} of {len(self.expected)}:\n" + "\n".join(wrong[:20])

    def _problems(self, task_id: int, code: int) -> list[str]:
        task = self.cluster.api.task(task_id)
        wanted = TaskState.COMPLETED if code == 0 else TaskState.FAILED
        problems = []
        if (task.status, task.exit_code) != (wanted, code):
            problems.append(
                f"{task_id}: {task.status} {task.exit_code}, not {wanted} {code}: {_history(task)}"
            )
        final = FINAL - {TaskState.LOST} if self.losses else FINAL
        finals = [event for event in task.history if event.state in final]
        if len(finals) != 1:
            problems.append(f"{task_id}: {len(finals)} final events: {_history(task)}")
        ran = [path.name for path in self.marks.glob(f"{task_id}.*") if (path / "ended").exists()]
        if ran != [f"{task_id}.{task.attempt}"]:
            problems.append(
                f"{task_id}: attempt {task.attempt} is on record and {ran} ran to the end: {_history(task)}"
            )
        return problems

    def _body(self, code: int) -> dict[str, Any]:
        in_container = self.containers and self.chance.random() < 0.5
        marks = _IN_CONTAINER if in_container else str(self.marks)
        seconds = round(self.chance.uniform(0.05, 1.5), 2)
        text = _SCRIPT.format(marks=marks, seconds=seconds, code=code)
        return {
            "command": "sh",
            "arguments": ["-c", text],
            "env_vars": {"PADDING": "x" * self.chance.choice((0, 100, 60_000))},
            "container_name": None if in_container else "NULL",
            "required_cores": self.chance.choice((1, 1, 1, 2)),
            "required_memory_bytes": self.chance.choice((None, 50_000_000)),
        }

    def _try(self, body: dict[str, Any], key: str) -> dict[str, Any] | None:
        try:
            answer = self.cluster.api.call("POST", "/api/submit", json=body, headers={"Idempotency-Key": key})
        except httpx.TransportError:
            return None
        if answer.status_code in {HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.INSUFFICIENT_STORAGE}:
            self.refused += 1
            return None
        assert answer.is_success, answer.text
        parsed: dict[str, Any] = answer.json()
        return parsed


def _history(task: TaskDetail) -> str:
    return " → ".join(
        f"{event.state}({event.attempt}, {event.exit_code}, {event.cause})" for event in task.history
    )
