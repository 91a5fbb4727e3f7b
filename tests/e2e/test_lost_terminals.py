"""Terminals over connections that are lost: what was written and typed comes once, and nobody else gets in."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import ServerConnection, serve

from hakuriver.models.environments import TerminalStart
from hakuriver.states import NodeState, TaskState
from support import engine
from support.cluster import Cluster, running
from support.ports import free_port
from support.relay import Relay
from support.terminal import Terminal
from support.waiting import until

pytestmark = pytest.mark.docker

WAIT_SECONDS = 20
LOST = 255
_LOOPBACK = "127.0.0.1"
_RECONNECTING = "[connection lost; reconnecting"
_AGAIN = "[connected again]"


class Link(NamedTuple):
    """A cluster, and a person's way to its Host."""

    lab: Cluster
    relay: Relay

    def terminal(self, *words: str) -> Terminal:
        url = f"http://{_LOOPBACK}:{self.relay.port}"
        return Terminal({"HAKURIVER_CONFIG": str(self.lab.config), "HAKURIVER__CLIENT__URL": url}, *words)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(
        tmp_path_factory.mktemp("lost"),
        cores=32,
        containers=True,
        relays=True,
        sections={"timing": {"terminal_wait": WAIT_SECONDS}},
    )
    with running(cluster):
        yield cluster


@pytest.fixture
def link(lab: Cluster) -> Iterator[Link]:
    relay = Relay(_LOOPBACK, free_port(), (_LOOPBACK, lab.port)).start()
    try:
        yield Link(lab, relay)
    finally:
        relay.stop()


@pytest.fixture
def task(lab: Cluster) -> Iterator[int]:
    with started(lab) as task_id:
        yield task_id


@contextlib.contextmanager
def started(lab: Cluster) -> Iterator[int]:
    task_id = lab.api.submit_one("sleep", "86400", container_name=engine.ENVIRONMENT)
    try:
        lab.api.wait_state(task_id, TaskState.RUNNING)
        yield task_id
    finally:
        lab.api.kill(task_id)
        lab.api.wait_final(task_id)


@pytest.fixture
def environment(lab: Cluster) -> Iterator[str]:
    name = f"t{uuid.uuid4().hex[:10]}"
    made = lab.run("env", "create", name, "--from", engine.ENVIRONMENT)
    assert made.code == 0, made.stderr
    yield name
    lab.run("env", "delete", name)


def inside(lab: Cluster, task_id: int, script: str) -> str:
    done = lab.run("task", "exec", str(task_id), "--", "sh", "-c", script)
    assert done.code == 0, done.stderr
    return done.stdout


def sleeping(lab: Cluster, task_id: int) -> bool:
    return "sleep 4321" in inside(lab, task_id, "ps | grep -v grep")


def fall_asleep(lab: Cluster, task_id: int, terminal: Terminal) -> None:
    terminal.until("#")
    terminal.type("sleep 4321\r")
    until(lambda: sleeping(lab, task_id), "it runs")


_COUNT = "i=0; while [ $i -lt {0} ]; do i=$((i+1)); echo line-$i-; done; echo all-{0}\r"


def numbers(shown: str) -> list[int]:
    """Those of the lines shown, without what the client says between."""
    said = re.sub(r"\r\n\[connect[^]]*\]\r\n", "", shown)
    return [int(found) for found in re.findall(r"line-(\d+)-", said)]


def assert_counted(terminal: Terminal, link: Link, how: Literal["reset", "drop"], count: int) -> None:
    """It shows every number once, although the connection is lost in between.

    `count` is such that the lines are more than what may be on its way when it is cut.
    """
    terminal.until("#")
    terminal.type(_COUNT.format(count))
    shown = terminal.until("line-5000-")
    link.relay.cut(how)
    shown += "line-5000-" + terminal.until(_RECONNECTING, 60) + _RECONNECTING
    link.relay.mend()
    shown += terminal.until(f"all-{count}", 120)
    found = numbers(shown)
    assert (len(found), found == [*range(1, count + 1)]) == (count, True)
    assert _AGAIN in shown


