"""What Host, Runner and client say to each other. Each module is loaded when it is first used, as `models.tasks`: making
models takes time, and a command needs few of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hakuriver.models import (
        access,
        base,
        batches,
        environments,
        errors,
        nodes,
        runner,
        submission,
        tasks,
        usage,
        vps,
    )

__all__ = [
    "access",
    "base",
    "batches",
    "environments",
    "errors",
    "nodes",
    "runner",
    "submission",
    "tasks",
    "usage",
    "vps",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return import_module(f"hakuriver.models.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
