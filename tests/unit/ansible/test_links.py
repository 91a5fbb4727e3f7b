"""Every command that HakuRiver promises is linked where people find it, and taken away with the rest."""

from __future__ import annotations

import tomllib
from pathlib import Path

import yaml

_ROOT = Path(__file__).resolve().parents[3]
_FOLDER = "{{ take_off_bin }}/"
PROMISED = sorted(tomllib.loads((_ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"])


def test_the_role_links_them_all() -> None:
    variables = yaml.safe_load((_ROOT / "ansible/roles/hakuriver_install/vars/main.yml").read_text("utf-8"))
    assert sorted(variables["hakuriver_install__commands"]) == PROMISED


def test_what_is_taken_off_a_machine_is_all_of_them() -> None:
    tasks = yaml.safe_load((_ROOT / "ansible/playbooks/tasks/take-off.yml").read_text("utf-8"))
    removed = next(
        task["vars"]["take_off_files"]["rest"] for task in tasks if "take_off_files" in task.get("vars", {})
    )
    assert sorted(path.removeprefix(_FOLDER) for path in removed if path.startswith(_FOLDER)) == PROMISED
