"""What deployments rely on, kept by the double of Ansible and by the real ansible-runner alike."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from hakuriver.errors import HakuRiverError
from hakuriver_cli.deploy import events, processes
from hakuriver_cli.deploy.events import Event, Kind
from hakuriver_cli.deploy.fake import FakeAnsible
from hakuriver_cli.deploy.outcome import Status, Tally
from hakuriver_cli.deploy.play import Secret, inventory_arguments
from hakuriver_cli.deploy.port import Ansible, AnsibleRunner, End, Job, Message
from support.waiting import until

NODES = ("node-1", "node-2")
PLAYBOOK = """\
- name: A play
  hosts: all
  gather_facts: false
  tasks:
    - name: Look
      ansible.builtin.debug:
        msg: seen
    - name: Change
      ansible.builtin.command: "true"
      changed_when: inventory_hostname == 'node-1'
    - name: Break
      ansible.builtin.command: sh -c 'echo broken >&2; exit 3'
      when: inventory_hostname == 'node-2'
"""
STORY: dict[str, dict[str, dict[str, Any]]] = {
    "Look": {"node-1": {}, "node-2": {}},
    "Change": {"node-1": {"changed": True}, "node-2": {}},
    "Break": {
        "node-1": {"skipped": True},
        "node-2": {
            "failed": True,
            "rc": 3,
            "cmd": ["sh", "-c", "echo broken >&2; exit 3"],
            "stderr": "broken",
            "msg": "non-zero return code",
        },
    },
}
WAITS = """\
- name: A play
  hosts: node-1
  gather_facts: false
  tasks:
    - name: Change
      ansible.builtin.command: "true"
    - name: Wait
      ansible.builtin.command: sleep 300
