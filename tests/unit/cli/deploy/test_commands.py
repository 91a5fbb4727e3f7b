"""`hakuriver cluster …` against the double of Ansible: what is played, what is printed, what stays behind."""

from __future__ import annotations

import functools
import json
import os
import signal
import stat
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from hakuriver.client import Client
from hakuriver.models.nodes import ClusterStatus, NodeInfo
from hakuriver.states import NodeState
from hakuriver_cli.deploy import history, lock, port
from hakuriver_cli.deploy.fake import FakeAnsible
from hakuriver_cli.deploy.port import Job
from unit.cli.conftest import Commands, FakeHost

UNREACHABLE = {"unreachable": True, "msg": "ssh: connect to host 10.0.0.11 port 22: Connection refused"}


def variables(job: Job) -> dict[str, Any]:
    """What the play was given on top of the inventory."""
    found: dict[str, Any] = {}
    for path in job.private.glob("variables-*.json"):
        found |= json.loads(path.read_text())
    return found


class Seen:
    """Looks at a job while it is played: its files are gone afterwards."""

    def __init__(self, fake: FakeAnsible) -> None:
        self.variables: dict[str, Any] = {}
        self.modes: set[int] = set()
        fake.on_play = self.look

    def look(self, job: Job) -> None:
        self.variables = variables(job)
        self.modes = {stat.S_IMODE(path.stat().st_mode) for path in [job.private, *job.private.iterdir()]}


def test_deploy_plays_site_and_tells_each_node(
    commands: Commands, ansible: FakeAnsible, inventory: Path
) -> None:
    done = commands("cluster", "deploy")
    assert done.code == 0
    (job,) = ansible.jobs
    assert (job.playbook, job.inventory, job.arguments) == (
        "playbooks/site.yml",
        inventory / "hosts.yml",
        [],
    )
    assert [line.split() for line in done.out.splitlines()] == [
        ["NODE", "STATE", "OK", "CHANGED", "FAILED"],
        ["head", "ok", "1", "1", "0"],
        ["node-1", "ok", "1", "0", "0"],
    ]
    assert "tls: Make it … changed: head; ok: node-1" in done.err
    assert "changed: head (1)" in done.err
    assert not job.private.exists()


@pytest.mark.parametrize(
    ("words", "playbook", "given"),
    [
        (["check"], "check", {}),
        (["upgrade"], "upgrade", {}),
        (["backup"], "backup", {}),
        (["rotate"], "rotate", {"hakuriver_rotate": "all"}),
        (["rotate", "tokens"], "rotate", {"hakuriver_rotate": "tokens"}),
        (["logs"], "collect-logs", {}),
        (["logs", "--since", "2 hours ago"], "collect-logs", {"hakuriver_logs_since": "2 hours ago"}),
        (["reset", "--yes"], "reset", {"hakuriver_reset_confirmed": True}),
        (["deploy", "-e", "x=1", "--extra-vars", '{"y": [2]}'], "site", {"x": "1", "y": [2]}),
    ],
)
def test_each_command_plays_its_playbook(
    commands: Commands, ansible: FakeAnsible, words: list[str], playbook: str, given: dict[str, Any]
) -> None:
    seen = Seen(ansible)
    assert commands("cluster", *words).code == 0
    assert ansible.jobs[0].playbook == f"playbooks/{playbook}.yml"
    assert seen.variables == given
    assert seen.modes <= {0o700, 0o600}


def test_json_is_the_outcome_with_its_events(commands: Commands, ansible: FakeAnsible) -> None:
    done = commands("cluster", "deploy", "-o", "json", "-e", "colour=vermilion")
    outcome = done.json
    assert outcome["status"] == "ok"
    assert outcome["variables"] == ["colour"]
    assert [node["node"] for node in outcome["nodes"]] == ["head", "node-1"]
    assert [event["kind"] for event in outcome["events"]] == ["play", "task", "changed", "ok", "stats"]
    assert "vermilion" not in done.out


def test_a_failure_says_which_node_what_and_what_to_do(commands: Commands, ansible: FakeAnsible) -> None:
    ansible.results = {
        "preflight: Ports": {
            "head": {},
            "node-1": {
                "failed": True,
                "module": "ansible.builtin.assert",
                "msg": "port 8001 is taken\nend nginx",
            },
        }
    }
    done = commands("cluster", "deploy")
    assert done.code == 1
    assert "error: node-1: port 8001 is taken (in: preflight: Ports)" in done.err
    assert "hint: end nginx" in done.err
    assert "failed in" in done.err


