"""The reactor, case by case: what the random walk of test_laws reaches rarely or cannot tell apart."""

from __future__ import annotations

import pytest

from hakuriver.errors import ConflictError, NotFoundError
from hakuriver.models.runner import AttemptReport, HeartbeatRequest, StartResult, Verdict, VerdictAction
from hakuriver.states import NodeState, TaskState
from hakuriver_host.domain import reactor
from hakuriver_host.domain.waiting import on_hold, on_reprioritize
from support.simulation import T0, Simulation


@pytest.fixture
def sim() -> Simulation:
    made = Simulation()
    made.add_runner("a", 2)
    return made


def states(sim: Simulation, task_id: int) -> list[TaskState]:
    return [event.state for event in sim.history[task_id]]


def placed(sim: Simulation, **submission: object) -> int:
    wanted = {"cores": 1, "retries": 0, "target": None, **submission}
    task_id = sim.submit(**wanted)  # type: ignore[arg-type]
    sim.schedule()
    return task_id


def started(sim: Simulation, **submission: object) -> int:
    task_id = placed(sim, **submission)
    sim.send_starts("a")
    sim.deliver_all()
    return task_id


def running(sim: Simulation, **submission: object) -> int:
    task_id = started(sim, **submission)
    sim.progress("a", (task_id, 1), TaskState.RUNNING)
    sim.deliver_all()
    return task_id


def test_a_task_goes_its_way(sim: Simulation) -> None:
    task_id = running(sim)
    assert sim.cluster.ledger.held("a", "cores") == 1
    sim.progress("a", (task_id, 1), TaskState.COMPLETED, 0)
    sim.deliver_all()
    assert states(sim, task_id) == [TaskState.ASSIGNING, TaskState.RUNNING, TaskState.COMPLETED]
    assert sim.history[task_id][-1].exit_code == 0
    assert sim.cluster.ledger.held("a", "cores") == 0
    assert task_id not in sim.cluster.tasks


def test_a_kill_of_what_waits_is_final_at_once(sim: Simulation) -> None:
    task_id = sim.submit(1, 0, None)
    sim.kill(task_id)
    assert states(sim, task_id) == [TaskState.KILLED]
    sim.schedule()
    assert not sim.cluster.nodes["a"].to_start


def test_a_kill_overtakes_the_start(sim: Simulation) -> None:
    task_id = placed(sim)
    sim.send_starts("a")
    sim.kill(task_id)
    sim.send_kills("a")
    sim.deliver_all()
    assert states(sim, task_id) == [TaskState.ASSIGNING, TaskState.KILLED]
    assert not sim.runners["a"].started, "the tombstone stood before the start came"


def test_a_kill_of_what_was_placed_and_never_sent_starts_nothing(sim: Simulation) -> None:
    task_id = placed(sim)
    sim.kill(task_id)
    assert task_id not in sim.cluster.nodes["a"].to_start
    sim.send_kills("a")
    sim.deliver_all()
    assert states(sim, task_id)[-1] is TaskState.KILLED


def test_a_killed_task_is_not_retried(sim: Simulation) -> None:
    task_id = running(sim, retries=3)
    sim.kill(task_id)
    sim.progress("a", (task_id, 1), TaskState.FAILED, 143)
    sim.deliver_all()
    assert states(sim, task_id)[-1] is TaskState.FAILED


def test_kill_survives_a_restart_of_the_host(sim: Simulation) -> None:
    task_id = running(sim)
    sim.kill(task_id)
    sim.restart_host()
    sim.register("a")
    sim.send_kills("a")
    sim.deliver_all()
    assert states(sim, task_id)[-1] is TaskState.KILLED


def test_retries_are_attempts_of_their_own(sim: Simulation) -> None:
    task_id = running(sim, retries=1)
    for attempt in (1, 2):
        sim.progress("a", (task_id, attempt), TaskState.FAILED, 7)
        sim.deliver_all()
        sim.schedule()
        sim.send_starts("a")
        sim.deliver_all()
    events = sim.history[task_id]
    assert [(event.state, event.attempt) for event in events] == [
        (TaskState.ASSIGNING, 1),
        (TaskState.RUNNING, 1),
        (TaskState.PENDING, 1),
        (TaskState.ASSIGNING, 2),
        (TaskState.FAILED, 2),
    ]
    assert events[2].cause == "attempt 1 ended with exit code 7; retry 1 of 1"
    assert events[2].exit_code == 7


