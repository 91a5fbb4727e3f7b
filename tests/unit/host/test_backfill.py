"""Backfill: what runs in room that is kept for another, and that this other is never later for it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hakuriver.models.submission import SubmitRequest
from hakuriver_host.db.rows import request_of
from hakuriver_host.domain.backfill import SLACK_SECONDS, Clock, clock_of, reservation
from hakuriver_host.domain.gpus import Gpu
from hakuriver_host.domain.ledger import Ledger, holding
from hakuriver_host.domain.model import Batch, Now, Task
from hakuriver_host.domain.placement import waiting_reason
from hakuriver_host.domain.turns import Shares
from unit.host.test_placement import node
from unit.host.test_turns import Lab, task

HOUR = 3_600


def lab_with(*running: tuple[int, int | None]) -> Lab:
    """One node of 16 cores, on which tasks of so many cores run up to their limits; a task of 12 cores is next."""
    lab = Lab([node("a", 16)])
    for cores, limit in running:
        lab.submit("ada", limit or 10 * HOUR, cores, **({"limit": limit} if limit else {}))
    lab.submit("ada", HOUR, 12)
    lab.play()
    assert len(lab.placed) == len(running)
    assert lab.claim is not None
    return lab


def test_what_is_over_in_time_runs_meanwhile() -> None:
    lab = lab_with((10, 2 * HOUR))
    short = lab.submit("ada", HOUR, 5, limit=HOUR)
    long = lab.submit("ada", HOUR, 5, limit=2 * HOUR)
    endless = lab.submit("ada", HOUR, 5)
    lab.play()
    assert short.task_id in lab.placed
    assert not {long.task_id, endless.task_id} & set(lab.placed)
    assert "its room is kept for task 2" in waiting_reason(
        long, lab.by_name, lab.ledger, lab.claim, lab.turns(), lab.clock()
    ) or "cores free" in waiting_reason(long, lab.by_name, lab.ledger, lab.claim, lab.turns(), lab.clock())
    while 2 not in lab.placed:
        lab.wait()
    assert lab.began[2] == 2 * HOUR


def test_the_time_of_a_start_is_counted() -> None:
    lab = lab_with((10, 2 * HOUR))
    exact = lab.submit("ada", 1, 1, limit=2 * HOUR - int(SLACK_SECONDS))
    beyond = lab.submit("ada", 1, 5, limit=2 * HOUR - int(SLACK_SECONDS) + 1)
    lab.play()
    assert exact.task_id in lab.placed
    assert beyond.task_id not in lab.placed


def test_what_is_left_beside_it_may_be_used_without_limit() -> None:
    lab = lab_with((10, 2 * HOUR))
    fits, one_more = lab.submit("ada", HOUR, 4), lab.submit("ada", HOUR, 1)
    lab.play()
    assert fits.task_id in lab.placed, "4 of 16 cores are left beside 12"
    assert one_more.task_id not in lab.placed
    while 2 not in lab.placed:
        lab.wait()
    assert lab.began[2] <= 2 * HOUR


def test_where_no_end_is_known_all_room_is_kept() -> None:
    lab = lab_with((10, None))
    short = lab.submit("ada", 60, 1, limit=60)
    lab.play()
    assert short.task_id not in lab.placed


def test_an_endless_task_that_need_not_end_is_no_hindrance() -> None:
    lab = lab_with((4, None), (8, HOUR))
    short = lab.submit("ada", 60, 4, limit=60)
    lab.play()
    assert short.task_id in lab.placed


def test_gpus_that_are_free_meanwhile_are_used() -> None:
    gpus = tuple(Gpu(f"g{number}", number) for number in range(4))
    lab = Lab([node("a", 64, gpus=gpus)])
    lab.submit("ada", 10 * HOUR, 1, gpus=2, limit=10 * HOUR)
    large = lab.submit("ada", HOUR, 1, gpus=4)
    short, endless = lab.submit("ada", 600, 1, gpus=1, limit=600), lab.submit("ada", 600, 1, gpus=1)
    lab.play()
    assert short.task_id in lab.placed
    assert endless.task_id not in lab.placed
    while large.task_id not in lab.began:
        lab.wait()
    assert lab.began[large.task_id] == 10 * HOUR


def test_a_promise_stays_where_starts_take_long() -> None:
    """What has not started yet has its whole time before it, again and again: that moves no promise."""
    lab = Lab([node("a", 8)])
    lab.submit("ada", HOUR, 4, limit=HOUR)
    large = lab.submit("ada", HOUR, 8)
    lab.play()
    lab.clock = lambda: Clock(lab.now, lambda task_id: HOUR if task_id == 1 else lab.now + 120.0)  # type: ignore[method-assign]
    for _ in range(40):
        for _ in range(2):
            lab.submit("bob", 900, 1, limit=60)
        lab.play()
        if large.task_id in lab.began:
            break
        lab.wait()
    assert lab.began[large.task_id] <= HOUR + 900, "but for the one that started slowly just before"


def test_a_vps_has_no_known_end_since_it_may_be_given_more_time() -> None:
    spec = SubmitRequest(task_type="vps", command="-", time_limit_seconds=60)
    assert request_of(spec, None).limit is None
    vps = Task(1, Batch(1, "ada", 0.0, spec, "base", "1"), 0, None, request_of(spec, None), started_at=5.0)
    assert clock_of({1: vps}, Now(10.0, 10.0)).ends(1) is None
    command = replace(vps, batch=replace(vps.batch, spec=spec.model_copy(update={"task_type": "command"})))
    assert clock_of({1: command}, Now(10.0, 1_000.0)).ends(1) == 1_055.0
    assert clock_of({1: replace(command, started_at=None)}, Now(10.0, 1_000.0)).ends(1) == 1_120.0
    assert clock_of({}, Now(10.0, 10.0)).ends(1) is None


def test_a_reservation_for_gpus() -> None:
    gpus = tuple(Gpu(f"g{number}", number) for number in range(3))
    where, ledger = node("a", 16, gpus=gpus), Ledger()
    wanted = task(9, "ada", 1, gpus=2).request
    for number in (1, 2, 3):
        ledger.hold(
            "a", number, holding(replace(task(number, "ada", 1, gpus=1), gpus=(gpus[number - 1],)), where)
        )
    ends = {1: 300.0, 2: 100.0, 3: 200.0}
    found = reservation(wanted, where, ledger, Clock(0.0, ends.__getitem__))
    assert found is not None
    assert found.at == 200.0
    assert (
        reservation(wanted, where, ledger, Clock(0.0, lambda task_id: 100.0 if task_id == 2 else None))
        is None
    )


def test_all_that_ends_at_the_time_of_a_reservation_leaves_room_beside_it() -> None:
    where, ledger = node("a", 16), Ledger()
    for number in (1, 2):
        ledger.hold("a", number, holding(task(number, "ada", 8), where))
    found = reservation(task(9, "ada", 6).request, where, ledger, Clock(0.0, lambda _: 100.0))
    assert found is not None
    assert (found.at, found.spare["cores"]) == (100.0, 10)


def test_room_is_kept_where_it_is_free_soonest() -> None:
    lab = Lab([node("a", 16), node("b", 16)])
    lab.submit("ada", 2 * HOUR, 10, limit=2 * HOUR)
    lab.submit("ada", HOUR, 14, limit=HOUR)
    lab.play()
    large = lab.submit("ada", HOUR, 12)
    lab.play()
    assert lab.claim is not None
    assert lab.claim.node == "b", "though more is free on the other"
    while large.task_id not in lab.began:
        lab.wait()
    assert lab.began[large.task_id] == HOUR


def test_room_is_kept_where_most_is_free_if_no_end_is_known() -> None:
    lab = Lab([node("a", 16), node("b", 16)])
    lab.submit("ada", HOUR, 14)
    lab.submit("ada", HOUR, 10)
    lab.submit("ada", HOUR, 12)
    lab.play()
    assert lab.claim is not None
    assert lab.claim.node == "b"


def test_meanwhile_the_shorter_go_first() -> None:
    lab = lab_with((10, 5 * HOUR))
    endless = lab.submit("ada", HOUR, 4)
    long, short = lab.submit("ada", HOUR, 4, limit=4 * HOUR), lab.submit("bob", HOUR, 4, limit=HOUR)
    lab.play()
    assert lab.placed[1:] == [short.task_id]
    lab.wait()
    assert lab.placed[1:] == [short.task_id, long.task_id]
    assert endless.task_id not in lab.placed


def test_where_no_room_is_kept_who_came_first_goes_first() -> None:
    lab = Lab([node("a", 16)])
    first, second = lab.submit("ada", HOUR, 12, limit=5 * HOUR), lab.submit("ada", HOUR, 12, limit=60)
    lab.play()
    assert lab.placed == [first.task_id]
    lab.wait()
    assert lab.placed == [first.task_id, second.task_id]


def test_meanwhile_priorities_come_before_lengths() -> None:
    lab = lab_with((10, 5 * HOUR))
    lab.submit("ada", HOUR, 4, limit=HOUR, priority=-2)
    long = lab.submit("ada", HOUR, 4, limit=4 * HOUR, priority=-1)
    lab.play()
    assert lab.placed[1:] == [long.task_id]


def test_meanwhile_who_had_more_than_the_mean_waits_for_the_others() -> None:
    """However short theirs are. Among those who had less, as among those who had more, the shorter go first."""
    lab = Lab([node("a", 16)], Shares(24 * HOUR))
    lab.submit("cyd", 5 * HOUR, 10, limit=5 * HOUR)
    lab.submit("dan", HOUR, 12)
    lab.play()
    lab.shares.resume({"ada": 0.6, "bob": 0.3, "cyd": 0.1, "dan": 0.2}, 0.0, lab.now)
    minute = lab.submit("ada", 60, 4, limit=60)
    long, longer = lab.submit("bob", HOUR, 4, limit=HOUR), lab.submit("cyd", HOUR, 4, limit=2 * HOUR)
    lab.play()
    for _ in range(2):
        lab.wait()
    assert lab.placed[1:] == [long.task_id, longer.task_id, minute.task_id]


STREAM = st.lists(
    st.tuples(
        st.integers(1, 8),
        st.integers(1, 20),
        st.floats(0.1, 1.0),
        st.booleans(),
        st.booleans(),
    ),
    min_size=1,
    max_size=50,
)


@pytest.mark.parametrize("nodes", [1, 2])
@given(STREAM)
@settings(max_examples=150)
def test_who_has_a_reservation_is_never_later(
    nodes: int, stream: list[tuple[int, int, float, bool, bool]]
) -> None:
    """Tasks run up to their limits, or a part of it; some have none."""
    lab = Lab([node(name, 8) for name in "ab"[:nodes]])
    promised: dict[int, float] = {}

    def look() -> None:
        claim = lab.claim
        if claim is None:
            return
        found = reservation(claim.request, lab.by_name[claim.node], lab.ledger, lab.clock())
        if found is not None:
            number = claim.task.task_id
            promised[number] = min(promised.get(number, found.at), found.at)

    for cores, minutes, part, limited, wait in stream:
        limit = minutes * 300
        lab.submit("ada", limit * part, cores, **({"limit": limit} if limited else {}))
        lab.play()
        look()
        if wait and lab.running:
            lab.wait()
            look()
    while lab.running:
        lab.wait()
        look()
    assert len(lab.placed) == lab.made
    for number, at in promised.items():
        assert lab.began[number] <= at, (number, at)
