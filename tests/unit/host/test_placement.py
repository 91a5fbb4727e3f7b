"""Ledger, queue and placement: never over capacity, first come first served, and nobody starves."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from hakuriver.models.submission import SubmitRequest
from hakuriver.states import NodeState
from hakuriver_host.domain.backfill import Clock, reservation
from hakuriver_host.domain.cpus import NumaCores
from hakuriver_host.domain.gpus import Gpu, GpuRequest
from hakuriver_host.domain.ledger import Ledger, holding
from hakuriver_host.domain.model import Batch, Group, Node, Request, Task
from hakuriver_host.domain.order import NodeOrder
from hakuriver_host.domain.placement import AT_ONCE, Claim, explain, impossible, place, waiting_reason
from hakuriver_host.domain.queue import Queue
from hakuriver_host.domain.turns import Turns

GIGA = 10**9


def node(name: str, cores: int = 4, memory: int = 8 * GIGA, **changes: object) -> Node:
    made = Node(
        name, f"http://{name}", {"cores": cores, "memory": memory}, engines=frozenset({"docker", "process"})
    )
    made.state, made.reconciled = NodeState.ONLINE, True
    for key, value in changes.items():
        setattr(made, key, value)
    return made


def task(task_id: int, cores: int = 1, memory: int = 0, **request: object) -> Task:
    amounts = tuple(
        sorted((name, amount) for name, amount in (("cores", cores), ("memory", memory)) if amount)
    )
    batch = Batch(task_id, "ada", 0.0, SubmitRequest(command="x"), None, None)
    return Task(task_id, batch, 0, None, Request(amounts=amounts, **request))  # type: ignore[arg-type]


class Board:
    """A queue, nodes and a ledger, and the rounds played on them."""

    def __init__(self, *nodes: Node) -> None:
        self.nodes = {each.name: each for each in nodes}
        self.queue, self.ledger, self.order = Queue(), Ledger(), NodeOrder()
        self.claim: Claim | None = None
        self.blocked: set[Group] = set()
        self.turns: Turns | None = None
        self.ends: dict[int, float] = {}
        """When tasks end, where that is known."""

    def add(self, *tasks: Task) -> None:
        for each in tasks:
            self.queue.add(each)

    @property
    def clock(self) -> Clock:
        return Clock(0.0, self.ends.get)

    def promised(self) -> float | None:
        """By when the claim can be served."""
        assert self.claim is not None
        found = reservation(self.claim.request, self.nodes[self.claim.node], self.ledger, self.clock)
        return found.at if found else None

    def round(self) -> dict[int, str]:
        """And those that follow at once, since somebody's claim was served."""
        placed: dict[int, str] = {}
        while True:
            before = self.claim
            outcome, self.claim = place(
                self.queue,
                self.nodes,
                self.ledger,
                self.order,
                self.claim,
                self.blocked,
                self.turns,
                self.clock,
            )
            placed |= {each.task_id: where.name for each, where in outcome.placed}
            freed = before is not None and self.claim is not before
            self.blocked = set() if freed else outcome.blocked
            if not freed or not outcome.more:
                return placed

    def end(self, where: str, task_id: int) -> None:
        self.ledger.release(where, task_id)
        self.blocked = set()


def test_the_fullest_node_that_fits_is_chosen() -> None:
    board = Board(node("a", 8), node("b", 4))
    board.add(task(1, 3), task(2, 1), task(3, 6))
    assert board.round() == {1: "b", 2: "b", 3: "a"}


def test_what_does_not_fit_waits_and_goes_later() -> None:
    board = Board(node("a", 2))
    board.add(task(1, 2), task(2, 2))
    assert board.round() == {1: "a"}
    assert board.round() == {}
    board.end("a", 1)
    assert board.round() == {2: "a"}


def test_memory_is_held_like_cores() -> None:
    board = Board(node("a", 8, 4 * GIGA))
    board.add(task(1, 1, 3 * GIGA), task(2, 1, 2 * GIGA), task(3, 1))
    board.add(task(4, 1, GIGA), task(5, 6))
    assert board.round() == {1: "a", 3: "a"}, (
        "memory and one core are set aside for task 2, which is before them"
    )
    board.end("a", 1)
    assert board.round() == {2: "a", 4: "a"}
    board.end("a", 3)
    assert board.round() == {5: "a"}


