"""Batches: sweeps computed from a number, how many run at a time, and what is done to all of one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hakuriver.errors import UsageError
from hakuriver.models.submission import MAX_COUNT, SubmitRequest
from hakuriver.states import TaskState
from hakuriver_host.domain.cluster import turns_of
from hakuriver_host.domain.placement import explain, waiting_reason
from hakuriver_host.domain.runs import run_of, runs_of, variables_of
from support.simulation import Simulation

IN_USE = {TaskState.ASSIGNING, TaskState.RUNNING}


def sweep(*words: str, **env_vars: str) -> SubmitRequest:
    command, *arguments = words
    return SubmitRequest(command=command, arguments=arguments, env_vars=env_vars, sweep=True)


def come_back(sim: Simulation) -> None:
    for name in sim.runners:
        sim.register(name)


def test_a_task_of_a_sweep_runs_what_its_number_says() -> None:
    spec = sweep("span:[a,b]", "--lr", "x=span:{0.1..0.3..0.1}", SEED="span:[7,8]", NAME="same")
    assert runs_of(spec) == 12
    run = run_of(spec, 5)
    assert (run.command, run.arguments) == ("a", ["--lr", "x=0.3"])
    assert run.env_vars == {"SEED": "8", "NAME": "same"}
    assert run.values == ("a", "0.3", "8")
    assert variables_of(run, 5) == {
        "SEED": "8",
        "NAME": "same",
        "HAKURIVER_SWEEP_INDEX": "5",
        "HAKURIVER_SWEEP_COUNT": "12",
    }
    assert run_of(spec, 11).command == "b"


def test_without_a_sweep_spans_are_words_like_others() -> None:
    spec = SubmitRequest(command="echo", arguments=["span:{1..2}"], env_vars={"A": "1"})
    run = run_of(spec, 3)
    assert (run.arguments, run.values) == (["span:{1..2}"], ())
    assert variables_of(run, 3) == {"A": "1"}


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (sweep("echo", "1"), "there is no span in the command"),
        (sweep("echo", "span:[]"), "span:[] has no values"),
        (sweep("echo", "span:{1..1000001}"), "has 1,000,001 values"),
        (
            sweep("echo", "span:{1..1000000}"),
            "the sweep has 1,000,000 runs, and one submission makes at most 100,000",
        ),
        (sweep("span:[,b]"), "a run of the sweep has no command"),
        (sweep("echo", "span:{1e30..1e30}" * 6_000), "longer than the kernel's limit"),
        (sweep("echo", *["span:{1e30..1e30}" * 4_000] * 14), "longer than the kernel takes"),
    ],
    ids=str,
)
def test_what_is_no_sweep_of_the_cluster(spec: SubmitRequest, said: str) -> None:
    with pytest.raises(UsageError) as error:
        runs_of(spec)
    assert said in error.value.message
    assert error.value.hint


def test_as_many_as_one_submission_makes() -> None:
    spec = sweep("echo", f"span:{{1..{MAX_COUNT}}}")
    assert runs_of(spec) == MAX_COUNT
    assert run_of(spec, MAX_COUNT - 1).arguments == [str(MAX_COUNT)]


@settings(max_examples=200, deadline=None)
@given(
    running=st.integers(1, 4),
    ends=st.lists(st.sampled_from(["end", "fail", "restart", "crash", "kill"]), max_size=25),
)
def test_never_more_run_at_a_time_and_all_come_to_their_turn(running: int, ends: list[str]) -> None:
    sim = Simulation()
    sim.add_runner("a", 4)
    sim.add_runner("b", 4)
    tasks = sim.submit_batch(9, running, retries=1)
    for what in [*ends, *["end"] * 40]:
        if what == "crash":
            sim.schedule(crash_before_commit=True)
            come_back(sim)
        sim.schedule()
        in_use = [task for task in sim.cluster.tasks.values() if task.state in IN_USE]
        left = len(sim.cluster.tasks)
        assert len(in_use) == min(running, left, 8), "as many as may, and no more"
        for name in sim.runners:
            sim.send_starts(name)
        sim.deliver_all()
        if what == "restart":
            sim.restart_host()
            come_back(sim)
        elif in_use and what == "kill":
            sim.kill(in_use[0].task_id)
            for name in sim.runners:
                sim.send_kills(name)
        elif in_use:
            code = int(what == "fail")
            state = TaskState.FAILED if code else TaskState.COMPLETED
            sim.progress(in_use[0].node or "", in_use[0].key, state, code)
        sim.deliver_all()
    assert not sim.cluster.tasks
    assert all(sim.history[task_id][-1].state is not TaskState.PENDING for task_id in tasks)


def test_a_batch_at_its_limit_hides_nobody_and_says_why_it_waits() -> None:
    sim = Simulation()
    sim.add_runner("a", 8)
    tasks = sim.submit_batch(5, 2)
    other = sim.submit(1, 0, None)
    sim.schedule()
    cluster = sim.cluster
    assert cluster.tasks[other].state is TaskState.ASSIGNING, "of the same owner, who asks for the same"
    assert [cluster.tasks[task].state for task in tasks].count(TaskState.ASSIGNING) == 2
    assert cluster.claim is None, "room is not kept for what may not have it"
    waits = cluster.tasks[tasks[-1]]
    turns = turns_of(cluster)
    reason = waiting_reason(waits, cluster.nodes, cluster.ledger, cluster.claim, turns)
    assert reason == "2 of its batch run, and no more than 2 may at a time"
    (verdict,) = explain(waits, cluster.nodes.values(), cluster.ledger, cluster.claim, turns=turns)
    assert (verdict.fits_now, verdict.reason) == (False, f"has room, but {reason}")


def test_a_claim_of_a_batch_at_its_limit_is_given_up() -> None:
    sim = Simulation()
    sim.add_runner("a", 1)
    blocker = sim.submit(1, 0, "a")
    sim.schedule()
    sim.submit_batch(2, 1)
    sim.schedule()
    assert sim.cluster.claim is not None
    sim.kill(blocker)
    sim.send_starts("a")
    sim.send_kills("a")
    sim.deliver_all()
    sim.schedule()
    assert sim.cluster.claim is None
    assert sum(task.state in IN_USE for task in sim.cluster.tasks.values()) == 1


def test_a_batch_is_killed_whole_and_those_that_wait_first() -> None:
    sim = Simulation()
    sim.add_runner("a", 2)
    tasks = sim.submit_batch(1_200, 2)
    sim.schedule()
    sim.kill_batch(tasks[0])
    assert [sim.history[task][-1].state for task in tasks[:3]] == [
        TaskState.ASSIGNING,
        TaskState.ASSIGNING,
        TaskState.KILLED,
    ]
    assert len(sim.cluster.tasks) == 2
    assert not sim.cluster.queue.groups(), "nothing of it is left to be dropped by a round"
    sim.send_kills("a")
    sim.deliver_all()
    assert not sim.cluster.tasks
