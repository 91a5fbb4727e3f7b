"""What the Docker engine answers, as pure functions: its JSON in, our words out."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hakuriver.models.runner import AttemptSpec
from hakuriver_agent.engines.docker_request import LABEL_ATTEMPT, LABEL_SPEC, LABEL_TASK, start_failure
from hakuriver_agent.engines.port import Ended, EngineUnavailableError, Unit, UnitState

_STATES = {"created": UnitState.CREATED, "running": UnitState.RUNNING, "paused": UnitState.PAUSED}


def failure(spec: AttemptSpec, error: Any) -> Exception:
    """An error of `create` or `start`: the engine going away is not the task's fault."""
    text = str(error.explanation or error)
    if error.status_code == 503 or "daemon is shutting down" in text:  # noqa: PLR2004 - HTTP
        return EngineUnavailableError(text)
    return start_failure(spec.command, text)


def ended(state: dict[str, Any], lost: str | None, *, oom: bool) -> Ended:
    message = lost
    if state.get("Error"):
        message = str(state["Error"])
    return Ended(
        exit_code=int(state["ExitCode"]),
        at=moment(state["FinishedAt"]),
        oom=oom,
        message=message,
        started_at=moment(state["StartedAt"]),
    )


def unit_of(info: dict[str, Any]) -> Unit | None:
    labels = info["Labels"]
    try:
        spec = AttemptSpec.model_validate_json(labels[LABEL_SPEC])
        key = (int(labels[LABEL_TASK]), int(labels[LABEL_ATTEMPT]))
    except (KeyError, ValueError):
        return None
    return Unit(key, _STATES.get(info["State"], UnitState.ENDED), spec)


def moment(text: str) -> datetime:
    """Docker's times have nanoseconds, and year 1 for never."""
    head, _, fraction = text.rstrip("Z").partition(".")
    found = datetime.fromisoformat(head).replace(tzinfo=UTC)
    if found.year == 1:
        return datetime.now(UTC)
    return found.replace(microsecond=int((fraction or "0")[:6].ljust(6, "0")))
