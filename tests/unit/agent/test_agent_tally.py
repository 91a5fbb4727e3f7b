"""What is made of looks at a unit and its GPUs."""

from __future__ import annotations

from typing import Any

import pytest

from hakuriver.models.runner import GpuInfo
from hakuriver.models.usage import TaskUsage
from hakuriver_agent.engines.port import Used
from hakuriver_agent.tally import MOST_RECKONED_SECONDS, Tally

BEGAN = 1_000.0
MIB = 1 << 20


def begun(**fields: Any) -> Tally:
    tally = Tally(**fields)
    tally.begin(BEGAN)
    return tally


def told(tally: Tally) -> TaskUsage:
    usage = tally.usage()
    assert usage is not None
    return usage


def gpu(uuid: str = "GPU-a", **told: Any) -> GpuInfo:
    fields: dict[str, Any] = {
        "gpu_id": 0,
        "uuid": uuid,
        "name": "A100",
        "driver_version": "",
        "pci_bus_id": "",
        "gpu_utilization": 50,
        "memory_used_mib": 100,
        "power_usage_mw": 200_000,
        "energy_mj": 1_000_000,
    }
    return GpuInfo.model_validate(fields | told)


class TestUnit:
    def test_nothing_is_told_of_what_nobody_saw(self) -> None:
        tally = begun()
        tally.rest(BEGAN + 1)
        assert tally.usage() is None

    def test_what_was_seen_last_with_the_time_until_then(self) -> None:
        tally = begun()
        tally.look(Used(1.0, 300, 500), BEGAN + 2)
        tally.look(Used(3.0, 200, 500), BEGAN + 4)
        now = told(tally)
        assert (now.cpu_seconds, now.seconds, now.cpu_now) == (3.0, 4.0, 1.0)
        assert (now.memory_bytes, now.peak_memory_bytes) == (200, 500)
        tally.rest(BEGAN + 9)
        end = told(tally)
        assert (end.cpu_seconds, end.seconds) == (3.0, 4.0), "nobody saw the five seconds after it"
        assert (end.cpu_now, end.memory_bytes, end.peak_memory_bytes) == (None, None, 500)

    def test_the_last_word_stands(self) -> None:
        tally = begun()
        tally.look(Used(1.0, 300, 500), BEGAN + 2)
        tally.rest(BEGAN + 9, Used(8.0, None, 700))
        assert (told(tally).cpu_seconds, told(tally).seconds, told(tally).peak_memory_bytes) == (
            8.0,
            9.0,
            700,
        )

    def test_a_kernel_that_keeps_no_peak(self) -> None:
        tally = begun()
        for size in (300, 900, 200):
            tally.look(Used(1.0, size), BEGAN + 2)
        assert told(tally).peak_memory_bytes == 900

    @pytest.mark.parametrize(("second", "start"), [(0.5, 0), (3.0, 7)])
    def test_a_counter_that_begins_anew_goes_on(self, second: float, start: int) -> None:
        tally = begun()
        tally.look(Used(2.0), BEGAN + 2)
        tally.look(Used(second, start=start), BEGAN + 4)
        assert told(tally).cpu_seconds == 2.0 + second
        assert told(tally).cpu_now == second / 2

    def test_runs_are_put_together_and_the_time_between_them_is_not(self) -> None:
        tally = begun()
        tally.rest(BEGAN + 10, Used(5.0, None, 900, start=1))
        tally.begin(BEGAN + 100)
        tally.rest(BEGAN + 105, Used(6.0, None, 100, start=2))
        both = told(tally)
        assert (both.seconds, both.cpu_seconds, both.peak_memory_bytes) == (15.0, 11.0, 900)

    def test_another_life_of_the_runner_goes_on_with_it(self) -> None:
        tally = begun()
        tally.rest(BEGAN + 10, Used(5.0, None, 900, start=1))
        tally.begin(BEGAN + 100)
        tally.look(Used(6.0, 10, 100, start=2), BEGAN + 105)
        again = Tally.model_validate_json(tally.model_dump_json())
        again.begin(BEGAN + 100)
        again.look(Used(7.0, 10, 100, start=2), BEGAN + 110)
        assert (told(again).seconds, told(again).cpu_seconds) == (20.0, 12.0)

    def test_a_clock_that_was_set_back(self) -> None:
        tally = begun()
        tally.look(Used(1.0, 1, 1), BEGAN - 50)
        assert (told(tally).seconds, told(tally).cpu_now) == (0.0, None)


class TestGpus:
    def test_mean_use_and_the_most_memory_of_all_together(self) -> None:
        tally = begun()
        tally.look_at_gpus([gpu(), gpu("GPU-b", gpu_utilization=100)], BEGAN)
        tally.look_at_gpus([gpu(memory_used_mib=50), gpu("GPU-b", gpu_utilization=0)], BEGAN + 5)
        usage = told(tally)
        assert usage.gpu_percent == (75 + 25) / 2
        assert usage.peak_gpu_memory_bytes == 200 * MIB

    def test_energy_by_the_counter_and_by_power_at_both_ends(self) -> None:
        tally = begun()
        tally.look_at_gpus([gpu()], BEGAN + 1)
        assert told(tally).gpu_joules == 200, "of the second before the first look"
        tally.look_at_gpus([gpu(energy_mj=4_000_000)], BEGAN + 6)
        assert told(tally).gpu_joules == 200 + 3000
        tally.rest(BEGAN + 8)
        assert told(tally).gpu_joules == 200 + 3000 + 2 * 200

    def test_energy_by_power_where_nothing_counts(self) -> None:
        tally = begun()
        for passed in (0, 5, 10):
            tally.look_at_gpus([gpu(energy_mj=-1), gpu("GPU-b", energy_mj=-1)], BEGAN + passed)
        assert told(tally).gpu_joules == 2 * 10 * 200

    def test_a_counter_that_its_driver_began_anew(self) -> None:
        tally = begun()
        tally.look_at_gpus([gpu()], BEGAN)
        tally.look_at_gpus([gpu(energy_mj=5)], BEGAN + 5)
        assert told(tally).gpu_joules == 5 * 200

    @pytest.mark.parametrize(
        "other", [{"energy_mj": -1, "power_usage_mw": -1}, {"parent_uuid": "GPU-whole", "energy_mj": -1}]
    )
    def test_what_one_does_not_tell_nobody_knows(self, other: dict[str, Any]) -> None:
        tally = begun()
        for passed in (0, 5):
            tally.look_at_gpus([gpu(), gpu("GPU-b", **other)], BEGAN + passed)
        tally.rest(BEGAN + 7)
        assert told(tally).gpu_joules is None
        assert told(tally).gpu_percent == 50

    def test_a_driver_that_tells_nothing(self) -> None:
        tally = begun()
        tally.look_at_gpus([gpu(gpu_utilization=-1, memory_used_mib=-1)], BEGAN)
        assert tally.usage() is None

    def test_no_more_is_reckoned_at_the_ends_than_can_be_answered_for(self) -> None:
        tally = begun()
        tally.look_at_gpus([gpu()], BEGAN + 500)
        tally.rest(BEGAN + 1000)
        assert told(tally).gpu_joules == 2 * MOST_RECKONED_SECONDS * 200

    def test_between_two_runs_it_takes_nothing(self) -> None:
        tally = begun()
        tally.look_at_gpus([gpu()], BEGAN)
        tally.rest(BEGAN)
        tally.begin(BEGAN + 1000)
        tally.look_at_gpus([gpu(energy_mj=900_000_000)], BEGAN + 1000)
        assert told(tally).gpu_joules == 0
