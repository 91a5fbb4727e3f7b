"""Failures as Ansible tells them, in our words: which node, what, what to do."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from hakuriver_cli.deploy.events import Event, Kind, read
from hakuriver_cli.deploy.failures import Failure, explain, explain_words, merged

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def failed(kind: Kind = Kind.FAILED, module: str = "ansible.builtin.command", **detail: Any) -> Failure:
    (failure,) = told(kind, module, **detail)
    return failure


def told(kind: Kind = Kind.FAILED, module: str = "ansible.builtin.command", **detail: Any) -> list[Failure]:
    return explain(
        Event(
            kind=kind, time=NOW, node="node-2", role="docker", task="Install it", module=module, detail=detail
        )
    )


UNREACHABLE = [
    (
        "Failed to connect to the host via ssh: ssh: connect to host 10.0.0.9 port 22: Connection refused",
        "nothing answers to ssh",
        "start sshd",
    ),
    (
        "Failed to connect to the host via ssh: ssh: connect to host 10.0.0.9 port 22: Connection timed out",
        "does not answer to ssh in time",
        "firewalls",
    ),
    ("ssh: connect to host 10.0.0.9 port 22: No route to host", "no way to its address", "network"),
    (
        "ssh: Could not resolve hostname node-2: Name or service not known",
        "address node-2 is not known",
        "ansible_host",
    ),
    (
        "Failed to connect to the host via ssh: Host key verification failed.",
        "host key is not known",
        "ssh-keyscan",
    ),
    (
        "@@@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @@@ Host key verification failed.",
        "not the one that was known",
        "ssh-keygen -R",
    ),
    (
        "ada@10.0.0.9: Permission denied (publickey,password).",
        "refuses the login (publickey,password)",
        "ssh-copy-id",
    ),
    ("Invalid/incorrect password: Permission denied, please try again.", "ssh password is wrong", "again"),
    (
        "Failed to create temporary directory. In some cases, you may have been able to authenticate",
        "no temporary folder",
        "disk",
    ),
    ("kex_exchange_identification: Connection reset by peer", "broke off", "again"),
]


@pytest.mark.parametrize(("said", "what", "hint"), UNREACHABLE, ids=lambda text: str(text)[:30])
def test_an_unreachable_node(said: str, what: str, hint: str) -> None:
    failure = failed(Kind.UNREACHABLE, msg=f"Task failed: {said}")
    assert failure.unreachable
    assert what in failure.message
    assert hint in failure.hint
    assert failure.nodes == ["node-2"]


FAILED: list[tuple[dict[str, Any], str, str]] = [
    ({"msg": "Missing sudo password"}, "sudo asks for a password", "--ask-become-pass"),
    (
        {"msg": "Task failed: Premature end of stream. sudo: a password is required"},
        "sudo asks",
        "--ask-become-pass",
    ),
    ({"msg": "Incorrect sudo password"}, "sudo password is wrong", "--ask-become-pass"),
    ({"msg": "x", "module_stderr": "ada is not in the sudoers file."}, "may not use sudo", "group sudo"),
    ({"msg": "x", "module_stderr": "/bin/sh: 1: sudo: not found"}, "no sudo", "install"),
    (
        {"msg": "MODULE FAILURE", "rc": 127, "module_stderr": "/bin/sh: 1: /usr/bin/python3: not found"},
        "no Python",
        "apt-get install python3",
    ),
    (
        {"msg": "ansible-core requires a minimum of Python version 3.8. Current version: 3.6"},
        "Python is too old",
        "ansible_python_interpreter",
    ),
    ({"msg": "E: Could not get lock /var/lib/dpkg/lock-frontend"}, "another package manager", "wait"),
    ({"msg": "[Errno 28] No space left on device"}, "disk is full", "df -h"),
    (
        {"msg": "x", "stderr": "touch: cannot touch '/mnt/x': Read-only file system"},
        "can only be read",
        "read-only",
    ),
    ({"msg": "No package matching 'docker.io' is available"}, "no package docker.io", "sources"),
    ({"msg": "E: Unable to locate package docker.io"}, "no package docker.io", "sources"),
    (
        {"msg": "x", "stderr": "ERROR: No matching distribution found for pydantic==2"},
        "finds no pydantic==2",
        "--bundle",
    ),
    (
        {"msg": "Unable to start service hakuriver-host: Job for hakuriver-host.service failed because"},
        "hakuriver-host does not start",
        "journalctl -eu hakuriver-host",
    ),
    (
        {"msg": "x", "stderr": "Cannot connect to the Docker daemon at unix:///"},
        "engine does not answer",
        "docker",
    ),
    ({"msg": "Attempting to decrypt but no vault secrets found"}, "vault secrets", "--ask-vault-pass"),
    ({"msg": "'hakuriver_typo' is undefined"}, "hakuriver_typo is not set", "group_vars"),
    (
        {
            "msg": "Validation of arguments failed:\nx",
            "argument_errors": ["value of docker_source must be one of: distribution, vendor, got: snap"],
        },
        "docker_source must be one of",
        "README",
    ),
    (
        {"msg": "non-zero return code", "rc": 3, "cmd": ["sh", "-c", "false"], "stderr": "first\nlast words"},
        "`sh -c false` ended with exit code 3: last words",
        "hakuriver cluster logs --limit NODE",
    ),
    ({"censored": "the output has been hidden"}, "secret", "journalctl"),
]


@pytest.mark.parametrize(("detail", "what", "hint"), FAILED, ids=lambda text: str(text)[:30])
def test_a_task_that_failed(detail: dict[str, Any], what: str, hint: str) -> None:
    failure = failed(**detail)
    assert what in failure.message
    assert hint in failure.hint
    assert failure.line.startswith("node-2: ")
    assert failure.line.endswith("(in: docker: Install it)")
    assert not failure.unreachable


@pytest.mark.parametrize(
    "said",
    [
        "port 8000 is taken by nginx\nhint: end it, or set hakuriver_host_port",
        "port 8000 is taken by nginx\nend it, or set hakuriver_host_port",
        "port 8000 is taken\nby nginx\nhint: end it,\nor set hakuriver_host_port",
        "node-2: port 8000 is taken by nginx\nhint: end it, or set hakuriver_host_port",
    ],
)
def test_an_assertion_speaks_for_itself(said: str) -> None:
    failure = failed(module="ansible.builtin.assert", msg=said, assertion="x")
    assert failure.message == "port 8000 is taken by nginx"
    assert failure.hint == "end it, or set hakuriver_host_port"


def test_where_a_delegated_task_failed_is_told() -> None:
    event = Event(
        kind=Kind.FAILED, time=NOW, node="node-2", task="Ask", delegate="host-1", detail={"msg": "no"}
    )
    assert "(on host-1)" in explain(event)[0].line


def test_several_problems_are_told_one_by_one() -> None:
    said = "node-2: no room\nhint: make some\ninventory: two are alike\nhint: change one"
    found = told(module="ansible.builtin.fail", msg=said)
    assert [(failure.nodes, failure.message, failure.hint) for failure in found] == [
        (["node-2"], "no room", "make some"),
        ([], "the inventory: two are alike", "change one"),
    ]


def test_several_problems_may_share_what_to_do() -> None:
    found = told(
        module="ansible.builtin.assert", msg="node-2: a is\nold\nnode-2: b is not there\nhint: deploy"
    )
    assert [(failure.message, failure.hint) for failure in found] == [
        ("a is old", "deploy"),
        ("b is not there", "deploy"),
    ]


def test_the_same_failure_is_told_once() -> None:
    one = Failure(nodes=["a"], message="full", hint="make room")
    told = merged([one, one.model_copy(update={"nodes": ["b"]}), Failure(nodes=["c"], message="other")])
    assert [failure.line for failure in told] == ["a, b: full", "c: other"]


def test_what_only_follows_from_another_nodes_failure_is_left_out() -> None:
    full = Failure(nodes=["a"], message="full", hint="make room")
    follows = Failure(nodes=["b"], message="nothing was done here, because of a")
    assert merged([follows, full]) == [full]
    assert merged([follows]) == [follows]


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ("[ERROR]: Attempting to decrypt but no vault secrets found.", "holds vault secrets"),
        ("ERROR! Decryption failed (no vault secrets were found that could decrypt)", "vault"),
        (
            "[ERROR]: Specified inventory, host pattern and/or --limit leaves us with no hosts to target.",
            "no node",
        ),
        ("[ERROR]: YAML parsing failed: Colons in unquoted values must be followed by a space", "is no YAML"),
        ("something\n[ERROR]: the playbook: playbooks/x.yml could not be found", "could not be found"),
        ("", "gave no reason"),
    ],
)
def test_nothing_was_played(words: str, what: str) -> None:
    failure = explain_words(words)
    assert what in failure.message
    assert failure.hint
    assert failure.nodes == []


def test_only_what_explains_is_kept_of_a_result() -> None:
    event = read(
        {
            "event": "runner_on_failed",
            "created": "2026-01-02T03:04:05",
            "event_data": {
                "host": "n",
                "task": "t",
                "res": {"msg": "no", "invocation": {"module_args": {"password": "s3"}}, "stdout": "x" * 9000},
            },
        }
    )
    assert event is not None
    assert set(event.detail) == {"msg", "stdout"}
    assert len(event.detail["stdout"]) <= 4001
    assert "s3" not in event.model_dump_json()


def test_unknown_messages_are_left_out() -> None:
    assert read({"event": "keepalive", "counter": 0}) is None
    assert read({"status": "running"}) is None
    assert read({"event": "verbose", "stdout": ""}) is None
    odd = read({"event": "runner_on_ok", "event_data": None, "created": "never"})
    assert odd is not None
    assert odd.kind is Kind.OK
