"""The filters of the playbooks: what they find wrong, and that what is right passes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.filters import PLUGINS, load

inventory = load("hakuriver")
preflight = load("hakuriver_preflight")
accounts = load("hakuriver_accounts")
certificates = load("hakuriver_certificates")
settings = load("hakuriver_settings")


def whats(problems: list[dict[str, str]]) -> list[str]:
    assert all(one["hint"] for one in problems)
    assert not any("\n" in one["what"] + one["hint"] for one in problems)
    return [one["what"] for one in problems]


# Variables

KNOWN = ["docker_source", "docker_users", "hakuriver_shared_dir", "users_accounts"]
PREFIXES = ["docker", "hakuriver", "users"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("docker_sorce", "docker_source"),
        ("hakuriver_share_dir", "hakuriver_shared_dir"),
        ("hakurivr_shared_dir", "hakuriver_shared_dir"),
        ("docker_zzzzzzzzzzzz", ""),
    ],
)
def test_a_misspelt_variable_is_found(name: str, meant: str):
    found = inventory.unknown_variables([name, *KNOWN], KNOWN, PREFIXES)
    assert found == [{"name": name, "meant": meant}]
    (what,) = whats(inventory.variable_problems(found))
    assert name in what
    assert ("did you mean" in what) is bool(meant)


def test_what_is_not_ours_is_left_alone():
    names = ["ansible_user", "inventory_hostname", "groups", "_docker_x", "http_port", "docker_mine_x"]
    assert inventory.unknown_variables(names, KNOWN, PREFIXES, ["docker_mine_*"]) == []


@given(st.sets(st.from_regex(r"(docker|hakuriver)_[a-z_]{1,20}", fullmatch=True)))
def test_a_known_variable_is_never_unknown(names: set[str]):
    assert inventory.unknown_variables(names, names, PREFIXES) == []


def test_every_role_documents_its_variables():
    """The repository's own roles can be read, and their defaults pass as known."""
    roles = inventory.read_roles(str(PLUGINS.parent.parent / "roles"))
    known = inventory.documented_variables(roles["specs"])
    assert "preflight_clock_limit" in known
    assert inventory.unknown_variables(known, known, roles["names"]) == []


def test_words_of_tasks_are_known():
    assert inventory.spoken_names(["when: docker_now.x and other_docker_y"], ["docker"]) == ["docker_now"]


# What roles would refuse


def test_values_are_compared_with_the_specifications_of_all_roles():
    specs = [
        {"argument_specs": {"main": {"options": {"a": {"type": "str", "description": "x", "default": 1}}}}},
        {
            "argument_specs": {
                "main": {
                    "options": {
                        "b": {
                            "type": "list",
                            "elements": "dict",
                            "options": {"c": {"choices": [1], "required": True, "description": ["x"]}},
                        }
                    }
                }
            }
        },
        None,
    ]
    assert inventory.options(specs) == {
        "a": {"type": "str"},
        "b": {"type": "list", "elements": "dict", "options": {"c": {"choices": [1], "required": True}}},
    }