class TestComingBack:
    @pytest.mark.parametrize("how", ["reset", "drop"])
    def test_what_a_program_writes_comes_once(
        self, link: Link, task: int, how: Literal["reset", "drop"]
    ) -> None:
        with link.terminal("task", "shell", str(task)) as terminal:
            assert_counted(terminal, link, how, 200_000)
            terminal.type("exit 9\r")
            assert terminal.code() == 9

    def test_in_an_env_container_too(self, link: Link, environment: str) -> None:
        with link.terminal("env", "shell", environment) as terminal:
            assert_counted(terminal, link, "reset", 200_000)
            terminal.type("exit 9\r")
            assert terminal.code() == 9

    def test_what_is_typed_comes_once(self, link: Link, task: int) -> None:
        keys = [f"key-{number:05} " for number in range(600)]
        length = sum(map(len, keys))
        with link.terminal("task", "shell", str(task)) as terminal:
            terminal.until("#")
            terminal.type(f"stty raw -echo; echo re''ady; head -c {length} > /tmp/typed; stty sane\r")
            terminal.until("ready")
            for number, key in enumerate(keys):
                terminal.type(key)
                if number == 200:
                    link.relay.cut("reset")
                if number == 400:
                    terminal.until(_RECONNECTING)
                    link.relay.mend()
            terminal.until(_AGAIN)
            until(lambda: inside(link.lab, task, "wc -c < /tmp/typed") == f"{length}\n", "all has come")
            assert inside(link.lab, task, "cat /tmp/typed") == "".join(keys)

    def test_the_window_s_size_is_sent_again(self, link: Link, task: int) -> None:
        with link.terminal("task", "shell", str(task)) as terminal:
            terminal.until("#")
            link.relay.cut("reset")
            terminal.until(_RECONNECTING)
            terminal.resize(33, 77)
            link.relay.mend()
            terminal.until(_AGAIN)
            terminal.type("while :; do stty size; sleep 0.1; done\r")
            terminal.until("33 77")

    def test_a_program_that_ended_meanwhile_has_its_last_words_and_code(self, link: Link, task: int) -> None:
        with link.terminal("task", "shell", str(task)) as terminal:
            terminal.until("#")
            terminal.type("until [ -e /tmp/go ]; do sleep 0.1; done; echo last-''words; exit 9\r")
            terminal.until("exit 9")
            link.relay.cut("reset")
            terminal.until(_RECONNECTING)
            inside(link.lab, task, "touch /tmp/go")
            until(lambda: "until" not in inside(link.lab, task, "ps | grep -v ps"), "it has ended")
            link.relay.mend()
            terminal.until("last-words")
            assert terminal.code() == 9

    def test_the_way_from_the_host_to_the_node_may_be_cut(self, link: Link, task: int) -> None:
        """So long that the node is offline meanwhile."""
        with link.terminal("task", "shell", str(task)) as terminal:
            terminal.until("#")
            link.lab.cut("drop")
            terminal.type("echo ty''ped\r")
            terminal.until(_RECONNECTING)
            link.lab.wait_node(NodeState.OFFLINE)
            link.lab.mend()
            terminal.until(_AGAIN)
            terminal.until("typed")
        link.lab.wait_online()

    def test_the_host_may_be_restarted(self, link: Link, task: int) -> None:
        with link.terminal("task", "shell", str(task)) as terminal:
            terminal.until("#")
            terminal.type("X=kept; i=0; while [ $i -lt 40 ]; do i=$((i+1)); echo line-$i-; sleep 0.2; done\r")
            terminal.until("line-3-")
            link.lab.host.kill()
            shown = terminal.until(_RECONNECTING)
            link.lab.start_host()
            terminal.until(_AGAIN)
            shown += terminal.until("line-40-") + "line-40-"
            assert numbers(shown) == [*range(4, 41)]
            terminal.type("echo still-$X\r")
            terminal.until("still-kept")
            terminal.type("exit\r")
            assert terminal.code() == 0


