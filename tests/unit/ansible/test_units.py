"""The units that the roles install are those that `hakuriver init service` writes, with a watchdog."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from jinja2 import Environment, StrictUndefined

from hakuriver_cli.units import Role, UnitPlan, unit_text

ROLES = Path(__file__).resolve().parents[3] / "ansible/roles"
PYTHON = "/opt/hakuriver/current/bin/hakuriver-python"
SHARE, STATE, SCRATCH = "/mnt/haku river", "/var/lib/haku 100%", "/var/lib/scratch"

# What the roles add: variables and the stamp, the engine's group, a watchdog, and the Runner's own disk.
ADDED = {
    "host": {"EnvironmentFile", "WatchdogSec", "SupplementaryGroups"},
    "runner": {"EnvironmentFile", "WatchdogSec"},
}


def rendered(role: Role, **changed: Any) -> list[str]:
    effective = {"paths": {"shared_dir": SHARE, "state_dir": STATE, "local_temp_dir": SCRATCH}}
    variables: dict[str, Any] = {
        "ansible_managed": "managed",
        "hakuriver_config_dir": "/etc/hakuriver",
        "hakuriver_user": "haku",
        "hakuriver_group": "users",
        f"hakuriver_{role}_effective": effective,
        f"hakuriver_{role}__python": PYTHON,
        f"hakuriver_{role}__config": f"/etc/hakuriver/{role}.toml",
        f"hakuriver_{role}_watchdog_seconds": 60,
        f"hakuriver_{role}_requires_mounts": [],
        "hakuriver_host__groups": ["docker"],
        "hakuriver_host__writes": [SHARE, STATE],
        "hakuriver_runner_user": "haku",
        **changed,
    }
    environment = Environment(undefined=StrictUndefined, trim_blocks=True)  # noqa: S701  (no web page)
    environment.tests["match"] = _matches
    text = (ROLES / f"hakuriver_{role}/templates/hakuriver-{role}.service.j2").read_text("utf-8")
    return environment.from_string(text).render(variables).splitlines()


def _matches(value: str, pattern: str) -> bool:
    """As Ansible's test of that name."""
    return re.match(pattern, value) is not None


def written(role: Role) -> list[str]:
    plan = UnitPlan(
        role=role,
        python=PYTHON,
        config=Path(f"/etc/hakuriver/{role}.toml"),
        user="haku",
        group="users",
        shared_dir=Path(SHARE),
        writes=(Path(SHARE), Path(STATE)),
    )
    return unit_text(plan).splitlines()


def directives(lines: list[str]) -> set[str]:
    return {line for line in lines if line and not line.startswith("#")}


@pytest.mark.parametrize("role", ["host", "runner"])
def test_the_role_says_what_the_command_says(role: Role) -> None:
    missing = directives(written(role)) - directives(rendered(role))
    # A Runner's group is that of its user.
    assert missing == ({"Group=users"} if role == "runner" else set())


@pytest.mark.parametrize("role", ["host", "runner"])
def test_the_role_adds_only_what_is_known_here(role: Role) -> None:
    added = {line.partition("=")[0] for line in directives(rendered(role)) - directives(written(role))}
    assert added == ADDED[role] | ({"RequiresMountsFor"} if role == "runner" else set())


@pytest.mark.parametrize("role", ["host", "runner"])
def test_directives_stand_in_the_same_sections(role: Role) -> None:
    def sections(lines: list[str]) -> dict[str, str]:
        found, section = {}, ""
        for line in lines:
            if line.startswith("["):
                section = line
            elif "=" in line and not line.startswith("#"):
                found[line.partition("=")[0]] = section
        return found

    theirs = sections(written(role))
    assert {key: value for key, value in sections(rendered(role)).items() if key in theirs} == {
        key: value for key, value in theirs.items() if not (role == "runner" and key == "Group")
    }


def test_a_watchdog_can_be_left_out() -> None:
    assert "WatchdogSec=60" in rendered("host")
    assert not [line for line in rendered("host", hakuriver_host_watchdog_seconds=0) if "WatchdogSec" in line]


def test_a_host_that_writes_below_tmp_sees_the_machines_tmp() -> None:
    assert "PrivateTmp=yes" in rendered("host")
    assert "PrivateTmp=yes" not in rendered("host", hakuriver_host__writes=["/tmp/share"])
    assert "PrivateTmp=yes" in rendered("host", hakuriver_host__writes=["/tmpfiles"])


def test_tasks_outlive_the_runner() -> None:
    assert {"KillMode=process", "Delegate=yes"} <= set(rendered("runner"))
