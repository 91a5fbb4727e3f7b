"""What the playbook `check` says of a machine, for each thing that can be wrong with it."""

from __future__ import annotations

import pytest

from support.filters import load

check = load("hakuriver_findings")

WELL = {
    "version": "0.1.0-0123456789ab-c0ffee",
    "marker": "f00",
    "free": "   51200",
    "docker": "active/enabled",
    "ca-ends": "later",
    **{
        key: value
        for daemon in ("host", "runner")
        for key, value in {
            f"hakuriver-{daemon}": "active/enabled",
            f"hakuriver-{daemon}-version": "0.1.0-0123456789ab-c0ffee",
            f"hakuriver-{daemon}-reload": "no",
            f"{daemon}-ends": "later",
        }.items()
    },
}
WANTED = {
    "daemons": ["host", "runner"],
    "differs": [],
    "stale": [],
    "share": "/mnt/hakuriver",
    "state_dir": "/var/lib/hakuriver",
    "tls": True,
    "docker": True,
    "open": False,
}


def test_nothing_is_found_where_all_is_well() -> None:
    assert check.findings(WELL, WELL, WANTED) == []


def test_a_daemon_that_was_not_restarted_is_told_once() -> None:
    wanted = {**WANTED, "stale": ["runner"]}
    old = {**WELL, "hakuriver-runner-version": "0.0.9-aa"}
    assert check.findings(WELL, WELL, wanted) == [
        "hakuriver-runner.service runs with other settings than its files have"
    ]
    assert check.findings(old, WELL, wanted) == ["hakuriver-runner.service still runs 0.0.9-aa"]


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        (
            {"version": "0.2.0-ba9876543210-c0ffee"},
            "has version 0.2.0-ba9876543210-c0ffee, and the Host has 0.1.0-0123456789ab-c0ffee",
        ),
        (
            {"marker": ""},
            "the share at /mnt/hakuriver is not mounted, does not answer, or is not marked by the Host",
        ),
        ({"marker": "ba5"}, "/mnt/hakuriver is another share than the Host has"),
        ({"free": "12"}, "only 12 MB are free for /var/lib/hakuriver"),
        ({"ca-ends": ""}, "the CA of the cluster is missing, or ends within two weeks"),
        ({"runner-ends": ""}, "the certificate of the Runner is missing, or ends within two weeks"),
        (
            {"hakuriver-runner": "failed/enabled"},
            "hakuriver-runner.service is failed/enabled, not active/enabled",
        ),
        ({"hakuriver-runner": "/"}, "hakuriver-runner.service is not there, not active/enabled"),
        ({"hakuriver-runner-version": "0.0.9-aa"}, "hakuriver-runner.service still runs 0.0.9-aa"),
        ({"docker": "inactive/enabled"}, "docker.service is inactive/enabled, not active/enabled"),
        ({"hakuriver-host-reload": "yes"}, "systemd has not read the new hakuriver-host.service"),
    ],
)
def test_each_thing_that_is_wrong_is_told(changed: dict[str, str], found: str) -> None:
    told = check.findings({**WELL, **changed}, WELL, WANTED)
    assert found in told
    # Another version is told of the machine and of its daemons.
    assert len(told) == 1 or "version" in changed


def test_machines_may_have_pythons_of_their_own() -> None:
    other = {
        key: value.replace("-c0ffee", "-decade") if "version" in key else value for key, value in WELL.items()
    }
    assert check.findings(other, WELL, WANTED) == []


def test_what_is_not_asked_for_is_not_told() -> None:
    bare = {key: value for key, value in WELL.items() if "ends" not in key and "host" not in key}
    bare["docker"] = "/"
    assert check.findings(bare, {}, {**WANTED, "daemons": ["runner"], "tls": False, "docker": False}) == []


def test_a_machine_with_nothing_on_it() -> None:
    told = check.findings({}, {}, WANTED)
    assert told[0] == "HakuRiver is not installed"
    assert "hakuriver-host.service is not there, not active/enabled" in told


def test_a_firewall_that_is_not_loaded() -> None:
    assert check.findings(WELL, WELL, {**WANTED, "open": True}) == ["the firewall's rules are not loaded"]


def test_accounts_that_are_not_as_they_shall_be() -> None:
    passwd = {"ada": ["x", "2001"], "bob": ["x", "1001"], "eve": ["x", "2003"]}
    wanted = [{"name": "ada", "uid": 2001}, {"name": "bob", "uid": 2002}, {"name": "cyd", "uid": 2004}]
    assert check.account_findings(wanted, [{"name": "eve"}, {"name": "dan"}], passwd) == [
        "the account bob has the uid 1001, not 2002",
        "there is no account cyd",
        "the account eve is still there",
    ]


def test_files_that_differ_are_named() -> None:
    wanted = {**WANTED, "differs": ["/etc/hakuriver/host.toml"]}
    assert check.findings(WELL, WELL, wanted) == ["/etc/hakuriver/host.toml is not what the inventory says"]


@pytest.mark.parametrize(
    ("node", "found"),
    [
        ({"status": "online", "problem": None, "cordoned": False}, []),
        (None, ["the Host does not know a node node-1"]),
        ({"status": "offline", "problem": "", "cordoned": False}, ["the Host has it as offline"]),
        (
            {"status": "online", "problem": "the share is stale", "cordoned": True},
            ["the share is stale", "is cordoned"],
        ),
    ],
)
def test_what_the_host_says_of_a_node(node: dict[str, object] | None, found: list[str]) -> None:
    assert check.node_findings(node, "node-1") == found
