"""Snapshots of VPS: versions of environments that are for their owner's eyes."""

from __future__ import annotations

import re

_NAME = re.compile(r"vps-[0-9]{1,20}")


_IMAGE = re.compile(r"hakuriver(?:-env)?/vps-[0-9]|hakuriver-snapshot/")
"""Images of snapshots, as Hosts and Runners call them in an engine that they may share."""


def is_snapshot(image: str) -> bool:
    """Whether an image's name, or a text with one in it, speaks of snapshots."""
    return _IMAGE.search(image) is not None


def snapshots_of(task_id: int) -> str:
    """The environment whose versions are the snapshots of a VPS."""
    return f"vps-{task_id}"


def is_private(environment: str) -> bool:
    """Whether an environment holds snapshots: what people had in their VPS, keys of theirs too."""
    return _NAME.fullmatch(environment) is not None
