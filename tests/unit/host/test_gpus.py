"""GPUs: which of a node's a task gets, who waits for them, and what that costs the others."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hakuriver.models.runner import AttemptReport, GpuInfo, StartResult, VerdictAction
from hakuriver.states import TaskState
from hakuriver_host.db.rows import gpus_of
from hakuriver_host.domain import reactor
from hakuriver_host.domain.cluster import Cluster
from hakuriver_host.domain.gpus import Gpu, GpuRequest, choose, lacking, linked, short, suitable
from hakuriver_host.domain.model import Node, Now, Task
from hakuriver_host.domain.placement import explain, impossible, waiting_reason
from unit.host.test_placement import Board, node, task

GIGA = 10**9


def gpu(
    number: int, memory: int = 40, numa: int | None = None, model: str = "NVIDIA A100", problem: str = ""
) -> Gpu:
    return Gpu(f"GPU-{number}", number, model, memory * GIGA, numa, problem)


def any_of(count: int, model: str = "", memory: int = 0) -> GpuRequest:
    return GpuRequest(count, model=model, memory_bytes=memory * GIGA)


def named(*names: str) -> GpuRequest:
    return GpuRequest(len(names), names)


def numbers(found: tuple[Gpu, ...] | None) -> list[int] | None:
    return None if found is None else [each.number for each in found]


class TestChoice:
    def test_those_of_one_numa_node_before_those_of_two(self) -> None:
        gpus = [gpu(0, numa=0), gpu(1, numa=1), gpu(2, numa=1), gpu(3, numa=0)]
        assert numbers(choose(gpus, {"GPU-0"}, any_of(2), None)) == [1, 2]

    def test_the_numa_node_with_the_fewest_left(self) -> None:
        gpus = [gpu(0, numa=0), gpu(1, numa=0), gpu(2, numa=1), gpu(3, numa=1)]
        assert numbers(choose(gpus, {"GPU-2"}, any_of(1), None)) == [3], "two stay together for who needs two"

    def test_the_numa_node_that_is_asked_for(self) -> None:
        gpus = [gpu(0, numa=0), gpu(1, numa=1)]
        assert numbers(choose(gpus, (), any_of(1), 1)) == [1]
        assert numbers(choose(gpus, {"GPU-1"}, any_of(1), 1)) == [0], "rather one far away than none"

    def test_more_than_one_numa_node_has(self) -> None:
        gpus = [gpu(0, numa=0), gpu(1, numa=1), gpu(2, numa=1)]
        assert numbers(choose(gpus, (), any_of(3), None)) == [0, 1, 2]

    def test_those_that_nvlink_joins(self) -> None:
        gpus = [replace(gpu(number), group=number % 2) for number in range(4)]
        assert numbers(choose(gpus, (), any_of(2), None)) == [0, 2]
        assert numbers(choose(gpus, {"GPU-0"}, any_of(2), None)) == [1, 3]
        assert numbers(choose(gpus, {"GPU-0"}, any_of(1), None)) == [2], "the other pair stays together"
        assert numbers(choose(gpus, {"GPU-0", "GPU-1"}, any_of(2), None)) == [2, 3], "rather apart than none"
        assert numbers(choose([*gpus, gpu(4)], (), any_of(1), None)) == [4], "who needs one needs no link"

    def test_of_those_that_nvlink_joins_as_few_numa_nodes_as_may_be(self) -> None:
        gpus = [replace(gpu(number, numa=number // 2), group=0) for number in range(4)]
        assert numbers(choose(gpus, {"GPU-0"}, any_of(2), None)) == [2, 3]
        assert numbers(choose(gpus, (), any_of(2), 1)) == [2, 3]

    def test_the_smallest_that_do(self) -> None:
        gpus = [gpu(0, 80), gpu(1, 40), gpu(2, 24)]
        assert numbers(choose(gpus, (), any_of(1), None)) == [2]
        assert numbers(choose(gpus, (), any_of(1, memory=40), None)) == [1]

    def test_by_model_whatever_its_case(self) -> None:
        gpus = [gpu(0, model="NVIDIA GeForce RTX 3090"), gpu(1, model="NVIDIA A100-SXM4-40GB")]
        assert numbers(choose(gpus, (), any_of(1, "a100"), None)) == [1]
        assert choose(gpus, (), any_of(2, "a100"), None) is None

    def test_a_part_of_a_gpu_only_for_who_asks_for_one(self) -> None:
        gpus = [gpu(100, 5, model="NVIDIA A100 MIG 1g.5gb"), gpu(1)]
        assert numbers(choose(gpus, (), any_of(1, "a100"), None)) == [1]
        assert numbers(choose(gpus, (), any_of(1, "mig 1g"), None)) == [100]
        assert numbers(choose(gpus, (), any_of(1), None)) == [100]

    def test_by_number_and_by_uuid(self) -> None:
        gpus = [gpu(0), gpu(1), gpu(2)]
        assert numbers(choose(gpus, (), named("2", "GPU-0"), None)) == [0, 2]
        assert choose(gpus, {"GPU-2"}, named("2"), None) is None

    def test_none_that_is_out_of_service(self) -> None:
        assert choose([gpu(0, problem="lost")], (), any_of(1), None) is None
        assert choose([gpu(0, problem="lost")], (), named("0"), None) is None


class TestWords:
    def test_what_can_never_be(self) -> None:
        gpus = [gpu(0), gpu(1, model="NVIDIA T4")]
        assert lacking(gpus, named("0", "7")) == "it has no GPU 7 (it has 0: NVIDIA A100, 1: NVIDIA T4)"
        assert lacking([], any_of(1)) == "it has no GPU, 1 GPU asked for"
        assert lacking(gpus, any_of(2, "t4", 16)).startswith(
            "it has 1 such GPU, 2 GPUs (t4, 16.00G) asked for"
        )
        assert lacking(gpus, named("0", "GPU-0")) == "0, GPU-0: two of these are the same GPU"
        assert not lacking(gpus, named("1", "GPU-0"))

    def test_one_out_of_service_may_come_back(self) -> None:
        gpus = [gpu(0, problem="it has fallen off the bus (XID 79)")]
        assert not lacking(gpus, any_of(1))
        said = (
            "0 of 1 GPUs free, 1 GPU asked for; GPU 0 is out of service: it has fallen off the bus (XID 79)"
        )
        assert short(gpus, {}, any_of(1)) == said

    def test_who_has_it(self) -> None:
        assert short([gpu(0), gpu(1)], {"GPU-1": 7}, named("1")) == "in use: GPU 1 by task 7"
        assert short([gpu(0), gpu(1)], {"GPU-1": 7}, any_of(2)) == "1 of 2 GPUs free, 2 GPUs asked for"
        assert not short([gpu(0), gpu(1)], {"GPU-1": 7}, any_of(1))

    def test_explanations(self) -> None:
        board = Board(node("a", gpus=(gpu(0),)), node("b"))
        board.add(task(1, gpus=any_of(1)), waits := task(2, gpus=any_of(1)))
        assert board.round() == {1: "a"}
        told = {each.node: each for each in explain(waits, board.nodes.values(), board.ledger, board.claim)}
        assert (told["a"].can_ever_fit, told["a"].reason) == (True, "0 of 1 GPUs free, 1 GPU asked for")
        assert (told["b"].can_ever_fit, told["b"].reason) == (
            False,
            "it has no GPU, 1 GPU asked for",
        )
        assert waiting_reason(waits, board.nodes, board.ledger, board.claim).startswith("a: 0 of 1 GPUs free")

    def test_containers_that_can_be_given_none(self) -> None:
        board = Board(node("a", gpus=(gpu(0),), gpu_note="install the toolkit"))
        board.add(inside := task(1, gpus=any_of(1)), task(2, gpus=any_of(1), engine="process"))
        assert board.round() == {2: "a"}
        assert waiting_reason(inside, board.nodes, board.ledger, board.claim) == "a: install the toolkit"


class TestWaiting:
    def test_a_gpu_is_held_whole_and_given_on(self) -> None:
        board = Board(node("a", gpus=(gpu(0), gpu(1))))
        board.add(task(1, gpus=named("0")), task(2, gpus=named("0")), last := task(3, gpus=any_of(1)))
        assert board.round() == {1: "a", 3: "a"}
        assert numbers(last.gpus) == [1]
        board.end("a", 1)
        assert board.round() == {2: "a"}

    def test_who_waits_for_a_gpu_keeps_nobody_from_the_cores_that_it_does_not_need(self) -> None:
        board = Board(node("a", 4, gpus=(gpu(0),)))
        board.add(task(1, gpus=any_of(1)), task(2, 2, gpus=any_of(1)), task(3), task(4))
        assert board.round() == {1: "a", 3: "a"}, "task 2 will need two of the four cores"
        board.end("a", 1)
        assert board.round() == {2: "a", 4: "a"}

    def test_who_is_behind_takes_no_gpu_that_would_do_for_who_is_before(self) -> None:
        board = Board(node("a", 8, gpus=(gpu(0), gpu(1), gpu(2, 16, model="NVIDIA T4"))))
        board.add(task(1, gpus=any_of(1, "a100")), task(2, gpus=any_of(2, "a100")))
        board.add(task(3, gpus=any_of(1, "a100")), small := task(4, gpus=any_of(1)))
        assert board.round() == {1: "a", 4: "a"}
        assert numbers(small.gpus) == [2]
        board.end("a", 1)
        assert board.round() == {2: "a"}

    def test_room_is_kept_where_most_gpus_are_free(self) -> None:
        board = Board(node("a", 9, gpus=(gpu(0), gpu(1))), node("b", 4, gpus=(gpu(2), gpu(3))))
        board.add(task(1, 2, gpus=named("0", "1"), node="a"), task(2, gpus=named("2"), node="b"))
        board.add(task(3, gpus=any_of(2)))
        board.round()
        assert board.claim is not None
        assert board.claim.node == "b"

    def test_no_room_is_kept_for_a_gpu_that_is_out_of_service(self) -> None:
        board = Board(node("a", 1, gpus=(gpu(0, problem="lost"),)))
        board.add(task(1, gpus=any_of(1)), task(2))
        assert board.round() == {2: "a"}
        assert board.claim is None

    def test_room_is_given_up_when_the_gpu_breaks(self) -> None:
        board = Board(node("a", 2, gpus=(gpu(0),)))
        board.add(task(1, gpus=any_of(1)), task(2, gpus=any_of(1)), task(3))
        assert board.round() == {1: "a"}
        board.nodes["a"].gpus = (gpu(0, problem="lost"),)
        assert board.round() == {3: "a"}


gpu_sets = st.lists(
    st.builds(
        gpu,
        st.integers(0, 30),
        st.sampled_from([16, 40, 80]),
        st.sampled_from([None, 0, 1]),
        st.sampled_from(["NVIDIA A100", "NVIDIA T4", "NVIDIA A100 MIG 1g"]),
        st.sampled_from(["", "", "", "lost"]),
    ),
    unique_by=lambda each: each.number,
    max_size=8,
)
wishes = st.one_of(
    st.builds(any_of, st.integers(1, 4), st.sampled_from(["", "a100", "t4"]), st.sampled_from([0, 16, 40])),
    st.lists(st.integers(0, 30).map(str), min_size=1, max_size=3, unique=True).map(
        lambda names: named(*names)
    ),
)


@given(gpu_sets, wishes, st.sets(st.integers(0, 30)), st.sampled_from([None, 0, 1]))
def test_what_is_given_is_free_and_as_asked_and_is_given_whenever_it_can_be(
    gpus: list[Gpu], request: GpuRequest, held: set[int], numa: int | None
) -> None:
    taken = {f"GPU-{number}": 1 for number in held}
    given = choose(gpus, taken, request, numa)
    free = [each for each in suitable(gpus, request) if each.is_free(taken)]
    assert (given is None) == (len(free) < request.count)
    assert bool(short(gpus, taken, request)) == (given is None)
    if given is not None:
        assert len({each.uuid for each in given}) == request.count
        assert set(given) <= set(free)
        assert not lacking(gpus, request)
        assert choose(list(reversed(gpus)), taken, request, numa) == given, "equal inputs, equal decisions"


@settings(max_examples=60)
@given(
    st.lists(gpu_sets, min_size=1, max_size=3),
    st.lists(st.tuples(st.integers(1, 3), st.none() | wishes), max_size=20),
    st.data(),
)
def test_no_gpu_is_ever_held_twice_and_all_that_can_end_does(
    sets: list[list[Gpu]], wanted: list[tuple[int, GpuRequest | None]], data: st.DataObject
) -> None:
    nodes = [node(f"n{place}", 4, gpus=tuple(gpus)) for place, gpus in enumerate(sets)]
    board = Board(*nodes)
    tasks = {number: task(number, cores, gpus=gpus) for number, (cores, gpus) in enumerate(wanted, 1)}
    board.add(*tasks.values())
    running: dict[int, str] = {}
    while True:
        running |= (placed := board.round())
        for where in board.nodes.values():
            held = [
                each.uuid
                for number in running
                if running[number] == where.name
                for each in tasks[number].gpus
            ]
            assert len(held) == len(set(held)), "no GPU twice"
            assert board.ledger.gpus(where.name).keys() == set(held)
            assert board.ledger.free(where.name, where.capacity, "cores") >= 0
        for number in placed:
            wish = tasks[number].request.gpus
            assert len(tasks[number].gpus) == (wish.count if wish else 0)
        if not running:
            break
        ended = data.draw(st.sampled_from(sorted(running)))
        board.end(running.pop(ended), ended)
    for number, waiting in tasks.items():
        if number in board.queue:
            could = [
                where
                for where in nodes
                if not impossible(where, waiting.request)
                and choose(where.gpus, (), waiting.request.gpus or any_of(0), None) is not None
            ]
            assert not could, "on an empty cluster nobody waits who could run"


@pytest.mark.parametrize(
    ("links", "groups"),
    [
        ({"A": "", "B": ""}, {}),
        ({"A": "B", "B": "A", "C": "D", "D": "C", "E": ""}, {"A": 0, "B": 0, "C": 1, "D": 1}),
        ({"A": "S", "B": "S", "C": "S", "D": "T"}, {"A": 0, "B": 0, "C": 0, "D": 1}),
        ({"A": "B", "B": "AC", "C": "BD", "D": "C"}, dict.fromkeys("ABCD", 0)),
        ({"A": "X", "B": "Y", "C": "XY"}, dict.fromkeys("ABC", 0)),
    ],
    ids=["none", "pairs", "switches", "a chain", "joined late"],
)
def test_groups_of_nvlink(links: dict[str, str], groups: dict[str, int]) -> None:
    assert linked((place, list(far)) for place, far in links.items()) == groups


def test_groups_come_from_what_the_runner_tells() -> None:
    def told(number: int, *links: str) -> GpuInfo:
        place = f"00000000:0{number}:00.0"
        return GpuInfo(gpu_id=number, name="A100", driver_version="", pci_bus_id=place, nvlinks=list(links))

    found = gpus_of([told(1), told(2, "00000000:03:00.0"), told(3, "00000000:02:00.0")])
    assert [each.group for each in found] == [None, 0, 0]


class TestRecord:
    """The Host's memory of who has which."""

    NOW = Now(100.0, 100.0)

    def cluster(self, *tasks: Task) -> Cluster:
        cluster = Cluster()
        where: Node = node("a", gpus=(gpu(0), gpu(1)))
        reactor.restore(cluster, [where], tasks, self.NOW)
        where.reconciled = True
        return cluster

    def test_a_restarted_host_gives_nobody_what_is_held(self) -> None:
        holder = task(1, gpus=any_of(1))
        holder.state, holder.attempt, holder.node, holder.closed = TaskState.RUNNING, 1, "a", False
        holder.gpus = (gpu(0),)
        cluster = self.cluster(holder, second := task(2, gpus=any_of(1)))
        reactor.on_schedule(cluster, self.NOW)
        assert numbers(second.gpus) == [1]

    def test_a_runner_knows_better_than_a_host_that_lost_its_last_writes(self) -> None:
        forgotten = task(1, gpus=any_of(1))
        cluster = self.cluster(forgotten)
        report = AttemptReport(task_id=1, attempt=1, sequence=1, status=TaskState.RUNNING, gpus=["GPU-1"])
        reactor.on_reports(cluster, "a", [report], self.NOW)
        assert forgotten.state is TaskState.RUNNING
        assert cluster.ledger.gpus("a") == {"GPU-1": [1]}
        assert numbers(forgotten.gpus) == [1]

    def test_nobody_gets_the_gpu_of_an_attempt_that_is_still_to_be_killed(self) -> None:
        cluster = self.cluster(waits := task(2, gpus=named("GPU-1")))
        old = AttemptReport(task_id=1, attempt=1, sequence=1, status=TaskState.RUNNING, gpus=["GPU-1"])
        _, verdicts = reactor.on_reports(cluster, "a", [old], self.NOW)
        assert [verdict.action for verdict in verdicts] == [VerdictAction.KILL]
        reactor.on_schedule(cluster, self.NOW)
        assert not waits.gpus
        assert waiting_reason(waits, cluster.nodes, cluster.ledger, None) == "a: in use: GPU 1 by task 1"
        ended = old.model_copy(update={"sequence": 2, "status": TaskState.KILLED})
        effects, _ = reactor.on_reports(cluster, "a", [ended], self.NOW)
        assert effects.schedule
        reactor.on_schedule(cluster, self.NOW)
        assert waits.state is TaskState.ASSIGNING

    def test_a_stopped_vps_is_started_with_the_gpu_that_its_container_has(self) -> None:
        vps = task(1, gpus=any_of(1))
        vps.state, vps.attempt, vps.node, vps.closed = TaskState.STOPPED, 1, "a", False
        vps.gpus = (gpu(1),)
        cluster = self.cluster(vps)
        vps.batch.spec.task_type = "vps"
        reactor.on_start_again(cluster, 1, "ada", self.NOW)
        reactor.on_schedule(cluster, self.NOW)
        assert numbers(vps.gpus) == [1]

    def test_a_gpu_that_its_runner_cannot_give_is_set_aside_and_the_task_gets_another(self) -> None:
        cluster = self.cluster(*(tasks := [task(1, gpus=any_of(1)), task(2, gpus=named("0"))]))
        reactor.on_schedule(cluster, self.NOW)
        first = tasks[0]
        assert numbers(first.gpus) == [0]
        answer = StartResult(
            task_id=1, attempt=1, outcome="refused", reason="GPU 0 is out of service", unusable_gpus=["GPU-0"]
        )
        reactor.on_start_results(cluster, "a", [answer], self.NOW)
        assert (first.state, first.request.excluded) == (TaskState.PENDING, frozenset())
        reactor.on_schedule(cluster, self.NOW)
        assert (first.attempt, numbers(first.gpus)) == (2, [1])
        told = waiting_reason(tasks[1], cluster.nodes, cluster.ledger, None)
        assert "GPU 0 is out of service: its Runner cannot give it now" in told

    def test_a_holder_that_a_restored_host_took_for_gone_still_has_its_gpu(self) -> None:
        wrong = task(2, gpus=any_of(1))
        wrong.state, wrong.attempt, wrong.node, wrong.closed = TaskState.RUNNING, 1, "a", False
        wrong.gpus = (gpu(0),)
        cluster = self.cluster(wrong, right := task(1, gpus=any_of(1)))
        report = AttemptReport(task_id=1, attempt=1, sequence=1, status=TaskState.RUNNING, gpus=["GPU-0"])
        reactor.on_reports(cluster, "a", [report], self.NOW)
        assert right.state is TaskState.RUNNING
        cluster.ledger.release("a", 2)
        assert cluster.ledger.gpus("a") == {"GPU-0": [1]}


def test_a_claim_on_a_node_that_cannot_give_gpus_any_more_is_given_up() -> None:
    board = Board(node("a", 1, gpus=(gpu(0),)), node("b", 1, gpus=(gpu(1),)))
    board.add(task(1, gpus=any_of(1)), task(2, gpus=any_of(1)), task(3, gpus=any_of(1)))
    board.round()
    claim = board.claim
    assert claim is not None
    board.nodes[claim.node].gpu_note = "install the toolkit"
    board.round()
    assert board.claim is not None
    assert board.claim.node != claim.node
