"""What the Runner says when it cannot start: one line of what is wrong, one of what to do, and the right exit code."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import trustme

from integration.agent.stand_in import stand_in
from support import settings
from support.daemons import Daemon
from support.ports import free_port


def _config(folder: Path, **sections: dict[str, object]) -> Path:
    own: settings.Sections = {
        "network": {"runner_bind_ip": "127.0.0.1", "runner_port": free_port()},
        "paths": {
            "shared_dir": folder / "shared",
            "state_dir": folder / "state",
            "local_temp_dir": folder / "temp",
        },
        "runner": {"name": "n1"},
    }
    return settings.write(folder / "runner.toml", settings.merged(own, sections))


def _fails(config: Path, folder: Path, environment: dict[str, str] | None = None) -> tuple[int, list[str]]:
    daemon = Daemon("hakuriver_agent", config, folder / "log", environment)
    daemon.start()
    code = daemon.wait()
    lines = daemon.output().splitlines()
    assert "Traceback" not in daemon.output()
    assert len(lines) == 2, lines
    return code, lines


def test_a_missing_configuration(tmp_path: Path) -> None:
    code, lines = _fails(tmp_path / "nowhere.toml", tmp_path)
    assert code == 3
    assert "nowhere.toml" in lines[0]


def test_a_configuration_that_is_not_toml(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("[network\n")
    code, lines = _fails(tmp_path / "bad.toml", tmp_path)
    assert code == 2
    assert "not TOML" in lines[0]


def test_an_unknown_setting_is_named(tmp_path: Path) -> None:
    code, lines = _fails(_config(tmp_path, runner={"colour": "red"}), tmp_path)
    assert code == 2
    assert "runner.colour" in lines[0]


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = _config(tmp_path, network={"runner_port": taken.getsockname()[1]})
        code, lines = _fails(config, tmp_path)
    assert code == 5
    assert "in use" in lines[0]


def test_an_address_that_is_not_here(tmp_path: Path) -> None:
    code, lines = _fails(_config(tmp_path, network={"runner_bind_ip": "192.0.2.1"}), tmp_path)
    assert code == 2
    assert "192.0.2.1" in lines[0]


@pytest.mark.parametrize("setting", ["state_dir", "local_temp_dir"])
def test_a_folder_that_cannot_be_made(tmp_path: Path, setting: str) -> None:
    (tmp_path / "file").write_text("")
    code, lines = _fails(_config(tmp_path, paths={setting: tmp_path / "file" / "below"}), tmp_path)
    assert code == 1
    assert setting in lines[1]


def test_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, lines = _fails(_config(tmp_path, paths={"runner_log_file": tmp_path / "file" / "log"}), tmp_path)
    assert code == 1
    assert "runner_log_file" in lines[1]


def test_a_journal_that_is_not_one(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "runner-n1"
    folder.mkdir(parents=True)
    (folder / "journal.db").write_bytes(b"something else entirely" * 100)
    code, lines = _fails(_config(tmp_path), tmp_path)
    assert code == 1
    assert "journal.db" in lines[0]


def test_a_certificate_that_is_not_one(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("no certificate")
    code, lines = _fails(_config(tmp_path, tls={"cert_file": tmp_path / "cert.pem"}), tmp_path)
    assert code == 2
    assert "cert.pem" in lines[0]


def test_it_serves_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    port = free_port()
    config = _config(
        tmp_path,
        network={"runner_port": port},
        tls={"cert_file": tmp_path / "cert.pem", "key_file": tmp_path / "key.pem"},
    )
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with _running(config, tmp_path) as daemon:
        from support.waiting import until

        def answer() -> int | None:
            try:
                return httpx.get(f"https://127.0.0.1:{port}/api/health", verify=context).status_code
            except httpx.TransportError:
                return None

        assert until(answer, daemon.output) == 401


def test_it_logs_to_its_file_too(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "runner.log"
    with stand_in(tmp_path, {"paths": {"runner_log_file": log}}) as (_, runner):
        runner.start()
        assert "joined the cluster" in log.read_text()


def test_its_secrets_are_its_own(tmp_path: Path) -> None:
    with stand_in(tmp_path) as (host, runner):
        runner.start()
        spec = runner.spec("true")
        runner.run([spec])
        host.final(spec)
        for path in (runner.folder / "state").rglob("*"):
            mode = path.stat().st_mode & 0o077
            if "vps-tools" in path.parts:
                continue  # Programs that everybody on the node has.
            assert mode == 0 or path.parent.stat().st_mode & 0o077 == 0, path


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may run tasks as others")
def test_run_as_owner_needs_an_owner(tmp_path: Path) -> None:
    with stand_in(tmp_path, {"runner": {"run_as_owner": True}}) as (_, runner):
        runner.start()
        for kind in ("process", "docker"):
            (result,) = runner.run([runner.spec("true", engine=kind)]).results
            assert result.outcome == "refused"
            assert "tester" in (result.reason or "")


@contextmanager
def _running(config: Path, folder: Path) -> Iterator[Daemon]:
    daemon = Daemon("hakuriver_agent", config, folder / "log")
    daemon.start()
    try:
        yield daemon
    finally:
        daemon.kill()
