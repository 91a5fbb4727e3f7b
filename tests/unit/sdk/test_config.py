"""Wrong settings are told of in our words, and of the place where they stand."""

from __future__ import annotations

from pathlib import Path

import pytest

from hakuriver.config import Settings, config_path, load, own_config_path
from hakuriver.errors import UsageError


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("HAKURIVER_CONFIG", raising=False)
    path = tmp_path / "config.toml"
    path.touch()
    return path


def refused(file: Path, text: str = "") -> str:
    file.write_text(text, "utf-8")
    with pytest.raises(UsageError) as caught:
        load(file)
    return caught.value.message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[network]\nhost_port = 'x'", "network.host_port: must be a whole number"),
        ("[network]\nhost_port = 70000", "network.host_port: must be at most 65535"),
        ("[network]\nhost_port = [1]", "network.host_port: must be a whole number"),
        ("[timing]\nlost_after = 0", "timing.lost_after: must be above 0"),
        ("[timing]\nheartbeat_interval = 'x'", "timing.heartbeat_interval: must be a number"),
        ("[runner]\nnetwork = 'x'", "runner.network: must be 'host', 'bridge' or 'none'"),
        ("[runner]\nallow_privileged = 'maybe'", "runner.allow_privileged: must be true or false"),
        ("[docker]\nadditional_mounts = 'a'", "docker.additional_mounts: must be a list"),
        ("[docker]\nadditional_mounts = [1]", "docker.additional_mounts.0: must be text"),
        (
            "[docker]\nsocket = 'docker.sock'",
            "docker.socket: must be a URL such as unix:///run/docker.sock or",
        ),
        ("[paths]\nshared_dir = 1", "paths.shared_dir: must be a path"),
        ("network = 5", "network: must be a table of keys and values"),
        ("[network]\nhost_prot = 1", "network.host_prot is not a setting (did you mean host_port?)"),
        ("[netwrok]\nx = 1", "netwrok is not a setting (did you mean network?)"),
        ("colour = 'blue'", "colour is not a setting"),
    ],
)
def test_a_wrong_file(file: Path, text: str, words: str) -> None:
    message = refused(file, text)
    assert message.startswith(f"wrong settings in {file}: ")
    assert words in message
    assert "Input" not in message


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("HAKURIVER__NETWORK__HOST_PORT", "x", "HAKURIVER__NETWORK__HOST_PORT: must be a whole number"),
        ("hakuriver__network__host_port", "x", "hakuriver__network__host_port: must be a whole number"),
        ("HAKURIVER__NETWORK__HOST_PROT", "1", "(did you mean HAKURIVER__NETWORK__HOST_PORT?)"),
        ("HAKURIVER__NETWROK__X", "1", "(did you mean HAKURIVER__NETWORK__…?)"),
        ("HAKURIVER__COLOUR", "1", "HAKURIVER__COLOUR is not a setting"),
        ("HAKURIVER__NETWORK", "x", "HAKURIVER__NETWORK: must be JSON, such as {"),
        ("HAKURIVER__NETWORK", "5", "HAKURIVER__NETWORK: must be"),
        (
            "HAKURIVER__NETWORK",
            '{"host_port": "x"}',
            "HAKURIVER__NETWORK (host_port): must be a whole number",
        ),
        ("HAKURIVER__NETWORK__HOST_PORT__X", "1", "HAKURIVER__NETWORK__HOST_PORT__X: must be"),
        ("HAKURIVER__DOCKER__ADDITIONAL_MOUNTS", "/a:/b", "must be JSON, such as ["),
        ("HAKURIVER__DOCKER__ADDITIONAL_MOUNTS", '["a"]', "'a' is not HOST:CONTAINER"),
        ("HAKURIVER__RUNNER__LABELS", "gpu=a100", 'must be JSON, such as {"key": "value"}'),
        ("HAKURIVER__RUNNER__LABELS", "[1]", "must be JSON, such as {"),
        ("HAKURIVER__RUNNER__LABELS", '{"a b": "x"}', "'a b' is not a label's key"),
        ("HAKURIVER__SCHEDULING__USER_LIMITS", "", "must be JSON, such as {"),
        ("HAKURIVER__SCHEDULING__USER_LIMITS__ADA", "x", "HAKURIVER__SCHEDULING__USER_LIMITS__ADA: must be"),
        ("HAKURIVER__SCHEDULING__USER_LIMITS", '{"ada": {"core": 1}}', "ada"),
        ("HAKURIVER__RUNNER__NAME", "a b", "a node's name has letters"),
    ],
)
def test_a_wrong_variable_is_named_and_the_file_is_not_blamed(
    file: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(name, value)
    message = refused(file, "[paths]\nnumactl_path = '/x'\n")
    assert message.startswith(f"wrong settings in the environment: {name}")
    assert words in message
    assert str(file) not in message


def test_both_are_told_of_when_both_are_wrong(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAKURIVER__NETWORK__HOST_PORT", "x")
    message = refused(file, "[network]\nrunner_port = 'y'\n")
    in_file, _, in_environment = message.partition("; ")
    assert in_file == f"wrong settings in {file}: network.runner_port: must be a whole number"
    assert in_environment.endswith(": HAKURIVER__NETWORK__HOST_PORT: must be a whole number")


def test_a_section_that_a_variable_sets_is_not_blamed_for_the_rest_of_it(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAKURIVER__NETWORK", '{"host_port": 9000}')
    assert refused(file, "[network]\nrunner_port = 'y'\n").startswith(f"wrong settings in {file}: ")


def test_the_machines_file_is_read_where_a_person_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HAKURIVER_CONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    machine, own = tmp_path / "client.toml", tmp_path / ".hakuriver/config.toml"
    monkeypatch.setattr("hakuriver.config.MACHINE_PATH", machine)
    assert (config_path(), load().network.host_port) == (own, 8000)
    machine.write_text("[network]\nhost_port = 1\n")
    assert (config_path(), own_config_path(), load().network.host_port) == (machine, own, 1)
    own.parent.mkdir()
    own.write_text("[network]\nhost_port = 2\n")
    assert (config_path(), load().network.host_port) == (own, 2)
    monkeypatch.setenv("HAKURIVER_CONFIG", str(tmp_path / "named.toml"))
    assert config_path() == tmp_path / "named.toml"


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("", ""),
        ("/run/docker.sock", "unix:///run/docker.sock"),
        ("unix:///run/docker.sock", "unix:///run/docker.sock"),
        ("tcp://node-1:2376", "tcp://node-1:2376"),
    ],
)
def test_the_engine_is_named_by_url_or_path(file: Path, given: str, taken: str) -> None:
    file.write_text(f"[docker]\nsocket = '{given}'\n", "utf-8")
    settings: Settings = load(file)
    assert settings.docker.socket == taken


def test_variables_go_before_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("[network]\nhost_port = 1\nrunner_port = 2\n", "utf-8")
    monkeypatch.setenv("HAKURIVER__NETWORK__HOST_PORT", "9000")
    monkeypatch.setenv("HAKURIVER__DOCKER__ADDITIONAL_MOUNTS", '["/a:/b"]')
    monkeypatch.setenv("HAKURIVER__RUNNER__MEMORY_BYTES", "5000000")
    settings: Settings = load(file)
    assert (settings.network.host_port, settings.network.runner_port) == (9000, 2)
    assert settings.docker.additional_mounts == ["/a:/b"]
    assert settings.runner.memory_bytes == 5_000_000
