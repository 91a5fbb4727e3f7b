"""The queue against one that is obviously right: a list that is sorted whenever somebody asks."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from hakuriver.dependencies import Dependency, Outcome
from hakuriver.models.submission import SubmitRequest
from hakuriver.states import TaskState
from hakuriver_host.domain.attempts import end, follow
from hakuriver_host.domain.cluster import Cluster
from hakuriver_host.domain.model import Batch, Effects, Event, Now, Request, Task
from hakuriver_host.domain.queue import Queue
from hakuriver_host.domain.reactor import on_submit
from hakuriver_host.domain.waiting import line_up, on_hold, on_release, on_reprioritize, waits_aside

NOW = Now(1_000.0, 0.0)


def task(
    task_id: int, cores: int = 1, after: tuple[Dependency, ...] = (), not_before: float | None = None
) -> Task:
    batch = Batch(
        task_id, ("ada", "bob")[task_id % 2], 0.0, SubmitRequest(command="x"), None, None, after=after
    )
    return Task(task_id, batch, 0, None, Request(amounts=(("cores", cores),)), not_before=not_before)


@dataclass
class Model:
    waiting: dict[int, Task] = field(default_factory=dict)

    def line(self) -> list[Task]:
        found = [each for each in self.waiting.values() if not each.held and each.not_before is None]
        return sorted(found, key=lambda each: (-each.priority, each.task_id))


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "remove", "hold", "release", "later", "priority", "time"]),
        st.integers(0, 30),
        st.integers(-2, 2),
    ),
    max_size=60,
)


@given(STEPS)
@settings(max_examples=400)
def test_it_says_what_a_sorted_list_says(steps: list[tuple[str, int, int]]) -> None:
    queue, model, clock = Queue(), Model(), 0.0
    for number, (what, index, value) in enumerate(steps):
        ids = sorted(model.waiting)
        chosen = model.waiting[ids[index % len(ids)]] if ids else None
        if what == "add":
            made = task(number, 1 + index % 3)
            made.priority = value
            queue.add(made)
            model.waiting[number] = made
        elif what == "time":
            clock += index
            popped, more = queue.pop_due(clock, 1_000)
            assert not more
            for due in popped:
                assert due.not_before is not None
                assert due.not_before <= clock
                due.not_before = None
                queue.add(due)
            assert not [
                each for each in model.waiting.values() if each.not_before and each.not_before <= clock
            ]
        elif chosen is not None:
            queue.remove(chosen)
            if what == "remove":
                del model.waiting[chosen.task_id]
                continue
            chosen.held = {"hold": True, "release": False}.get(what, chosen.held)
            chosen.not_before = clock + 1 + index if what == "later" else chosen.not_before
            chosen.priority = value if what == "priority" else chosen.priority
            queue.add(chosen)
        line = model.line()
        assert queue.in_order(lambda each: each.rank) == list(enumerate(line))
        some = [(place, each) for place, each in enumerate(line) if each.batch.owner == "bob"][:3]
        assert queue.in_order(lambda each: each.rank, "bob", 3) == some
        assert queue.number_of("bob") == sum(each.batch.owner == "bob" for each in model.waiting.values())
        assert len(queue) == len(line)
        assert {each.task_id for each in queue.aside()} == model.waiting.keys() - {
            each.task_id for each in line
        }
        for place, each in enumerate(line):
            assert queue.position(each.task_id, lambda each: each.rank) == place
        for group in {each.group for each in line}:
            assert queue.first(group) is next(each for each in line if each.group == group)
            assert group in queue.groups()
        times = [each.not_before for each in model.waiting.values() if each.not_before is not None]
        assert queue.next_time() == min(times, default=None)


@given(
    st.lists(st.tuples(st.integers(-2, 2), st.integers(1, 3), st.booleans()), max_size=30), st.integers(1, 10)
)
def test_the_head_is_the_beginning_of_the_line(waiting: list[tuple[int, int, bool]], limit: int) -> None:
    queue = Queue()
    for number, (priority, cores, gone) in enumerate(waiting, 1):
        each = task(number, cores=cores)
        each.priority = priority
        queue.add(each)
        if gone:
            queue.remove(each)
            if number % 2:
                queue.add(each)
    whole = [each for _, each in queue.in_order(lambda each: each.rank)]
    assert queue.head(lambda each: each.rank, limit) == whole[:limit]
    assert [each for _, each in queue.in_order(lambda each: each.rank)] == whole, "nothing was taken out"


def cluster_of(*tasks: Task) -> Cluster:
    cluster = Cluster()
    on_submit(cluster, tasks)
    return cluster


def ended(cluster: Cluster, which: Task, state: TaskState) -> list[Event]:
    """It ends, and all that follows from that; the events."""
    effects = Effects()
    cluster.queue.remove(which)
    which.state = TaskState.ASSIGNING
    end(cluster, which, state, NOW, effects, "")
    while line_up(cluster, NOW, effects):
        continue
    return effects.events


def test_a_long_chain_falls_without_recursion() -> None:
    chain = [task(1)] + [task(n, after=(Dependency(n - 1, Outcome.OK),)) for n in range(2, 5_000)]
    cluster = cluster_of(*chain)
    events = ended(cluster, chain[0], TaskState.FAILED)
    assert not cluster.tasks
    assert {each.state for each in chain} == {TaskState.FAILED}
    assert len(events) == len(chain)
    assert chain[-1].message == "it was to run once task 4998 had completed, which is failed"


def test_each_outcome_waits_for_its_own() -> None:
    for state in (TaskState.COMPLETED, TaskState.FAILED, TaskState.KILLED, TaskState.KILLED_OOM):
        first = task(1)
        followers = {
            outcome: task(n, after=(Dependency(1, outcome),)) for n, outcome in enumerate(Outcome, 2)
        }
        cluster = cluster_of(first, *followers.values())
        assert len(cluster.queue) == 1
        ended(cluster, first, state)
        completed = state is TaskState.COMPLETED
        wanted = {Outcome.OK: completed, Outcome.ANY: True, Outcome.FAILED: not completed}
        for outcome, follower in followers.items():
            assert (follower.task_id in cluster.queue) is wanted[outcome]
            assert (follower.state is TaskState.PENDING) is wanted[outcome]


def test_all_are_waited_for() -> None:
    first, second = task(1), task(2)
    follower = task(3, after=(Dependency(1, Outcome.OK), Dependency(2, Outcome.ANY)))
    cluster = cluster_of(first, second, follower)
    assert waits_aside(follower) == "it waits for task 1 to complete, task 2 to end"
    ended(cluster, first, TaskState.COMPLETED)
    assert 3 not in cluster.queue
    ended(cluster, second, TaskState.FAILED)
    assert 3 in cluster.queue
    assert not waits_aside(follower)


def test_a_batch_is_moved_a_part_at_a_time() -> None:
    first, batch = task(1), task(2, after=(Dependency(1, Outcome.OK),)).batch
    many = [Task(n, batch, n, None, Request(amounts=(("cores", 1),))) for n in range(2, 3_000)]
    cluster, effects = cluster_of(first, *many), Effects()
    cluster.queue.remove(first)
    first.state = TaskState.ASSIGNING
    end(cluster, first, TaskState.COMPLETED, NOW, effects, "")
    assert effects.schedule
    assert effects.batches == {2: batch}
    assert line_up(cluster, NOW, effects)
    assert 0 < len(cluster.queue) < len(many)
    while line_up(cluster, NOW, effects):
        continue
    assert len(cluster.queue) == len(many)


def test_a_task_that_has_run_waits_for_nothing_any_more() -> None:
    """An attempt that a restored Host had forgotten was adopted, and failed."""
    first, follower = task(1), task(2, after=(Dependency(1, Outcome.ANY),))
    cluster = cluster_of(first, follower)
    cluster.queue.remove(follower)
    follower.attempt = 1
    cluster.queue.add(follower)
    assert 2 in cluster.queue


def test_what_had_ended_before_is_not_waited_for() -> None:
    batch = task(2, after=(Dependency(1, Outcome.ANY), Dependency(3, Outcome.OK))).batch
    assert follow(batch, {1: TaskState.LOST})
    assert batch.after == (Dependency(3, Outcome.OK),)
    assert not follow(batch, {})
    assert not follow(batch, {3: TaskState.LOST})
    assert "which is lost" in batch.doom
    assert batch.after, "so that a restart finds it again"


def test_moves_are_told_once_and_only_where_something_changes() -> None:
    one = task(1)
    cluster = cluster_of(one)
    assert [event.cause for event in on_hold(cluster, 1, "eve", NOW).events] == ["held by eve"]
    assert not on_hold(cluster, 1, "eve", NOW).events
    assert 1 not in cluster.queue
    on_release(cluster, 1, "ada", NOW)
    assert on_reprioritize(cluster, 1, 7, "root", NOW).tasks == {1: one}
    assert cluster.queue.first(one.group) is one
    assert one.rank.urgency == -7


def test_how_long_one_has_been_in_line() -> None:
    held, plain = task(1), task(2)
    held.batch.submitted_at, plain.batch.submitted_at = 100.0, 200.0
    held.held = True
    cluster = cluster_of(held, plain)
    assert cluster.queue.longest_in_line() == 200.0
    cluster.queue.remove(plain)
    assert cluster.queue.longest_in_line() is None
    on_release(cluster, 1, "ada", NOW)
    assert cluster.queue.longest_in_line() == NOW.wall
