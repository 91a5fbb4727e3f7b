"""The machine's NVIDIA GPUs, through the driver's own library (NVML, https://docs.nvidia.com/deploy/nvml-api/).

A GPU in MIG mode is told as its instances: each is a device of its own, with the UUID by which containers get it.
"""

from __future__ import annotations

import contextlib
import ctypes
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from hakuriver.ids import MAX_ID
from hakuriver.models.runner import GpuInfo, GpuProcess

LIBRARY = "libnvidia-ml.so.1"
PCI_DEVICES = Path("/sys/bus/pci/devices")
UNKNOWN = -1
_MIB = 1 << 20
_RESET = "stop the Runner, reset it (nvidia-smi --gpu-reset), start the Runner; or restart the machine"
"""No program may have it open for that, and a Runner has."""
_LOOK_AGAIN_SECONDS = 60.0
_TRY_AGAIN_SECONDS = 10.0
_BAD_XIDS = {
    48: "an uncorrectable memory error",
    64: "a memory row that cannot be replaced",
    74: "an NVLink error",
    79: "it has fallen off the bus",
    95: "an uncontained memory error",
    119: "its system processor does not answer",
    120: "its system processor failed",
}
"""Errors after which a GPU works no more until it is reset (https://docs.nvidia.com/deploy/xid-errors/); the others are
those of a program, or mended by the driver."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Reading:
    """What was found at one look."""

    gpus: list[GpuInfo] = field(default_factory=list)
    minors: dict[str, int] = field(default_factory=dict)
    """By UUID: the number of the device's file, `/dev/nvidia0`."""
    problem: str = ""
    """Why the driver tells nothing, though there is one."""


