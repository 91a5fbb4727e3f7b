"""Which other firewall is in charge of a machine, as the role finds out by a few lines of shell."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

_ROLE = Path(__file__).resolve().parents[3] / "ansible/roles/firewall"
LOOK = yaml.safe_load((_ROLE / "vars/main.yml").read_text("utf-8"))["firewall_find_others"]


class Machine:
    """Programs that answer as those of the machine would, and what ufw's settings say."""

    def __init__(self, folder: Path) -> None:
        self.programs = folder / "bin"
        self.programs.mkdir()
        self.settings = folder / "ufw.conf"
        self.program("systemctl", "exit 3")
        (self.programs / "grep").symlink_to("/bin/grep")

    def program(self, name: str, does: str) -> None:
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{does}\n", "utf-8")
        path.chmod(0o755)

    def others(self) -> list[str]:
        done = subprocess.run(
            ["/bin/sh", "-c", LOOK, "sh", str(self.settings)],
            env={"PATH": str(self.programs)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stderr == ""
        return done.stdout.split()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_machine_without_another_one(machine: Machine) -> None:
    assert machine.others() == []


@pytest.mark.parametrize("line", ["ENABLED=yes", 'ENABLED="yes"', "ENABLED=YES"])
def test_ufw_that_is_on(machine: Machine, line: str) -> None:
    machine.program("ufw", "true")
    machine.settings.write_text(f"# /etc/ufw/ufw.conf\n{line}\nLOGLEVEL=low\n", "utf-8")
    assert machine.others() == ["ufw"]


def test_ufw_that_is_off_though_its_unit_is_active_as_on_ubuntu(machine: Machine) -> None:
    machine.program("ufw", "true")
    machine.program("systemctl", 'case "$*" in *ufw*) exit 0 ;; *) exit 3 ;; esac')
    machine.settings.write_text("#ENABLED=yes\nENABLED=no\n", "utf-8")
    assert machine.others() == []


def test_settings_that_ufw_has_left_behind(machine: Machine) -> None:
    machine.settings.write_text("ENABLED=yes\n", "utf-8")
    assert machine.others() == []


def test_firewalld_that_runs_and_is_started_at_boot(machine: Machine) -> None:
    machine.program("systemctl", 'case "$*" in *firewalld*) exit 0 ;; *) exit 3 ;; esac')
    assert machine.others() == ["firewalld"]


def test_firewalld_that_is_not_started_at_boot(machine: Machine) -> None:
    machine.program("systemctl", 'case "$*" in is-active*firewalld*) exit 0 ;; *) exit 1 ;; esac')
    assert machine.others() == []
