"""Host, Runner and commands over TLS, with certificates of the cluster's own authority; and what systemd is told."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
import trustme

from hakuriver.config import load
from support import engine
from support.commands import Commands
from support.daemons import Daemon
from support.ports import free_port
from support.relay import Relay
from support.settings import QUICK, Sections, merged, write
from support.terminal import Terminal
from support.waiting import until


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    made = trustme.CA()
    made.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    certificate = made.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    for number, blob in enumerate(certificate.cert_chain_pems):
        blob.write_to_path(str(tmp_path / "cert.pem"), append=number > 0)
    return made


@pytest.fixture
def config(tmp_path: Path, authority: trustme.CA) -> Path:
    (tmp_path / "shared").mkdir()
    sections: Sections = {
        "network": {
            "host_bind_ip": "127.0.0.1",
            "host_port": free_port(),
            "runner_bind_ip": "127.0.0.1",
            "runner_port": free_port(),
        },
        "tls": {
            "cert_file": tmp_path / "cert.pem",
            "key_file": tmp_path / "key.pem",
            "ca_file": tmp_path / "ca.pem",
        },
        "paths": {
            "shared_dir": tmp_path / "shared",
            "local_temp_dir": tmp_path / "temp",
            "state_dir": tmp_path / "host",
        },
        "docker": {"default_container_name": "NULL"},
        "timing": {"terminal_wait": 20},
        "runner": {"name": "tls-node", "cores": 1, "join_token_file": tmp_path / "host" / "join.token"},
        "client": {"token_file": tmp_path / "host" / "admin.token"},
    }
    return write(tmp_path / "config.toml", merged(QUICK, sections))


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    """Stands where systemd's notification socket is."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(tmp_path / "notify"))
        bound.settimeout(30)
        yield bound


@pytest.fixture
def daemons(tmp_path: Path, config: Path, listener: socket.socket) -> Iterator[tuple[Daemon, Daemon]]:
    notify = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "3000000"}
    host = Daemon("hakuriver_host", config, tmp_path / "host.log", notify)
    runner = Daemon(
        "hakuriver_agent",
        config,
        tmp_path / "runner.log",
        {"HAKURIVER__PATHS__STATE_DIR": str(tmp_path / "runner")},
    )
    host.start()
    wait_for(listener, b"READY=1")
    runner.start()
    yield host, runner
    runner.stop()
    host.stop()


def test_everything_speaks_tls(tmp_path: Path, config: Path, daemons: tuple[Daemon, Daemon]) -> None:
    run = Commands({"HAKURIVER_CONFIG": str(config)})
    until(lambda: '"schedulable": true' in run("node", "list", "-o", "json").stdout, daemons[1].output)
    done = run("task", "run", "--", "echo", "over tls")
    assert (done.code, done.stdout) == (0, "over tls\n"), done.stderr
    node = run("node", "list", "-o", "json").json()[0]
    assert node["url"].startswith("https://")


@pytest.mark.docker
@pytest.mark.parametrize("how", ["drop", "reset"])
def test_a_terminal_goes_on_over_a_lost_connection(
    tmp_path: Path, config: Path, daemons: tuple[Daemon, Daemon], how: Literal["drop", "reset"]
) -> None:
    engine.write_environment(tmp_path / "shared" / "hakuriver-containers")
    run = Commands({"HAKURIVER_CONFIG": str(config)})
    until(lambda: '"schedulable": true' in run("node", "list", "-o", "json").stdout, daemons[1].output)
    submitted = run("task", "submit", "--container", engine.ENVIRONMENT, "--", "sleep", "86400")
    task = submitted.stdout.strip()
    until(lambda: run("task", "exec", task, "--", "true").code == 0, lambda: f"it runs: {submitted.stderr}")
    port = load(config).network.host_port
    relay = Relay("127.0.0.1", free_port(), ("127.0.0.1", port)).start()
    url = f"https://127.0.0.1:{relay.port}"
    environment = {"HAKURIVER_CONFIG": str(config), "HAKURIVER__CLIENT__URL": url}
    try:
        with Terminal(environment, "task", "shell", task) as terminal:
            terminal.until("#")
            relay.cut(how)
            terminal.type("echo ty''ped\r")
            terminal.until("reconnecting")
            relay.mend()
            terminal.until("connected again")
            terminal.until("typed")
            terminal.type("exit 9\r")
            assert terminal.code() == 9
    finally:
        relay.stop()
        run("task", "kill", task)
        assert run("task", "wait", task).code != 0


def test_an_authority_that_is_not_trusted_is_told(
    tmp_path: Path, config: Path, daemons: tuple[Daemon, Daemon]
) -> None:
    other = trustme.CA()
    other.cert_pem.write_to_path(str(tmp_path / "other.pem"))
    run = Commands({"HAKURIVER_CONFIG": str(config), "HAKURIVER__TLS__CA_FILE": str(tmp_path / "other.pem")})
    run("task", "list").assert_refused(6, "certificate")


def test_systemd_is_told_that_it_serves_lives_and_ends(
    daemons: tuple[Daemon, Daemon], listener: socket.socket
) -> None:
    wait_for(listener, b"WATCHDOG=1")
    daemons[0].stop()
    wait_for(listener, b"STOPPING=1")


def wait_for(listener: socket.socket, word: bytes) -> None:
    """Until systemd has heard the word."""
    heard: list[bytes] = []

    def probe() -> bool:
        heard.append(listener.recv(100))
        return heard[-1] == word

    until(probe, lambda: f"{word!r} among {set(heard)}")
