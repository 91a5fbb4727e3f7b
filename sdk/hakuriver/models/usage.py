"""What tasks use of a machine, beside what they ask for."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from hakuriver.models.base import PeerModel

Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]


class TaskUsage(PeerModel):
    """What one attempt used, as its Runner measured it; none where that is not known.

    Of a VPS it is all its runs together: sums, means and peaks begin anew with another attempt only. What a container
    used after the last look at it is missing, at most a tenth of the time that it ran and at most 5 s.
    """

    seconds: Amount = 0.0
    """For how long it had run when this was measured. Paused it runs, stopped it does not."""
    cpu_seconds: Amount | None = None
    """Processor time of all its processes, by its control group (`cpu.stat`, `cpuacct.usage`), or by getrusage(2) of a
    process that has ended."""
    cpu_now: Amount | None = None
    """Cores that it keeps busy: processor time between the last two looks; none once it has ended."""
    memory_bytes: Count | None = None
    """What its control group is charged with now, its files' cache included; none once it has ended."""
    peak_memory_bytes: Count | None = None
    """The most of that, by the kernel's own account (`memory.peak`, `memory.max_usage_in_bytes`), or the most that any look
    found where the kernel keeps none (version 2 before Linux 5.19). Without control group: the largest of its processes."""
    gpu_percent: Amount | None = None
    """Mean use of its GPUs, by NVML, over all looks while it ran: how much of the time something computed on them."""
    peak_gpu_memory_bytes: Count | None = None
    """The most memory in use on its GPUs together at any look, by NVML; what the driver keeps of each is part of it."""
    gpu_joules: Amount | None = None
    """Energy that its GPUs took while it ran: by their own counter, where they have one, else power times time between
    looks."""
