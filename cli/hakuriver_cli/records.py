"""What commands tell that the Host does not: results of several requests, or of the command itself.

Made late, since models load much: while a command line is read none are needed.
"""

from __future__ import annotations

from pydantic import BaseModel

from hakuriver.models.base import TaskId


class Done(BaseModel):
    """What became of one task that a command acted on."""

    task_id: TaskId
    message: str


class BatchDone(BaseModel):
    """What became of one batch that a command acted on."""

    batch_id: TaskId
    message: str


class Told(BaseModel):
    """What became of one named thing that a command acted on."""

    name: str
    message: str


class EnvironmentRow(BaseModel):
    """One version of an environment, as the list shows it."""

    name: str
    timestamp: int
    tarball: str
    latest: bool


class VersionRow(BaseModel):
    client: str
    host: str | None
    url: str