class TestNotComingBack:
    def test_it_is_lost_for_too_long(self, link: Link, task: int) -> None:
        with link.terminal("task", "shell", str(task)) as terminal:
            fall_asleep(link.lab, task, terminal)
            link.relay.cut("reset")
            terminal.until(_RECONNECTING)
            assert sleeping(link.lab, task)
            terminal.until("could not be made again within 20 s", 60)
            assert terminal.code() == LOST
            assert "Traceback" not in terminal.shown
        until(lambda: not sleeping(link.lab, task), "the program has been ended")

    @pytest.mark.parametrize("how", ["kill", "stop"])
    def test_a_runner_s_end_is_the_terminal_s(self, link: Link, task: int, how: str) -> None:
        with link.terminal("task", "shell", str(task)) as terminal:
            fall_asleep(link.lab, task, terminal)
            getattr(link.lab.node.daemon, how)()
            terminal.until(_RECONNECTING)
            link.lab.node.daemon.start()
            terminal.until("this terminal is over")
            assert terminal.code() == LOST
        link.lab.wait_online()
        # One that is killed ends nothing; then the program ends with the task.
        assert sleeping(link.lab, task) == (how == "kill")

    def test_a_host_s_end_is_that_of_env_containers_terminals(self, link: Link, environment: str) -> None:
        with link.terminal("env", "shell", environment) as terminal:
            terminal.until("#")
            link.lab.host.stop()
            terminal.until(_RECONNECTING)
            link.lab.start_host()
            terminal.until("this terminal is over")
            assert terminal.code() == LOST

    def test_the_task_has_ended_meanwhile(self, link: Link) -> None:
        with started(link.lab) as task, link.terminal("task", "shell", str(task)) as terminal:
            terminal.until("#")
            link.relay.cut("reset")
            terminal.until(_RECONNECTING)
            link.lab.api.kill(task)
            link.lab.api.wait_final(task)
            link.relay.mend()
            terminal.until("is killed")
            assert terminal.code() == LOST
            link.lab.assert_clean([task])

    def test_the_person_gives_up(self, link: Link, task: int) -> None:
        with link.terminal("task", "shell", str(task)) as terminal:
            terminal.until("#")
            link.relay.cut("reset")
            terminal.until(_RECONNECTING)
            terminal.type("\x03")
            terminal.until("is given up")
            assert terminal.code(5) == LOST

    @pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
    def test_who_closes_the_window_ends_the_program_at_once(
        self, link: Link, task: int, number: signal.Signals
    ) -> None:
        with link.terminal("task", "shell", str(task)) as terminal:
            fall_asleep(link.lab, task, terminal)
            os.kill(terminal.pid, number)
            assert terminal.code() == 128 + number
            assert "Traceback" not in terminal.shown
            until(lambda: not sleeping(link.lab, task), "the program has been ended", within=WAIT_SECONDS / 2)


class TestWhoMayComeBack:
    """With a client that looks at nothing first."""

    def test_nobody_but_who_began_it(self, lab: Cluster, task: int) -> None:
        mine = door(lab, task, admin(lab))
        mine.send(TerminalStart(argv=["cat"], resumable=True).model_dump_json())
        session = json.loads(mine.recv())["session"]
        other_admin = token(lab, "admin")
        stranger = token(lab, "user")
        mine.socket.shutdown(socket.SHUT_RDWR)
        assert "belongs to admin" in resumed(door(lab, task, stranger), session)["message"]
        assert "is over" in resumed(door(lab, task, other_admin), session)["message"]
        with started(lab) as elsewhere:
            assert "is over" in resumed(door(lab, elsewhere, admin(lab)), session)["message"]
        assert "is over" in resumed(door(lab, task, admin(lab)), "0" * 32)["message"]
        assert resumed(door(lab, task, admin(lab)), "x" * 32)["error"] == "usage"
        again = door(lab, task, admin(lab))
        assert resumed(again, session) == {"type": "resumed", "received": 0}
        again.send(b"hello\r")
        assert b"hello" in again.recv()
        again.close()

    def test_who_comes_later_takes_it_over(self, lab: Cluster, task: int) -> None:
        first = door(lab, task, admin(lab))
        first.send(TerminalStart(argv=["cat"], resumable=True).model_dump_json())
        session = json.loads(first.recv())["session"]
        second = door(lab, task, admin(lab))
        assert resumed(second, session)["type"] == "resumed"
        assert "another connection" in json.loads(first.recv())["message"]
        second.send(b"hello\r")
        assert b"hello" in second.recv()
        second.close()


