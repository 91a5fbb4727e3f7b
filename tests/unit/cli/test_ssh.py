"""`hakuriver ssh` and `ssh-config`: what ssh is told."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from hakuriver.models.vps import GatewayInfo, VpsSummary
from hakuriver_cli import ssh
from unit.sdk.wire_samples import detail


@pytest.mark.parametrize(
    ("words", "options", "command"),
    [
        ([], [], []),
        (["-v", "ls", "-l"], ["-v"], ["ls", "-l"]),
        (["-L", "8888:localhost:8888", "--", "-odd"], ["-L", "8888:localhost:8888"], ["-odd"]),
        (["-vp", "22", "id"], ["-vp", "22"], ["id"]),
        (["-p22", "id"], ["-p22"], ["id"]),
        (["-oSendEnv=x", "-A", "id"], ["-oSendEnv=x", "-A"], ["id"]),
        (["-L1:localhost:2"], ["-L1:localhost:2"], []),
    ],
)
def test_options_end_where_the_command_begins(
    words: list[str], options: list[str], command: list[str]
) -> None:
    assert ssh._split(words) == (options, command)


def vps() -> VpsSummary:
    task = detail().model_dump()
    return VpsSummary(**{**task, "name": "lab", "task_id": 42}, host_key="ssh-ed25519 VPS")


def test_ssh_itself_reads_the_configuration_so(tmp_path: Path) -> None:
    place = ssh.Place("host.example", GatewayInfo(port=8002, host_key="ssh-ed25519 GATE"), tmp_path)
    config = tmp_path / "config"
    ssh._write(place, [vps()], config, ssh._text(place, [vps()]))
    for name in ("lab.hakuriver", "42.hakuriver"):
        told = subprocess.run(
            ["ssh", "-G", "-F", config, name], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        for line in (
            "hostname 42.hakuriver",
            "user root",
            "proxyjump hakuriver-gateway",
            "hostkeyalias hakuriver-vps-42",
        ):
            assert line in told
        assert f"userknownhostsfile {tmp_path}/known_hosts" in told
    jump = subprocess.run(
        ["ssh", "-G", "-F", config, "hakuriver-gateway"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert {"hostname host.example", "port 8002"} <= set(jump)


def test_known_hosts_keeps_what_others_wrote_and_replaces_its_own(tmp_path: Path) -> None:
    place = ssh.Place("h", GatewayInfo(port=1, host_key="ssh-ed25519 NEW"), tmp_path)
    (tmp_path / "known_hosts").write_text("other ssh-ed25519 X\nhakuriver-gateway ssh-ed25519 OLD\n", "utf-8")
    ssh._write(place, [vps()], tmp_path / "config", "")
    assert (tmp_path / "known_hosts").read_text("utf-8").splitlines() == [
        "other ssh-ed25519 X",
        "hakuriver-gateway ssh-ed25519 NEW",
        "hakuriver-vps-42 ssh-ed25519 VPS",
    ]


def test_what_was_not_used_for_days_is_removed(tmp_path: Path) -> None:
    place = ssh.Place("h", GatewayInfo(port=1, host_key="ssh-ed25519 G"), tmp_path)
    unused = ["config-250632163932766208", "config-250632163932766208-0123456789ab"]
    others = ["config", "config-mine", "config-20261127", "config-250632163932766208-mine", "known"]
    for name in (*unused, *others):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - 8 * 86400,) * 2)
    used = ["config-250632163932766209-0123456789ab", "config-250632163932766210-0123456789ab"]
    for name, days in zip(used, (6, 8), strict=True):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - days * 86400,) * 2)
    ssh._write(place, [vps()], tmp_path / used[1], "again\n")
    assert {path.name for path in tmp_path.iterdir()} == {*others, *used, "known_hosts", ".lock"}
    assert (tmp_path / used[1]).read_text("utf-8") == "again\n"
