"""Cores: which of a node's a task gets as its own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hakuriver_host.domain.cpus import NumaCores, choose_cpus

TWO = {0: NumaCores((0, 1, 2, 3)), 1: NumaCores((4, 5, 6, 7))}
ALL = tuple(range(8))


def test_those_of_one_numa_node_before_those_of_two() -> None:
    assert choose_cpus(ALL, TWO, {0}, 4) == (4, 5, 6, 7)


def test_the_numa_node_with_the_fewest_left() -> None:
    assert choose_cpus(ALL, TWO, {5}, 2) == (4, 6), "four stay together for who needs four"


def test_near_the_gpus() -> None:
    assert choose_cpus(ALL, TWO, {5}, 2, near={0}) == (0, 1)
    assert choose_cpus(ALL, TWO, {0, 1, 2}, 2, near={0}) == (3, 4), "rather one far away than none"


def test_more_than_one_numa_node_has() -> None:
    assert choose_cpus(ALL, TWO, {0, 1}, 5) == (2, 4, 5, 6, 7)


def test_those_of_the_nearest_where_one_has_too_few() -> None:
    far = {0: NumaCores((0, 1), ((0, 10), (1, 32), (2, 16))), 1: NumaCores((2, 3)), 2: NumaCores((4, 5))}
    assert choose_cpus(range(6), far, {3, 5}, 3) == (0, 1, 4)


def test_in_the_order_that_they_have() -> None:
    """Those that share a processor's core are next to each other."""
    assert choose_cpus((0, 4, 1, 5, 2, 6, 3, 7), {}, {0, 4}, 2) == (1, 5)


def test_too_few_are_left() -> None:
    assert choose_cpus(ALL, TWO, set(range(6)), 3) == ()
    assert choose_cpus((), TWO, (), 1) == ()
    assert choose_cpus(ALL, TWO, (), 0) == ()


def test_a_machine_without_numa_nodes() -> None:
    assert choose_cpus((0, 2, 4), {}, {0}, 2) == (2, 4)


@given(st.sets(st.sampled_from(ALL)), st.sets(st.sampled_from(ALL)), st.integers(1, 8))
def test_free_ones_as_many_as_asked_for(cpus: set[int], taken: set[int], count: int) -> None:
    chosen = choose_cpus(sorted(cpus), TWO, taken, count)
    assert set(chosen) <= cpus - taken
    assert len(set(chosen)) == len(chosen) == (count if len(cpus - taken) >= count else 0)
