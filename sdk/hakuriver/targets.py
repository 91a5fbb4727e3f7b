"""Targets: where a task asks to run, written `node[:numa][::gpu,gpu]`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hakuriver.errors import UsageError

NODE_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")
"""A node's name: a host name, at most 64 characters."""
_GPU_UUID = re.compile(r"(?:GPU|MIG)-[A-Za-z0-9/-]{1,90}")

_HINT = "write node, node:numa, node::gpu,gpu or node:numa::gpu,gpu, such as gpu-1, gpu-1:0 or gpu-1::0,1"


@dataclass(frozen=True, slots=True)
class Target:
    """One node, and what of it a task asks for."""

    node: str
    numa: int | None = None
    gpus: tuple[str, ...] = ()
    """Numbers or UUIDs."""

    def __str__(self) -> str:
        numa = "" if self.numa is None else f":{self.numa}"
        gpus = "" if not self.gpus else "::" + ",".join(self.gpus)
        return f"{self.node}{numa}{gpus}"


def parse_target(text: str) -> Target:
    """Reads `node[:numa][::gpu,gpu]`.

    Raises:
        UsageError: the text is not a target.
    """
    head, separator, gpu_text = text.strip().partition("::")
    node, colon, numa_text = head.partition(":")
    if not NODE_NAME.fullmatch(node):
        raise UsageError(f"{text!r} is not a target: {node!r} is not a node's name", _HINT)
    if colon and not _is_index(numa_text):
        raise UsageError(f"{text!r} is not a target: {numa_text!r} is not a NUMA node's number", _HINT)
    gpus = gpu_text.split(",") if separator else []
    if any(not (_is_index(gpu) or _GPU_UUID.fullmatch(gpu)) for gpu in gpus):
        raise UsageError(
            f"{text!r} is not a target: {gpu_text!r} is not a list of GPU numbers or UUIDs", _HINT
        )
    named = tuple(str(int(gpu)) if _is_index(gpu) else gpu for gpu in gpus)
    if len(set(named)) != len(named):
        raise UsageError(f"{text!r} names a GPU twice", _HINT)
    return Target(node, int(numa_text) if colon else None, named)


def _is_index(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 4  # noqa: PLR2004
