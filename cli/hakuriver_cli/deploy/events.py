"""What ansible-runner's stream says, as small events of our own.

The stream is a peer: it is read leniently, and what is not known is left out. Only of a failure is the result kept,
and of that only the parts that explain it; Ansible itself has censored what `no_log` hides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, Field

_TAIL = 4000
"""Characters of output that are kept of a failure."""
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_COMPLAINT = re.compile(r"^(\[ERROR\]|ERROR!).*", re.MULTILINE | re.DOTALL)
_EXPLAINING = (
    "msg",
    "rc",
    "cmd",
    "stderr",
    "stdout",
    "module_stderr",
    "module_stdout",
    "exception",
    "assertion",
    "argument_errors",
    "censored",
    "item",
)


class Kind(StrEnum):
    PLAY = "play"
    TASK = "task"
    START = "start"
    OK = "ok"
    CHANGED = "changed"
    SKIPPED = "skipped"
    FAILED = "failed"
    IGNORED = "ignored"
    """Failed, and the playbook goes on all the same."""
    ITEM = "item"
    """One round of a loop failed; the task's own failure follows."""
    UNREACHABLE = "unreachable"
    RETRY = "retry"
    DIFF = "diff"
    """How a file changes, or would."""
    MESSAGE = "message"
    """Words of Ansible's own, outside of any task."""
    STATS = "stats"


class Counts(BaseModel):
    """A node's tasks, counted by how they ended."""

    ok: int = 0
    changed: int = 0
    skipped: int = 0
    failed: int = 0
    unreachable: int = 0
    rescued: int = 0
    ignored: int = 0


class Event(BaseModel):
    kind: Kind
    time: datetime
    node: str | None = None
    play: str | None = None
    role: str | None = None
    task: str | None = None
    module: str | None = None
    seconds: float | None = None
    delegate: str | None = None
    """Where the task really ran, when that is another machine."""
    text: str = ""
    detail: dict[str, Any] = Field(default_factory=dict)
    """Of a failure: the parts of its result that explain it."""
    stats: dict[str, Counts] = Field(default_factory=dict)

    @property
    def title(self) -> str:
        """The task as people see it: `docker: Install the engine`."""
        task = "its variables" if self.is_of_variables else self.task or ""
        return f"{self.role}: {task}" if self.role else task

    @property
    def is_of_variables(self) -> bool:
        """Whether Ansible compares a role's variables with its specification: a task that it adds by itself."""
        return (self.task or "").startswith("Validating arguments against arg spec")


def read(message: Mapping[str, Any]) -> Event | None:
    """The event in one message of the stream, if it is one that matters."""
    make = _READERS.get(str(message.get("event")))
    return make(message) if make else None


def plain(message: Mapping[str, Any]) -> str:
    """What Ansible printed for it."""
    return _COLOUR.sub("", str(message.get("stdout") or "")).replace("\r\n", "\n")


def _event(kind: Kind, message: Mapping[str, Any], **more: Any) -> Event:
    data = _data(message)
    return Event(
        kind=kind,
        time=_time(data.get("end") or message.get("created")),
        node=data.get("host"),
        play=data.get("play"),
        role=data.get("role"),
        task=data.get("task"),
        module=data.get("resolved_action") or data.get("task_action"),
        seconds=data.get("duration"),
        delegate=_delegate(data),
        **more,
    )


def _data(message: Mapping[str, Any]) -> Mapping[str, Any]:
    data = message.get("event_data")
    return data if isinstance(data, Mapping) else {}


def _result(message: Mapping[str, Any]) -> Mapping[str, Any]:
    result = _data(message).get("res")
    return result if isinstance(result, Mapping) else {}


def _time(text: Any) -> datetime:
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return datetime.now(UTC)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _delegate(data: Mapping[str, Any]) -> str | None:
    result = data.get("res")
    variables = result.get("_ansible_delegated_vars") if isinstance(result, Mapping) else None
    name = variables.get("ansible_delegated_host") if isinstance(variables, Mapping) else None
    name = name or data.get("delegated_host_name")
    return str(name) if name and name != data.get("host") else None