def test_a_stream_of_small_tasks_does_not_starve_a_large_one() -> None:
    board = Board(node("a", 4))
    board.add(task(1, 1), task(2, 4))
    running = [1]
    board.round()
    for number in range(3, 40):
        board.add(task(number, 1))
        placed = board.round()
        if 2 in placed:
            break
        assert not placed, "the room is kept for task 2"
        if running:
            board.end("a", running.pop())
    else:
        raise AssertionError("task 2 was never placed")


def test_another_node_serves_the_small_ones_meanwhile() -> None:
    board = Board(node("a", 4), node("b", 2))
    board.add(task(1, 3), task(2, 4), task(3, 2))
    placed = board.round()
    assert placed == {1: "a", 3: "b"}
    assert board.claim == Claim(task(2, 4), "a", task(2, 4).request)


def test_a_claim_on_a_node_that_went_away_is_given_up() -> None:
    board = Board(node("a", 4), node("b", 2))
    board.add(task(1, 4), task(2, 4), task(3, 1))
    board.round()
    board.nodes["a"].state = NodeState.OFFLINE
    board.add(task(4, 1))
    assert board.round() == {4: "b"}, "nothing can hold b for a task that it can never run"


def test_a_task_for_an_offline_node_holds_nobody_up() -> None:
    board = Board(node("a", 1, state=NodeState.OFFLINE), node("b", 1))
    board.add(task(1, node="a"), task(2))
    assert board.round() == {2: "b"}


def test_every_node_says_why_not() -> None:
    board = Board(
        node("a", 2),
        node("b", 8, state=NodeState.OFFLINE),
        node("c", 8, engines=frozenset({"process"}), engine_notes={"docker": "no engine answers"}),
        node("d", 8, problem="its share is read-only"),
        node("e", 8),
        node("f", 8),
    )
    board.ledger.hold("e", 99, holding(task(99, 7), None))
    wanted = task(1, 4, excluded=frozenset({"f"}))
    reasons = {
        verdict.node: verdict.reason for verdict in explain(wanted, board.nodes.values(), board.ledger, None)
    }
    assert reasons == {
        "a": "it has 2 cores, 4 cores asked for",
        "b": "the node is offline",
        "c": "its docker engine does not work: no engine answers",
        "d": "its share is read-only",
        "e": "1 core of 8 cores free, 4 cores asked for",
        "f": "the node refused the task",
    }


def test_the_reason_in_one_line() -> None:
    board = Board(node("a", 2))
    assert waiting_reason(task(1), {}, board.ledger, None) == "no node has joined yet"
    assert (
        waiting_reason(task(1, node="z"), board.nodes, board.ledger, None) == "no node named z has joined yet"
    )
    assert "no node can run it" in waiting_reason(task(1, 9), board.nodes, board.ledger, None)


def test_a_cordoned_node_is_told_of_and_does_not_hide_what_another_lacks() -> None:
    board = Board(node("a", cordoned=True), node("b", 1))
    board.add(task(1, 1))
    board.round()
    alone = waiting_reason(task(2, node="a"), board.nodes, board.ledger, None)
    assert alone == "a: the node is cordoned: an admin keeps new tasks from it"
    assert "b: 0 cores of 1 core free" in waiting_reason(task(2), board.nodes, board.ledger, None)
    verdicts = explain(task(2), board.nodes.values(), board.ledger, None)
    assert [(verdict.node, verdict.can_ever_fit) for verdict in verdicts] == [("a", True), ("b", True)]
    assert not impossible(board.nodes["a"], task(2).request)


def test_what_a_node_does_not_have_is_impossible() -> None:
    assert "NUMA node 3" in impossible(
        node("a", numa_nodes={0: NumaCores((0, 1)), 1: NumaCores((2, 3))}), task(1, numa=3).request
    )
    assert not impossible(node("a"), task(1, 4).request)


def test_a_returning_node_may_hold_more_than_it_has() -> None:
    ledger = Ledger()
    ledger.hold("a", 1, holding(task(1, 3), None))
    ledger.hold("a", 1, holding(task(1, 3), None))
    ledger.hold("a", 2, holding(task(2, 3), None))
    assert ledger.held("a", "cores") == 6, "a repeated holding counts once"
    assert ledger.free("a", {"cores": 4}, "cores") == -2
    assert ledger.release("a", 1)
    assert not ledger.release("a", 1)


