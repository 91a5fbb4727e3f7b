"""What tasks ask of nodes beside amounts: labels, a node for themselves, NUMA nodes, GPUs that they share."""

from __future__ import annotations

import pytest

from hakuriver.errors import ConflictError, NotFoundError
from hakuriver.labels import MAX_LABELS, parse_selector
from hakuriver.models.submission import SubmitRequest
from hakuriver_host.db.rows import request_of
from hakuriver_host.domain import reactor
from hakuriver_host.domain.cluster import Cluster
from hakuriver_host.domain.cpus import NumaCores
from hakuriver_host.domain.gpus import Gpu, GpuRequest
from hakuriver_host.domain.ledger import holding
from hakuriver_host.domain.model import Node, Task
from hakuriver_host.domain.order import NodeOrder
from hakuriver_host.domain.placement import explain, impossible
from hakuriver_host.domain.turns import Limits, Shares, Turns
from unit.host.test_placement import GIGA, Board, node, task

TWO_NUMA = {0: NumaCores((0, 1)), 1: NumaCores((2, 3))}


def numa_node(name: str = "a") -> Node:
    made = node(name, 4, numa_nodes=TWO_NUMA, cpus=(0, 1, 2, 3))
    made.capacity |= {"cores@0": 2, "cores@1": 2, "memory@0": 4 * GIGA, "memory@1": 4 * GIGA}
    return made


def at_numa(task_id: int, number: int, cores: int, memory: int = 0) -> Task:
    spec = SubmitRequest(command="x", required_cores=cores, required_memory_bytes=memory or None)
    made = task(task_id)
    made.request = request_of(spec, f"a:{number}")
    return made


class TestLabels:
    def test_a_node_that_has_them(self) -> None:
        board = Board(node("a"), node("b", own_labels={"disk": "ssd"}))
        board.add(
            task(1, labels=(parse_selector("disk=ssd"),)), task(2, labels=(parse_selector("disk!=ssd"),))
        )
        assert board.round() == {1: "b", 2: "a"}

    def test_why_not(self) -> None:
        wanted = task(1, labels=(parse_selector("disk=ssd"), parse_selector("room"))).request
        assert impossible(node("a", own_labels={"disk": "hdd"}), wanted) == (
            "its labels are not as asked for: disk=ssd, room (it has disk=hdd)"
        )
        assert "(it has none)" in impossible(node("a"), wanted)

    def test_what_asks_for_labels_says_nothing_of_others(self) -> None:
        board = Board(node("a"))
        board.add(task(1, labels=(parse_selector("disk"),)), task(2))
        assert board.round() == {2: "a"}

    def test_admins_go_before_the_configuration(self) -> None:
        cluster = Cluster(nodes={"a": node("a", own_labels={"disk": "hdd", "room": "2"})})
        effects = reactor.on_label(cluster, "a", {"disk": "ssd", "room": None, "rack": "7"})
        assert cluster.nodes["a"].labels == {"disk": "ssd", "rack": "7"}
        assert set(effects.nodes) == {"a"}
        assert effects.schedule, "something may fit now"
        assert not reactor.on_label(cluster, "a", {"disk": "ssd"}).nodes, "nothing changes"
        reactor.on_label(cluster, "a", {"rack": None, "disk": None, "room": "3"})
        assert cluster.nodes["a"].labels == {"room": "3"}

    def test_what_is_refused(self) -> None:
        cluster = Cluster(nodes={"a": node("a")})
        with pytest.raises(NotFoundError, match="no node b"):
            reactor.on_label(cluster, "b", {})
        with pytest.raises(ConflictError, match="are the most"):
            reactor.on_label(cluster, "a", {f"key{number}": "" for number in range(MAX_LABELS + 1)})
        assert not cluster.nodes["a"].labels

    def test_a_change_lets_what_waits_have_the_node(self) -> None:
        cluster = Cluster(nodes={"a": node("a")})
        reactor.on_submit(cluster, [waits := task(1, labels=(parse_selector("disk=ssd"),))])
        reactor.on_schedule(cluster, reactor.Now(0.0, 0.0))
        assert waits.node is None
        assert reactor.on_label(cluster, "a", {"disk": "ssd"}).schedule
        reactor.on_schedule(cluster, reactor.Now(0.0, 0.0))
        assert waits.node == "a"


