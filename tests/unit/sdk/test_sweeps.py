"""Spans: which values they stand for, how they are combined, and what is none."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hakuriver.errors import UsageError
from hakuriver.sweeps import MOST_VALUES, Sweep


def lines(*arguments: str) -> list[str]:
    return [" ".join(run.arguments) for run in Sweep(arguments)]


@pytest.mark.parametrize(
    ("argument", "values"),
    [
        ("span:{1..4}", "1 2 3 4"),
        ("span:{4..1}", "4 3 2 1"),
        ("span:{-1..1}", "-1 0 1"),
        ("span:{8..11..2}", "8 10"),
        ("span:{3..3}", "3"),
        ("span:{08..11}", "08 09 10 11"),
        ("span:{-01..01}", "-01 000 001"),
        ("span:{0..1..0.25}", "0.00 0.25 0.50 0.75 1.00"),
        ("span:{1..0..0.5}", "1.0 0.5 0.0"),
        ("span:{0.1..0.3..0.1}", "0.1 0.2 0.3"),
        ("span:{0.5..2}", "0.5 1.5"),
        ("span:{1e-4..3e-4..1e-4}", "0.0001 0.0002 0.0003"),
        ("span:{1e2..3e2..1e2}", "100 200 300"),
        ("span:[adam, sgd]", "adam sgd"),
        ("span:[x]", "x"),
        ("--lr=span:[0.1,0.01]", "--lr=0.1 --lr=0.01"),
        ("out-span:{1..2}.txt", "out-1.txt out-2.txt"),
        ("no span", "no span"),
        ("lifespan:7", "lifespan:7"),
    ],
)
def test_what_a_span_stands_for(argument: str, values: str) -> None:
    assert " ".join(lines(argument)) == values


def test_each_value_with_each_the_last_fastest() -> None:
    assert lines("p", "span:{1..2}", "-x", "span:[a,b]") == ["p 1 -x a", "p 1 -x b", "p 2 -x a", "p 2 -x b"]
    assert lines("span:[a,b]-span:{1..2}") == ["a-1", "a-2", "b-1", "b-2"]


def test_spans_of_one_name_go_together() -> None:
    told = lines("span.p:[a,b]", "span:{1..2}", "span.p:{7..8}")
    assert told == ["a 1 7", "a 2 7", "b 1 8", "b 2 8"]


def test_a_command_without_spans_is_one_run() -> None:
    sweep = Sweep(["echo", "hello"])
    assert (len(sweep), sweep[0].arguments, sweep[0].values) == (1, ("echo", "hello"), ())


def test_the_values_of_a_run() -> None:
    assert Sweep(["p", "a-span:{1..2}", "span:[x,y]"])[2].values == ("2", "x")


def test_nothing_is_held_of_what_is_large() -> None:
    sweep = Sweep(["span:{1..1000000}", "span:{1..100}"])
    assert len(sweep) == 10**8
    assert sweep[99_999_999].arguments == ("1000000", "100")
    with pytest.raises(IndexError):
        sweep[100_000_000]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["span:[]"], "span:[] has no values"),
        (["span:{}"], "is not a span of numbers"),
        (["span:{a..b}"], "is not a span of numbers"),
        (["span:{1}"], "is not a span of numbers"),
        (["span:{1..nan}"], "is not a span of numbers"),
        (["span:{1..1e999999}"], "is not a span of numbers"),
        (["span:{0..1..1e-400}"], "is not a span of numbers"),
        (["span:{1..2..0}"], "its step is not one number above 0"),
        (["span:{1..2..1..1}"], "its step is not one number above 0"),
        (["span:{1..1000001}"], "has 1,000,001 values; 1,000,000 are the most"),
        (["span:{0..1..0.0000001}"], "has 10,000,001 values"),
        (["span:1"], "'span:1' is not a span"),
        (["x", "span.a:[1"], "'span.a:[1' is not a span"),
        (["span.a:[1,2]", "span.a:[1,2,3]"], "the spans named a go together, and have 2 and 3 values"),
        (["span:{1..1000000}"] * 2, "that makes 1,000,000,000,000 runs"),
        (["span:{1..1000000}"] * 4, "that makes more than 1,000,000,000,000,000,000 runs"),
    ],
)
def test_what_is_no_sweep(arguments: list[str], said: str) -> None:
    with pytest.raises(UsageError) as error:
        Sweep(arguments)
    assert said in error.value.message
    assert error.value.hint


@given(
    st.lists(
        st.lists(st.text("abc01", min_size=1, max_size=3), min_size=1, max_size=4), min_size=1, max_size=4
    )
)
def test_it_is_the_product_of_its_lists(lists: list[list[str]]) -> None:
    sweep = Sweep([f"span:[{','.join(values)}]" for values in lists])
    assert [run.arguments for run in sweep] == list(itertools.product(*lists))
    assert len(sweep) == len(list(sweep)) <= MOST_VALUES
