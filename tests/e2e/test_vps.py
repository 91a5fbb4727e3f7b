"""VPS, as people have them: made by the command, reached by the real ssh, scp, sftp and rsync, in an image without sshd."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import httpx
import pytest

from hakuriver.states import TaskState
from hakuriver_agent.engines.docker_request import container_name
from hakuriver_agent.ssh.tools import install_program
from hakuriver_host.ssh.gateway import MOST_STRANGERS
from support import engine, nodes
from support.cluster import Cluster, running
from support.commands import Commands
from support.ports import free_port
from support.terminal import Terminal
from support.waiting import until

pytestmark = pytest.mark.docker

USAGE, NOT_FOUND, DENIED, CONFLICT = 2, 3, 4, 5
SSH_FAILED = 255


@dataclass(frozen=True)
class Person:
    """A user with a key and a configuration of their own."""

    run: Commands
    key: Path
    folder: Path
    environment: dict[str, str]

    def config(self, task_id: int) -> Path:
        """What ssh needs to find this person's VPS."""
        if not (found := self.configs(task_id)):
            done = self.run("ssh", str(task_id), "-i", str(self.key), "true")
            assert done.code == 0, done.stderr
            found = self.configs(task_id)
        return found[0]

    def configs(self, task_id: int) -> list[Path]:
        """Those that name the key."""
        found = sorted((self.folder / "ssh").glob(f"config-{task_id}-*"))
        return [path for path in found if f'"{self.key}"' in path.read_text("utf-8")]

    def ssh(self, task_id: int, *command: str, **options: object) -> subprocess.CompletedProcess[str]:
        return self.tool("ssh", task_id, f"{task_id}.hakuriver", *command, **options)

    def tool(
        self, program: str, task_id: int, *words: str, **options: object
    ) -> subprocess.CompletedProcess[str]:
        done: subprocess.CompletedProcess[str] = subprocess.run(  # noqa: PLW1510 - among the options
            [program, "-F", str(self.config(task_id)), *words],
            **{
                "capture_output": True,
                "text": True,
                "timeout": 120,
                "stdin": subprocess.DEVNULL,
                "check": False,
                **options,
            },  # type: ignore[call-overload]
        )
        return done


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running(Cluster(tmp_path_factory.mktemp("vps"), cores=32, containers=True)) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def ada(lab: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Person:
    return person(lab, tmp_path_factory.mktemp("ada"), "ada")


@pytest.fixture(scope="module")
def eve(lab: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Person:
    return person(lab, tmp_path_factory.mktemp("eve"), "eve")


@pytest.fixture(scope="module")
def vps(ada: Person) -> int:
    """One of ada's, for the tests that leave it as it was."""
    return create(ada, "--name", "lab")


def person(lab: Cluster, folder: Path, name: str) -> Person:
    assert lab.run("user", "create", name).code == 0
    token = lab.run("token", "create", "--user", name).stdout.strip()
    key = new_key(folder / "id")
    config = folder / "config.toml"
    config.write_text(
        f'[client]\nurl = "{lab.url}"\n',
        "utf-8",
    )
    environment = {"HAKURIVER_CONFIG": str(config), "HAKURIVER_TOKEN": token, "HOME": str(folder)}
    run = Commands(environment)
    done = run("key", "add", f"{key}.pub", "--label", "laptop")
    assert done.code == 0, done.stderr
    return Person(run, key, folder, environment)


def new_key(path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path


def create(who: Person, *options: str) -> int:
    made = who.run("vps", "create", "--wait", *options)
    assert made.code == 0, made.stderr
    return int(made.stdout)


@contextlib.contextmanager
def created(lab: Cluster, who: Person, *options: str) -> Iterator[int]:
    task_id = create(who, *options)
    try:
        yield task_id
    finally:
        who.run("vps", "kill", str(task_id))
        lab.api.wait_final(task_id)


def begun(who: Person, task_id: int, command: str) -> subprocess.Popen[str]:
    """A session in which that command runs."""
    session = subprocess.Popen(
        ["ssh", "-F", who.config(task_id), f"{task_id}.hakuriver", f"echo begun; {command}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert session.stdout is not None
    assert session.stdout.readline() == "begun\n"
    return session


def forwarding(who: Person, task_id: int, port: int, theirs: int) -> subprocess.Popen[str]:
    """A client that does nothing but lead to a port of the VPS, once it listens."""
    client = subprocess.Popen(
        [
            "ssh",
            "-F",
            who.config(task_id),
            "-N",
            "-L",
            f"127.0.0.1:{port}:localhost:{theirs}",
            f"{task_id}.hakuriver",
        ],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )

    def listens() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    until(listens, "it listens")
    return client


def by_socks(proxy: int, host: str, port: int, request: bytes) -> bytes:
    """The whole answer to a request through a SOCKS proxy on the loopback (RFC 1928, no authentication)."""
    with (
        socket.create_connection(("127.0.0.1", proxy), timeout=20) as connection,
        connection.makefile("rb") as answer,
    ):
        connection.sendall(b"\x05\x01\x00")
        assert answer.read(2) == b"\x05\x00"
        name = host.encode()
        connection.sendall(b"\x05\x01\x00\x03" + bytes([len(name)]) + name + port.to_bytes(2, "big"))
        assert answer.read(10)[:2] == b"\x05\x00"
        connection.sendall(request)
        return answer.read()


def container_of(task_id: int) -> str:
    return container_name((task_id, 1))


def names(lab: Cluster) -> set[str]:
    return {str(found.name) for found in engine.containers_of(lab.node.name)}


class TestSessions:
    def test_a_command_with_its_streams_and_its_exit_code(self, ada: Person, vps: int) -> None:
        done = ada.ssh(vps, "echo out; echo err >&2; exit 7")
        assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")

    def test_a_program_that_says_all_before_it_ends(self, ada: Person, vps: int) -> None:
        done = ada.ssh(vps, "exec >&- 2>&-; sleep 4; exit 9")
        assert done.returncode == 9

    def test_input_and_output_pass_the_engine_by(self, ada: Person, vps: int) -> None:
        done = ada.ssh(
            vps,
            # It is begun a moment before they are taken away.
            "while ls /run/hakuriver/sockets | grep -q pipe; do sleep 0.05; done; "
            "for n in 0 1; do readlink /proc/self/fd/$n; done",
            input="",
            stdin=None,
        )
        assert [name.rsplit("-", 1)[1] for name in done.stdout.splitlines()] == [
            "in (deleted)",
            "out (deleted)",
        ]
        assert done.stdout.startswith("/run/hakuriver/sockets/pipe-")

    def test_output_after_stderr_was_closed(self, ada: Person, vps: int) -> None:
        done = ada.ssh(vps, "exec 2>&-; head -c 5000000 /dev/zero | tr '\\0' x; sleep 3; echo y; exit 4")
        assert done.returncode == 4
        assert done.stdout == 5_000_000 * "x" + "y\n"

    def test_what_goes_on_in_the_background_holds_up_nobody(self, ada: Person, vps: int) -> None:
        done = ada.ssh(vps, "sleep 300 & echo $!; exit 6")
        assert done.returncode == 6
        assert ada.ssh(vps, f"kill {int(done.stdout)}").returncode == 0

    def test_by_name_with_the_command(self, ada: Person, vps: int) -> None:
        del vps
        done = ada.run("ssh", "lab", "-i", str(ada.key), "--", "id", "-un; exit 3")
        assert (done.code, done.stdout) == (3, "root\n")
        done = ada.run("ssh", "lab", "-i", str(ada.key), "-o", "SendEnv=X", "ls", "-d", "-h", "/tmp")
        assert (done.code, done.stdout) == (0, "/tmp\n"), done.stderr

    def test_by_the_name_of_the_reference(self, ada: Person, vps: int) -> None:
        done = ada.run(str(vps), "-i", str(ada.key), "echo $((6*7))", program="hakuriver.ssh")
        assert (done.code, done.stdout) == (0, "42\n")

    def test_input_is_passed_on_to_its_end(self, ada: Person, vps: int) -> None:
        data = os.urandom(300_000).hex()
        done = ada.ssh(vps, "sha256sum", stdin=None, input=data)
        assert done.stdout.split()[0] == hashlib.sha256(data.encode()).hexdigest()

    def test_a_terminal_with_its_size(self, ada: Person, vps: int) -> None:
        script = (
            f"stty rows 33 cols 77; ssh -F {ada.config(vps)} -tt {vps}.hakuriver 'stty size; tty; echo $TERM'"
        )
        done = subprocess.run(
            ["script", "-qec", script, "/dev/null"],
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "TERM": "vt100"},
            check=False,
        )
        assert "33 77" in done.stdout
        assert "/dev/pts/" in done.stdout
        assert "vt100" in done.stdout

    def test_a_login_shell(self, ada: Person, vps: int) -> None:
        done = ada.ssh(vps, stdin=None, input="cd /; pwd\nexit 5\n")
        assert (done.returncode, done.stdout) == (5, "/\n")

    @pytest.mark.parametrize(
        ("preferred", "taken"),
        [
            ("chacha20-poly1305@openssh.com,aes128-ctr,aes256-gcm@openssh.com", "aes128-ctr"),
            ("aes256-gcm@openssh.com,aes128-ctr", "aes256-gcm@openssh.com"),
        ],
    )
    def test_ciphers(self, ada: Person, vps: int, tmp_path: Path, preferred: str, taken: str) -> None:
        """The gateway's is negotiated by a process of its own, which reads the file."""
        text = ada.config(vps).read_text("utf-8")
        assert "Ciphers aes128-gcm@openssh.com," in text
        other = tmp_path / "config"
        other.write_text(re.sub("Ciphers .*", f"Ciphers {preferred}", text), "utf-8")
        words = ["ssh", "-v", "-F", str(other), f"{vps}.hakuriver", "echo said"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        assert done.stdout == "said\n"
        used = re.findall(r"kex: \S+ cipher: (\S+)", done.stderr)
        assert used == 4 * [taken]  # There and back, at the gateway and at the VPS.

    def test_variables(self, ada: Person, vps: int) -> None:
        done = ada.tool(
            "ssh", vps, "-o", "SetEnv=LC_MINE=ab", f"{vps}.hakuriver", "echo $LC_MINE; echo $HOME $USER"
        )
        assert done.stdout == "ab\n/root root\n"

    def test_another_user_of_the_image_and_one_that_is_not(self, ada: Person, vps: int) -> None:
        ada.ssh(vps, "grep -q ^somebody: /etc/passwd || echo somebody:x:77:77::/tmp:/bin/sh >> /etc/passwd")
        done = ada.tool("ssh", vps, "-l", "somebody", f"{vps}.hakuriver", "id -u")
        assert done.stdout == "77\n"
        echo = "readlink /proc/self/fd/1; cat"
        done = ada.tool("ssh", vps, "-l", "somebody", f"{vps}.hakuriver", echo, stdin=None, input="said")
        assert done.stdout.startswith("/run/hakuriver/sockets/pipe-")
        assert done.stdout.endswith("said")
        done = ada.tool("ssh", vps, "-l", "nosuch", f"{vps}.hakuriver", "id")
        assert done.returncode != 0
        assert "the VPS has no user nosuch" in done.stderr

    def test_fifty_at_once(self, ada: Person, vps: int) -> None:
        config = ada.config(vps)
        sessions = [
            subprocess.Popen(
                ["ssh", "-F", config, f"{vps}.hakuriver", f"read line; echo {number} $line"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for number in range(50)
        ]
        try:
            told = [each.communicate(f"of {number}\n", timeout=240) for number, each in enumerate(sessions)]
        finally:
            for each in sessions:
                each.kill()
        wrong = {
            number: (each.returncode, *said)
            for number, (each, said) in enumerate(zip(sessions, told, strict=True))
            if said[0] != f"{number} of {number}\n"
        }
        assert not wrong

    def test_who_goes_away_leaves_nothing_behind(self, ada: Person, vps: int) -> None:
        with subprocess.Popen(
            ["ssh", "-F", ada.config(vps), f"{vps}.hakuriver", "echo begun; exec sleep 54321"],
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
        ) as session:
            assert session.stdout is not None
            assert session.stdout.readline() == b"begun\n"
            session.send_signal(signal.SIGKILL)
        until(lambda: "54321" not in ada.ssh(vps, "ps").stdout, lambda: "the program ends")


class TestFiles:
    def test_two_hundred_megabytes_by_scp_there_and_back(self, ada: Person, vps: int, tmp_path: Path) -> None:
        data = os.urandom(200_000_000)
        wanted = hashlib.sha256(data).hexdigest()
        (tmp_path / "big").write_bytes(data)
        there, back = f"{vps}.hakuriver:/tmp/a b", tmp_path / "back"
        assert ada.tool("scp", vps, str(tmp_path / "big"), there).returncode == 0
        done = ada.tool("scp", vps, there, str(back))
        assert done.returncode == 0, done.stderr
        assert hashlib.sha256(back.read_bytes()).hexdigest() == wanted
        assert ada.ssh(vps, "rm '/tmp/a b'").returncode == 0

    def test_scp_of_the_old_protocol(self, ada: Person, vps: int, tmp_path: Path) -> None:
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder/file").write_text("old", "utf-8")
        done = ada.tool("scp", vps, "-O", "-r", str(tmp_path / "folder"), f"{vps}.hakuriver:/tmp/old")
        assert done.returncode == 0, done.stderr
        assert ada.ssh(vps, "cat /tmp/old/file").stdout == "old"

    def test_sftp(self, ada: Person, vps: int, tmp_path: Path) -> None:
        batch = tmp_path / "batch"
        batch.write_text(
            f"mkdir /tmp/sftp\nput {batch} /tmp/sftp/one\nrename /tmp/sftp/one /tmp/sftp/two\nls -l /tmp/sftp\n",
            "utf-8",
        )
        done = ada.tool("sftp", vps, "-b", str(batch), f"{vps}.hakuriver")
        assert done.returncode == 0, done.stderr
        assert "two" in done.stdout
        assert ada.ssh(vps, "cat /tmp/sftp/two").stdout == batch.read_text("utf-8")

    def test_cp_by_name(self, ada: Person, vps: int, tmp_path: Path) -> None:
        (tmp_path / "sent/deep").mkdir(parents=True)
        (tmp_path / "sent/deep/file").write_text("copied", "utf-8")
        done = ada.run("cp", str(tmp_path / "sent"), "lab:/tmp/copied")
        assert done.code == 0, done.stderr
        assert ada.ssh(vps, "cat /tmp/copied/deep/file").stdout == "copied"
        done = ada.run("cp", "lab:/tmp/copied", str(tmp_path / "back"))
        assert done.code == 0, done.stderr
        assert (tmp_path / "back/deep/file").read_text("utf-8") == "copied"

    def test_cp_under_a_name_that_tar_could_read_otherwise(
        self, ada: Person, vps: int, tmp_path: Path
    ) -> None:
        (tmp_path / "sent").mkdir()
        (tmp_path / "sent/file").write_text("copied", "utf-8")
        (tmp_path / "sent/again").hardlink_to(tmp_path / "sent/file")
        done = ada.run("cp", str(tmp_path / "sent"), "lab:/tmp/x&y,z\\0")
        assert done.code == 0, done.stderr
        told = ada.ssh(vps, "cat '/tmp/x&y,z\\0/again'; stat -c %h '/tmp/x&y,z\\0/file'")
        assert told.stdout == "copied2\n"

    def test_cp_of_what_has_links_that_lead_elsewhere(self, ada: Person, vps: int, tmp_path: Path) -> None:
        script = """mkdir -p /tmp/venv/bin; cd /tmp/venv; echo kept > file; ln file also; ln -s ../file bin/file
            ln -s /usr/bin/python3 bin/python; ln -s ../../../etc bin/up; mkfifo pipe"""
        assert ada.ssh(vps, script).returncode == 0
        done = ada.run("cp", "lab:/tmp/venv", str(tmp_path))
        assert done.code == 0, done.stderr
        assert "left out 3 (links that lead elsewhere, or devices): venv/" in done.stderr
        assert (tmp_path / "venv/bin/file").read_text("utf-8") == "kept\n"
        assert (tmp_path / "venv/also").samefile(tmp_path / "venv/file")
        assert [path.name for path in (tmp_path / "venv/bin").iterdir()] == ["file"]

    def test_rsync(self, ada: Person, vps: int, tmp_path: Path) -> None:
        (tmp_path / "from/deep").mkdir(parents=True)
        (tmp_path / "from/deep/file").write_text("synced", "utf-8")
        words = [
            "rsync",
            "-a",
            "-e",
            f"ssh -F {ada.config(vps)}",
            f"{tmp_path}/from/",
            f"{vps}.hakuriver:/tmp/to/",
        ]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert ada.ssh(vps, "cat /tmp/to/deep/file").stdout == "synced"


@pytest.fixture(scope="module")
def furnished(lab: Cluster, ada: Person) -> Iterator[int]:
    for words in (
        ("env", "create", "furnished", "--image", nodes.IMAGE),
        ("env", "pack", "furnished"),
        ("env", "delete", "furnished"),
    ):
        done = ada.run(*words)
        assert done.code == 0, done.stderr
    with created(lab, ada, "--container", "furnished", "--name", "furnished") as task_id:
        assert ada.ssh(task_id, "test -x /usr/sbin/sshd && echo there").stdout == "there\n"
        yield task_id


@pytest.mark.deploy
class TestImageWithSshd:
    """An image that has a server of its own, which nobody asks: that of the Runner serves it as any other."""

    def test_two_hundred_megabytes_by_scp_and_sftp(self, ada: Person, furnished: int, tmp_path: Path) -> None:
        data = os.urandom(200_000_000)
        wanted = hashlib.sha256(data).hexdigest()
        sent, back = tmp_path / "sent", tmp_path / "back"
        sent.write_bytes(data)
        there = f"{furnished}.hakuriver"
        done = ada.tool("scp", furnished, str(sent), f"{there}:/root/data")
        assert done.returncode == 0, done.stderr
        assert ada.ssh(furnished, "sha256sum /root/data").stdout.split()[0] == wanted
        batch = tmp_path / "batch"
        batch.write_text(f"get /root/data {back}\n", "utf-8")
        done = ada.tool("sftp", furnished, "-b", str(batch), there)
        assert done.returncode == 0, done.stderr
        assert hashlib.sha256(back.read_bytes()).hexdigest() == wanted

    def test_a_login_shell_and_an_exit_code(self, ada: Person, furnished: int) -> None:
        done = ada.ssh(furnished, "echo $SHELL $USER; exit 7")
        assert (done.returncode, done.stdout) == (7, "/bin/bash root\n")

    def test_another_user_of_the_image(self, ada: Person, furnished: int) -> None:
        done = ada.tool("ssh", furnished, "-l", "admin", f"{furnished}.hakuriver", "id -un; pwd")
        assert done.stdout == "admin\n/home/admin\n", done.stderr

    def test_rsync_of_the_node(self, ada: Person, furnished: int, tmp_path: Path) -> None:
        """The image has none."""
        (tmp_path / "file").write_text("synced", "utf-8")
        words = ["rsync", "-e", f"ssh -F {ada.config(furnished)}", str(tmp_path / "file")]
        done = subprocess.run(
            [*words, f"{furnished}.hakuriver:/root/"], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        assert ada.ssh(furnished, "cat /root/file").stdout == "synced"


class TestForwards:
    def test_a_port_of_its_loopback(self, ada: Person, vps: int) -> None:
        ada.ssh(
            vps, "mkdir -p /tmp/site; echo hello > /tmp/site/index.html; httpd -p 127.0.0.1:8081 -h /tmp/site"
        )
        port = free_port()
        with subprocess.Popen(
            ["ssh", "-F", ada.config(vps), "-N", "-L", f"{port}:localhost:8081", f"{vps}.hakuriver"],
            stdin=subprocess.DEVNULL,
        ) as forward:
            try:

                def page() -> str:
                    with contextlib.suppress(httpx.TransportError):
                        return httpx.get(f"http://127.0.0.1:{port}/index.html").text
                    return ""

                until(lambda: page() == "hello\n", lambda: "the page")
            finally:
                forward.terminate()

    def test_a_program_that_resets_its_connection(self, ada: Person, vps: int) -> None:
        """As one that ends and has not read all: who waits for its answer learns that none comes."""
        server = begun(ada, vps, "nc -ll -p 8086 -e sleep 1")
        port = free_port()
        client = forwarding(ada, vps, port, 8086)
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
                connection.sendall(b"asked\n")
                with contextlib.suppress(ConnectionResetError):
                    assert connection.recv(1) == b""
        finally:
            client.terminate()
            server.terminate()

    def test_as_editors_do_it(self, ada: Person, vps: int) -> None:
        """VS Code Remote has one connection: a script to a shell's input starts its server, which it reaches by SOCKS."""
        port = free_port()
        script = "mkdir -p /tmp/editor; echo served > /tmp/editor/index.html; httpd -p 127.0.0.1:8082 -h /tmp/editor; echo begun\n"
        with subprocess.Popen(
            [
                "ssh",
                "-F",
                ada.config(vps),
                "-T",
                "-D",
                str(port),
                "-o",
                "ConnectTimeout=15",
                f"{vps}.hakuriver",
                "sh",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as session:
            assert session.stdin is not None
            assert session.stdout is not None
            session.stdin.write(script)
            session.stdin.flush()
            assert session.stdout.readline() == "begun\n"
            answers = [
                by_socks(port, "127.0.0.1", 8082, b"GET /index.html HTTP/1.0\r\n\r\n") for _ in range(3)
            ]
            session.stdin.close()
            assert session.wait(20) == 0
        assert [answer.rpartition(b"\r\n\r\n")[2] for answer in answers] == [b"served\n"] * 3

    def test_nothing_but_itself(self, ada: Person, lab: Cluster, vps: int) -> None:
        done = ada.tool("ssh", vps, "-W", f"127.0.0.2:{lab.port}", f"{vps}.hakuriver")
        assert done.returncode == SSH_FAILED
        assert "forward to localhost" in done.stderr

    def test_the_persons_agent(self, ada: Person, vps: int, tmp_path: Path) -> None:
        install_program(tmp_path / "tools", "ssh-add", Path("/usr/bin/ssh-add"))
        assert ada.tool("scp", vps, "-r", str(tmp_path / "tools"), f"{vps}.hakuriver:/tmp/").returncode == 0
        agent = subprocess.Popen(["ssh-agent", "-D", "-a", tmp_path / "agent"], stdout=subprocess.DEVNULL)
        try:
            mine = {**os.environ, "SSH_AUTH_SOCK": str(tmp_path / "agent")}
            until((tmp_path / "agent").exists, lambda: "the agent listens")
            subprocess.run(["ssh-add", "-q", ada.key], env=mine, check=True)
            there = "cd /tmp/tools; exec lib/ld-*.so* --library-path lib libexec/ssh-add -l"
            done = ada.tool("ssh", vps, "-A", f"{vps}.hakuriver", there, env=mine)
            assert done.returncode == 0, done.stderr
            assert "ED25519" in done.stdout
        finally:
            agent.kill()
            agent.wait()
        # The pipes that it sees may be its own, which are there until the Runner has heard that it has them.
        left = "echo $SSH_AUTH_SOCK; ls /run/hakuriver/sockets | grep -v ^pipe-"
        assert ada.ssh(vps, left).stdout == "\n"
        # Nobody puts a link where the Runner, which is root on the node, makes and changes files.
        for folder in ("sockets", "tools"):
            assert "Read-only" in ada.ssh(vps, f"touch /run/hakuriver/{folder}/mine").stderr


class TestConfigurations:
    def test_the_one_that_is_printed_works_with_plain_ssh(
        self, ada: Person, vps: int, tmp_path: Path
    ) -> None:
        text = ada.run("ssh-config").stdout
        config = tmp_path / "config"
        config.write_text(f'{text}\nMatch all\n    IdentityFile "{ada.key}"\n', "utf-8")
        done = subprocess.run(
            ["ssh", "-F", config, "lab.hakuriver", "hostname"],
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert str(vps) in text

    def test_it_is_included_once(self, ada: Person, vps: int) -> None:
        del vps
        own = ada.folder / ".ssh/config"
        own.parent.mkdir(exist_ok=True)
        own.write_text("Host elsewhere\n    User me\n", "utf-8")
        for _ in range(2):
            assert ada.run("ssh-config", "--install").code == 0
        lines = own.read_text("utf-8").splitlines()
        assert sum(line.startswith("Include") for line in lines) == 1
        assert lines[0].startswith("Include")
        assert lines[-1] == "    User me"
        own.unlink()

    def test_another_key_at_the_same_time(self, ada: Person, vps: int, tmp_path: Path) -> None:
        """The first has read its configuration, and waits; its jump host reads it after another command wrote its own."""
        other, own = new_key(tmp_path / "other"), ada.folder / ".ssh/config"
        read, go = tmp_path / "read", tmp_path / "go"
        own.parent.mkdir(exist_ok=True)
        own.write_text(
            f'Match host *.hakuriver exec "touch {read}; until test -e {go}; do sleep 0.1; done"\n', "utf-8"
        )
        first = ada.run.start("ssh", str(vps), "-i", str(ada.key), "true")
        try:
            until(read.exists, lambda: "ssh has read its configuration")
            own.unlink()
            assert ada.run("ssh", str(vps), "-i", str(other), "true").code == SSH_FAILED
            go.touch()
            _, said = first.communicate(timeout=60)
            assert first.returncode == 0, said
        finally:
            go.touch()
            first.wait(60)

    def test_a_jump_of_one_who_has_no_configuration_of_ours(
        self, ada: Person, lab: Cluster, vps: int, tmp_path: Path
    ) -> None:
        """As the reference's users type it; the file says what a person's own would, and the answer to the question of trust."""
        own = tmp_path / "config"
        own.write_text(
            f"IdentityFile {ada.key}\nUserKnownHostsFile {tmp_path}/known\nStrictHostKeyChecking accept-new\n",
            "utf-8",
        )
        words = ["ssh", "-F", str(own), "-J", f"anybody@127.0.0.1:{lab.ssh_port}"]
        for name in ("lab", f"{vps}.hakuriver"):
            done = subprocess.run(
                [*words, f"root@{name}", "echo $HAKURIVER_TASK_ID; exit 3"],
                capture_output=True,
                text=True,
                timeout=60,
                stdin=subprocess.DEVNULL,
                check=False,
            )
            assert (done.returncode, done.stdout) == (3, f"{vps}\n"), done.stderr
        assert subprocess.run([*words, "root@lab", "true"], timeout=60, check=False).returncode == 0

    def test_a_jump_with_nothing_but_options(self, ada: Person, lab: Cluster, vps: int) -> None:
        """As with the reference's users: `ssh -J HOST:8002 root@NAME`, and an answer to the question of trust."""
        trusting = [
            "-o",
            "StrictHostKeyChecking=accept-new",
            "-o",
            f"UserKnownHostsFile={ada.folder}/accepted",
        ]
        proxy = f"ssh -i {ada.key} {' '.join(trusting)} -W %h:%p -p {lab.ssh_port} anybody@127.0.0.1"
        done = subprocess.run(
            [
                "ssh",
                "-i",
                ada.key,
                *trusting,
                "-o",
                f"ProxyCommand={proxy}",
                "root@lab",
                "echo $HAKURIVER_TASK_ID",
            ],
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        assert done.stdout == f"{vps}\n", done.stderr


class TestGateway:
    def jump(self, lab: Cluster, who: Person, *words: str) -> subprocess.CompletedProcess[str]:
        options = [
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "LogLevel=ERROR",
        ]
        return subprocess.run(
            ["ssh", "-i", str(who.key), *options, "-p", str(lab.ssh_port), "me@127.0.0.1", *words],
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
            check=False,
        )

    def lead(self, lab: Cluster, who: Person, place: str) -> str:
        options = [
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
        ]
        done = subprocess.run(
            ["ssh", "-i", str(who.key), *options, "-W", place, "-p", str(lab.ssh_port), "me@127.0.0.1"],
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        assert done.returncode == SSH_FAILED, done.stdout
        return done.stderr

    def test_who_offers_a_lot_of_keys_is_told_what_to_do(
        self, lab: Cluster, ada: Person, tmp_path: Path
    ) -> None:
        keys = [word for number in range(25) for word in ("-i", str(new_key(tmp_path / f"{number}")))]
        eve = replace(ada, key=tmp_path / "0")
        assert "too many keys were offered; name the right one" in self.jump(lab, eve, *keys, "true").stderr

    def test_it_has_no_shell(self, lab: Cluster, ada: Person) -> None:
        done = self.jump(lab, ada, "id")
        assert (done.returncode, done.stdout) == (1, "")
        assert "the gateway has no shell" in done.stderr

    def test_it_leads_nowhere_else(self, lab: Cluster, ada: Person, vps: int) -> None:
        assert f"port {lab.port} is not opened" in self.lead(lab, ada, f"127.0.0.1:{lab.port}")
        assert "there is no VPS localhost of yours" in self.lead(lab, ada, "localhost:22")
        assert "port 8081 is not opened" in self.lead(lab, ada, f"{vps}:8081")

    @pytest.mark.parametrize("by", ["name", "id"])
    def test_anothers_is_as_one_that_is_not(self, lab: Cluster, eve: Person, vps: int, by: str) -> None:
        reference = "lab" if by == "name" else str(vps)
        assert f"there is no VPS {reference} of yours" in self.lead(lab, eve, f"{reference}:22")
        assert "there is no VPS nosuch of yours" in self.lead(lab, eve, "nosuch:22")

    def test_a_key_that_nobody_has_registered(self, lab: Cluster, ada: Person, tmp_path: Path) -> None:
        stranger = Person(ada.run, new_key(tmp_path / "id"), tmp_path, {})
        done = self.jump(lab, stranger, "id")
        assert done.returncode == SSH_FAILED
        assert "Permission denied (publickey)" in done.stderr

    def test_a_key_that_is_removed_opens_nothing_more(
        self, lab: Cluster, ada: Person, tmp_path: Path, vps: int
    ) -> None:
        other = Person(ada.run, new_key(tmp_path / "id"), tmp_path, {})
        added = ada.run("key", "add", f"{other.key}.pub", "-o", "name")
        assert "the gateway has no shell" in self.jump(lab, other, "id").stderr
        assert ada.run("key", "remove", added.stdout.strip()).code == 0
        assert "Permission denied" in self.jump(lab, other, "id").stderr
        assert ada.ssh(vps, "true").returncode == 0

    def test_a_key_that_one_vps_was_made_with_opens_that_alone(
        self, lab: Cluster, ada: Person, eve: Person, tmp_path: Path, vps: int
    ) -> None:
        guest = Person(eve.run, new_key(tmp_path / "id"), tmp_path, {})
        with created(lab, ada, "--public-key-file", f"{guest.key}.pub") as task_id:
            proxy = (
                f"ssh -i {guest.key} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -W %h:%p"
                f" -p {lab.ssh_port} x@127.0.0.1"
            )
            done = subprocess.run(
                [
                    "ssh",
                    "-i",
                    str(guest.key),
                    "-o",
                    "StrictHostKeyChecking=no",
                    "-o",
                    "UserKnownHostsFile=/dev/null",
                    "-o",
                    f"ProxyCommand={proxy}",
                    f"root@{task_id}",
                    "echo in",
                ],
                capture_output=True,
                text=True,
                timeout=60,
                stdin=subprocess.DEVNULL,
                check=False,
            )
            assert done.stdout == "in\n", done.stderr
            assert f"there is no VPS {vps} of yours" in self.lead(lab, guest, f"{vps}:22")
            # Also for somebody who has registered it for VPS of their own.
            added = eve.run("key", "add", f"{guest.key}.pub", "-o", "name")
            assert added.code == 0, added.stderr
            again = subprocess.run(done.args, capture_output=True, text=True, timeout=60, check=False)
            assert again.stdout == "in\n", again.stderr
            assert eve.run("key", "remove", added.stdout.strip()).code == 0
            # Its owner's registered keys open it too.
            assert ada.ssh(task_id, "echo mine").stdout == "mine\n"

    def test_a_vps_that_was_made_with_a_removed_key_is_closed_to_it(
        self, lab: Cluster, ada: Person, tmp_path: Path
    ) -> None:
        """As `vps create` does with the keys of ~/.ssh, registered or not."""
        other = Person(ada.run, new_key(tmp_path / "id"), tmp_path, {})
        with created(lab, ada, "--public-key-file", f"{other.key}.pub") as task_id:
            place = f"{task_id}:22"
            added = ada.run("key", "add", f"{other.key}.pub", "-o", "name")
            assert added.code == 0, added.stderr
            mine = begun(ada, task_id, "read line; echo still $line")
            with gone_through(lab, other, place) as way:
                assert ada.run("key", "remove", added.stdout.strip()).code == 0
                assert way.wait(30) != 0, "the connection that it opened is cut"
            assert mine.communicate("here\n", timeout=60)[0] == "still here\n"
            assert "Permission denied (publickey)" in self.lead(lab, other, place)
            lab.host.kill()
            lab.start_host()
            lab.wait_online()
            assert "Permission denied (publickey)" in self.lead(lab, other, place)
            assert ada.ssh(task_id, "echo mine").stdout == "mine\n"
            again = ada.run("key", "add", f"{other.key}.pub", "-o", "name")
            assert "the gateway has no shell" in self.jump(lab, other, "id").stderr
            with gone_through(lab, other, place):
                pass
            assert ada.run("key", "remove", again.stdout.strip()).code == 0
        with (
            created(lab, ada, "--public-key-file", f"{other.key}.pub") as task_id,
            gone_through(lab, other, f"{task_id}:22"),
        ):
            pass

    def test_a_removed_user_is_shut_out(self, lab: Cluster, eve: Person, tmp_path: Path) -> None:
        (tmp_path / "bob").mkdir()
        bob = person(lab, tmp_path / "bob", "bob")
        extra = Person(bob.run, new_key(tmp_path / "id"), tmp_path, {})
        task_id = create(bob, "--name", "left", "--public-key-file", f"{extra.key}.pub")
        try:
            assert bob.run("vps", "share", "left", "eve").code == 0
            session = begun(bob, task_id, "sleep 600")
            shell = bob.run.start("task", "exec", str(task_id), "--", "sh", "-c", "echo in; sleep 600")
            assert shell.stdout is not None
            assert shell.stdout.readline() == b"in\n"
            with gone_through(lab, extra, f"{task_id}:22") as way:
                done = lab.run("user", "remove", "bob")
                assert done.code == 0, done.stderr
                assert "1 VPS of theirs live on" in done.stdout
                assert session.wait(30) != 0
                assert way.wait(30) != 0
            _, errors = shell.communicate(timeout=30)
            assert b"the token was revoked or has expired" in errors
            for key in (bob, extra):
                assert "Permission denied (publickey)" in self.lead(lab, key, f"{task_id}:22")
            lab.run("user", "create", "bob").assert_refused(CONFLICT, "still has 1 VPS")
            assert eve.ssh(task_id, "echo in").stdout == "in\n", "what was shared stays shared"
            assert lab.run("task", "exec", str(task_id), "--", "echo", "in").stdout == "in\n"
        finally:
            lab.run("vps", "kill", str(task_id))
            lab.api.wait_final(task_id)
        assert lab.run("user", "create", "bob").code == 0

    def test_keys_are_not_tried_without_end(
        self, lab: Cluster, ada: Person, tmp_path: Path, vps: int
    ) -> None:
        del vps
        keys = [new_key(tmp_path / f"id{number}") for number in range(25)]
        words = [word for key in [*keys, ada.key] for word in ("-i", str(key))]
        done = subprocess.run(
            [
                *("ssh", "-F", "none", *words, "-o", "StrictHostKeyChecking=no"),
                *("-o", "UserKnownHostsFile=/dev/null", "-p", str(lab.ssh_port), "me@127.0.0.1"),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        assert done.returncode == SSH_FAILED
        assert "the gateway has no shell" not in done.stderr

    def test_garbage_and_silence_disturb_nobody(self, lab: Cluster, ada: Person, vps: int) -> None:
        session = begun(ada, vps, "read line; echo got $line")
        with contextlib.ExitStack() as stack:
            for _ in range(60):
                stranger = stack.enter_context(socket.create_connection(("127.0.0.1", lab.ssh_port)))
                with contextlib.suppress(OSError):
                    stranger.sendall(os.urandom(4096))
                until(partial(_is_closed, stranger), lambda: "garbage is turned away")
            silent = [
                stack.enter_context(socket.create_connection(("127.0.0.1", lab.ssh_port)))
                for _ in range(MOST_STRANGERS + 30)
            ]
            # Of one address so many may wait; those beyond are turned away at once.
            until(lambda: sum(map(_is_closed, silent)) == 30, lambda: "those beyond are turned away")
            out, _ = session.communicate("it\n", timeout=60)
        assert out == "got it\n"
        until(lambda: ada.ssh(vps, "true").returncode == 0, lambda: "others log in again")


@contextlib.contextmanager
def gone_through(lab: Cluster, who: Person, place: str) -> Iterator[subprocess.Popen[bytes]]:
    """A connection through the gateway to the SSH server of a VPS, which has said its first word."""
    options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
    way = subprocess.Popen(
        ["ssh", "-F", "none", "-i", who.key, *options, "-W", place, "-p", str(lab.ssh_port), "me@127.0.0.1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert way.stdout is not None
        assert way.stdout.readline().startswith(b"SSH-2.0-")
        yield way
    finally:
        way.kill()
        way.communicate()


def _is_closed(connection: socket.socket) -> bool:
    connection.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        try:
            while connection.recv(4096):
                continue
        except ConnectionResetError:
            pass
        return True
    return False


class TestOthers:
    """A user cannot reach another's VPS: each way by itself."""

    @pytest.mark.parametrize("command", ["kill", "pause", "exec", "forward", "cp", "logs"])
    def test_by_commands(self, eve: Person, vps: int, command: str, tmp_path: Path) -> None:
        words = {
            "kill": ("vps", "kill", "lab"),
            "pause": ("vps", "pause", str(vps)),
            "exec": ("task", "exec", str(vps), "--", "id"),
            "forward": ("forward", str(vps), "0:8081"),
            "cp": ("cp", f"{vps}:/etc/passwd", str(tmp_path)),
            "logs": ("task", "stdout", str(vps)),
        }[command]
        eve.run(*words).assert_refused(DENIED, "belongs to ada")

    def test_by_terminal(self, eve: Person, vps: int) -> None:
        del vps
        with Terminal(eve.environment, "connect", "lab") as terminal:
            terminal.until("belongs to ada")

    def test_by_ssh(self, eve: Person, vps: int) -> None:
        done = eve.run("ssh", str(vps), "-i", str(eve.key), "id")
        assert (done.code, done.stdout) == (SSH_FAILED, "")
        assert f"there is no VPS {vps} of yours" in done.stderr

    def test_what_eve_sees(self, eve: Person, vps: int) -> None:
        seen = json.loads(eve.run("vps", "list", "-o", "json").stdout)
        assert str(vps) in {str(each["task_id"]) for each in seen}
        assert all(each["command"] == "" for each in seen)
        assert "ada" not in eve.run("key", "list").stdout


class TestSharing:
    def test_in_and_out(self, lab: Cluster, ada: Person, eve: Person, tmp_path: Path) -> None:
        with created(lab, ada, "--name", "ours") as task_id:
            eve.run("vps", "share", "ours", "eve").assert_refused(DENIED, "belongs to ada")
            ada.run("vps", "share", "ours", "nosuch").assert_refused(NOT_FOUND, "no user nosuch")
            assert ada.run("vps", "share", "ours", "eve").code == 0
            assert ada.run("vps", "share", "ours", "eve").code == 0, "again changes nothing"
            assert eve.ssh(task_id, "echo in").stdout == "in\n"
            assert eve.run("task", "exec", str(task_id), "--", "echo", "in").stdout == "in\n"
            assert eve.run("cp", f"{task_id}:/etc/passwd", str(tmp_path)).code == 0
            assert "ours.hakuriver" in eve.run("ssh-config").stdout
            eve.run("vps", "kill", "ours").assert_refused(DENIED, "belongs to ada")
            lab.host.kill()
            lab.start_host()
            lab.wait_online()
            session = subprocess.Popen(
                ["ssh", "-F", eve.config(task_id), f"{task_id}.hakuriver", "echo in; sleep 600"],
                stdout=subprocess.PIPE,
                stdin=subprocess.DEVNULL,
            )
            assert session.stdout is not None
            assert session.stdout.readline() == b"in\n"
            shell = eve.run.start("task", "exec", str(task_id), "--", "sh", "-c", "echo in; sleep 600")
            assert shell.stdout is not None
            assert shell.stdout.readline() == b"in\n"
            assert ada.run("vps", "unshare", "ours", "eve").code == 0
            assert session.wait(30) != 0
            _, errors = shell.communicate(timeout=30)
            assert b"you are let in no more" in errors
            done = eve.ssh(task_id, "true")
            assert "there is no VPS" in done.stderr
            eve.run("task", "exec", str(task_id), "--", "true").assert_refused(DENIED, "belongs to ada")
            assert ada.ssh(task_id, "true").returncode == 0


class TestLife:
    def test_the_list(self, ada: Person, vps: int) -> None:
        for words, program in ((("vps", "list"), "hakuriver"), (("status",), "hakuriver.vps")):
            assert "lab" in ada.run(*words, program=program).stdout
        assert ada.run("vps", "status", "lab", "-o", "json").json()["task_id"] in {vps, str(vps)}

    def test_by_the_names_of_the_reference(self, lab: Cluster, ada: Person) -> None:
        vps = partial(ada.run, program="hakuriver.vps")
        made = vps("submit", "--name", "referred", "--wait")
        assert made.code == 0, made.stderr
        task_id = made.stdout.strip()
        assert ada.ssh(int(task_id), "echo on").stdout == "on\n"
        assert "referred" in vps("status").stdout
        for action, then in (("pause", TaskState.PAUSED), ("resume", TaskState.RUNNING)):
            done = vps("command", task_id, action)
            assert done.code == 0, done.stderr
            lab.api.wait_state(int(task_id), then)
        assert ada.ssh(int(task_id), "echo on").stdout == "on\n"
        done = vps("kill", task_id)
        assert done.code == 0, done.stderr
        assert lab.api.wait_final(int(task_id)).status is TaskState.KILLED
        assert "referred" not in vps("status").stdout
        vps("command", task_id, "pause").assert_refused(CONFLICT, "is killed")

    def test_a_name_is_ones_own(self, ada: Person, eve: Person, lab: Cluster, vps: int) -> None:
        del vps
        eve.run("vps", "create", "--name", "lab").assert_refused(CONFLICT, "there is a VPS named lab")
        with created(lab, ada, "--name", "again"):
            pass
        with created(lab, eve, "--name", "again"):
            pass

    def test_a_paused_one_says_so(self, lab: Cluster, ada: Person) -> None:
        with created(lab, ada, "--name", "frozen") as task_id:
            config = ada.config(task_id)
            assert ada.run("vps", "pause", "frozen").code == 0
            ada.run("ssh", "frozen").assert_refused(CONFLICT, "is paused")
            done = subprocess.run(
                ["ssh", "-F", config, f"{task_id}.hakuriver", "true"],
                capture_output=True,
                text=True,
                timeout=60,
                stdin=subprocess.DEVNULL,
                check=False,
            )
            assert done.returncode == SSH_FAILED
            assert "is paused; resume it" in done.stderr
            assert ada.run("vps", "resume", str(task_id)).code == 0
            assert ada.ssh(task_id, "echo on").stdout == "on\n"

    def test_a_killed_one_takes_its_sessions_along(self, lab: Cluster, ada: Person) -> None:
        with created(lab, ada) as task_id:
            session = begun(ada, task_id, "sleep 600")
            forward = forwarding(ada, task_id, free_port(), 8085)
            assert ada.run("vps", "kill", str(task_id)).code == 0
            assert session.wait(60) == 137
            assert forward.wait(60) == SSH_FAILED
            for ended in (session, forward):
                assert ended.stderr is not None
                assert "has ended" in ended.stderr.read()
            assert lab.api.wait_final(task_id).status is TaskState.KILLED
            ada.run("ssh", str(task_id)).assert_refused(CONFLICT, "is killed")
            until(lambda: container_of(task_id) not in names(lab), lambda: "no container is left")

    def test_one_that_ends_unasked_is_started_again_with_its_data(self, lab: Cluster, ada: Person) -> None:
        with created(lab, ada) as task_id:
            assert ada.ssh(task_id, "echo kept > /root/data").returncode == 0
            engine.client().containers.get(container_of(task_id)).kill()
            until(lambda: ada.ssh(task_id, "cat /root/data").stdout == "kept\n", lambda: "it runs again")
            assert lab.api.task(task_id).status is TaskState.RUNNING

    def test_one_that_is_never_to_be_started_again(self, lab: Cluster, ada: Person) -> None:
        with created(lab, ada, "--restart", "never") as task_id:
            engine.client().containers.get(container_of(task_id)).kill()
            assert lab.api.wait_final(task_id).status is TaskState.FAILED

    def test_one_whose_node_loses_what_is_temporary(self, lab: Cluster, ada: Person) -> None:
        """As when a machine restarts that empties /tmp."""
        with created(lab, ada) as task_id:
            assert ada.ssh(task_id, "true").returncode == 0
            shutil.rmtree(lab.folder / f"{lab.node.name}-temp" / f"{task_id}-1")
            engine.client().containers.get(container_of(task_id)).kill()
            until(
                lambda: ada.ssh(task_id, "ls -d /local_temp").stdout == "/local_temp\n",
                lambda: "it runs again",
            )

    def test_its_time_limit(self, lab: Cluster, ada: Person) -> None:
        with created(lab, ada, "--time-limit", "10s") as task_id:
            ended = lab.api.wait_final(task_id)
            assert ended.status is TaskState.FAILED
            assert "time limit" in (ended.error_message or "")


class TestStopping:
    """A VPS at rest: what is in it is kept, and what it held others may have."""

    def test_its_data_and_host_key_outlive_stop_and_start(self, lab: Cluster, ada: Person) -> None:
        with created(lab, ada, "--name", "rests", "--cores", "2") as task_id:
            assert ada.ssh(task_id, "echo kept > /root/file").returncode == 0
            stopped = ada.run("vps", "stop", "rests")
            assert (stopped.code, "is stopped" in stopped.stdout) == (0, True), stopped.stderr
            state = json.loads(ada.run("vps", "status", "rests", "-o", "json").stdout)
            assert state["status"] == "stopped"
            held = lab.api.nodes()[lab.node.name].cores_in_use
            refused = ada.ssh(task_id, "true")
            assert (refused.returncode, "is stopped" in refused.stderr) == (SSH_FAILED, True), refused.stderr
            assert "vps start" in refused.stderr

            started = ada.run("vps", "start", "rests", "--wait")
            assert started.code == 0, started.stderr
            # The host key is the one that the configuration knows.
            assert ada.ssh(task_id, "cat /root/file").stdout == "kept\n"
            now_held = lab.api.nodes()[lab.node.name].cores_in_use
            assert now_held == held + 2

    def test_it_takes_its_sessions_along(self, lab: Cluster, ada: Person) -> None:
        with created(lab, ada) as task_id:
            session = begun(ada, task_id, "sleep 600")
            assert ada.run("vps", "stop", str(task_id)).code == 0
            assert session.wait(60) != 0

    def test_restarted_and_stopped_twice(self, lab: Cluster, ada: Person) -> None:
        with created(lab, ada) as task_id:
            before = ada.ssh(task_id, "echo 1 > /root/file; stat -c %Z /proc/1").stdout
            again = ada.run("vps", "restart", str(task_id), "--wait")
            assert again.code == 0, again.stderr
            after = ada.ssh(task_id, "cat /root/file; stat -c %Z /proc/1").stdout
            assert after.startswith("1\n")
            assert after.splitlines()[1] != before.strip()
            for _ in range(2):
                assert ada.run("vps", "stop", str(task_id)).code == 0
            known = ada.run("vps", "start", str(task_id), "--wait")
            assert known.code == 0, known.stderr
            assert "is running already" in ada.run("vps", "start", str(task_id)).stdout

    def test_a_paused_one_is_resumed_and_not_started(self, lab: Cluster, ada: Person) -> None:
        with created(lab, ada) as task_id:
            assert ada.run("vps", "pause", str(task_id)).code == 0
            for words in (("start",), ("start", "--wait")):
                refused = ada.run("vps", *words, str(task_id))
                refused.assert_refused(CONFLICT, f"VPS {task_id} is paused")
                assert f"hakuriver vps resume {task_id}" in refused.stderr
            assert ada.run("vps", "restart", str(task_id), "--wait").code == 0
            assert ada.ssh(task_id, "echo on").stdout == "on\n"

    def test_a_paused_one_is_stopped(self, lab: Cluster, ada: Person) -> None:
        with created(lab, ada) as task_id:
            assert ada.run("vps", "pause", str(task_id)).code == 0
            stopped = ada.run("vps", "stop", str(task_id))
            assert stopped.code == 0, stopped.stderr

    def test_a_killed_one_is_gone(self, lab: Cluster, ada: Person) -> None:
        task_id = create(ada)
        assert ada.run("vps", "stop", str(task_id)).code == 0
        assert container_of(task_id) in names(lab)
        assert ada.run("vps", "kill", str(task_id)).code == 0
        lab.api.wait_final(task_id)
        until(lambda: container_of(task_id) not in names(lab), lambda: "its container is removed")

    def test_it_waits_for_room_and_may_stay(self, lab: Cluster, ada: Person) -> None:
        with created(lab, ada, "--cores", "20") as first:
            assert ada.run("vps", "stop", str(first)).code == 0
            with created(lab, ada, "--cores", "20"):
                assert ada.run("vps", "start", str(first)).code == 0
                explained = ada.run("task", "explain", str(first)).stdout
                assert "20" in explained, explained
                assert ada.run("vps", "stop", str(first)).code == 0
            assert lab.api.task(first).status is TaskState.STOPPED

    @pytest.mark.parametrize("daemon", ["host", "runner"])
    def test_it_stays_stopped_over_a_restart(self, lab: Cluster, ada: Person, daemon: str) -> None:
        with created(lab, ada) as task_id:
            assert ada.ssh(task_id, "echo kept > /root/file").returncode == 0
            assert ada.run("vps", "stop", str(task_id)).code == 0
            if daemon == "host":
                lab.host.kill()
                lab.start_host()
            else:
                lab.node.daemon.kill()
                lab.node.daemon.start()
            lab.wait_online()
            assert lab.api.task(task_id).status is TaskState.STOPPED
            started = ada.run("vps", "start", str(task_id), "--wait")
            assert started.code == 0, started.stderr
            assert ada.ssh(task_id, "cat /root/file").stdout == "kept\n"

    def test_its_time_limit_ends_it_while_it_is_stopped(self, lab: Cluster, ada: Person) -> None:
        task_id = create(ada, "--time-limit", "20s")
        assert ada.run("vps", "stop", str(task_id)).code == 0
        ended = lab.api.wait_final(task_id)
        assert "time limit" in (ended.error_message or "")

    def test_its_time_limit_is_extended(self, lab: Cluster, ada: Person) -> None:
        with created(lab, ada, "--time-limit", "60s") as task_id:
            extended = ada.run("vps", "extend", str(task_id), "2h")
            assert (extended.code, "2h01m" in extended.stdout) == (0, True), extended.stderr
            listed = json.loads(ada.run("vps", "list", "-o", "json").stdout)
            (mine,) = [each for each in listed if int(each["task_id"]) == task_id]
            began, ends = (datetime.fromisoformat(mine[key]) for key in ("started_at", "ends_at"))
            assert ends - began == timedelta(seconds=7260)
            assert lab.api.task(task_id).time_limit_seconds == 7260

    def test_one_without_time_limit_is_not_extended(self, ada: Person, vps: int) -> None:
        ada.run("vps", "extend", str(vps), "2h").assert_refused(CONFLICT, "has no time limit")

    def test_it_is_stopped_when_nobody_uses_it(self, lab: Cluster, ada: Person) -> None:
        with created(lab, ada, "--idle-stop", "15s") as task_id:
            session = begun(ada, task_id, "read line")
            assert session.stdin is not None
            session.stdin.close()
            assert session.wait(60) == 1
            stopped = lab.api.wait_state(task_id, TaskState.STOPPED, within=60)
            assert "nobody has used it for" in stopped.reason
            assert ada.run("vps", "start", str(task_id), "--wait").code == 0

    def test_one_that_others_let_me_into_is_not_mine_to_stop(
        self, lab: Cluster, ada: Person, eve: Person
    ) -> None:
        with created(lab, ada) as task_id:
            assert ada.run("vps", "share", str(task_id), "eve").code == 0
            for verb in ("stop", "start", "restart"):
                refused = eve.run("vps", verb, str(task_id))
                assert refused.code == DENIED, refused.stderr

    def test_a_command_is_no_vps(self, lab: Cluster, ada: Person) -> None:
        task_id = lab.api.submit_one("sleep", "1000")
        refused = ada.run("vps", "stop", str(task_id))
        assert refused.code == NOT_FOUND, refused.stderr
        lab.api.kill(task_id)

    def test_what_it_wrote(self, lab: Cluster, ada: Person) -> None:
        with created(lab, ada) as task_id:
            assert ada.ssh(task_id, "echo from within > /proc/1/fd/1").returncode == 0
            until(
                lambda: "from within" in ada.run("vps", "logs", str(task_id)).stdout,
                lambda: "it is in the log",
            )


class TestSnapshots:
    def test_taken_changed_and_restored(self, lab: Cluster, ada: Person) -> None:
        with created(lab, ada, "--name", "photographed", "--env", "SECRET=hush") as task_id:
            assert ada.ssh(task_id, "echo before > /root/file").returncode == 0
            taken = ada.run("vps", "snapshot", "photographed", "-m", "as it was", "-o", "json")
            assert taken.code == 0, taken.stderr
            (version,) = json.loads(taken.stdout)
            assert version["message"] == "as it was"
            assert ada.ssh(task_id, "echo after > /root/file; cat /root/file").stdout == "after\n"
            listed = json.loads(ada.run("vps", "snapshots", "photographed", "-o", "json").stdout)
            assert [each["version"] for each in listed] == [version["version"]]

            restored = ada.run("vps", "restore", "photographed", "--wait")
            assert restored.code == 0, restored.stderr
            # The same host key, or ssh would refuse.
            assert ada.ssh(task_id, "cat /root/file").stdout == "before\n"
            until(lambda: container_of(task_id) not in names(lab), lambda: "what it was before is removed")

            mine = create(ada, "--container", version["reference"])
            assert ada.ssh(mine, "cat /root/file; echo $SECRET").stdout == "before\n\n"
            assert ada.run("vps", "kill", str(mine)).code == 0

    def test_of_a_stopped_one(self, lab: Cluster, ada: Person) -> None:
        with created(lab, ada) as task_id:
            assert ada.ssh(task_id, "echo kept > /root/file").returncode == 0
            assert ada.run("vps", "stop", str(task_id)).code == 0
            taken = ada.run("vps", "snapshot", str(task_id), "-o", "json")
            assert taken.code == 0, taken.stderr
            assert lab.api.task(task_id).status is TaskState.STOPPED
            assert ada.run("vps", "restore", str(task_id), "--wait").code == 0
            assert ada.ssh(task_id, "cat /root/file").stdout == "kept\n"

    def test_they_are_their_owners(
        self, lab: Cluster, ada: Person, eve: Person, vps: int, tmp_path: Path
    ) -> None:
        (version,) = json.loads(ada.run("vps", "snapshot", str(vps), "-o", "json").stdout)
        reference, name = version["reference"], version["name"]
        for words in (
            ("vps", "snapshot", str(vps)),
            ("vps", "snapshots", str(vps)),
            ("vps", "restore", str(vps)),
            ("vps", "create", "--container", reference),
            ("task", "submit", "--container", reference, "--", "true"),
            ("task", "submit", "--container", name, "--", "true"),
            ("env", "export", reference, "-f", str(tmp_path / "taken.tar")),
            ("env", "clone", name, "stolen"),
            ("env", "delete", name, "--versions"),
            ("env", "create", "stolen", "--from", reference),
            ("env", "create", "stolen", "--image", f"hakuriver/{name}:{version['version']}"),
            ("env", "prefetch", name),
            ("env", "diff", reference, reference),
        ):
            refused = eve.run(*words)
            assert refused.code == DENIED, (words, refused.stderr)
        folder = tmp_path / "build"
        folder.mkdir()
        for line in (f"FROM hakuriver/{name}:{version['version']}", "FROM hakuriver-snapshot/1-1"):
            (folder / "Dockerfile").write_text(f"{line}\n", "utf-8")
            refused = eve.run("env", "create", "stolen", "--dockerfile", str(folder))
            assert refused.code == DENIED, refused.stderr
        (folder / "Dockerfile").write_text(f"# {'x' * 1_100_000}\nFROM hakuriver/{name}:1\n", "utf-8")
        assert eve.run("env", "create", "stolen", "--dockerfile", str(folder)).code == DENIED
        (folder / "Dockerfile").rename(folder / "other")
        (folder / "Dockerfile").symlink_to("other")
        eve.run("env", "create", "stolen", "--dockerfile", str(folder)).assert_refused(USAGE, "is a link")
        assert name not in eve.run("env", "list").stdout
        assert eve.run("env", "versions", name).code == NOT_FOUND
        assert name in ada.run("env", "list").stdout

    def test_a_new_user_does_not_inherit_them(self, lab: Cluster, tmp_path: Path) -> None:
        (tmp_path / "old").mkdir()
        ivy = person(lab, tmp_path / "old", "ivy")
        task_id = create(ivy, "--name", "left-behind")
        name = f"vps-{task_id}"
        taken = ivy.run("vps", "snapshot", "left-behind", "-o", "json")
        assert taken.code == 0, taken.stderr
        assert ivy.run("vps", "kill", "left-behind").code == 0
        lab.api.wait_final(task_id)
        done = lab.run("user", "remove", "ivy")
        assert (done.code, "1 snapshot of VPS" in done.stdout) == (0, True), done.stderr
        refused = lab.run("user", "create", "ivy")
        refused.assert_refused(CONFLICT, "a removed user ivy still has 1 snapshot of VPS")
        assert f"hakuriver env delete {name} --versions" in refused.stderr
        assert name in lab.run("env", "list").stdout
        assert lab.run("env", "delete", name, "--versions").code == 0
        assert name not in lab.run("env", "list").stdout
        assert lab.run("user", "create", "ivy").code == 0

    def test_their_names_are_taken(self, ada: Person, vps: int) -> None:
        refused = ada.run("env", "clone", "test-base", "vps-12345")
        refused.assert_refused(CONFLICT, "for the snapshots of a VPS")

    def test_one_that_has_none(self, lab: Cluster, ada: Person) -> None:
        with created(lab, ada) as task_id:
            assert ada.run("vps", "snapshots", str(task_id), "-o", "json").stdout.strip() == "[]"
            ada.run("vps", "restore", str(task_id)).assert_refused(NOT_FOUND, "has no version")
            assert lab.api.task(task_id).status is TaskState.RUNNING


class TestRestarts:
    """Of daemons: the VPS is there afterwards with its name, its host key and its data."""

    @pytest.mark.parametrize("daemon", ["host", "runner"])
    def test_killed_and_started(self, lab: Cluster, ada: Person, daemon: str) -> None:
        with created(lab, ada, "--name", f"over-{daemon}") as task_id:
            config = ada.config(task_id)
            words = ["ssh", "-F", str(config), f"over-{daemon}.hakuriver"]
            assert ada.ssh(task_id, "echo kept > /root/data").returncode == 0
            key = ada.run("vps", "list", "-o", "json").stdout
            if daemon == "host":
                lab.host.kill()
                lab.start_host()
            else:
                lab.node.daemon.kill()
                lab.node.daemon.start()
            lab.wait_online()

            def again() -> str:
                return subprocess.run(
                    [*words, "cat /root/data"], capture_output=True, text=True, timeout=60, check=False
                ).stdout

            until(lambda: again() == "kept\n", lambda: f"it answers; {lab.api.task(task_id)}")
            assert lab.api.task(task_id).attempt == 1
            assert json.loads(key)[0]["host_key"] in ada.run("vps", "list", "-o", "json").stdout


@pytest.fixture(scope="class", name="shaky")
def _shaky(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    # Late enough that a busy machine loses nothing that is there.
    soon = {"timing": {"heartbeat_interval": 0.5, "heartbeat_timeout_factor": 12, "lost_after": 2.0}}
    cluster = Cluster(tmp_path_factory.mktemp("shaky"), cores=32, containers=True, sections=soon)
    with running(cluster):
        yield cluster


@pytest.fixture(scope="class", name="ida")
def _ida(shaky: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Person:
    return person(shaky, tmp_path_factory.mktemp("ida"), "ida")


@pytest.fixture(scope="class", name="tom")
def _tom(shaky: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Person:
    return person(shaky, tmp_path_factory.mktemp("tom"), "tom")


class TestLost:
    """The node of a VPS does not answer for longer than `lost_after`."""

    def test_it_keeps_its_name_and_comes_back_with_its_node(
        self, shaky: Cluster, ida: Person, tom: Person
    ) -> None:
        with created(shaky, ida, "--name", "lab") as task_id:
            assert ida.ssh(task_id, "echo kept > /root/note").returncode == 0
            shaky.node.daemon.kill()
            shaky.api.wait_state(task_id, TaskState.LOST)
            why = f"is lost: {shaky.node.name} has not been heard of for"
            done = ida.ssh(task_id, "true")
            assert (done.returncode, why in done.stderr) == (SSH_FAILED, True), done.stderr
            assert f"hakuriver vps kill {task_id}" in done.stderr
            for reference in ("lab", str(task_id)):
                ida.run("ssh", reference, "true").assert_refused(CONFLICT, why)
                for words in (
                    ("stop", reference),
                    ("start", reference),
                    ("pause", reference),
                    ("extend", reference, "1h"),
                    ("snapshot", reference),
                    ("restore", reference),
                    ("share", reference, "tom"),
                ):
                    ida.run("vps", *words).assert_refused(CONFLICT, why)
                ida.run("task", "exec", str(task_id), "--", "true").assert_refused(CONFLICT, why)
                ida.run("forward", reference, "0:80").assert_refused(CONFLICT, why)
            assert "lost" in ida.run("vps", "list").stdout
            for who in (ida, tom):
                refused = who.run("vps", "create", "--name", "lab", "--public-key-file", f"{who.key}.pub")
                refused.assert_refused(CONFLICT, "lab, which is lost and may come back")
                assert ("vps kill lab" in refused.stderr) == (who is ida)
            shaky.node.daemon.start()
            until(
                lambda: shaky.api.task(task_id).status is TaskState.RUNNING,
                lambda: f"its node brings it back; {shaky.api.task(task_id)}",
            )
            shaky.wait_online()
            until(
                lambda: ida.ssh(task_id, "cat /root/note").stdout == "kept\n",
                lambda: f"it answers; {shaky.api.task(task_id)}",
            )

    def test_killed_it_gives_its_name_away_and_does_not_come_back(
        self, shaky: Cluster, ida: Person, tom: Person
    ) -> None:
        first = create(ida, "--name", "given")
        shaky.node.daemon.kill()
        shaky.api.wait_state(first, TaskState.LOST)
        tom.run("vps", "kill", "given").assert_refused(DENIED, "belongs to ida")
        done = ida.run("vps", "kill", "given")
        assert done.code == 0, done.stderr
        assert shaky.api.task(first).status is TaskState.KILLED
        waiting = tom.run("vps", "create", "--name", "given", "--public-key-file", f"{tom.key}.pub")
        assert waiting.code == 0, waiting.stderr
        shaky.node.daemon.start()
        shaky.wait_online()
        second = int(waiting.stdout)
        try:
            shaky.api.wait_state(second, TaskState.RUNNING)
            assert tom.run("vps", "status", "given", "-o", "json").json()["task_id"] in {second, str(second)}
            until(
                lambda: container_of(first) not in names(shaky),
                lambda: "its Runner has removed what is left of it",
            )
            assert shaky.api.task(first).status is TaskState.KILLED
        finally:
            tom.run("vps", "kill", str(second))
            shaky.api.wait_final(second)


class TestBadInput:
    def test_keys(self, ada: Person, tmp_path: Path) -> None:
        ada.run("vps", "create", "--public-key-file", str(ada.key)).assert_refused(USAGE, "private key")
        ada.run("key", "add", str(ada.key)).assert_refused(USAGE, "private key")
        ada.run("vps", "create", "--public-key-string", "ssh-ed25519 AAAA").assert_refused(USAGE, "damaged")
        ada.run("vps", "create", "--public-key-string", "hello").assert_refused(
            USAGE, "no type of public key"
        )
        ada.run("vps", "create", "--public-key-file", str(tmp_path / "none")).assert_refused(
            USAGE, "cannot read"
        )
        ada.run("key", "add", f"{ada.key}.pub").assert_refused(CONFLICT, "registered already")
        ada.run("key", "remove", "nosuch").assert_refused(NOT_FOUND, "no key nosuch")

    def test_nobody_could_log_in(self, lab: Cluster, tmp_path: Path) -> None:
        keyless = person_without_key(lab, tmp_path)
        keyless("vps", "create").assert_refused(USAGE, "no public key")

    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ({"container_name": "NULL"}, "a VPS is a container"),
            ({"name": "Bad_Name"}, "named as a machine"),
            ({"name": "123"}, "named as a machine"),
            ({"name": "status"}, "`status` cannot be the name of a VPS"),
            ({"count": 2}, "one VPS"),
            ({"arguments": ["x"]}, "no arguments"),
            ({"command": "-----BEGIN OPENSSH PRIVATE KEY-----"}, "private key"),
            ({"command": "nonsense"}, "no type of public key"),
        ],
    )
    def test_requests(self, lab: Cluster, ada: Person, fields: dict[str, object], words: str) -> None:
        body = {"task_type": "vps", "command": "-", "required_cores": 0, **fields}
        answer = lab.api_as(ada.environment["HAKURIVER_TOKEN"]).call("POST", "/api/submit", json=body)
        assert answer.status_code == 400, answer.text
        assert words in answer.text

    def test_of_vps_that_are_not(self, ada: Person) -> None:
        ada.run("ssh", "nosuch").assert_refused(NOT_FOUND, "there is no VPS nosuch")
        ada.run("vps", "kill", "nosuch").assert_refused(NOT_FOUND, "there is no VPS nosuch")
        ada.run("vps", "status", "1").assert_refused(NOT_FOUND, "there is no VPS 1")
        ada.run("vps", "kill", "status").assert_refused(NOT_FOUND, "no VPS is found by the name `status`")


def person_without_key(lab: Cluster, folder: Path) -> Commands:
    name = f"keyless{time.time_ns() % 10**6}"
    assert lab.run("user", "create", name).code == 0
    token = lab.run("token", "create", "--user", name).stdout.strip()
    return Commands({"HAKURIVER_CONFIG": str(lab.config), "HAKURIVER_TOKEN": token, "HOME": str(folder)})