class TestExclusive:
    def test_it_waits_for_an_empty_node_and_nobody_joins_it(self) -> None:
        board = Board(node("a", 4))
        board.add(small := task(1), alone := task(2, exclusive=True), task(3))
        assert board.round() == {1: "a"}, "the node is kept for who is to have all of it"
        reasons = [explain(each, board.nodes.values(), board.ledger, board.claim) for each in (alone, small)]
        assert reasons[0][0].reason == "1 task there, and it is to be the only one"
        board.end("a", 1)
        assert board.round() == {2: "a"}
        assert board.ledger.held("a", "cores") == 4, "it has all of it"
        verdict = explain(task(4), board.nodes.values(), board.ledger, None)[0]
        assert verdict.reason == "task 2 has it for itself"
        board.end("a", 2)
        assert board.ledger.held("a", "cores") == 0
        assert board.round() == {3: "a"}

    def test_nothing_of_no_amount_joins_it_either(self) -> None:
        board = Board(node("a", 4))
        board.add(task(1, exclusive=True))
        board.round()
        board.add(task(2, 0))
        assert board.round() == {}

    def test_it_may_use_any_core(self) -> None:
        board = Board(numa_node())
        board.add(alone := task(1, exclusive=True))
        board.round()
        assert alone.cpus == ()

    def test_all_of_the_node_counts_against_limits(self) -> None:
        board = Board(node("a", 8), node("b", 4))
        board.turns = Turns(Shares(), Limits({"cores": 6}), board.ledger)
        board.add(task(1, exclusive=True))
        assert board.round() == {1: "b"}, "eight cores are too many for one user"
        assert board.ledger.of_owner("ada")["cores"] == 4
        board.add(waits := task(2, exclusive=True))
        assert board.round() == {}
        assert board.claim is None, "no node is kept that may not be used"
        verdicts = explain(waits, board.nodes.values(), board.ledger, None, None, board.turns)
        assert verdicts[0].reason == "one user may hold 6 cores, 4 cores of them in use, 8 cores asked for"

    def test_what_ends_in_time_may_run_before_it(self) -> None:
        board = Board(node("a", 4))
        board.ends = {1: 1_000.0}
        board.add(
            task(1, limit=1_000),
            task(2, exclusive=True),
            task(3, limit=500),
            task(4, limit=5_000),
            task(5, 0),
        )
        assert board.round() == {1: "a", 3: "a"}, (
            "what is still there then would be in its way, however small"
        )

    def test_it_does_not_wait_for_a_node_that_may_never_be_empty(self) -> None:
        """A VPS stays until somebody ends it, and need hold nothing."""
        board = Board(node("a", 8), node("b", 4))
        board.ledger.hold("a", 100, holding(task(100, 0, stays=True), None))
        board.ledger.hold("b", 101, holding(task(101, 4), None))
        board.add(task(1, exclusive=True))
        board.round()
        assert board.claim is not None
        assert board.claim.node == "b"
        board.ledger.hold("b", 102, holding(task(102, 0, stays=True), None))
        board.round()
        assert board.claim is not None
        assert board.claim.node == "b", "both have one now"
        board.ledger.hold("a", 103, holding(task(103, 1), None))
        board.end("a", 100)
        board.round()
        assert board.claim is not None
        assert board.claim.node == "a"


class TestNuma:
    def test_cores_of_one_are_counted(self) -> None:
        board = Board(numa_node())
        board.add(first := at_numa(1, 0, 2), second := at_numa(2, 0, 1), third := at_numa(3, 1, 1))
        assert board.round() == {1: "a", 3: "a"}
        assert (first.cpus, third.cpus) == ((0, 1), (2,))
        verdict = explain(second, board.nodes.values(), board.ledger, None)[0]
        assert (
            verdict.reason
            == "0 cores of NUMA node 0 of 2 cores of NUMA node 0 free, 1 core of NUMA node 0 asked for"
        )

    def test_what_asks_for_none_takes_cores_of_some(self) -> None:
        board = Board(numa_node())
        board.add(any_ := task(1, 2), at_numa(2, 0, 1), at_numa(3, 1, 1))
        assert board.round() == {1: "a", 3: "a"}
        assert any_.cpus == (0, 1)

    def test_a_plain_one_that_is_kept_out_says_nothing_of_those_for_other_nodes(self) -> None:
        board = Board(numa_node())
        board.add(at_numa(1, 0, 1), at_numa(2, 0, 2), task(3, 1), at_numa(4, 1, 1))
        assert board.round() == {1: "a", 4: "a"}

    def test_memory_of_one_is_counted(self) -> None:
        board = Board(numa_node())
        board.add(at_numa(1, 0, 1, 3 * GIGA), at_numa(2, 0, 1, 2 * GIGA), at_numa(3, 1, 1, 3 * GIGA))
        assert board.round() == {1: "a", 3: "a"}

    def test_more_than_one_has(self) -> None:
        assert impossible(numa_node(), at_numa(1, 1, 3).request) == (
            "it has 2 cores of NUMA node 1, 3 cores of NUMA node 1 asked for"
        )
        assert "no NUMA node 2" in impossible(numa_node(), at_numa(1, 2, 1).request)

    def test_cores_are_near_the_gpus(self) -> None:
        board = Board(numa_node())
        board.nodes["a"].gpus = (Gpu("GPU-0", 0, numa=1),)
        board.add(with_gpu := task(1, 1, gpus=GpuRequest(1)))
        board.round()
        assert with_gpu.cpus == (2,)

    def test_a_node_that_knows_no_cores_of_its_own_gives_none(self) -> None:
        board = Board(node("a", 4))
        board.add(plain := task(1, 2))
        board.round()
        assert plain.cpus == ()


