"""The two manners of reading: strict for what people type, lenient for what peers send.

What validates a model is built when it is first needed: a command needs few of those that it loads.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    WithJsonSchema,
)

from hakuriver.ids import MAX_ID, parse_id


class StrictModel(BaseModel):
    """What people and their programs send: an unknown field is an error that names it."""

    model_config = ConfigDict(extra="forbid", defer_build=True)


class PeerModel(BaseModel):
    """What another version of Host, Runner or client may send: unknown fields are left aside."""

    model_config = ConfigDict(extra="ignore", defer_build=True)


def _read_id(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else parse_id(str(value))


def _in_range(value: int) -> int:
    if not 0 <= value <= MAX_ID:
        raise ValueError("not a task id")
    return value


TaskId = Annotated[
    int,
    BeforeValidator(_read_id),
    AfterValidator(_in_range),
    PlainSerializer(str, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": "^[0-9]{1,19}$"}),
]
"""An integer here, a string in JSON."""

Timestamp = AwareDatetime
"""UTC, with its offset."""

__all__ = ["PeerModel", "StrictModel", "TaskId", "Timestamp"]
