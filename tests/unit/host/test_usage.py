"""What the Host keeps of what attempts used."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from hakuriver.models.runner import AttemptReport, HeartbeatRequest
from hakuriver.models.usage import TaskUsage
from hakuriver.states import TaskState
from hakuriver_host.db import rows
from hakuriver_host.domain import reactor
from hakuriver_host.domain.model import Effects, Task
from support.simulation import T0, Simulation

LITTLE = TaskUsage(seconds=10, cpu_seconds=5, cpu_now=0.5, memory_bytes=100, peak_memory_bytes=300)
MUCH = TaskUsage(seconds=60, cpu_seconds=55, peak_memory_bytes=900, gpu_percent=40, gpu_joules=1e6)


@pytest.fixture
def sim() -> Simulation:
    made = Simulation()
    made.add_runner("a", 2)
    return made


def submitted(sim: Simulation, retries: int = 0) -> Task:
    task_id = sim.submit(cores=1, retries=retries, target=None)
    sim.schedule()
    return sim.cluster.tasks[task_id]


def tell(sim: Simulation, task: Task, status: TaskState, usage: TaskUsage | None, **changes: Any) -> Effects:
    """The Runner's next word on the task's attempt."""
    report = AttemptReport(
        task_id=task.task_id,
        attempt=task.attempt,
        sequence=task.sequence + 1,
        status=status,
        usage=usage,
        completed_at=datetime.fromtimestamp(T0, UTC),
        **changes,
    )
    effects, _ = reactor.on_reports(sim.cluster, "a", [report], sim.now)
    return effects


def beat(sim: Simulation, task: Task, usage: TaskUsage, attempt: int | None = None) -> None:
    told = {f"{task.task_id}-{attempt or task.attempt}": usage}
    assert reactor.on_heartbeat(sim.cluster, "a", HeartbeatRequest(usage=told), sim.now)


def test_the_end_says_it_and_is_written_with_it(sim: Simulation) -> None:
    task = submitted(sim)
    tell(sim, task, TaskState.RUNNING, None)
    effects = tell(sim, task, TaskState.COMPLETED, MUCH, exit_code=0)
    assert task.usage == MUCH
    written = rows.task_changes(effects.tasks[task.task_id])["usage"]
    assert rows.usage_of(written) == MUCH
    assert "cpu_now" not in written, "what is not known takes no room"


def test_a_heartbeat_writes_nothing(sim: Simulation) -> None:
    task = submitted(sim)
    tell(sim, task, TaskState.RUNNING, None)
    beat(sim, task, LITTLE)
    assert task.usage is None


@pytest.mark.parametrize("told", [None, TaskUsage(seconds=3, cpu_seconds=1)])
def test_the_last_heartbeat_stands_where_the_end_knows_less(sim: Simulation, told: TaskUsage | None) -> None:
    """As where a Runner was killed, and its task ended before it was back."""
    task = submitted(sim)
    tell(sim, task, TaskState.RUNNING, None)
    beat(sim, task, LITTLE)
    tell(sim, task, TaskState.FAILED, told, exit_code=1)
    assert task.usage == LITTLE.model_copy(update={"cpu_now": None, "memory_bytes": None})


def test_the_end_stands_where_it_knows_more(sim: Simulation) -> None:
    task = submitted(sim)
    tell(sim, task, TaskState.RUNNING, None)
    beat(sim, task, LITTLE)
    tell(sim, task, TaskState.COMPLETED, MUCH, exit_code=0)
    assert task.usage == MUCH


def test_what_was_last_known_of_a_lost_one_is_kept(sim: Simulation) -> None:
    task = submitted(sim)
    tell(sim, task, TaskState.RUNNING, None)
    beat(sim, task, LITTLE)
    sim.runners["a"].connected = False
    sim.tick(31)
    sim.tick(301)
    assert task.state is TaskState.LOST
    assert task.usage is not None
    assert task.usage.cpu_seconds == 5


def test_the_next_attempt_begins_with_nothing(sim: Simulation) -> None:
    task = submitted(sim, retries=1)
    tell(sim, task, TaskState.RUNNING, None)
    tell(sim, task, TaskState.FAILED, MUCH, exit_code=1)
    assert (task.state, task.usage) == (TaskState.PENDING, MUCH), "it is the latest attempt's still"
    sim.schedule()
    assert (task.attempt, task.usage) == (2, None)
    beat(sim, task, LITTLE, attempt=1)
    tell(sim, task, TaskState.COMPLETED, None, exit_code=0)
    assert task.usage is None, "that was the attempt before"


def test_what_the_record_has_of_an_older_version_is_nothing() -> None:
    assert rows.usage_of("") is None
    assert rows.usage_of('{"cpu_seconds":1.5,"of_a_later_version":3}') == TaskUsage(cpu_seconds=1.5)
