"""Where the playbooks are: in a checkout the repository's own, else those that the package carries, or a person's own."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "HAKURIVER_ANSIBLE_DIR"
"""Names another folder with `playbooks`, such as a changed copy."""
_PACKAGE = Path(__file__).resolve().parents[1]


def checkout() -> Path | None:
    """The repository, when this code runs from one."""
    root = _PACKAGE.parents[1]
    return root if (root / "pyproject.toml").is_file() and (root / "ansible" / "playbooks").is_dir() else None


def project() -> Path:
    """The folder that holds `playbooks`, `roles` and `ansible.cfg`."""
    if named := os.environ.get(VARIABLE):
        return Path(named).expanduser().absolute()
    root = checkout()
    return root / "ansible" if root else _PACKAGE / "_ansible"


def lock_file(name: str) -> Path:
    """One of `requirements/`: `runtime` or `pip`."""
    return (checkout() or _PACKAGE) / "requirements" / f"{name}.txt"
