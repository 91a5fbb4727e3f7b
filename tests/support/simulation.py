"""A simulated cluster around the real reactor: Runners with journals, a network that loses and repeats.

It shares no code with the Runner; it does what the design says that a Runner does, in the simplest way.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from hakuriver.dependencies import Dependency, parse_dependency
from hakuriver.errors import ConflictError
from hakuriver.models.runner import AttemptReport, HeartbeatRequest, StartResult, Verdict, VerdictAction
from hakuriver.models.submission import SubmitRequest
from hakuriver.states import FINAL, HOLDING, NodeState, TaskState
from hakuriver_host.db.rows import quota_of, request_of
from hakuriver_host.domain import batches, reactor, waiting
from hakuriver_host.domain.cpus import NumaCores
from hakuriver_host.domain.gpus import Gpu
from hakuriver_host.domain.model import Batch, Effects, Event, Node, Now, Registration, Task

TIMEOUTS = reactor.Timeouts(offline_after=30.0, lost_after=300.0)
T0 = 1_800_000_000.0

Key = tuple[int, int]


@dataclass
class SimAttempt:
    key: Key
    status: TaskState = TaskState.ASSIGNING
    sequence: int = 0
    exit_code: int | None = None
    run: int = 0
    gpus: tuple[str, ...] = ()
    cpus: tuple[int, ...] = ()

    def report(self) -> AttemptReport:
        return AttemptReport(
            task_id=self.key[0],
            attempt=self.key[1],
            sequence=self.sequence,
            run=self.run,
            status=self.status,
            gpus=list(self.gpus),
            cpus=list(self.cpus),
            exit_code=self.exit_code,
            completed_at=datetime.fromtimestamp(T0, UTC) if self.status in FINAL else None,
        )


@dataclass
class SimRunner:
    """A Runner as the design has it: journal first, at most once, final reports until acknowledged."""

    name: str
    cores: int
    journal_id: str
    gpus: int = 2
    refuses: bool = False
    connected: bool = True
    registered: bool = True
    holds_starts: bool = False
    """From when it has looked at what it has for a registration, until the Host has answered."""
    attempts: dict[Key, SimAttempt] = field(default_factory=dict)
    acknowledged: set[Key] = field(default_factory=set)
    started: dict[tuple[Key, int], int] = field(default_factory=dict)
    """By attempt and run."""

    def start(self, key: Key, run: int) -> StartResult | None:
        if self.holds_starts:
            return None
        kept = self.attempts.get(key)
        if kept is not None and kept.status is TaskState.STOPPED and run > kept.run:
            return self._start_again(kept, run)
        if key in self.attempts:
            return StartResult(
                task_id=key[0], attempt=key[1], outcome="known", report=self.attempts[key].report()
            )
        if key in self.acknowledged:
            return StartResult(task_id=key[0], attempt=key[1], outcome="known")
        if self.refuses or run:
            return StartResult(task_id=key[0], attempt=key[1], outcome="refused", reason="not here")
        self.attempts[key] = SimAttempt(key)
        self._count(key, run)
        return StartResult(task_id=key[0], attempt=key[1], outcome="accepted")

    def _start_again(self, kept: SimAttempt, run: int) -> StartResult:
        task_id, attempt = kept.key
        if self.refuses:
            return StartResult(task_id=task_id, attempt=attempt, outcome="refused", reason="not here")
        kept.run, kept.status, kept.sequence = run, TaskState.ASSIGNING, kept.sequence + 1
        self._count(kept.key, run)
        return StartResult(task_id=task_id, attempt=attempt, outcome="accepted", report=kept.report())

    def _count(self, key: Key, run: int) -> None:
        self.started[key, run] = self.started.get((key, run), 0) + 1

    def stop(self, key: Key) -> AttemptReport | None:
        attempt = self.attempts.get(key)
        running = attempt is not None and attempt.status in {TaskState.RUNNING, TaskState.PAUSED}
        return self.change(key, TaskState.STOPPED) if running else None

    def change(self, key: Key, status: TaskState, exit_code: int | None = None) -> AttemptReport | None:
        attempt = self.attempts.get(key)
        if attempt is None or attempt.status in FINAL:
            return None
        if attempt.status is TaskState.STOPPED and status not in FINAL:
            return None
        attempt.status, attempt.exit_code = status, exit_code
        attempt.sequence += 1
        return attempt.report()

    def kill(self, key: Key) -> AttemptReport | None:
        if key in self.acknowledged:
            return None
        if key not in self.attempts:
            self.attempts[key] = SimAttempt(key)
        return self.change(key, TaskState.KILLED)

    def obey(self, verdict: Verdict) -> AttemptReport | None:
        if verdict.action is VerdictAction.FORGET:
            self._forget(verdict.key)
        if verdict.action is VerdictAction.KILL:
            attempt = self.attempts.get(verdict.key)
            if attempt is not None and attempt.status in FINAL:
                self._forget(verdict.key)
                return None
            return self.kill(verdict.key)
        return None

    def _forget(self, key: Key) -> None:
        attempt = self.attempts.get(key)
        if attempt is not None and attempt.status in FINAL:
            del self.attempts[key]
            self.acknowledged.add(key)

    def beat(self) -> HeartbeatRequest:
        running = (key for key in self.live() if self.attempts[key].status is not TaskState.STOPPED)
        return HeartbeatRequest(running_tasks=[task_id for task_id, _ in running])

    def live(self) -> list[Key]:
        return [key for key, attempt in self.attempts.items() if attempt.status not in FINAL]


@dataclass
class SimRegistering:
    """A registration under way: what the Runner said of itself, which grows old."""

    registration: Registration
    turn: int | None = None
    """The Host's number for it, once it has arrived there."""


