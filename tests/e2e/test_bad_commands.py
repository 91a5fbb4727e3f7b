"""What a person types wrong: one line of what is wrong, one of what to do, the documented exit code, no traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.cluster import Cluster
from support.ports import free_port

USAGE, NOT_FOUND, DENIED, CONFLICT, UNREACHABLE = 2, 3, 4, 5, 6

SUBMISSIONS: dict[str, tuple[list[str], int]] = {
    "4Q": (["--memory", "4Q"], USAGE),
    "many": (["--cores", "many"], USAGE),
    "-1": (["--cores=-1"], USAGE),
    "99999": (["--cores", "99999"], CONFLICT),
    "a b": (["--target", "a b"], USAGE),
    "no-such-node": (["--target", "no-such-node"], NOT_FOUND),
    "no-such-env": (["--container", "no-such-env"], NOT_FOUND),
    "WITHOUT": (["--env", "WITHOUT"], USAGE),
    "..": (["--mount", "/mnt/../etc:/etc"], USAGE),
    "data": (["--mount", "data:/data"], USAGE),
    "soon": (["--time-limit", "soon"], USAGE),
    "--colour": (["--colour", "blue"], USAGE),
}


@pytest.mark.parametrize("word", SUBMISSIONS)
@pytest.mark.parametrize("verb", ["run", "submit"])
def test_a_bad_submission(cluster: Cluster, verb: str, word: str) -> None:
    options, code = SUBMISSIONS[word]
    before = cluster.api.tasks()
    cluster.run("task", verb, *options, "--", "true").assert_refused(code, word)
    assert cluster.api.tasks() == before


def test_a_submission_without_a_command(cluster: Cluster) -> None:
    cluster.run("task", "submit").assert_refused(USAGE)


@pytest.mark.parametrize(
    "verb", ["status", "kill", "pause", "resume", "retry", "stdout", "stderr", "wait", "explain"]
)
@pytest.mark.parametrize(("task_id", "code"), [("12x", USAGE), ("5", NOT_FOUND)])
def test_an_id_that_is_none_or_unknown(cluster: Cluster, verb: str, task_id: str, code: int) -> None:
    cluster.run("task", verb, task_id).assert_refused(code, task_id)


def test_a_wrong_token(cluster: Cluster) -> None:
    cluster.run("task", "list", environment={"HAKURIVER_TOKEN": "wrong"}).assert_refused(DENIED, "token")


def test_a_host_that_is_not_there(cluster: Cluster) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    cluster.run("task", "list", environment={"HAKURIVER__CLIENT__URL": nobody}).assert_refused(
        UNREACHABLE, nobody
    )


def test_a_configuration_that_is_not_there(cluster: Cluster, tmp_path: Path) -> None:
    missing = str(tmp_path / "none.toml")
    cluster.run("task", "list", "--config", missing).assert_refused(NOT_FOUND, missing)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("not toml", "TOML"),
        ("[network]\nhost_prot = 1", "host_prot"),
        ("[network]\nhost_port = 70000", "host_port"),
    ],
)
def test_a_configuration_that_is_wrong(cluster: Cluster, tmp_path: Path, text: str, word: str) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(text, "utf-8")
    cluster.run("task", "list", "--config", str(path)).assert_refused(USAGE, word)
    cluster.run("config", "check", "--config", str(path)).assert_refused(USAGE, word)


def test_a_command_that_is_not_there_fails_the_task_with_a_reason(cluster: Cluster) -> None:
    done = cluster.run("task", "run", "--", "no-such-program")
    assert done.code == 127
    assert "no-such-program" in done.stderr
    assert "Traceback" not in done.stderr