def test_a_silent_node_is_offline_and_its_tasks_keep_what_they_hold(sim: Simulation) -> None:
    task_id = running(sim)
    sim.runners["a"].connected = False
    sim.tick(31.0)
    assert sim.cluster.nodes["a"].state is NodeState.OFFLINE
    assert sim.cluster.tasks[task_id].state is TaskState.RUNNING
    assert sim.cluster.ledger.held("a", "cores") == 1


def test_lost_and_corrected(sim: Simulation) -> None:
    task_id = running(sim)
    sim.runners["a"].connected = False
    sim.tick(331.0)
    assert states(sim, task_id)[-1] is TaskState.LOST
    assert sim.cluster.ledger.held("a", "cores") == 0
    sim.progress("a", (task_id, 1), TaskState.COMPLETED, 0)
    sim.runners["a"].connected = True
    sim.tick(1.0)
    assert states(sim, task_id)[-2:] == [TaskState.LOST, TaskState.COMPLETED]


def test_lost_and_still_running_holds_again(sim: Simulation) -> None:
    task_id = running(sim)
    sim.runners["a"].connected = False
    sim.tick(331.0)
    sim.runners["a"].connected = True
    sim.tick(1.0)
    assert states(sim, task_id)[-2:] == [TaskState.LOST, TaskState.RUNNING]
    assert sim.cluster.ledger.held("a", "cores") == 1


def test_what_never_arrived_goes_back_to_the_queue(sim: Simulation) -> None:
    task_id = placed(sim)
    sim.runners["a"].connected = False
    sim.tick(331.0)
    assert states(sim, task_id)[-1] is TaskState.LOST
    sim.runners["a"].connected = True
    sim.tick(1.0)
    sim.schedule()
    assert states(sim, task_id)[-3:] == [TaskState.LOST, TaskState.PENDING, TaskState.ASSIGNING]


def test_a_newer_attempt_elsewhere_ends_the_old_one(sim: Simulation) -> None:
    task_id = running(sim, retries=1)
    sim.runners["a"].connected = False
    sim.add_runner("b", 2)
    sim.tick(331.0)
    sim.schedule()
    sim.send_starts("b")
    sim.deliver_all()
    assert sim.runners["b"].live() == [(task_id, 2)]
    sim.runners["a"].connected = True
    sim.tick(1.0)
    assert sim.runners["a"].live() == [], "the verdict was to kill"
    assert sim.cluster.tasks[task_id].attempt == 2


def test_a_lost_attempt_that_comes_back_before_its_retry_is_adopted(sim: Simulation) -> None:
    task_id = running(sim, retries=1)
    sim.runners["a"].connected = False
    sim.tick(331.0)
    assert states(sim, task_id)[-1] is TaskState.PENDING
    sim.runners["a"].connected = True
    sim.tick(1.0)
    assert sim.cluster.tasks[task_id].state is TaskState.RUNNING
    assert sim.cluster.tasks[task_id].attempt == 1
    assert len(sim.cluster.queue) == 0


def test_a_runner_that_forgot_has_lost_what_it_ran(sim: Simulation) -> None:
    task_id = running(sim)
    sim.wipe_runner("a")
    assert states(sim, task_id)[-1] is TaskState.LOST
    assert "no longer knows" in sim.history[task_id][-1].cause


def test_what_arrives_while_its_node_registers_is_not_lost(sim: Simulation) -> None:
    task_id = placed(sim)
    sim.begin_register("a")
    sim.arrive(sim.registering[-1])
    sim.send_starts("a")
    sim.deliver_all()
    sim.end_register(sim.registering.pop(), answer_lost=False)
    sim.send_starts("a")
    sim.deliver_all()
    assert states(sim, task_id) == [TaskState.ASSIGNING]
    assert sim.runners["a"].live() == [(task_id, 1)]


def test_a_registration_that_a_later_one_overtook_changes_nothing(sim: Simulation) -> None:
    for _ in range(2):
        sim.begin_register("a")
        sim.arrive(sim.registering[-1])
    early, late = sim.registering
    sim.end_register(late, answer_lost=False)
    task_id = started(sim)
    sim.end_register(early, answer_lost=False)
    assert states(sim, task_id) == [TaskState.ASSIGNING]


