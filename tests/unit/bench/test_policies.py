"""Policies on schedules that can be worked out by hand, and what must hold of all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.simulation.hakuriver import HakuRiver
from bench.simulation.jobs import Job
from bench.simulation.replay import Policy, Run, replay
from bench.simulation.textbook import Easy, Fifo, Shadow
from hakuriver_host.domain import backfill

Make = Callable[[Sequence[int]], Policy]
POLICIES: list[Make] = [Fifo, Easy, HakuRiver]


def job(number: int, submit: float, run: float, cores: int, limit: float = 0, user: int = 1) -> Job:
    return Job(number, submit, run, cores, limit or run, user)


def starts(make: Make, nodes: Sequence[int], *jobs: Job) -> list[float]:
    """When each job starts, by number."""
    runs = replay(jobs, nodes, make(nodes))
    return [run.start for run in sorted(runs, key=lambda run: run.job.number)]


THE_EXAMPLE = (
    job(1, 0, 100, 6),
    job(2, 1, 100, 8),
    job(3, 2, 98, 4),
    job(4, 3, 98, 4),
    job(5, 4, 150, 2),
    job(6, 5, 10, 2),
)
"""On ten cores. The second waits for the first, until 100; two cores are left beside it then. The third would be over in
time and so would the fourth, which comes too late for that; the fifth would not, and finds the two that are left; the sixth
finds none.
"""


def test_fifo_lets_nothing_pass() -> None:
    assert starts(Fifo, [10], *THE_EXAMPLE) == [0, 100, 200, 200, 200, 298]


def test_easy_fills_gaps_and_keeps_its_reservation() -> None:
    assert starts(Easy, [10], *THE_EXAMPLE) == [0, 100, 2, 200, 100, 200]


def test_easy_uses_what_is_left_beside_the_first() -> None:
    jobs = job(1, 0, 100, 6), job(2, 1, 100, 8), job(3, 2, 500, 2), job(4, 3, 500, 1)
    assert starts(Easy, [10], *jobs) == [0, 100, 2, 200], "two cores are left beside eight, and no third"


def test_easy_counts_all_that_ends_at_the_shadow_time() -> None:
    jobs = (
        job(1, 0, 100, 4),
        job(2, 0, 100, 4),
        job(3, 1, 100, 6),
        job(4, 2, 500, 2),
        job(5, 3, 500, 2),
    )
    assert starts(Easy, [10], *jobs) == [0, 0, 100, 2, 100]


def test_an_early_end_brings_the_first_forward() -> None:
    jobs = job(1, 0, 10, 6, limit=100), job(2, 1, 100, 8), job(3, 2, 50, 4, limit=90)
    assert starts(Easy, [10], *jobs) == [0, 52, 2]


def test_easy_reserves_on_the_node_that_is_free_first() -> None:
    jobs = job(1, 0, 100, 3), job(2, 0, 50, 3), job(3, 1, 10, 4), job(4, 2, 90, 1), job(5, 3, 60, 1)
    assert starts(Easy, [4, 4], *jobs) == [0, 0, 50, 2, 60], "beside the first: 90 would not be over by 50"


_JOBS = st.lists(
    st.tuples(
        st.integers(0, 300),
        st.integers(0, 400),
        st.integers(1, 8),
        st.floats(1.0, 5.0),
        st.integers(1, 3),
    ),
    min_size=1,
    max_size=40,
)


def _made(drawn: list[tuple[int, int, int, float, int]]) -> list[Job]:
    """They come in the order in which they are drawn, after a pause each."""
    submit, jobs = 0, []
    for number, (pause, run, cores, over, user) in enumerate(drawn, 1):
        submit += pause
        jobs.append(Job(number, submit, run, cores, max(1, round(run * over)), user))
    return jobs


def _never_over_capacity(runs: Sequence[Run], nodes: Sequence[int]) -> None:
    """Counted from the outcome alone, at each start."""
    for run in runs:
        there = [other for other in runs if other.node == run.node]
        held = sum(other.job.cores for other in there if other.start <= run.start < other.end)
        assert held <= nodes[run.node]


@pytest.mark.parametrize("make", POLICIES)
@pytest.mark.parametrize("nodes", [[8], [8, 8, 8]])
@given(_JOBS)
@settings(max_examples=30)
def test_every_job_runs_once_where_there_is_room(
    make: Make, nodes: list[int], drawn: list[tuple[int, int, int, float, int]]
) -> None:
    jobs = _made(drawn)
    runs = replay(jobs, nodes, make(nodes))
    assert sorted(run.job for run in runs) == jobs
    assert all(run.wait >= 0 for run in runs)
    _never_over_capacity(runs, nodes)
    assert replay(jobs, nodes, make(nodes)) == runs, "the same again"


@given(_JOBS)
@settings(max_examples=100)
def test_fifo_starts_in_the_order_of_submission(drawn: list[tuple[int, int, int, float, int]]) -> None:
    runs = replay(_made(drawn), [8, 8], Fifo([8, 8]))
    assert [run.job.number for run in runs] == sorted(run.job.number for run in runs)


class Watched(Easy):
    """Notes when the first in line could start at the latest, each time that it must wait."""

    def __init__(self, nodes: Sequence[int]) -> None:
        super().__init__(nodes)
        self.promised: dict[int, float] = {}

    def shadow(self, first: Job) -> Shadow:
        found = super().shadow(first)
        self.promised[first.number] = min(found.at, self.promised.get(first.number, found.at))
        return found


@pytest.mark.parametrize("nodes", [[8], [8, 8]])
@given(_JOBS)
@settings(max_examples=100)
def test_easy_never_makes_the_first_in_line_later(
    nodes: list[int], drawn: list[tuple[int, int, int, float, int]]
) -> None:
    policy = Watched(nodes)
    for run in replay(_made(drawn), nodes, policy):
        assert run.start <= policy.promised.get(run.job.number, run.start)


@given(_JOBS)
@settings(max_examples=60)
def test_the_domain_and_the_textbook_are_of_one_mind(
    drawn: list[tuple[int, int, int, float, int]],
) -> None:
    """Two ways to write EASY: of one owner's tasks that ask for the same time, on one node, without slack."""
    jobs = [each._replace(limit=500, user=1) for each in _made(drawn)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backfill, "SLACK_SECONDS", 0.0)
        ours = replay(jobs, [8], HakuRiver([8], 0))
    theirs = replay(jobs, [8], Easy([8]))
    assert {run.job: run.start for run in ours} == pytest.approx({run.job: run.start for run in theirs})


def test_a_policy_that_gives_too_much_or_too_little_is_found() -> None:
    class Greedy(Fifo):
        def _room(self, job: Job) -> int | None:
            return 0

    class Idle(Fifo):
        def starts(self, now: float) -> list[tuple[Job, int]]:
            return []

    jobs = job(1, 0, 10, 8), job(2, 0, 10, 8)
    with pytest.raises(AssertionError, match="job 2 starts where there is no room"):
        replay(jobs, [8], Greedy([8]))
    with pytest.raises(AssertionError, match="2 jobs never start, the first is 1"):
        replay(jobs, [8], Idle([8]))
