"""When those in line are expected to start."""

from __future__ import annotations

from hakuriver.labels import parse_selector
from hakuriver_host.domain.backfill import Clock
from hakuriver_host.domain.forecast import forecast
from hakuriver_host.domain.gpus import Gpu, GpuRequest
from hakuriver_host.domain.ledger import Ledger
from hakuriver_host.domain.model import Node, Task
from unit.host.test_placement import Board, node, task


def foresee(nodes: list[Node], running: list[tuple[Task, float]], line: list[Task]) -> dict[int, float]:
    """`running` are placed first, and end at these times."""
    board = Board(*nodes)
    board.add(*(each for each, _ in running))
    ends = {each.task_id: at for each, at in running}
    assert set(board.round()) == set(ends)
    return forecast(line, board.nodes, board.ledger, Clock(100.0, ends.get))


def limited(task_id: int, cores: int, limit: int | None, **request: object) -> Task:
    return task(task_id, cores, limit=limit, **request)


def test_one_after_the_other() -> None:
    line = [limited(number, 4, 50) for number in (2, 3, 4)]
    assert foresee([node("a", 4)], [(task(1, 4), 150.0)], line) == {2: 150.0, 3: 200.0, 4: 250.0}


def test_what_fits_starts_now_and_what_leaves_room_runs_beside() -> None:
    line = [limited(2, 4, 50), limited(3, 1, 50), limited(4, 1, 500), limited(5, 2, 10)]
    assert foresee([node("a", 4)], [(task(1, 3), 150.0)], line) == {2: 150.0, 3: 100.0, 4: 200.0, 5: 200.0}


def test_the_node_that_is_free_first() -> None:
    found = foresee(
        [node("a", 4), node("b", 4)], [(task(1, 4), 150.0), (task(2, 4), 120.0)], [limited(3, 4, 1)]
    )
    assert found == {3: 120.0}


def test_nothing_is_said_where_something_has_no_end() -> None:
    running = [(task(1, 4), 150.0)]
    assert foresee([node("a", 4)], running, [limited(2, 4, None), limited(3, 1, 5)]) == {2: 150.0}
    board = Board(node("a", 4))
    board.add(task(1, 4))
    board.round()
    assert forecast([limited(2, 1, 5)], board.nodes, board.ledger, Clock(100.0)) == {}
    assert forecast([limited(2, 5, 5)], board.nodes, board.ledger, Clock(100.0)) == {}, "it never fits"


def test_a_node_for_itself_and_what_comes_after_it() -> None:
    line = [limited(2, 1, 50, exclusive=True), limited(3, 1, 20), limited(4, 1, 100)]
    assert foresee([node("a", 4)], [(task(1, 1), 150.0)], line) == {2: 150.0, 3: 100.0, 4: 200.0}


def test_gpus_are_counted() -> None:
    gpus = (Gpu("GPU-0", 0), Gpu("GPU-1", 1))
    one, two = GpuRequest(1), GpuRequest(2)
    line = [
        limited(2, 1, 50, gpus=two),
        limited(3, 1, 20, gpus=one),
        limited(4, 1, 100, gpus=one),
        limited(5, 1, 9),
    ]
    found = foresee([node("a", 8, gpus=gpus)], [(task(1, 1, gpus=one), 150.0)], line)
    assert found == {2: 150.0, 3: 100.0, 4: 200.0, 5: 100.0}


def test_what_no_node_may_run_does_not_take_for_ever_either() -> None:
    line = [limited(number, 1, number, labels=(parse_selector("gone"),)) for number in range(1, 100)]
    nodes = {str(number): node(str(number)) for number in range(50)}
    assert forecast([*line, limited(200, 1, 5)], nodes, Ledger(), Clock(0.0), budget=1_000) == {}


def test_it_does_not_take_for_ever() -> None:
    line = [limited(number, 4, 50) for number in range(2, 100)]
    board = Board(node("a", 4))
    board.ends = {1: 150.0}
    board.add(task(1, 4))
    board.round()
    found = forecast(line, board.nodes, board.ledger, board.clock, budget=100)
    assert list(found) == list(range(2, 2 + len(found)))
    assert 5 < len(found) < 30
