"""Preemption: who makes room for whom, and what becomes of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hakuriver.models.runner import AttemptReport
from hakuriver.states import TaskState
from hakuriver_host.domain import reactor
from hakuriver_host.domain.cluster import Cluster, turns_of
from hakuriver_host.domain.model import Effects, Now, Registration, Task
from hakuriver_host.domain.turns import Limits
from unit.host.test_placement import node, task

NOW = Now(1_000.0, 0.0)


def gives_way(task_id: int, cores: int = 1, **request: object) -> Task:
    return task(task_id, cores, preemptible=True, **request)


def cluster_of(*cores: int) -> Cluster:
    return Cluster(nodes={name: node(name, number) for name, number in zip("abc", cores, strict=False)})


def submit(cluster: Cluster, *tasks: Task) -> Effects:
    for each in tasks:
        reactor.on_submit(cluster, [each])
    effects = reactor.on_schedule(cluster, NOW)
    while reactor.on_schedule(cluster, NOW).schedule:
        pass
    return effects


def runs(cluster: Cluster, *tasks: Task, since: float = 1_000.0) -> None:
    for each in tasks:
        report(cluster, each, TaskState.RUNNING, 1)
        each.started_at = since


def report(cluster: Cluster, of: Task, status: TaskState, sequence: int, code: int | None = None) -> Effects:
    told = AttemptReport(
        task_id=of.task_id, attempt=of.attempt, sequence=sequence, status=status, exit_code=code
    )
    return reactor.on_reports(cluster, of.node or "", [told], NOW)[0]


def test_one_that_gives_way_ends_and_waits_again() -> None:
    cluster = cluster_of(2)
    submit(cluster, small := gives_way(1, 2))
    runs(cluster, small)
    effects = submit(cluster, wants := task(2, 2))
    assert small.preempting
    assert small.reason == "ended to make room for task 2"
    assert effects.tasks.keys() >= {1}, "it is on the record"
    assert list(cluster.nodes["a"].to_kill) == [small.key]
    assert effects.wake == {"a"}
    effects = report(cluster, small, TaskState.KILLED, 2, 143)
    assert (small.state, small.preempting, small.retries) == (TaskState.PENDING, False, 0)
    assert effects.events[-1].cause == "ended to make room for task 2"
    submit(cluster)
    assert (wants.node, small.node) == ("a", "a")
    assert wants.state is TaskState.ASSIGNING
    assert small.state is TaskState.PENDING


def test_one_that_ends_by_itself_meanwhile_has_ended() -> None:
    cluster = cluster_of(2)
    submit(cluster, small := gives_way(1, 2))
    runs(cluster, small)
    submit(cluster, task(2, 2))
    report(cluster, small, TaskState.COMPLETED, 2, 0)
    assert small.state is TaskState.COMPLETED


def test_one_that_a_person_kills_meanwhile_is_killed() -> None:
    cluster = cluster_of(2)
    submit(cluster, small := gives_way(1, 2))
    runs(cluster, small)
    submit(cluster, task(2, 2))
    reactor.on_kill(cluster, 1, "ada", NOW)
    report(cluster, small, TaskState.KILLED, 2, 143)
    assert small.state is TaskState.KILLED


def test_nobody_makes_room_for_one_that_gives_way_itself_nor_for_a_lower_priority() -> None:
    cluster = cluster_of(2)
    submit(cluster, small := gives_way(1, 2))
    runs(cluster, small)
    submit(cluster, gives_way(2, 2))
    assert not small.preempting
    lower = task(3, 2)
    lower.priority = -1
    submit(cluster, lower)
    assert not small.preempting


def test_nobody_is_ended_where_that_does_not_help() -> None:
    cluster = cluster_of(4)
    submit(cluster, lasting := task(1, 2), small := gives_way(2, 2))
    runs(cluster, lasting, small)
    submit(cluster, task(3, 4))
    assert not small.preempting


def test_as_few_as_may_be_and_those_that_began_last() -> None:
    cluster = cluster_of(6)
    tasks = [gives_way(1, 1), gives_way(2, 2), gives_way(3, 3)]
    submit(cluster, *tasks)
    for each, since in zip(tasks, (500.0, 900.0, 700.0), strict=True):
        runs(cluster, each, since=since)
    submit(cluster, task(4, 3))
    assert [each.task_id for each in tasks if each.preempting] == [3], (
        "the second alone would not do, and is not needed"
    )


def test_the_node_where_the_fewest_end() -> None:
    cluster = cluster_of(2, 2)
    tasks = [gives_way(1), gives_way(2), gives_way(3, 2)]
    submit(cluster, *tasks)
    runs(cluster, *tasks)
    submit(cluster, task(4, 2))
    assert [each.task_id for each in tasks if each.preempting] == [3]


def test_those_that_do_not_give_way_come_first() -> None:
    cluster = cluster_of(2)
    submit(cluster, lasting := task(1, 2))
    submit(cluster, older := gives_way(2, 1), younger := task(3, 1))
    runs(cluster, lasting)
    report(cluster, lasting, TaskState.COMPLETED, 2, 0)
    order = [each.task_id for _, each in cluster.queue.in_order(turns_of(cluster).of)]
    assert order == [3, 2]
    submit(cluster)
    assert (younger.node, older.node) == ("a", "a"), "where there is room for both, both have it"


def test_it_is_told_again_after_a_restart_of_the_host() -> None:
    cluster = cluster_of(2)
    submit(cluster, small := gives_way(1, 2))
    runs(cluster, small)
    submit(cluster, task(2, 2))
    again = Cluster()
    reactor.restore(again, [node("a", 2)], [small], NOW)
    assert list(again.nodes["a"].to_kill) == [small.key]
    report(again, small, TaskState.KILLED, 2, 143)
    assert small.state is TaskState.PENDING


def schedule(cluster: Cluster, most: int = 20) -> int:
    """Rounds, until there is nothing more to do; their number."""
    for count in range(1, most + 1):
        if not reactor.on_schedule(cluster, NOW).schedule:
            return count
    raise AssertionError("it does not rest")


def of(owner: str, each: Task) -> Task:
    each.batch.owner = owner
    return each


def test_those_that_end_one_after_the_other_do_not_come_back_before() -> None:
    cluster = cluster_of(2)
    first, second = gives_way(1), gives_way(2)
    submit(cluster, first, second)
    runs(cluster, first, second)
    submit(cluster, wants := task(3, 2))
    assert (first.preempting, second.preempting) == (True, True)
    report(cluster, first, TaskState.KILLED, 9, 143)
    schedule(cluster)
    assert first.state is TaskState.PENDING, "though there is room for it, and it is older"
    report(cluster, second, TaskState.KILLED, 9, 143)
    schedule(cluster)
    assert wants.state is TaskState.ASSIGNING


def test_an_older_one_that_gives_way_does_not_keep_a_claim_from_its_owners_other() -> None:
    cluster = cluster_of(2)
    submit(cluster, runs_now := gives_way(1, 2))
    runs(cluster, runs_now)
    submit(cluster, waits := gives_way(2, 2), wants := task(3, 2))
    assert runs_now.preempting
    report(cluster, runs_now, TaskState.KILLED, 9, 143)
    schedule(cluster)
    assert (wants.state, waits.state) == (TaskState.ASSIGNING, TaskState.PENDING)


def test_claims_of_two_owners_do_not_go_round() -> None:
    cluster = cluster_of(2)
    submit(cluster, lasting := of("zed", task(1, 2)))
    runs(cluster, lasting)
    mixed = [("ada", gives_way(2, 2)), ("bo", gives_way(3, 2)), ("ada", task(5, 2)), ("bo", task(6, 2))]
    for owner, each in mixed:
        reactor.on_submit(cluster, [of(owner, each)])
        schedule(cluster)
    assert cluster.claim is not None
    assert cluster.claim.task.task_id == 5


def test_no_room_is_made_where_its_owner_may_not_have_it() -> None:
    cluster = cluster_of(4, 8)
    cluster.limits = Limits({"cores": 4})
    submit(cluster, lasting := of("zed", task(1, 4)), small := of("bo", gives_way(2, 4)))
    runs(cluster, lasting, small)
    assert (lasting.node, small.node) == ("a", "b")
    reactor.on_submit(cluster, [of("ada", task(3, 1, exclusive=True))])
    schedule(cluster)
    assert not small.preempting


def test_one_that_is_being_killed_makes_room_by_itself() -> None:
    cluster = cluster_of(4)
    submit(cluster, killed := task(1, 2), small := gives_way(2, 2))
    runs(cluster, killed, small)
    reactor.on_kill(cluster, 1, "ada", NOW)
    submit(cluster, task(3, 2))
    assert not small.preempting


def test_room_that_is_being_made_is_not_lent() -> None:
    cluster = cluster_of(2)
    victims = [gives_way(1, limit=36_000), gives_way(2, limit=36_000)]
    for each in victims:
        each.batch.spec = each.batch.spec.model_copy(update={"time_limit_seconds": 36_000})
    submit(cluster, *victims)
    runs(cluster, *victims)
    submit(cluster, wants := task(3, 2), short := task(4, 1, limit=3_600))
    report(cluster, victims[0], TaskState.KILLED, 9, 143)
    schedule(cluster)
    assert short.state is TaskState.PENDING, "it would be in the way for an hour"
    report(cluster, victims[1], TaskState.KILLED, 9, 143)
    schedule(cluster)
    assert wants.state is TaskState.ASSIGNING


@pytest.mark.parametrize("retries", [0, 1])
def test_one_that_was_given_up_meanwhile_waits_again_when_its_node_comes_back(retries: int) -> None:
    cluster = cluster_of(2)
    small = gives_way(1, 2)
    small.batch.spec = small.batch.spec.model_copy(update={"max_retries": retries})
    submit(cluster, small)
    runs(cluster, small)
    submit(cluster, task(2, 2))
    assert small.preempting
    reactor.on_tick(cluster, reactor.Timeouts(30, 300), Now(2_000.0, 1_000.0))
    assert small.state is (TaskState.PENDING if retries else TaskState.LOST)
    killed = AttemptReport(task_id=1, attempt=1, sequence=2, status=TaskState.KILLED, exit_code=143)
    where = cluster.nodes["a"]
    registration = Registration(
        name="a",
        url=where.url,
        capacity=dict(where.capacity),
        gpus=(),
        gpu_note="",
        numa_nodes={},
        engines=where.engines,
        engine_notes={},
        journal_id="",
        problem="",
        allow_privileged=None,
        mount_roots=None,
        attempts=(killed,),
    )
    number = reactor.on_registering(cluster, "a")
    reactor.on_register(cluster, registration, number, Now(2_001.0, 1_001.0))
    assert small.state is TaskState.PENDING


def test_nothing_is_ended_in_the_round_in_which_it_is_placed() -> None:
    cluster = cluster_of(4, 4)
    lasting, small = of("zed", task(1, 1, node="a")), of("zed", gives_way(2, 3, node="b"))
    submit(cluster, lasting, small)
    runs(cluster, lasting, small)
    fresh = of("bo", gives_way(4, 1))
    reactor.on_submit(cluster, [of("ada", task(3, 4)), fresh])
    reactor.on_schedule(cluster, NOW)
    assert not (fresh.preempting and fresh.attempt == 1)
    assert all(key.attempt > 0 for node in cluster.nodes.values() for key in node.to_kill)


@given(
    cores=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    running=st.lists(st.tuples(st.integers(1, 3), st.booleans()), max_size=6),
    wanted=st.integers(1, 4),
)
def test_what_is_ended_makes_room_and_nothing_is_ended_for_nothing(
    cores: list[int], running: list[tuple[int, bool]], wanted: int
) -> None:
    cluster = cluster_of(*cores)
    tasks = [
        gives_way(number, size) if gives else task(number, size)
        for number, (size, gives) in enumerate(running, 1)
    ]
    for each in tasks:
        submit(cluster, each)
        runs(cluster, *[each] * (each.node is not None and each.state is TaskState.ASSIGNING))
    submit(cluster, wants := task(99, wanted))
    ended = [each for each in cluster.tasks.values() if each.preempting]
    first = next((each for _, each in cluster.queue.in_order(lambda each: each.task_id)), None)
    for each in ended:
        assert each.request.preemptible
        report(cluster, each, TaskState.KILLED, 9, 143)
    submit(cluster)
    if ended and first is wants:
        assert wants.node is not None
    for each in tasks:
        assert each.state is not TaskState.KILLED
