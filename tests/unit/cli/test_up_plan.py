"""What `hakuriver up` starts."""

from __future__ import annotations

import os
import socket
import stat
import tomllib
from pathlib import Path

import pytest

from hakuriver.config import Settings, load
from hakuriver_cli.up_plan import (
    RunnerPlan,
    configuration,
    free_ports,
    host_daemon,
    is_free,
    pause_before,
    runner_daemons,
    shares,
)
from unit.cli.conftest import Commands


def same(wanted: int) -> int:
    return wanted


def plans(count: int, **runner: object) -> list[RunnerPlan]:
    settings = Settings(
        runner={"name": "box", **runner},  # type: ignore[arg-type]
        paths={"state_dir": "/s", "local_temp_dir": "/t"},  # type: ignore[arg-type]
    )
    return runner_daemons(
        Path("/c"), settings, count, containers=True, cores=5, memory_bytes=9_000, choose_port=same
    )


def test_the_configuration_keeps_all_in_its_folder_and_on_loopback(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(configuration(tmp_path, lambda port: port + 1), "utf-8")
    settings = load(path)
    assert (settings.network.host_port, settings.network.runner_port) == (8001, 8002)
    assert settings.network.host_bind_ip == settings.network.runner_bind_ip == "127.0.0.1"
    assert settings.client.token_file == tmp_path / "state" / "admin.token"
    assert settings.runner.join_token_file == tmp_path / "state" / "join.token"
    assert all(str(tmp_path) in str(place) for place in tomllib.loads(path.read_text())["paths"].values())


def test_one_runner_is_as_it_is_configured() -> None:
    (plan,) = plans(1, join_token_file="/j")
    assert plan.node == "box"
    assert plan.daemon.environment == {"HAKURIVER__PATHS__STATE_DIR": "/s/runner-1"}
    assert plan.daemon.arguments == ["-m", "hakuriver_agent", "--config", "/c"]


def test_several_runners_share_the_machine_and_nothing_else() -> None:
    made = plans(2)
    first, second = (plan.daemon.environment for plan in made)
    assert [plan.node for plan in made] == ["box", "box-2"]
    assert (first["HAKURIVER__RUNNER__CORES"], second["HAKURIVER__RUNNER__CORES"]) == ("3", "2")
    assert first["HAKURIVER__RUNNER__MEMORY_BYTES"] == "4500"
    assert second["HAKURIVER__NETWORK__RUNNER_PORT"] == "8002"
    for key in ("PATHS__STATE_DIR", "PATHS__LOCAL_TEMP_DIR"):
        assert first[f"HAKURIVER__{key}"] != second[f"HAKURIVER__{key}"]


def test_a_runner_without_a_join_token_gets_the_hosts() -> None:
    (plan,) = plans(1)
    assert plan.daemon.environment["HAKURIVER__RUNNER__JOIN_TOKEN_FILE"] == "/s/join.token"


def test_without_an_engine_tasks_are_processes() -> None:
    key = "HAKURIVER__DOCKER__DEFAULT_CONTAINER_NAME"
    assert host_daemon(Path("/c"), containers=False).environment == {key: "NULL"}
    assert host_daemon(Path("/c"), containers=True).environment == {}


@pytest.mark.parametrize(
    ("total", "count", "parts"), [(5, 2, [3, 2]), (2, 2, [1, 1]), (2, 4, [1, 1, 1, 1]), (7, 1, [7])]
)
def test_shares(total: int, count: int, parts: list[int]) -> None:
    assert shares(total, count) == parts


def test_a_port_that_is_taken_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hakuriver_cli.up_plan.is_free", lambda _address, port: port != 8000)
    monkeypatch.setattr("hakuriver_cli.up_plan._any_free", lambda chosen: 40_000 + len(chosen))
    choose = free_ports([8001])
    assert [choose(port) for port in (8000, 8001, 8002, 8002)] == [40_001, 40_002, 8002, 40_004]


@pytest.mark.enable_socket
def test_a_listener_takes_its_port() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert not is_free("127.0.0.1", port)
    assert is_free("127.0.0.1", port)


def test_a_second_one_in_the_same_folder_is_a_conflict(commands: Commands, tmp_path: Path) -> None:
    from hakuriver_cli.up import _alone

    with _alone(tmp_path):
        done = commands("up", "--dir", str(tmp_path))
    assert done.code == 5
    assert f"runs already in {tmp_path} (process {os.getpid()})" in done.err


@pytest.mark.parametrize("count", ["0", "65", "two"])
def test_a_wrong_number_of_runners_is_refused(commands: Commands, tmp_path: Path, count: str) -> None:
    folder = tmp_path / "up"
    assert commands("up", "--dir", str(folder), "--runners", count).code == 2
    assert not folder.exists()


def test_the_folder_is_its_owners_alone(commands: Commands, tmp_path: Path) -> None:
    from hakuriver_cli.up import _alone

    folder = tmp_path / "up"
    folder.mkdir(mode=0o700)
    with _alone(folder):
        assert commands("up", "--dir", str(folder)).code == 5
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_the_pause_before_a_daemon_is_started_again_grows_to_a_limit() -> None:
    assert [pause_before(starts) for starts in (0, 1, 2, 3, 4, 5, 6, 10**6)] == [1, 2, 4, 8, 16, 30, 30, 30]
