"""What the Runner knows of its GPUs: the last reading, taken in a thread, and what follows from it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping

import structlog

from hakuriver.models.runner import GpuInfo
from hakuriver.threads import start_thread
from hakuriver_agent.devices.gpu import Reading

BUSY_PERCENT = 5
"""Use above which a GPU is in use."""
_LOOK_SECONDS = 5.0

log = structlog.get_logger(__name__)


class Gpus:
    """The node's GPUs as they were last told. A driver that hangs holds up nothing."""

    def __init__(self, read: Callable[[], Reading]) -> None:
        self._read = read
        self._one = asyncio.Lock()
        self._looking: asyncio.Future[Reading] | None = None
        """A look that did not come in time."""
        self._reading: Reading | None = None
        self.read_at = 0.0
        """When that came; monotonic."""
        self.has_refused = False
        """Since the last registration a start was refused for want of one: the Host gives it no work until the next."""

    @property
    def infos(self) -> list[GpuInfo]:
        return self._reading.gpus if self._reading else []

    @property
    def problem(self) -> str:
        return self._reading.problem if self._reading else ""

    @property
    def may_be_there(self) -> bool:
        """There are GPUs, or nobody can say."""
        return bool(self.infos or self.problem)

    @property
    def minors(self) -> Mapping[str, int]:
        return self._reading.minors if self._reading else {}

    @property
    def numbers(self) -> Mapping[str, int]:
        return {gpu.uuid: gpu.gpu_id for gpu in self.infos}

    @property
    def known(self) -> frozenset[tuple[int, str, str]]:
        """What placement needs to know of them: another one calls for a registration."""
        return frozenset((gpu.gpu_id, gpu.uuid, gpu.problem) for gpu in self.infos)

    async def look(self) -> None:
        """Looks at them anew; what does not come in time is taken at a later look."""
        async with self._one:
            await self._look()

    async def _look(self) -> None:
        looking = self._looking or start_thread(self._read, "gpus")
        self._looking = None
        try:
            reading = await asyncio.wait_for(asyncio.shield(looking), _LOOK_SECONDS)
        except TimeoutError:
            self._looking = looking
            reading = Reading(
                problem=f"the NVIDIA driver has not answered for {_LOOK_SECONDS:g} s: restart the machine"
            )
        except Exception as error:
            log.exception("looking at the GPUs failed by a defect")
            reading = Reading(problem=f"the GPUs cannot be looked at: {error!r}; see the Runner's log")
        if reading.problem:
            # What was there is, and does not work.
            reading.minors = dict(self.minors)
            stuck = {"problem": reading.problem, "processes": []}
            reading.gpus = [gpu.model_copy(update=stuck) for gpu in self.infos]
        self._reading, self.read_at = reading, time.monotonic()

    async def looked(self) -> None:
        """Looks, unless that was done before."""
        if self._reading is None:
            async with self._one:
                if self._reading is None:
                    await self._look()

    def busy(self, uuids: Collection[str]) -> bool:
        """Whether one of these computes; where the driver does not tell, whether a program is on it.

        One of which nothing is known now counts as busy: nothing is stopped for want of knowledge.
        """
        infos = [gpu for gpu in self.infos if gpu.uuid in uuids]
        return len(infos) < len(uuids) or any(
            gpu.problem
            or gpu.gpu_utilization > BUSY_PERCENT
            or (gpu.gpu_utilization < 0 and bool(gpu.processes))
            for gpu in infos
        )

    def refused(self, uuids: Iterable[str]) -> dict[str, str]:
        """`unusable`, as the reason to refuse a start."""
        found = self.unusable(uuids)
        self.has_refused = self.has_refused or bool(found)
        return found

    def unusable(self, uuids: Iterable[str]) -> dict[str, str]:
        """Those of these that no task can have now, and why."""
        by_uuid = {gpu.uuid: gpu for gpu in self.infos}
        found = {}
        for uuid in uuids:
            if uuid not in by_uuid:
                found[uuid] = f"this node has no GPU {uuid} now"
            elif problem := by_uuid[uuid].problem:
                found[uuid] = f"GPU {by_uuid[uuid].gpu_id} is out of service: {problem}"
        return found


def none_there() -> Gpus:
    """Of a machine without GPUs."""
    return Gpus(Reading)
