"""`config show | check` and `init config | service`."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from hakuriver.config import Settings
from hakuriver.models.access import WhoAmI
from hakuriver.roles import Role
from hakuriver_cli import checks, configure
from hakuriver_cli.reference import init_app
from hakuriver_cli.toml import settings_text, without_password
from unit.cli.conftest import Commands, FakeHost


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A configuration of a machine where all is well."""
    for name in ("shared", "state", "temp"):
        (tmp_path / name).mkdir(mode=0o700)
    token = tmp_path / "token"
    token.touch(mode=0o600)
    path = tmp_path / "config.toml"
    path.write_text(
        f'[paths]\nshared_dir = "{tmp_path}/shared"\nstate_dir = "{tmp_path}/state"\n'
        f'local_temp_dir = "{tmp_path}/temp"\n[client]\ntoken_file = "{token}"\n'
        '[database]\nurl = "postgresql+psycopg://haku:secret@db:5432/haku"\n',
        "utf-8",
    )
    return path


@pytest.fixture
def _quiet(monkeypatch: pytest.MonkeyPatch, host: FakeHost) -> None:
    """No socket: ports are free, and Docker answers."""
    host.on("GET", "/api/whoami", WhoAmI(name="ada", role=Role.USER))
    monkeypatch.setattr(checks, "docker_problem", lambda _: None)
    monkeypatch.setattr(
        checks, "_port", lambda check, *_: checks.Finding(check=check, ok=True, message="free")
    )


def test_the_settings_are_shown_as_toml_with_their_descriptions_and_no_password(
    commands: Commands, file: Path
) -> None:
    done = commands("config", "show", "--config", str(file))
    shown = tomllib.loads(done.out)
    assert shown["paths"]["shared_dir"] == str(file.parent / "shared")
    assert "# Shared storage, as this machine mounts it." in done.out
    assert "secret" not in done.out
    assert shown["database"]["url"] == "postgresql+psycopg://haku:***@db:5432/haku"


def test_the_defaults_are_shown_whatever_the_file_says(commands: Commands, file: Path) -> None:
    done = commands("config", "show", "--defaults", "--config", str(file))
    assert tomllib.loads(done.out)["paths"]["shared_dir"] == "/mnt/hakuriver"


def test_the_settings_as_json(commands: Commands, file: Path) -> None:
    shown = commands("config", "show", "-o", "json", "--config", str(file)).json
    assert shown["network"]["host_port"] == 8000
    assert "secret" not in str(shown)


def test_every_setting_has_a_description() -> None:
    for section in Settings.model_fields.values():
        for field in section.annotation.model_fields.values():  # type: ignore[union-attr]
            assert field.description


def test_a_file_to_start_from_changes_nothing(commands: Commands, tmp_path: Path) -> None:
    path = tmp_path / "new" / "config.toml"
    done = commands("config", "--config", str(path), app=init_app())
    assert (done.code, done.out) == (0, f"{path}\n")
    text = path.read_text("utf-8")
    assert all(value == {} for value in tomllib.loads(text).values())
    path.write_text("# mine\n", "utf-8")
    again = commands("init", "config", "--config", str(path), "-o", "json")
    assert (again.code, again.json) == (0, {"path": str(path), "written": False})
    assert path.read_text("utf-8") == "# mine\n"


def test_what_is_shown_can_be_read_again() -> None:
    settings = Settings()
    assert Settings(**tomllib.loads(settings_text(settings))) == settings


@pytest.mark.parametrize(
    ("url", "shown"),
    [("sqlite:///x.db", "sqlite:///x.db"), ("http://u:p@h/x", "http://u:***@h/x"), ("", "")],
)
def test_passwords_are_left_out(url: str, shown: str) -> None:
    assert without_password(url) == shown


@pytest.mark.usefixtures("_quiet")
def test_a_machine_where_all_is_well(commands: Commands, file: Path) -> None:
    done = commands("config", "check", "--config", str(file), "-o", "json")
    assert done.code == 0
    assert all(finding["ok"] for finding in done.json)
    assert {finding["check"] for finding in done.json} >= {"file", "shared", "state", "token", "host"}


@pytest.mark.usefixtures("_quiet")
def test_problems_are_found_with_a_hint_each(
    commands: Commands, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (file.parent / "token").chmod(0o644)
    (file.parent / "state").chmod(0o755)
    (file.parent / "shared").rmdir()
    monkeypatch.setattr(checks, "docker_problem", lambda _: "no engine")
    done = commands("config", "check", "--config", str(file), "-o", "json")
    problems = {finding["check"]: finding for finding in done.json if not finding["ok"]}
    assert done.code == 1
    assert set(problems) == {"shared", "state", "token", "docker"}
    assert all(finding["hint"] for finding in problems.values())


@pytest.mark.usefixtures("_quiet")
def test_a_client_needs_no_share(commands: Commands, file: Path) -> None:
    (file.parent / "shared").rmdir()
    assert commands("config", "check", "--role", "client", "--config", str(file)).code == 0


@pytest.mark.parametrize("text", ["no toml", "[network]\nhost_prot = 1", "[network]\nhost_port = 70000"])
def test_a_wrong_file_is_a_usage_error(commands: Commands, tmp_path: Path, text: str) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(text, "utf-8")
    for words in (("config", "check"), ("config", "show"), ("task", "list")):
        assert commands(*words, "--config", str(path)).code == 2


def test_units_are_written_and_the_next_steps_told(
    commands: Commands, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(configure, "SYSTEMD_RUNS", tmp_path / "none")
    units = tmp_path / "units"
    done = commands("init", "service", "--all", "--config", str(file), "--output-dir", str(units))
    assert done.code == 0
    assert sorted(path.name for path in units.iterdir()) == [
        "hakuriver-host.service",
        "hakuriver-runner.service",
    ]
    assert f"--config {file}" in (units / "hakuriver-host.service").read_text("utf-8")
    assert "systemctl enable --now" in done.err
    assert done.out == f"{units}/hakuriver-host.service\n{units}/hakuriver-runner.service\n"
    words = ("--host", "--config", str(file), "--output-dir", str(units), "-o", "json")
    written = commands("init", "service", *words).json
    assert written == [{"path": f"{units}/hakuriver-host.service", "written": True}]


def test_each_unit_may_have_its_own_configuration(commands: Commands, file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text("", "utf-8")
    words = ["service", "--host", "--config", str(file), "--host-config", str(other)]
    assert commands(*words, "--output-dir", str(tmp_path), app=init_app()).code == 0
    assert f"--config {other}" in (tmp_path / "hakuriver-host.service").read_text("utf-8")


def test_a_unit_must_be_named(commands: Commands) -> None:
    assert commands("init", "service").code == 2