def test_a_placement_that_the_power_took_from_the_host_is_adopted(sim: Simulation) -> None:
    task_id = sim.submit(1, 0, None)
    report = AttemptReport(task_id=task_id, attempt=1, sequence=1, status=TaskState.RUNNING)
    effects, verdicts = reactor.on_reports(sim.cluster, "a", [report], sim.now)
    sim.commit(effects)
    assert verdicts == []
    assert sim.cluster.tasks[task_id].attempt == 1
    assert sim.cluster.ledger.held("a", "cores") == 1


def test_a_refusal_goes_to_another_node_and_fails_where_none_is_left(sim: Simulation) -> None:
    task_id = placed(sim)
    sim.runners["a"].refuses = True
    sim.add_runner("b", 8)
    sim.send_starts("a")
    sim.deliver_all()
    assert states(sim, task_id)[-1] is TaskState.PENDING
    sim.runners["b"].refuses = True
    sim.schedule()
    sim.send_starts("b")
    sim.deliver_all()
    assert states(sim, task_id)[-1] is TaskState.FAILED
    assert sim.history[task_id][-1].cause == "b refused it: not here"


def test_verdicts_for_what_the_host_does_not_count_on(sim: Simulation) -> None:
    alive = AttemptReport(task_id=77, attempt=1, sequence=1, status=TaskState.RUNNING)
    ended = AttemptReport(task_id=78, attempt=1, sequence=2, status=TaskState.COMPLETED, exit_code=0)
    _, verdicts = reactor.on_reports(sim.cluster, "a", [alive, ended], sim.now)
    assert verdicts == [
        Verdict(task_id=77, attempt=1, action=VerdictAction.KILL),
        Verdict(task_id=78, attempt=1, action=VerdictAction.FORGET),
    ]


def test_a_report_of_another_nodes_attempt_changes_nothing(sim: Simulation) -> None:
    sim.add_runner("b", 8)
    task_id = running(sim)
    report = AttemptReport(task_id=task_id, attempt=1, sequence=9, status=TaskState.COMPLETED, exit_code=0)
    effects, verdicts = reactor.on_reports(sim.cluster, "b", [report], sim.now)
    assert not effects.events
    assert verdicts[0].action is VerdictAction.FORGET


def test_a_cordoned_node_gets_nothing_new_and_what_it_runs_goes_on(sim: Simulation) -> None:
    before = running(sim)
    sim.cordon("a")
    waiting = placed(sim, target="a")
    assert sim.cluster.tasks[waiting].state is TaskState.PENDING
    sim.progress("a", (before, 1), TaskState.COMPLETED, 0)
    sim.deliver_all()
    assert states(sim, before)[-1] is TaskState.COMPLETED
    sim.schedule()
    assert sim.cluster.tasks[waiting].state is TaskState.PENDING
    sim.uncordon("a")
    sim.schedule()
    assert sim.cluster.tasks[waiting].state is TaskState.ASSIGNING


@pytest.mark.parametrize("what", ["register", "restart_host", "wipe_runner"])
def test_a_cordon_outlives(sim: Simulation, what: str) -> None:
    sim.cordon("a", drain=True)
    getattr(sim, what)(*(() if what == "restart_host" else ("a",)))
    sim.tick(1.0)
    node = sim.cluster.nodes["a"]
    assert (node.cordoned, node.draining, node.state) == (True, True, NodeState.ONLINE)
    assert not node.ready


def test_what_was_placed_before_the_cordon_is_still_started(sim: Simulation) -> None:
    task_id = placed(sim)
    sim.cordon("a")
    sim.send_starts("a")
    sim.deliver_all()
    assert sim.runners["a"].live() == [(task_id, 1)]


def test_a_claim_on_a_node_ends_when_it_is_cordoned(sim: Simulation) -> None:
    sim.add_runner("b", 2)
    small = [placed(sim, target=name) for name in ("a", "b")]
    large = placed(sim, cores=2)
    claimed = sim.cluster.claim.node  # type: ignore[union-attr]
    sim.cordon(claimed)
    other = {"a": "b", "b": "a"}[claimed]
    sim.kill(small["ab".index(other)])
    sim.send_kills(other)
    sim.deliver_all()
    sim.schedule()
    assert (sim.cluster.tasks[large].state, sim.cluster.tasks[large].node) == (TaskState.ASSIGNING, other)


