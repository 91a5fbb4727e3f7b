"""Options that many commands share, and how words that people type become values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

from cyclopts import Group, Parameter, Token

from hakuriver.errors import UsageError
from hakuriver.ids import parse_id
from hakuriver.sizes import parse_duration, parse_size
from hakuriver.states import TaskState
from hakuriver.times import parse_when
from hakuriver_cli.output import Format

T = TypeVar("T")

GLOBAL = Group("Global options", sort_key=100)


@Parameter(name="*")
@dataclass(frozen=True)
class Common:
    """What every command takes."""

    config: Annotated[
        Path | None,
        Parameter(
            name="--config",
            group=GLOBAL,
            help="Configuration file, instead of HAKURIVER_CONFIG, ~/.hakuriver/config.toml or /etc/hakuriver/client.toml.",
        ),
    ] = None
    output: Annotated[
        Format | None,
        Parameter(name=("--output", "-o"), group=GLOBAL, help="How to print: table, wide, json or name."),
    ] = None


COMMON = Common()


def _each(parse: Callable[[str], T]) -> Callable[[Any, Sequence[Token]], list[T]]:
    return lambda _type, tokens: [parse(token.value) for token in tokens]


def _one(parse: Callable[[str], T]) -> Callable[[Any, Sequence[Token]], T]:
    return lambda _type, tokens: parse(tokens[-1].value)


def _state(text: str) -> TaskState:
    """A state as it is printed, or with a dash as options are written."""
    try:
        return TaskState(text.lower().replace("-", "_"))
    except ValueError:
        raise UsageError(f"{text!r} is not a state of a task", f"one of {', '.join(TaskState)}") from None


TaskIds = Annotated[
    list[int],
    Parameter(name="TASK_ID", converter=_each(parse_id), help="Ids of tasks; several may be given."),
]
BatchIds = Annotated[
    list[int],
    Parameter(name="BATCH_ID", converter=_each(parse_id), help="Ids of batches; several may be given."),
]
BatchIdOption = Annotated[int, Parameter(name="BATCH_ID", converter=_one(parse_id), help="Id of the batch.")]
TaskOrBatchIds = Annotated[
    list[int],
    Parameter(
        name="TASK_ID",
        converter=_each(parse_id),
        help="Ids of tasks, or of batches for all their tasks; several may be given.",
    ),
]
TaskIdOption = Annotated[int, Parameter(name="TASK_ID", converter=_one(parse_id), help="Id of the task.")]
TaskOrVps = Annotated[str, Parameter(name="TASK", help="Id of the task, or id or name of the VPS.")]
Size = Annotated[int | None, Parameter(converter=_one(parse_size), metavar="SIZE")]
Duration = Annotated[int | None, Parameter(converter=_one(parse_duration), metavar="DURATION")]
Moment = Annotated[
    datetime | None,
    Parameter(converter=_one(lambda text: parse_when(text, datetime.now(UTC))), metavar="WHEN"),
]
Interactive = Annotated[bool, Parameter(name=("--interactive", "-i"), help="Pass standard input on.")]
Tty = Annotated[bool, Parameter(name=("--tty", "-t"), help="Give it a terminal.")]
Workdir = Annotated[str | None, Parameter(name=("--workdir", "-w"), help="Folder to run in.")]
Variables = Annotated[
    tuple[str, ...], Parameter(name=("--env", "-e"), help="KEY=VALUE; repeatable.", metavar="KEY=VALUE")
]
OptionalId = Annotated[int | None, Parameter(converter=_one(parse_id), metavar="ID")]
States = Annotated[
    tuple[TaskState, ...],
    Parameter(
        name=("--status", "-s"),
        converter=lambda _type, tokens: tuple(_state(token.value) for token in tokens),
        name_transform=str.lower,
        help="Only tasks in this state; repeatable.",
    ),
]
Attempt = Annotated[int | None, Parameter(name="--attempt", help="Which attempt; none is the newest.")]
Watch = Annotated[
    bool,
    Parameter(name=("--watch", "-w"), help="Keep printing as things change, until Ctrl-C."),
]
