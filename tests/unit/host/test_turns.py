"""Shares between users: what they converge to, what limits keep from them, and that nobody waits for ever."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hakuriver.models.submission import SubmitRequest
from hakuriver_host.domain.backfill import Clock
from hakuriver_host.domain.gpus import GpuRequest
from hakuriver_host.domain.ledger import Ledger
from hakuriver_host.domain.model import Batch, Node, Request, Task
from hakuriver_host.domain.order import NodeOrder
from hakuriver_host.domain.placement import Claim, Hopeless, place, waiting_reason
from hakuriver_host.domain.queue import Queue
from hakuriver_host.domain.turns import Limit, Limits, Shares, Turns
from unit.host.test_placement import node

DAY = 86_400.0


def task(
    task_id: int,
    owner: str,
    cores: int = 1,
    *,
    priority: int = 0,
    gpus: int = 0,
    memory: int = 0,
    limit: int | None = None,
) -> Task:
    batch = Batch(task_id, owner, 0.0, SubmitRequest(command="x"), None, None)
    amounts = tuple((name, amount) for name, amount in (("cores", cores), ("memory", memory)) if amount)
    request = Request(amounts=amounts, gpus=GpuRequest(gpus) if gpus else None, limit=limit)
    return Task(task_id, batch, 0, None, request, priority=priority)


@dataclass
class Lab:
    """A cluster in simulated time: tasks run as long as they are to, and rounds are played when something ends."""

    nodes: list[Node]
    shares: Shares = field(default_factory=Shares)
    limits: Limits = field(default_factory=Limits)
    now: float = 0.0
    made: int = 0
    placed: list[int] = field(default_factory=list)
    used: Counter[str] = field(default_factory=Counter)
    """Core seconds by owner."""

    def __post_init__(self) -> None:
        self.queue, self.ledger, self.order = Queue(), Ledger(), NodeOrder()
        self.claim: Claim | None = None
        self.running: list[tuple[float, int, str]] = []
        self.lengths: dict[int, float] = {}
        self.began: dict[int, float] = {}
        self.limits_of: dict[int, int | None] = {}
        self.by_name = {each.name: each for each in self.nodes}

    def turns(self) -> Turns:
        return Turns(self.shares, self.limits, self.ledger, self.nodes)

    def clock(self) -> Clock:
        """What runs ends at its limit at the latest, if it has one."""

        def ends(task_id: int) -> float | None:
            limit = self.limits_of[task_id]
            return None if limit is None else self.began.get(task_id, self.now) + limit

        return Clock(self.now, ends)

    def submit(self, owner: str, seconds: float, cores: int = 1, **wanted: int) -> Task:
        self.made += 1
        made = task(self.made, owner, cores, **wanted)
        self.lengths[made.task_id] = seconds
        self.limits_of[made.task_id] = made.request.limit
        self.queue.add(made)
        return made

    def play(self) -> None:
        """Rounds, until nothing fits."""
        while True:
            turns = self.turns()
            self.shares.advance(self.now, turns.shares())
            before = self.claim
            outcome, self.claim = place(
                self.queue, self.by_name, self.ledger, self.order, self.claim, set(), turns, self.clock()
            )
            for placed, where in outcome.placed:
                self.placed.append(placed.task_id)
                self.began[placed.task_id] = self.now
                seconds = self.lengths[placed.task_id]
                self.used[placed.batch.owner] += placed.request.amount("cores") * seconds
                heapq.heappush(self.running, (self.now + seconds, placed.task_id, where.name))
            self.check()
            if not outcome.placed and self.claim is before:
                return

    def check(self) -> None:
        for each in self.nodes:
            assert self.ledger.held(each.name, "cores") <= each.capacity["cores"]
        for owner in self.ledger.owners():
            for limit in self.limits.of(owner):
                for name, most in limit.held.items():
                    members = limit.members or {owner}
                    assert sum(self.ledger.of_owner(member).get(name, 0) for member in members) <= most

    def wait(self) -> int:
        """Until the next task ends; its id."""
        self.now, task_id, where = heapq.heappop(self.running)
        self.ledger.release(where, task_id)
        self.play()
        return task_id


@pytest.mark.parametrize("weights", [{}, {"ada": 2.0}, {"ada": 3.0, "cyd": 0.5}])
@pytest.mark.parametrize("seed", range(3))
def test_shares_converge_to_their_weights(weights: dict[str, float], seed: int) -> None:
    chance = random.Random(seed)
    lab = Lab([node("a", 24), node("b", 24)], Shares(DAY, weights))
    owners = ("ada", "bob", "cyd")

    def more(owner: str) -> None:
        # One user's tasks are short and small, another's long and large.
        scale = 1 + owners.index(owner)
        lab.submit(owner, chance.uniform(200, 2_000) * scale, chance.randint(1, scale))

    for owner in owners:
        for _ in range(30):
            more(owner)
    lab.play()
    for step in range(9_000):
        if step == 5_000:
            lab.used.clear()  # The beginning, when nobody has a past, is not what they converge to.
        lab.wait()
        for owner in owners:
            while lab.queue.number_of(owner) < 60:
                more(owner)
    total = sum(weights.get(owner, 1.0) for owner in owners)
    for owner in owners:
        due = weights.get(owner, 1.0) / total
        assert lab.used[owner] / lab.used.total() == pytest.approx(due, rel=0.1), lab.used


@pytest.mark.parametrize("weights", [{}, {"ada": 0.5}, {"cyd": 2.0}])
def test_nobody_gets_more_than_they_are_due_by_having_short_tasks(weights: dict[str, float]) -> None:
    """While room is kept the shorter go first, but only among those who had less than the mean, and among the others."""
    chance = random.Random(1)
    lab = Lab([node(name, 4) for name in "abc"], Shares(DAY / 4, weights))
    kinds = {"ada": (600.0, 1, 1), "bob": (7_200.0, 1, 1), "cyd": (3_600.0, 3, 4)}

    def more(owner: str) -> None:
        longest, *cores = kinds[owner]
        seconds = chance.uniform(longest / 4, longest)
        limit = int(seconds * chance.uniform(1, 3)) + 1
        lab.submit(owner, seconds, chance.randint(*cores), limit=limit)

    while lab.now < 2 * DAY:
        for owner in kinds:
            while lab.queue.number_of(owner) < 10:
                more(owner)
        lab.play()
        lab.wait()
        if lab.now < DAY / 2:
            lab.used.clear()
    total = sum(weights.get(owner, 1.0) for owner in kinds)
    for owner in kinds:
        due = weights.get(owner, 1.0) / total
        assert lab.used[owner] / lab.used.total() == pytest.approx(due, rel=0.15), lab.used


def test_who_comes_late_goes_first_and_the_past_fades() -> None:
    lab = Lab([node("a", 1)], Shares(DAY))
    for _ in range(30):
        lab.submit("ada", 3_600)
    lab.play()
    for _ in range(10):
        lab.wait()
    guest = lab.submit("bob", 3_600)
    lab.wait()
    lab.wait()
    assert lab.placed[-1] == guest.task_id, "after the one for which the room was kept"
    before = lab.shares.means()["ada"]
    lab.shares.advance(lab.now, {})
    lab.shares.advance(lab.now + DAY, {})
    assert lab.shares.means()["ada"] == pytest.approx(before / 2)


def test_without_a_half_life_it_is_first_come_first_served() -> None:
    lab = Lab([node("a", 1)])
    mine = [lab.submit("ada", 10).task_id for _ in range(3)]
    theirs = lab.submit("bob", 10).task_id
    lab.play()
    for _ in range(3):
        lab.wait()
    assert lab.placed == [*mine, theirs]
    assert lab.shares.means() == {}


def test_priorities_go_before_shares() -> None:
    lab = Lab([node("a", 1)], Shares(DAY))
    lab.submit("ada", 10)
    lab.play()
    lab.wait()
    urgent, plain = lab.submit("ada", 10, priority=1), lab.submit("bob", 10)
    lab.play()
    lab.wait()
    assert lab.placed[-2:] == [urgent.task_id, plain.task_id]


def test_the_largest_part_of_any_resource_counts() -> None:
    lab = Lab([node("a", 10, 100)], Shares(DAY))
    lab.submit("ada", 10, 1, memory=60)
    lab.submit("bob", 10, 5)
    lab.play()
    assert lab.turns().shares() == {"ada": pytest.approx(0.6), "bob": pytest.approx(0.5)}


def test_a_large_task_of_a_heavy_user_starts_in_spite_of_a_stream_of_small_ones() -> None:
    lab = Lab([node("a", 4)], Shares(DAY))
    for _ in range(40):
        lab.submit("ada", 1_000)
    lab.play()
    for _ in range(40):
        lab.wait()
    large = lab.submit("ada", 100, 4)
    for step in range(500):
        lab.submit("bob", 500 + step % 7)
        lab.play()
        if large.task_id in lab.placed:
            return
        if lab.running:
            lab.wait()
    raise AssertionError("it never started")


@pytest.mark.parametrize("nodes", [1, 2, 4])
def test_a_claim_holds_whoever_has_had_less_by_then(nodes: int) -> None:
    """Those who always have small tasks never give the room away that is kept for a large one of one of them."""
    chance = random.Random(nodes)
    lab = Lab([node(name, 16) for name in "abcd"[:nodes]], Shares(7 * DAY))
    owners = ("ada", "bob", "cyd")

    def more() -> None:
        for owner in owners:
            while lab.queue.number_of(owner) < 20:
                lab.submit(owner, chance.uniform(600, 7_200))

    more()
    lab.play()
    for _ in range(200):
        lab.wait()
        more()
    large, asked = lab.submit("ada", 600, 16), lab.now
    while large.task_id not in lab.began:
        lab.wait()
        more()
        assert lab.now - asked < 6 * 3_600, "all that ran then is over after two hours"


def test_shares_outlive_a_restart() -> None:
    shares = Shares(DAY)
    shares.advance(0.0, {"ada": 0.5})
    shares.advance(DAY, {})
    again = Shares(DAY)
    again.resume(shares.means(), DAY, 5.0)
    assert again.means() == {"ada": pytest.approx(0.125)}
    again.resume({"ada": 0.5}, -100.0, 5.0)  # The clock was set back.
    assert again.means() == {"ada": pytest.approx(0.5)}


LIMITS = Limits({"cores": 3, "tasks": 2, "gpus": 1})


def test_a_user_at_the_limit_waits_and_holds_nobody_up() -> None:
    lab = Lab([node("a", 8)], limits=LIMITS)
    for _ in range(3):
        lab.submit("ada", 10)
    large = lab.submit("ada", 10, 3)
    other = lab.submit("bob", 10, 2)
    lab.play()
    assert lab.placed == [1, 2, other.task_id]
    assert lab.claim is None, "room that may not be used is not kept"
    told = waiting_reason(large, lab.by_name, lab.ledger, None, lab.turns())
    assert told == "one user may hold 3 cores, 2 cores of them in use, 3 cores asked for"
    lab.wait()
    assert lab.placed[-1] == 3
    while lab.running:
        lab.wait()
    assert large.task_id in lab.placed


def test_an_older_task_of_who_has_the_claim_is_not_kept_out_with_others() -> None:
    """It comes back into line, as after a failed attempt, and before the one that claimed meanwhile."""
    lab = Lab([node("a", 4)], Shares(DAY))
    retried = lab.submit("ada", 100, 4)
    lab.play()
    lab.submit("ada", 100, 4)
    lab.play()
    assert lab.claim is not None
    lab.shares.advance(lab.now + 100, {})
    lab.submit("bob", 100)
    lab.play()
    lab.running.clear()
    lab.ledger.release("a", retried.task_id)
    lab.queue.add(retried)
    lab.play()
    assert lab.placed == [retried.task_id, retried.task_id], "bob, who is kept out, says nothing of it"


def test_room_is_not_kept_for_one_whose_owner_has_come_to_the_limit_since() -> None:
    lab = Lab([node("a", 8), node("b", 4)], limits=Limits({"cores": 10}))
    lab.submit("cyd", 100, 5)
    lab.play()
    assert lab.placed == [1]
    large, small = lab.submit("ada", 100, 8), lab.submit("ada", 100, 4)
    other = lab.submit("bob", 100, 1)
    lab.play()
    assert small.task_id in lab.placed
    assert other.task_id in lab.placed, "ada, who holds 4 of 10 cores, may not have 8 more"
    assert large.task_id not in lab.placed


def test_a_request_beyond_the_limit_is_told_of() -> None:
    assert LIMITS.forbids(task(1, "ada", 4).request, "ada") == "one user may hold 3 cores, 4 cores asked for"
    assert LIMITS.forbids(task(1, "ada", 3).request, "ada") == ""
    assert (
        LIMITS.forbids(task(1, "ada", 1, gpus=2).request, "ada")
        == "one user may hold 1 GPU, 2 GPUs asked for"
    )
    assert Limits({"gpus": 0}).forbids(task(1, "ada", 1).request, "ada") == ""


class TestGroups:
    LIMITS = Limits(
        {"cores": 3},
        4,
        users={"ada": Limit({"cores": 6}, whose="ada")},
        groups=(
            Limit({"cores": 4, "gpus": 1}, 5, "the group students", frozenset({"bob", "cyd"})),
            Limit({"tasks": 2}, None, "the group guests", frozenset({"cyd", "dan"})),
        ),
    )

    def test_of_each_user_and_of_those_of_whom_more_is_said(self) -> None:
        six, four = task(1, "ada", 6).request, task(2, "eve", 4).request
        assert self.LIMITS.forbids(six, "ada") == ""
        assert (
            self.LIMITS.forbids(task(1, "ada", 7).request, "ada") == "ada may hold 6 cores, 7 cores asked for"
        )
        assert self.LIMITS.forbids(four, "eve") == "one user may hold 3 cores, 4 cores asked for"

    def test_those_of_a_group_hold_together(self) -> None:
        lab = Lab([node("a", 12)], limits=self.LIMITS)
        lab.submit("bob", 10, 3)
        waits = lab.submit("cyd", 10, 2)
        lab.submit("ada", 10, 6)
        lab.play()
        assert lab.placed == [1, 3], "and hold nobody else up"
        told = waiting_reason(waits, lab.by_name, lab.ledger, None, lab.turns())
        assert told == "the group students may hold 4 cores, 3 cores of them in use, 2 cores asked for"
        while lab.running:
            lab.wait()
        assert waits.task_id in lab.placed

    def test_who_is_in_two_groups_keeps_to_both(self) -> None:
        lab = Lab([node("a", 12)], limits=self.LIMITS)
        for owner in ("dan", "dan", "cyd"):
            lab.submit(owner, 10)
        lab.play()
        assert lab.placed == [1, 2]

    def test_how_many_may_wait(self) -> None:
        wait = Counter({"bob": 3, "cyd": 1, "eve": 4})
        assert self.LIMITS.too_many("cyd", 1, wait.__getitem__) == ""
        assert self.LIMITS.too_many("cyd", 2, wait.__getitem__) == (
            "5 tasks of the group students may wait: 4 do, 2 more are submitted"
        )
        assert self.LIMITS.too_many("eve", 1, wait.__getitem__).startswith("4 tasks of one user may wait")
        assert self.LIMITS.too_many("ada", 99, wait.__getitem__) == "", "nothing is said of hers"


STREAM = st.lists(
    st.tuples(
        st.sampled_from(["ada", "bob", "cyd"]),
        st.integers(1, 3),
        st.integers(1, 50),
        st.integers(-1, 1),
        st.booleans(),
    ),
    min_size=1,
    max_size=60,
)


def run(stream: list[tuple[str, int, int, int, bool]]) -> list[int]:
    """Everything, to its end."""
    group = Limit({"cores": 4}, whose="the group", members=frozenset({"bob", "cyd"}))
    limits = Limits({"cores": 5, "tasks": 3}, groups=(group,))
    lab = Lab([node("a", 3), node("b", 4)], Shares(DAY), limits)
    for owner, cores, seconds, priority, wait in stream:
        lab.submit(owner, float(seconds), cores, priority=priority)
        lab.play()
        if wait and lab.running:
            lab.wait()
    while lab.running:
        lab.wait()
    assert sorted(lab.placed) == list(range(1, lab.made + 1)), "everybody's turn came"
    assert not list(lab.ledger.owners())
    return lab.placed


@given(STREAM)
@settings(max_examples=200)
def test_never_beyond_limits_nobody_starves_and_equal_inputs_give_equal_decisions(
    stream: list[tuple[str, int, int, int, bool]],
) -> None:
    assert run(stream) == run(stream)


@given(STREAM)
@settings(max_examples=100)
def test_what_is_known_to_find_no_room_is_not_looked_for_in_vain(
    stream: list[tuple[str, int, int, int, bool]],
) -> None:
    """The shorter way decides as the longer one does."""
    short = run(stream)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Hopeless, "covers", lambda _self, _request: False)
        assert run(stream) == short


def test_what_asks_for_more_finds_no_room_either() -> None:
    def asked(cores: int, memory: int = 0, **other: Any) -> Request:
        return replace(task(1, "ada", cores, memory=memory).request, **other)

    hopeless = Hopeless()
    hopeless.add(asked(4, 8))
    assert hopeless.covers(asked(4, 8))
    assert hopeless.covers(asked(5, 8, node="a"))
    assert hopeless.covers(asked(4, 9, gpus=GpuRequest(1)))
    assert not hopeless.covers(asked(3, 99))
    assert not hopeless.covers(asked(99, 7))
    assert not hopeless.covers(asked(4, 8, engine="process"))
    hopeless.add(asked(1, node="a"))
    assert not hopeless.covers(asked(1, node="a")), "another node may have room"
    hopeless.add(asked(2, 2, avoided=frozenset({"b"})))
    assert hopeless.covers(asked(2, 2, avoided=frozenset({"b", "c"})))
    assert not hopeless.covers(asked(2, 2))