"""


@dataclass
class Seen:
    """What a play told."""

    end: End = field(default_factory=lambda: End("none"))
    messages: list[Message] = field(default_factory=list)

    @property
    def events(self) -> list[Event]:
        return [event for event in map(events.read, self.messages) if event is not None]

    def of(self, node: str) -> list[tuple[str | None, Kind]]:
        kinds = {Kind.OK, Kind.CHANGED, Kind.SKIPPED, Kind.FAILED}
        return [
            (event.task, event.kind) for event in self.events if event.node == node and event.kind in kinds
        ]


class Rig:
    """Plays a text on one of the two."""

    def __init__(self, folder: Path, real: bool) -> None:
        self.folder = folder
        self.real = real
        (folder / "playbooks").mkdir()
        (folder / "ansible.cfg").touch()
        (folder / "private").mkdir()
        self.hosts = folder / "hosts.yml"
        local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        self.hosts.write_text(json.dumps({"all": {"hosts": dict.fromkeys(NODES, local)}}))

    def job(self, playbook: str, **more: Any) -> Job:
        (self.folder / "playbooks" / "p.yml").write_text(playbook)
        return Job(
            self.folder,
            "playbooks/p.yml",
            self.hosts,
            more.pop("arguments", []),
            self.folder / "private",
            **more,
        )

    def ansible(self, **story: Any) -> Ansible:
        return AnsibleRunner(self.folder) if self.real else FakeAnsible(**story)


@pytest.fixture(params=["fake", "real"])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Rig:
    return Rig(tmp_path, request.param == "real")


def play(ansible: Ansible, job: Job, also: Callable[[Message], None] = lambda _: None) -> Seen:
    seen = Seen()

    def take(message: Message) -> None:
        seen.messages.append(message)
        also(message)

    seen.end = ansible.play(job, take)
    return seen


def test_every_node_and_task_is_told_in_order(rig: Rig) -> None:
    seen = play(rig.ansible(results=STORY), rig.job(PLAYBOOK))
    assert seen.of("node-1") == [("Look", Kind.OK), ("Change", Kind.CHANGED), ("Break", Kind.SKIPPED)]
    assert seen.of("node-2") == [("Look", Kind.OK), ("Change", Kind.OK), ("Break", Kind.FAILED)]
    assert [event.play for event in seen.events if event.kind is Kind.PLAY] == ["A play"]
    started = [event.task for event in seen.events if event.kind is Kind.START and event.node == "node-2"]
    assert started == ["Look", "Change", "Break"]
    assert seen.end.status == "failed"


def test_a_failure_explains_itself_and_the_counts_agree(rig: Rig) -> None:
    seen = play(rig.ansible(results=STORY), rig.job(PLAYBOOK))
    tally = Tally()
    for event in seen.events:
        tally.take(event)
    status, nodes, (failure,) = tally.finish(seen.end, interrupted=False)
    assert status is Status.FAILED
    assert {node.node: (str(node.status), node.counts.changed) for node in nodes} == {
        "node-1": ("ok", 1),
        "node-2": ("failed", 0),
    }
    assert failure.nodes == ["node-2"]
    assert "ended with exit code 3: broken" in failure.message
    assert tally.counts == {node.node: node.counts for node in nodes}


def test_a_play_without_failure_is_successful(rig: Rig) -> None:
    story = {"Look": STORY["Look"]}
    head = PLAYBOOK.partition("    - name: Change")[0]
    assert play(rig.ansible(results=story), rig.job(head)).end.status == "successful"


def test_what_is_stopped_ends_soon_and_says_what_was_done(rig: Rig) -> None:
    ansible = rig.ansible(results={"Change": {"node-1": {"changed": True}}, "Wait": {}}, waits=True)
    pids: list[int] = []

    def stop_in_the_second_task(message: Message) -> None:
        if message.get("event") == "playbook_on_task_start" and message["event_data"]["task"] == "Wait":
            pids.append(int(message["pid"]))
            threading.Timer(0.3, ansible.stop).start()

    before = set(processes.descendants(os.getpid()))
    seen = play(ansible, rig.job(WAITS), stop_in_the_second_task)
    assert ("Change", Kind.CHANGED) in seen.of("node-1")
    assert seen.end.status != "successful"
    if rig.real:
        until(lambda: before >= set(processes.descendants(os.getpid())), "nothing that it started lives on")


# What follows is of the real one alone.


@pytest.fixture
def real(tmp_path: Path) -> Rig:
    return Rig(tmp_path, real=True)


def test_a_password_reaches_its_prompt_and_stays_in_no_file(real: Rig) -> None:
    head = PLAYBOOK.partition("    - name: Change")[0]
    job = real.job(head, arguments=["--ask-become-pass"], passwords={Secret.BECOME.prompt: "hunter2"})
    during: list[str] = []

    def look(_message: Message) -> None:
        for path in real.folder.rglob("*"):
            # The runner renames and removes its files meanwhile.
            with suppress(FileNotFoundError):
                if path.is_file() and b"hunter2" in path.read_bytes():
                    during.append(path.name)

    seen = play(AnsibleRunner(real.folder), job, look)
    assert seen.end.status == "successful"
    assert any("BECOME password" in events.plain(message) for message in seen.messages)
    assert during == []
    assert not any("hunter2" in json.dumps(message) for message in seen.messages)


def test_the_inventory_is_read_as_ansible_reads_it(real: Rig) -> None:
    found = AnsibleRunner(real.folder).inventory(inventory_arguments(real.hosts))
    assert set(found["_meta"]["hostvars"]) == set(NODES)
    real.hosts.write_text("a: [")
    with pytest.raises(HakuRiverError, match="cannot be read"):
        AnsibleRunner(real.folder).inventory([*inventory_arguments(real.hosts), "--nonsense"])


def test_a_playbook_that_is_none_ends_with_words(real: Rig) -> None:
    seen = play(AnsibleRunner(real.folder), real.job("- name: x\n  hosts: [\n"))
    assert seen.end.status == "failed"
    assert any(event.kind is Kind.MESSAGE for event in seen.events)


def test_no_further_task_is_begun_when_the_command_is_killed(real: Rig) -> None:
    real.job(WAITS)
    program = (
        "import sys; from pathlib import Path; from hakuriver_cli.deploy.port import AnsibleRunner, Job\n"
        "folder = Path(sys.argv[1])\n"
        "def take(m): print(m.get('event'), m.get('event_data', {}).get('task'), flush=True)\n"
        "AnsibleRunner(folder).play(Job(folder, 'playbooks/p.yml', folder / 'hosts.yml', [], folder / 'private'), take)"
    )
    command = subprocess.Popen(
        [sys.executable, "-c", program, str(real.folder)], stdout=subprocess.PIPE, text=True
    )
    assert command.stdout is not None
    until(lambda: "runner_on_start Wait" in command.stdout.readline(), "the task runs", 60)
    worker, playbook, *task = processes.descendants(command.pid)
    command.send_signal(signal.SIGKILL)
    command.communicate()
    try:
        until(lambda: not any(map(processes.started, (worker, playbook))), "no further task is begun")
    finally:
        processes.end(pid for known in task for pid in (known, *processes.descendants(known)))