def test_only_unreachable_nodes_have_their_own_exit_code(commands: Commands, ansible: FakeAnsible) -> None:
    ansible.results = {"Gather": {"head": {}, "node-1": UNREACHABLE}}
    done = commands("cluster", "deploy")
    assert done.code == 6
    assert "error: node-1: nothing answers to ssh at its address" in done.err
    assert "unreachable" in done.out


def test_an_inventory_that_cannot_be_played(commands: Commands, ansible: FakeAnsible) -> None:
    ansible.results = {}
    ansible.words = ("[ERROR]: Attempting to decrypt but no vault secrets found.",)
    ansible.ends = "failed"
    done = commands("cluster", "deploy")
    assert done.code == 1
    assert done.out == ""
    assert "hint: use --ask-vault-pass" in done.err


def test_the_history_has_all_but_values(commands: Commands, ansible: FakeAnsible, inventory: Path) -> None:
    commands("cluster", "deploy", "-e", "colour=vermilion")
    (folder,) = (inventory / ".hakuriver" / "history").iterdir()
    assert folder.name.endswith("-deploy")
    assert {path.name for path in folder.iterdir()} == {"events.jsonl", "outcome.json", "output.txt"}
    text = "".join(path.read_text() for path in folder.iterdir())
    assert "vermilion" not in text
    assert "colour" in text
    assert stat.S_IMODE((inventory / ".hakuriver").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in [folder, folder / "output.txt"]} == {0}
    (outcome,) = history.deployments(inventory / ".hakuriver")
    assert (outcome.what, str(outcome.status), outcome.changed) == ("deploy", "ok", 1)


