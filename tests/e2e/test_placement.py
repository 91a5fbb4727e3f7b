"""Two Runners: targets, waiting with a reason, resources that are held and given back."""

from __future__ import annotations

import pytest

from hakuriver.states import TaskState
from support.cluster import Cluster
from support.waiting import until


def release(cluster: Cluster, *tasks: int) -> None:
    for task in tasks:
        cluster.api.kill(task)
    for task in tasks:
        cluster.api.wait_final(task)


def test_each_target_gets_a_task_of_its_own(pair: Cluster) -> None:
    first, second = (node.name for node in pair.nodes)
    done = pair.run("task", "submit", "--target", first, "--target", second, "-o", "json", "--", "true")
    answer = done.json()
    tasks = [pair.api.wait_final(int(task)) for task in answer["task_ids"]]
    assert {task.assigned_node for task in tasks} == {first, second}
    assert {task.batch_id for task in tasks} == {int(answer["batch_id"])}


def test_a_task_without_target_is_placed_where_there_is_room(pair: Cluster) -> None:
    first, second = (node.name for node in pair.nodes)
    full = pair.api.submit_one("sleep", "600", targets=[first], required_cores=2)
    pair.api.wait_state(full, TaskState.RUNNING)
    task = pair.api.submit_one("true", required_cores=1)
    assert pair.api.wait_final(task).assigned_node == second
    release(pair, full)


def test_a_task_that_fits_nowhere_now_waits_and_says_why_for_each_node(pair: Cluster) -> None:
    names = [node.name for node in pair.nodes]
    full = [pair.api.submit_one("sleep", "600", targets=[name], required_cores=2) for name in names]
    for task in full:
        pair.api.wait_state(task, TaskState.RUNNING)
    waiting = pair.api.submit_one("true", required_cores=1)
    assert pair.api.task(waiting).status == TaskState.PENDING
    explained = pair.run("task", "explain", str(waiting), "-o", "json").json()
    verdicts = {verdict["node"]: verdict for verdict in explained["nodes"]}
    for name in names:
        assert (verdicts[name]["fits_now"], verdicts[name]["can_ever_fit"]) == (False, True)
        assert "core" in verdicts[name]["reason"]
    shown = pair.run("task", "explain", str(waiting))
    assert all(name in shown.stdout for name in names), shown
    release(pair, full[0])
    assert pair.api.wait_final(waiting).assigned_node == names[0]
    release(pair, full[1])


def test_many_more_tasks_than_cores_all_run_and_nothing_is_oversubscribed(pair: Cluster) -> None:
    running = pair.shared / "running"
    running.mkdir()
    text = f'f="{running}/$HAKURIVER_TASK_ID"; touch "$f"; ls "{running}" | wc -l; rm "$f"'
    batch = pair.api.submit("sh", "-c", text, count=40)
    for task in batch.task_ids:
        assert pair.api.wait_final(task, within=60).status == TaskState.COMPLETED
    assert max(int(pair.api.log(task)) for task in batch.task_ids) <= 4
    pair.assert_clean(batch.task_ids)


def test_memory_is_held_too(pair: Cluster) -> None:
    name = pair.node.name
    total = pair.api.nodes()[name].total_memory_bytes
    most = pair.api.submit_one(
        "sleep", "600", targets=[name], required_cores=1, required_memory_bytes=total - 40_000_000
    )
    pair.api.wait_state(most, TaskState.RUNNING)
    assert pair.api.nodes()[name].available_memory_bytes == 40_000_000
    waiting = pair.api.submit_one("true", targets=[name], required_cores=1, required_memory_bytes=50_000_000)
    assert pair.api.task(waiting).status == TaskState.PENDING
    release(pair, most)
    assert pair.api.wait_final(waiting).status == TaskState.COMPLETED


