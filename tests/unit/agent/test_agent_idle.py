"""When a VPS counts as unused, and what becomes of it then."""

from __future__ import annotations

from pathlib import Path

import pytest

from hakuriver.models.runner import GpuInfo, GpuProcess
from hakuriver_agent import idle
from hakuriver_agent.api.doors import Guests
from hakuriver_agent.devices.gpu import Reading
from hakuriver_agent.devices.gpus import Gpus
from hakuriver_agent.engines.port import Used
from hakuriver_agent.idle import IdleWatch, Use, warning_seconds
from unit.agent.agent_doubles import Life, Node, eventually, node, spec


@pytest.fixture(name="machine")
def _machine(tmp_path: Path) -> Node:
    return node(tmp_path)


class TestUse:
    def test_nobody_there_and_nothing_done(self) -> None:
        use = Use(100.0, 100.0)
        assert [use.look(now, 7.0, used=False) for now in (100.0, 110.0, 130.0)] == [0.0, 10.0, 30.0]

    def test_somebody_there(self) -> None:
        use = Use(100.0, 100.0)
        assert [use.look(now, 7.0, used=used) for now, used in ((110.0, True), (120.0, False))] == [
            0.0,
            10.0,
        ]

    def test_something_done(self) -> None:
        use = Use(100.0, 100.0)
        looks = [(110.0, 7.0), (120.0, 7.4), (130.0, 8.0), (140.0, 8.1)]
        assert [use.look(now, cpu, used=False) for now, cpu in looks] == [10.0, 20.0, 0.0, 10.0]

    def test_an_engine_that_does_not_tell(self) -> None:
        use = Use(100.0, 100.0)
        looks = [(110.0, 7.0), (120.0, None), (130.0, 9.0)]
        assert [use.look(now, cpu, used=False) for now, cpu in looks] == [10.0, 0.0, 10.0]

    def test_the_warning_comes_in_time(self) -> None:
        assert [warning_seconds(limit) for limit in (60.0, 1200.0, 7200.0)] == [30.0, 600.0, 600.0]


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture(name="clock")
def _clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(idle, "time", clock)
    return clock


async def watched(
    life: Life, machine: Node, guests: Guests, gpus: Gpus | None = None
) -> tuple[IdleWatch, tuple[int, int]]:
    given = spec(task_type="vps", idle_stop_seconds=100, gpus=["GPU-a"])
    await life.supervisor.start([given, spec(task_type="vps")])
    await life.post.running(given)
    machine.world.used[given.key] = Used(1.0)
    quiet = Gpus(lambda: Reading([gpu("GPU-a", 0)]))
    await quiet.look()
    watch = IdleWatch(life.supervisor, {"process": life.engine}, guests, gpus or quiet)
    return watch, given.key


async def test_it_is_warned_and_stopped(machine: Node, clock: Clock) -> None:
    async with machine.life() as life:
        guests = Guests()
        watch, key = await watched(life, machine, guests)
        for clock.now, message in (
            (1000.0, None),
            (1040.0, None),
            (1060.0, "nobody uses it; it is stopped in 40s"),
            (1070.0, "nobody uses it; it is stopped in 40s"),
        ):
            await watch.look()
            report = life.supervisor.report(key)
            assert report is not None
            assert (report.status, report.message) == ("running", message)
        with guests.entering(key):
            """For less time than there is between two looks."""
        clock.now = 1080.0
        await watch.look()
        report = life.supervisor.report(key)
        assert report is not None
        assert report.message is None, "somebody came"
        clock.now = 1181.0
        await watch.look()
        await eventually(lambda: life.post.reports[-1].status == "stopped", "it is stopped")
        assert life.post.reports[-1].message == "nobody has used it for 1m41s"
        assert len(life.supervisor.running) == 1, "the other was not to be stopped"


def gpu(uuid: str, use: int, *programs: int) -> GpuInfo:
    return GpuInfo(
        gpu_id=0,
        uuid=uuid,
        name="A100",
        driver_version="",
        pci_bus_id="",
        gpu_utilization=use,
        processes=[GpuProcess(pid=pid) for pid in programs],
    )


@pytest.mark.parametrize(
    ("told", "is_used"),
    [
        ([gpu("GPU-a", 80)], True),
        ([gpu("GPU-a", 5, 77)], False),
        ([gpu("GPU-a", -1, 77)], True),
        ([gpu("GPU-a", -1)], False),
        ([gpu("GPU-a", 0), gpu("GPU-b", 99, 77)], False),
        ([], True),
    ],
)
async def test_what_computes_on_its_gpu_uses_it(
    machine: Node, clock: Clock, told: list[GpuInfo], is_used: bool
) -> None:
    gpus = Gpus(lambda: Reading(told))
    await gpus.look()
    async with machine.life() as life:
        watch, key = await watched(life, machine, Guests(), gpus)
        for clock.now in (1000.0, 1060.0):
            await watch.look()
        report = life.supervisor.report(key)
        assert report is not None
        assert (report.message is None) == is_used, "it is warned of what is not used"