def test_each_wrong_value_is_a_problem():
    assert inventory.argument_problems({"failed": False, "msg": "passed"}) == []
    found = inventory.argument_problems({"argument_errors": ["value of a must be\none of: b", "c is no int"]})
    assert whats(found) == [
        "a variable is wrong: value of a must be one of: b",
        "a variable is wrong: c is no int",
    ]


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ({}, []),
        ({"msg": "n1: it is so\nhint: do that"}, [("it is so", "do that")]),
        (
            {"msg": "n1: one\n  more\nhint: do\n  this\nn1: two\nhint: and that"},
            [("one more", "do this"), ("two", "and that")],
        ),
        ({"msg": "without a name\nhint: do that"}, [("without a name", "do that")]),
        (
            {"results": [{"failed": True, "msg": "n1: a\nhint: b"}, {"failed": False, "msg": "c"}]},
            [("a", "b")],
        ),
        (
            {"msg": "non-zero return code", "stderr": "first\nlast\n"},
            [("non-zero return code: last", "see all that was said with --verbose")],
        ),
    ],
)
def test_what_a_role_refuses_in_its_own_words(result: dict[str, Any], expected: list[tuple[str, str]]):
    assert [(one["what"], one["hint"]) for one in inventory.refusals(result, "n1")] == expected


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"network": {"host_prt": 1}}, "network.host_prt is not a setting (did you mean host_port?)"),
        ({"network": {"host_port": "x"}}, "network.host_port: must be a whole number"),
        ({"netwrk": {}}, "netwrk is not a section (did you mean network?)"),
        ({"runner": 4}, "runner must be a table of keys and values"),
    ],
)
def test_settings_that_a_daemon_would_not_take(wrong: dict[str, Any], words: str):
    right = {"network": {"host_port": 8000}, "tls": {"cert_file": None}, "database": {"url": "sqlite://"}}
    assert settings.settings_problems(right, "host") == []
    (what,) = whats(settings.settings_problems({**right, **wrong}, "host"))
    assert what == f"host.toml would be wrong: {words}"


def test_a_wrong_setting_is_told_without_its_value():
    (what,) = whats(settings.settings_problems({"database": {"url": ["secret"]}}, "host"))
    assert "secret" not in what


# The shape of an inventory


def members(**logins: str) -> dict[str, dict[str, str]]:
    return {name: {"name": name, "address": login, "login": login} for name, login in logins.items()}


def test_a_right_inventory_has_no_problem():
    machines = members(n1="10.0.0.1", n2="10.0.0.2")
    assert inventory.inventory_problems(machines, ["n1"], ["n1", "n2"], "nfs") == []


@pytest.mark.parametrize("hosts", [[], ["n1", "n2"]])
def test_there_is_one_host(hosts: list[str]):
    (what,) = whats(inventory.inventory_problems(members(n1="a", n2="b"), hosts, ["n1"]))
    assert "hakuriver_host" in what


def test_there_is_a_runner():
    (what,) = whats(inventory.inventory_problems(members(n1="a"), ["n1"], []))
    assert "hakuriver_runners" in what


def test_one_name_and_one_address_of_two_machines():
    machines = members(n1="10.0.0.1", n2="10.0.0.1")
    machines["n2"]["name"] = "n1"
    found = whats(inventory.inventory_problems(machines, ["n1"], ["n1", "n2"]))
    assert found == [
        "n1 and n2 have one name as nodes: n1",
        "n1 and n2 have one address: 10.0.0.1",
        "n1 and n2 are reached at one place: 10.0.0.1",
    ]


def test_a_name_that_no_node_may_have():
    machines = members(n1="a")
    machines["n1"]["name"] = "no good"
    assert "no good" in whats(inventory.inventory_problems(machines, ["n1"], ["n1"]))[0]


def test_a_loopback_address_among_several_machines():
    (what,) = whats(inventory.inventory_problems(members(n1="a", n2="127.0.0.1"), ["n1"], ["n2"]))
    assert "127.0.0.1" in what
    assert inventory.inventory_problems(members(n1="127.0.0.1"), ["n1"], ["n1"]) == []


def test_a_local_share_serves_one_machine():
    assert "local" in whats(inventory.inventory_problems(members(n1="a", n2="b"), ["n1"], ["n2"], "local"))[0]


def test_problems_are_told_once_each():
    problem = {"what": "w", "hint": "h"}
    assert inventory.problem_lines([problem, problem], "n1") == "n1: w\nhint: h"


# One machine


