"""The life of a task at the command line: run, submit, list, status, logs, wait, kill, pause, resume, retry."""

from __future__ import annotations

import json
import signal

import pytest

from hakuriver.states import TaskState
from support.cluster import Cluster
from support.waiting import until


def submit(cluster: Cluster, *arguments: str) -> str:
    """The id of one task that was submitted."""
    done = cluster.run("task", "submit", "-o", "name", *arguments)
    assert done.code == 0, done.stderr
    return done.stdout.strip()


def script(text: str) -> tuple[str, ...]:
    return ("--", "sh", "-c", text)


def test_run_streams_both_outputs_and_ends_with_the_tasks_own_code(cluster: Cluster) -> None:
    done = cluster.run("task", "run", *script("echo out; echo err >&2; exit 7"))
    assert (done.code, done.stdout) == (7, "out\n")
    assert "err\n" in done.stderr


def test_run_of_a_task_that_succeeds_ends_with_zero(cluster: Cluster) -> None:
    assert cluster.run("task", "run", "--", "true").code == 0


def test_run_shows_output_while_the_task_still_runs(cluster: Cluster) -> None:
    gate = cluster.shared / "gate"
    process = cluster.run.start(
        "task", "run", *script(f"echo first; until [ -e {gate} ]; do sleep 0.05; done; echo last")
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"first\n"
    gate.touch()
    assert process.stdout.read() == b"last\n"
    assert process.wait(timeout=30) == 0


def test_interrupting_run_kills_the_task(cluster: Cluster) -> None:
    process = cluster.run.start("task", "run", "--name", "interrupted", *script("echo here; exec sleep 600"))
    assert process.stdout is not None
    assert process.stdout.readline() == b"here\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) != 0
    (task,) = cluster.api.tasks(name="interrupted")
    assert cluster.api.wait_final(task.task_id).status == TaskState.KILLED


def test_interrupting_run_while_the_host_is_restarted_kills_the_task(cluster: Cluster) -> None:
    process = cluster.run.start("task", "run", "--name", "cut-off", *script("echo here; exec sleep 600"))
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == b"here\n"
    (task,) = cluster.api.tasks(name="cut-off")
    cluster.host.kill()
    process.send_signal(signal.SIGINT)
    assert b"killing" in process.stderr.readline()
    cluster.start_host()
    assert process.wait(timeout=60) != 0
    assert cluster.api.wait_final(task.task_id).status == TaskState.KILLED
    cluster.wait_online()


def test_submit_prints_the_id_alone_where_it_is_piped_to_a_command(cluster: Cluster) -> None:
    assert submit(cluster, "--", "true").isdecimal()


def test_submit_and_wait_ends_with_the_worst_of_the_codes(cluster: Cluster) -> None:
    assert cluster.run("task", "submit", "--wait", *script("exit 3")).code == 3
    assert cluster.run("task", "submit", "--wait", "--", "true").code == 0


def test_wait_gives_the_tasks_code_also_when_it_has_ended_long_ago(cluster: Cluster) -> None:
    task = submit(cluster, *script("exit 9"))
    cluster.api.wait_final(int(task))
    assert cluster.run("task", "wait", task).code == 9


def test_wait_takes_several_ids(cluster: Cluster) -> None:
    good, bad = submit(cluster, "--", "true"), submit(cluster, *script("exit 5"))
    assert cluster.run("task", "wait", good).code == 0
    assert cluster.run("task", "wait", good, bad).code == 5


def test_stdout_and_stderr_print_what_the_task_wrote(cluster: Cluster) -> None:
    task = submit(cluster, *script("printf 'a\\nb\\n'; echo c >&2"))
    cluster.api.wait_final(int(task))
    assert cluster.run("task", "stdout", task).stdout == "a\nb\n"
    assert cluster.run("task", "stderr", task).stdout == "c\n"
    assert "a\nb\n" in cluster.run("task", "logs", task).stdout


def test_status_shows_the_history_with_the_cause_of_each_change(cluster: Cluster) -> None:
    task = submit(cluster, "--", "true")
    cluster.api.wait_final(int(task))
    shown = cluster.run("task", "status", task, "-o", "json").json()
    detail = shown[0] if isinstance(shown, list) else shown
    states = [event["state"] for event in detail["history"]]
    assert states[0] == "pending"
    assert states[-2:] == ["running", "completed"]
    assert all(event["time"] for event in detail["history"])
    table = cluster.run("task", "status", task)
    assert "completed" in table.stdout
    assert task in table.stdout


def test_list_filters_and_prints_in_four_forms(cluster: Cluster) -> None:
    task = submit(cluster, "--name", "listed", *script("exit 1"))
    cluster.api.wait_final(int(task))
    filters = ("--name", "listed", "--status", "failed")
    assert cluster.run("task", "list", *filters, "-o", "name").stdout.split() == [task]
    assert [entry["task_id"] for entry in cluster.run("task", "list", *filters, "-o", "json").json()] == [
        task
    ]
    assert task in cluster.run("task", "list", *filters).stdout
    assert "sh -c" in cluster.run("task", "list", *filters, "-o", "wide").stdout
    assert cluster.run("task", "list", "--name", "listed", "--status", "running", "-o", "json").json() == []


def test_arguments_travel_as_they_are_and_no_shell_reads_them(cluster: Cluster) -> None:
    words = ["$HOME", "a b", "`id`", "", "*", "é\n", "--flag", "-o", "json"]
    done = cluster.run("task", "run", "--", "printf", "%s|", *words)
    assert done.stdout == "".join(f"{word}|" for word in words)


def test_options_after_the_command_belong_to_the_command(cluster: Cluster) -> None:
    done = cluster.run("task", "run", "sh", "-c", 'echo "$@"', "sh", "--help", "-o", "json")
    assert done.stdout == "--help -o json\n"


def test_a_task_sees_its_variables_and_who_it_is(cluster: Cluster) -> None:
    done = cluster.run(
        "task", "run", "--env", "COLOUR=blue=ish", *script('echo "$COLOUR $HAKURIVER_TASK_ID"')
    )
    colour, task = done.stdout.split()
    assert colour == "blue=ish"
    assert cluster.api.task(int(task)).status == TaskState.COMPLETED


def test_a_task_sees_no_secret_of_its_runner(cluster: Cluster) -> None:
    done = cluster.run("task", "run", "--", "env")
    assert "TOKEN" not in done.stdout


def test_kill_takes_several_ids_and_ends_the_whole_tree(cluster: Cluster) -> None:
    tasks = [submit(cluster, *script("sleep 600 & sleep 600")) for _ in range(2)]
    for task in tasks:
        cluster.api.wait_state(int(task), TaskState.RUNNING)
    assert cluster.run("task", "kill", *tasks).code == 0
    for task in tasks:
        assert cluster.api.wait_final(int(task)).status == TaskState.KILLED
    cluster.assert_clean([int(task) for task in tasks])


def test_kill_of_a_task_that_has_ended_is_a_conflict(cluster: Cluster) -> None:
    task = submit(cluster, "--", "true")
    cluster.api.wait_final(int(task))
    cluster.run("task", "kill", task).assert_refused(5, task)


def test_a_task_that_ignores_the_polite_signal_is_killed_all_the_same(cluster: Cluster) -> None:
    task = submit(cluster, *script("trap '' TERM; while :; do sleep 0.1; done"))
    cluster.api.wait_state(int(task), TaskState.RUNNING)
    assert cluster.run("task", "kill", task).code == 0
    assert cluster.api.wait_final(int(task)).status == TaskState.KILLED


def test_pause_stops_a_task_and_resume_lets_it_go_on(cluster: Cluster) -> None:
    task = submit(cluster, *script("while :; do echo tick; sleep 0.02; done"))
    cluster.api.wait_state(int(task), TaskState.RUNNING)
    until(lambda: cluster.api.log(int(task)), "first output")
    assert cluster.run("task", "pause", task).code == 0
    cluster.api.wait_state(int(task), TaskState.PAUSED)
    paused_at = len(cluster.api.log(int(task)))
    assert cluster.api.nodes()[cluster.node.name].cores_in_use >= 1, "a paused task holds what it holds"
    assert cluster.run("task", "resume", task).code == 0
    cluster.api.wait_state(int(task), TaskState.RUNNING)
    until(lambda: len(cluster.api.log(int(task))) > paused_at, "more output")
    cluster.run("task", "kill", task)
    assert cluster.api.wait_final(int(task)).status == TaskState.KILLED


def test_pause_and_resume_in_the_wrong_state_are_conflicts(cluster: Cluster) -> None:
    task = submit(cluster, "--", "sleep", "600")
    cluster.api.wait_state(int(task), TaskState.RUNNING)
    cluster.run("task", "resume", task).assert_refused(5, task)
    cluster.run("task", "kill", task)
    cluster.api.wait_final(int(task))
    cluster.run("task", "pause", task).assert_refused(5, task)


def test_retry_runs_the_same_again_as_a_new_task(cluster: Cluster) -> None:
    first = submit(cluster, "--name", "again", "--env", "N=4", *script("exit $N"))
    cluster.api.wait_final(int(first))
    done = cluster.run("task", "retry", first, "-o", "name")
    assert done.code == 0, done.stderr
    second = done.stdout.strip()
    assert second != first
    again = cluster.api.wait_final(int(second))
    assert (again.status, again.exit_code, again.name) == (TaskState.FAILED, 4, "again")


def test_retry_of_a_task_that_still_runs_is_a_conflict(cluster: Cluster) -> None:
    task = submit(cluster, "--", "sleep", "600")
    cluster.run("task", "retry", task).assert_refused(5, task)
    cluster.api.kill(int(task))


def test_automatic_retries_make_new_attempts_until_one_succeeds(cluster: Cluster) -> None:
    marks = cluster.shared / "attempts"
    marks.mkdir()
    text = f'touch "{marks}/$HAKURIVER_ATTEMPT"; [ "$HAKURIVER_ATTEMPT" = 3 ]'
    task = submit(cluster, "--retries", "5", *script(text))
    ended = cluster.api.wait_final(int(task))
    assert (ended.status, ended.attempt) == (TaskState.COMPLETED, 3)
    assert sorted(mark.name for mark in marks.iterdir()) == ["1", "2", "3"]


def test_a_time_limit_ends_the_task_as_failed(cluster: Cluster) -> None:
    task = submit(cluster, "--time-limit", "1s", "--", "sleep", "600")
    ended = cluster.api.wait_final(int(task))
    assert ended.status == TaskState.FAILED
    assert "time limit" in (ended.error_message or "")


def test_a_count_makes_that_many_tasks_each_with_its_number(cluster: Cluster) -> None:
    done = cluster.run("task", "submit", "--count", "3", "-o", "json", *script("echo $HAKURIVER_TASK_INDEX"))
    tasks = [int(task) for task in json.loads(done.stdout)["task_ids"]]
    for task in tasks:
        cluster.api.wait_final(task)
    assert sorted(cluster.api.log(task) for task in tasks) == [b"0\n", b"1\n", b"2\n"]


def test_nodes_and_the_cluster_are_shown(cluster: Cluster) -> None:
    assert cluster.run("node", "list", "-o", "name").stdout.split() == [cluster.node.name]
    assert cluster.node.name in cluster.run("node", "list").stdout
    assert cluster.run("node", "health", "-o", "json").json()["nodes"] is not None
    assert cluster.run("status").code == 0


@pytest.mark.parametrize("command", ["hakuriver.task", "hakuriver.client"])
def test_the_names_of_the_reference_are_further_entry_points(cluster: Cluster, command: str) -> None:
    arguments = ["submit", "--wait", "--", "true"] if command == "hakuriver.task" else ["nodes"]
    done = cluster.run(*arguments, program=command)
    assert done.code == 0, done.stderr