def test_a_node_that_is_in_use_is_not_removed(sim: Simulation) -> None:
    task_id = running(sim)
    with pytest.raises(ConflictError, match=f"still holds 1 of the tasks: {task_id}"):
        reactor.on_remove(sim.cluster, "a", sim.now)
    sim.progress("a", (task_id, 1), TaskState.COMPLETED, 0)
    sim.deliver_all()
    with pytest.raises(ConflictError, match="a is online"):
        reactor.on_remove(sim.cluster, "a", sim.now)
    sim.runners["a"].connected = False
    sim.tick(31.0)
    sim.remove("a", force=False)
    assert "a" not in sim.cluster.nodes
    assert "a" not in sim.durable_nodes
    with pytest.raises(NotFoundError):
        reactor.on_remove(sim.cluster, "a", sim.now)


def test_attempts_of_a_node_that_is_forced_away_are_lost_or_tried_again(sim: Simulation) -> None:
    sim.add_runner("b", 2)
    once, again = running(sim, target="a"), running(sim, target="a", retries=1)
    sim.remove("a", force=True)
    assert states(sim, once)[-1] is TaskState.LOST
    assert sim.history[once][-1].cause == "a was removed"
    assert states(sim, again)[-1] is TaskState.PENDING
    assert sim.cluster.ledger.held("a", "cores") == 0
    assert reactor.on_heartbeat(sim.cluster, "a", HeartbeatRequest(), sim.now) is False


def test_a_removed_node_that_comes_back_corrects_what_was_lost(sim: Simulation) -> None:
    task_id = running(sim)
    sim.remove("a", force=True)
    sim.tick(1.0)
    assert states(sim, task_id)[-2:] == [TaskState.LOST, TaskState.RUNNING]
    assert sim.cluster.ledger.held("a", "cores") == 1


def test_what_a_removed_node_may_have_started_is_not_started_again(sim: Simulation) -> None:
    task_id = placed(sim)
    sim.send_starts("a")
    ((name, key, run),) = sim.starts
    sim.starts.clear()
    sim.deliver_start(name, key, run, answer_lost=True)
    sim.remove("a", force=True)
    sim.runners["a"].attempts.clear()  # Its disk is new: the journal that knew of it is gone.
    sim.register("a")
    sim.schedule()
    assert states(sim, task_id)[-1] is TaskState.LOST


def test_words_that_were_under_way_when_the_node_was_removed_change_nothing(sim: Simulation) -> None:
    task_id = placed(sim)
    report = AttemptReport(task_id=task_id, attempt=1, sequence=1, status=TaskState.RUNNING)
    sim.remove("a", force=True)
    answer = StartResult(task_id=task_id, attempt=1, outcome="accepted", report=report)
    assert not reactor.on_start_results(sim.cluster, "a", [answer], sim.now).tasks
    with pytest.raises(NotFoundError):
        reactor.on_reports(sim.cluster, "a", [report], sim.now)
    assert sim.cluster.tasks[task_id].state is TaskState.LOST
    assert sim.cluster.ledger.held("a", "cores") == 0


def test_a_wall_clock_that_jumps_makes_no_node_offline(sim: Simulation) -> None:
    later = sim.now._replace(wall=T0 + 10**6)
    assert not reactor.on_tick(sim.cluster, reactor.Timeouts(30, 300), later).nodes


@pytest.mark.parametrize("state", [TaskState.PENDING, TaskState.PAUSED])
def test_only_what_runs_can_be_paused(sim: Simulation, state: TaskState) -> None:
    task_id = running(sim)
    sim.cluster.tasks[task_id].state = state
    with pytest.raises(ConflictError):
        reactor.check_signal(sim.cluster, task_id, "pause")


def test_control_of_what_is_not_there(sim: Simulation) -> None:
    with pytest.raises(NotFoundError):
        reactor.on_kill(sim.cluster, 5, "ada", sim.now)
    task_id = running(sim)
    sim.runners["a"].connected = False
    sim.tick(331.0)
    with pytest.raises(ConflictError, match="lost"):
        reactor.on_kill(sim.cluster, task_id, "ada", sim.now)