def told() -> dict[str, Any]:
    return {
        "identity": "boot net:[1] pid:[1]",
        "machine_id": "m1",
        "system": {"id": "debian", "version": "12", "like": "", "name": "Debian GNU/Linux 12"},
        "init": "systemd",
        "systemd": True,
        "cgroup": {"version": "2", "memory": True},
        "memory_mb": 2000,
        "python": {"program": "python3", "path": "/usr/bin/python3", "version": "3.11.2"},
        "docker": {"engine": True, "kind": "", "rootless": [], "podman_socket": False, "settings": True},
        "gpu": {"count": 0, "driver": ""},
        "node": "n1",
        "ports": {"8000": None},
        "folders": {
            "state": {
                "path": "/s",
                "place": "/",
                "free_mb": 900,
                "free_files": 9999,
                "read_only": False,
                "error": "",
            }
        },
        "share": None,
        "resolve": [{"name": "host", "addresses": ["10.0.0.1"], "error": ""}],
        "connect": [],
        "account": True,
        "passwd": {"root": 0},
        "group": {"root": 0},
    }


WANTED: dict[str, Any] = {
    "any_system": False,
    "memory_mb": 512,
    "python": "python3",
    "python_may_come": True,
    "docker": True,
    "ports": {
        "8000": {"units": ["hakuriver-host.service"], "way_out": "set hakuriver_host_port to a free port"}
    },
    "free_mb": {"state": 500},
    "share_exists": True,
    "alone": False,
    "accounts": [{"name": "hakuriver", "uid": 990, "group": "hakuriver", "gid": 990}],
    "runner_user": "ada",
    "node": "n1",
    "is_host": False,
    "host_address": "host",
}
SHARE = {
    "path": "/mnt",
    "hangs": False,
    "error": "",
    "read_only": False,
    "writable": True,
    "mount": {"point": "/mnt", "source": "nas:/x"},
}


def test_a_fit_machine_has_no_problem():
    assert preflight.node_problems({**told(), "share": SHARE}, WANTED) == []
    assert preflight.node_remarks(told(), WANTED) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"init": "bash"}, "systemd is not"),
        (
            {"system": {"id": "debian", "version": "10", "like": "", "name": "Debian 10"}},
            "Debian 10 is not supported",
        ),
        (
            {"system": {"id": "alpine", "version": "3", "like": "", "name": "Alpine"}},
            "Alpine is not supported",
        ),
        ({"memory_mb": 100}, "100 MB of memory"),
        ({"python": {"path": "/usr/bin/python3", "version": "3.10.12"}}, "is Python 3.10.12"),
        ({"docker": {**told()["docker"], "kind": "snap"}}, "the snap"),
        ({"docker": {**told()["docker"], "kind": "podman"}}, "podman's imitation"),
        ({"docker": {**told()["docker"], "podman_socket": True}}, "podman's imitation"),
        (
            {"docker": {**told()["docker"], "engine": False, "rootless": ["/run/user/1/docker.sock"]}},
            "rootless",
        ),
        (
            {"ports": {"8000": {"pid": 7, "program": "nginx", "command": "nginx", "unit": "nginx.service"}}},
            "port 8000 is taken by nginx (pid 7) of nginx.service",
        ),
        ({"folders": {"state": {**told()["folders"]["state"], "free_mb": 10}}}, "/s has 10 MB free"),
        ({"folders": {"state": {**told()["folders"]["state"], "free_files": 3}}}, "3 more files"),
        ({"folders": {"state": {**told()["folders"]["state"], "read_only": True}}}, "only be read"),
        (
            {"folders": {"state": {"path": "/s", "place": "/s", "error": "it is not a folder"}}},
            "cannot be used",
        ),
        ({"share": {**SHARE, "hangs": True}}, "does not answer"),
        ({"share": {**SHARE, "stale": True}}, "is stale"),
        ({"share": {**SHARE, "error": "No such file or directory"}}, "cannot be read"),
        ({"share": {**SHARE, "mount": {"point": "/", "source": ""}}}, "nothing is mounted at /mnt"),
        ({"share": {**SHARE, "read_only": True}}, "can only be read"),
        ({"node": "old"}, "it is the node `old` already, and not `n1`"),
        ({"passwd": {"backup": 990}}, "the uid 990 of hakuriver is backup's"),
        ({"passwd": {"hakuriver": 5}}, "hakuriver has the uid 5"),
        ({"account": False}, "there is no account ada, which the Runner is to run as"),
        ({"group": {"lab": 990}}, "the gid 990 of hakuriver is lab's"),
        ({"resolve": [None]}, "name service does not answer"),
        ({"resolve": [{"name": "host", "addresses": [], "error": "unknown"}]}, "cannot resolve host"),
        ({"resolve": [{"name": "host", "addresses": ["127.0.1.1"], "error": ""}]}, "which is itself"),
    ],
)
def test_each_problem_of_a_machine_is_told_alone(change: dict[str, Any], words: str):
    (what,) = whats(preflight.node_problems({**told(), **change}, WANTED))
    assert words in what