def test_who_is_shut_out_ends_the_program_at_once(lab: Cluster, tmp_path: Path) -> None:
    key = tmp_path / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    made = lab.run("vps", "create", "--name", "ours", "--public-key-file", f"{key}.pub", "-o", "name")
    assert made.code == 0, made.stderr
    task_id = int(made.stdout)
    try:
        lab.api.wait_state(task_id, TaskState.RUNNING)
        guest = token(lab, "user")
        name = str(lab.api_as(guest).json("GET", "/api/whoami")["name"])
        assert lab.run("vps", "share", "ours", name).code == 0
        began = TerminalStart(argv=["sleep", "4321"], resumable=True).model_dump_json()
        connection = door(lab, task_id, guest)
        connection.send(began)
        session = json.loads(connection.recv())["session"]
        until(lambda: sleeping(lab, task_id), "it runs")
        connection.socket.shutdown(socket.SHUT_RDWR)
        connection = door(lab, task_id, guest)
        assert resumed(connection, session)["type"] == "resumed"
        assert lab.run("vps", "unshare", "ours", name).code == 0
        assert "let in no more" in json.loads(connection.recv())["message"]
        until(lambda: not sleeping(lab, task_id), "it has been ended", within=WAIT_SECONDS / 2)
        assert "belongs to admin" in resumed(door(lab, task_id, guest), session)["message"]
    finally:
        lab.api.kill(task_id)
        lab.api.wait_final(task_id)


def door(lab: Cluster, task_id: int, bearer: str) -> ClientConnection:
    url = f"ws{lab.url.removeprefix('http')}/api/tasks/{task_id}/terminal"
    return connect(url, additional_headers={"Authorization": f"Bearer {bearer}"}, close_timeout=1)


def resumed(connection: ClientConnection, session: str) -> dict[str, Any]:
    """What is answered."""
    with contextlib.suppress(ConnectionClosed):  # Whoever may not enter is told so before.
        connection.send(json.dumps({"session": session, "received": 0}))
    answer: dict[str, Any] = json.loads(connection.recv(timeout=30))
    return answer


def admin(lab: Cluster) -> str:
    return (lab.state_dir / "admin.token").read_text("utf-8").strip()


def token(lab: Cluster, role: str) -> str:
    name = f"u{uuid.uuid4().hex[:8]}"
    lab.api.json("POST", "/api/users", json={"name": name, "role": role})
    return str(lab.api.json("POST", "/api/tokens", json={"user": name})["token"])


def test_an_earlier_host_is_asked_anew_without_what_it_does_not_know(lab: Cluster) -> None:
    """It refuses what it does not know before it starts anything, and knows of no sessions."""
    asked: list[dict[str, Any]] = []

    def serve_one(connection: ServerConnection) -> None:
        asked.append(json.loads(connection.recv()))
        if "resumable" in asked[-1]:
            error = {"type": "error", "error": "usage", "message": "a terminal begins with what to run"}
            connection.send(json.dumps(error))
            connection.close(4400, "a terminal begins with what to run")
            return
        connection.send(b"old ways")
        while not isinstance(message := connection.recv(), bytes):
            continue
        connection.send(b"<" + message + b">")
        connection.send(json.dumps({"type": "exit", "code": 9}))

    with serve(serve_one, _LOOPBACK, 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://{_LOOPBACK}:{server.socket.getsockname()[1]}"
        environment = {"HAKURIVER_CONFIG": str(lab.config), "HAKURIVER__CLIENT__URL": url}
        with Terminal(environment, "task", "shell", "1") as terminal:
            terminal.until("old ways")
            terminal.type("keys")
            terminal.until("<keys>")
            assert terminal.code() == 9
        server.shutdown()
    assert [first.get("resumable") for first in asked] == [True, None]
