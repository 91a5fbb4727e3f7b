"""What a replay was worth: waits, bounded slowdown, utilization.

The *bounded slowdown* of a job is (wait + run) / run, where a run shorter than ten seconds counts as ten, and never less
than one: Feitelson, Rudolph, Schwiegelshohn, Sevcik and Wong, Theory and practice in parallel job scheduling, JSSPP 1997.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

from bench.report import percentile
from bench.simulation.replay import Run

THRESHOLD_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Metrics:
    """Times are in seconds."""

    jobs: int
    mean_wait: float
    median_wait: float
    wait_95: float
    """What 95 of 100 jobs do not wait longer than."""
    slowdown: float
    """Mean of the bounded slowdowns of all jobs."""
    worst_user: float
    """The largest of the users' own means of them."""
    utilization: float
    """Part of the cores that was in use from the first submission to the last end."""
    makespan: float
    """From the first submission to the last end."""


def bounded_slowdown(wait: float, run: float) -> float:
    return max(1.0, (wait + run) / max(run, THRESHOLD_SECONDS))


def measure(runs: Sequence[Run], cores: int) -> Metrics:
    """Of one replay at least one job long, on so many cores in all."""
    waits = [run.wait for run in runs]
    by_user: defaultdict[int, list[float]] = defaultdict(list)
    for run in runs:
        by_user[run.job.user].append(bounded_slowdown(run.wait, run.job.run))
    makespan = max(run.end for run in runs) - min(run.job.submit for run in runs)
    work = sum(run.job.cores * run.job.run for run in runs)
    return Metrics(
        jobs=len(runs),
        mean_wait=fmean(waits),
        median_wait=median(waits),
        wait_95=percentile(waits, 0.95),
        slowdown=fmean(each for several in by_user.values() for each in several),
        worst_user=max(map(fmean, by_user.values())),
        utilization=work / (cores * makespan) if makespan else 0.0,
        makespan=makespan,
    )