def test_what_is_to_be_installed_is_no_problem():
    bare = {**told(), "python": {"path": "", "version": ""}}
    assert preflight.node_problems(bare, WANTED) == []
    assert "is to be installed" in preflight.node_remarks(bare, WANTED)[0]
    assert (
        "there is no python3" in whats(preflight.node_problems(bare, {**WANTED, "python_may_come": False}))[0]
    )


def test_whose_number_it_is_decides_where_another_is_given():
    service = {"name": "hakuriver", "uid": 990, "gid": 990, "is_service": True}
    wanted = {**WANTED, "accounts": [service, {"name": "ada", "uid": 2001}]}
    taken = preflight.node_problems({**told(), "passwd": {"polkitd": 990, "bob": 2001}}, wanted)
    assert [one["hint"].rpartition(": ")[2] for one in taken] == [
        "hakuriver_uid and hakuriver_gid",
        "its entry in users_accounts",
    ]


@pytest.mark.parametrize("known", [None, True])
def test_an_account_that_may_be_there_is_no_problem(known: bool | None):
    assert preflight.node_problems({**told(), "account": known}, WANTED) == []


def test_an_account_that_is_to_be_made_is_no_problem():
    wanted = {**WANTED, "accounts": [{"name": "ada", "uid": 2001}]}
    assert preflight.node_problems({**told(), "account": False}, wanted) == []


def test_our_own_daemon_may_hold_its_port():
    holder = {
        "pid": 7,
        "program": "python",
        "command": "python -m hakuriver_host",
        "unit": "hakuriver-host.service",
    }
    assert preflight.node_problems({**told(), "ports": {"8000": holder}}, WANTED) == []


@pytest.mark.parametrize(
    ("command", "unit"),
    [
        ("/home/ada/hakuriver/bin/python -m http.server 8000", ""),
        ("/opt/hakuriver/current/bin/hakuriver up", "user@1000.service"),
        ("python -m hakuriver_host", "my-hakuriver.service"),
    ],
)
def test_what_is_only_called_as_ours_is_in_the_way(command: str, unit: str):
    holder = {"pid": 7, "program": "python", "command": command, "unit": unit}
    (problem,) = preflight.node_problems({**told(), "ports": {"8000": holder}}, WANTED)
    assert problem["what"].startswith("port 8000 is taken by python (pid 7)")
    assert problem["hint"] == "end that program, or set hakuriver_host_port to a free port"


def test_remarks():
    strange = {
        **told(),
        "system": {"id": "rocky", "version": "9", "like": "rhel fedora", "name": "Rocky 9"},
        "cgroup": {"version": "1", "memory": False},
        "gpu": {"count": 2, "driver": ""},
    }
    assert preflight.node_problems(strange, WANTED) == []
    assert len(preflight.node_remarks(strange, WANTED)) == 3


# Machines beside each other

LIMITS = {"clock": 5, "may_open": False}


def machine(skew: float = 0.0, **changes: Any) -> dict[str, Any]:
    return {"told": {**told(), **changes}, "skew": [skew - 0.1, skew + 0.1]}


def two(**second: Any) -> dict[str, Any]:
    return {"n1": machine(), "n2": machine(**{"identity": "other", "machine_id": "m2", **second})}