def vps_at_rest(sim: Simulation) -> int:
    task_id = running(sim, vps=True)
    sim.stop(task_id)
    sim.deliver_all()
    return task_id


def test_a_stopped_vps_holds_nothing_and_starts_again_where_it_is(sim: Simulation) -> None:
    task_id = vps_at_rest(sim)
    sim.add_runner("b", 8)
    assert sim.cluster.ledger.held("a", "cores") == 0
    sim.start_again(task_id)
    sim.schedule()
    assert sim.cluster.ledger.held("a", "cores") == 1
    sim.send_starts("a")
    sim.deliver_all()
    sim.progress("a", (task_id, 1), TaskState.RUNNING)
    sim.deliver_all()
    assert states(sim, task_id)[2:] == [
        TaskState.STOPPED,
        TaskState.PENDING,
        TaskState.ASSIGNING,
        TaskState.RUNNING,
    ]
    assert sim.cluster.tasks[task_id].attempt == 1


def test_a_stopped_vps_waits_for_room_on_its_node_and_may_be_told_to_stay(sim: Simulation) -> None:
    task_id = vps_at_rest(sim)
    other = running(sim, cores=2)
    sim.start_again(task_id)
    sim.schedule()
    assert sim.cluster.tasks[task_id].state is TaskState.PENDING
    sim.stop(task_id)
    sim.progress("a", (other, 1), TaskState.COMPLETED, 0)
    sim.deliver_all()
    sim.schedule()
    assert sim.cluster.tasks[task_id].state is TaskState.STOPPED
    assert sim.cluster.ledger.held("a", "cores") == 0


def test_a_stopped_vps_is_killed_by_its_runner(sim: Simulation) -> None:
    task_id = vps_at_rest(sim)
    sim.start_again(task_id)
    sim.kill(task_id)
    assert sim.cluster.tasks[task_id].state is TaskState.STOPPED, "it is the Runner's to remove it"
    sim.send_kills("a")
    sim.deliver_all()
    assert states(sim, task_id)[-1] is TaskState.KILLED


def test_a_vps_whose_node_cannot_start_it_stays_stopped(sim: Simulation) -> None:
    task_id = vps_at_rest(sim)
    sim.runners["a"].refuses = True
    sim.start_again(task_id)
    sim.schedule()
    sim.send_starts("a")
    sim.deliver_all()
    task = sim.cluster.tasks[task_id]
    assert (task.state, task.reason) == (TaskState.STOPPED, "a cannot start it: not here")
    sim.runners["a"].refuses = False
    sim.start_again(task_id)
    sim.schedule()
    sim.send_starts("a")
    sim.deliver_all()
    assert sim.runners["a"].attempts[task_id, 1].run == task.run


def test_a_runner_of_an_older_version_starts_no_stopped_vps(sim: Simulation) -> None:
    task_id = vps_at_rest(sim)
    sim.start_again(task_id)
    sim.schedule()
    old = sim.runners["a"].attempts[task_id, 1].report()
    known = StartResult(task_id=task_id, attempt=1, outcome="known", report=old)
    sim.commit(reactor.on_start_results(sim.cluster, "a", [known], sim.now))
    assert "of a version that starts no stopped VPS" in sim.cluster.tasks[task_id].reason
    assert sim.cluster.tasks[task_id].state is TaskState.STOPPED


def test_a_restarted_host_starts_what_it_was_about_to_start(sim: Simulation) -> None:
    task_id = vps_at_rest(sim)
    sim.start_again(task_id)
    sim.schedule()
    sim.restart_host()
    sim.register("a")
    sim.send_starts("a")
    sim.deliver_all()
    assert sim.runners["a"].attempts[task_id, 1].status is TaskState.ASSIGNING


def test_the_node_of_a_stopped_vps_is_not_removed_unasked(sim: Simulation) -> None:
    task_id = vps_at_rest(sim)
    sim.runners["a"].connected = False
    sim.tick(40)
    with pytest.raises(ConflictError, match=f"still holds 1 of the tasks: {task_id}"):
        reactor.on_remove(sim.cluster, "a", sim.now)
    sim.remove("a", force=True)
    assert states(sim, task_id)[-1] is TaskState.LOST


