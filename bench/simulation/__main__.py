"""`make simulate`, or `python -m bench.simulation [FILE ...]`: workloads replayed on FIFO, EASY backfill and HakuRiver.

Without a file, traces are made anew, the same each time. The cluster is one pool of cores, as the machines of the archive
are, or several nodes, each job on one of them, as HakuRiver's are. Ends with 1 where HakuRiver's mean bounded slowdown is
worse than EASY's on a trace that was made here; what a file gives is shown alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.table import Table

from bench.report import say
from bench.simulation import lublin, swf
from bench.simulation.hakuriver import HakuRiver
from bench.simulation.jobs import Job, jobs_of
from bench.simulation.metrics import Metrics, measure
from bench.simulation.replay import Policy, replay
from bench.simulation.textbook import Easy, Fifo
from hakuriver.errors import HakuRiverError, UsageError
from hakuriver.models.submission import MAX_CORES

OURS, MEASURE = "HakuRiver", "EASY"
_CLUSTERS = ((1, 128), (8, 16))
"""Nodes, and cores of each: the machine that the model of the traces is of, and a lab."""
_LOADS, _SEEDS, _JOBS = (0.7, 0.9, 1.0), (1, 2, 3), 5_000
_MOST_JOBS = 1_000_000
_HOUR, _DAY = 3_600.0, 86_400.0


@dataclass(frozen=True, slots=True)
class Trace:
    """Jobs, and the cluster that they are replayed on."""

    name: str
    jobs: Sequence[Job]
    nodes: Sequence[int]
    made: bool
    """It was made here, and is not a file."""
    left_out: int = 0


def main(arguments: Sequence[str] | None = None) -> int:
    try:
        return _run(_options(arguments))
    except HakuRiverError as error:
        print(f"error: {error.message}", *filter(None, [error.hint]), sep="\n", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def _run(options: argparse.Namespace) -> int:
    traces = _files(options) if options.files else _made(options)
    policies: dict[str, Callable[[Sequence[int]], Policy]] = {
        "FIFO": Fifo,
        MEASURE: Easy,
        OURS: partial(HakuRiver, half_life_days=options.half_life),
    }
    number, worse = 0, []
    for trace in traces:
        found = {}
        for name, make in policies.items():
            say(f"{trace.name}: {name}")
            found[name] = measure(replay(trace.jobs, trace.nodes, make(trace.nodes)), sum(trace.nodes))
        _show(trace, found)
        if trace.made:
            number += 1
            if found[OURS].slowdown > found[MEASURE].slowdown:
                worse.append(trace.name)
    if number:
        print(
            f"mean bounded slowdown: {OURS} is at least as good as {MEASURE} on {number - len(worse)} of {number}"
        )
    for name in worse:
        print(f"worse than {MEASURE}: {name}", file=sys.stderr)
    return 1 if worse else 0


def _files(options: argparse.Namespace) -> Iterator[Trace]:
    for path in options.files:
        workload = swf.read(path)
        nodes = _nodes_for(path, workload, options)
        records = workload.records[: options.jobs]
        jobs = jobs_of(records, max(nodes))
        if not jobs:
            raise UsageError(
                f"{path}: none of its {len(records)} jobs can run on a node of {max(nodes)} cores",
                "give nodes more cores: CORES=",
            )
        yield Trace(
            f"{path.name}, {_named(nodes)}", jobs, nodes, made=False, left_out=len(records) - len(jobs)
        )


def _nodes_for(path: Path, workload: swf.Workload, options: argparse.Namespace) -> list[int]:
    number = options.nodes or 1
    cores = options.cores
    if cores is None:
        known = workload.processors
        if known is None:
            raise UsageError(
                f"{path}: its header does not say how many processors there were", "say it: CORES="
            )
        cores = known // number
        if cores * number != known:
            raise UsageError(
                f"{path}: {known} processors make no {number} equal nodes", "say how many each has: CORES="
            )
    return [cores] * number


def _made(options: argparse.Namespace) -> Iterator[Trace]:
    clusters: Iterable[tuple[int, int]] = _CLUSTERS
    if options.nodes or options.cores:
        clusters = [(options.nodes or 1, options.cores or _CLUSTERS[0][1])]
    for number, cores in clusters:
        nodes = [cores] * number
        for load in options.loads:
            for seed in options.seeds:
                name = f"{_named(nodes)}, load {load:g}, seed {seed}"
                records = lublin.generate(options.jobs or _JOBS, cores, sum(nodes), load, seed)
                if options.write:
                    _write(options.write, f"lublin-{number}x{cores}-{load:g}-{seed}.swf", records, nodes)
                yield Trace(name, jobs_of(records, cores), nodes, made=True)


def _write(folder: Path, name: str, records: Sequence[swf.Record], nodes: Sequence[int]) -> None:
    header = {
        "Version": "2.2",
        "Computer": f"none: made by the model of Lublin and Feitelson for {_named(nodes)}",
        "MaxJobs": str(len(records)),
        "MaxRecords": str(len(records)),
        "MaxNodes": str(len(nodes)),
        "MaxProcs": str(sum(nodes)),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        swf.write(folder / name, records, header)
    except OSError as error:
        raise UsageError(
            f"{folder / name}: {error.strerror}", "name a folder that can be written to"
        ) from error


def _named(nodes: Sequence[int]) -> str:
    return f"one pool of {nodes[0]} cores" if len(nodes) == 1 else f"{len(nodes)} nodes of {nodes[0]} cores"


def _show(trace: Trace, found: Mapping[str, Metrics]) -> None:
    left_out = f"; {trace.left_out} left out that never ran or fit no node" if trace.left_out else ""
    table = Table(
        title=f"{trace.name}: {len(trace.jobs)} jobs{left_out}", title_justify="left", title_style="bold"
    )
    table.add_column("policy")
    for column in (
        "mean wait, h",
        "median, h",
        "95 %, h",
        "mean bounded slowdown",
        "of the worst user",
        "utilization",
        "makespan, d",
    ):
        table.add_column(column, justify="right")
    for name, metrics in found.items():
        table.add_row(
            name,
            *(f"{time / _HOUR:,.2f}" for time in (metrics.mean_wait, metrics.median_wait, metrics.wait_95)),
            f"{metrics.slowdown:,.2f}",
            f"{metrics.worst_user:,.2f}",
            f"{metrics.utilization:.3f}",
            f"{metrics.makespan / _DAY:,.1f}",
        )
    Console(width=None if sys.stdout.isatty() else 160).print(table)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message, "see `python -m bench.simulation --help`")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(prog="python -m bench.simulation", description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add(
        "files",
        nargs="*",
        type=Path,
        metavar="FILE",
        help="workloads in the Standard Workload Format, or .gz",
    )
    add("--nodes", type=_whole(10_000), help="number of nodes; one pool unless given")
    add("--cores", type=_whole(MAX_CORES), help="cores of each node; of a file, what its header says")
    add("--jobs", type=_whole(_MOST_JOBS), help=f"so many jobs; all of a file, {_JOBS} of what is made here")
    add(
        "--loads",
        type=_load,
        nargs="+",
        default=_LOADS,
        help="what is made: parts of all cores that are asked for",
    )
    add("--seeds", type=int, nargs="+", default=_SEEDS, help="what is made: equal seeds give equal traces")
    add("--half-life", type=_days, metavar="DAYS", help="of fair shares; 0 is first come, first served")
    add("--write", type=Path, metavar="FOLDER", help="write what is made there")
    return parser.parse_args(arguments)


def _whole(most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not (text.isascii() and text.isdecimal() and 1 <= int(text[:20]) <= most):
            raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a number from 1 to {most}")
        return int(text)

    return number


def _load(text: str) -> float:
    value = _number(text)
    if not 0.01 <= value <= 10:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a load from 0.01 to 10")
    return value


def _days(text: str) -> float:
    value = _number(text)
    if not 0 <= value <= 3650:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a number of days from 0 to 3650")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return -1.0


if __name__ == "__main__":
    sys.exit(main())