def _detail(message: Mapping[str, Any]) -> dict[str, Any]:
    found = {key: _short(value) for key, value in _result(message).items() if key in _EXPLAINING and value}
    if found.get("exception") == "(traceback unavailable)":
        del found["exception"]
    return found


def _short(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= _TAIL else "…" + value[-_TAIL:]
    if isinstance(value, list):
        return [_short(item) for item in value[-50:]]
    return value if isinstance(value, int | float | bool) else str(value)[:_TAIL]


def _play(message: Mapping[str, Any]) -> Event:
    return _event(Kind.PLAY, message, text=_complaint(message))


def _task(message: Mapping[str, Any]) -> Event:
    return _event(Kind.TASK, message, text=_complaint(message))


def _start(message: Mapping[str, Any]) -> Event:
    return _event(Kind.START, message)


def _ok(message: Mapping[str, Any]) -> Event:
    return _event(Kind.CHANGED if _result(message).get("changed") else Kind.OK, message)


def _skipped(message: Mapping[str, Any]) -> Event:
    return _event(Kind.SKIPPED, message)


def _failed(message: Mapping[str, Any]) -> Event:
    kind = Kind.IGNORED if _data(message).get("ignore_errors") else Kind.FAILED
    return _event(kind, message, detail=_detail(message))


def _item(message: Mapping[str, Any]) -> Event:
    return _event(Kind.ITEM, message, detail=_detail(message))


def _unreachable(message: Mapping[str, Any]) -> Event:
    return _event(Kind.UNREACHABLE, message, detail=_detail(message))


def _retry(message: Mapping[str, Any]) -> Event:
    return _event(Kind.RETRY, message)


def _diff(message: Mapping[str, Any]) -> Event | None:
    """Of this event Ansible gives the task in a form of its own; the one that is going on is known."""
    text = plain(message).strip("\n")
    node = _data(message).get("host")
    return Event(kind=Kind.DIFF, time=_time(message.get("created")), node=node, text=text) if text else None


def _complaint(message: Mapping[str, Any]) -> str:
    """What Ansible itself says is wrong; what it says between two events comes with the earlier one."""
    found = _COMPLAINT.search(plain(message))
    return found[0].strip()[:_TAIL] if found else ""


def _words(message: Mapping[str, Any]) -> Event | None:
    text = plain(message).strip()
    return _event(Kind.MESSAGE, message, text=text) if text else None


def _stats(message: Mapping[str, Any]) -> Event:
    data = _data(message)
    names = {"failures": "failed", "dark": "unreachable"}
    counts: dict[str, dict[str, int]] = {}
    for key in ("ok", "changed", "skipped", "failures", "dark", "rescued", "ignored"):
        for node, count in (data.get(key) or {}).items():
            counts.setdefault(node, {})[names.get(key, key)] = count
    text = _complaint(message)
    return _event(
        Kind.STATS, message, text=text, stats={node: Counts(**found) for node, found in counts.items()}
    )


_READERS: dict[str, Callable[[Mapping[str, Any]], Event | None]] = {
    "playbook_on_play_start": _play,
    "playbook_on_task_start": _task,
    "playbook_on_handler_task_start": _task,
    "playbook_on_no_hosts_matched": _words,
    "runner_on_start": _start,
    "runner_on_ok": _ok,
    "runner_on_skipped": _skipped,
    "runner_on_failed": _failed,
    "runner_on_unreachable": _unreachable,
    "runner_item_on_failed": _item,
    "runner_retry": _retry,
    "runner_on_file_diff": _diff,
    "playbook_on_stats": _stats,
    "verbose": _words,
    "warning": _words,
    "system_warning": _words,
    "error": _words,
}
