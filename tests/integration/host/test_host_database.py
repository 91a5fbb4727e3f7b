"""What `cluster upgrade` asks of the Host's database, by a program that its playbook runs: for both kinds, old and new."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import create_engine

from hakuriver_host.db.migration import HEAD, migrate, run_alembic

_PROGRAM = Path(__file__).resolve().parents[3] / "ansible/playbooks/files/host_database.py"
_OLD = "0001"


def told(folder: Path, **database: str) -> list[str]:
    """What it says of a database with these settings, line by line."""
    config = folder / "host.toml"
    lines = [f"[paths]\nstate_dir = {json.dumps(str(folder))}\n[database]"]
    lines += [f"{name} = {json.dumps(value)}" for name, value in database.items()]
    config.write_text("\n".join(lines), "utf-8")
    argv = [sys.executable, "-c", _PROGRAM.read_text("utf-8"), str(config)]
    return subprocess.check_output(argv, text=True).split("\n")[:-1]


def brought_to(url: str, revision: str) -> None:
    engine = create_engine(url)
    if revision == HEAD:
        migrate(engine)
    else:
        run_alembic(engine, lambda config: command.upgrade(config, revision))
    engine.dispose()


def test_a_host_that_has_not_started_has_none(tmp_path: Path) -> None:
    assert told(tmp_path) == ["sqlite", "", HEAD, str(tmp_path / "host.db")]


@pytest.mark.parametrize("revision", [_OLD, HEAD])
def test_a_file_that_the_settings_name(tmp_path: Path, revision: str) -> None:
    file = tmp_path / "elsewhere.db"
    brought_to(f"sqlite:///{file}", revision)
    assert told(tmp_path, db_file=str(file)) == ["sqlite", revision, HEAD, str(file)]


@pytest.mark.postgresql
def test_postgresql(tmp_path: Path, postgresql_url: str) -> None:
    assert told(tmp_path, url=postgresql_url) == ["postgresql", "", HEAD, ""]
    brought_to(postgresql_url, _OLD)
    assert told(tmp_path, url=postgresql_url) == ["postgresql", _OLD, HEAD, ""]