def test_only_the_newest_deployments_are_kept(
    commands: Commands, ansible: FakeAnsible, inventory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(4):
        commands("cluster", "check")
    history.prune(inventory / ".hakuriver", kept=2)
    assert len(list((inventory / ".hakuriver" / "history").iterdir())) == 2


def test_a_second_deployment_is_refused_and_a_look_is_not(
    commands: Commands, ansible: FakeAnsible, inventory: Path
) -> None:
    controller = inventory / ".hakuriver"
    controller.mkdir(mode=0o700)
    with lock.held(controller, "upgrade", print):
        done = commands("cluster", "deploy")
        assert done.code == 5
        assert "cluster upgrade" in done.err
        assert ansible.jobs == []
        assert commands("cluster", "deploy", "--check").code == 0
        assert commands("cluster", "check").code == 0
        assert commands("cluster", "logs").code == 0


def test_passwords_go_to_the_prompt_and_nowhere_else(
    commands: Commands, ansible: FakeAnsible, inventory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, write = os.pipe()
    os.write(write, b"hunter2\n")
    os.close(write)
    monkeypatch.setattr("sys.stdin", os.fdopen(read))
    done = commands("cluster", "deploy", "--ask-become-pass")
    assert done.code == 0
    (job,) = ansible.jobs
    assert job.arguments == ["--ask-become-pass"]
    assert list(job.passwords.values()) == ["hunter2"]
    for path in (inventory / ".hakuriver").rglob("*"):
        assert path.is_dir() or "hunter2" not in path.read_text()
    assert "hunter2" not in done.out + done.err


def test_a_secret_on_the_command_line_is_refused(commands: Commands, ansible: FakeAnsible) -> None:
    done = commands("cluster", "deploy", "-e", "ansible_become_password=x")
    assert done.code == 2
    assert "--ask-become-pass" in done.err
    assert ansible.jobs == []


def test_ctrl_c_stops_tells_and_gives_the_lock_back(
    commands: Commands, ansible: FakeAnsible, inventory: Path
) -> None:
    ansible.waits = True

    def interrupt() -> None:
        ansible.waiting.wait()
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    done = commands("cluster", "deploy")
    thread.join()
    assert done.code == 130
    assert "stopped; changed: head (1)" in done.err
    assert lock.holder(inventory / ".hakuriver") is None
    (outcome,) = history.deployments(inventory / ".hakuriver")
    assert str(outcome.status) == "interrupted"


def test_add_node_writes_the_machine_and_plays_it_and_the_host_alone(
    commands: Commands, ansible: FakeAnsible, inventory: Path
) -> None:
    before = (inventory / "hosts.yml").read_text()
    words = ["add-node", "node-2", "--address", "10.0.0.12", "--user", "ada", "--var", "rack=7"]
    done = commands("cluster", *words)
    assert done.code == 0
    hosts = (inventory / "hosts.yml").read_text()
    assert hosts.startswith(before)
    runners = yaml.safe_load(hosts)["hakuriver"]["children"]["hakuriver_runners"]["hosts"]
    assert runners["node-2"] == {"ansible_host": "10.0.0.12", "ansible_user": "ada", "rack": 7}
    (job,) = ansible.jobs
    assert (job.playbook, job.arguments[:2]) == (
        "playbooks/add-node.yml",
        ["--limit", "node-2,hakuriver_host"],
    )
    assert commands("cluster", *words).code == 0
    assert (inventory / "hosts.yml").read_text() == hosts


@pytest.mark.parametrize("extra", [["--check"], []])
def test_add_node_leaves_no_machine_that_was_never_reached(
    commands: Commands, ansible: FakeAnsible, inventory: Path, extra: list[str]
) -> None:
    ansible.results = {"Gather": {"node-2": UNREACHABLE}}
    before = (inventory / "hosts.yml").read_text()
    assert commands("cluster", "add-node", "node-2", *extra).code == 6
    assert (inventory / "hosts.yml").read_text() == before


def test_add_node_keeps_one_that_is_half_set_up(
    commands: Commands, ansible: FakeAnsible, inventory: Path
) -> None:
    ansible.results = {"One": {"node-2": {"changed": True}}, "Two": {"node-2": {"failed": True, "msg": "no"}}}
    assert commands("cluster", "add-node", "node-2").code == 1
    assert "node-2:" in (inventory / "hosts.yml").read_text()


def test_remove_node_takes_the_machine_out_when_it_is_gone(
    commands: Commands, ansible: FakeAnsible, inventory: Path
) -> None:
    assert commands("cluster", "remove-node", "node-1", "--yes").code == 0
    assert ansible.jobs[0].arguments == ["--limit", "node-1"]
    assert "node-1" not in (inventory / "hosts.yml").read_text()


def test_remove_node_leaves_the_host_as_the_host(
    commands: Commands, ansible: FakeAnsible, inventory: Path
) -> None:
    hosts = inventory / "hosts.yml"
    before = hosts.read_text()
    hosts.write_text(before.replace("        node-1:", "        head:\n        node-1:"))
    done = commands("cluster", "remove-node", "head", "--yes")
    assert done.code == 0
    assert "it goes on as the Host" in done.err
    assert ansible.jobs[0].arguments == ["--limit", "head"]
    assert hosts.read_text() == before


def test_remove_node_says_how_long_tasks_may_take(commands: Commands, ansible: FakeAnsible) -> None:
    seen = Seen(ansible)
    assert commands("cluster", "remove-node", "node-1", "--yes", "--timeout", "2h", "--kill").code == 0
    assert seen.variables == {"hakuriver_remove_timeout": "7200s", "hakuriver_remove_kill": True}


def test_remove_node_keeps_it_when_it_failed(
    commands: Commands, ansible: FakeAnsible, inventory: Path
) -> None:
    ansible.results = {"Drain": {"node-1": {"failed": True, "msg": "tasks run"}}}
    assert commands("cluster", "remove-node", "node-1", "--yes").code == 1
    assert "node-1" in (inventory / "hosts.yml").read_text()


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["remove-node", "node-1"], 2, "--yes"),
        (["remove-node", "node-9", "--yes"], 3, "no machine node-9"),
        (["remove-node", "head", "--yes"], 3, "head is no Runner in the inventory"),
        (["reset"], 2, "--yes"),
        (["restore", "/nowhere.tar.gz", "--yes"], 2, "there is no /nowhere.tar.gz"),
        (["deploy", "--wheel", "/nowhere.whl"], 2, "there is no"),
        (["deploy", "--wheel", "a", "--bundle", "b"], 2, "exclude"),
        (["deploy", "--inventory", "/nowhere"], 3, "cluster init"),
        (["add-node", "n", "--var", "x"], 2, "name=value"),
        (["add-node", "a b"], 2, "no name for a machine"),
        (["rotate", "everything"], 2, "WHAT"),
    ],
)
def test_what_is_refused_before_anything_is_played(
    commands: Commands, ansible: FakeAnsible, words: list[str], code: int, told: str
) -> None:
    done = commands("cluster", *words)
    assert (done.code, ansible.jobs) == (code, [])
    assert told in done.err
    assert "hint: " in done.err


def test_where_a_backup_lies_is_told(commands: Commands, ansible: FakeAnsible, inventory: Path) -> None:
    backups = inventory / ".hakuriver" / "backups"
    backups.mkdir(parents=True, mode=0o700)
    for name in ("host-20260101T000000Z.tar.gz", "host-20260102T000000Z.tar.gz"):
        (backups / name).touch()
    assert f"it is in {backups}/host-20260102T000000Z.tar.gz" in commands("cluster", "backup").err


def test_a_restore_names_the_file(commands: Commands, ansible: FakeAnsible, tmp_path: Path) -> None:
    copy = tmp_path / "copy.tar.gz"
    copy.touch()
    seen = Seen(ansible)
    assert commands("cluster", "restore", str(copy), "--yes").code == 0
    assert seen.variables == {"hakuriver_restore_file": str(copy)}


