"""Snapshots of VPS: versions of environments that are for their owner's eyes."""

from __future__ import annotations

import re

_NAME = re.compile(r"vps-[0-9]{1,20}")


def snapshots_of(task_id: int) -> str:
    """The environment whose versions are the snapshots of a VPS."""
    return f"vps-{task_id}"


def is_private(environment: str) -> bool:
    """Whether an environment holds snapshots: what people had in their VPS, keys of theirs too."""
    return _NAME.fullmatch(environment) is not None