def test_clocks_that_agree():
    assert preflight.cluster_problems(two(skew=4), "n2", LIMITS) == []


@pytest.mark.parametrize(("skew", "words"), [(300, "300 s ahead of"), (-300, "300 s behind")])
def test_a_clock_apart_from_the_controllers(skew: float, words: str):
    assert words in whats(preflight.cluster_problems(two(skew=skew), "n2", LIMITS))[0]
    assert preflight.cluster_problems(two(skew=skew), "n1", LIMITS) == []


def test_clocks_apart_among_themselves():
    nodes = two(skew=4)
    nodes["n1"]["skew"] = [-4.1, -3.9]
    assert "8 s apart" in whats(preflight.cluster_problems(nodes, "n1", LIMITS))[0]


@given(
    st.floats(-1000, 1000),
    st.lists(st.floats(0.001, 2), min_size=3, max_size=3),
)
def test_a_skew_lies_between_its_bounds(ahead: float, delays: list[float]):
    start = 1_700_000_000.0
    there = start + delays[0]
    again = there + delays[1]
    answers = [
        f"x\nclock {start:.6f} {there + ahead:.6f} 0\r",
        f"clock {again:.6f} {again + delays[2] + ahead:.6f} 0",
    ]
    low, high = preflight.skew(answers)
    assert low - 1e-4 <= ahead <= high + 1e-4
    assert preflight.user_of(answers[0]) == "0"


def test_one_machine_under_two_names():
    nodes = two(identity="boot net:[1] pid:[1]")
    assert "one and the same machine" in whats(preflight.cluster_problems(nodes, "n1", LIMITS))[0]


def test_a_copied_disk_is_a_remark():
    nodes = two(machine_id="m1")
    assert preflight.cluster_problems(nodes, "n1", LIMITS) == []
    assert "also that of n2" in preflight.cluster_remarks(nodes, "n1")[0]


@pytest.mark.parametrize(
    ("answer", "listens", "words"),
    [
        ("open", True, ""),
        ("refused", False, ""),
        ("refused", True, "refused, although"),
        ("silent", False, "gets no answer from"),
        ("no way", False, "no way to"),
    ],
)
def test_ways_between_machines(answer: str, listens: bool, words: str):
    nodes = two(
        connect=[{"name": "n1", "address": "10.0.0.1", "port": 8000, "outside": False, "answer": answer}]
    )
    nodes["n1"]["told"]["ports"] = {"8000": {"loopback": False} if listens else None}
    found = whats(preflight.cluster_problems(nodes, "n2", LIMITS))
    assert [words in what for what in found] == ([True] if words else [])


def test_silence_may_be_the_firewall_that_this_run_opens():
    path = {"name": "n1", "address": "10.0.0.1", "port": 8000, "outside": False, "answer": "silent"}
    assert preflight.cluster_problems(two(connect=[path]), "n2", {**LIMITS, "may_open": True}) == []


@pytest.mark.parametrize("answer", ["refused", "silent", "no way"])
def test_a_storage_server_outside_has_to_answer_already(answer: str):
    path = {
        "name": "nas",
        "address": "nas",
        "port": 2049,
        "outside": True,
        "answer": answer,
    }
    nodes = two(connect=[path])
    (what,) = whats(preflight.cluster_problems(nodes, "n2", {**LIMITS, "may_open": True}))
    assert what == f"it cannot reach the storage server nas at nas:2049: {answer}"
    path["answer"] = "open"
    assert preflight.cluster_problems(nodes, "n2", LIMITS) == []


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("Task failed: Incorrect sudo password", "the sudo password is wrong"),
        ("Missing sudo password", "asks for a password"),
        ("admin is not in the sudoers file.", "may not use sudo"),
        ("/bin/sh: 1: sudo: not found", "there is no sudo"),
        ("timed out waiting for become success", "in time"),
        ("something else", "something else"),
        ("", "exit code 3"),
    ],
)
def test_why_becoming_root_failed(said: str, words: str):
    assert words in whats([preflight.escalation_problem(said, 3)])[0]


