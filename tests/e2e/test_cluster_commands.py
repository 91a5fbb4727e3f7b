"""`hakuriver cluster` as a person runs it, with the real Ansible on nodes that are this machine."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from hakuriver_cli.deploy import content, history, lock, processes
from support.commands import Commands, Result
from support.ports import free_port
from support.waiting import until

HEAD = "- name: Set it up\n  hosts: all\n  gather_facts: false\n  tasks:\n"
LOOK = '    - {name: Look, ansible.builtin.command: "true", changed_when: false}\n'
CHANGE = "    - {name: Change, ansible.builtin.command: 'true'}\n"
WAIT = "    - {name: Wait, ansible.builtin.command: sleep 300}\n"


class Lab:
    """An inventory, playbooks of the test's own, and the command."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.inventory = folder / "lab"
        self.controller = self.inventory / ".hakuriver"
        self.ansible = folder / "ansible"
        (self.ansible / "playbooks").mkdir(parents=True)
        (self.ansible / "ansible.cfg").touch()
        (self.inventory / "group_vars").mkdir(parents=True)
        self.hosts(head={}, **{"node-1": {}})
        self.run = Commands(
            {
                "HOME": str(folder),
                "HAKURIVER_INVENTORY": str(self.inventory),
                content.VARIABLE: str(self.ansible),
                "HAKURIVER_CONFIG": str(folder / "none.toml"),
            }
        )
        (folder / "none.toml").touch()

    def hosts(self, **machines: Mapping[str, object]) -> None:
        local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        hosts = {name: own or local for name, own in machines.items()}
        runners = {name: None for name in hosts if name != "head"}
        groups = {
            "hakuriver_host": {"hosts": {"head": hosts["head"]}},
            "hakuriver_runners": {"hosts": runners},
        }
        text = {"all": {"hosts": hosts}, "hakuriver": {"children": groups}}
        (self.inventory / "hosts.yml").write_text(json.dumps(text))

    def playbook(self, text: str, name: str = "site") -> None:
        (self.ansible / "playbooks" / f"{name}.yml").write_text(text)

    def cluster(self, *words: str) -> Result:
        return self.run("cluster", *words, within=120)

    def in_the_task(self, task: str, *words: str) -> subprocess.Popen[bytes]:
        """Starts a command, and comes back when the task has begun."""
        process = self.run.start("cluster", *words)
        until(lambda: task in self.output(), lambda: f"{task} has begun: {self.output()}", 60)
        return process

    def output(self) -> str:
        return "".join(path.read_text() for path in self.controller.glob("history/*/output.txt"))

    def outcomes(self) -> list[str]:
        return [str(found.status) for found in history.deployments(self.controller)]


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def test_a_deployment_is_told_by_node_and_task(lab: Lab) -> None:
    lab.playbook(HEAD + LOOK + CHANGE)
    done = lab.cluster("deploy")
    assert done.code == 0, done.stderr
    assert [line.split()[:4] for line in done.stdout.splitlines()[1:]] == [
        ["head", "ok", "2", "1"],
        ["node-1", "ok", "2", "1"],
    ]
    assert "== Set it up" in done.stderr
    assert re.search(r"^Look .*… ok: head node-1$", done.stderr, re.MULTILINE)
    assert re.search(r"^Change .*… changed: head node-1$", done.stderr, re.MULTILINE)
    assert lab.outcomes() == ["ok"]


def test_json_has_the_outcome_and_its_events(lab: Lab) -> None:
    lab.playbook(HEAD + CHANGE)
    outcome = lab.cluster("deploy", "--limit", "node-1", "-o", "json").json()
    assert (outcome["status"], [node["node"] for node in outcome["nodes"]]) == ("ok", ["node-1"])
    assert {"kind": "changed", "node": "node-1", "task": "Change"}.items() <= outcome["events"][2].items()