class GpuReader:
    """Looks at the GPUs, again and again. Blocks; one thread at a time may use it."""

    def __init__(self, pci_devices: Path = PCI_DEVICES) -> None:
        self._pci_devices = pci_devices
        self._nvml: Any = None
        """The binding, once the driver's library has been opened."""
        self._events: Any = None
        self._driver = ""
        self._look_again = 0.0
        """Monotonic: a library that was not there, or did not open, is not tried at every look."""
        self._problem = ""
        self._errors: dict[int, str] = {}
        """By place: why a GPU works no more."""
        self._links: dict[str, list[str]] = {}
        """By UUID: where its NVLinks lead."""
        self._last: dict[int, GpuInfo] = {}
        """By place: what was last told of a GPU that answered."""

    def read(self) -> Reading:
        if self._nvml is None and not self._open():
            return Reading(problem=self._problem)
        nvml = self._nvml
        try:
            self._take_errors()
            reading = Reading()
            for index in range(nvml.nvmlDeviceGetCount()):
                self._look_at(index, reading)
        except nvml.NVMLError as error:
            self._close()
            self._problem, self._look_again = _driver_problem(error), 0.0
            return Reading(problem=self._problem)
        return reading

    def _open(self) -> bool:
        if time.monotonic() < self._look_again:
            return False
        self._look_again = time.monotonic() + _LOOK_AGAIN_SECONDS
        self._problem = ""
        try:
            # Before the binding, which takes memory that a machine without GPUs keeps.
            ctypes.CDLL(LIBRARY)
        except OSError:
            return False
        import pynvml  # type: ignore[import-untyped]  # noqa: PLC0415 - it has no types; loaded late as said above

        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            if error.value != pynvml.NVML_ERROR_DRIVER_NOT_LOADED or self._has_cards():
                self._problem = _driver_problem(error)
                self._look_again = time.monotonic() + _TRY_AGAIN_SECONDS
            return False
        self._nvml = pynvml
        self._driver = str(self._told(pynvml.nvmlSystemGetDriverVersion) or "")
        self._watch_errors()
        return True

    def _close(self) -> None:
        """Starts afresh at the next look: the driver may have been replaced."""
        with contextlib.suppress(self._nvml.NVMLError):
            self._nvml.nvmlShutdown()
        self._nvml = self._events = None
        self._errors, self._links = {}, {}

    def _has_cards(self) -> bool:
        """Whether the bus has something of NVIDIA's (PCI vendor 0x10de) that draws or computes (class 0x03)."""
        for device in self._pci_devices.glob("*"):
            with contextlib.suppress(OSError):
                vendor, kind = (device / "vendor").read_text().strip(), (device / "class").read_text().strip()
                if vendor == "0x10de" and kind.startswith("0x03"):
                    return True
        return False

    def _watch_errors(self) -> None:
        nvml = self._nvml
        try:
            events = nvml.nvmlEventSetCreate()
            for index in range(nvml.nvmlDeviceGetCount()):
                with contextlib.suppress(nvml.NVMLError):
                    handle = nvml.nvmlDeviceGetHandleByIndex(index)
                    nvml.nvmlDeviceRegisterEvents(handle, nvml.nvmlEventTypeXidCriticalError, events)
        except nvml.NVMLError:
            return  # This driver tells of no errors.
        self._events = events

    def _take_errors(self) -> None:
        """Notes the errors that the driver has told of since the last look."""
        nvml = self._nvml
        while self._events is not None:
            try:
                event = nvml.nvmlEventSetWait(self._events, 0)
                index = nvml.nvmlDeviceGetIndex(event.device)
            except nvml.NVMLError:
                return
            if meaning := _BAD_XIDS.get(event.eventData):
                self._errors[index] = f"{meaning} (XID {event.eventData})"
                log.warning("a GPU works no more", gpu=index, cause=self._errors[index])

    def _look_at(self, index: int, reading: Reading) -> None:
        nvml = self._nvml
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            uuid = str(nvml.nvmlDeviceGetUUID(handle))
        except nvml.NVMLError as error:
            # Its place is kept, so that the others keep theirs.
            unknown = GpuInfo(gpu_id=index, name="unknown", driver_version=self._driver, pci_bus_id="")
            gone = {"problem": _gpu_problem(error), "processes": []}
            reading.gpus.append(self._last.get(index, unknown).model_copy(update=gone))
            return
        told = self._last[index] = self._read(handle, index, uuid)
        minor = self._number(nvml.nvmlDeviceGetMinorNumber, handle)
        for each in self._instances(handle, told) if self._is_divided(handle) else [told]:
            reading.gpus.append(each)
            reading.minors[each.uuid] = minor

    def _read(self, handle: Any, index: int, uuid: str) -> GpuInfo:
        nvml, number = self._nvml, self._number
        memory = self._told(nvml.nvmlDeviceGetMemoryInfo, handle)
        use = self._told(nvml.nvmlDeviceGetUtilizationRates, handle)
        place = self._told(nvml.nvmlDeviceGetPciInfo, handle)
        bus = str(place.busId) if place else ""
        return GpuInfo(
            gpu_id=index,
            uuid=uuid,
            name=str(self._told(nvml.nvmlDeviceGetName, handle) or "unknown"),
            driver_version=self._driver,
            pci_bus_id=bus,
            gpu_utilization=use.gpu if use else UNKNOWN,
            mem_utilization=use.memory if use else UNKNOWN,
            graphics_clock_mhz=number(nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_GRAPHICS),
            mem_clock_mhz=number(nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_MEM),
            **_memory(memory),
            temperature=number(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU),
            fan_speed=number(nvml.nvmlDeviceGetFanSpeed, handle),
            power_usage_mw=number(nvml.nvmlDeviceGetPowerUsage, handle),
            power_limit_mw=number(nvml.nvmlDeviceGetEnforcedPowerLimit, handle),
            energy_mj=number(nvml.nvmlDeviceGetTotalEnergyConsumption, handle),
            numa_node=self._numa_node(bus),
            nvlinks=self._links_of(uuid, handle),
            processes=self._processes(handle),
            problem=self._health(handle, index),
        )

    def _links_of(self, uuid: str, handle: Any) -> list[str]:
        """Where its NVLinks lead that are up. Asked for once: the driver answers for each link alone, and cables stay."""
        if uuid not in self._links:
            nvml, places = self._nvml, set()
            for link in range(nvml.NVML_NVLINK_MAX_LINKS):
                state = self._told(nvml.nvmlDeviceGetNvLinkState, handle, link)
                if state is None:
                    break
                if state and (far := self._told(nvml.nvmlDeviceGetNvLinkRemotePciInfo, handle, link)):
                    places.add(str(far.busId).upper())
            self._links[uuid] = sorted(places)
        return self._links[uuid]

    def _is_divided(self, handle: Any) -> bool:
        mode = self._told(self._nvml.nvmlDeviceGetMigMode, handle)
        return bool(mode) and mode[0] == self._nvml.NVML_DEVICE_MIG_ENABLE

    def _instances(self, handle: Any, whole: GpuInfo) -> list[GpuInfo]:
        """The MIG instances of a GPU: with its temperature and the like, and with their own name and memory."""
        nvml = self._nvml
        found = []
        for place in range(max(0, self._number(nvml.nvmlDeviceGetMaxMigDeviceCount, handle))):
            instance = self._told(nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, place)
            uuid = self._told(nvml.nvmlDeviceGetUUID, instance) if instance else None
            if not uuid:
                continue
            memory = self._told(nvml.nvmlDeviceGetMemoryInfo, instance)
            name = self._told(nvml.nvmlDeviceGetName, instance)
            own = {
                "gpu_id": instance_number(whole.gpu_id, place),
                "uuid": str(uuid),
                "name": str(name or f"{whole.name} MIG"),
                "parent_uuid": whole.uuid,
                "gpu_utilization": UNKNOWN,
                "mem_utilization": UNKNOWN,
                "energy_mj": UNKNOWN,
                "nvlinks": [],
                "processes": self._processes(instance),
                **_memory(memory),
            }
            found.append(whole.model_copy(update=own))
        return found

    def _processes(self, handle: Any) -> list[GpuProcess]:
        nvml = self._nvml
        found: dict[int, GpuProcess] = {}
        # The call without a version raises another error with a driver that is older than the binding.
        for kind in ("Compute", "Graphics"):
            running = (getattr(nvml, f"nvmlDeviceGet{kind}RunningProcesses_v{version}") for version in (3, 2))
            told = (self._told(ask, handle) for ask in running)
            for each in next((answer for answer in told if answer is not None), ()):
                used = UNKNOWN if each.usedGpuMemory is None else each.usedGpuMemory // _MIB
                found[each.pid] = GpuProcess(
                    pid=each.pid, memory_used_mib=used, name=_name_of(each.pid), task_id=_task_of(each.pid)
                )
        return [found[pid] for pid in sorted(found)]

    def _health(self, handle: Any, index: int) -> str:
        """Why nothing should run on it; empty when it is well."""
        nvml = self._nvml
        if index in self._errors:
            return f"{self._errors[index]}: {_RESET}"
        try:
            nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)
        except nvml.NVMLError as error:
            if error.value in {nvml.NVML_ERROR_GPU_IS_LOST, nvml.NVML_ERROR_RESET_REQUIRED}:
                return _gpu_problem(error)
        rows = self._told(nvml.nvmlDeviceGetRemappedRows, handle)
        if rows and (rows[2] or rows[3]):
            return f"memory rows wait to be replaced, or cannot be: {_RESET}"
        wrong = self._number(
            nvml.nvmlDeviceGetTotalEccErrors,
            handle,
            nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
            nvml.NVML_VOLATILE_ECC,
        )
        if wrong > 0:
            return f"{wrong} uncorrectable memory errors since it was reset: {_RESET}"
        return ""

    def _numa_node(self, bus: str) -> int | None:
        """Of the GPU at this place of the bus, by sysfs, which has four digits of the domain where NVML has eight."""
        if not bus:
            return None
        try:
            number = int((self._pci_devices / bus.lower()[-12:] / "numa_node").read_text())
        except (OSError, ValueError):
            return None
        return None if number < 0 else number

    def _number(self, ask: Callable[..., Any], *arguments: Any) -> int:
        value = self._told(ask, *arguments)
        return UNKNOWN if value is None else int(value)

    def _told(self, ask: Callable[..., Any], *arguments: Any) -> Any:
        """What the driver tells; none where this GPU or driver does not know of it."""
        try:
            return ask(*arguments)
        except self._nvml.NVMLError:
            return None