# Accounts


def test_numbers_of_others_are_refused():
    passwd = {"backup": ["x", "34"], "ada": ["x", "2001"]}
    assert accounts.account_problems([{"name": "ada", "uid": 2001}], passwd, {}) == []
    assert "backup's" in whats(accounts.account_problems([{"name": "eve", "uid": 34}], passwd, {}))[0]
    assert (
        "has the uid 2001" in whats(accounts.account_problems([{"name": "ada", "uid": 2002}], passwd, {}))[0]
    )
    assert accounts.account_problems([{"name": "new"}], passwd, {}) == []


def test_repeated_accounts_are_refused():
    listed = [{"name": "ada", "uid": 1}, {"name": "ada", "uid": 2}, {"name": "eve", "uid": 2}]
    assert len(whats(accounts.repeated_accounts(listed))) == 2
    assert (
        accounts.repeated_accounts([{"name": "a", "uid": 1}, {"name": "a", "uid": 1, "state": "absent"}])
        == []
    )


KEY = "ssh-ed25519 AAAAC3NzaC1 ada@home"
OTHER = 'from="10.0.0.0/8" ssh-rsa AAAAB3Nza backup'


def test_keys_of_others_stay():
    text = accounts.authorized_keys(f"# mine\n{OTHER}\n", [KEY])
    assert text == f"# mine\n{OTHER}\n{KEY}\n"
    assert accounts.authorized_keys(text, [KEY]) == text


def test_one_key_is_written_once_with_the_options_and_comment_wanted():
    assert accounts.authorized_keys("ssh-ed25519 AAAAC3NzaC1 old\n", [KEY]) == f"{KEY}\n"


def test_exclusive_keys_are_the_only_ones():
    assert accounts.authorized_keys(f"# mine\n{OTHER}\n", [KEY], exclusive=True) == f"{KEY}\n"
    assert accounts.authorized_keys(f"{OTHER}\n", [], exclusive=True) == ""


@given(
    st.lists(st.sampled_from([KEY, OTHER, "# note", ""])),
    st.lists(st.sampled_from([KEY, OTHER])),
    st.booleans(),
)
def test_writing_keys_twice_changes_nothing(lines: list[str], wanted: list[str], exclusive: bool):
    once = accounts.authorized_keys("\n".join(lines), wanted, exclusive)
    assert accounts.authorized_keys(once, wanted, exclusive) == once


# Certificates

PRINTED = (
    "notAfter=Jan 31 00:00:00 2027 GMT\nX509v3 Subject Alternative Name:\n"
    "    DNS:n1, IP Address:10.0.0.1, IP Address:FE80:0:0:0:0:0:0:1\n"
)
NAMES = ["DNS:n1", "IP:10.0.0.1", "IP:fe80::1"]


def test_names_of_a_certificate():
    assert certificates.subject_names(["N1", "10.0.0.1", "n1", "", None, "[fe80::1]", "a b"]) == NAMES
    assert certificates.served_names(PRINTED) == NAMES


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ""),
        ({"printed": ""}, "there is none"),
        ({"key_fits": False}, "to the key"),
        ({"trusted": False}, "this CA"),
        ({"wanted": ["DNS:n2"]}, "names have changed"),
        ({"now": "2027-01-10T00:00:00+00:00"}, "ends in 21 days"),
        ({"now": "2027-03-10T00:00:00+00:00"}, "ends in 0 days"),
    ],
)
def test_when_a_certificate_is_due(changes: dict[str, Any], words: str):
    given_ = {
        "printed": PRINTED,
        "wanted": NAMES,
        "now": "2026-12-01T00:00:00+00:00",
        "renew_before_days": 30,
        "trusted": True,
        "key_fits": True,
        **copy.deepcopy(changes),
    }
    why = certificates.why_due(**given_)
    assert words in why
    assert bool(why) is bool(words)
