"""Traces as users of parallel machines make them, by the model of Lublin and Feitelson.

U. Lublin and D. G. Feitelson, The workload on parallel supercomputers: modeling the characteristics of rigid jobs, Journal
of Parallel and Distributed Computing 63(11), 2003, pages 1105 to 1122. The numbers are those of the authors' program
`m_lublin99` (https://www.cs.huji.ac.il/labs/parallel/workload/m_lublin99/), where batch and interactive jobs are not told
apart. In short: a quarter of all jobs use one core, most others a power of two, and their logarithm is uniform in two
stages; the logarithm of a run time is of one of two gamma distributions, and the larger a job, the more likely of the one
of long jobs; the logarithm of the time between two jobs is of a third, and time goes faster by day than at night.

What the model does not say is added here:

- *users*: the one of rank k submits with a weight of 1/k, as a few make most of what archived logs hold;
- *requested times*: by how much people ask for too much is about uniform, so that a job uses a part of its time that is
  anything between a twentieth and all of it (Mu'alem and Feitelson, IEEE TPDS 12(6), 2001), and what they ask for is one of
  a few round values (Tsafrir, Etsion and Feitelson, Modeling user runtime estimates, JSSPP 2005);
- *load*: the times between jobs are multiplied by what gives the load that is asked for.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections.abc import Sequence

from bench.simulation.swf import Record

_SERIAL, _POWER_OF_TWO = 0.244, 0.576
_SMALLEST, _BELOW_LARGEST, _FIRST_STAGE = 0.8, 2.5, 0.86
"""Logarithms to base 2 of cores: the least, how far below the largest the stages meet, and how much is in the first."""
_SHORT, _LONG = (4.2, 0.94), (312.0, 0.03)
_SHORT_PART, _SHORT_PART_BY_CORE = 0.78, -0.0054
_LONGEST_RUN, _LONGEST_GAP = 12, 13
"""Logarithms of seconds."""
_GAP = (10.2303 * 1.0225, 0.4871)
_CYCLE = (8.1737, 3.9631)
_HALF_HOURS, _HALF_HOUR = 48, 1_800.0
_CYCLE_BEGINS = 11
"""Half hours after midnight, when fewest come."""
_USERS = 40
_LEAST_USED = 0.05
_MINUTE, _HOUR = 60, 3_600
_ROUND_TIMES = (
    *(minutes * _MINUTE for minutes in (1, 5, 10, 15, 20, 30)),
    *(hours * _HOUR for hours in (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 18, 24, 36, 48)),
)


def generate(number: int, largest: int, cores: int, load: float, seed: int) -> list[Record]:
    """So many jobs of up to `largest` cores each, that would use `load` of `cores` until the last of them has come.

    Equal arguments give equal jobs.
    """
    chance = random.Random(seed)
    sizes = [_size(chance, largest) for _ in range(number)]
    runs = [_run(chance, size) for size in sizes]
    gaps = [_gap(chance) for _ in range(number)]
    work = sum(size * run for size, run in zip(sizes, runs, strict=True))
    scale = work / (load * cores) / sum(gaps)
    submits = _times([gap * scale for gap in gaps])
    users = chance.choices(range(1, _USERS + 1), [1 / rank for rank in range(1, _USERS + 1)], k=number)
    return [
        Record(
            number=index,
            submit=round(submit),
            run=run,
            allocated=size,
            requested=size,
            requested_time=_asked_for(chance, run),
            status=1,
            user=user,
        )
        for index, (submit, run, size, user) in enumerate(zip(submits, runs, sizes, users, strict=True), 1)
    ]


def _size(chance: random.Random, largest: int) -> int:
    kind = chance.random()
    high = math.log2(largest)
    if kind <= _SERIAL or largest == 1:
        return 1
    middle = max(_SMALLEST, high - _BELOW_LARGEST)
    stage = (_SMALLEST, middle) if chance.random() <= _FIRST_STAGE else (middle, high)
    power = chance.uniform(*stage)
    if kind <= _SERIAL + _POWER_OF_TWO:
        power = math.floor(power + 0.5)
    return min(largest, math.floor(2**power + 0.5))


def _run(chance: random.Random, size: int) -> int:
    short = min(1.0, max(0.0, _SHORT_PART + _SHORT_PART_BY_CORE * size))
    shape = _SHORT if chance.random() <= short else _LONG
    return max(1, int(math.exp(_below(chance, shape, _LONGEST_RUN))))


def _gap(chance: random.Random) -> float:
    """Seconds of a day in which as many come at any time."""
    return math.exp(_below(chance, _GAP, _LONGEST_GAP))


def _below(chance: random.Random, shape: tuple[float, float], most: float) -> float:
    while (value := chance.gammavariate(*shape)) > most:
        continue
    return value


def _times(gaps: Sequence[float]) -> list[float]:
    """When jobs come that would come after these gaps if all half hours were alike."""
    weights = _weights()
    times, now, index = [], 0.0, 0
    left = weights[0] * _HALF_HOUR
    for gap in gaps:
        wanted = gap
        while wanted > left:
            wanted -= left
            index += 1
            now, left = index * _HALF_HOUR, weights[index % _HALF_HOURS] * _HALF_HOUR
        left -= wanted
        now += wanted / weights[index % _HALF_HOURS]
        times.append(now)
    return times


def _weights() -> list[float]:
    """How busy each half hour of a day is, from midnight; one on average. By the density in its middle, which differs from
    the whole of the half hour by less than a thousandth.
    """
    shape, scale = _CYCLE
    weights = [0.0] * _HALF_HOURS
    for number in range(_CYCLE_BEGINS, _CYCLE_BEGINS + _HALF_HOURS):
        weights[(number - 1) % _HALF_HOURS] = number ** (shape - 1) * math.exp(-number / scale)
    mean = sum(weights) / _HALF_HOURS
    return [weight / mean for weight in weights]


def _asked_for(chance: random.Random, run: int) -> int:
    wanted = run / chance.uniform(_LEAST_USED, 1.0)
    return _ROUND_TIMES[min(bisect_left(_ROUND_TIMES, wanted), len(_ROUND_TIMES) - 1)]