def instance_number(gpu: int, place: int) -> int:
    """The number by which a MIG instance is asked for: 100, 101, … are those of GPU 0, 200, 201, … those of GPU 1."""
    return 100 * (gpu + 1) + place


def _memory(memory: Any) -> dict[str, int]:
    sizes = (memory.total, memory.used, memory.free) if memory else (UNKNOWN,) * 3
    names = ("memory_total_mib", "memory_used_mib", "memory_free_mib")
    return {name: size if size < 0 else size // _MIB for name, size in zip(names, sizes, strict=True)}


def _driver_problem(error: Exception) -> str:
    said = str(error).rstrip(".")
    return f"the NVIDIA driver does not work: {said}; see `nvidia-smi`, or restart the machine"


def _gpu_problem(error: Exception) -> str:
    return f"it does not answer: {str(error).rstrip('.')}; {_RESET}"


def _name_of(pid: int) -> str:
    try:
        name = Path(f"/proc/{pid}/comm").read_text("utf-8", "replace").strip()
    except OSError:
        return ""
    # A program names itself as it likes: no lines of its own in the lists of others.
    return "".join(char if char.isprintable() else "?" for char in name)


def _task_of(pid: int) -> int | None:
    """The task whose variables a process has; those that it was started with (proc(5)). It may say what it likes."""
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    for variable in variables:
        name, _, value = variable.partition(b"=")
        if name == b"HAKURIVER_TASK_ID" and value.isdigit() and len(value) < 20:  # noqa: PLR2004 - as 64 bits have
            return int(value) if int(value) <= MAX_ID else None
    return None
