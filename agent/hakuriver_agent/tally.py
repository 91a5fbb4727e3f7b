"""What one attempt has used, put together from looks at its unit and its GPUs: the pure rule.

Counters of a unit begin anew when it is started again, and end with it; here they go on. The journal keeps a tally as
JSON, so that the next life of the Runner goes on with it. Times are Unix seconds: they must mean the same in that life.
"""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel

from hakuriver.models.runner import GpuInfo
from hakuriver.models.usage import TaskUsage
from hakuriver_agent.engines.port import Used

MOST_RECKONED_SECONDS = 10.0
"""For how long before the first reading of its GPUs, and after the last, their power is taken to be the same."""
_MIB = 1 << 20


class Tally(BaseModel):
    """Of one attempt, over all its runs."""

    ran_before: float = 0.0
    """Seconds that its earlier runs took."""
    began_at: float | None = None
    """When the present run began; none while none goes on."""
    seen_at: float | None = None
    """The last look at the present run."""
    start: int = 0
    """Which start of the unit `cpu` is of."""
    cpu_before: float = 0.0
    """Processor time by counters that have begun anew since."""
    cpu: float | None = None
    """By the counter that was read last."""
    cpu_now: float | None = None
    memory: int | None = None
    peak: int | None = None
    gpu_percents: float = 0.0
    gpu_looks: int = 0
    gpu_peak_mib: int | None = None
    joules: float | None = 0.0
    """None once they cannot be told."""
    counters: dict[str, int] = {}
    """By UUID: the energy that a GPU told last, in mJ."""
    watts: float = 0.0
    """Of its GPUs together, when they were read last."""
    gpus_at: float | None = None
    """When that was, in the present run."""

    def begin(self, at: float) -> None:
        """A run began, or is found to go on. A container that was started again unasked is in the run that it was in."""
        self.began_at = at if self.began_at is None else min(at, self.began_at)

    def rest(self, at: float, used: Used | None = None) -> None:
        """The run has ended; `used` is all that it used, where that can be told."""
        if used is not None:
            self.look(used, at)
        if self.gpus_at is not None and self.joules is not None:
            self.joules += self.watts * _bounded(at - self.gpus_at)
        if self.began_at is not None:
            # Of what nobody saw to the end, what was seen: so that times and what was used in them go together.
            seen = at if used is not None or self.seen_at is None else self.seen_at
            self.ran_before += max(0.0, seen - self.began_at)
        self.began_at = self.seen_at = self.gpus_at = self.cpu_now = self.memory = None
        self.counters = {}

    def look(self, used: Used, at: float) -> None:
        """Takes what the unit has used by now."""
        if used.cpu_seconds is not None:
            self._take_cpu(used.cpu_seconds, used.start, at)
        self.memory = used.memory_bytes
        known = [size for size in (self.peak, used.memory_bytes, used.peak_bytes) if size is not None]
        self.peak = max(known, default=None)
        self.seen_at = at

    def look_at_gpus(self, gpus: Iterable[GpuInfo], at: float) -> None:
        """Takes a reading of all the GPUs that it has."""
        gpus = list(gpus)
        percents = [gpu.gpu_utilization for gpu in gpus if gpu.gpu_utilization >= 0]
        if percents:
            self.gpu_percents += sum(percents) / len(percents)
            self.gpu_looks += 1
        sizes = [gpu.memory_used_mib for gpu in gpus]
        if sizes and min(sizes) >= 0:
            self.gpu_peak_mib = max(sum(sizes), self.gpu_peak_mib or 0)
        self._take_energy(gpus, at)

    def usage(self) -> TaskUsage | None:
        """As it is told; none while nothing is known."""
        if self.cpu is None and self.peak is None and not self.gpu_looks and self.gpu_peak_mib is None:
            return None
        present = 0.0
        if self.began_at is not None and self.seen_at is not None:
            present = max(0.0, self.seen_at - self.began_at)
        knows_energy = self.joules is not None and (self.gpu_looks or self.gpu_peak_mib is not None)
        return TaskUsage(
            seconds=round(self.ran_before + present, 3),
            cpu_seconds=None if self.cpu is None else round(self.cpu_before + self.cpu, 3),
            cpu_now=None if self.cpu_now is None else round(self.cpu_now, 2),
            memory_bytes=self.memory,
            peak_memory_bytes=self.peak,
            gpu_percent=round(self.gpu_percents / self.gpu_looks, 1) if self.gpu_looks else None,
            peak_gpu_memory_bytes=None if self.gpu_peak_mib is None else self.gpu_peak_mib * _MIB,
            gpu_joules=round(self.joules, 1) if knows_energy and self.joules is not None else None,
        )

    def _take_cpu(self, cpu: float, start: int, at: float) -> None:
        anew = self.cpu is not None and (start != self.start or cpu < self.cpu)
        if self.cpu is not None and anew:
            self.cpu_before += self.cpu
        before = 0.0 if anew or self.cpu is None else self.cpu
        since = self.seen_at if self.seen_at is not None else self.began_at
        if since is not None and at > since:
            self.cpu_now = (cpu - before) / (at - since)
        self.cpu, self.start = cpu, start

    def _take_energy(self, gpus: list[GpuInfo], at: float) -> None:
        """Of a part of a GPU nobody knows what it takes."""
        since = self.gpus_at if self.gpus_at is not None else self.began_at
        passed = 0.0 if since is None else max(0.0, at - since)
        if self.gpus_at is None:
            passed = _bounded(passed)
        watts = 0.0
        for gpu in gpus:
            taken = _taken(gpu, self.counters.get(gpu.uuid), passed)
            self.joules = None if self.joules is None or taken is None else self.joules + taken
            watts += max(0, gpu.power_usage_mw) / 1000
        self.counters = {gpu.uuid: gpu.energy_mj for gpu in gpus if gpu.energy_mj >= 0}
        self.watts, self.gpus_at = watts, at


def _taken(gpu: GpuInfo, before: int | None, passed: float) -> float | None:
    """Joules since the reading before; none where neither counter nor power is told. A counter begins anew with its driver."""
    if gpu.parent_uuid:
        return None
    if before is not None and gpu.energy_mj >= before:
        return (gpu.energy_mj - before) / 1000
    return None if gpu.power_usage_mw < 0 else gpu.power_usage_mw / 1000 * passed


def _bounded(seconds: float) -> float:
    return min(MOST_RECKONED_SECONDS, max(0.0, seconds))