def test_a_stopped_vps_outlives_the_silence_of_its_node(sim: Simulation) -> None:
    task_id = vps_at_rest(sim)
    sim.runners["a"].connected = False
    sim.tick(40)
    sim.tick(400)
    assert sim.cluster.tasks[task_id].state is TaskState.STOPPED


def test_a_command_is_not_stopped_nor_started_again(sim: Simulation) -> None:
    task_id = running(sim)
    with pytest.raises(ConflictError, match="is no VPS"):
        reactor.on_stop(sim.cluster, task_id, sim.now)
    with pytest.raises(ConflictError, match="is no VPS"):
        reactor.on_start_again(sim.cluster, task_id, "ada", sim.now)


def test_a_paused_vps_is_resumed_and_not_started(sim: Simulation) -> None:
    task_id = running(sim, vps=True)
    sim.progress("a", (task_id, 1), TaskState.PAUSED)
    sim.deliver_all()
    with pytest.raises(ConflictError, match=f"VPS {task_id} is paused") as refused:
        reactor.on_start_again(sim.cluster, task_id, "ada", sim.now)
    assert f"hakuriver vps resume {task_id}" in refused.value.hint
    assert sim.cluster.tasks[task_id].state is TaskState.PAUSED


def test_a_vps_that_is_being_started_is_not_stopped(sim: Simulation) -> None:
    task_id = started(sim, vps=True)
    with pytest.raises(ConflictError, match="is assigning"):
        reactor.on_stop(sim.cluster, task_id, sim.now)


def test_a_restored_vps_begins_anew_and_what_it_was_is_removed(sim: Simulation) -> None:
    task_id = vps_at_rest(sim)
    sim.restore_vps(task_id)
    assert sim.cluster.ledger.held("a", "cores") == 0
    sim.schedule()
    sim.send_kills("a")
    sim.send_starts("a")
    sim.deliver_all()
    assert sim.runners["a"].live() == [(task_id, 2)]
    task = sim.cluster.tasks[task_id]
    assert (task.state, task.attempt, task.run) == (TaskState.ASSIGNING, 2, 0)


def test_a_runner_that_was_away_ends_what_was_restored_elsewhere(sim: Simulation) -> None:
    task_id = vps_at_rest(sim)
    sim.runners["a"].connected = False
    sim.tick(40)
    sim.add_runner("b", 2)
    sim.restore_vps(task_id)
    sim.schedule()
    assert sim.cluster.tasks[task_id].node == "b"
    sim.runners["a"].connected = True
    sim.tick(1)
    sim.deliver_all()
    assert not sim.runners["a"].live()


def test_a_vps_that_is_being_started_is_not_restored(sim: Simulation) -> None:
    task_id = started(sim, vps=True)
    with pytest.raises(ConflictError, match="is assigning"):
        reactor.on_restore(sim.cluster, task_id, "vps-1@1", "ada", sim.now)


def test_a_vps_that_runs_is_not_restored(sim: Simulation) -> None:
    task_id = running(sim, vps=True)
    with pytest.raises(ConflictError, match="is running"):
        reactor.on_restore(sim.cluster, task_id, "vps-1@1", "ada", sim.now)


def test_a_vps_that_is_being_killed_is_not_restored(sim: Simulation) -> None:
    task_id = vps_at_rest(sim)
    sim.kill(task_id)
    with pytest.raises(ConflictError, match="is being killed"):
        reactor.on_restore(sim.cluster, task_id, "vps-1@1", "ada", sim.now)


def test_what_a_restarted_host_was_starting_again_stays_on_its_node(sim: Simulation) -> None:
    task_id = vps_at_rest(sim)
    sim.start_again(task_id)
    sim.schedule()
    sim.restart_host()
    sim.add_runner("b", 8)
    sim.runners["a"].refuses = True
    sim.register("a")
    sim.send_starts("a")
    sim.deliver_all()
    assert sim.cluster.tasks[task_id].state is TaskState.STOPPED
    sim.runners["a"].refuses = False
    sim.start_again(task_id)
    sim.schedule()
    assert task_id in sim.cluster.nodes["a"].to_start
    assert not sim.cluster.nodes["b"].to_start