@dataclass
class Simulation:
    """Host, Runners and network. `durable` is what a restarted Host would read."""

    cluster: reactor.Cluster = field(default_factory=reactor.Cluster)
    runners: dict[str, SimRunner] = field(default_factory=dict)
    reports: list[tuple[str, AttemptReport]] = field(default_factory=list)
    starts: list[tuple[str, Key, int]] = field(default_factory=list)
    given: dict[Key, tuple[tuple[str, ...], tuple[int, ...]]] = field(default_factory=dict)
    """GPUs and cores of the attempts that were sent."""
    specs: dict[int, SubmitRequest] = field(default_factory=dict)
    """What was submitted, by task."""
    registering: list[SimRegistering] = field(default_factory=list)
    history: dict[int, list[Event]] = field(default_factory=dict)
    outcomes: dict[Key, tuple[TaskState, int | None]] = field(default_factory=dict)
    """How each attempt ended on its Runner."""
    durable: dict[int, Task] = field(default_factory=dict)
    waits: dict[int, tuple[Dependency, ...]] = field(default_factory=dict)
    """By batch, what a restarted Host would read."""
    durable_nodes: dict[str, Node] = field(default_factory=dict)
    mono: float = 0.0
    next_id: int = 1
    journals: int = 0

    @property
    def now(self) -> Now:
        return Now(T0 + self.mono, self.mono)

    def commit(self, effects: Effects) -> None:
        for event in effects.events:
            assert event.state is not TaskState.KILLED or event.task.kill_requested, "nobody killed it"
            self.history[event.task.task_id].append(event)
        for task_id, task in effects.tasks.items():
            self.durable[task_id] = copy.copy(task)
        for batch_id, batch in effects.batches.items():
            self.waits[batch_id] = batch.after
        for name, node in effects.nodes.items():
            self.durable_nodes[name] = copy.deepcopy(node)
        for name in effects.removed:
            del self.durable_nodes[name]

    def add_runner(self, name: str, cores: int) -> None:
        self.journals += 1
        self.runners[name] = SimRunner(name, cores, f"journal-{self.journals}")
        self.register(name)

    def register(self, name: str) -> None:
        self.begin_register(name)
        self.arrive(self.registering[-1])
        self.end_register(self.registering.pop(), answer_lost=False)

    def begin_register(self, name: str) -> None:
        """The Runner looks at what it has, and tells the Host; what it told before does not arrive any more."""
        self.registering = [
            one for one in self.registering if one.turn is not None or one.registration.name != name
        ]
        runner = self.runners[name]
        runner.registered, runner.holds_starts = False, True
        half = runner.cores // 2
        cpus = tuple(range(runner.cores))
        registration = Registration(
            name=name,
            url=f"http://{name}",
            capacity={
                "cores": runner.cores,
                "memory": 10**9,
                "cores@0": half,
                "cores@1": runner.cores - half,
            },
            gpus=tuple(Gpu(f"{name}-{number}", number) for number in range(runner.gpus)),
            gpu_note="",
            numa_nodes={0: NumaCores(cpus[:half]), 1: NumaCores(cpus[half:])},
            cpus=cpus,
            tasks_per_gpu=2,
            engines=frozenset({"docker", "process"}),
            engine_notes={},
            journal_id=runner.journal_id,
            problem="",
            allow_privileged=None,
            mount_roots=None,
            attempts=tuple(attempt.report() for attempt in runner.attempts.values()),
        )
        self.registering.append(SimRegistering(registration))

    def arrive(self, under_way: SimRegistering) -> None:
        """The Host has it, and calls the Runner back, which takes a while."""
        under_way.turn = reactor.on_registering(self.cluster, under_way.registration.name)

    def end_register(self, under_way: SimRegistering, *, answer_lost: bool) -> None:
        """The Host has called back, and decides."""
        registration = under_way.registration
        runner = self.runners[registration.name]
        assert under_way.turn is not None
        try:
            effects, verdicts = reactor.on_register(self.cluster, registration, under_way.turn, self.now)
        except ConflictError:
            return
        for event in effects.events:
            key = (event.task.task_id, event.attempt)
            known = key in runner.attempts or key in runner.acknowledged
            assert not (known and "no longer knows of it" in event.cause), (
                "its journal holds what is given up"
            )
        self.commit(effects)
        if answer_lost or registration.journal_id != runner.journal_id:
            return
        runner.registered, runner.holds_starts = True, False
        self._obey(runner, verdicts)
        for task_id, attempt in runner.live():
            task = self.cluster.tasks[task_id]
            assert task.attempt == attempt, "of an older attempt nothing is left"
            if runner.attempts[task_id, attempt].status is not TaskState.STOPPED:
                assert task.state in HOLDING, "what runs on is adopted"
            else:
                assert task.kept or task.state is TaskState.ASSIGNING, "what is kept is known to be"

    def heartbeat(self, name: str) -> None:
        runner = self.runners[name]
        if runner.connected and not (
            runner.registered and reactor.on_heartbeat(self.cluster, name, runner.beat(), self.now)
        ):
            self.register(name)

    def submit(
        self,
        cores: int,
        retries: int,
        target: str | None,
        *,
        gpus: int = 0,
        vps: bool = False,
        after: Sequence[Dependency] = (),
        **order: Any,
    ) -> int:
        """What it is to run `after` is looked up first, and may end before the task is on the record."""
        spec = SubmitRequest(
            task_type="vps" if vps else "command",
            command="x",
            required_cores=cores,
            gpus=gpus,
            max_retries=0 if vps else retries,
            targets=[target] if target else [],
            retry_delay_seconds=5 if retries > 1 else 0,
            after=[str(dependency) for dependency in after],
            **order,
        )
        task_id, self.next_id = self.next_id, self.next_id + 1
        self.specs[task_id] = spec
        batch = Batch(task_id, "ada", self.now.wall, spec, "base", "1")
        task = Task(task_id, batch, 0, target, request_of(spec, target))
        task.priority, task.held = spec.priority, spec.hold
        task.not_before = spec.not_before.timestamp() if spec.not_before else None
        batch.after = tuple(each for each in after if waiting.awaited(self.cluster, each.task_id))
        self.history[task_id] = []
        with waiting.watching(self.cluster, [each.task_id for each in batch.after]):
            for number, each in enumerate(batch.after):
                if number % 2:
                    self.kill(each.task_id)
            self.durable[task_id] = copy.copy(task)
            self.waits[task_id] = batch.after
            self.commit(reactor.on_submit(self.cluster, [task]))
        return task_id

    def submit_batch(self, number: int, running: int, *, retries: int = 0) -> list[int]:
        """Tasks of one batch, of which so many may hold anything at a time."""
        spec = SubmitRequest(command="x", count=number, max_running=running, max_retries=retries)
        batch = Batch(self.next_id, "ada", self.now.wall, spec, "base", "1")
        request = request_of(spec, None, quota=quota_of(batch.batch_id, spec))
        tasks = [Task(self.next_id + index, batch, index, None, request) for index in range(number)]
        self.next_id += number
        self.waits[batch.batch_id] = ()
        for task in tasks:
            self.history[task.task_id] = []
            self.durable[task.task_id] = copy.copy(task)
        self.commit(reactor.on_submit(self.cluster, tasks))
        return [task.task_id for task in tasks]

    def kill_batch(self, batch_id: int) -> None:
        waits, others = batches.live_of(self.cluster, batch_id)
        self.commit(batches.on_kill_each(self.cluster, [*waits, *others], "ada", self.now))
        assert not batches.live_of(self.cluster, batch_id)[0], "none of it waits any more"

    def holding(self) -> Counter[int]:
        """By batch with a quota, how many of its tasks hold anything."""
        return Counter(
            task.batch.batch_id
            for task in self.cluster.tasks.values()
            if task.request.quota is not None and task.state in HOLDING
        )

    def move(self, task_id: int, decide: Callable[..., Effects], *arguments: object) -> None:
        """Holds, releases or reprioritizes what waits."""
        task = self.cluster.tasks.get(task_id)
        if task is not None and task.state is TaskState.PENDING:
            self.commit(decide(self.cluster, task_id, *arguments, "ada", self.now))

    def schedule(self, *, crash_before_commit: bool = False) -> None:
        cordoned = {name for name, node in self.cluster.nodes.items() if node.cordoned}
        before = self.holding()
        effects = reactor.on_schedule(self.cluster, self.now)
        for batch_id, number in self.holding().items():
            quota = next(
                task.request.quota for task in self.cluster.tasks.values() if task.batch.batch_id == batch_id
            )
            # What comes back with its node is held, however many were placed meanwhile.
            assert quota is not None
            assert number <= max(quota.running, before[batch_id]), "no more of a batch run than may"
        assert not {event.node for event in effects.events} & cordoned, "nothing is placed on a cordoned node"
        for event in effects.events:
            if event.state is TaskState.ASSIGNING:
                self._may_be_placed(event.task, effects.events)
                self._has_room(event.task)
        if crash_before_commit:
            self.restart_host()
            return
        self.commit(effects)
        if effects.schedule:
            self.schedule()

    def _has_room(self, task: Task) -> None:
        node, ledger = self.cluster.nodes[task.node or ""], self.cluster.ledger
        holders = ledger.holders(node.name)
        others = [held for task_id, held in holders.items() if task_id != task.task_id]
        alone = task.request.exclusive or any(held.request.exclusive for held in others)
        assert not (alone and others), "one that has its node for itself is alone there"
        assert all(ledger.free(node.name, node.capacity, name) >= 0 for name in node.capacity)
        cores = () if task.request.exclusive else task.cpus
        assert not {cpu for held in others for cpu in held.cpus} & set(cores), "its cores are its own"
        assert len(cores) in {0, task.request.amount("cores")}
        assert task.request.numa is None or set(cores) <= set(node.numa_nodes[task.request.numa].cpus)
        for gpu in task.gpus:
            sharers = ledger.gpus(node.name)[gpu.uuid]
            asked = [holders[each].request.gpus for each in sharers]
            assert len(sharers) == 1 or (
                len(sharers) <= node.tasks_per_gpu and all(wanted and wanted.shared for wanted in asked)
            ), "only those that share have a GPU together"

    def _may_be_placed(self, task: Task, events: Sequence[Event]) -> None:
        assert not task.held, "what is held is not placed"
        spec = task.batch.spec
        assert spec.not_before is None or spec.not_before.timestamp() <= self.now.wall, "nor before its time"
        for dependency in map(parse_dependency, spec.after):
            told = [*self.history[dependency.task_id], *events]
            ends = {event.state for event in told if event.task.task_id == dependency.task_id}
            assert any(map(dependency.outcome.admits, ends & FINAL)), (
                "nor before those that it is to run after"
            )

    def send_starts(self, name: str) -> None:
        """Puts every wanted start on the wire."""
        node = self.cluster.nodes.get(name)
        if node is not None and node.reconciled and self.runners[name].connected:
            self.starts += [(name, task.key, task.run) for task in node.to_start.values()]
            for task in node.to_start.values():
                self.given[task.key] = tuple(gpu.uuid for gpu in task.gpus), task.cpus

    def deliver_start(self, name: str, key: Key, run: int, *, answer_lost: bool) -> None:
        runner = self.runners[name]
        if not runner.connected:
            return
        result = runner.start(key, run)
        if key in runner.attempts:
            # What is kept of an attempt has the GPUs that it was made with.
            runner.attempts[key].gpus = runner.attempts[key].gpus or self.given[key][0]
            runner.attempts[key].cpus = self.given[key][1]
        if result is not None and not answer_lost:
            self.commit(reactor.on_start_results(self.cluster, name, [result], self.now))

    def send_kills(self, name: str) -> None:
        node, runner = self.cluster.nodes.get(name), self.runners[name]
        if node is not None and node.reconciled and runner.connected:
            keys = list(node.to_kill)
            for key in keys:
                self._queue(name, runner.kill(key))
            reactor.on_killed(self.cluster, name, keys)

    def deliver_report(self, name: str, report: AttemptReport) -> None:
        runner = self.runners[name]
        if not runner.connected or name not in self.cluster.nodes:
            return
        task = self.cluster.tasks.get(report.task_id)
        stale = task is not None and (report.attempt, report.sequence) <= (task.attempt, task.sequence)
        effects, verdicts = reactor.on_reports(self.cluster, name, [report], self.now)
        assert not (stale and effects.events), "a stale report changes nothing"
        self.commit(effects)
        self._obey(runner, verdicts)

    def progress(self, name: str, key: Key, status: TaskState, exit_code: int | None = None) -> None:
        self._queue(name, self.runners[name].change(key, status, exit_code))

    def deliver_all(self) -> None:
        """Everything under way arrives, once."""
        starts, self.starts = self.starts, []
        for name, key, run in starts:
            self.deliver_start(name, key, run, answer_lost=False)
        reports, self.reports = self.reports, []
        for name, report in reports:
            self.deliver_report(name, report)

    def wipe_runner(self, name: str) -> None:
        """The machine is installed anew: its journal is gone, and all that ran there with it."""
        runner = self.runners[name]
        self.journals += 1
        runner.journal_id = f"journal-{self.journals}"
        runner.attempts.clear()
        runner.acknowledged.clear()
        self.reports = [(node, report) for node, report in self.reports if node != name]
        self.starts = [start for start in self.starts if start[0] != name]
        self.registering = [one for one in self.registering if one.registration.name != name]
        runner.registered, runner.holds_starts = False, True
        self.heartbeat(name)

    def restart_host(self) -> None:
        self.registering = [one for one in self.registering if one.turn is None]
        final = {state for state in FINAL if state is not TaskState.LOST}
        self.cluster = reactor.Cluster()
        nodes = []
        for name, node in self.durable_nodes.items():
            again = Node(name, node.url, dict(node.capacity))
            again.numa_nodes = node.numa_nodes
            again.engines, again.journal_id, again.state = node.engines, node.journal_id, node.state
            again.cordoned, again.draining = node.cordoned, node.draining
            nodes.append(again)
        tasks = [copy.copy(task) for task in self.durable.values() if task.state not in final]
        for task in tasks:
            task.batch = replace(task.batch, after=self.waits[task.batch.batch_id], doom="")
        ends = {i: task.state for i, task in self.durable.items() if task.state in FINAL}
        self.commit(reactor.restore(self.cluster, nodes, tasks, self.now, ends))

    def tick(self, seconds: float) -> None:
        self.mono += seconds
        for name in self.runners:
            self.heartbeat(name)
        self.commit(reactor.on_tick(self.cluster, TIMEOUTS, self.now))

    def cordon(self, name: str, *, drain: bool = False) -> None:
        if name in self.cluster.nodes:
            self.commit(reactor.on_cordon(self.cluster, name, drain=drain))

    def uncordon(self, name: str) -> None:
        if name in self.cluster.nodes:
            self.commit(reactor.on_uncordon(self.cluster, name))

    def remove(self, name: str, *, force: bool) -> None:
        """Removes the node where that is allowed. Its Runner finds that out at its next word, and joins again."""
        node = self.cluster.nodes.get(name)
        if node is None:
            return
        kept = any(task.kept and task.node == name for task in self.cluster.tasks.values())
        used = node.state is NodeState.ONLINE or kept or bool(self.cluster.ledger.holders(name))
        try:
            effects = reactor.on_remove(self.cluster, name, self.now, force=force)
        except ConflictError:
            assert used, "only one that is in use is refused"
            assert not force
            return
        assert force or not used, "one that is in use is refused"
        self.commit(effects)
        self.runners[name].registered = False

    def kill(self, task_id: int) -> None:
        task = self.cluster.tasks.get(task_id)
        if task is not None and (task.state is not TaskState.LOST or task.batch.spec.task_type == "vps"):
            self.commit(reactor.on_kill(self.cluster, task_id, "ada", self.now))

    def stop(self, task_id: int) -> None:
        """As a person does: the Runner is asked at once, or cannot be."""
        task = self.cluster.tasks.get(task_id)
        can = task is not None and (
            task.kept or task.state in {TaskState.RUNNING, TaskState.PAUSED, TaskState.STOPPED}
        )
        if task is None or not can or task.batch.spec.task_type != "vps":
            return
        effects, wanted = reactor.on_stop(self.cluster, task_id, self.now)
        self.commit(effects)
        runner = self.runners[task.node or ""]
        if wanted is not None and runner.connected:
            self._queue(runner.name, runner.stop(wanted.key))

    def start_again(self, task_id: int) -> None:
        task = self.cluster.tasks.get(task_id)
        if task is not None and task.kept and not task.kill_requested:
            self.commit(reactor.on_start_again(self.cluster, task_id, "ada", self.now))

    def restore_vps(self, task_id: int) -> None:
        task = self.cluster.tasks.get(task_id)
        if task is not None and task.kept and not task.kill_requested:
            self.commit(reactor.on_restore(self.cluster, task_id, "vps-1@1", "ada", self.now))

    def settle(self) -> None:
        """Mends everything, lets everything end, and delivers what is under way, until nothing changes."""
        for runner in self.runners.values():
            runner.connected, runner.refuses = True, False
            self.uncordon(runner.name)
        for _ in range(200):
            before = self._shape()
            self._settle_once()
            if self._shape() == before:
                return
        raise AssertionError("the cluster does not come to rest")

    def _settle_once(self) -> None:
        self.tick(50.0)  # So that the times of those have come that wait for one.
        for task_id in list(self.cluster.tasks):
            self.start_again(task_id)
            self.move(task_id, waiting.on_release)
        self.schedule()
        for name, runner in self.runners.items():
            self.send_starts(name)
            self.send_kills(name)
            self.deliver_all()
            for key in runner.live():
                self.progress(name, key, TaskState.RUNNING)
                self.progress(name, key, TaskState.COMPLETED, 0)
            for attempt in list(runner.attempts.values()):
                self.deliver_report(name, attempt.report())
        self.reports.clear()

    def _shape(self) -> object:
        attempts = {
            name: {key: a.sequence for key, a in runner.attempts.items()}
            for name, runner in self.runners.items()
        }
        return attempts, {i: (task.state, task.attempt) for i, task in self.cluster.tasks.items()}

    def _obey(self, runner: SimRunner, verdicts: list[Verdict]) -> None:
        for verdict in verdicts:
            self._queue(runner.name, runner.obey(verdict))

    def _queue(self, name: str, report: AttemptReport | None) -> None:
        if report is not None:
            self.reports.append((name, report))
            if report.status in FINAL:
                self.outcomes[report.key] = (report.status, report.exit_code)
