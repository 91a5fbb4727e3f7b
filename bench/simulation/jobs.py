"""What is simulated: jobs that need so many cores of one node for so long."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from bench.simulation.swf import Record


class Job(NamedTuple):
    number: int
    """Its place in the order of submission, from 1."""
    submit: float
    """Seconds from the beginning of the trace, as `run` and `limit` are seconds."""
    run: float
    cores: int
    limit: float
    """For how long it asked: never less than it runs."""
    user: int


def jobs_of(records: Iterable[Record], cores: int) -> list[Job]:
    """Those that can be replayed on nodes of so many cores, in the order of submission.

    Left out are jobs that never ran, those whose cores are not known, and those that no node has the cores for. Where a
    job asked for no time, or for less than it had, it is taken to have asked for what it had: no policy knows better.
    """
    fitting = [record for record in records if record.run >= 0 and 0 < _cores(record) <= cores]
    fitting.sort(key=lambda record: record.submit)
    return [
        Job(
            number,
            record.submit,
            record.run,
            _cores(record),
            max(record.run, record.requested_time),
            record.user,
        )
        for number, record in enumerate(fitting, 1)
    ]


def _cores(record: Record) -> int:
    """Asked for; where that is not known, had."""
    return record.requested if record.requested > 0 else record.allocated
