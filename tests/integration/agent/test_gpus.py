"""GPUs as the Runner reads them: the real binding, on a driver's library that tells what each test lets it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
from pathlib import Path

import pytest

from hakuriver.models.runner import GpuInfo
from hakuriver_agent.devices import gpu as module
from hakuriver_agent.devices import gpus as watched
from hakuriver_agent.devices.gpu import GpuReader, Reading
from hakuriver_agent.devices.gpus import Gpus
from support.nvml import FakeDriver

pytestmark = pytest.mark.gpus
A100 = "gpu GPU-aaa NVIDIA_A100-SXM4-40GB 40960 0"
T4 = "gpu GPU-bbb Tesla_T4 15360 0"


@pytest.fixture
def driver(tmp_path: Path) -> FakeDriver:
    return FakeDriver(tmp_path)


def test_all_that_a_gpu_tells(driver: FakeDriver) -> None:
    place = driver.pci / "0000:02:00.0"
    place.mkdir()
    (place / "numa_node").write_text("1\n")
    (told,) = driver.readings([A100, T4])
    assert told["minors"] == {"GPU-aaa": 40, "GPU-bbb": 41}
    assert told["gpus"][1] == {
        "gpu_id": 1,
        "uuid": "GPU-bbb",
        "name": "Tesla T4",
        "driver_version": "535.00",
        "pci_bus_id": "00000000:02:00.0",
        "gpu_utilization": 11,
        "graphics_clock_mhz": 1410,
        "mem_utilization": 5,
        "mem_clock_mhz": 1215,
        "memory_total_mib": 15360,
        "memory_used_mib": 3840,
        "memory_free_mib": 11520,
        "temperature": 41,
        "fan_speed": -1,
        "power_usage_mw": 60000,
        "power_limit_mw": 400000,
        "energy_mj": 6000,
        "numa_node": 1,
        "nvlinks": [],
        "parent_uuid": "",
        "processes": [],
        "problem": "",
    }
    assert told["gpus"][0]["numa_node"] is None, "the bus does not tell of it"


def test_where_nvlinks_lead(driver: FakeDriver) -> None:
    links = ["link 0 1", "link 0 1", "dark 0", "link 0 9", "link 1 0"]
    (told,) = driver.readings([A100, T4, "gpu GPU-ccc NVIDIA_A100 40960 0", *links])
    seen = [(gpu["pci_bus_id"], gpu["nvlinks"]) for gpu in told["gpus"]]
    assert seen == [
        ("00000000:01:00.0", ["00000000:02:00.0", "00000000:0A:00.0"]),
        ("00000000:02:00.0", ["00000000:01:00.0"]),
        ("00000000:03:00.0", []),
    ]
    (divided,) = driver.readings([A100, "link 0 1", "mig 0 MIG-x NVIDIA_A100_MIG_1g.5gb 4864"])
    assert divided["gpus"][0]["nvlinks"] == [], "MIG instances have no links"


def test_programs_and_their_tasks(driver: FakeDriver) -> None:
    program = subprocess.Popen(["sleep", "600"], env={**os.environ, "HAKURIVER_TASK_ID": "77"})
    try:
        (told,) = driver.readings([A100, f"process 0 {program.pid} 512", "process 0 999999999 3"])
    finally:
        program.kill()
        program.wait()
    assert told["gpus"][0]["processes"] == [
        {"pid": program.pid, "memory_used_mib": 512, "name": "sleep", "task_id": 77},
        {"pid": 999999999, "memory_used_mib": 3, "name": "", "task_id": None},
    ]


@pytest.mark.parametrize("told", ["9999999999999999999", "x", "", "-1"])
def test_what_a_program_says_of_itself_harms_nobody(driver: FakeDriver, told: str, tmp_path: Path) -> None:
    forged = tmp_path / "two\nlines"
    forged.symlink_to("/bin/sleep")
    program = subprocess.Popen([forged, "600"], env={**os.environ, "HAKURIVER_TASK_ID": told})
    try:
        (read,) = driver.readings([A100, f"process 0 {program.pid} 512"])
    finally:
        program.kill()
        program.wait()
    (found,) = read["gpus"][0]["processes"]
    assert (found["name"], found["task_id"]) == ("two?lines", None)


def test_instances_are_gpus_of_their_own(driver: FakeDriver) -> None:
    parts = ["mig 1 MIG-x NVIDIA_A100_MIG_1g.5gb 4864", "mig 1 MIG-y NVIDIA_A100_MIG_3g.20gb 19968"]
    (told,) = driver.readings([T4, A100, *parts])
    seen = [(gpu["gpu_id"], gpu["uuid"], gpu["memory_total_mib"], gpu["parent_uuid"]) for gpu in told["gpus"]]
    assert seen == [
        (0, "GPU-bbb", 15360, ""),
        (200, "MIG-x", 4864, "GPU-aaa"),
        (201, "MIG-y", 19968, "GPU-aaa"),
    ]
    assert told["gpus"][2]["name"] == "NVIDIA A100 MIG 3g.20gb"
    assert told["gpus"][2]["temperature"] == 41, "that of the whole"
    assert told["gpus"][2]["energy_mj"] == -1, "of a part nobody knows it"


def test_a_divided_gpu_without_instances_is_none(driver: FakeDriver) -> None:
    (told,) = driver.readings([A100, T4, "divided 0"])
    assert [gpu["gpu_id"] for gpu in told["gpus"]] == [1]


def test_an_old_driver_tells_less(driver: FakeDriver) -> None:
    (told,) = driver.readings(["old", A100])
    gpu = told["gpus"][0]
    assert (gpu["power_usage_mw"], gpu["energy_mj"], gpu["name"]) == (-1, -1, "NVIDIA A100-SXM4-40GB")


class TestHealth:
    def test_one_that_falls_off_the_bus_keeps_its_place_and_name(self, driver: FakeDriver) -> None:
        well, lost, back = driver.readings([A100, T4], [A100, T4, "lost 0"], [A100, T4])
        assert [gpu["uuid"] for gpu in lost["gpus"]] == ["GPU-aaa", "GPU-bbb"]
        assert lost["gpus"][0]["problem"] == "it does not answer: GPU is lost; " + module._RESET
        assert lost["gpus"][1]["problem"] == ""
        assert back["gpus"] == well["gpus"]

    def test_one_that_was_never_seen_well(self, driver: FakeDriver) -> None:
        (told,) = driver.readings([A100, T4, "lost 0"])
        assert [(gpu["gpu_id"], bool(gpu["problem"])) for gpu in told["gpus"]] == [(0, True), (1, False)]

    def test_memory_errors(self, driver: FakeDriver) -> None:
        ecc, rows = driver.readings([A100, T4, "ecc 0 3"], [A100, T4, "rows 1"])
        assert ecc["gpus"][0]["problem"].startswith("3 uncorrectable memory errors")
        assert rows["gpus"][1]["problem"].startswith("memory rows wait to be replaced")
        assert rows["gpus"][0]["problem"] == ""

    def test_an_error_after_which_it_works_no_more_is_remembered(self, driver: FakeDriver) -> None:
        _, bad, later = driver.readings([A100, T4], [A100, T4, "xid 1 79"], [A100, T4, "xid 1 79"])
        for told in (bad, later):
            assert told["gpus"][1]["problem"].startswith("it has fallen off the bus (XID 79)")
            assert told["gpus"][0]["problem"] == ""

    def test_an_error_of_a_program_is_not_the_gpus(self, driver: FakeDriver) -> None:
        _, told = driver.readings([A100], [A100, "xid 0 13"])
        assert told["gpus"][0]["problem"] == ""


class TestDriver:
    def test_a_library_without_a_driver_is_a_machine_without_gpus(self, driver: FakeDriver) -> None:
        (told,) = driver.readings(["init 9"])
        assert told == {"gpus": [], "minors": {}, "problem": ""}

    def test_a_driver_that_is_not_loaded_where_there_is_a_card(self, driver: FakeDriver) -> None:
        card = driver.pci / "0000:02:00.0"
        card.mkdir()
        (card / "vendor").write_text("0x10de\n")
        (card / "class").write_text("0x030200\n")
        (told,) = driver.readings(["init 9"])
        assert told["problem"].startswith("the NVIDIA driver does not work: Driver Not Loaded")

    def test_one_that_was_replaced_beneath_it(self, driver: FakeDriver) -> None:
        _, broken, back = driver.readings([A100], ["init 18", A100], [A100])
        assert broken["problem"].startswith(
            "the NVIDIA driver does not work: RM has detected an NVML/RM version mismatch;"
        )
        assert back["problem"] == ""
        assert [gpu["uuid"] for gpu in back["gpus"]] == ["GPU-aaa"]

    def test_no_library(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "LIBRARY", "libno-such-library.so.1")
        assert GpuReader().read() == Reading()


class TestHanging:
    async def test_a_driver_that_hangs_holds_up_nothing_and_is_asked_once(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(watched, "_LOOK_SECONDS", 0.05)
        info = GpuInfo(gpu_id=0, uuid="GPU-aaa", name="A100", driver_version="", pci_bus_id="")
        free, calls = threading.Event(), []

        def read() -> Reading:
            calls.append(1)
            if len(calls) == 2:
                free.wait(60)
            return Reading([info])

        gpus = Gpus(read)
        await gpus.look()
        assert gpus.unusable(["GPU-aaa"]) == {}
        await gpus.look()
        await gpus.look()
        assert len(calls) == 2, "the first thread is waited for"
        assert "has not answered" in gpus.problem
        assert "has not answered" in gpus.unusable(["GPU-aaa"])["GPU-aaa"]
        assert not gpus.has_refused, "nobody was refused"
        assert gpus.refused(["GPU-aaa"])
        assert gpus.has_refused, "which calls for a registration, also when it is well again by then"
        assert gpus.unusable(["GPU-zzz"]) == {"GPU-zzz": "this node has no GPU GPU-zzz now"}
        assert gpus.busy(["GPU-aaa"]), "nothing is known of it"
        free.set()
        async with asyncio.timeout(30):
            while gpus.problem:
                await gpus.look()
        assert gpus.unusable(["GPU-aaa"]) == {}
        assert not gpus.busy(["GPU-aaa"])

    async def test_a_defect_ends_no_loop(self) -> None:
        told = [ValueError("odd"), Reading()]

        def read() -> Reading:
            if isinstance(first := told.pop(0), Exception):
                raise first
            return first

        gpus = Gpus(read)
        await gpus.look()
        assert "ValueError('odd')" in gpus.problem
        await gpus.look()
        assert gpus.problem == ""

    async def test_many_who_want_to_know_look_once(self) -> None:
        calls: list[int] = []

        def read() -> Reading:
            calls.append(1)
            return Reading()

        gpus = Gpus(read)
        await asyncio.gather(*(gpus.looked() for _ in range(10)))
        assert len(calls) == 1
