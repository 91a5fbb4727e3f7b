"""The way into running tasks: shells, commands and ports, with a real engine, for the owner alone."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.sync.client import connect

from hakuriver.states import TaskState
from hakuriver_agent.engines.docker_request import container_name
from support import engine
from support.cluster import Cluster, running
from support.commands import Commands
from support.daemons import clean_environment
from support.ports import free_port
from support.terminal import Terminal
from support.waiting import until

pytestmark = pytest.mark.docker

NOT_FOUND, DENIED, CONFLICT, INTERRUPTED = 3, 4, 5, 130
_SITE = "mkdir /tmp/site; echo {text} > /tmp/site/index.html; exec httpd -f -p {listen} -h /tmp/site"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running(Cluster(tmp_path_factory.mktemp("doors"), cores=32, containers=True)) as cluster:
        yield cluster


@pytest.fixture
def task(lab: Cluster) -> Iterator[int]:
    with started(lab, "sleep 86400") as task_id:
        yield task_id


@contextlib.contextmanager
def started(lab: Cluster, script: str, **fields: object) -> Iterator[int]:
    task_id = lab.api.submit_one(
        "sh", "-c", script, **{"container_name": engine.ENVIRONMENT, "env_vars": {"MINE": "a b"}, **fields}
    )
    try:
        lab.api.wait_state(task_id, TaskState.RUNNING)
        yield task_id
    finally:
        lab.api.kill(task_id)
        lab.api.wait_final(task_id)


def inside(lab: Cluster, task_id: int, script: str) -> str:
    done = lab.run("task", "exec", str(task_id), "--", "sh", "-c", script)
    assert done.code == 0, done.stderr
    return done.stdout


@contextlib.contextmanager
def forwarded(commands: Commands, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """`hakuriver forward`, and the first port that it says it listens on."""
    process = commands.start("forward", *arguments)
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline().decode()
        found = re.match(r"127\.0\.0\.1:(\d+) is port", line)
        assert found, line or process.stderr.read()
        yield process, int(found[1])
    finally:
        process.kill()
        process.wait()


class TestTerminals:
    def test_a_command_has_its_output_errors_input_and_code(self, lab: Cluster, task: int) -> None:
        done = lab.run(
            "task", "exec", "-w", "/tmp", "-e", "A=b c", str(task), "--",
            "sh", "-c", 'pwd; echo "$A $MINE $HAKURIVER_TASK_ID" >&2; exit 7',
        )  # fmt: skip
        assert (done.code, done.stdout, done.stderr) == (7, "/tmp\n", f"b c a b {task}\n")
        data = os.urandom(3_000_000)
        process = lab.run.start("task", "exec", "-i", str(task), "--", "sha256sum", stdin=subprocess.PIPE)
        output, errors = process.communicate(data, timeout=60)
        assert process.returncode == 0, errors
        assert output.decode().startswith(hashlib.sha256(data).hexdigest())

    @pytest.mark.parametrize("command", [("task", "shell"), ("connect",)], ids=" ".join)
    def test_a_shell_is_a_real_terminal(self, lab: Cluster, task: int, command: tuple[str, ...]) -> None:
        environment = {"HAKURIVER_CONFIG": str(lab.config)}
        with Terminal(environment, *command, str(task), rows=31, columns=97) as terminal:
            terminal.until("#")
            terminal.type("sh -c 'while :; do stty size; sleep 0.1; done'\r")
            terminal.until("31 97")
            terminal.resize(40, 120)
            terminal.until("40 120")
            terminal.type("\x03")
            terminal.until("#")
            terminal.type("exit 9\r")
            assert terminal.code() == 9

    def test_one_is_who_the_task_is(self, lab: Cluster) -> None:
        with started(lab, "sleep 86400", user="1234:2345") as task_id:
            assert inside(lab, task_id, "id -u; id -g") == "1234\n2345\n"

    def test_a_client_that_vanishes_leaves_nothing_running(self, lab: Cluster, task: int) -> None:
        with Terminal({"HAKURIVER_CONFIG": str(lab.config)}, "task", "shell", str(task)) as terminal:
            terminal.until("#")
            terminal.type("sleep 4321\r")
            until(lambda: "sleep 4321" in inside(lab, task, "ps"), "it runs")
        until(lambda: "sleep 4321" not in inside(lab, task, "ps | grep -v grep"), "it has been ended")

    def test_also_one_that_writes_all_the_time(self, lab: Cluster, task: int) -> None:
        process = lab.run.start("task", "exec", str(task), "--", "yes")
        assert process.stdout is not None
        assert process.stdout.read(3_000_000).startswith(b"y\ny\n")
        process.kill()
        process.wait()
        until(lambda: "yes" not in inside(lab, task, "ps | grep -v grep"), "it has been ended")

    def test_what_is_read_and_written_at_once(self, lab: Cluster, task: int, tmp_path: Path) -> None:
        given, got = tmp_path / "given", tmp_path / "got"
        given.write_bytes(os.urandom(20_000_000))
        with given.open("rb") as stdin, got.open("wb") as stdout:
            process = lab.run.start("task", "exec", "-i", str(task), "--", "cat", stdin=stdin, stdout=stdout)
            assert process.wait(120) == 0
        assert got.read_bytes() == given.read_bytes()

    def test_a_reader_that_waits_holds_up_nothing_but_the_program(self, lab: Cluster, task: int) -> None:
        """For longer than a WebSocket waits for an answer to its pings."""
        process = lab.run.start("task", "exec", str(task), "--", "head", "-c", "30000000", "/dev/zero")
        assert process.stdout is not None
        read = len(process.stdout.read(1000))
        time.sleep(45)
        read += len(process.stdout.read())
        assert (read, process.wait(30)) == (30_000_000, 0)

    def test_the_first_words_are_never_lost(self, lab: Cluster, task: int) -> None:
        for _ in range(20):
            assert inside(lab, task, "echo quick") == "quick\n"

    def test_the_task_s_end_is_the_terminal_s(self, lab: Cluster) -> None:
        with started(lab, "sleep 86400") as task_id:
            process = lab.run.start("task", "exec", str(task_id), "--", "sleep", "86400")
            until(lambda: "sleep 86400" in inside(lab, task_id, "ps | tail -n +3"), "it runs")
            lab.api.kill(task_id)
            assert process.wait(30) != 0
            assert b"Traceback" not in process.communicate()[1]

    @pytest.mark.parametrize("how", ["kill", "stop"])
    def test_it_does_not_outlive_the_runner_in_silence(self, lab: Cluster, task: int, how: str) -> None:
        process = lab.run.start("task", "exec", str(task), "--", "sleep", "86400")
        until(lambda: inside(lab, task, "ps").count("sleep 86400") >= 2, "it runs")
        getattr(lab.node.daemon, how)()
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 6
        assert b"lost" in errors
        assert b"Traceback" not in errors
        lab.node.daemon.start()
        again = ("task", "exec", str(task), "--", "echo", "again")
        until(lambda: lab.run(*again).stdout == "again\n", "the Runner has taken the task up again")


class TestForwards:
    def test_a_port_of_the_task_s_own_loopback(self, lab: Cluster) -> None:
        script = _SITE.format(text="from the task", listen="127.0.0.1:8080")
        with started(lab, script) as task_id, forwarded(lab.run, str(task_id), "0:8080") as (process, port):
            until(lambda: "8080" in inside(lab, task_id, "netstat -ltn"), "it listens")
            for _ in range(3):
                assert fetched(port) == "from the task\n"
            lab.api.kill(task_id)
            lab.api.wait_final(task_id)
            _, errors = process.communicate(timeout=30)
            assert process.returncode == 0, errors
            assert b"killed" in errors

    @pytest.mark.parametrize("network", ["none", "host"])
    def test_whatever_network_it_has(self, lab: Cluster, network: str) -> None:
        listening = free_port()
        script = _SITE.format(text=network, listen=f"127.0.0.1:{listening}")
        with (
            started(lab, script, network=network) as task_id,
            forwarded(lab.run, str(task_id), f"0:{listening}") as (_, port),
        ):
            until(lambda: str(listening) in inside(lab, task_id, "netstat -ltn"), "it listens")
            assert fetched(port) == f"{network}\n"

    def test_much_both_ways_and_each_way_ends_by_itself(self, lab: Cluster) -> None:
        """What is sent comes back as its checksum, once the sender has said that this was all."""
        data = os.urandom(20_000_000)
        script = "exec nc -ll -p 7000 -e sha256sum"
        with started(lab, script) as task_id, forwarded(lab.run, str(task_id), "0:7000") as (_, port):
            until(lambda: "7000" in inside(lab, task_id, "netstat -ltn"), "it listens")
            with socket.create_connection(("127.0.0.1", port), 60) as connection:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                answer = b"".join(iter(lambda: connection.recv(65536), b""))
            assert answer.decode().split()[0] == hashlib.sha256(data).hexdigest()

    def test_several_ports_and_many_connections(self, lab: Cluster) -> None:
        script = "; ".join(
            f"mkdir -p /tmp/{port}; echo {port} > /tmp/{port}/index.html; httpd -p {port} -h /tmp/{port}"
            for port in (8001, 8002)
        )
        first, second = free_port(), free_port()
        with started(lab, f"{script}; exec sleep 86400") as task_id:
            until(lambda: "8002" in inside(lab, task_id, "netstat -ltn"), "they listen")
            ports = (f"{first}:8001", f"{second}:8002")
            with forwarded(lab.run, str(task_id), *ports) as (process, _):
                assert process.stdout is not None
                process.stdout.readline()
                for _ in range(20):
                    assert (fetched(first), fetched(second)) == ("8001\n", "8002\n")
                process.send_signal(signal.SIGINT)
                assert process.wait(30) == 130

    def test_a_connection_that_the_program_breaks_off(self, lab: Cluster) -> None:
        script = "exec nc -ll -p 7000 -e /bin/false"
        with started(lab, script) as task_id, forwarded(lab.run, str(task_id), "0:7000") as (process, port):
            until(lambda: "7000" in inside(lab, task_id, "netstat -ltn"), "it listens")
            with (
                socket.create_connection(("127.0.0.1", port), 30) as connection,
                pytest.raises(ConnectionError),
            ):
                pour(connection)
            assert process.poll() is None

    def test_a_client_that_vanishes_frees_its_connection(self, lab: Cluster) -> None:
        """Also when the program reads nothing, and the client had said that it would send no more."""
        script = "exec nc -ll -p 7000 -e sleep 86400"
        with started(lab, script) as task_id:
            until(lambda: "7000" in inside(lab, task_id, "netstat -ltn"), "it listens")
            with forwarded(lab.run, str(task_id), "0:7000") as (process, port):
                for said_all in (False, True):
                    connection = socket.create_connection(("127.0.0.1", port), 30)
                    connection.settimeout(2)
                    if not said_all:
                        with contextlib.suppress(TimeoutError):
                            pour(connection)
                    if said_all:
                        connection.shutdown(socket.SHUT_WR)
                count = "netstat -tn | grep -c 'ESTABLISHED\\|CLOSE_WAIT'; true"
                until(lambda: inside(lab, task_id, count) != "0\n", "both are there")
                process.kill()
            # What says that it was freed is the other end of each, which is the Runner's, in the same network.
            mine = "netstat -tn | grep '127.0.0.1:7000 *ESTABLISHED\\|127.0.0.1:7000 *FIN_WAIT2'; true"
            until(lambda: inside(lab, task_id, mine) == "", "the Runner has let go of them")

    def test_nothing_listens(self, lab: Cluster, task: int) -> None:
        with forwarded(lab.run, str(task), "0:9999") as (process, port):
            with (
                socket.create_connection(("127.0.0.1", port), 30) as connection,
                pytest.raises(ConnectionResetError),
            ):
                connection.recv(1)
            assert process.stderr is not None
            assert b"nothing listens on port 9999" in process.stderr.readline()
            assert process.poll() is None

    def test_a_runner_that_is_not_root_reaches_what_listens_on_all_addresses(self, lab: Cluster) -> None:
        script = "mkdir /tmp/s; echo yes > /tmp/s/index.html; httpd -p 8001 -h /tmp/s; httpd -p 127.0.0.1:8002 -h /tmp/s"
        with started(lab, f"{script}; exec sleep 86400") as task_id:
            until(lambda: "8002" in inside(lab, task_id, "netstat -ltn"), "they listen")
            info = engine.client().api.inspect_container(container_name((task_id, 1)))
            assert connected_by_nobody(info, 8001) == "connected\n"
            assert "listen on all addresses" in connected_by_nobody(info, 8002)


class TestCopies:
    def test_files_and_folders_both_ways(self, lab: Cluster, task: int, tmp_path: Path) -> None:
        tree = tmp_path / "tree"
        (tree / "sub").mkdir(parents=True)
        (tree / "sub" / "file").write_bytes(os.urandom(3_000_000))
        (tree / "link").symlink_to("sub/file")
        copied(lab, str(tree), f"{task}:/opt-tree")
        copied(lab, str(tree / "sub" / "file"), f"{task}:/tmp")
        copied(lab, f"{task}:/opt-tree", str(tmp_path / "back"))
        assert (tmp_path / "back/sub/file").read_bytes() == (tree / "sub/file").read_bytes()
        assert (tmp_path / "back/link").readlink() == Path("sub/file")
        copied(lab, f"{task}:/tmp/file", str(tmp_path))
        assert (tmp_path / "file").read_bytes() == (tree / "sub/file").read_bytes()

    def test_one_may_what_the_task_may(self, lab: Cluster, tmp_path: Path) -> None:
        secret = tmp_path / "file"
        secret.write_text("x\n")
        secret.chmod(0o4755)
        with started(lab, "sleep 86400", user="1234:2345") as task_id:
            lab.run("cp", str(secret), f"{task_id}:/etc/evil").assert_refused(1, "permission")
            copied(lab, str(secret), f"{task_id}:/tmp/mine")
            assert inside(lab, task_id, "stat -c '%u:%g' /tmp/mine") == "1234:2345\n"

    def test_what_cannot_be_copied(self, lab: Cluster, task: int, tmp_path: Path) -> None:
        here = tmp_path / "here"
        here.write_text("x\n")
        lab.run("cp", str(here), f"{task}:/none/there/").assert_refused(NOT_FOUND, "/none/there")
        lab.run("cp", f"{task}:/none", str(tmp_path)).assert_refused(NOT_FOUND, "none")
        lab.run("cp", str(tmp_path / "none"), f"{task}:/tmp").assert_refused(NOT_FOUND, "none")
        lab.run("cp", str(here), str(tmp_path)).assert_refused(2, "ID:/")
        for whole in ("/", "/tmp/.."):
            lab.run("cp", f"{task}:{whole}", str(tmp_path)).assert_refused(2, "name a file or a folder in it")
        user(lab, "copier")("cp", str(here), f"{task}:/tmp").assert_refused(DENIED, "belongs to admin")
        inside(lab, task, "rm /bin/tar")
        lab.run("cp", f"{task}:/tmp", str(tmp_path / "tmp")).assert_refused(1, "no tar")
        lab.run("cp", str(here), f"{task}:/tmp").assert_refused(1, "no tar")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["here"]

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
    def test_into_a_folder_whose_parent_may_not_be_written(self, lab: Cluster, task: int) -> None:
        inside(lab, task, "echo kept > /tmp/note")
        # What pytest makes is its own user's alone.
        with tempfile.TemporaryDirectory() as made:
            parent, home = Path(made), Path(made, "home")
            parent.chmod(0o755)
            home.mkdir()
            os.chown(home, 65534, 65534)
            done = copied_by_nobody(lab, f"{task}:/tmp/note", home)
            assert done.returncode == 0, done.stderr
            assert (home / "note").read_text("utf-8") == "kept\n"
            assert [path.name for path in home.iterdir()] == ["note"]
            done = copied_by_nobody(lab, f"{task}:/tmp/note", parent / "new")
            assert done.returncode == 1
            assert done.stderr.splitlines() == [
                f"error: cannot write {parent}: Permission denied",
                "hint: check who may write there, or name another target",
            ]

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_one_that_is_interrupted_leaves_nothing(
        self, lab: Cluster, task: int, tmp_path: Path, number: signal.Signals
    ) -> None:
        inside(lab, task, "truncate -s 8G /tmp/big")
        copying = lab.run.start("cp", f"{task}:/tmp/big", str(tmp_path))
        try:
            until(lambda: any(tmp_path.rglob("big")), lambda: "something has come")
            copying.send_signal(number)
            assert copying.wait(30) == INTERRUPTED
        finally:
            copying.kill()
            copying.communicate()
        assert not list(tmp_path.iterdir())


class TestRefusals:
    @pytest.mark.parametrize(
        "command", [("task", "exec", "{}", "--", "true"), ("forward", "{}", "80")], ids=["exec", "forward"]
    )
    def test_a_task_that_does_not_run(self, lab: Cluster, task: int, command: tuple[str, ...]) -> None:
        lab.run("task", "pause", str(task))
        lab.api.wait_state(task, TaskState.PAUSED)
        words = [word.format(task) for word in command]
        lab.run(*words).assert_refused(CONFLICT, "paused")
        lab.run("task", "resume", str(task))
        lab.api.wait_state(task, TaskState.RUNNING)
        lab.api.kill(task)
        lab.api.wait_final(task)
        lab.run(*words).assert_refused(CONFLICT, "killed")
        lab.run(*[word.format(1) for word in command]).assert_refused(NOT_FOUND, "no task 1")

    def test_a_foreign_task(self, lab: Cluster, task: int) -> None:
        other = user(lab, "other")
        other("task", "exec", str(task), "--", "true").assert_refused(DENIED, "belongs to admin")
        other("forward", str(task), "0:80").assert_refused(DENIED, "belongs to admin")
        # The Host says so too, to a client that does not look first.
        url = f"ws{lab.url.removeprefix('http')}/api/tasks/{task}/forward/80"
        header = {"Authorization": f"Bearer {token(lab, 'other')}"}
        with connect(url, additional_headers=header) as door:
            assert "belongs to admin" in str(door.recv())
        user(lab, "watcher", "viewer")("task", "exec", str(task), "--", "true").assert_refused(
            DENIED, "no terminals"
        )

    def test_a_token_that_is_revoked_meanwhile(self, lab: Cluster) -> None:
        made = lab.api.json("POST", "/api/tokens", json={"user": "admin"})
        with_it = Commands({"HAKURIVER_CONFIG": str(lab.config), "HAKURIVER_TOKEN": made["token"]})
        with started(lab, _SITE.format(text="hello", listen="127.0.0.1:8080")) as task:
            shell = with_it.start("task", "exec", str(task), "--", "sh", "-c", "echo in; exec sleep 86400")
            with forwarded(with_it, str(task), "0:8080") as (_, port):
                assert shell.stdout is not None
                assert shell.stdout.readline() == b"in\n"
                until(lambda: "8080" in inside(lab, task, "netstat -ltn"), "it listens")
                assert fetched(port) == "hello\n"
                lab.api.json("DELETE", f"/api/tokens/{made['token_id']}")
                _, errors = shell.communicate(timeout=30)
                assert shell.returncode == DENIED
                assert b"the token was revoked or has expired" in errors
                # And at once: nobody is waited for, who could only come back with another token.
                until(lambda: "sleep 86400" not in inside(lab, task, "ps | grep -v grep"), "it has ended")
                with pytest.raises(OSError, match=r"reset|closed|refused"):
                    fetched(port)
            assert lab.run("task", "exec", str(task), "--", "echo", "in").stdout == "in\n"

    @pytest.mark.parametrize("of", ["a task", "an environment"])
    def test_also_of_a_shell_that_may_be_taken_up_again(self, lab: Cluster, task: int, of: str) -> None:
        made = lab.api.json("POST", "/api/tokens", json={"user": "admin"})
        environment = {"HAKURIVER_CONFIG": str(lab.config), "HAKURIVER_TOKEN": made["token"]}
        name = f"t{uuid.uuid4().hex[:10]}"
        if of == "an environment":
            assert lab.run("env", "create", name, "--from", engine.ENVIRONMENT).code == 0
        words, look = {
            "a task": (("connect", str(task)), ("task", "exec", str(task))),
            "an environment": (("env", "shell", name), ("env", "exec", name)),
        }[of]

        def sleeps() -> bool:
            return "sleep 4321" in lab.run(*look, "--", "sh", "-c", "ps | grep -v grep").stdout

        try:
            with Terminal(environment, *words) as terminal:
                terminal.until("#")
                terminal.type("sleep 4321\r")
                until(sleeps, "it runs")
                lab.api.json("DELETE", f"/api/tokens/{made['token_id']}")
                terminal.until("the token was revoked or has expired")
                assert terminal.code() == DENIED
                until(lambda: not sleeps(), "it has ended")
        finally:
            lab.run("env", "delete", name)

    def test_who_says_to_have_read_what_was_not_sent(self, lab: Cluster, task: int) -> None:
        """The Host keeps what is on its way: it would keep all that the program writes."""
        url = f"ws{lab.url.removeprefix('http')}/api/tasks/{task}/terminal"
        header = {"Authorization": f"Bearer {token(lab, 'admin')}"}
        with connect(url, additional_headers=header, max_size=None) as door:
            door.send(json.dumps({"argv": ["cat", "/dev/zero"], "tty": False}))
            door.send(json.dumps({"type": "more", "bytes": 10**15}))
            said = next(message for message in door if isinstance(message, str))
        assert "`more` was said for what was not sent" in said
        until(lambda: "cat /dev/zero" not in inside(lab, task, "ps | grep -v grep"), "it has ended")

    def test_nobody_in_particular(self, lab: Cluster, task: int) -> None:
        nobody = {"HAKURIVER_TOKEN": "wrong"}
        lab.run("task", "exec", str(task), "--", "true", environment=nobody).assert_refused(DENIED, "token")

    def test_a_task_without_container(self, lab: Cluster) -> None:
        task_id = lab.api.submit_one("sleep", "86400", container_name="NULL")
        lab.api.wait_state(task_id, TaskState.RUNNING)
        lab.run("task", "exec", str(task_id), "--", "true").assert_refused(CONFLICT, "without container")
        lab.api.kill(task_id)
        lab.api.wait_final(task_id)

    @pytest.mark.parametrize("port", ["0", "70000", "http", "80:", "1:2:3", "-1:80"])
    def test_what_is_no_port(self, lab: Cluster, task: int, port: str) -> None:
        lab.run("forward", str(task), "--", port).assert_refused(2)

    def test_a_port_in_use_here(self, lab: Cluster, task: int) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            number = taken.getsockname()[1]
            lab.run("forward", str(task), f"{number}:80").assert_refused(CONFLICT, "in use")

    def test_no_terminal_for_a_script(self, lab: Cluster, task: int) -> None:
        lab.run("task", "shell", str(task)).assert_refused(2, "terminal")

    def test_a_folder_that_is_none(self, lab: Cluster, task: int) -> None:
        lab.run("task", "exec", "-w", "tmp", str(task), "--", "pwd").assert_refused(2, "working_dir")

    def test_a_command_that_is_not_there(self, lab: Cluster, task: int) -> None:
        done = lab.run("task", "exec", str(task), "--", "no-such-command")
        assert done.code in {126, 127}


def copied(lab: Cluster, source: str, target: str) -> None:
    done = lab.run("cp", source, target)
    assert done.code == 0, done.stderr


def copied_by_nobody(lab: Cluster, source: str, target: Path) -> subprocess.CompletedProcess[str]:
    """By a user who has no home, and may not read the configuration."""
    return subprocess.run(
        [Path(sys.executable).parent / "hakuriver", "cp", source, str(target)],
        env={
            **clean_environment(),
            "HAKURIVER__CLIENT__URL": lab.url,
            "HAKURIVER_TOKEN": token(lab, "admin"),
            "HOME": "/nonexistent",
        },
        user=65534,
        group=65534,
        extra_groups=[],
        cwd=Path("/"),
        capture_output=True,
        text=True,
        check=False,
    )


def pour(connection: socket.socket) -> None:
    """Sends until it cannot."""
    while True:
        connection.sendall(bytes(100_000))


def fetched(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as answer:
        return str(answer.read().decode())


def user(lab: Cluster, name: str, role: str = "user") -> Commands:
    lab.api.json("POST", "/api/users", json={"name": name, "role": role})
    return Commands({"HAKURIVER_CONFIG": str(lab.config), "HAKURIVER_TOKEN": token(lab, name)})


def token(lab: Cluster, name: str) -> str:
    return str(lab.api.json("POST", "/api/tokens", json={"user": name})["token"])


def connected_by_nobody(info: dict[str, object], port: int) -> str:
    """What a process that is not root is told."""
    program = (
        "import json, sys\n"
        "from hakuriver.errors import HakuRiverError\n"
        "from hakuriver_agent.engines.container_network import connect_into\n"
        "try:\n"
        f"    connect_into(json.load(sys.stdin), {port}).close()\n"
        "except HakuRiverError as error:\n"
        "    print(error.hint)\n"
        "else:\n"
        "    print('connected')\n"
    )
    return subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(info),
        user=65534,
        cwd=Path("/"),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
