"""What command lines of `task submit` and `task run` ask the Host for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hakuriver.errors import UsageError
from hakuriver_cli.reference import task_app
from hakuriver_cli.submitting import variables
from unit.cli.conftest import Commands, FakeHost
from unit.sdk.wire_samples import made


@pytest.fixture(autouse=True)
def _accepting(host: FakeHost) -> None:
    host.on("POST", "/api/submit", made(11, 12))


def asked(host: FakeHost) -> dict[str, Any]:
    (body,) = host.bodies("/api/submit")
    found: dict[str, Any] = body
    return found


def test_every_option_reaches_the_request(commands: Commands, host: FakeHost) -> None:
    words = (
        "task submit --target n1 --target n2:0::1,2 --cores 4 --memory 4Gi --env A=1 --env B=x=y --container torch"
        " --privileged --mount /data:/data:ro --workdir /shared --user 1000:100 --network host --shm-size 1G"
        " --time-limit 1h30m --count 3 --max-running 2 --name sweep --retries 2 --retry-on oom --retry-on 75 --retry-delay 10s --hold-for-node"
        " --priority -5 --hold --not-before 2030-01-01T00:00+01:00 --after 11 --after 12:any"
        " -- python -c code"
    )
    assert commands(*words.split()).code == 0
    assert asked(host) == {
        "command": "python",
        "arguments": ["-c", "code"],
        "env_vars": {"A": "1", "B": "x=y"},
        "required_cores": 4,
        "required_memory_bytes": 4 * 2**30,
        "targets": ["n1", "n2:0::1,2"],
        "count": 3,
        "max_running": 2,
        "name": "sweep",
        "container_name": "torch",
        "privileged": True,
        "additional_mounts": ["/data:/data:ro"],
        "working_dir": "/shared",
        "user": "1000:100",
        "network": "host",
        "shm_size_bytes": 10**9,
        "time_limit_seconds": 5400,
        "max_retries": 2,
        "retry_on": ["oom", 75],
        "retry_delay_seconds": 10,
        "hold_for_node": True,
        "priority": -5,
        "hold": True,
        "not_before": "2030-01-01T00:00:00+01:00",
        "after": ["11:ok", "12:any"],
    }


@pytest.mark.parametrize("separator", [["--"], []])
def test_words_after_the_command_are_the_commands(
    commands: Commands, host: FakeHost, separator: list[str]
) -> None:
    rest = ["sh", "-c", "exit 3", "--cores", "9", "--help", "--", "-o", "json", "--wait", ""]
    assert commands("task", "submit", "--cores", "2", *separator, *rest).code == 0
    body = asked(host)
    assert [body["command"], *body["arguments"]] == rest
    assert body["required_cores"] == 2


def test_ids_are_printed_alone(commands: Commands) -> None:
    done = commands("task", "submit", "true")
    assert (done.code, done.out) == (0, "11\n12\n")


def test_global_options_may_stand_first(commands: Commands) -> None:
    assert commands("-o", "json", "task", "submit", "true").json["task_ids"] == ["11", "12"]


def test_the_poll_interval_of_the_reference_is_accepted(commands: Commands, host: FakeHost) -> None:
    done = commands("submit", "--poll-interval", "2", "--", "true", app=task_app())
    assert done.code == 0
    assert asked(host) == {"command": "true"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--env", "NOVALUE", "true"], "--env 'NOVALUE'"),
        (["--env", "=x", "true"], "--env '=x'"),
        (["--env", "1A=x", "true"], "'1A'"),
        (["--memory", "4Q", "true"], "'4Q' is not a size"),
        (["--cores=-1", "true"], "--cores -1"),
        (["--cores", "many", "true"], "many"),
        (["--count", "0", "true"], "--count 0"),
        (["--target", "a b", "true"], "'a b' is not a target"),
        (["--mount", "/a/../b:/c", "true"], "--mount"),
        (["--time-limit", "soon", "true"], "'soon'"),
        (["--network", "wifi", "true"], "wifi"),
        (["--user", "root", "true"], "--user"),
        (["--colour", "blue", "true"], "--colour"),
        (["--env-file", "/nowhere", "true"], "/nowhere"),
        ([], "no command"),
    ],
)
@pytest.mark.parametrize("verb", ["submit", "run"])
def test_what_is_wrong_is_named_and_nothing_is_sent(
    commands: Commands, host: FakeHost, verb: str, words: list[str], told: str
) -> None:
    done = commands("task", verb, *words)
    assert done.code == 2
    error, hint = done.err.splitlines()
    assert error.startswith("error: ")
    assert told in error
    assert hint.startswith("hint: ")
    assert host.asked == []


def test_a_file_of_variables_goes_behind_those_given(tmp_path: Path) -> None:
    path = tmp_path / "env"
    path.write_text("# a comment\n\nA=1\nB = 2\nC=\n", "utf-8")
    assert variables(["A=9"], [path]) == {"A": "9", "B ": " 2", "C": ""}


def test_a_wrong_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "env"
    path.write_text("A=1\nB\n", "utf-8")
    with pytest.raises(UsageError, match="line 2 of"):
        variables([], [path])
