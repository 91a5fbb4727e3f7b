"""What each task of a batch runs. Those of a sweep differ: the batch holds the spans, and the rest is computed from the
number of the task, when it is started and when it is shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from hakuriver.errors import UsageError
from hakuriver.models.submission import MAX_ARGV_BYTES, MAX_COUNT, SubmitRequest, check_argument
from hakuriver.sweeps import Sweep

_HINT = "write one into an argument, such as --lr 'span:[0.1,0.01]'"
_KEPT = 64
"""Sweeps whose spans are not read anew for each of their tasks."""


@dataclass(frozen=True, slots=True)
class TaskRun:
    """What one task runs."""

    command: str
    arguments: list[str]
    env_vars: dict[str, str]
    values: tuple[str, ...] = ()
    """Those of the spans, where it is one of a sweep."""
    of: int | None = None
    """How many runs the sweep has; none of a task that is of no sweep."""


def run_of(spec: SubmitRequest, index: int) -> TaskRun:
    """What the task of this number runs."""
    if not spec.sweep:
        return TaskRun(spec.command, spec.arguments, spec.env_vars)
    sweep = _sweep(_texts(spec))
    run = sweep[index]
    command, *words = run.arguments
    arguments, values = words[: len(spec.arguments)], words[len(spec.arguments) :]
    return TaskRun(command, arguments, dict(zip(spec.env_vars, values, strict=True)), run.values, len(sweep))


def variables_of(run: TaskRun, index: int) -> dict[str, str]:
    """Its variables, with those that tell it which run of a sweep it is."""
    if run.of is None:
        return run.env_vars
    return {**run.env_vars, "HAKURIVER_SWEEP_INDEX": str(index), "HAKURIVER_SWEEP_COUNT": str(run.of)}


def runs_of(spec: SubmitRequest) -> int:
    """How many runs a sweep has.

    Raises:
        UsageError: it has no span, or one that is wrong; it has too many runs; or one of them cannot be started.
    """
    sweep = _sweep(_texts(spec))
    if not sweep.spans:
        raise UsageError("a sweep is asked for, and there is no span in the command", _HINT)
    if len(sweep) > MAX_COUNT:
        raise UsageError(
            f"the sweep has {len(sweep):,} runs, and one submission makes at most {MAX_COUNT:,} tasks",
            "use fewer values, or split it",
        )
    try:
        for text in sweep.longest:
            check_argument(text)
    except ValueError as error:
        raise UsageError(f"an argument with the values of its spans {error}", "use shorter values") from None
    if sum(map(len, sweep.longest)) > MAX_ARGV_BYTES:
        raise UsageError(
            "with the values of its spans the command is longer than the kernel takes",
            "pass a file under /shared instead",
        )
    if not all(run.arguments[0] for run in Sweep([spec.command])):
        raise UsageError("a run of the sweep has no command", "give each a program in the span")
    return len(sweep)


def _texts(spec: SubmitRequest) -> tuple[str, ...]:
    """Where spans may be, in the order in which they are combined: the last changes fastest."""
    return (spec.command, *spec.arguments, *spec.env_vars.values())


@lru_cache(maxsize=_KEPT)
def _sweep(texts: tuple[str, ...]) -> Sweep:
    return Sweep(texts)