class TestSharedGpus:
    def gpus(self, count: int) -> tuple[Gpu, ...]:
        return tuple(Gpu(f"GPU-{number}", number) for number in range(count))

    def sharing(self, task_id: int) -> Task:
        return task(task_id, 1, gpus=GpuRequest(1, shared=True))

    def test_as_many_as_the_node_lets_and_only_those_that_share(self) -> None:
        board = Board(node("a", 8, gpus=self.gpus(2), tasks_per_gpu=2))
        tasks = [self.sharing(number) for number in (1, 2, 3)]
        board.add(*tasks, alone := task(4, 1, gpus=GpuRequest(1)))
        assert set(board.round()) == {1, 2, 3}
        assert [each.gpus[0].number for each in tasks] == [0, 0, 1], "those that are shared already first"
        assert not alone.gpus, "it shares with nobody"
        board.add(fourth := self.sharing(5))
        board.claim = None
        board.queue.remove(alone)
        board.round()
        assert [gpu.number for gpu in fourth.gpus] == [1]
        assert board.ledger.gpus("a") == {"GPU-0": [1, 2], "GPU-1": [3, 5]}

    def test_where_it_is_not_allowed_each_has_its_own(self) -> None:
        board = Board(node("a", 8, gpus=self.gpus(1)))
        board.add(self.sharing(1), self.sharing(2))
        assert board.round() == {1: "a"}

    def test_nobody_joins_one_that_does_not_share(self) -> None:
        board = Board(node("a", 8, gpus=self.gpus(1), tasks_per_gpu=4))
        board.add(task(1, 1, gpus=GpuRequest(1)), self.sharing(2))
        assert board.round() == {1: "a"}

    def test_who_waits_for_all_of_a_gpu_has_a_time_when_all_that_share_it_have_ended(self) -> None:
        board = Board(node("a", 8, gpus=self.gpus(1), tasks_per_gpu=2))
        board.ends = {1: 100.0, 2: 200.0}
        board.add(self.sharing(1), self.sharing(2))
        board.round()
        board.add(task(3, 1, gpus=GpuRequest(1)))
        board.round()
        assert board.promised() == 200.0


class TestOrder:
    def test_tasks_without_gpus_leave_the_nodes_that_have_some(self) -> None:
        gpus = (Gpu("GPU-0", 0),)
        board = Board(node("a", 2, gpus=gpus), node("b", 8))
        board.add(task(1, 2), task(2, 1, gpus=GpuRequest(1)))
        assert board.round() == {1: "b", 2: "a"}
        board.add(task(3, 6), task(4, 1))
        assert board.round() == {3: "b", 4: "a"}, "and go there only when there is no room elsewhere"

    def test_spread(self) -> None:
        board = Board(node("a", 4), node("b", 4))
        board.order = NodeOrder(spread=True)
        board.add(task(1), task(2), task(3), task(4))
        placed = board.round()
        assert sorted(placed.values()) == ["a", "a", "b", "b"]
        packed = Board(node("a", 4), node("b", 4))
        packed.add(task(1), task(2), task(3), task(4))
        assert set(packed.round().values()) == {"a"}


def test_what_a_lost_host_finds_again_is_held_as_it_was() -> None:
    where, plain = numa_node(), task(1, 2)
    plain.cpus = (1, 2)
    assert dict(holding(plain, where).amounts) == {"cores": 2, "cores@0": 1, "cores@1": 1}
    assert dict(holding(plain, None).amounts) == {"cores": 2}
