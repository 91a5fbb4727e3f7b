"""GPUs as lists show them; loaded as late as `records` is."""

from __future__ import annotations

from pydantic import BaseModel

from hakuriver.models.base import TaskId
from hakuriver.models.runner import GpuInfo


class GpuRow(BaseModel):
    """One GPU, as a list shows it."""

    node: str
    gpu: GpuInfo
    task_id: TaskId | None
    """The task that holds it; of several, the first."""
    sharers: list[TaskId] = []
    """All that hold it, where there are several."""
