"""Running attempts are looked at; what is seen goes along with their reports and outlives the Runner."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from hakuriver.models.runner import GpuInfo
from hakuriver.models.usage import TaskUsage
from hakuriver_agent import meter
from hakuriver_agent.devices.gpu import Reading
from hakuriver_agent.devices.gpus import Gpus, none_there
from hakuriver_agent.engines.fake import FakeEngine
from hakuriver_agent.engines.port import Key, Used
from hakuriver_agent.meter import Meter, first_pause, pause
from unit.agent.agent_doubles import Life, Node, eventually, named, node, spec


@pytest.fixture(name="machine")
def _machine(tmp_path: Path) -> Node:
    return node(tmp_path)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FIRST_SECONDS", "LONGEST_SECONDS", "SHORTEST_SECONDS", "YOUNG_GPU_SECONDS"):
        monkeypatch.setattr(meter, name, 0.005)


@asynccontextmanager
async def measured(life: Life, gpus: Gpus | None = None) -> AsyncIterator[None]:
    watching = Meter(life.supervisor, {"process": life.engine}, gpus or none_there())
    work = asyncio.create_task(watching.run())
    try:
        yield
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


async def until_seen(life: Life, key: Key, cpu_seconds: float) -> TaskUsage:
    def seen() -> TaskUsage | None:
        usage = life.supervisor.usage().get(key)
        return usage if usage and usage.cpu_seconds == cpu_seconds else None

    await eventually(seen, f"{cpu_seconds} s are seen")
    usage = seen()
    assert usage is not None
    return usage


@pytest.mark.parametrize(
    ("age", "seconds"), [(0.0, 0.1), (1.0, 0.1), (20.0, 2.0), (50.0, 5.0), (90_000.0, 5.0)]
)
def test_the_older_it_is_the_rarer_it_is_looked_at(
    age: float, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    assert pause(age) == seconds


def test_what_was_begun_earlier_is_looked_at_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert (first_pause(0.0), first_pause(7.0)) == (0.1, 0.0)


async def test_it_is_told_while_it_runs_and_with_the_end(machine: Node) -> None:
    async with machine.life() as life, measured(life):
        given = spec("use", "1.5", "1000")
        await life.supervisor.start([given])
        now = await until_seen(life, given.key, 1.5)
        assert (now.memory_bytes, now.peak_memory_bytes) == (0, 1000)
        assert all(report.usage is None for report in life.post.of(given)), "not before it has ended"
        machine.world.used[given.key] = Used(2.5, 0, 3000)
        await life.supervisor.kill([named(given)])
        final = (await life.post.final(given)).usage
        assert final is not None
        assert (final.cpu_seconds, final.peak_memory_bytes, final.cpu_now) == (2.5, 3000, None)
        assert life.supervisor.usage() == {}, "it runs no more"


async def test_nothing_is_known_of_what_cannot_be_read(machine: Node) -> None:
    async with machine.life() as life, measured(life):
        given, other = spec("wait"), spec("use", "1", "1")
        await life.supervisor.start([given, other])
        await until_seen(life, other.key, 1.0)
        assert given.key not in life.supervisor.usage()
        await life.supervisor.kill([named(given)])
        assert (await life.post.final(given)).usage is None


async def test_an_engine_that_hangs_holds_up_no_end(machine: Node) -> None:
    async with machine.life() as life, measured(life):
        life.engine.gate("usage")
        given = spec("use", "1", "1")
        await life.supervisor.start([given])
        await life.engine.entered["usage"].wait()
        await life.supervisor.kill([named(given)])
        # Its last word is the engine's, which needs no look.
        assert ((await life.post.final(given)).usage or TaskUsage()).cpu_seconds == 1.0


async def test_an_engine_that_is_away_is_looked_at_again(machine: Node) -> None:
    async with machine.life() as life, measured(life):
        gate, entered = life.engine.gate("usage"), life.engine.entered["usage"]
        given = spec("use", "1", "1")
        await life.supervisor.start([given])
        await entered.wait()
        machine.world.away = True
        entered.clear()
        gate.set()
        await entered.wait()  # For the second time: the first look has failed.
        assert life.supervisor.usage() == {}
        machine.world.away = False
        await until_seen(life, given.key, 1.0)


async def test_a_look_that_fails_by_a_defect_is_not_the_last(machine: Node) -> None:
    class Broken(FakeEngine):
        failures = 2

        async def usage(self, keys: object) -> dict[Key, Used]:
            if self.failures:
                self.failures -= 1
                raise ValueError("odd")
            return await super().usage(keys)  # type: ignore[arg-type]

    async with machine.life(engine=Broken(machine.world, "process")) as life, measured(life):
        given = spec("use", "1", "1")
        await life.supervisor.start([given])
        await until_seen(life, given.key, 1.0)


async def test_what_was_seen_outlives_the_runner(machine: Node) -> None:
    given = spec("use", "1.5", "1000")
    async with machine.life() as life, measured(life):
        await life.supervisor.start([given])
        await until_seen(life, given.key, 1.5)
    del machine.world.used[given.key]
    machine.world.end(given.key, 0)
    async with machine.life() as life:
        usage = (await life.post.final(given)).usage
        assert usage is not None
        assert (usage.cpu_seconds, usage.peak_memory_bytes) == (1.5, 1000)


async def test_now_and_then_it_is_noted_for_a_runner_that_is_killed(
    machine: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meter, "NOTE_SECONDS", 0.0)
    noted: list[Key] = []
    async with machine.life() as life, measured(life):
        monkeypatch.setattr(life.journal, "note_usage", noted.extend)
        given = spec("use", "1.5", "1000")
        await life.supervisor.start([given])
        await eventually(lambda: given.key in noted, "it is noted")


async def test_a_vps_goes_on_where_it_was_stopped(machine: Node) -> None:
    async with machine.life() as life, measured(life):
        given = spec("use", "1.5", "1000", task_type="vps")
        await life.supervisor.start([given])
        await until_seen(life, given.key, 1.5)
        await life.supervisor.stop([named(given)])
        await eventually(lambda: life.post.states(given)[-1] == "stopped", "it is stopped")
        at_rest = life.post.of(given)[-1].usage
        assert at_rest is not None
        assert (at_rest.cpu_seconds, at_rest.memory_bytes) == (1.5, None)
    async with machine.life() as life, measured(life):
        machine.world.used[given.key] = Used(0.5, 10, 20, start=2)
        again = given.model_copy(update={"run": 1, "arguments": ["0.5", "20"]})
        await life.supervisor.start([again])
        usage = await until_seen(life, given.key, 2.0)
        assert usage.peak_memory_bytes == 1000


async def test_its_gpus_are_looked_at(machine: Node) -> None:
    def gpu(uuid: str, use: int) -> GpuInfo:
        return GpuInfo(
            gpu_id=0,
            uuid=uuid,
            name="A100",
            driver_version="",
            pci_bus_id="",
            gpu_utilization=use,
            power_usage_mw=1,
        )

    gpus = Gpus(lambda: Reading([gpu("GPU-a", 80), gpu("GPU-b", 20)]))
    await gpus.look()
    async with machine.life() as life, measured(life, gpus):
        with_gpu, without = spec("wait", gpus=["GPU-a"]), spec("use", "1", "1")
        await life.supervisor.start([with_gpu, without])

        def seen() -> bool:
            usage = life.supervisor.usage()
            return with_gpu.key in usage and without.key in usage

        await eventually(seen, "both are seen")
        usage = life.supervisor.usage()
        assert (usage[with_gpu.key].gpu_percent, usage[without.key].gpu_percent) == (80.0, None)
        await life.supervisor.kill([named(with_gpu)])
        final = (await life.post.final(with_gpu)).usage
        assert final is not None
        assert final.gpu_percent == 80.0
        assert final.gpu_joules is not None
