"""How containers are given GPUs: those of the attempt and no others.

Three ways: CDI (the Container Device Interface, https://github.com/cncf-tags/container-device-interface), where the
engine has it and the NVIDIA Container Toolkit has written what it offers; the toolkit's runtime hook, by a device
request; or the bare device files, for images that bring the driver's libraries themselves.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from hakuriver_agent.devices.gpus import Gpus
from hakuriver_agent.engines.port import EngineUnavailableError, StartFailedError

Access = Literal["cdi", "runtime", "devices"]
CDI_KIND = "nvidia.com/gpu"
NO_ACCESS = "its containers can be given no GPU: install the NVIDIA Container Toolkit on the node, or set runner.gpu_access"
OTHER_GPUS = (
    "its container was made with GPUs by numbers that are others' now: snapshot it, and restore it from there"
)
_HOOK = "nvidia-container-runtime-hook"
_CONTROL_FILES = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset")


@dataclass(frozen=True, slots=True)
class Ways:
    """What the engine and this machine offer."""

    cdi: frozenset[str] = frozenset()
    """Names of the devices that CDI knows."""
    runtime: bool = False


def ways(info: Mapping[str, Any]) -> Ways:
    """Reads the engine's `GET /info` and the specifications in the folders that it names."""
    folders = [Path(folder) for folder in info.get("CDISpecDirs") or ()]
    runtime = "nvidia" in (info.get("Runtimes") or {}) or shutil.which(_HOOK) is not None
    return Ways(cdi_devices(folders), runtime)


def cdi_devices(folders: Iterable[Path]) -> frozenset[str]:
    """Names of the NVIDIA devices that specifications in these folders offer."""
    found: set[str] = set()
    for path in (
        path for folder in folders for path in folder.glob("*") if path.suffix in {".json", ".yaml"}
    ):
        with contextlib.suppress(OSError):
            state = path.stat()
            found |= _devices_of(path, state.st_mtime_ns, state.st_size)
    return frozenset(found)


@lru_cache(maxsize=16)
def _devices_of(path: Path, _modified: int, _size: int) -> frozenset[str]:
    """Read once for each state of the file: there may be a thousand lines."""
    import yaml  # noqa: PLC0415 - nodes without GPUs need it not; JSON is YAML too

    try:
        told = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return frozenset()
    if not isinstance(told, dict) or told.get("kind") != CDI_KIND:
        return frozenset()
    devices = told.get("devices")
    named = devices if isinstance(devices, list) else []
    return frozenset(str(each["name"]) for each in named if isinstance(each, dict) and "name" in each)


def chosen(wanted: Literal["auto"] | Access, found: Ways) -> Access | None:
    """The way to take; none when there is none."""
    if wanted != "auto":
        return wanted
    if found.cdi:
        return "cdi"
    return "runtime" if found.runtime else None


def host_config(
    access: Access,
    uuids: Sequence[str],
    numbers: Mapping[str, int],
    minors: Mapping[str, int],
    cdi: frozenset[str],
) -> dict[str, Any]:
    """What `HostConfig` says so that the container has these GPUs. `numbers` and `minors` go by UUID.

    Raises:
        StartFailedError: one of them cannot be given in this way.
    """
    if access == "runtime":
        return {"DeviceRequests": [{"DeviceIDs": list(uuids), "Capabilities": [["gpu"]]}]}
    if access == "cdi":
        names = [_cdi_name(uuid, numbers.get(uuid), cdi) for uuid in uuids]
        return {"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": [f"{CDI_KIND}={name}" for name in names]}]}
    missing = [uuid for uuid in uuids if uuid.startswith("MIG-") or minors.get(uuid, -1) < 0]
    if missing:
        raise StartFailedError(
            f"the GPU {missing[0]} has no device file of its own to give (runner.gpu_access)"
        )
    controls = [Path("/dev") / name for name in _CONTROL_FILES]
    files = [Path(f"/dev/nvidia{minors[uuid]}") for uuid in uuids] + [
        file for file in controls if file.exists()
    ]
    devices = [
        {"PathOnHost": str(file), "PathInContainer": str(file), "CgroupPermissions": "rw"} for file in files
    ]
    return {"Devices": devices}


def _cdi_name(uuid: str, number: int | None, known: frozenset[str]) -> str:
    """The toolkit names devices by UUID, by number, or both, as it was told to."""
    for name in (uuid, str(number)):
        if name in known:
            return name
    raise StartFailedError(
        f"CDI does not know the GPU {uuid}: write its specification anew (nvidia-ctk cdi generate)"
    )


def is_made_with(made: Mapping[str, Any], config: Mapping[str, Any], access: Access | None) -> bool:
    """Whether the `HostConfig` of a container, as the engine tells it, gives the GPUs that `config` would give today."""
    if access == "devices":
        return _paths(made) == _paths(config)
    return _asked(made) == _asked(config)


def _paths(config: Mapping[str, Any]) -> set[str]:
    files = {str(each.get("PathOnHost")) for each in config.get("Devices") or ()}
    return {file for file in files if file.removeprefix("/dev/nvidia").isdigit()}


def _asked(config: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [tuple(sorted(each.get("DeviceIDs") or ())) for each in config.get("DeviceRequests") or ()]


async def must_have(gpus: Gpus, uuids: Sequence[str]) -> None:
    """Waits until it is known which GPUs there are: a Runner that has just begun starts nothing before.

    Raises:
        EngineUnavailableError: a GPU that an attempt is to have cannot be given now.
    """
    await gpus.looked()
    if unusable := gpus.unusable(uuids):
        raise EngineUnavailableError("; ".join(unusable.values()))


def visible(access: Access | None, uuids: Sequence[str]) -> str:
    """`NVIDIA_VISIBLE_DEVICES` of a container: CUDA's images ask for all, which the toolkit's runtime would give."""
    return ",".join(uuids) if access == "runtime" and uuids else "void"