def test_a_start_that_is_another_nodes_is_not_sent_for_ever(sim: Simulation) -> None:
    task_id = placed(sim)
    sim.add_runner("b", 2)
    task = sim.cluster.tasks[task_id]
    sim.cluster.nodes["b"].to_start[task_id] = task
    answer = StartResult(task_id=task_id, attempt=1, outcome="refused", reason="not here")
    sim.commit(reactor.on_start_results(sim.cluster, "b", [answer], sim.now))
    assert not sim.cluster.nodes["b"].to_start
    assert task.state is TaskState.ASSIGNING


def test_a_stopped_vps_that_was_killed_is_given_up_with_its_node(sim: Simulation) -> None:
    task_id = vps_at_rest(sim)
    sim.runners["a"].connected = False
    sim.tick(40)
    sim.kill(task_id)
    sim.tick(400)
    assert sim.cluster.tasks[task_id].state is TaskState.LOST
    sim.runners["a"].connected = True
    sim.tick(1)
    sim.deliver_all()
    assert not sim.runners["a"].live(), "its Runner removes it when it is back"


def test_what_was_before_a_restore_is_removed_though_the_vps_is_killed(sim: Simulation) -> None:
    task_id = vps_at_rest(sim)
    running(sim, cores=2)
    sim.restore_vps(task_id)
    sim.schedule()
    sim.kill(task_id)
    assert states(sim, task_id)[-1] is TaskState.KILLED
    sim.send_kills("a")
    sim.deliver_all()
    assert (task_id, 1) not in sim.runners["a"].attempts


def test_a_higher_priority_takes_room_that_is_kept_for_a_lower_one(sim: Simulation) -> None:
    running(sim)
    large = placed(sim, cores=2)
    small = placed(sim)
    assert sim.cluster.claim is not None
    assert sim.cluster.claim.task.task_id == large
    assert small in sim.cluster.queue
    urgent = placed(sim, priority=5)
    assert states(sim, urgent) == [TaskState.ASSIGNING]
    assert small in sim.cluster.queue


def test_a_task_that_is_moved_before_the_claim_takes_its_room(sim: Simulation) -> None:
    running(sim)
    placed(sim, cores=2)
    small = placed(sim)
    sim.move(small, on_reprioritize, 5)
    sim.schedule()
    assert states(sim, small) == [TaskState.PENDING, TaskState.ASSIGNING]


def test_the_claim_of_a_task_that_is_held_is_given_up(sim: Simulation) -> None:
    running(sim)
    large = placed(sim, cores=2)
    small = placed(sim)
    sim.move(large, on_hold)
    sim.schedule()
    assert states(sim, small) == [TaskState.ASSIGNING]


@pytest.mark.parametrize("stopped", [False, True])
def test_a_lost_vps_that_is_killed_comes_back_no_more(sim: Simulation, stopped: bool) -> None:
    task_id = vps_at_rest(sim) if stopped else running(sim, vps=True)
    sim.runners["a"].connected = False
    sim.remove("a", force=True)
    assert sim.cluster.tasks[task_id].state is TaskState.LOST
    sim.kill(task_id)
    assert task_id not in sim.cluster.tasks
    last = sim.history[task_id][-1]
    assert (last.state, last.cause) == (TaskState.KILLED, "killed by ada while it was lost")
    sim.restart_host()
    sim.runners["a"].connected = True
    sim.tick(1)
    sim.deliver_all()
    assert not sim.runners["a"].live(), "its Runner removes it when it is back"
    assert states(sim, task_id)[-1] is TaskState.KILLED
    assert sim.cluster.ledger.held("a", "cores") == 0


def test_nothing_else_is_done_with_a_lost_vps(sim: Simulation) -> None:
    task_id = running(sim, vps=True)
    sim.runners["a"].connected = False
    sim.tick(40)
    sim.tick(400)
    for act in (
        lambda: reactor.on_stop(sim.cluster, task_id, sim.now),
        lambda: reactor.on_start_again(sim.cluster, task_id, "ada", sim.now),
        lambda: reactor.check_there(sim.cluster, task_id),
        lambda: reactor.check_extend(sim.cluster, task_id),
        lambda: reactor.check_signal(sim.cluster, task_id, "pause"),
    ):
        with pytest.raises(ConflictError, match=f"VPS {task_id} is lost: a has not been heard of") as refused:
            act()
        assert f"hakuriver vps kill {task_id}" in refused.value.hint