def test_a_node_is_drained_removed_and_joins_again(pair: Cluster) -> None:
    node = pair.nodes[1]
    held = pair.api.submit_one("sleep", "600", targets=[node.name])
    pair.api.wait_state(held, TaskState.RUNNING)
    late = pair.run("node", "drain", node.name, "--timeout", "1s")
    late.assert_refused(1, f"task {held} on {node.name}")
    assert "online (draining)" in pair.run("node", "list").stdout
    waiting = pair.api.submit_one("true", targets=[node.name])
    assert "cordoned" in pair.run("task", "explain", str(waiting)).stdout
    pair.run("node", "remove", node.name).assert_refused(5, str(held))
    done = pair.run("node", "drain", node.name, "--timeout", "1s", "--kill")
    assert done.code == 0, done
    assert pair.api.task(held).status == TaskState.KILLED
    node.daemon.stop()
    pair.run("node", "remove", node.name).assert_refused(5, "online")
    assert pair.run("node", "remove", node.name, "--force").code == 0
    assert node.name not in pair.run("node", "list").stdout
    assert pair.api.task(held).assigned_node == node.name, "its tasks stay on the record"
    node.daemon.start()
    assert pair.api.wait_final(waiting).assigned_node == node.name, "it joined again, and is cordoned no more"
    pair.wait_online()


def test_drain_waits_for_what_runs_by_its_end(pair: Cluster) -> None:
    name, gate = pair.node.name, pair.folder / "gate"
    task = pair.api.submit_one("sh", "-c", f"until [ -e {gate} ]; do sleep 0.05; done", targets=[name])
    pair.api.wait_state(task, TaskState.RUNNING)
    draining = pair.run.start("node", "drain", name, "--wait")
    until(lambda: pair.api.nodes()[name].draining, "it is being drained")
    assert draining.poll() is None
    gate.touch()
    assert draining.wait(timeout=30) == 0
    assert pair.api.task(task).status == TaskState.COMPLETED
    assert pair.run("node", "uncordon", name).code == 0


@pytest.mark.parametrize(
    ("wanted", "status", "error"),
    [
        ({"required_cores": 3}, 409, "impossible"),
        ({"required_memory_bytes": 10**13}, 409, "impossible"),
        ({"targets": ["no-such"]}, 404, "not_found"),
    ],
)
def test_what_no_known_node_can_ever_run_is_refused_unless_held(
    pair: Cluster, wanted: dict[str, object], status: int, error: str
) -> None:
    before = len(pair.api.tasks())
    answer = pair.api.call("POST", "/api/submit", json={"command": "true", **wanted})
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert answer.json()["hint"]
    assert len(pair.api.tasks()) == before
    held = pair.api.submit_one("true", hold_for_node=True, **wanted)
    assert pair.api.task(held).status == TaskState.PENDING
    assert pair.api.task(held).reason
    release(pair, held)


def test_one_impossible_target_does_not_keep_the_others_away(pair: Cluster) -> None:
    done = pair.api.submit("true", targets=["no-such", pair.node.name])
    assert [failed.target for failed in done.failed_targets] == ["no-such"]
    (task,) = done.task_ids
    assert pair.api.wait_final(task).status == TaskState.COMPLETED


def test_a_repeated_idempotency_key_gives_the_first_answer_again(pair: Cluster) -> None:
    headers = {"Idempotency-Key": "the-same"}
    body = {"command": "true", "name": "once"}
    first = pair.api.json("POST", "/api/submit", json=body, headers=headers)
    second = pair.api.json("POST", "/api/submit", json=body, headers=headers)
    assert first["task_ids"] == second["task_ids"]
    assert len(pair.api.tasks(name="once")) == 1


def test_a_node_that_is_not_to_run_it_does_not(pair: Cluster) -> None:
    first, second = (node.name for node in pair.nodes)
    done = pair.run("task", "run", "--not-node", first, "--", "sh", "-c", "echo $HAKURIVER_NODE")
    assert done.stdout.strip() == second
    refused = pair.run("task", "submit", "--not-node", first, "--not-node", second, "--", "true")
    refused.assert_refused(5, "the task is not to run there")
    pair.run("task", "submit", "--not-node", "nosuch", "--", "true").assert_refused(3, "no node named nosuch")
    pair.run("task", "submit", "--not-node", "a/b", "--", "true").assert_refused(2, "not a node's name")
    both = pair.run("task", "submit", "--target", first, "--not-node", first, "--", "true")
    both.assert_refused(5, "the task is not to run there")
