"""A share as the Host makes it, for Runners and engines that are tested without one."""

from __future__ import annotations

from pathlib import Path

from hakuriver.models.runner import SHARED_MARKER


def make(root: Path) -> None:
    for name in ("task_outputs", "task_errors", "shared_data"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "shared_data").chmod(0o1777)
    (root / SHARED_MARKER).write_text("a share of the tests\n", "utf-8")
