"""The laws, under anything that can happen: hypothesis drives the real reactor through a simulated cluster."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hakuriver.dependencies import Dependency, Outcome
from hakuriver.states import FINAL, HOLDING, TaskState
from hakuriver_host.domain.cluster import turns_of
from hakuriver_host.domain.waiting import awaited, on_hold, on_release, on_reprioritize
from support.simulation import SimAttempt, Simulation

NODES = ("a", "b")
indices = st.integers(0, 10**6)


class ClusterMachine(RuleBasedStateMachine):
    """Submissions, reports (lost, repeated, reordered, stale), kills, restarts and losses, in any order."""

    @initialize()
    def begin(self) -> None:
        self.sim = Simulation()
        for name, cores in zip(NODES, (2, 4), strict=True):
            self.sim.add_runner(name, cores)

    @rule(
        cores=st.integers(0, 4),
        retries=st.integers(0, 2),
        where=st.sampled_from([None, "b", "b::1"]),
        gpus=st.integers(0, 2),
    )
    def submit(self, cores: int, retries: int, where: str | None, gpus: int) -> None:
        self.sim.submit(cores, retries, where, gpus=gpus)

    @rule(
        cores=st.integers(1, 2),
        where=st.sampled_from([None, "b:0", "b:1", "b"]),
        how=st.sampled_from(["preemptible", "exclusive", "share_gpus"]),
        gpus=st.integers(0, 1),
        retries=st.integers(0, 1),
        priority=st.integers(-1, 1),
    )
    def submit_otherwise(
        self, cores: int, where: str | None, how: str, gpus: int, retries: int, priority: int
    ) -> None:
        self.sim.submit(cores, retries, where, gpus=gpus, priority=priority, **{how: True})

    @rule(
        cores=st.integers(0, 2),
        priority=st.integers(-1, 1),
        hold=st.booleans(),
        delay=st.sampled_from([None, -1.0, 3.0, 40.0]),
        after=st.lists(st.tuples(indices, st.sampled_from(Outcome)), max_size=3),
    )
    def submit_for_later(
        self, cores: int, priority: int, hold: bool, delay: float | None, after: list[tuple[int, Outcome]]
    ) -> None:
        ids = sorted(self.sim.history)
        when = None if delay is None else datetime.fromtimestamp(self.sim.now.wall + delay, UTC)
        wanted = [Dependency(ids[index % len(ids)], outcome) for index, outcome in after if ids]
        # One that has ended otherwise is refused when it is submitted, and never gets here.
        wanted = [each for each in wanted if awaited(self.sim.cluster, each.task_id)]
        self.sim.submit(cores, 0, None, priority=priority, hold=hold, not_before=when, after=wanted)

    @rule(number=st.integers(2, 5), running=st.integers(1, 3), retries=st.integers(0, 1))
    def submit_batch(self, number: int, running: int, retries: int) -> None:
        self.sim.submit_batch(number, running, retries=retries)

    @precondition(lambda self: self.sim.waits)
    @rule(index=indices)
    def kill_batch(self, index: int) -> None:
        ids = sorted(self.sim.waits)
        self.sim.kill_batch(ids[index % len(ids)])

    @precondition(lambda self: self.sim.history)
    @rule(
        index=indices,
        what=st.sampled_from([(on_hold,), (on_release,), (on_reprioritize, -1), (on_reprioritize, 1)]),
    )
    def move(self, index: int, what: tuple[Any, ...]) -> None:
        ids = sorted(self.sim.history)
        self.sim.move(ids[index % len(ids)], *what)

    @rule(cores=st.integers(0, 2), where=st.sampled_from([None, "b"]), gpus=st.integers(0, 1))
    def submit_vps(self, cores: int, where: str | None, gpus: int) -> None:
        self.sim.submit(cores, 0, where, gpus=gpus, vps=True)

    @precondition(lambda self: self.sim.history)
    @rule(index=indices)
    def stop(self, index: int) -> None:
        ids = sorted(self.sim.history)
        self.sim.stop(ids[index % len(ids)])

    @precondition(lambda self: self.sim.history)
    @rule(index=indices)
    def start_again(self, index: int) -> None:
        ids = sorted(self.sim.history)
        self.sim.start_again(ids[index % len(ids)])

    @precondition(lambda self: self.sim.history)
    @rule(index=indices)
    def restore_vps(self, index: int) -> None:
        ids = sorted(self.sim.history)
        self.sim.restore_vps(ids[index % len(ids)])

    @rule(name=st.sampled_from(NODES), index=indices)
    def stops_and_starts(self, name: str, index: int) -> None:
        """All of it at once, which a random walk rarely does."""
        live = self.sim.runners[name].live()
        if live:
            key = live[index % len(live)]
            self.sim.progress(name, key, TaskState.RUNNING)
            self.sim.deliver_all()
            self.sim.stop(key[0])
            self.sim.deliver_all()
            self.sim.start_again(key[0])

    @rule(crash=st.booleans())
    def schedule(self, crash: bool) -> None:
        self.sim.schedule(crash_before_commit=crash)

    @rule()
    def all_goes_well(self) -> None:
        """What usually happens: placed, sent, arrived."""
        self.sim.schedule()
        for name in NODES:
            self.sim.send_starts(name)
            self.sim.send_kills(name)
        self.sim.deliver_all()

    @rule(name=st.sampled_from(NODES), index=indices, code=st.integers(0, 2))
    def runs_and_ends(self, name: str, index: int, code: int) -> None:
        live = self.sim.runners[name].live()
        if live:
            key = live[index % len(live)]
            self.sim.progress(name, key, TaskState.RUNNING)
            self.sim.progress(name, key, TaskState.FAILED if code else TaskState.COMPLETED, code)

    @rule(cores=st.integers(1, 4), count=st.integers(1, 4), wanted=st.integers(1, 4), gpus=st.integers(0, 1))
    def makes_room(self, cores: int, count: int, wanted: int, gpus: int) -> None:
        """All of it at once: some that give way fill a node, and one comes that does not."""
        for _ in range(count):
            self.sim.submit(cores, 0, "b", gpus=gpus, preemptible=True)
        self.all_goes_well()
        self.sim.submit(wanted, 0, "b")
        self.all_goes_well()

    @rule(name=st.sampled_from(NODES))
    def send_starts(self, name: str) -> None:
        self.sim.send_starts(name)

    @precondition(lambda self: self.sim.starts)
    @rule(index=indices, answer_lost=st.booleans(), again=st.booleans())
    def deliver_start(self, index: int, answer_lost: bool, again: bool) -> None:
        index %= len(self.sim.starts)
        name, key, run = self.sim.starts[index] if again else self.sim.starts.pop(index)
        self.sim.deliver_start(name, key, run, answer_lost=answer_lost)

    @rule(
        name=st.sampled_from(NODES),
        index=indices,
        status=st.sampled_from([TaskState.RUNNING, TaskState.PAUSED]),
    )
    def progress(self, name: str, index: int, status: TaskState) -> None:
        live = self.sim.runners[name].live()
        if live:
            self.sim.progress(name, live[index % len(live)], status)

    @rule(name=st.sampled_from(NODES), index=indices, code=st.integers(0, 2))
    def end(self, name: str, index: int, code: int) -> None:
        live = self.sim.runners[name].live()
        if live:
            status = TaskState.FAILED if code else TaskState.COMPLETED
            self.sim.progress(name, live[index % len(live)], status, code)

    @precondition(lambda self: self.sim.reports)
    @rule(index=indices, fate=st.sampled_from(["once", "again", "lost"]))
    def deliver_report(self, index: int, fate: str) -> None:
        index %= len(self.sim.reports)
        name, report = self.sim.reports[index] if fate == "again" else self.sim.reports.pop(index)
        if fate != "lost":
            self.sim.deliver_report(name, report)

    @precondition(lambda self: self.sim.history)
    @rule(index=indices)
    def kill(self, index: int) -> None:
        ids = sorted(self.sim.history)
        self.sim.kill(ids[index % len(ids)])

    @rule(name=st.sampled_from(NODES))
    def send_kills(self, name: str) -> None:
        self.sim.send_kills(name)

    @rule(name=st.sampled_from(NODES))
    def cut(self, name: str) -> None:
        self.sim.runners[name].connected = not self.sim.runners[name].connected

    @rule(name=st.sampled_from(NODES))
    def refuse(self, name: str) -> None:
        self.sim.runners[name].refuses = not self.sim.runners[name].refuses

    @rule(name=st.sampled_from(NODES))
    def restart_runner(self, name: str) -> None:
        if self.sim.runners[name].connected:
            self.sim.register(name)

    @rule(name=st.sampled_from(NODES))
    def begin_register(self, name: str) -> None:
        if self.sim.runners[name].connected:
            self.sim.begin_register(name)

    @rule(name=st.sampled_from(NODES), again=st.booleans())
    def registers_under_load(self, name: str, again: bool) -> None:
        """While it is called back, starts come in and are answered."""
        if self.sim.runners[name].connected:
            for _ in range(1 + again):
                self.sim.begin_register(name)
                self.sim.arrive(self.sim.registering[-1])
            if again:
                self.sim.end_register(self.sim.registering.pop(), answer_lost=False)
            self.all_goes_well()
            self.sim.end_register(self.sim.registering.pop(), answer_lost=False)

    @precondition(lambda self: self.sim.registering)
    @rule(index=indices, answer_lost=st.booleans())
    def registration_goes_on(self, index: int, answer_lost: bool) -> None:
        """It arrives at the Host; one that has arrived is decided."""
        under_way = self.sim.registering[index % len(self.sim.registering)]
        if under_way.turn is None:
            self.sim.arrive(under_way)
        else:
            self.sim.registering.remove(under_way)
            self.sim.end_register(under_way, answer_lost=answer_lost)

    @rule(name=st.sampled_from(NODES))
    def wipe_runner(self, name: str) -> None:
        self.sim.wipe_runner(name)

    @rule(name=st.sampled_from(NODES), drain=st.booleans())
    def cordon(self, name: str, drain: bool) -> None:
        self.sim.cordon(name, drain=drain)

    @rule(name=st.sampled_from(NODES))
    def uncordon(self, name: str) -> None:
        self.sim.uncordon(name)

    @rule(name=st.sampled_from(NODES), force=st.booleans())
    def remove_node(self, name: str, force: bool) -> None:
        self.sim.remove(name, force=force)

    @rule()
    def restart_host(self) -> None:
        self.sim.restart_host()

    @rule(seconds=st.sampled_from([1.0, 31.0, 400.0]))
    def time_passes(self, seconds: float) -> None:
        self.sim.tick(seconds)

    @invariant()
    def what_is_held_is_accounted(self) -> None:
        cluster = self.sim.cluster
        for name, node in cluster.nodes.items():
            holding = {i for i, task in cluster.tasks.items() if task.state in HOLDING and task.node == name}
            assert set(cluster.ledger.holders(name)) == holding
            held = sum(
                node.capacity["cores"] if task.request.exclusive else task.request.amount("cores")
                for task in map(cluster.tasks.__getitem__, holding)
            )
            assert cluster.ledger.held(name, "cores") == held
            assert set(node.to_start) <= holding
        assert cluster.ledger._batches == self.sim.holding()
        may_go = [
            task
            for task in cluster.tasks.values()
            if task.state in HOLDING and task.node and task.request.preemptible
        ]
        assert cluster.ledger.has_preemptible() == bool(may_go)

    @invariant()
    def a_gpu_is_used_by_one_alone(self) -> None:
        for name, runner in self.sim.runners.items():
            using = [
                (uuid, self.shares(attempt))
                for attempt in runner.attempts.values()
                if attempt.status not in FINAL | {TaskState.STOPPED}
                for uuid in attempt.gpus
            ]
            alone = {uuid for uuid, shares in using if not shares}
            assert all(sum(uuid == each for each, _ in using) == 1 for uuid in alone), (name, runner.attempts)

    def shares(self, attempt: SimAttempt) -> bool:
        return self.sim.specs[attempt.key[0]].share_gpus

    @invariant()
    def what_waits_is_in_the_queue(self) -> None:
        cluster = self.sim.cluster
        line = [task for _, task in cluster.queue.in_order(turns_of(cluster).of)]
        aside = list(cluster.queue.aside())
        woken = {task.task_id for task in cluster.queue._woken}
        assert {task.task_id for task in [*line, *aside]} == {
            i for i, task in cluster.tasks.items() if task.state is TaskState.PENDING
        }
        assert not any(task.aside for task in line)
        assert all(task.aside or task.task_id in woken for task in aside)
        assert line == sorted(line, key=lambda task: (-task.priority, task.request.preemptible, task.task_id))
        for task in aside:
            if task.batch.doom:
                assert task.task_id in woken
            else:
                assert all(awaited(cluster, dependency.task_id) for dependency in task.batch.after)

    @invariant()
    def an_attempt_starts_at_most_once(self) -> None:
        counts: dict[tuple[tuple[int, int], int], int] = {}
        for runner in self.sim.runners.values():
            for key, number in runner.started.items():
                counts[key] = counts.get(key, 0) + number
        assert all(number == 1 for number in counts.values()), counts

    @invariant()
    def final_is_final(self) -> None:
        for events in self.sim.history.values():
            ended = [index for index, event in enumerate(events) if event.state in FINAL - {TaskState.LOST}]
            assert ended in ([], [len(events) - 1])

    @invariant()
    def attempts_rise(self) -> None:
        for events in self.sim.history.values():
            numbers = [event.attempt for event in events]
            assert numbers == sorted(numbers)
            placed = [
                event.attempt
                for event in events
                if event.state is TaskState.ASSIGNING and event.cause.startswith("placed")
            ]
            assert len(placed) == len(set(placed)), "each placement is an attempt of its own"

    def teardown(self) -> None:
        if not hasattr(self, "sim"):
            return
        sim = self.sim
        sim.settle()
        for task_id, events in sim.history.items():
            assert events, f"task {task_id} was never placed"
            last = events[-1]
            assert last.state in FINAL, (task_id, events)
            if last.exit_code is not None:
                assert sim.outcomes[task_id, last.attempt] == (last.state, last.exit_code), (
                    "the Runner's own outcome"
                )
        for name, runner in sim.runners.items():
            assert not runner.live(), "nothing runs on"
            assert not runner.attempts, "everything is acknowledged"
            assert sim.cluster.ledger.held(name, "cores") == 0, "nothing is held"
        assert len(sim.cluster.queue) == 0
        assert not list(sim.cluster.queue.aside())
        assert not sim.cluster.followers
        assert not sim.cluster.watched
        assert not sim.cluster.outcomes


TestLaws = ClusterMachine.TestCase
TestLaws.settings = settings(
    max_examples=600, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
