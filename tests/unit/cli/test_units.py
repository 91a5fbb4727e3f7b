"""The systemd units, as text."""

from __future__ import annotations

from pathlib import Path

import pytest

from hakuriver_cli.units import Role, UnitPlan, unit_text


def unit(
    role: Role, shared: str = "/mnt/hakuriver", config: str = "/etc/haku river/config.toml"
) -> list[str]:
    plan = UnitPlan(
        role=role,
        python="/opt/py/bin/python",
        config=Path(config),
        user="haku",
        group="users",
        shared_dir=Path(shared),
        writes=(Path(shared), Path("/var/lib/haku 100%")),
    )
    return unit_text(plan).splitlines()


@pytest.mark.parametrize(("role", "module"), [("host", "hakuriver_host"), ("runner", "hakuriver_agent")])
def test_both_start_their_daemon_with_their_file_and_tell_when_they_are_ready(
    role: Role, module: str
) -> None:
    lines = unit(role)
    assert f'ExecStart=/opt/py/bin/python -m {module} --config "/etc/haku river/config.toml"' in lines
    assert {"Type=notify", "Restart=always", "User=haku", "WantedBy=multi-user.target"} <= set(lines)
    assert "RequiresMountsFor=/mnt/hakuriver" in lines


def test_the_runners_tasks_outlive_it() -> None:
    assert {"KillMode=process", "Delegate=yes"} <= set(unit("runner"))
    assert "KillMode=process" not in unit("host")


def test_the_host_may_write_its_own_folders_alone() -> None:
    lines = unit("host")
    assert {"NoNewPrivileges=yes", "ProtectSystem=strict", "PrivateTmp=yes"} <= set(lines)
    assert 'ReadWritePaths=-"/var/lib/haku 100%%"' in lines
    assert "ProtectSystem=strict" not in unit("runner")


def test_a_share_below_tmp_is_not_hidden() -> None:
    assert "PrivateTmp=yes" not in unit("host", shared="/tmp/share")