def test_a_bundle_is_installed_from(commands: Commands, ansible: FakeAnsible, tmp_path: Path) -> None:
    (tmp_path / "bundle" / "wheels").mkdir(parents=True)
    (tmp_path / "bundle" / "packages").mkdir()
    seen = Seen(ansible)
    assert commands("cluster", "deploy", "--bundle", str(tmp_path / "bundle")).code == 0
    assert seen.variables["hakuriver_install_source"] == "wheelhouse"
    assert seen.variables["hakuriver_install_wheelhouse"] == str(tmp_path / "bundle" / "wheels")
    assert seen.variables["docker_source"] == "packages"


def test_without_ansible_one_line_says_how_to_install_it(
    commands: Commands, inventory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(port, "_program", lambda _: None)
    done = commands("cluster", "deploy", "--inventory", str(inventory))
    assert done.code == 1
    assert "Ansible is not installed: ansible-runner, ansible-playbook, ansible-inventory" in done.err
    assert "pip install 'hakuriver-cluster[deploy]'" in done.err


LISTING = {
    "_meta": {
        "hostvars": {
            "head": {"ansible_host": "10.0.0.1"},
            "node-1": {"ansible_host": "10.0.0.11"},
            "node-2": {},
        }
    },
    "hakuriver_host": {"hosts": ["head"]},
    "hakuriver_runners": {"hosts": ["node-1"], "children": ["gpus"]},
    "gpus": {"hosts": ["node-2"]},
}


def test_status_compares_the_inventory_with_the_host(
    commands: Commands, ansible: FakeAnsible, host: FakeHost, inventory: Path
) -> None:
    commands("cluster", "deploy")
    ansible.listing = LISTING
    host.on("GET", "/api/cluster", CLUSTER)
    host.on("GET", "/api/nodes", [node("node-1"), node("node-7")])
    done = commands("cluster", "status", "-o", "json")
    assert done.code == 1
    rows = {row["name"]: row for row in done.json["machines"]}
    assert {name: row["state"] for name, row in rows.items()} == {
        "head": "online",
        "node-1": "online",
        "node-2": "missing",
        "node-7": "stray",
    }
    assert rows["node-1"]["role"] == "runner"
    assert done.json["deployments"][0]["what"] == "deploy"
    assert done.json["lock"] is None
    table = commands("cluster", "status")
    assert "deploy" in table.out
    assert f"inventory: {inventory / 'hosts.yml'}" in table.err


def test_status_asks_with_what_the_deployment_fetched(
    commands: Commands,
    ansible: FakeAnsible,
    host: FakeHost,
    inventory: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (inventory / ".hakuriver").mkdir(mode=0o700)
    (inventory / ".hakuriver" / "admin.token").write_text("fetched\n")
    transport = httpx.MockTransport(host)
    monkeypatch.setattr("hakuriver.client.Client", functools.partial(Client, transport=transport))
    ansible.listing = {
        "_meta": {"hostvars": {"head": {"ansible_host": "10.0.0.1"}, "node-1": {}}},
        "hakuriver_host": {"hosts": ["head"]},
        "hakuriver_runners": {"hosts": ["node-1"]},
    }
    host.on("GET", "/api/cluster", CLUSTER)
    host.on("GET", "/api/nodes", [node("node-1")])
    done = commands("cluster", "status", "-o", "json")
    assert done.code == 0, done.err
    assert done.json["host_url"] == "https://10.0.0.1:8000"
    assert {request.url.host for request in host.asked} == {"10.0.0.1"}
    assert {request.headers["authorization"] for request in host.asked} == {"Bearer fetched"}


def test_status_without_a_host_shows_what_is_known(
    commands: Commands, ansible: FakeAnsible, host: FakeHost
) -> None:
    ansible.listing = LISTING
    done = commands("cluster", "status")
    assert done.code == 1
    assert "the Host was not asked" in done.err
    assert "unknown" in done.out


CLUSTER = ClusterStatus(
    version="0.3.0",
    nodes_online=1,
    nodes_total=2,
    cores_total=1,
    cores_in_use=0,
    memory_total_bytes=1,
    memory_in_use_bytes=0,
    tasks={},
    default_environment="x",
    default_environment_ready=True,
)


def node(name: str) -> NodeInfo:
    return NodeInfo(
        hostname=name,
        status=NodeState.ONLINE,
        url=f"http://{name}:8001",
        version="0.3.0",
        total_cores=1,
        cores_in_use=0,
        total_memory_bytes=1,
        memory_in_use_bytes=0,
        running_tasks=0,
        schedulable=True,
        engines=[],
        available_cores=1,
        available_memory_bytes=1,
    )