sizes = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=25)
steps = st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=60)


@given(capacities=st.lists(st.integers(1, 6), min_size=1, max_size=4), stream=sizes, moves=steps)
@settings(max_examples=200, deadline=None)
def test_never_over_committed_and_everything_possible_is_placed(
    capacities: list[int], stream: list[tuple[int, int]], moves: list[tuple[int, bool]]
) -> None:
    board = Board(*(node(f"n{i}", cores, 4 * GIGA) for i, cores in enumerate(capacities)))
    running: dict[int, str] = {}
    waiting = {}
    for number, (cores, memory) in enumerate(stream, 1):
        waiting[number] = task(number, cores, memory * GIGA)
        board.add(waiting[number])

    def play() -> None:
        running.update(board.round())
        for name, each in board.nodes.items():
            for what, capacity in each.capacity.items():
                assert board.ledger.held(name, what) <= capacity
                held = sum(waiting[i].request.amount(what) for i, where in running.items() if where == name)
                assert board.ledger.held(name, what) == held

    for index, _ in moves:
        play()
        if running:
            ended = sorted(running)[index % len(running)]
            board.end(running.pop(ended), ended)
    while True:
        play()
        if not running:
            break
        ended = min(running)
        board.end(running.pop(ended), ended)
    left = [each for _, each in board.queue.in_order(lambda each: each.rank)]
    assert all(impossible(each_node, each.request) for each in left for each_node in board.nodes.values())


@given(stream=sizes)
@settings(max_examples=50, deadline=None)
def test_equal_inputs_equal_decisions(stream: list[tuple[int, int]]) -> None:
    outcomes = []
    for _ in range(2):
        board = Board(node("a", 3), node("b", 5), node("c", 5))
        board.add(*(task(number, cores, memory * GIGA) for number, (cores, memory) in enumerate(stream, 1)))
        outcomes.append(board.round())
    assert outcomes[0] == outcomes[1]


def test_a_long_queue_is_placed_in_rounds() -> None:
    board = Board(node("a", 10_000))
    board.add(*(task(number) for number in range(1, 2 * AT_ONCE + AT_ONCE // 2 + 1)))
    assert [len(board.round()) for _ in range(4)] == [AT_ONCE, AT_ONCE, AT_ONCE // 2, 0]


def test_a_node_that_grows_is_looked_at_anew() -> None:
    board = Board(node("a", 1), node("b", 1))
    board.add(task(1), task(2), task(3))
    assert board.round() == {1: "a", 2: "b"}
    board.nodes["b"].capacity["cores"] = 2
    board.ledger.changed.add("b")
    board.blocked = set()
    assert board.round() == {3: "b"}


def test_what_a_nodes_configuration_forbids_is_impossible() -> None:
    strict = node("a", allow_privileged=False, mount_roots=("/data", "/mnt/share/shared_data"))
    assert "privileged" in impossible(strict, task(1, privileged=True).request)
    assert "/etc is not under" in impossible(strict, task(1, mounts=("/data/x", "/etc")).request)
    assert "/database is not under" in impossible(strict, task(1, mounts=("/database",)).request)
    assert not impossible(strict, task(1, mounts=("/data/x", "/data")).request)
    assert not impossible(node("b"), task(1, privileged=True, mounts=("/etc",)).request), (
        "it has not told yet"
    )


def test_who_asks_for_too_much_is_told_of_the_node_that_comes_nearest() -> None:
    board = Board(
        node("a", 2, 64 * GIGA),
        node("b", 16, 8 * GIGA),
        node("c", 4, gpus=(Gpu("GPU-0", 0, "NVIDIA T4", 16 * GIGA),)),
    )

    def told(wanted: Task) -> str:
        return waiting_reason(wanted, board.nodes, board.ledger, None)

    assert told(task(1, 32)) == "no node can run it: b: it has 16 cores, 32 cores asked for"
    assert told(task(1, 1, 128 * GIGA)).startswith("no node can run it: a: it has 64.00G memory")
    assert told(task(1, 32, gpus=GpuRequest(2))).startswith("no node can run it: c: it has 4 cores")
    assert told(task(1, 1, gpus=GpuRequest(2))).startswith("no node can run it: c: it has 1 such GPU")