def test_a_look_ahead_shows_how_files_would_change_and_changes_none(lab: Lab) -> None:
    target = lab.folder / "{{ inventory_hostname }}.txt"
    lab.playbook(HEAD + f"    - {{name: Write, ansible.builtin.copy: {{content: new, dest: '{target}'}}}}\n")
    (lab.folder / "head.txt").write_text("old\n")
    done = lab.cluster("deploy", "--check", "--diff")
    assert done.code == 0, done.stderr
    lines = done.stderr.splitlines()
    assert {"head: -old", "head: +new", "node-1: +new"} <= set(lines)
    assert "changed: head node-1" in done.stderr
    assert (lab.folder / "head.txt").read_text() == "old\n"
    assert not (lab.folder / "node-1.txt").exists()


def broken(lab: Lab) -> None:
    lab.playbook(HEAD + "    - {name: Break, ansible.builtin.command: sh -c 'echo no luck >&2; exit 3'}\n")


def asserted(lab: Lab) -> None:
    said = '"port 8000 is taken\\nhint: end nginx"'
    lab.playbook(HEAD + f"    - {{name: Ask, ansible.builtin.assert: {{that: false, fail_msg: {said}}}}}\n")


def unreachable(lab: Lab) -> None:
    lab.playbook(HEAD + CHANGE)
    nowhere = {"ansible_host": "127.0.0.1", "ansible_port": free_port()}
    lab.hosts(head=nowhere, **{"node-1": nowhere})


def without_python(lab: Lab) -> None:
    lab.playbook(HEAD + CHANGE)
    none = {"ansible_connection": "local", "ansible_python_interpreter": "/usr/bin/python9"}
    lab.hosts(head=none, **{"node-1": none})


def undefined(lab: Lab) -> None:
    lab.playbook(HEAD + '    - {name: Name, ansible.builtin.debug: {msg: "{{ hakuriver_nme }}"}}\n')


def in_a_vault(lab: Lab) -> None:
    lab.playbook(HEAD + CHANGE)
    vault = "$ANSIBLE_VAULT;1.1;AES256\n" + "61" * 40 + "\n"
    (lab.inventory / "group_vars" / "all.yml").write_text(vault)


def no_yaml(lab: Lab) -> None:
    lab.playbook(HEAD + CHANGE)
    (lab.inventory / "group_vars" / "all.yml").write_text("a: b: c\n")


def no_yaml_of_machines(lab: Lab) -> None:
    lab.playbook(HEAD + CHANGE)
    (lab.inventory / "hosts.yml").write_text("all:\n  hosts: [\n")


def twice(lab: Lab) -> None:
    lab.playbook(HEAD + CHANGE)
    (lab.inventory / "hosts.yml").write_text("all:\n  hosts:\n    n1:\n    n2:\n    n1:\n")


def variable_twice(lab: Lab) -> None:
    lab.playbook(HEAD + CHANGE)
    (lab.inventory / "group_vars" / "all.yml").write_text("a: 1\nb: 2\na: 3\n")


def nobody(lab: Lab) -> None:
    lab.playbook((HEAD + CHANGE).replace("hosts: all", "hosts: hakuriver_gpu"))


@pytest.mark.parametrize(
    ("arrange", "code", "what", "hint"),
    [
        (broken, 1, "head, node-1: `sh -c echo no luck >&2; exit 3` ended with exit code 3", "cluster logs"),
        (asserted, 1, "head, node-1: port 8000 is taken (in: Ask)", "end nginx"),
        (unreachable, 6, "head, node-1: nothing answers to ssh at its address", "start sshd"),
        (without_python, 1, "there is no Python that Ansible can use", "apt-get install python3"),
        (undefined, 1, "the variable hakuriver_nme is not set", "group_vars"),
        (in_a_vault, 1, "the inventory holds vault secrets", "--ask-vault-pass"),
        (no_yaml, 1, "the inventory is no YAML: group_vars/all.yml, line 1: mapping values", "correct"),
        (no_yaml_of_machines, 1, "the inventory is no YAML: hosts.yml, line 3: ", "correct"),
        (twice, 1, "has a name twice: hosts.yml, line 5: n1, which line 3 has already", "of its own"),
        (variable_twice, 1, "twice: group_vars/all.yml, line 3: a, which line 1 has already", "of its own"),
        (nobody, 1, "no node of the inventory is meant", "cluster status"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_failure_says_which_node_what_and_what_to_do(
    lab: Lab, arrange: Callable[[Lab], None], code: int, what: str, hint: str
) -> None:
    arrange(lab)
    done = lab.cluster("deploy")
    assert done.code == code, done.stderr
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    hints = [line for line in done.stderr.splitlines() if line.startswith("hint: ")]
    assert len(errors) == len(hints) == 1, done.stderr
    assert what in errors[0]
    assert hint in hints[0]
    assert lab.outcomes() == ["failed"]


def test_a_limit_that_means_nobody_is_told(lab: Lab) -> None:
    lab.playbook(HEAD + CHANGE)
    done = lab.cluster("deploy", "--limit", "node-9")
    assert done.code == 1
    assert "no node of the inventory is meant" in done.stderr


def test_ctrl_c_stops_soon_gives_the_lock_back_and_can_be_gone_on_from(lab: Lab) -> None:
    lab.playbook(HEAD + CHANGE + WAIT)
    process = lab.in_the_task("TASK [Wait]", "deploy")
    assert lock.holder(lab.controller) is not None
    assert lab.cluster("deploy").code == 5
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"stopped; changed: head (1), node-1 (1)" in said
    assert lock.holder(lab.controller) is None
    assert lab.outcomes() == ["interrupted"]
    lab.playbook(HEAD + LOOK)
    assert lab.cluster("deploy").code == 0


def test_one_that_was_killed_is_told_and_followed(lab: Lab) -> None:
    lab.playbook(HEAD + WAIT)
    process = lab.in_the_task("TASK [Wait]", "deploy")
    below = processes.descendants(process.pid)
    process.kill()
    process.communicate()
    until(lambda: not processes.started(below[0]), "its worker has ended")
    processes.end(pid for known in below for pid in (known, *processes.descendants(known)))
    lab.playbook(HEAD + LOOK)
    done = lab.cluster("deploy")
    assert done.code == 0
    assert "the last deployment was broken off" in done.stderr
    assert lab.outcomes() == ["ok", "running"]
    rows = lab.cluster("status", "-o", "json").json()["deployments"]
    assert [row["status"] for row in rows] == ["ok", "broken off"]


def test_a_vault_is_opened_by_a_file(lab: Lab) -> None:
    secret = lab.folder / "secret"
    secret.write_text("hunter2\n")
    variables = lab.inventory / "group_vars" / "all.yml"
    variables.write_text("colour: vermilion\n")
    vault = Path(sys.executable).parent / "ansible-vault"
    subprocess.run(
        [vault, "encrypt", "--vault-password-file", secret, variables], check=True, capture_output=True
    )
    lab.playbook(HEAD + "    - {name: Ask, ansible.builtin.assert: {that: \"colour == 'vermilion'\"}}\n")
    assert lab.cluster("deploy", "--vault-password-file", str(secret)).code == 0
    asked = subprocess.run(
        [Path(sys.executable).parent / "hakuriver", "cluster", "deploy", "--ask-vault-pass"],
        input="hunter2\n",
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
        env=lab.run._environment,
    )
    assert asked.returncode == 0, asked.stderr
    assert not any("hunter2" in path.read_text() for path in lab.controller.rglob("*") if path.is_file())


def test_an_added_machine_is_written_played_and_removed_again(lab: Lab) -> None:
    made = lab.cluster(
        "init", str(lab.folder / "new"), "--non-interactive", "--host", "head", "--runner", "node-1"
    )
    assert made.code == 0, made.stderr
    where = ("--inventory", str(lab.folder / "new"))
    for name in ("add-node", "remove-node"):
        lab.playbook((HEAD + CHANGE).replace("hosts: all", "hosts: hakuriver_runners"), name)
    own = ("--var", "ansible_connection=local", "--var", f"ansible_python_interpreter={sys.executable}")
    hosts = lab.folder / "new" / "hosts.yml"
    before = hosts.read_text()
    done = lab.cluster("add-node", "node-2", *own, *where)
    assert done.code == 0, done.stderr
    assert done.stdout.split()[5:7] == ["node-2", "ok"]
    assert "node-2:" in hosts.read_text()
    assert lab.cluster("remove-node", "node-2", "--yes", *where).code == 0
    assert hosts.read_text() == before
